//! What holds of the crossing desk whatever happens.
use proptest::prelude::*;

use super::*;

/// One thing that may happen.
#[derive(Clone, Debug)]
enum Step {
    Documents { travel: u8, patches: u8 },
    Wish { node: u8, what: u8 },
    Keep { what: u8 },
    Here { bases: u8 },
    AtMembers { base: bool, held: bool },
    StationFailed { short: bool },
    Timeout,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0u8..3, 0u8..4).prop_map(|(travel, patches)| Step::Documents { travel, patches }),
        8 => (1u8..4, 0u8..4).prop_map(|(node, what)| Step::Wish { node, what }),
        1 => (0u8..4).prop_map(|what| Step::Keep { what }),
        3 => (0u8..4).prop_map(|bases| Step::Here { bases }),
        3 => any::<(bool, bool)>().prop_map(|(base, held)| Step::AtMembers { base, held }),
        1 => any::<bool>().prop_map(|short| Step::StationFailed { short }),
        2 => Just(Step::Timeout),
        1 => Just(Step::Restart),
    ]
}

/// Seconds between two steps: often short ones, so that nodes go on wishing.
fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0u64..10, 1 => 0u64..200]
}

/// What must hold of the answers, by what was seen from outside alone.
#[derive(Default)]
struct Watch {
    travel: UpdateTravel,
    patches: u8,
    /// What crossed since the documents last changed what it follows from, and when it was last wished for.
    crossed: BTreeMap<PackId, u64>,
    station_failed: bool,
    /// The wishes since the start, and whether people were told of something that is not over.
    wishes: Vec<(u64, NodeId)>,
    told: bool,
}

impl Watch {
    /// People are told of what waits, once: some node has gone on wishing for ten seconds, and has not stopped.
    fn tell(&mut self, now: u64, news: CrossingNews) -> Result<(), TestCaseError> {
        if news == CrossingNews::Over {
            prop_assert!(std::mem::take(&mut self.told), "over, but people knew of nothing at {}", now);
            return Ok(());
        }
        let of_node = |node: NodeId| self.wishes.iter().filter(move |wish| wish.1 == node).map(|wish| wish.0);
        let waits = |node: NodeId| {
            let last = of_node(node).max();
            last.is_some_and(|last| now <= last + 32 && of_node(node).any(|wish| wish + 10 <= last))
        };
        prop_assert!(self.wishes.iter().any(|wish| waits(wish.1)), "{:?} at {}, but nobody waits", news, now);
        if news != CrossingNews::WholeAfterAll {
            prop_assert_eq!(self.travel, UpdateTravel::PatchOnly);
            prop_assert!(!std::mem::replace(&mut self.told, true), "told again at {}", now);
        }
        Ok(())
    }

    fn offered(&self) -> Vec<PatchFrom> {
        both()
            .into_iter()
            .zip(0..)
            .filter(|(_, place)| self.patches >> place & 1 == 1)
            .map(|(patch, _)| patch)
            .collect()
    }

    fn documents(&mut self, travel: UpdateTravel, patches: u8) {
        if (travel, patches) != (self.travel, self.patches) {
            (self.crossed, self.station_failed) = (BTreeMap::new(), false);
        }
        (self.travel, self.patches) = (travel, patches);
    }

