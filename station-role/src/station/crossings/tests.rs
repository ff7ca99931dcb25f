#![allow(clippy::unwrap_used)]
use std::collections::{BTreeMap, BTreeSet};

use branchline_protocol::{
    catalogue::UpdateTravel,
    ids::{Hash, ImageId, NodeId, PackId},
    machine::{Journaled, Machine, Record, Sequence},
    time::Now,
    wire::codec,
};

use super::*;

mod keeping;
mod properties;
mod waits;

const STATION: NodeId = NodeId([1; 32]);
const HOST: NodeId = NodeId([2; 32]);
const OTHER: NodeId = NodeId([3; 32]);
/// The update of most tests, and something else.
const WHOLE: PackId = pack(9);
const ELSE: PackId = pack(99);
/// Two patches to it, the shorter one first, and the packs of their bases.
const SHORT: PackId = pack(10);
const LONG: PackId = pack(20);
const BASE_OF_SHORT: PackId = pack(11);
const BASE_OF_LONG: PackId = pack(21);

const fn pack(number: u8) -> PackId {
    PackId(Hash([number; 32]))
}

fn image(pack: PackId) -> ImageId {
    ImageId(pack.0)
}

fn patch(patch: PackId, base: PackId) -> PatchFrom {
    PatchFrom { patch, bytes: u64::from(patch.0.0[0]), base: image(base), base_pack: Some(base) }
}

fn both() -> Vec<PatchFrom> {
    vec![patch(LONG, BASE_OF_LONG), patch(SHORT, BASE_OF_SHORT)]
}

struct Desk {
    desk: CrossingDesk,
    journal: Vec<Record<CrossingEvent>>,
}

impl Desk {
    fn empty() -> Self {
        Self { desk: CrossingDesk::recover(CrossingSetup, Now::default(), []), journal: vec![] }
    }

    fn new(travel: UpdateTravel, patches: Vec<PatchFrom>) -> Self {
        let mut desk = Self::empty();
        assert_eq!(desk.documents(0, travel, patches), []);
        desk
    }

    /// What the next process knows.
    fn restarted(&self) -> Self {
        let through_the_disk = |record: &Record<CrossingEvent>| {
            let bytes = codec::encode(&record.event, 1 << 20).unwrap();
            Record { sequence: record.sequence, event: codec::decode(&bytes, 1 << 20).unwrap() }
        };
        let journal: Vec<_> = self.journal.iter().map(through_the_disk).collect();
        assert_eq!(journal, self.journal);
        Self { desk: CrossingDesk::recover(CrossingSetup, Now::default(), journal.clone()), journal }
    }

    fn outputs(&mut self) -> Vec<CrossingOutput> {
        self.desk.check_invariants();
        self.journal.extend(std::iter::from_fn(|| self.desk.poll_record()));
        let durable = self.journal.last().map_or(Sequence(0), |record| record.sequence);
        let outputs = std::iter::from_fn(|| self.desk.poll_output());
        outputs.inspect(|output| assert!(output.after <= durable)).map(|output| output.output).collect()
    }

    fn input(&mut self, seconds: u64, input: CrossingInput) -> Vec<CrossingOutput> {
        self.desk.handle(Now::from_seconds(seconds), input);
        self.outputs()
    }

    fn documents(&mut self, seconds: u64, travel: UpdateTravel, patches: Vec<PatchFrom>) -> Vec<CrossingOutput> {
        let updates = BTreeMap::from([(WHOLE, UpdateOffer { travel, patches })]);
        self.input(seconds, CrossingInput::Documents { updates })
    }

    fn wish(&mut self, seconds: u64, node: NodeId, pack: PackId) -> Vec<CrossingOutput> {
        self.input(seconds, CrossingInput::Wish { node, pack })
    }

    fn here(&mut self, seconds: u64, bases: &[PackId]) -> Vec<CrossingOutput> {
        let bases = bases.iter().map(|base| image(*base)).collect();
        self.input(seconds, CrossingInput::Here { pack: WHOLE, bases })
    }

