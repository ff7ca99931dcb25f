//! The crossing desk's states and what moves it from one to the next; the table is in the description of the module above.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use branchline_protocol::{
    catalogue::UpdateTravel,
    ids::{ImageId, NodeId, PackId},
    limits::{CATALOGUE_PATCHES_MAX, CROSSING_DECISIONS_MAX, CROSSING_KEPT_MAX, CROSSING_WISHES_MAX},
    machine::{Deadline, Journaled, Machine, Record, Sequence, Sequenced},
    time::{Monotonic, Now},
};

use super::{
    super::leases::RETURN_FOR,
    update::{Progress, Update},
    waits::Unmet,
    words::{
        Crossing, CrossingEvent, CrossingInput, CrossingNews, CrossingOutput, CrossingSetup, PatchFrom, UpdateOffer,
    },
};

/// How long the whole pack waits after the last wish for the chosen patch: so long nobody works on the patch.
pub const PATCH_PATIENCE: Duration = Duration::from_secs(600);
/// How long the runtime has for one question. It gives up after ten seconds itself.
const ANSWER_FOR: Duration = Duration::from_secs(12);
/// How long after a search in vain a wish leads to another one: a member that has a base may have come.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A journaled decision, and what it follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision {
    sequence: Sequence,
    travel: UpdateTravel,
    patches: Vec<PackId>,
    crossing: Crossing,
}

/// What a wish comes to.
enum Verdict {
    Crosses { by_station: bool },
    Withheld,
    Undecided,
}

/// The crossing desk of one station; see the module's description.
#[derive(Clone, Debug)]
pub struct CrossingDesk {
    updates: BTreeMap<PackId, Update>,
    /// The updates that each patch makes.
    made_by: BTreeMap<PackId, Vec<PackId>>,
    /// The packs that the station keeps, updates or not yet, and when it said so last, by a count.
    kept: BTreeMap<PackId, u64>,
    keeps: u64,
    /// The wishes that wait for the decision about an update: who, for what.
    waiting: BTreeMap<PackId, BTreeSet<(NodeId, PackId)>>,
    decisions: BTreeMap<PackId, Decision>,
    /// Before this no member is asked.
    asks_from: Monotonic,
    journaled: Sequence,
    records: VecDeque<Record<CrossingEvent>>,
    outputs: VecDeque<Sequenced<CrossingOutput>>,
}

/// The identities of the patches: they follow from what the patches hold, so nothing else of an offer can differ.
fn identities(patches: &[PatchFrom]) -> Vec<PackId> {
    let set: BTreeSet<PackId> = patches.iter().map(|offer| offer.patch).collect();
    set.into_iter().collect()
}

impl CrossingDesk {
    /// What was decided about an update; `None`: nothing, or nothing crosses.
    pub fn crossing(&self, pack: PackId) -> Option<Crossing> {
        match self.updates.get(&pack)?.progress {
            Progress::Decided { crossing, .. } => Some(crossing),
            _ => None,
        }
    }

    fn say(&mut self, output: CrossingOutput) {
        self.outputs.push_back(Sequenced { after: self.journaled, output });
    }

    /// People need no longer think of what they were told, if they were.
    fn end_news(&mut self, pack: PackId, told: bool) {
        if told {
            self.say(CrossingOutput::Tell { pack, news: CrossingNews::Over });
        }
    }

    fn documents(&mut self, now: Monotonic, updates: BTreeMap<PackId, UpdateOffer>) {
        let mut before = std::mem::take(&mut self.updates);
        let mut room = CATALOGUE_PATCHES_MAX;
        self.made_by.clear();
        for (pack, UpdateOffer { travel, mut patches }) in updates {
            patches.sort_by_key(|offer| (offer.bytes, offer.patch));
            patches.truncate(room);
            room -= patches.len();
            if patches.is_empty() {
                continue;
            }
            let known = before.remove(&pack);
            let unmet = known.as_ref().and_then(|known| known.unmet);
            let named = identities(&patches);
            let (progress, told) = match known {
                Some(known) if known.travel == travel && identities(&known.patches) == named => {
                    (known.progress, known.told)
                }
                changed => {
                    self.end_news(pack, changed.is_some_and(|changed| changed.told));
                    (self.recall(now, pack, travel, &named), false)
                }
            };
            for patch in named {
                self.made_by.entry(patch).or_default().push(pack);
            }
            self.updates.insert(pack, Update { travel, patches, progress, unmet, told });
        }
        for (pack, gone) in before {
            self.end_news(pack, gone.told);
        }
        self.go_on(now);
    }

