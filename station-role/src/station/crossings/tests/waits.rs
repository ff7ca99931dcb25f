//! Who counts as waiting, and what people are told of it.
use super::*;

/// Nobody has a base, and the policy forbids the whole pack.
fn nothing_crosses() -> Desk {
    let mut desk = Desk::new(UpdateTravel::PatchOnly, vec![patch(SHORT, BASE_OF_SHORT)]);
    desk.input(10, CrossingInput::Keep { pack: WHOLE });
    assert_eq!(desk.here(10, &[]), [ask_members(BASE_OF_SHORT)]);
    assert_eq!(desk.at_members(10, BASE_OF_SHORT, false), []);
    desk
}

/// Recorded failure: where everybody had the update for long, a newcomer's first wish was told as one that waits, and gave
/// the decision up.
#[test]
fn the_first_wishes_of_newcomers_are_nothing_that_waits() {
    for travel in [UpdateTravel::Patch, UpdateTravel::PatchOnly] {
        let mut desk = Desk::with_patch(travel);
        for number in 0..20 {
            let newcomer = NodeId([100 + number; 32]);
            for seconds in [0, 2, 4] {
                let now = 5000 + 3 * u64::from(number) + seconds;
                assert_eq!(desk.wish(now, newcomer, WHOLE), [no(newcomer, WHOLE)], "{travel:?} at {now}");
            }
        }
        let patch = Crossing::Patch { patch: SHORT, by_station: false };
        assert_eq!(desk.desk.crossing(WHOLE), Some(patch), "{travel:?}");
        assert_eq!(desk.desk.poll_timeout(), None);
    }
    let mut desk = nothing_crosses();
    assert_eq!(desk.wish(20, HOST, WHOLE), [no(HOST, WHOLE)]);
    // A minute later it is looked for a base again, and still there is only this one wish.
    assert_eq!(desk.wish(70, OTHER, WHOLE).len(), 1);
    assert_eq!(desk.here(70, &[]), [ask_members(BASE_OF_SHORT)]);
    assert_eq!(desk.timeout(82), [no(OTHER, WHOLE)]);
}

#[test]
fn whoever_goes_on_wishing_waits_until_no_wish_has_come_for_a_minute() {
    let mut desk = nothing_crosses();
    assert_eq!(desk.waits(30, HOST), [no(HOST, WHOLE), tell(CrossingNews::NoBase)]);
    assert_eq!(desk.wish(40, OTHER, WHOLE), [no(OTHER, WHOLE)]);
    assert_eq!(desk.wish(60, HOST, WHOLE), [no(HOST, WHOLE)]);
    assert_eq!(desk.desk.poll_timeout().unwrap().at, Now::from_seconds(120).monotonic);
    assert_eq!(desk.timeout(119), []);
    assert_eq!(desk.timeout(120), [tell(CrossingNews::Over)]);
    assert_eq!(desk.desk.poll_timeout(), None);
    // Whoever comes after that has to wait as well before people are told again.
    assert_eq!(desk.wish(130, HOST, WHOLE).len(), 1);
    assert_eq!(desk.here(130, &[]), [ask_members(BASE_OF_SHORT)]);
    assert_eq!(desk.at_members(130, BASE_OF_SHORT, false), [no(HOST, WHOLE)]);
    assert_eq!(desk.wish(140, HOST, WHOLE), [no(HOST, WHOLE), tell(CrossingNews::NoBase)]);
}

#[test]
fn who_waits_through_a_long_search_is_told_of_at_its_end() {
    let mut desk = Desk::new(UpdateTravel::PatchOnly, both());
    assert_eq!(desk.wish(10, HOST, WHOLE), [look_here()]);
    assert_eq!(desk.here(10, &[]), [ask_members(BASE_OF_SHORT)]);
    desk.wish(14, HOST, WHOLE);
    desk.wish(22, HOST, WHOLE);
    assert_eq!(desk.timeout(34), [tell(CrossingNews::NoBase), no(HOST, WHOLE)]);
    // The search after it does not end what people were told, however long it takes.
    assert_eq!(desk.wish(94, OTHER, WHOLE), [tell(CrossingNews::Over), look_here()], "a minute without a wish");
}

#[test]
fn while_a_base_is_looked_for_nobody_is_silent() {
    let patches: Vec<PatchFrom> = (30..36).map(|number| patch(pack(number), pack(number + 10))).collect();
    let mut desk = Desk::new(UpdateTravel::PatchOnly, patches);
    let search = |desk: &mut Desk, from: u64| {
        for number in 0..6 {
            assert_eq!(desk.timeout(from + 12 + 12 * number), [ask_members(pack(40 + number as u8))]);
        }
        desk.timeout(from + 84)
    };
    assert_eq!(desk.wish(10, HOST, WHOLE).len(), 1);
    assert_eq!(search(&mut desk, 10), [no(HOST, WHOLE)]);
    assert_eq!(desk.waits(150, HOST), [no(HOST, WHOLE), tell(CrossingNews::NoBase)]);
    assert_eq!(desk.wish(160, HOST, WHOLE).len(), 1);
    assert_eq!(search(&mut desk, 160), [no(HOST, WHOLE), tell(CrossingNews::Over)]);
}
