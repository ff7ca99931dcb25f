//! What the station keeps.
use branchline_protocol::limits::CROSSING_KEPT_MAX;

use super::*;

fn keep(desk: &mut Desk, pack: PackId) -> Vec<CrossingOutput> {
    desk.input(10, CrossingInput::Keep { pack })
}

/// Recorded failure: the station's word was forgotten where the pack was no update yet, so that another node brought the
/// patch, or nobody until somebody wished.
#[test]
fn what_the_station_keeps_is_decided_for_it_once_a_document_makes_it_an_update() {
    let mut desk = Desk::empty();
    assert_eq!(keep(&mut desk, WHOLE), []);
    assert_eq!(desk.documents(11, UpdateTravel::Patch, vec![]), []);
    assert_eq!(desk.documents(12, UpdateTravel::Patch, both()), [look_here()]);
    assert_eq!(desk.here(12, &[BASE_OF_SHORT]), []);
    assert_eq!(desk.wish(12, HOST, SHORT), [yes_and_the_station_brings(HOST, SHORT)]);

    // The pack may stop being an update for a while.
    assert_eq!(desk.documents(13, UpdateTravel::Patch, vec![]), []);
    assert_eq!(desk.documents(14, UpdateTravel::Patch, vec![patch(LONG, BASE_OF_LONG)]).len(), 1);
    assert_eq!(desk.here(14, &[BASE_OF_LONG]), []);
    assert_eq!(desk.wish(14, HOST, LONG), [yes_and_the_station_brings(HOST, LONG)]);

    // What it does not keep is not its to bring.
    let mut desk = Desk::empty();
    keep(&mut desk, ELSE);
    assert_eq!(desk.documents(12, UpdateTravel::Patch, both()), []);
    desk.wish(12, HOST, SHORT);
    assert_eq!(desk.here(12, &[BASE_OF_SHORT]), [yes(HOST, SHORT)]);
}

#[test]
fn of_too_many_kept_packs_the_oldest_that_is_no_update_is_forgotten() {
    let number = |number: usize| PackId(Hash::of(&number.to_be_bytes()));
    let mut desk = Desk::new(UpdateTravel::Whole, both());
    keep(&mut desk, WHOLE);
    (0..CROSSING_KEPT_MAX).for_each(|other| drop(keep(&mut desk, number(other))));
    // The update was the oldest, and number 0 was said before number 1.
    let offer = |travel| UpdateOffer { travel, patches: both() };
    let updates = [WHOLE, number(0), number(1)].map(|pack| (pack, offer(UpdateTravel::Patch))).into();
    let looks = desk.input(11, CrossingInput::Documents { updates });
    let pack_of = |output: CrossingOutput| match output {
        CrossingOutput::LookHere { pack, .. } => pack,
        other => panic!("{other:?}"),
    };
    let looked: BTreeSet<PackId> = looks.into_iter().map(pack_of).collect();
    assert_eq!(looked, BTreeSet::from([WHOLE, number(1)]));
}