    /// The decision that was journaled, where it follows from the same.
    fn recall(&self, now: Monotonic, pack: PackId, travel: UpdateTravel, patches: &[PackId]) -> Progress {
        let decided = self.decisions.get(&pack).filter(|known| known.travel == travel && known.patches == patches);
        decided.map_or(Progress::Open, |known| Progress::Decided {
            crossing: known.crossing,
            until: now.after(PATCH_PATIENCE),
        })
    }

    /// After other documents: what the station keeps is decided anew at once, and every wish that waits is looked at.
    fn go_on(&mut self, now: Monotonic) {
        let is_open = |pack: &PackId| self.updates.get(pack).is_some_and(|update| update.progress == Progress::Open);
        let kept: Vec<PackId> = self.kept.keys().copied().filter(is_open).collect();
        for pack in kept {
            self.look(now, pack);
        }
        let waiting: BTreeSet<(NodeId, PackId)> = std::mem::take(&mut self.waiting).into_values().flatten().collect();
        for (node, asked) in waiting {
            self.wish(now, node, asked);
        }
    }

    /// The updates of which this is an encoding.
    fn targets(&self, asked: PackId) -> Vec<PackId> {
        match self.updates.contains_key(&asked) {
            true => vec![asked],
            false => self.made_by.get(&asked).cloned().unwrap_or_default(),
        }
    }

    /// A wish that has just come; [`Self::wish`] looks at it again after each change until it is answered.
    fn new_wish(&mut self, now: Monotonic, node: NodeId, asked: PackId) {
        let targets = self.targets(asked);
        for target in &targets {
            if let Some(update) = self.updates.get_mut(target).filter(|update| update.leaves_unmet(*target, asked)) {
                update.unmet = Some(Unmet::another(update.unmet, now, node));
            }
        }
        self.wish(now, node, asked);
        targets.into_iter().for_each(|target| self.tell_if_somebody_waits(now, target));
    }

    fn wish(&mut self, now: Monotonic, node: NodeId, asked: PackId) {
        let targets = self.targets(asked);
        let answer = |crosses, by_station| CrossingOutput::Answer { node, pack: asked, crosses, by_station };
        if targets.is_empty() {
            return self.say(answer(true, false));
        }
        let mut undecided = None;
        for target in targets {
            match self.verdict(now, target, asked) {
                Verdict::Crosses { by_station } => return self.say(answer(true, by_station)),
                Verdict::Undecided => undecided = undecided.or(Some(target)),
                Verdict::Withheld => {}
            }
        }
        let full = self.waiting.values().map(BTreeSet::len).sum::<usize>() >= CROSSING_WISHES_MAX;
        match undecided {
            Some(target) if !full => {
                self.waiting.entry(target).or_default().insert((node, asked));
                self.look(now, target);
            }
            // Who is refused asks again.
            _ => self.say(answer(false, false)),
        }
    }

    fn verdict(&mut self, now: Monotonic, target: PackId, asked: PackId) -> Verdict {
        let Some(update) = self.updates.get_mut(&target) else { return Verdict::Withheld };
        let kept = self.kept.contains_key(&target);
        match &mut update.progress {
            Progress::Open | Progress::Looking { .. } | Progress::Asking { .. } => Verdict::Undecided,
            Progress::Decided { crossing: Crossing::Whole, .. } if asked == target => {
                Verdict::Crosses { by_station: false }
            }
            Progress::Decided { crossing: Crossing::Patch { patch, by_station }, until } if *patch == asked => {
                *until = now.after(PATCH_PATIENCE);
                let by_station = kept && *by_station;
                let told = std::mem::take(&mut update.told);
                self.end_news(target, told);
                Verdict::Crosses { by_station }
            }
            Progress::Decided { crossing: Crossing::Patch { .. }, until } if asked == target && *until <= now => {
                self.lose_patience(now, target)
            }
            Progress::Decided { .. } => Verdict::Withheld,
            Progress::Nothing { again_at } if *again_at <= now => {
                update.progress = Progress::Open;
                Verdict::Undecided
            }
            Progress::Nothing { .. } => Verdict::Withheld,
        }
    }

