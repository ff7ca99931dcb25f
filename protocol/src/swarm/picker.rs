//! Which frame to ask of whom.
use std::time::Duration;

use rand_core::Rng;

use super::state::{Flight, PackState, PeerState, Place, Swarm};
use crate::{
    ids::{NodeId, PackId},
    limits::{STORING_BYTES_MAX, WAN_IN_FLIGHT_BYTES},
    time::Monotonic,
    wire::bulk::BulkMessage,
};

/// One request in this many ignores rarity, so that no two nodes stay in step.
const EXPERIMENT_ONE_IN: u64 = 16;
/// A neighbour that has not spoken of a pack for this long does not hold the WAN back.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

impl Swarm {
    /// Asks for whatever the budgets allow.
    pub(super) fn schedule(&mut self, now: Monotonic) {
        let peers: Vec<(NodeId, Place)> = self.peers.iter().map(|(peer, state)| (*peer, state.place)).collect();
        for (peer, place) in peers {
            match place {
                Place::Inside => while self.ask_neighbour(now, peer) {},
                Place::Origin => while self.ask_origin(now, peer) {},
                Place::Outside => {}
            }
        }
    }

    fn store_has_room(&self) -> bool {
        let flying: u64 = self.peers.values().map(|state| state.in_flight_bytes).sum();
        self.storing_bytes + flying < STORING_BYTES_MAX
    }

    /// Sends one request to a neighbour inside the site, if there is something to ask.
    fn ask_neighbour(&mut self, now: Monotonic, peer: NodeId) -> bool {
        let Some(state) = self.peers.get_mut(&peer) else { return false };
        if state.rests_until.is_some() || !may_ask_more(state, state.budget_bytes) {
            return false;
        }
        let mut found = None;
        for (pack, of_peer) in &mut state.packs {
            let (Some(own), Some(have)) = (self.packs.get(pack), &of_peer.have) else { continue };
            if of_peer.nothing_useful || own.stalled_until.is_some() {
                continue;
            }
            found = rarest(own, |index| have.contains(index), &mut self.random).map(|index| (*pack, index));
            of_peer.nothing_useful = found.is_none();
            if found.is_some() {
                break;
            }
        }
        match found {
            Some((pack, index)) if self.store_has_room() => {
                self.start_flight(now, peer, pack, index, false);
                true
            }
            _ => false,
        }
    }

    /// Sends one request to the origin, if a lease, B of R70 and the budget allow it.
    fn ask_origin(&mut self, now: Monotonic, peer: NodeId) -> bool {
        let Some(state) = self.peers.get(&peer) else { return false };
        if state.rests_until.is_some() || !may_ask_more(state, WAN_IN_FLIGHT_BYTES) || !self.store_has_room() {
            return false;
        }
        let leased = |own: &&PackState| {
            own.stalled_until.is_none() && own.lease.as_ref().is_some_and(|lease| lease.expires_at > now)
        };
        let unshared = self.unshared_bytes(now);
        let under_way: u64 = self.packs.values().map(|own| own.wan_pending_bytes).sum();
        let found = self.packs.values().filter(leased).find_map(|own| {
            let index = own.wan_candidate()?;
            let alone = !self.has_living_neighbour(now, own.pack.id());
            let length = own.pack.frame_length(index);
            let fits = unshared + length <= self.leased_bytes_max;
            // Alone or not: a connection that breaks must never cost more than B of what is under way.
            let under_way_fits = under_way == 0 || under_way + length <= self.leased_bytes_max;
            (under_way_fits && (alone || fits || unshared == 0)).then(|| (own.pack.id(), index))
        });
        let Some((pack, index)) = found else { return false };
        self.start_flight(now, peer, pack, index, true);
        true
    }

    /// Whether some neighbour wants this pack and still shows signs of life about it.
    pub(super) fn has_living_neighbour(&self, now: Monotonic, pack: PackId) -> bool {
        let of_pack = self.peers.values().filter(|state| state.place == Place::Inside);
        of_pack.filter_map(|state| state.packs.get(&pack)).any(|of_peer| of_peer.is_living(now))
    }

    /// Bytes that crossed, or are about to cross, the WAN and that no second living node holds (R70).
    fn unshared_bytes(&self, now: Monotonic) -> u64 {
        let shared = self.packs.iter().filter(|(pack, _)| self.has_living_neighbour(now, **pack));
        shared.map(|(_, own)| own.sole_bytes + own.wan_pending_bytes).sum()
    }

    fn start_flight(&mut self, now: Monotonic, peer: NodeId, pack: PackId, index: u32, wan: bool) {
        let (Some(own), Some(state)) = (self.packs.get_mut(&pack), self.peers.get_mut(&peer)) else { return };
        let length = own.pack.frame_length(index);
        own.missing.remove(&index);
        own.in_flight.insert(index, Flight { peer, wan });
        if wan {
            own.wan_pending_bytes += length;
        }
        if state.flights.is_empty() {
            state.last_progress = now;
        }
        state.flights.insert((pack, index), length);
        state.in_flight_bytes += length;
        self.send(peer, BulkMessage::Request { pack, index });
    }
}

/// One frame may always be under way, more only within the budget.
fn may_ask_more(state: &PeerState, budget_bytes: u64) -> bool {
    state.flights.is_empty() || state.in_flight_bytes < budget_bytes
}

/// The missing frame that the fewest neighbours have, among those that `offered` names; ties fall at random.
fn rarest(own: &PackState, offered: impl Fn(u32) -> bool, random: &mut impl Rng) -> Option<u32> {
    let experiment = random.next_u64().is_multiple_of(EXPERIMENT_ONE_IN);
    let rarity = |index: u32| if experiment { 0 } else { own.holders[index as usize] };
    let (mut best, mut equals) = (None, 0);
    for index in own.missing.iter().copied().filter(|index| offered(*index)) {
        match best.map(|best| rarity(index).cmp(&rarity(best))) {
            Some(std::cmp::Ordering::Greater) => {}
            Some(std::cmp::Ordering::Equal) => {
                equals += 1;
                if random.next_u64().is_multiple_of(equals) {
                    best = Some(index);
                }
            }
            _ => (best, equals) = (Some(index), 1),
        }
    }
    best
}

impl PackState {
    /// A missing frame that nobody in the site is known to have.
    pub(super) fn wan_candidate(&self) -> Option<u32> {
        let nobody = |index: &u32| self.holders[*index as usize] == 0 && !self.site_held.contains(*index);
        self.missing.iter().copied().find(nobody)
    }
}

impl super::state::PeerPack {
    pub(super) fn is_living(&self, now: Monotonic) -> bool {
        self.interested && now < self.last_word.after(PATIENCE)
    }
}
