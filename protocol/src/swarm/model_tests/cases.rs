//! What was found by chance once, step by step.
use super::{Model, Place, Step, Word};
use crate::swarm::PeerKey;

fn run(kept: &[u32], steps: impl IntoIterator<Item = Step>) -> Model {
    let mut model = Model::new(&kept.iter().copied().collect(), false, 0);
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
