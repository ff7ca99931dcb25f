//! Turns: who is served next is the holder's choice, which frame the receiver's.
//!
//! A node that has a free slot offers a turn to a neighbour that lacks something it has, the needier of two chosen at
//! random; the neighbour answers at once with the rarest frame it lacks at that moment, or passes, also where its receive
//! slots are taken. So no uplink is idle
//! while a neighbour lacks what it could send, no request waits in a queue, and no frame is committed before it can be
//! sent. In a star of 500 hosts with ten neighbours each this comes within 6 % of the bound; requests that queue, one for
//! each neighbour, stay 19 % above it (`docs/src/decisions/turns.md`).
use super::{
    bits::PeerSet,
    interface::{PackKey, PeerKey, SwarmOutput, Word},
    peers::patience,
    random::SplitMix,
    state::{PackState, PeerState, Swarm, Upload, later},
};
use crate::time::Monotonic;

/// First rest of a neighbour that let a turn go by, in microseconds.
const TURN_REST: u64 = 2_000_000;
/// Without a frame for so long, neighbours are asked out of turn for what they claim to have, in microseconds; but not
/// before one of them could have sent a long frame.
const PROBE_MIN: u64 = 3_000_000;
/// Neighbours, chosen at random, of which the neediest gets the next turn.
const CHOICES: u32 = 2;
/// The same where each takes few at a time: whoever was passed by too often would be late for good.
const CHOICES_LIMITED: u32 = 4;
/// Requests that may be under way from one neighbour that gives turns: one is served while the next is offered.
const FLIGHTS_MAX: usize = 4;

impl Swarm {
    /// Notes that a neighbour may lack something of a pack.
    pub(super) fn feed(&mut self, key: PackKey) {
        if self.feeding.contains(&key) {
            return;
        }
        // Small payloads first: they are quick.
        let length = |key: PackKey| self.pack(key).map_or(0, |state| state.manifest.length());
        let at = self.feeding.partition_point(|other| length(*other) <= length(key));
        self.feeding.insert(at, key);
    }

    /// Offers turns while there are slots.
    pub(super) fn give_turns(&mut self, now: Monotonic) {
        while self.has_free_slot() {
            if !self.upload_queue.is_empty() || self.has_to_push() {
                return;
            }
            let Some((peer, key)) = self.next_turn() else { return };
            let due = later(now, patience(0));
            if let Some(state) = self.peer_mut(peer) {
                state.turn = Some((key, due));
            }
            // What is announced while the turn is under way makes it hungry again, whatever its answer was.
            if let Some(state) = self.pack_mut(key) {
                state.hungry.remove(peer);
            }
            self.turns += 1;
            self.upload_busy.insert(peer);
            self.wake_at(due, "a neighbour lets its turn go by");
            self.say(peer, key, Word::Turn);
        }
    }

    /// Whether the uplink is busy with what only this node has.
    fn has_to_push(&self) -> bool {
        self.push_active > 0
            && self.pushing.iter().filter_map(|key| self.pack(*key)).any(|state| !state.to_push.is_empty())
    }

    fn next_turn(&mut self) -> Option<(PeerKey, PackKey)> {
        let mut position = 0;
        while let Some(key) = self.feeding.get(position).copied() {
            let Some(state) = self.packs.get_mut(usize::from(key.0)).and_then(Option::as_deref_mut) else {
                self.feeding.remove(position);
                continue;
            };
            let limited = self.tuning.receive_slots.is_some();
            while let Some(peer) = state.neediest(&self.inside, &self.upload_busy, &mut self.random, limited) {
                if state.has_for(peer) {
                    return Some((peer, key));
                }
                state.hungry.remove(peer);
            }
            if state.hungry.is_empty() {
                self.feeding.remove(position);
            } else {
                position += 1;
            }
        }
        None
    }

