//! One identity, two machines (R99); and one machine that has moved (R116).
use std::net::Ipv4Addr;

use branchline_protocol::session::Stage;
use branchline_station_role::station::{StationInput, Steering};

use super::{
    rules::run_to,
    world::{Fate, World, node},
};

#[test]
fn one_identity_on_two_machines_is_refused_and_shown() {
    let mut world = World::new(8, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    let mut copy = world.hosts[&1].machine.report();
    copy.machine_identifier = "another machine".into();
    copy.revision += 10;
    world.tell_station(StationInput::Report(node(1), Box::new(copy)));
    assert!(world.refusals[0].1.contains("one of them is a copy"));
    assert!(world.attentions.iter().any(|text| text.contains("one of them is a copy")));
    assert_eq!(world.stage(1), Stage::Complete, "the first machine stays");
}

#[test]
fn one_identity_at_two_addresses_is_unmapped_until_a_person_decides() {
    let mut world = World::new(9, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    world.run_until(100, |_| false);
    let mut copy = world.hosts[&1].machine.report();
    copy.inside = Ipv4Addr::new(10, 1, 0, 77);
    world.tell_station(StationInput::Report(node(1), Box::new(copy)));
    assert_eq!(world.stage(1), Stage::Attention);
    assert_eq!(world.station.machine.state().hosts[&node(1)].mapped, None);
    let session = world.current(1);
    world.tell_station(StationInput::Retry { session, by: "bea".into() });
    run_to(&mut world, 1, Stage::Complete);
    assert!(world.run_until(100, |world| world.station.machine.state().hosts[&node(1)].mapped.is_some()));
}

/// Found by the fault simulation (seed 451): the suspicion was cleared, the host got another address, and stayed out of
/// monitoring, since headquarters had only ever probed the former one.
#[test]
fn a_cleared_suspicion_leads_to_a_new_verification_where_the_mapped_address_is_another() {
    let mut world = World::new(9, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    world.run_until(100, |_| false);
    let mut copy = world.hosts[&1].machine.report();
    copy.inside = Ipv4Addr::new(10, 1, 0, 77);
    world.tell_station(StationInput::Report(node(1), Box::new(copy)));
    let session = world.current(1);
    let attempt = world.station.machine.state().sessions[&session].attempt;
    world.tell_station(StationInput::Retry { session, by: "bea".into() });
    let inside = world.station.machine.state().hosts[&node(1)].inside;
    let mapped = Ipv4Addr::new(198, 51, 100, 250);
    world.tell_station(StationInput::Mapped { node: node(1), inside, mapped });
    assert_ne!(world.stage(1), Stage::Complete, "nothing was seen at the new address yet");
    run_to(&mut world, 1, Stage::Complete);
    assert!(world.station.machine.state().sessions[&session].attempt > attempt, "probed anew");
}

/// A copy with the same machine identifier (a cloned disk) moves on from the journal that was copied, so that its
/// reports are newer. The machine at the former address goes on as well: that is no move.
#[test]
fn a_clone_that_seems_to_be_a_move_is_found_out_when_the_first_machine_reports_again() {
    let mut world = World::new(9, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    world.run_until(100, |_| false);
    let first = world.hosts[&1].machine.report();
    let mut clone = first.clone();
    (clone.inside, clone.revision) = (Ipv4Addr::new(10, 1, 0, 77), first.revision + 1);
    world.tell_station(StationInput::Report(node(1), Box::new(clone)));
    world.tell_station(StationInput::Report(node(1), Box::new(first)));
    assert_ne!(world.stage(1), Stage::Attention, "a late message alone shows nothing");
    world.run_until(120, |world| world.stage(1) == Stage::Attention);
    assert_eq!(world.stage(1), Stage::Attention);
    assert_eq!(world.station.machine.state().hosts[&node(1)].mapped, None);
}

#[test]
fn a_refused_copy_is_a_warning_until_a_person_has_seen_it() {
    let mut world = World::new(8, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    for number in [1, 1, 2, 3, 4, 5] {
        let text = format!("machine {number} shows the identity of machine 0");
        world.tell_station(StationInput::CopySeen { node: node(1), text });
    }
    let id = world.current(1);
    let view = world.station.machine.session(id).unwrap();
    assert_eq!((view.stage, view.warnings.len()), (Stage::Complete, 4), "{view:?}");
    assert_eq!(world.station.machine.profile(id).unwrap().warnings, view.warnings);
    assert!(view.history.iter().any(|line| line.text.contains("machine 4 shows")));
    assert!(view.mapped.is_some(), "the host itself goes on");
    world.tell_station(StationInput::Retry { session: id, by: "bea".into() });
    let view = world.station.machine.session(id).unwrap();
    assert_eq!((view.stage, view.warnings.len()), (Stage::Complete, 0));
}

#[test]
fn a_new_inside_address_is_taken_over() {
    let mut world = World::new(10, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    world.inside.insert(1, Ipv4Addr::new(10, 1, 0, 99));
    world.crash_host(1);
    let view = |world: &World| world.station.machine.session(world.current(1)).unwrap();
    let before = view(&world);
    let moved = |world: &World| view(world).inside == Ipv4Addr::new(10, 1, 0, 99);
    assert!(world.run_until(100, moved));
    let at_once = view(&world);
    assert_eq!((at_once.mapped, at_once.verified), (None, false), "the row still leads to where the host was");
    run_to(&mut world, 1, Stage::Complete);
    let after = view(&world);
    assert_eq!((after.mapped, after.verified, after.has_report), (before.mapped, true, true));
    let attempts = world.station.machine.state().sessions[&world.current(1)].attempt;
    assert!(attempts >= 2, "headquarters probed the mapped address anew");
    assert!(world.refusals.is_empty(), "{:?}", world.refusals);
}

/// R116: while the router cannot be written, its row goes on to lead to where the host was. Nobody scrapes that.
#[test]
fn a_moved_host_is_no_target_before_the_router_leads_to_it() {
    let mut world = World::new(12, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    world.run_until(100, |_| false);
    let mapped = world.station.machine.state().hosts[&node(1)].mapped;
    let mut moved = world.hosts[&1].machine.report();
    let (former, inside) = (moved.inside, Ipv4Addr::new(10, 1, 0, 99));
    (moved.inside, moved.revision) = (inside, moved.revision + 1);
    world.tell_station(StationInput::Report(node(1), Box::new(moved)));
    let profile = world.station.machine.profile(world.current(1)).unwrap();
    assert_eq!((profile.mapped, profile.stage), (None, Stage::Approved));
    // What the router said of the former place is of no interest any more.
    world.tell_station(StationInput::Mapped { node: node(1), inside: former, mapped: mapped.unwrap() });
    assert_eq!(world.station.machine.state().hosts[&node(1)].mapped, None);
    world.tell_station(StationInput::Mapped { node: node(1), inside, mapped: mapped.unwrap() });
    assert_eq!(world.station.machine.state().hosts[&node(1)].mapped, mapped);
    assert!(
        world
            .station
            .machine
            .session(world.current(1))
            .unwrap()
            .history
            .iter()
            .any(|line| { line.text == "Inside address is 10.1.0.99 now." })
    );
}

#[test]
fn a_word_that_changes_nothing_meets_an_objection_and_one_that_does_meets_none() {
    let mut world = World::new(11, &[Fate::Completes], 10);
    world.run_until(1000, |world| !world.station.machine.state().hosts.is_empty());
    let objects = |world: &World, steering| world.station.machine.objection(world.current(1), steering).is_some();
    let every = [Steering::Cancel, Steering::Retry, Steering::Update, Steering::Withdraw];
    assert_eq!(every.map(|steering| objects(&world, steering)), [false, true, true, false], "while it goes on");
    run_to(&mut world, 1, Stage::Complete);
    assert_eq!(every.map(|steering| objects(&world, steering)), [true, true, false, false], "complete");
    let session = world.current(1);
    world.tell_station(StationInput::CopySeen { node: node(1), text: "a copy".into() });
    assert!(!objects(&world, Steering::Retry), "a warning waits for a person");
    world.tell_station(StationInput::Retry { session, by: "bea".into() });
    world.tell_station(StationInput::NewGeneration { node: node(1), by: "bea".into() });
    assert!(world.station.machine.objection(session, Steering::Cancel).is_some(), "of an earlier generation");
    world.tell_station(StationInput::Withdraw { session: world.current(1), by: "bea".into() });
    assert!(every.iter().all(|steering| objects(&world, *steering)), "withdrawn");
}