    fn at_members(&mut self, seconds: u64, base: PackId, held: bool) -> Vec<CrossingOutput> {
        self.input(seconds, CrossingInput::AtMembers { pack: WHOLE, base, held })
    }

    fn timeout(&mut self, seconds: u64) -> Vec<CrossingOutput> {
        self.desk.handle_timeout(Now::from_seconds(seconds));
        self.outputs()
    }

    /// A node wishes for the whole pack again and again for ten seconds; what the last wish leads to.
    fn waits(&mut self, until: u64, node: NodeId) -> Vec<CrossingOutput> {
        for seconds in [until - 10, until - 8, until - 6, until - 4, until - 2] {
            assert_eq!(self.wish(seconds, node, WHOLE), [no(node, WHOLE)], "at second {seconds}");
        }
        self.wish(until, node, WHOLE)
    }

    /// A desk that has decided for the shorter patch, of which a member has the base, at second ten.
    fn with_patch(travel: UpdateTravel) -> Self {
        let mut desk = Self::new(travel, both());
        desk.wish(10, HOST, SHORT);
        desk.here(10, &[]);
        assert_eq!(desk.at_members(10, BASE_OF_SHORT, true), [yes(HOST, SHORT)]);
        desk
    }
}

fn yes(node: NodeId, pack: PackId) -> CrossingOutput {
    CrossingOutput::Answer { node, pack, crosses: true, by_station: false }
}

fn yes_and_the_station_brings(node: NodeId, pack: PackId) -> CrossingOutput {
    CrossingOutput::Answer { node, pack, crosses: true, by_station: true }
}

fn no(node: NodeId, pack: PackId) -> CrossingOutput {
    CrossingOutput::Answer { node, pack, crosses: false, by_station: false }
}

fn tell(news: CrossingNews) -> CrossingOutput {
    CrossingOutput::Tell { pack: WHOLE, news }
}

fn look_here() -> CrossingOutput {
    CrossingOutput::LookHere { pack: WHOLE, bases: vec![image(BASE_OF_SHORT), image(BASE_OF_LONG)] }
}

fn ask_members(base: PackId) -> CrossingOutput {
    CrossingOutput::AskMembers { pack: WHOLE, base }
}

#[test]
fn the_book_has_the_same_table() {
    let rows = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//! |"));
    let book = include_str!("../../../../docs/src/protocol/patches.md");
    let missing: Vec<&str> = rows.filter(|row| !book.contains(&format!("\n|{row}\n"))).collect();
    assert!(missing.is_empty(), "docs/src/protocol/patches.md lacks {missing:#?}");
}

#[test]
fn what_no_patch_makes_crosses_without_a_question() {
    for travel in [UpdateTravel::Patch, UpdateTravel::PatchOnly, UpdateTravel::Whole] {
        let mut desk = Desk::new(travel, both());
        assert_eq!(desk.wish(0, HOST, ELSE), [yes(HOST, ELSE)]);
        let mut desk = Desk::new(travel, vec![]);
        assert_eq!(desk.wish(0, HOST, WHOLE), [yes(HOST, WHOLE)]);
        assert_eq!(desk.input(0, CrossingInput::Keep { pack: WHOLE }), []);
        assert_eq!(desk.journal, []);
    }
}

#[test]
fn the_policy_whole_asks_nobody_and_withholds_every_patch() {
    let mut desk = Desk::new(UpdateTravel::Whole, both());
    assert_eq!(desk.wish(0, HOST, SHORT), [no(HOST, SHORT)]);
    assert_eq!(desk.wish(0, OTHER, WHOLE), [yes(OTHER, WHOLE)]);
    assert_eq!(desk.desk.crossing(WHOLE), Some(Crossing::Whole));
    assert_eq!(desk.wish(100_000, HOST, LONG), [no(HOST, LONG)]);
}

