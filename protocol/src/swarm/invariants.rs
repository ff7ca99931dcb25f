//! What always holds.
use super::state::{PackState, Place, Swarm};
use crate::{
    ids::PackId,
    limits::{BANS_MAX, SWARM_PACKS_MAX, UPLOAD_QUEUE_MAX, UPLOAD_SLOTS},
};

impl Swarm {
    /// Panics where an invariant is broken.
    pub(super) fn assert_invariants(&self) {
        for (pack, own) in &self.packs {
            self.assert_pack(*pack, own);
        }
        for (peer, state) in &self.peers {
            let sum: u64 = state.flights.values().sum();
            assert_eq!(sum, state.in_flight_bytes, "bytes in flight from {peer}");
            for (pack, index) in state.flights.keys() {
                let flight = self.packs.get(pack).and_then(|own| own.in_flight.get(index));
                assert_eq!(flight.map(|flight| flight.peer), Some(*peer), "a request that only the peer knows");
            }
            assert!(state.place != Place::Outside || state.flights.is_empty(), "asked of a peer outside the site");
        }
        let storing = |own: &PackState| own.storing.keys().map(|index| own.pack.frame_length(*index)).sum::<u64>();
        assert_eq!(self.packs.values().map(storing).sum::<u64>(), self.storing_bytes, "bytes at the store");
        assert!(self.serving.len() <= UPLOAD_SLOTS && self.upload_queue.len() <= UPLOAD_QUEUE_MAX, "uploads");
        assert!(self.bans.len() <= BANS_MAX && self.packs.len() <= SWARM_PACKS_MAX, "tables");
    }

    fn assert_pack(&self, pack: PackId, own: &PackState) {
        let frames = own.pack.frames();
        let places = own.have.count() as usize + own.missing.len() + own.in_flight.len() + own.storing.len();
        assert_eq!(places, frames as usize, "a frame of {pack} is in two places or in none");
        for index in own.missing.iter().chain(own.in_flight.keys()).chain(own.storing.keys()) {
            assert!(!own.have.contains(*index), "frame {index} of {pack} is here and is not");
        }
        let mut holders = vec![0; frames as usize];
        let bitmaps = self.peers.values().filter_map(|state| state.packs.get(&pack)?.have.as_ref());
        bitmaps.flat_map(|have| have.iter()).for_each(|index| holders[index as usize] += 1);
        assert_eq!(holders, own.holders, "holders of {pack}");
        let sole = own.have.iter().filter(|index| holders[*index as usize] == 0);
        assert_eq!(sole.map(|index| own.pack.frame_length(index)).sum::<u64>(), own.sole_bytes, "sole bytes of {pack}");
        let flying = own.in_flight.iter().filter(|(_, flight)| flight.wan).map(|(index, _)| *index);
        let pending = flying.chain(own.storing.iter().filter(|(_, sender)| sender.wan).map(|(index, _)| *index));
        let pending: u64 = pending.map(|index| own.pack.frame_length(index)).sum();
        assert_eq!(pending, own.wan_pending_bytes, "bytes of {pack} on the WAN");
        for (index, flight) in &own.in_flight {
            let known = self.peers.get(&flight.peer).is_some_and(|state| state.flights.contains_key(&(pack, *index)));
            assert!(known, "frame {index} of {pack} is asked of a peer that does not know it");
        }
    }
}
