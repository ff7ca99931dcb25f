//! What was found by chance once, step by step.
use super::{Model, Place, Step, Word};
use crate::swarm::PeerKey;

fn run(kept: &[u32], steps: impl IntoIterator<Item = Step>) -> Model {
    run_with(Some(2), kept, steps)
}

fn run_with(receive_slots: Option<u16>, kept: &[u32], steps: impl IntoIterator<Item = Step>) -> Model {
    let mut model = Model::new(&kept.iter().copied().collect(), false, 0, receive_slots);
    steps.into_iter().for_each(|step| model.step(step));
    model
}

#[test]
fn a_neighbour_that_lacks_only_what_waits_to_be_announced_is_offered_no_turn() {
    use Step::{Deliver, Join, Push, Say, Stored};
    let hears = [Join(2, Place::Inside), Say(2, Word::Interest), Say(2, Word::HaveFrame(0)), Join(0, Place::Inside)];
    let first = [Say(2, Word::Turn), Deliver(2, 0), Stored(true)];
    // Frame 1 is announced only some time after frame 0.
    let second = [Push(0, 1), Stored(true), Say(2, Word::Interest)];
    let mut model = run(&[], hears.into_iter().chain(first).chain(second));
    model.step(Step::Pass(1_000_000));
    assert!(model.swarm.peer(PeerKey(2)).unwrap().turn.is_some(), "and one as soon as it is announced");
}

#[test]
fn a_pass_that_crosses_an_announcement_costs_no_turn() {
    use Step::{Join, Push, Say, Stored};
    let offered = [Join(2, Place::Inside), Say(2, Word::Interest), Say(2, Word::HaveFrame(0)), Join(1, Place::Inside)];
    let model = run(&[0], offered.into_iter().chain([Push(1, 5), Stored(true), Say(2, Word::Pass)]));
    assert!(model.told.contains(&5) && model.swarm.peer(PeerKey(2)).unwrap().turn.is_some());
}

#[test]
fn a_turn_beyond_the_receive_slots_is_passed_until_one_of_them_is_free() {
    use Step::{Deliver, Join, Say};
    let offers =
        |peer: u16, index: u32| [Join(peer, Place::Inside), Say(peer, Word::HaveFrame(index)), Say(peer, Word::Turn)];
    // Those with an even number give turns.
    let three = || [0, 2, 4].into_iter().flat_map(|peer| offers(peer, u32::from(peer)));
    let mut model = run(&[], three());
    let passed = &model.peers[&4];
    assert!(passed.declined && passed.asked.is_empty() && !model.peers[&2].asked.is_empty());
    model.step(Deliver(0, 0));
    assert!(!model.peers[&4].declined, "it hears that it may send now");
    model.step(Say(4, Word::Turn));
    assert!(model.peers[&4].asked.contains(&4));
    let any_number = run_with(None, &[], three());
    assert!(
        [0, 2, 4].iter().all(|peer| !any_number.peers[peer].asked.is_empty()),
        "without receive slots all are asked"
    );
}
