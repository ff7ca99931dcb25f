//! What follows where a check or a probe fails (R94, R95).
use std::net::Ipv4Addr;

use branchline_protocol::{
    catalogue::UndeclaredRule,
    charter::UnverifiedAction,
    session::{HostState, Stage},
};
use branchline_station_role::station::{StationInput, Steering};

use super::{
    rules::{assert_has_its_report_everywhere, run_to},
    world::{Fate, World, node},
};

#[test]
fn a_failed_check_unmaps_and_holds_until_a_person_retries() {
    let mut world = World::new(5, &[Fate::FailsItsCheck], 10);
    run_to(&mut world, 1, Stage::Attention);
    let id = world.current(1);
    let view = world.station.machine.session(id).unwrap();
    assert!(view.reason.contains("no answer at port 9100"), "{}", view.reason);
    assert_eq!((view.mapped, view.verified, view.has_report), (None, false, false));
    world.mended.insert(1);
    world.tell_station(StationInput::Retry { session: id, by: "bea".into() });
    run_to(&mut world, 1, Stage::Complete);
    assert_eq!(world.station.machine.state().sessions[&id].attempt, 2);
}

/// R95: hold or roll back, as the charter says. Of an update the version before is put back (R97).
#[test]
fn a_failed_check_rolls_back_where_the_charter_wants_it() {
    let mut world = World::new(5, &[Fate::FailsItsCheck], 10);
    world.setup.policies.on_unverified = UnverifiedAction::RollBack;
    world.crash_station();
    run_to(&mut world, 1, Stage::RolledBack);
    world.run_until(100, |_| false);
    let view = world.station.machine.session(world.current(1)).unwrap();
    assert!(view.reason.contains("no answer at port 9100"), "{}", view.reason);
    assert!(view.reason.contains("the agent is removed"), "{}", view.reason);
    assert_eq!((view.mapped, view.verified), (None, false));
    assert!(matches!(view.host_state, HostState::Withdrawn { uninstalled: true }), "{:?}", view.host_state);
    assert!(!world.station.machine.state().hosts[&node(1)].revoked, "it is a member as before");
    assert_has_its_report_everywhere(&world, 1);

    // Mended, it is installed and verified anew; an update of it that fails leaves the version before, unmapped.
    world.mended.insert(1);
    let session = world.current(1);
    world.tell_station(StationInput::Retry { session, by: "bea".into() });
    run_to(&mut world, 1, Stage::Complete);
    world.mended.remove(&1);
    world.tell_station(StationInput::NewGeneration { node: node(1), by: "bea".into() });
    run_to(&mut world, 1, Stage::RolledBack);
    world.run_until(100, |_| false);
    let view = world.station.machine.session(world.current(1)).unwrap();
    assert!(view.reason.contains("the version before is put back"), "{}", view.reason);
    assert!(matches!(view.host_state, HostState::Failed { rolled_back: true, .. }), "{:?}", view.host_state);
    assert_eq!((view.mapped, view.verified), (None, false));
    assert_eq!(world.station.machine.state().hosts[&node(1)].mapped, None, "a failed verification unmaps (R94)");
    world.tell_station(StationInput::NewGeneration { node: node(1), by: "bea".into() });
    let next = world.current(1);
    assert!(
        world.station.machine.state().sessions[&next].is_update,
        "the version before runs: it is asked first (R97)"
    );
    world.mended.insert(1);
    run_to(&mut world, 1, Stage::Complete);
    world.run_until(100, |_| false);

    // What was verified once is not rolled back where it is not reached at another address.
    world.mended.remove(&1);
    world.inside.insert(1, Ipv4Addr::new(10, 1, 0, 99));
    world.crash_host(1);
    run_to(&mut world, 1, Stage::Attention);
    let view = world.station.machine.session(world.current(1)).unwrap();
    assert!(matches!(view.host_state, HostState::Checked { .. }), "{:?}", view.host_state);
}

/// A host that is off has not put the version before back: a new generation would take that order's place.
#[test]
fn no_generation_begins_before_the_version_before_is_back() {
    let mut world = World::new(5, &[Fate::FailsItsCheck], 10);
    world.setup.policies.on_unverified = UnverifiedAction::RollBack;
    world.crash_station();
    world.mended.insert(1);
    run_to(&mut world, 1, Stage::Complete);
    world.mended.remove(&1);
    world.tell_station(StationInput::NewGeneration { node: node(1), by: "bea".into() });
    run_to(&mut world, 1, Stage::RolledBack);
    let session = world.current(1);
    assert!(
        world.station.machine.objection(session, Steering::Update).is_some_and(|text| text.contains("has yet to put"))
    );
    world.tell_station(StationInput::NewGeneration { node: node(1), by: "bea".into() });
    assert_eq!(world.current(1), session);
    world.run_until(100, |_| false);
    assert_eq!(world.station.machine.objection(session, Steering::Update), None);
    assert_has_its_report_everywhere(&world, 1);
}

#[test]
fn an_undeclared_port_that_answers_unmaps_until_the_policy_only_reports_it() {
    let mut world = World::new(8, &[Fate::Completes; 2], 10);
    world.open.insert(1);
    run_to(&mut world, 1, Stage::Attention);
    run_to(&mut world, 2, Stage::Complete);
    let id = world.current(1);
    let view = world.station.machine.session(id).unwrap();
    assert!(view.reason.starts_with("port 22 of 10.1.0.1 answers through the mapping"), "{}", view.reason);
    assert!(view.reason.contains("pass only 9100/tcp to 10.1.0.1, or set `undeclared_ports"), "{}", view.reason);
    assert_eq!((view.mapped, view.verified, view.has_report), (None, false, false));
    world.undeclared_rule = UndeclaredRule::Report;
    world.tell_station(StationInput::Retry { session: id, by: "bea".into() });
    run_to(&mut world, 1, Stage::Complete);
    let view = world.station.machine.session(id).unwrap();
    assert!(view.mapped.is_some() && view.findings.len() == 1, "{view:?}");
    let said = world.attentions.iter().filter(|text| **text == view.findings[0]).count();
    assert_eq!(said, 1, "people are told: {:?}", world.attentions);
    let other = world.station.machine.session(world.current(2)).unwrap();
    assert!(other.findings.is_empty(), "{other:?}");
}
