//! A withdrawn host is put out, whoever does not answer (R98).
use branchline_protocol::session::Stage;
use branchline_station_role::station::StationInput;

use super::{
    rules::run_to,
    world::{Fate, World, node},
};

#[test]
fn a_withdrawn_host_that_is_gone_is_revoked_after_a_while() {
    let mut world = World::new(7, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    let id = world.current(1);
    world.hosts.clear();
    let before = world.now.wall.0;
    world.tell_station(StationInput::Withdraw { session: id, by: "bea".into() });
    assert!(world.run_until(5000, |world| world.revoked.contains(&node(1))));
    assert!((590..700).contains(&(world.now.wall.0 - before)));
}

#[test]
fn a_withdrawn_host_is_revoked_though_the_router_keeps_its_row() {
    let mut world = World::new(7, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    let id = world.current(1);
    world.router_off = true;
    let before = world.now.wall.0;
    world.tell_station(StationInput::Withdraw { session: id, by: "bea".into() });
    assert!(world.run_until(5000, |world| world.revoked.contains(&node(1))));
    assert!((590..700).contains(&(world.now.wall.0 - before)));
    assert!(!world.installed.contains_key(&1));
    let unmapped =
        |world: &World| world.station.machine.session(id).unwrap().history.iter().any(|line| line.text == "Unmapped.");
    assert!(!unmapped(&world), "the row is still to go");
    world.tell_station(StationInput::Unmapped { node: node(1) });
    assert!(unmapped(&world));
}