    fn lose_patience(&mut self, now: Monotonic, target: PackId) -> Verdict {
        let may = |update: &Update| update.travel != UpdateTravel::PatchOnly && update.somebody_waits(now);
        if !self.updates.get(&target).is_some_and(may) {
            return Verdict::Withheld;
        }
        self.decide(now, target, Crossing::Whole);
        self.say(CrossingOutput::Tell { pack: target, news: CrossingNews::WholeAfterAll });
        Verdict::Crosses { by_station: false }
    }

    /// A pack may become an update later: a patch to it may be published after it.
    fn keep(&mut self, now: Monotonic, pack: PackId) {
        self.keeps += 1;
        self.kept.insert(pack, self.keeps);
        if self.kept.len() > CROSSING_KEPT_MAX {
            let others = self.kept.iter().filter(|(pack, _)| !self.updates.contains_key(pack));
            let oldest = others.min_by_key(|(_, said)| **said).map(|(pack, _)| *pack);
            oldest.and_then(|pack| self.kept.remove(&pack));
        }
        self.look(now, pack);
    }

    /// Begins the search for a base, where it has not begun.
    fn look(&mut self, now: Monotonic, pack: PackId) {
        let Some(update) = self.updates.get_mut(&pack) else { return };
        if update.progress != Progress::Open {
            return;
        }
        if update.travel == UpdateTravel::Whole {
            return self.decide(now, pack, Crossing::Whole);
        }
        update.progress = Progress::Looking { until: now.after(ANSWER_FOR) };
        let bases = update.patches.iter().map(|offer| offer.base).collect();
        self.say(CrossingOutput::LookHere { pack, bases });
    }

    fn here(&mut self, now: Monotonic, pack: PackId, bases: &BTreeSet<ImageId>) {
        let Some(update) = self.updates.get(&pack) else { return };
        if !matches!(update.progress, Progress::Looking { .. }) {
            return;
        }
        match update.patches.iter().find(|offer| bases.contains(&offer.base)) {
            Some(offer) => self.decide(now, pack, Crossing::Patch { patch: offer.patch, by_station: true }),
            None => self.ask_from(now, pack, 0),
        }
    }

    fn at_members(&mut self, now: Monotonic, pack: PackId, base: PackId, held: bool) {
        let Some(update) = self.updates.get(&pack) else { return };
        let Progress::Asking { index, until: Some(_) } = update.progress else { return };
        match update.patches.get(index) {
            Some(offer) if offer.base_pack == Some(base) && held => {
                self.decide(now, pack, Crossing::Patch { patch: offer.patch, by_station: false });
            }
            Some(offer) if offer.base_pack == Some(base) => self.ask_from(now, pack, index + 1),
            _ => {}
        }
    }

    /// Asks the members for the base of the first patch from `index` on, or ends the search.
    fn ask_from(&mut self, now: Monotonic, pack: PackId, index: usize) {
        let Some(update) = self.updates.get_mut(&pack) else { return };
        let mut left = update.patches.iter().enumerate().skip(index);
        let Some((index, base)) = left.find_map(|(index, offer)| Some((index, offer.base_pack?))) else {
            return self.nobody_has_a_base(now, pack);
        };
        if now < self.asks_from {
            update.progress = Progress::Asking { index, until: None };
            return;
        }
        update.progress = Progress::Asking { index, until: Some(now.after(ANSWER_FOR)) };
        self.say(CrossingOutput::AskMembers { pack, base });
    }