#[test]
fn where_the_station_has_bases_the_shortest_patch_crosses_and_the_station_brings_what_it_keeps() {
    for travel in [UpdateTravel::Patch, UpdateTravel::PatchOnly] {
        let mut desk = Desk::new(travel, both());
        assert_eq!(desk.input(0, CrossingInput::Keep { pack: WHOLE }), [look_here()]);
        assert_eq!(desk.wish(0, HOST, WHOLE), [], "it waits for the decision");
        assert_eq!(desk.here(0, &[BASE_OF_LONG, BASE_OF_SHORT]), [no(HOST, WHOLE)]);
        assert_eq!(desk.wish(1, STATION, SHORT), [yes_and_the_station_brings(STATION, SHORT)]);
        assert_eq!(desk.wish(1, HOST, LONG), [no(HOST, LONG)]);
        assert_eq!(desk.here(2, &[]), [], "an answer that comes twice changes nothing");

        let mut desk = Desk::new(travel, both());
        assert_eq!(desk.wish(0, HOST, LONG), [look_here()]);
        // The station has the base of the longer one alone, and does not keep the pack: whoever asks first may bring it.
        assert_eq!(desk.here(0, &[BASE_OF_LONG]), [yes(HOST, LONG)]);
        assert_eq!(desk.wish(1, OTHER, SHORT), [no(OTHER, SHORT)]);
    }
}

#[test]
fn members_are_asked_for_one_base_after_the_other_the_shortest_patch_first() {
    let mut desk = Desk::new(UpdateTravel::PatchOnly, both());
    assert_eq!(desk.wish(10, HOST, WHOLE), [look_here()]);
    assert_eq!(desk.wish(10, OTHER, LONG), []);
    assert_eq!(desk.here(10, &[]), [ask_members(BASE_OF_SHORT)]);
    assert_eq!(desk.at_members(11, BASE_OF_LONG, true), [], "they were not asked for this one");
    assert_eq!(desk.at_members(11, BASE_OF_SHORT, false), [ask_members(BASE_OF_LONG)]);
    let chosen = [no(HOST, WHOLE), yes(OTHER, LONG)];
    assert_eq!(desk.at_members(12, BASE_OF_LONG, true), chosen);
}

#[test]
fn a_base_that_the_catalogue_names_no_more_is_looked_for_in_the_store_alone() {
    let mut patches = both();
    patches.iter_mut().for_each(|patch| patch.base_pack = None);
    let mut desk = Desk::new(UpdateTravel::Patch, patches);
    assert_eq!(desk.wish(10, HOST, WHOLE), [look_here()]);
    assert_eq!(desk.here(10, &[]), [yes(HOST, WHOLE)]);
}

#[test]
fn where_nobody_has_a_base_the_whole_pack_crosses_or_nothing_and_people_are_told() {
    let mut desk = Desk::new(UpdateTravel::Patch, vec![patch(SHORT, BASE_OF_SHORT)]);
    desk.wish(10, HOST, WHOLE);
    desk.here(10, &[]);
    assert_eq!(desk.at_members(10, BASE_OF_SHORT, false), [yes(HOST, WHOLE)]);
    assert_eq!(desk.wish(10, OTHER, SHORT), [no(OTHER, SHORT)], "one encoding crosses, even if a base turns up");

    let mut desk = Desk::new(UpdateTravel::PatchOnly, vec![patch(SHORT, BASE_OF_SHORT)]);
    desk.wish(10, HOST, WHOLE);
    desk.here(10, &[]);
    assert_eq!(desk.at_members(10, BASE_OF_SHORT, false), [no(HOST, WHOLE)]);
    assert_eq!(desk.journal, [], "nothing was decided");
    assert_eq!(desk.waits(69, HOST), [no(HOST, WHOLE), tell(CrossingNews::NoBase)]);
    // After a minute the next wish leads to another search; people are told once.
    assert_eq!(desk.wish(70, OTHER, SHORT).len(), 1);
    assert_eq!(desk.here(70, &[]), [ask_members(BASE_OF_SHORT)]);
    assert_eq!(desk.at_members(70, BASE_OF_SHORT, false), [no(OTHER, SHORT)]);
    assert_eq!(desk.wish(120, OTHER, SHORT), [no(OTHER, SHORT)]);
    desk.wish(140, OTHER, SHORT);
    assert_eq!(desk.here(140, &[BASE_OF_SHORT]), [tell(CrossingNews::Over), yes(OTHER, SHORT)]);
}