    fn answered(&mut self, now: u64, pack: PackId) -> Result<(), TestCaseError> {
        let offered = self.offered();
        if offered.is_empty() || !(pack == WHOLE || offered.iter().any(|offer| offer.patch == pack)) {
            return Ok(());
        }
        match self.travel {
            UpdateTravel::Whole => prop_assert_eq!(pack, WHOLE),
            UpdateTravel::PatchOnly => prop_assert_ne!(pack, WHOLE),
            UpdateTravel::Patch => {}
        }
        let patch_before = self.crossed.iter().find(|(other, _)| **other != WHOLE);
        if pack == WHOLE {
            let impatient = patch_before.is_none_or(|(_, last)| now >= last + 600);
            let goes_on = self.crossed.contains_key(&WHOLE);
            prop_assert!(impatient || goes_on || self.station_failed, "both encodings at {}", now);
        } else {
            prop_assert!(!self.crossed.contains_key(&WHOLE), "a patch after the whole pack at {}", now);
            prop_assert!(patch_before.is_none_or(|(other, _)| *other == pack), "two patches at {}", now);
        }
        self.crossed.insert(pack, now);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::property_tests::cases(1000), ..ProptestConfig::default() })]

    #[test]
    fn one_encoding_crosses_whatever_happens(steps in prop::collection::vec((pause(), step()), 1..80)) {
        let (mut desk, mut watch) = (Desk::empty(), Watch::default());
        // The clock of a process begins anew with it; patience does too.
        let mut now = 0;
        for (pause, step) in steps {
            now += pause;
            let outputs = match step {
                Step::Documents { travel, patches } => {
                    let travel = [UpdateTravel::Patch, UpdateTravel::PatchOnly, UpdateTravel::Whole][usize::from(travel)];
                    watch.documents(travel, patches);
                    desk.documents(now, travel, watch.offered())
                }
                Step::Wish { node, what } => {
                    watch.wishes.push((now, NodeId([node; 32])));
                    desk.wish(now, NodeId([node; 32]), [WHOLE, SHORT, LONG, ELSE][usize::from(what)])
                }
                Step::Keep { what } => {
                    let pack = [WHOLE, SHORT, LONG, ELSE][usize::from(what)];
                    desk.input(now, CrossingInput::Keep { pack })
                }
                Step::Here { bases } => {
                    let held = [BASE_OF_LONG, BASE_OF_SHORT].into_iter().zip(0..).filter(|(_, place)| bases >> place & 1 == 1);
                    desk.here(now, &held.map(|(base, _)| base).collect::<Vec<_>>())
                }
                Step::AtMembers { base, held } => {
                    desk.at_members(now, if base { BASE_OF_SHORT } else { BASE_OF_LONG }, held)
                }
                Step::StationFailed { short } => {
                    let patch = if short { SHORT } else { LONG };
                    let crosses = desk.desk.crossing(WHOLE);
                    let other = matches!(crosses, Some(Crossing::Patch { patch: chosen, .. }) if chosen != patch);
                    watch.station_failed |= !other;
                    desk.input(now, CrossingInput::StationFailed { pack: WHOLE, patch })
                }
                Step::Timeout => desk.timeout(now),
                Step::Restart => {
                    desk = desk.restarted();
                    watch.crossed.values_mut().for_each(|last| *last = 0);
                    (watch.wishes, watch.told) = (vec![], false);
                    now = 0;
                    desk.documents(0, watch.travel, watch.offered())
                }
            };
            for output in outputs {
                match output {
                    CrossingOutput::Answer { pack, crosses: true, .. } => watch.answered(now, pack)?,
                    CrossingOutput::Tell { news, .. } => watch.tell(now, news)?,
                    _ => {}
                }
            }
            prop_assert!(desk.desk.poll_timeout().is_none_or(|due| due.at >= Now::from_seconds(now).monotonic));
        }
        // Without a wish all that people were told ends, however far a search is.
        for pause in [12, 24, 36, 48, 60, 72] {
            let over = CrossingOutput::Tell { pack: WHOLE, news: CrossingNews::Over };
            watch.told &= !desk.timeout(now + pause).contains(&over);
        }
        prop_assert!(!watch.told, "people still think of it");
        prop_assert_eq!(desk.desk.poll_timeout(), None);
    }

    #[test]
    fn every_wish_is_answered_in_the_end(wishes in prop::collection::vec((1u8..4, 0u8..4), 1..20), travel in 0u8..3) {
        let travel = [UpdateTravel::Patch, UpdateTravel::PatchOnly, UpdateTravel::Whole][usize::from(travel)];
        let mut desk = Desk::new(travel, both());
        let (mut asked, mut answered) = (BTreeSet::new(), BTreeSet::new());
        let mut outputs = Vec::new();
        for (node, what) in wishes {
            let (node, what) = (NodeId([node; 32]), [WHOLE, SHORT, LONG, ELSE][usize::from(what)]);
            asked.insert((node, what));
            outputs.extend(desk.wish(10, node, what));
        }
        for now in [22, 34, 46] {
            outputs.extend(desk.timeout(now));
        }
        for output in outputs {
            if let CrossingOutput::Answer { node, pack, .. } = output {
                answered.insert((node, pack));
            }
        }
        prop_assert_eq!(asked, answered);
    }
}