    /// A neighbour offers a turn.
    pub(super) fn turn(&mut self, now: Monotonic, peer: PeerKey, key: PackKey) {
        if self.is_silent(peer) {
            // Each turn of one that never sends would keep frames from those that do. It is asked out of turn, in time.
            return self.pass(peer, key);
        }
        let Some(state) = self.peer_mut(peer) else { return };
        state.rests_until = None;
        let takes_more = state.flights.len() < FLIGHTS_MAX;
        let new = state.takes_turns && !state.is_source();
        let stalled = self.pack(key).is_none_or(|own| own.stalled_until.is_some());
        if !takes_more || stalled || !self.store_has_room() {
            if takes_more && !stalled {
                self.no_room.insert(peer);
            }
            return self.pass(peer, key);
        }
        if new && self.receive_slots().is_some_and(|slots| self.sources >= slots) {
            // What more comes at the same time only waits at this node's link, while others could have it at once.
            if let Some(own) = self.pack_mut(key).filter(|own| own.lacks_of(peer)) {
                own.declined.insert(peer);
            }
            return self.pass(peer, key);
        }
        match self.pick(peer, key) {
            Some(index) => self.start_flight(now, peer, key, index),
            None => self.pass(peer, key),
        }
    }

    /// Tells neighbours whose turns were passed for others' sake that theirs are welcome again: as many, chosen at
    /// random, as may be asked beside those that send.
    pub(super) fn invite(&mut self) {
        if let Some(slots) = self.receive_slots() {
            self.invite_up_to(slots);
        }
    }

    pub(super) fn invite_up_to(&mut self, slots: u16) {
        let mut room = slots.saturating_sub(self.sources);
        for position in 0..self.lacking.len() {
            let key = self.lacking[position];
            while room > 0 {
                let Some(own) = self.packs.get_mut(usize::from(key.0)).and_then(Option::as_deref_mut) else { break };
                let Some(peer) = own.declined.choose(&self.inside, &self.no_room, &mut self.random) else { break };
                own.declined.remove(peer);
                if own.passed.contains(peer) && own.lacks_of(peer) {
                    own.passed.remove(peer);
                    room -= 1;
                    self.say(peer, key, Word::Interest);
                }
            }
        }
    }

    fn pass(&mut self, peer: PeerKey, key: PackKey) {
        if let Some(own) = self.pack_mut(key) {
            own.passed.insert(peer);
        }
        self.say(peer, key, Word::Pass);
    }

    /// A neighbour needed nothing when the turn reached it. What was announced to it since, it may not have known of.
    pub(super) fn passed(&mut self, peer: PeerKey, key: PackKey) {
        if self.end_turn(peer, key) {
            self.upload_busy.remove(peer);
        }
    }

    /// Ends a turn that was offered. `false`: there was none of this pack.
    fn end_turn(&mut self, peer: PeerKey, key: PackKey) -> bool {
        let Some(state) = self.peer_mut(peer) else { return false };
        let ended = state.turn.take_if(|(pack, _)| *pack == key).is_some();
        self.turns -= u16::from(ended);
        ended
    }

    /// A neighbour takes its turn. `false`: it has none.
    pub(super) fn take_turn(&mut self, now: Monotonic, upload: Upload) -> bool {
        let Upload { peer, pack, .. } = upload;
        if !self.end_turn(peer, pack) {
            return false;
        }
        if let Some(state) = self.peer_mut(peer) {
            state.turn_failures = 0;
        }
        let limited = self.tuning.receive_slots.is_some();
        if let Some(state) = self.pack_mut(pack) {
            if limited {
                state.was_given(peer);
            }
            if state.interested.contains(peer) {
                state.hungry.insert(peer);
                self.feed(pack);
            }
        }
        self.start_upload(now, upload, true);
        true
    }

    /// A turn went by unanswered: the neighbour gets none for a while.
    pub(super) fn turn_went_by(&mut self, now: Monotonic, peer: PeerKey, key: PackKey) {
        self.end_turn(peer, key);
        let Some(state) = self.peer_mut(peer) else { return };
        let until = later(now, TURN_REST << state.turn_failures.min(4));
        state.turn_failures = state.turn_failures.saturating_add(1);
        state.turn_rests_until = Some(until);
        self.wake_at(until, "offer a neighbour turns again");
    }

    /// Tells neighbours whose turns were passed that something of theirs is needed after all.
    pub(super) fn hungry_again(&mut self, key: PackKey, of: &[PeerKey]) {
        for peer in of {
            let Some(own) = self.pack_mut(key) else { return };
            if own.passed.contains(*peer) {
                own.passed.remove(*peer);
                self.say(*peer, key, Word::Interest);
            }
        }
    }

