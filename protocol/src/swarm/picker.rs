//! Which frame to ask of whom.
use super::{
    bits::{PeerSet, choose},
    interface::{PackKey, PeerKey, Place, Word},
    state::{Flight, PackState, PeerState, Swarm, later},
};
use crate::{limits::WAN_IN_FLIGHT_BYTES, time::Monotonic};

/// A neighbour that has not spoken for this long does not hold the WAN back, in microseconds.
pub(super) const PATIENCE: u64 = 30_000_000;

impl Swarm {
    /// Asks the neighbours that something has changed for, and the origin, for whatever the budgets allow.
    pub(super) fn schedule(&mut self, now: Monotonic) {
        while let Some(peer) = self.ready.pop() {
            while self.ask_neighbour(now, peer) {}
        }
        if self.leases > 0 {
            let origins: Vec<PeerKey> = self.origins.iter().collect();
            for peer in origins {
                while self.ask_origin(now, peer) {}
            }
        }
    }

    /// Sends one request to a neighbour inside the site, if there is something to ask.
    fn ask_neighbour(&mut self, now: Monotonic, peer: PeerKey) -> bool {
        let Some(state) = self.peer(peer) else { return false };
        // Who gives turns is not asked out of turn.
        let waits = state.takes_turns || state.rests_until.is_some();
        if state.place != Place::Inside || waits || !may_ask_more(state, state.budget_bytes) {
            return false;
        }
        if !self.store_has_room() {
            self.no_room.insert(peer);
            return false;
        }
        for position in 0..self.lacking.len() {
            let key = self.lacking[position];
            let Some(own) = self.pack(key) else { continue };
            if own.stalled_until.is_some() || own.spent.contains(peer) || !own.known.contains(peer) {
                continue;
            }
            if let Some(index) = self.pick(peer, key) {
                self.start_flight(now, peer, key, index);
                return true;
            }
            if let Some(own) = self.pack_mut(key) {
                own.spent.insert(peer);
            }
        }
        false
    }

    /// The rarest frame that a neighbour has and that is missing here; now and then any such frame.
    pub(super) fn pick(&mut self, peer: PeerKey, key: PackKey) -> Option<u32> {
        let one_in = self.tuning.experiment_one_in;
        let experiment = one_in > 0 && self.random.below(one_in) == 0;
        let own = self.packs.get(usize::from(key.0))?.as_deref()?;
        // Most turns are offered for what is on its way here already: that is found out in one pass.
        if !own.lacks_of(peer) {
            return None;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(own.row(peer));
        for (found, missing) in self.scratch.iter_mut().zip(own.missing.words()) {
            *found &= missing;
        }
        if !experiment {
            own.rarity.keep_rarest(&mut self.scratch);
        }
        choose(&self.scratch, &mut self.random)
    }

    /// Sends one request to the origin, if a lease, B of R70 and the budget allow it.
    fn ask_origin(&mut self, now: Monotonic, peer: PeerKey) -> bool {
        let Some(state) = self.peer(peer) else { return false };
        if state.rests_until.is_some() || !may_ask_more(state, WAN_IN_FLIGHT_BYTES) || !self.store_has_room() {
            return false;
        }
        let under_way: u64 = self.packs.iter().flatten().map(|own| own.wan_pending_bytes).sum();
        let mut unshared = None;
        let found = self.lacking.iter().find_map(|key| {
            let own = self.pack(*key)?;
            let asked_whether_busy = own.origin_was_busy && own.wan_pending_bytes > 0;
            let rests = own.stalled_until.is_some() || own.origin_busy_until.is_some() || asked_whether_busy;
            let leased = !rests && own.lease.as_ref().is_some_and(|lease| lease.expires_at > now);
            let index = own.wan_candidate(&self.inside, &self.doubted).filter(|_| leased)?;
            let length = own.length_of(index);
            // Alone or not: a connection that breaks must never cost more than B of what is under way.
            let under_way_fits = under_way == 0 || under_way + length <= self.leased_bytes_max;
            let alone = !self.has_living_neighbour(now, own);
            let unshared = *unshared.get_or_insert_with(|| self.unshared_bytes(now));
            let fits = alone || unshared == 0 || unshared + length <= self.leased_bytes_max;
            (under_way_fits && fits).then_some((*key, index))
        });
        let Some((key, index)) = found else { return false };
        self.start_flight(now, peer, key, index);
        true
    }

    /// Whether some neighbour wants this pack and still shows signs of life.
    pub(super) fn has_living_neighbour(&self, now: Monotonic, own: &PackState) -> bool {
        own.interested.iter().filter_map(|peer| self.peer(peer)).any(|peer| now < later(peer.last_word, PATIENCE))
    }

    /// Bytes that crossed, or are about to cross, the WAN and that no second living node holds (R70).
    fn unshared_bytes(&self, now: Monotonic) -> u64 {
        let shared = self.packs.iter().flatten().filter(|own| self.has_living_neighbour(now, own));
        shared.map(|own| own.sole_bytes + own.wan_pending_bytes).sum()
    }

    pub(super) fn start_flight(&mut self, now: Monotonic, peer: PeerKey, key: PackKey, index: u32) {
        let Some(own) = self.pack_mut(key) else { return };
        let length = own.length_of(index);
        own.missing.remove(index);
        let Some(state) = self.peer_mut(peer) else { return };
        let wan = state.place == Place::Origin;
        if state.flights.is_empty() {
            state.last_progress = now;
        }
        let was_source = state.is_source();
        state.flights.push(Flight { pack: key, index, length: length as u32 });
        let new_source = state.is_source() && !was_source;
        state.in_flight_bytes += length;
        let due = state.progress_due();
        self.flying_bytes += length;
        self.sources += u16::from(new_source);
        if wan && let Some(own) = self.pack_mut(key) {
            own.wan_pending_bytes += length;
        }
        self.wake_at(due, "give up a silent neighbour");
        self.say(peer, key, Word::Request(index));
    }
}

/// One frame may always be under way, more only within the budget.
fn may_ask_more(state: &PeerState, budget_bytes: u64) -> bool {
    state.flights.is_empty() || state.in_flight_bytes < budget_bytes
}

impl PackState {
    /// A missing frame that nobody in the site is known to have, or only neighbours that are doubted.
    pub(super) fn wan_candidate(&self, inside: &PeerSet, doubted: &PeerSet) -> Option<u32> {
        let held = self.site_held.as_ref().map_or(&[][..], |held| held.words());
        (0..).zip(self.missing.words()).find_map(|(number, missing)| {
            let held = held.get(number).copied().unwrap_or(0);
            let found = match missing & !held {
                0 => 0,
                wanted if doubted.is_empty() => wanted & self.rarity.nobody(number),
                wanted => wanted & !self.held_by_trusted(number, inside, doubted),
            };
            (found != 0).then(|| number as u32 * 64 + found.trailing_zeros())
        })
    }

    /// The frames of one word that neighbours hold that are not doubted.
    fn held_by_trusted(&self, word: usize, inside: &PeerSet, doubted: &PeerSet) -> u64 {
        let trusted = inside.iter().filter(|peer| !doubted.contains(*peer));
        trusted.filter_map(|peer| self.row(peer).get(word)).fold(0, |held, row| held | row)
    }
}

#[cfg(test)]
mod tests {
    use crate::swarm::peers::patience;

    #[test]
    fn a_small_frame_gets_under_two_seconds() {
        assert!(patience(128 << 10) <= 2_000_000 && patience(1) < 1_600_000);
    }
}