#[test]
fn silence_is_an_answer() {
    let mut desk = Desk::new(UpdateTravel::Patch, both());
    desk.wish(10, HOST, WHOLE);
    assert_eq!(desk.desk.poll_timeout().unwrap().at, Now::from_seconds(22).monotonic);
    assert_eq!(desk.timeout(21), []);
    assert_eq!(desk.timeout(22), [ask_members(BASE_OF_SHORT)]);
    assert_eq!(desk.timeout(34), [ask_members(BASE_OF_LONG)]);
    assert_eq!(desk.at_members(35, BASE_OF_SHORT, true), [], "too late");
    assert_eq!(desk.timeout(46), [yes(HOST, WHOLE)]);
    assert_eq!(desk.desk.poll_timeout(), None);
}

#[test]
fn after_a_start_the_members_first_have_time_to_come_back() {
    let mut desk = Desk::new(UpdateTravel::Patch, both());
    desk.wish(1, HOST, WHOLE);
    assert_eq!(desk.here(1, &[]), []);
    assert_eq!(desk.desk.poll_timeout().unwrap().at, Now::from_seconds(5).monotonic);
    assert_eq!(desk.timeout(4), []);
    assert_eq!(desk.timeout(5), [ask_members(BASE_OF_SHORT)]);
}

#[test]
fn patience_begins_anew_with_each_wish_for_the_chosen_patch_and_with_no_other() {
    let mut desk = Desk::with_patch(UpdateTravel::Patch);
    assert_eq!(desk.wish(500, HOST, SHORT), [yes(HOST, SHORT)]);
    assert_eq!(desk.wish(1000, OTHER, LONG), [no(OTHER, LONG)]);
    assert_eq!(desk.waits(1099, OTHER), [no(OTHER, WHOLE)]);
    assert_eq!(desk.wish(1100, OTHER, WHOLE), [tell(CrossingNews::WholeAfterAll), yes(OTHER, WHOLE)]);
    assert_eq!(desk.wish(1100, HOST, SHORT), [no(HOST, SHORT)], "the patch crosses no more");
}

#[test]
fn under_patch_only_the_whole_pack_never_crosses_and_people_are_told_that_it_waits() {
    let mut desk = Desk::with_patch(UpdateTravel::PatchOnly);
    assert_eq!(desk.waits(609, OTHER), [no(OTHER, WHOLE)]);
    assert_eq!(desk.wish(610, OTHER, WHOLE), [no(OTHER, WHOLE), tell(CrossingNews::Stuck)]);
    assert_eq!(desk.wish(611, OTHER, WHOLE), [no(OTHER, WHOLE)]);
    assert_eq!(desk.wish(612, HOST, SHORT), [tell(CrossingNews::Over), yes(HOST, SHORT)]);
    assert_eq!(desk.input(613, CrossingInput::StationFailed { pack: WHOLE, patch: SHORT }), []);
    assert_eq!(desk.wish(613, OTHER, WHOLE), [no(OTHER, WHOLE)]);
}