    fn nobody_has_a_base(&mut self, now: Monotonic, pack: PackId) {
        let Some(update) = self.updates.get_mut(&pack) else { return };
        if update.travel != UpdateTravel::PatchOnly {
            return self.decide(now, pack, Crossing::Whole);
        }
        update.progress = Progress::Nothing { again_at: now.after(LOOK_AGAIN) };
        self.tell_if_somebody_waits(now, pack);
        self.answer_waiting(now, pack);
    }

    fn tell_if_somebody_waits(&mut self, now: Monotonic, pack: PackId) {
        let Some(update) = self.updates.get_mut(&pack) else { return };
        let Some(news) = update.difficulty(now).filter(|_| !update.told && update.somebody_waits(now)) else { return };
        update.told = true;
        self.say(CrossingOutput::Tell { pack, news });
    }

    /// Nobody waits any more where no wish has come for long.
    fn mind_silence(&mut self, now: Monotonic) {
        let mut silent = Vec::new();
        for (pack, update) in &mut self.updates {
            if update.silent_at().is_some_and(|at| at <= now) {
                (update.told, update.unmet) = (false, None);
                silent.push(*pack);
            }
        }
        silent.into_iter().for_each(|pack| self.end_news(pack, true));
    }

    fn station_failed(&mut self, now: Monotonic, pack: PackId, patch: PackId) {
        let Some(update) = self.updates.get(&pack) else { return };
        // A patch that does not cross says nothing of the one that does.
        let counts = match update.progress {
            Progress::Decided { crossing: Crossing::Whole, .. } => false,
            Progress::Decided { crossing: Crossing::Patch { patch: chosen, .. }, .. } => chosen == patch,
            _ => true,
        };
        if update.travel == UpdateTravel::Patch && counts {
            self.decide(now, pack, Crossing::Whole);
        }
    }

    fn decide(&mut self, now: Monotonic, pack: PackId, crossing: Crossing) {
        let Some(update) = self.updates.get_mut(&pack) else { return };
        update.progress = Progress::Decided { crossing, until: now.after(PATCH_PATIENCE) };
        let over = std::mem::take(&mut update.told);
        let (travel, patches) = (update.travel, identities(&update.patches));
        self.journaled = self.journaled.next();
        let event = CrossingEvent::Decided { pack, travel, patches, crossing };
        self.fold(self.journaled, event.clone());
        self.records.push_back(Record { sequence: self.journaled, event });
        self.end_news(pack, over);
        self.answer_waiting(now, pack);
    }

    fn answer_waiting(&mut self, now: Monotonic, pack: PackId) {
        for (node, asked) in self.waiting.remove(&pack).unwrap_or_default() {
            self.wish(now, node, asked);
        }
    }

    fn fold(&mut self, sequence: Sequence, event: CrossingEvent) {
        let CrossingEvent::Decided { pack, travel, patches, crossing } = event;
        self.decisions.insert(pack, Decision { sequence, travel, patches, crossing });
        if self.decisions.len() > CROSSING_DECISIONS_MAX {
            let oldest = self.decisions.iter().min_by_key(|(_, decision)| decision.sequence).map(|(pack, _)| *pack);
            oldest.and_then(|pack| self.decisions.remove(&pack));
        }
    }

    /// Questions that were not answered count as answered with no; those that had to wait for the members are asked.
    fn advance(&mut self, now: Monotonic) {
        let asks_from = self.asks_from;
        let due = |update: &Update| match update.progress {
            Progress::Looking { until } if until <= now => Some(0),
            Progress::Asking { index, until: Some(until) } if until <= now => Some(index + 1),
            Progress::Asking { index, until: None } if asks_from <= now => Some(index),
            _ => None,
        };
        let due: Vec<_> = self.updates.iter().filter_map(|(pack, update)| Some((*pack, due(update)?))).collect();
        for (pack, index) in due {
            self.ask_from(now, pack, index);
        }
        self.mind_silence(now);
    }
}

impl Machine for CrossingDesk {
    type Input = CrossingInput;
    type Output = CrossingOutput;