    /// The same for everybody and every pack that lacks frames, where the store has room again.
    pub(super) fn all_hungry_again(&mut self) {
        for key in self.lacking.clone() {
            let passed: Vec<PeerKey> =
                self.pack(key).map_or(Vec::new(), |own| own.passed.iter().filter(|peer| own.lacks_of(*peer)).collect());
            self.hungry_again(key, &passed);
        }
    }

    /// Plans to ask out of turn: who claims a frame and never offers a turn must not keep everybody from it.
    pub(super) fn probe_later(&mut self, key: PackKey) {
        let latest = self.latest;
        let Some(own) = self.pack_mut(key) else { return };
        let at = later(latest, own.probe_after());
        if own.probe_at.is_none() && !own.have.is_full() {
            own.probe_at = Some(at);
            self.wake_at(at, "ask out of turn for what neighbours claim");
        }
    }

    /// Asks out of turn, where nothing has come for long.
    pub(super) fn probe(&mut self, now: Monotonic, key: PackKey) {
        let Some(own) = self.pack_mut(key) else { return };
        if own.probe_at.take_if(|at| *at <= now).is_none() || own.stalled_until.is_some() {
            return;
        }
        let known: Vec<PeerKey> = own.known.iter().collect();
        let claimed = |peer: &PeerKey| own.lacks_of(*peer);
        let due = later(own.arrived_at, own.probe_after());
        if !known.iter().any(claimed) {
            return;
        }
        if due > now {
            own.probe_at = Some(due);
            return;
        }
        own.probe_at = Some(later(now, own.probe_after()));
        for peer in known {
            let idle = |peer: &PeerState| peer.flights.is_empty() && peer.rests_until.is_none() && peer.takes_turns;
            if self.peer(peer).is_some_and(idle)
                && self.store_has_room()
                && !self.receives_all_in_time()
                && let Some(index) = self.pick(peer, key)
            {
                self.start_flight(now, peer, key, index);
            }
        }
    }

    pub(super) fn start_upload(&mut self, now: Monotonic, upload: Upload, by_turn: bool) {
        let Upload { peer, pack, index } = upload;
        let length = self.pack(pack).map_or(0, |state| state.length_of(index));
        let due = later(now, patience(length));
        self.uploads.push((upload, due));
        if by_turn {
            self.upload_busy.insert(peer);
        }
        self.wake_at(due, "a neighbour takes nothing any more");
        self.out(SwarmOutput::ServeFrame { peer, pack, index });
    }
}

impl PackState {
    /// Whose turn is next: of some at random the one that has least. A single one at random leaves some behind, and the
    /// neediest of all would be everybody's choice.
    #[inline]
    fn neediest(&self, inside: &PeerSet, busy: &PeerSet, random: &mut SplitMix, limited: bool) -> Option<PeerKey> {
        if limited {
            return self.hungry.choose_least(inside, busy, random, CHOICES_LIMITED, |peer| self.likely_has(peer));
        }
        self.hungry.choose_least(inside, busy, random, CHOICES, |peer| self.held_by(peer))
    }

    /// After how long without a frame neighbours are asked out of turn.
    fn probe_after(&self) -> u64 {
        PROBE_MIN.max(patience(self.length_of(0)))
    }

    /// Whether a neighbour lacks something that was announced here. For what waits to be announced it would pass its
    /// turn; the announcement makes it hungry.
    #[inline]
    fn has_for(&self, peer: PeerKey) -> bool {
        let row = self.row(peer);
        let mut unsaid = self.announce.iter().filter(|index| !self.peer_has(peer, **index)).count() as u32;
        for (number, shown) in self.shown.words().iter().enumerate() {
            let lacks = shown & !row.get(number).copied().unwrap_or(0);
            if lacks == 0 {
                continue;
            }
            // Counting bits takes longer than all the rest, and mostly there is nothing to subtract.
            let lacks = if unsaid == 0 { 1 } else { lacks.count_ones() };
            if lacks > unsaid {
                return true;
            }
            unsaid -= lacks;
        }
        false
    }
}