#[test]
fn where_the_station_failed_the_whole_pack_crosses_at_once() {
    let mut desk = Desk::with_patch(UpdateTravel::Patch);
    assert_eq!(desk.input(11, CrossingInput::StationFailed { pack: WHOLE, patch: SHORT }), []);
    assert_eq!(desk.wish(11, HOST, WHOLE), [yes(HOST, WHOLE)]);
    assert_eq!(desk.wish(11, HOST, SHORT), [no(HOST, SHORT)]);

    let mut desk = Desk::with_patch(UpdateTravel::Patch);
    assert_eq!(desk.input(11, CrossingInput::StationFailed { pack: WHOLE, patch: LONG }), []);
    assert_eq!(desk.wish(11, HOST, WHOLE), [no(HOST, WHOLE)], "another patch than the one that crosses");

    // It may fail before the decision: the patch may be in its store from before.
    let mut desk = Desk::new(UpdateTravel::Patch, both());
    desk.wish(0, HOST, WHOLE);
    assert_eq!(desk.input(0, CrossingInput::StationFailed { pack: WHOLE, patch: SHORT }), [yes(HOST, WHOLE)]);
    assert_eq!(desk.here(0, &[BASE_OF_SHORT]), []);
    assert_eq!(desk.desk.crossing(WHOLE), Some(Crossing::Whole));
}

#[test]
fn a_member_that_failed_waits_for_its_neighbours_and_after_ten_minutes_gets_the_whole_pack() {
    let mut desk = Desk::with_patch(UpdateTravel::Patch);
    // It has failed and wants the whole pack now; another member is still at the patch.
    assert_eq!(desk.wish(130, HOST, WHOLE), [no(HOST, WHOLE)]);
    assert_eq!(desk.wish(140, OTHER, SHORT), [yes(OTHER, SHORT)]);
    assert_eq!(desk.waits(739, HOST), [no(HOST, WHOLE)]);
    assert_eq!(desk.wish(740, HOST, WHOLE), [tell(CrossingNews::WholeAfterAll), yes(HOST, WHOLE)]);
}

/// Recorded failure: any new document made every decision anew, so that both encodings could cross.
#[test]
fn only_a_document_that_changes_what_a_decision_follows_from_makes_it_anew() {
    let mut desk = Desk::with_patch(UpdateTravel::Patch);
    let mut reordered = both();
    reordered.reverse();
    reordered[0].base_pack = None;
    assert_eq!(desk.documents(20, UpdateTravel::Patch, reordered), []);
    assert_eq!(desk.wish(20, OTHER, WHOLE), [no(OTHER, WHOLE)], "the same patches and the same policy");
    // Patience goes on as well: it does not begin anew with a document.
    assert_eq!(desk.waits(609, OTHER), [no(OTHER, WHOLE)]);
    assert_eq!(desk.wish(610, OTHER, WHOLE), [tell(CrossingNews::WholeAfterAll), yes(OTHER, WHOLE)]);

    let mut desk = Desk::with_patch(UpdateTravel::Patch);
    desk.documents(20, UpdateTravel::Whole, both());
    assert_eq!(desk.wish(20, HOST, SHORT), [no(HOST, SHORT)]);
    assert_eq!(desk.wish(20, HOST, WHOLE), [yes(HOST, WHOLE)]);

    let mut desk = Desk::with_patch(UpdateTravel::Patch);
    desk.documents(20, UpdateTravel::Patch, vec![patch(LONG, BASE_OF_LONG)]);
    assert_eq!(desk.wish(20, HOST, SHORT), [yes(HOST, SHORT)], "it is no update's patch any more");
    assert_eq!(desk.wish(20, HOST, LONG).len(), 1, "the site is looked at");
    assert_eq!(desk.here(20, &[]), [ask_members(BASE_OF_LONG)]);
}

