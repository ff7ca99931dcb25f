//! What always holds.
use std::collections::BTreeSet;

use super::{
    interface::{PackKey, PeerKey, Place},
    state::{PackState, Swarm},
};
use crate::{
    content::bits,
    limits::{BANS_MAX, SWARM_PACKS_MAX, UPLOAD_QUEUE_MAX},
};

impl Swarm {
    /// Panics where an invariant is broken.
    pub(super) fn assert_invariants(&self) {
        for (key, own) in (0..).zip(&self.packs) {
            if let Some(own) = own {
                self.assert_pack(PackKey(key), own);
            }
        }
        for (key, state) in (0..).zip(&self.peers) {
            let (peer, Some(state)) = (PeerKey(key), state) else {
                assert!(!self.inside.contains(PeerKey(key)) && !self.ready.contains(PeerKey(key)), "a ghost {key}");
                continue;
            };
            let sum: u64 = state.flights.iter().map(|flight| u64::from(flight.length)).sum();
            assert_eq!(sum, state.in_flight_bytes, "bytes in flight from {peer:?}");
            assert!(state.place != Place::Outside || state.flights.is_empty(), "asked of a peer outside the site");
            let queued = self.upload_queue.iter().filter(|upload| upload.peer == peer).count();
            assert_eq!(queued, usize::from(state.queued), "frames that wait for {peer:?}");
            let busy = state.push.is_some() || state.push_rests_until.is_some();
            assert_eq!(self.push_busy.contains(peer), busy, "{peer:?} is pushed to or rests");
            let served = self.uploads.iter().any(|(upload, _)| upload.peer == peer);
            let busy = state.turn.is_some() || state.turn_rests_until.is_some();
            assert!(!busy || self.upload_busy.contains(peer), "{peer:?} has a turn or rests");
            let overdue = self.uploads_overdue.iter().any(|upload| upload.peer == peer);
            assert!(busy || served || overdue || !self.upload_busy.contains(peer), "{peer:?} gets no turn any more");
            assert_eq!(self.inside.contains(peer), state.place == Place::Inside, "{peer:?} is inside");
        }
        self.assert_sums();
    }

    fn assert_sums(&self) {
        let storing = |own: &PackState| own.storing.iter().map(|storing| own.length_of(storing.index)).sum::<u64>();
        assert_eq!(
            self.packs.iter().flatten().map(|own| storing(own)).sum::<u64>(),
            self.storing_bytes,
            "at the store"
        );
        let flying: u64 = self.peers.iter().flatten().map(|peer| peer.in_flight_bytes).sum();
        assert_eq!(flying, self.flying_bytes, "bytes in flight");
        let sources = self.peers.iter().flatten().filter(|peer| peer.is_source()).count();
        assert_eq!(sources, usize::from(self.sources), "neighbours that send what was asked in their turns");
        let pushes = self.peers.iter().flatten().filter(|peer| peer.push.is_some() && !peer.push_overdue).count();
        assert_eq!(pushes, usize::from(self.push_active), "pushes under way");
        assert!(pushes <= usize::from(self.tuning.push_slots), "push slots");
        let turns = self.peers.iter().flatten().filter(|peer| peer.turn.is_some()).count();
        assert_eq!(turns, usize::from(self.turns), "turns that were offered");
        let uploads = self.uploads.len() + turns <= usize::from(self.tuning.upload_slots);
        assert!(uploads && self.upload_queue.len() <= UPLOAD_QUEUE_MAX, "uploads");
        assert!(self.bans.len() <= BANS_MAX && self.packs.len() <= SWARM_PACKS_MAX, "tables");
        let leases = self.packs.iter().flatten().filter(|own| own.lease.is_some()).count();
        assert_eq!(leases, usize::from(self.leases), "leases");
    }

    fn assert_pack(&self, key: PackKey, own: &PackState) {
        let id = own.manifest.id();
        let flying: BTreeSet<u32> = self
            .peers
            .iter()
            .flatten()
            .flat_map(|peer| &peer.flights)
            .filter(|flight| flight.pack == key)
            .map(|flight| flight.index)
            .collect();
        let storing: BTreeSet<u32> = own.storing.iter().map(|storing| storing.index).collect();
        assert_eq!(storing.len(), own.storing.len(), "a frame of {id} is twice at the store");
        for index in 0..own.have.length() {
            let have = own.have.contains(index);
            let elsewhere = have || storing.contains(&index) || flying.contains(&index);
            assert!(!(have && storing.contains(&index)), "frame {index} of {id} is here and at the store");
            assert_eq!(own.missing.contains(index), !elsewhere, "frame {index} of {id} is missing");
            assert!(have || !own.shown.contains(index), "frame {index} of {id} is shown and not here");
            let holders = (0..self.peers.len()).filter(|peer| own.peer_has(PeerKey(*peer as u16), index)).count();
            assert_eq!(holders, own.rarity.count(index) as usize, "holders of frame {index} of {id}");
            let pushable = have && holders == 0 && !own.shown.contains(index);
            assert!(pushable || !own.to_push.contains(index), "frame {index} of {id} is to be pushed");
        }
        let sum = |indexes: &mut dyn Iterator<Item = u32>| indexes.map(|index| own.length_of(index)).sum::<u64>();
        assert_eq!(sum(&mut own.have.iter()), own.have_bytes, "bytes of {id}");
        let sole = sum(&mut own.have.iter().filter(|index| own.rarity.is_zero(*index)));
        assert_eq!(sole, own.sole_bytes, "sole bytes of {id}");
        let stored = own.storing.iter().filter(|storing| storing.wan).map(|storing| storing.index);
        let origins = self.peers.iter().flatten().filter(|peer| peer.place == Place::Origin);
        let flights = origins.flat_map(|peer| &peer.flights).filter(|flight| flight.pack == key);
        let pending = sum(&mut stored.chain(flights.map(|flight| flight.index)));
        assert_eq!(pending, own.wan_pending_bytes, "bytes of {id} on the WAN");
        let under_way =
            |peer: &&super::state::PeerState| peer.push.is_some_and(|(pack, _)| pack == key) && !peer.push_overdue;
        let pushing = self.peers.iter().flatten().map(|peer| &**peer).filter(under_way).count();
        assert_eq!(pushing, usize::from(own.pushing), "pushes of {id}");
        assert_eq!(self.lacking.contains(&key), !own.have.is_full(), "{id} lacks frames");
        let withheld = own.shown.count() != own.have.count();
        assert!(!withheld || self.pushing.contains(&key), "{id} withholds frames and pushes nothing");
        assert!(own.hungry.is_empty() || self.feeding.contains(&key), "nobody is fed with {id}");
        assert!(own.declined.iter().all(|peer| self.inside.contains(peer)), "a ghost's turns of {id} are passed");
        assert!(
            own.declined.is_empty() || self.receive_slots().is_some(),
            "turns of {id} are passed for nobody's sake"
        );
        assert!(own.given.is_empty() || self.tuning.receive_slots.is_some(), "turns of {id} are counted for nothing");
        for peer in own.spent.iter() {
            let useful = own.missing.words().iter().zip(own.row(peer)).any(|(missing, has)| missing & has != 0);
            assert!(!useful, "{peer:?} has something of {id} after all");
        }
        for peer in (0..self.peers.len()).map(|slot| PeerKey(slot as u16)) {
            assert_eq!(bits(own.row(peer)).count() as u32, own.held_by(peer), "frames of {id} that {peer:?} has");
        }
        assert_eq!(bits(own.have.words()).count() as u32, own.have.count(), "count of {id}");
    }
}
