//! Random schedules: loss, doubling, reordering, crashes of station and hosts at any instant, a planned move.
use branchline_protocol::{
    machine::Machine,
    session::{HostInput, HostState, Order, Stage},
};
use branchline_station_role::station::StationInput;
use proptest::prelude::*;

use super::{
    property_tests::cases,
    world::{Fate, World, node, plan_of},
};

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Completes),
        1 => Just(Fate::IsDenied),
        1 => (1u64..400).prop_map(Fate::IsDelayed),
        1 => Just(Fate::FailsToInstall),
        1 => Just(Fate::Conflicts),
    ]
}

fn expected(fate: Fate) -> Stage {
    match fate {
        Fate::Completes | Fate::IsDelayed(_) => Stage::Complete,
        Fate::IsDenied => Stage::Denied,
        Fate::FailsToInstall => Stage::RolledBack,
        Fate::FailsItsCheck => Stage::Attention,
        Fate::Conflicts => Stage::Refused,
    }
}

fn all_ended(world: &World) -> bool {
    world.fates.iter().all(|(host, fate)| {
        let known = world.station.machine.state().current(node(*host)).is_some();
        known && world.stage(*host) == expected(*fate)
    })
}

/// Faults for a while, then none: everybody must end as scripted.
fn run(seed: u64, fates: &[Fate], slots: u32, loss_percent: u64, crash_percent: u64) {
    let mut world = World::new(seed, fates, slots);
    if fates.len() >= 3 {
        world.groups.insert(1, "pair".into());
        world.groups.insert(3, "pair".into());
    }
    world.loss_percent = loss_percent;
    let mut moved = false;
    for step in 0..1500 {
        if !world.step() || (step > 100 && all_ended(&world)) {
            break;
        }
        if world.random.percent(crash_percent) {
            let victim = world.random.below(fates.len() as u64 + 1);
            match u8::try_from(victim).unwrap() {
                0 if !moved && world.random.percent(20) => {
                    // A planned move: the successor has the journal and a higher epoch.
                    world.setup.epoch.charter_version += 1;
                    world.crash_station();
                    moved = true;
                }
                0 => world.crash_station(),
                host => world.crash_host(host),
            }
        }
        assert!(world.station.machine.slots_held() <= slots);
    }
    world.loss_percent = 0;
    let ended = world.run_until(4 * 3600, all_ended);
    let stages: Vec<_> = world.fates.iter().map(|(host, fate)| (*fate, world.stage(*host))).collect();
    assert!(ended, "not all hosts ended as scripted: {stages:?}; {:?}", world.attentions);

    for (host, fate) in world.fates.clone() {
        let id = world.current(host);
        if expected(fate) == Stage::Complete {
            let approval = world.approvals.get(&id).expect("complete without an approval");
            assert_eq!(approval.plan, plan_of(id));
            assert!(world.station.machine.session_html(id).is_some());
        }
        assert!(world.refusals.is_empty(), "{:?}", world.refusals);
        let events = world.station.machine.session_events(id);
        assert!(events.windows(2).all(|pair| pair[0].number + 1 == pair[1].number), "events of {id} have gaps");
    }
    let kept = world.run_until(600, |world| {
        world
            .fates
            .iter()
            .filter(|(_, fate)| expected(**fate) == Stage::Complete)
            .all(|(host, _)| world.kept_reports.contains_key(host))
    });
    assert!(kept, "a complete host has no report");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(48), ..ProptestConfig::default() })]
    #[test]
    fn every_schedule_ends_as_scripted(
        seed: u64,
        fates in prop::collection::vec(fate(), 1..7),
        slots in 1u32..4,
        loss_percent in 0u64..30,
        crash_percent in 0u64..12,
    ) {
        run(seed, &fates, slots, loss_percent, crash_percent);
    }
}

#[test]
fn without_faults_five_hosts_complete_quickly() {
    let mut world = World::new(7, &[Fate::Completes; 5], 100);
    let began = world.now.wall.0;
    assert!(world.run_until(300, all_ended));
    assert!(world.now.wall.0 - began < 90, "{} s", world.now.wall.0 - began);
}

#[test]
fn slots_bound_how_many_install() {
    let mut world = World::new(8, &[Fate::Completes; 12], 3);
    let mut most = 0;
    let ended = world.run_until(3600, |world| {
        most = most.max(world.station.machine.slots_held());
        all_ended(world)
    });
    assert!(ended);
    assert_eq!(most, 3, "slots are used and never exceeded");
}

/// The station crashes before it has the host's survey, and orders it again. The plan that follows from the first
/// survey reaches a host that has a second one; it refuses, and says so in the report that first names the second.
#[test]
fn a_refusal_that_comes_with_a_newer_survey_is_no_end() {
    let mut world = World::new(3, &[Fate::Completes], 1);
    let is = |world: &World, state: &HostState| world.hosts[&1].machine.session().state == *state;
    let order = |world: &mut World| {
        let directive = Box::new(world.directives[&1].clone());
        world.hosts.get_mut(&1).unwrap().machine.handle(world.now, HostInput::Directive(directive));
    };
    assert!(world.run_until(60, |world| is(world, &HostState::Surveyed)), "its report is under way");
    world.crash_station();
    world.loss_percent = 100;
    world.tell_station(StationInput::RouterTrouble(None));
    order(&mut world);
    assert!(is(&world, &HostState::Joined), "it is to survey itself again");
    let planned = |world: &World| matches!(world.directives[&1].order, Order::Prepare { .. });
    assert!(world.run_until(60, |world| planned(world) && is(world, &HostState::Surveyed)));
    order(&mut world);
    let state = world.hosts[&1].machine.session().state.clone();
    assert!(matches!(&state, HostState::Refused { reason } if reason.contains("newest is")), "{state:?}");
    world.loss_percent = 0;
    assert!(world.run_until(600, all_ended), "{:?}", world.stage(1));
}