    fn handle(&mut self, now: Now, input: CrossingInput) {
        let now = now.monotonic;
        // What is due at this moment is decided by the newer documents, not by those that they replace.
        if let CrossingInput::Documents { updates } = input {
            self.documents(now, updates);
            return self.advance(now);
        }
        self.advance(now);
        match input {
            CrossingInput::Documents { .. } => {}
            CrossingInput::Keep { pack } => self.keep(now, pack),
            CrossingInput::Wish { node, pack } => self.new_wish(now, node, pack),
            CrossingInput::Here { pack, bases } => self.here(now, pack, &bases),
            CrossingInput::AtMembers { pack, base, held } => self.at_members(now, pack, base, held),
            CrossingInput::StationFailed { pack, patch } => self.station_failed(now, pack, patch),
        }
        self.mind_silence(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.advance(now.monotonic);
    }

    fn poll_output(&mut self) -> Option<Sequenced<CrossingOutput>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let deadlines = self.updates.values().map(|update| match update.progress {
            Progress::Looking { until } | Progress::Asking { until: Some(until), .. } => {
                Some(Deadline { at: until, reason: "go on without an answer about a base" })
            }
            Progress::Asking { until: None, .. } => {
                Some(Deadline { at: self.asks_from, reason: "ask the members for a base" })
            }
            _ => None,
        });
        let silent = self.updates.values().filter_map(Update::silent_at);
        let silent = silent.map(|at| Some(Deadline { at, reason: "nobody waits for an update any more" }));
        deadlines.chain(silent).fold(None, Deadline::earlier)
    }

    fn check_invariants(&self) {
        let offers: usize = self.updates.values().map(|update| update.patches.len()).sum();
        assert!(offers <= CATALOGUE_PATCHES_MAX, "patches of the crossing desk");
        assert!(self.decisions.len() <= CROSSING_DECISIONS_MAX, "decisions of the crossing desk");
        assert!(self.kept.len() <= CROSSING_KEPT_MAX, "packs that the station keeps, at the crossing desk");
        let wishes: usize = self.waiting.values().map(BTreeSet::len).sum();
        assert!(wishes <= CROSSING_WISHES_MAX, "wishes that wait at the crossing desk");
        for (pack, update) in &self.updates {
            assert!(update.unmet.is_some() || !update.told, "people were told of {pack}, for which nobody wished");
            let decided = match update.progress {
                Progress::Decided { crossing, .. } => Some(crossing),
                Progress::Nothing { .. } => {
                    assert!(update.travel == UpdateTravel::PatchOnly, "nothing of {pack} crosses, unasked");
                    None
                }
                _ => continue,
            };
            assert!(!self.waiting.contains_key(pack), "a wish waits although {pack} is decided");
            match (decided, update.travel) {
                (Some(Crossing::Patch { patch, .. }), UpdateTravel::Patch | UpdateTravel::PatchOnly) => {
                    assert!(update.patches.iter().any(|offer| offer.patch == patch), "nobody offers {patch}");
                }
                (Some(Crossing::Whole), UpdateTravel::Patch | UpdateTravel::Whole) | (None, _) => {}
                (decided, travel) => panic!("{decided:?} of {pack} crosses under {travel:?}"),
            }
        }
    }
}

impl Journaled for CrossingDesk {
    type Event = CrossingEvent;
    type Setup = CrossingSetup;

    fn recover(
        CrossingSetup: CrossingSetup,
        now: Now,
        events: impl IntoIterator<Item = Record<CrossingEvent>>,
    ) -> Self {
        let mut desk = Self {
            updates: BTreeMap::new(),
            made_by: BTreeMap::new(),
            kept: BTreeMap::new(),
            keeps: 0,
            waiting: BTreeMap::new(),
            decisions: BTreeMap::new(),
            asks_from: now.monotonic.after(RETURN_FOR),
            journaled: Sequence::default(),
            records: VecDeque::new(),
            outputs: VecDeque::new(),
        };
        for Record { sequence, event } in events {
            desk.journaled = sequence;
            desk.fold(sequence, event);
        }
        desk
    }

    fn poll_record(&mut self) -> Option<Record<CrossingEvent>> {
        self.records.pop_front()
    }
}