#[test]
fn what_waits_or_is_kept_is_decided_anew_at_once() {
    let mut desk = Desk::new(UpdateTravel::PatchOnly, both());
    desk.input(10, CrossingInput::Keep { pack: WHOLE });
    desk.wish(10, HOST, WHOLE);
    assert_eq!(desk.documents(11, UpdateTravel::Whole, both()), [yes(HOST, WHOLE)]);

    let mut desk = Desk::new(UpdateTravel::PatchOnly, vec![patch(SHORT, BASE_OF_SHORT)]);
    desk.input(10, CrossingInput::Keep { pack: WHOLE });
    desk.here(10, &[]);
    assert_eq!(desk.at_members(10, BASE_OF_SHORT, false), [], "nobody has wished for it");
    assert_eq!(desk.waits(30, HOST), [no(HOST, WHOLE), tell(CrossingNews::NoBase)]);
    let looks = CrossingOutput::LookHere { pack: WHOLE, bases: vec![image(BASE_OF_SHORT)] };
    let patches = vec![patch(SHORT, BASE_OF_SHORT)];
    assert_eq!(desk.documents(31, UpdateTravel::Patch, patches), [tell(CrossingNews::Over), looks]);

    desk.wish(31, HOST, WHOLE);
    assert_eq!(desk.input(32, CrossingInput::Documents { updates: BTreeMap::new() }), [yes(HOST, WHOLE)]);
}

/// Found by the property below: silence ended in the moment in which a policy came that forbids the whole pack.
#[test]
fn what_is_due_when_a_document_comes_is_decided_by_that_document() {
    let mut desk = Desk::new(UpdateTravel::Patch, vec![patch(LONG, BASE_OF_LONG)]);
    desk.wish(10, HOST, WHOLE);
    desk.timeout(22);
    let looks = CrossingOutput::LookHere { pack: WHOLE, bases: vec![image(BASE_OF_LONG)] };
    assert_eq!(desk.documents(34, UpdateTravel::PatchOnly, vec![patch(LONG, BASE_OF_LONG)]), [looks]);
    assert_eq!(desk.journal, []);
}

#[test]
fn a_restarted_station_goes_on_with_the_same_encoding() {
    let mut desk = Desk::with_patch(UpdateTravel::Patch).restarted();
    desk.documents(0, UpdateTravel::Patch, both());
    assert_eq!(desk.wish(1, OTHER, WHOLE), [no(OTHER, WHOLE)]);
    assert_eq!(desk.wish(1, HOST, SHORT), [yes(HOST, SHORT)]);
    let mut desk = Desk::with_patch(UpdateTravel::Patch).restarted();
    desk.documents(0, UpdateTravel::PatchOnly, both());
    assert_eq!(desk.wish(1, OTHER, WHOLE), [look_here()], "it followed from another policy");
}

#[test]
fn a_patch_to_one_image_serves_every_pack_of_it() {
    let mut desk = Desk::empty();
    let offer = UpdateOffer { travel: UpdateTravel::Patch, patches: vec![patch(SHORT, BASE_OF_SHORT)] };
    let updates = BTreeMap::from([(WHOLE, offer.clone()), (ELSE, offer)]);
    desk.input(10, CrossingInput::Documents { updates });
    desk.input(10, CrossingInput::StationFailed { pack: WHOLE, patch: SHORT });
    assert_eq!(desk.wish(10, HOST, SHORT).len(), 1, "it may still cross for the other pack");
    let bases = BTreeSet::from([image(BASE_OF_SHORT)]);
    assert_eq!(desk.input(10, CrossingInput::Here { pack: ELSE, bases }), [yes(HOST, SHORT)]);
    assert_eq!(desk.wish(10, HOST, ELSE), [no(HOST, ELSE)]);
}

#[test]
fn so_many_wishes_wait_and_no_more() {
    let mut desk = Desk::new(UpdateTravel::Patch, both());
    let most = branchline_protocol::limits::CROSSING_WISHES_MAX;
    let node = |number: usize| {
        let mut node = [7; 32];
        node[..8].copy_from_slice(&number.to_be_bytes());
        NodeId(node)
    };
    desk.wish(10, node(0), WHOLE);
    for number in 1..most {
        desk.desk.handle(Now::from_seconds(10), CrossingInput::Wish { node: node(number), pack: WHOLE });
    }
    assert_eq!(desk.wish(10, node(most), WHOLE), [no(node(most), WHOLE)]);
    assert_eq!(desk.here(10, &[BASE_OF_SHORT]).len(), most);
}
