//! What must hold whatever is lost, late or repeated; and the rules one by one.
use std::collections::BTreeMap;

use branchline_protocol::{ids::Epoch, machine::Machine};
use proptest::prelude::*;

use self::world::{INTERFACE, Step, World, inside, mapped, node, step, take};
use super::*;
use crate::router::{NatRow, RowIndex, RowKey};

mod world;

fn run(conditional_create: bool, steps: &[Step]) -> World {
    let mut world = World::new(conditional_create);
    for step in steps {
        take(&mut world, step);
        world.check_no_double();
    }
    let foreign = world.router.table.rows.get(&RowKey { interface: INTERFACE, index: 1 }).cloned();
    world.heal();
    let found = world.router.table.rows.get(&RowKey { interface: INTERFACE, index: 1 }).cloned();
    assert_eq!(found, foreign, "a foreign row was touched");

    let state = world.machine.state();
    let desired = state.desired();
    let plan = plan(&desired, &world.router.table, &world.setup.ownership);
    assert_eq!(plan.operations, vec![], "the router is not as it should be");
    let blocked: Vec<RowIndex> = plan.conflicts.iter().map(Conflict::row).collect();
    let expected: BTreeMap<_, _> = desired.into_iter().filter(|(row, _)| !blocked.contains(row)).collect();
    assert_eq!(world.ours(), expected, "a mapping leaked or is missing");
    assert!(state.leaving.is_empty(), "rows that never go: {:?}", state.leaving);
    assert!(state.resting.is_empty(), "addresses that rest for ever");
    for (row, wanted) in expected {
        let (node, binding) =
            state.bindings.iter().find(|(_, binding)| binding.place.is_some_and(|(_, at)| at == row)).unwrap();
        assert!(binding.confirmed, "row {row} was never confirmed");
        assert_eq!(world.announced.get(node), Some(&wanted.mapped), "the station was not told");
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::property_tests::cases(400), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_lost_nothing_leaks_and_nothing_doubles(steps in prop::collection::vec(step(), 0..80)) {
        run(true, &steps);
    }

    #[test]
    fn without_conditional_creation_a_double_is_repaired(steps in prop::collection::vec(step(), 0..80)) {
        run(false, &steps);
    }
}

/// The word that a host is unmapped may be lost with the process; the station asks again.
#[test]
fn an_address_whose_release_a_crash_left_untold_goes_to_another_host() {
    use Step::{Answer, Bind, Crash, ForeignRow, Grant, Pass, Release, RowChanges, Sync};
    let steps = [
        Grant,
        Sync,
        Answer,
        Bind(1, 1),
        Sync,
        Answer,
        RowChanges(0),
        Sync,
        Answer,
        Sync,
        Answer,
        Pass(100),
        Release(1),
        Answer,
        ForeignRow(1, 1),
        Bind(2, 2),
        Crash(3, 0),
        Pass(700),
    ];
    for conditional_create in [true, false] {
        let world = run(conditional_create, &steps);
        assert!(!world.announced.contains_key(&node(1)) && world.announced.contains_key(&node(2)));
    }
}

/// A host is released and wished for again before its row is gone; another has its inside address now, so that it is
/// refused. The word that its row went is lost with the process, and its address goes to another host.
#[test]
fn an_address_whose_refused_host_a_crash_left_untold_goes_to_another_host() {
    use Step::{Answer, Bind, Crash, Grant, Pass, Release, Sync};
    let mapped = [Grant, Sync, Answer, Bind(4, 3), Sync, Answer, Sync, Answer, Bind(5, 1), Sync, Answer, Sync, Answer];
    let refused = [Release(4), Bind(4, 1), Sync, Answer, Crash(9, 0), Pass(700), Bind(2, 2)];
    for conditional_create in [true, false] {
        let world = run(conditional_create, &[mapped.as_slice(), refused.as_slice()].concat());
        assert!(!world.announced.contains_key(&node(4)));
        assert_eq!(world.announced.get(&node(2)), Some(&world::mapped(0)));
    }
}

fn bind(number: u8) -> AddressInput {
    AddressInput::Bind { node: node(number), machine_identifier: format!("m{number}"), inside: inside(number) }
}

fn settle(world: &mut World) {
    for _ in 0..50 {
        world.sync();
        if world.outstanding.is_none() {
            break;
        }
        world.answer(true, true);
    }
}

#[test]
fn a_batch_is_asked_for_before_the_present_one_is_empty() {
    let mut world = World::new(true);
    assert_eq!(world.batches_asked, 1, "a site without addresses asks at once");
    world.grant();
    world.grant();
    for number in 1..=6 {
        world.input(bind(number));
    }
    settle(&mut world);
    assert_eq!((world.announced.len(), world.batches_asked), (6, 1), "2 of 8 are free");
    world.input(bind(7));
    settle(&mut world);
    assert_eq!(world.batches_asked, 1, "asked at most once in an interval");
    world.pass(61);
    assert_eq!((world.announced.len(), world.batches_asked), (7, 2), "one is left");
}

#[test]
fn hosts_wait_for_addresses_and_rested_ones_come_back() {
    let mut world = World::new(true);
    world.grant();
    for number in 1..=5 {
        world.input(bind(number));
        settle(&mut world);
    }
    assert_eq!(world.announced.len(), 4);
    world.input(AddressInput::Release { node: node(2) });
    settle(&mut world);
    assert_eq!(world.announced.len(), 3, "the released address rests");
    world.pass(599);
    settle(&mut world);
    assert!(!world.announced.contains_key(&node(5)));
    for _ in 0..4 {
        world.pass(60);
        settle(&mut world);
    }
    assert_eq!(world.announced.get(&node(5)), Some(&mapped(1)));
}

#[test]
fn one_identity_on_two_machines_and_one_address_for_two_hosts_are_refused() {
    let mut world = World::new(true);
    world.grant();
    world.input(bind(1));
    settle(&mut world);
    world.input(AddressInput::Bind { node: node(1), machine_identifier: "other".into(), inside: inside(9) });
    world.input(AddressInput::Bind { node: node(2), machine_identifier: "m2".into(), inside: inside(1) });
    let reasons: Vec<String> = world
        .held
        .iter()
        .filter_map(|output| match &output.output {
            AddressOutput::BindRefused { refusal, .. } => Some(format!("{:?}: {refusal}", refusal.kind)),
            _ => None,
        })
        .collect();
    insta::assert_snapshot!(reasons.join("\n"));
}

#[test]
fn a_moved_host_keeps_its_mapped_address_and_gets_a_new_row() {
    let mut world = World::new(true);
    world.grant();
    world.input(bind(1));
    settle(&mut world);
    let before = world.ours();
    world.input(AddressInput::InsideChanged { node: node(1), inside: inside(44) });
    settle(&mut world);
    let after = world.ours();
    assert_eq!(after.values().next(), Some(&DesiredRow { inside: inside(44), mapped: mapped(0) }));
    assert_ne!(before.keys().next(), after.keys().next(), "the index was not used twice");
}

#[test]
fn a_later_epoch_makes_the_station_stand_down_until_it_has_proved_its_warrant() {
    let mut world = World::new(true);
    world.grant();
    let later = RowIndex::new(crate::router::RowGeneration::new(2, 0).unwrap(), 1).unwrap();
    let key = RowKey { interface: INTERFACE, index: later.raw() };
    world.router.table.rows.insert(key, NatRow::one_to_one("branchline", inside(99), mapped(3)));
    settle(&mut world);
    assert_eq!(world.machine.superseded_by(), Some(later.generation()));
    world.input(bind(1));
    settle(&mut world);
    world.pass(300);
    settle(&mut world);
    assert_eq!(world.ours().len(), 1, "nothing was written");
    world.setup.ownership.generation = later.generation();
    world.input(AddressInput::WarrantProved { epoch: Epoch { charter_version: 2, term: 0 } });
    settle(&mut world);
    assert_eq!(world.announced.get(&node(1)), Some(&mapped(0)));
}

#[test]
fn a_router_that_does_not_answer_is_asked_less_and_less_often() {
    let mut world = World::new(true);
    let mut asked = Vec::new();
    for _ in 0..10 {
        world.sync();
        asked.push(world.now.wall.0);
        world.answer(false, false);
        let at = world.machine.reconcile_deadline().unwrap().at;
        world.at(at);
        world.machine.handle_timeout(world.now);
        world.collect();
    }
    let waits: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
}
