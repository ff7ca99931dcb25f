//! Frames that arrive, are stored and are served.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::state::{Durability, PackState, Place, Sender, Swarm, SwarmOutput};
use crate::{
    content::{Bitmap, Pack},
    ids::{NodeId, PackId},
    limits::{
        HAVE_FRAMES_MAX, STORING_BYTES_MAX, SWARM_PACKS_MAX, UPLOAD_QUEUE_MAX, UPLOAD_QUEUE_PER_PEER_MAX, UPLOAD_SLOTS,
    },
    refusal::{Refusal, RefusalKind},
    time::Monotonic,
    wire::bulk::BulkMessage,
};

/// Announcements are gathered for this long.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(20);
/// How long a pack rests after its store failed.
const STALL: Duration = Duration::from_secs(10);
/// What a neighbour is told to wait where the queue is full.
const BUSY_MILLISECONDS: u32 = 50;

impl Swarm {
    pub(super) fn want(&mut self, now: Monotonic, pack: Arc<Pack>, kept: Bitmap) {
        let id = pack.id();
        if self.packs.contains_key(&id) || self.packs.len() >= SWARM_PACKS_MAX || kept.length() != pack.frames() {
            return;
        }
        let sole_bytes = kept.iter().map(|index| pack.frame_length(index)).sum();
        let state = PackState {
            missing: kept.iter_missing().collect(),
            in_flight: BTreeMap::new(),
            storing: BTreeMap::new(),
            holders: vec![0; pack.frames() as usize],
            sole_bytes,
            wan_pending_bytes: 0,
            lease: None,
            ask_lease_at: now,
            site_held: Bitmap::new(pack.frames()),
            stalled_until: None,
            durability: if kept.is_full() { Durability::Complete } else { Durability::Incomplete },
            wan_bytes: 0,
            lan_bytes: 0,
            have: kept,
            pack,
        };
        if state.durability == Durability::Complete {
            self.say(SwarmOutput::Complete { pack: id, wan_bytes: 0, lan_bytes: 0 });
        }
        self.packs.insert(id, state);
        let inside = self.peers.iter().filter(|(_, state)| state.place == Place::Inside);
        let known: Vec<(NodeId, bool)> = inside
            .map(|(peer, state)| (*peer, state.packs.get(&id).is_some_and(|of_peer| of_peer.interested)))
            .collect();
        for (peer, interested) in known {
            self.send(peer, BulkMessage::Interest { pack: id });
            if interested {
                self.tell_have(peer, id);
            }
        }
    }

    pub(super) fn forget(&mut self, pack: PackId) {
        let Some(state) = self.packs.remove(&pack) else { return };
        let frames = state.storing.keys().map(|index| state.pack.frame_length(*index));
        self.storing_bytes -= frames.sum::<u64>();
        self.upload_queue.retain(|(_, of, _)| *of != pack);
        let mut inside = Vec::new();
        for (peer, of) in &mut self.peers {
            let gone: Vec<_> = of.flights.keys().filter(|(of, _)| *of == pack).copied().collect();
            for key in gone {
                of.in_flight_bytes -= of.flights.remove(&key).unwrap_or(0);
            }
            if let Some(of_peer) = of.packs.get_mut(&pack) {
                of_peer.have = None;
                of_peer.announce.clear();
            }
            inside.extend((of.place == Place::Inside).then_some(*peer));
        }
        for peer in inside {
            self.send(peer, BulkMessage::NoInterest { pack });
        }
    }

    pub(super) fn frame(&mut self, now: Monotonic, peer: NodeId, pack: PackId, index: u32, bytes: Vec<u8>) {
        let Some(of_peer) = self.peers.get_mut(&peer) else { return };
        let place = of_peer.place;
        let length = bytes.len() as u64;
        let asked = of_peer.flights.contains_key(&(pack, index));
        of_peer.progressed(now, length);
        self.take_flight(peer, pack, index);
        let Some(state) = self.packs.get(&pack) else { return };
        if index >= state.have.length() || state.pack.frame_length(index) != length {
            let why = format!("it sent {length} bytes as frame {index}, which the manifest does not allow");
            return self.penalise(now, peer, pack, why);
        }
        let known = state.have.contains(index) || state.storing.contains_key(&index);
        let room = asked || self.storing_bytes + length <= STORING_BYTES_MAX;
        let useful = !known && room;
        self.say(SwarmOutput::Account { peer, pack, bytes: length, place, useful });
        if !useful {
            return;
        }
        // It may be on its way from another neighbour too, where this one was slow: that copy will be a duplicate.
        if let Some(other) =
            self.packs.get(&pack).and_then(|state| state.in_flight.get(&index)).map(|flight| flight.peer)
        {
            self.take_flight(other, pack, index);
        }
        let Some(state) = self.packs.get_mut(&pack) else { return };
        state.missing.remove(&index);
        state.storing.insert(index, Sender { peer, wan: place == Place::Origin });
        if place == Place::Origin {
            state.wan_pending_bytes += length;
        }
        self.storing_bytes += length;
        self.say(SwarmOutput::Store { pack, index, bytes, peer });
    }

    /// Ends the time of a frame at the store; gives who had sent it.
    fn leave_store(&mut self, pack: PackId, index: u32) -> Option<Sender> {
        let state = self.packs.get_mut(&pack)?;
        let sender = state.storing.remove(&index)?;
        let length = state.pack.frame_length(index);
        self.storing_bytes -= length;
        if sender.wan {
            state.wan_pending_bytes -= length;
        }
        Some(sender)
    }

    pub(super) fn frame_stored(&mut self, now: Monotonic, pack: PackId, index: u32) {
        let Some(sender) = self.leave_store(pack, index) else { return };
        let Some(state) = self.packs.get_mut(&pack) else { return };
        let length = state.pack.frame_length(index);
        state.have.insert(index);
        if state.holders[index as usize] == 0 {
            state.sole_bytes += length;
        }
        *(if sender.wan { &mut state.wan_bytes } else { &mut state.lan_bytes }) += length;
        let full = state.have.is_full();
        if full {
            state.durability = Durability::Syncing;
            state.lease = None;
        }
        let told = self.peers.iter_mut().filter_map(|(peer, state)| Some((peer, state.packs.get_mut(&pack)?)));
        for (peer, of_peer) in told {
            let lacks = !of_peer.have.as_ref().is_some_and(|have| have.contains(index));
            // Who has it need not hear of it, but for the one who sent it: an inlet fetches no more than B beyond what it
            // knows a second node to hold (R70).
            if of_peer.interested && (lacks || *peer == sender.peer) {
                of_peer.announce.push(index);
                self.announce_at.get_or_insert(now.after(ANNOUNCE_DELAY));
            }
        }
        if full {
            self.say(SwarmOutput::Sync { pack });
        }
    }

    pub(super) fn frame_corrupt(&mut self, now: Monotonic, pack: PackId, index: u32, peer: NodeId) {
        if self.leave_store(pack, index).is_some() {
            self.missing_again(pack, index);
        }
        self.penalise(now, peer, pack, format!("its frame {index} does not have the hash that the manifest says"));
    }

    pub(super) fn store_failed(&mut self, now: Monotonic, pack: PackId, index: u32) {
        if self.leave_store(pack, index).is_some() {
            self.missing_again(pack, index);
        }
        if let Some(state) = self.packs.get_mut(&pack) {
            state.stalled_until = Some(now.after(STALL));
        }
    }

    pub(super) fn frame_lost(&mut self, pack: PackId, index: u32) {
        let Some(state) = self.packs.get_mut(&pack) else { return };
        if state.have.remove(index) {
            if state.holders[index as usize] == 0 {
                state.sole_bytes -= state.pack.frame_length(index);
            }
            state.durability = Durability::Incomplete;
            self.missing_again(pack, index);
        }
    }

    fn missing_again(&mut self, pack: PackId, index: u32) {
        if let Some(state) = self.packs.get_mut(&pack) {
            state.missing.insert(index);
            self.reconsider(pack);
        }
    }

    pub(super) fn pack_synced(&mut self, pack: PackId) {
        let Some(state) = self.packs.get_mut(&pack) else { return };
        if state.durability == Durability::Syncing && state.have.is_full() {
            state.durability = Durability::Complete;
            let (wan_bytes, lan_bytes) = (state.wan_bytes, state.lan_bytes);
            self.say(SwarmOutput::Complete { pack, wan_bytes, lan_bytes });
        }
    }

    /// Where a sync failed, the pack asks again once its rest is over.
    pub(super) fn retry_syncs(&mut self) {
        let due = |state: &&mut PackState| {
            state.durability == Durability::Incomplete && state.have.is_full() && state.stalled_until.is_none()
        };
        let mut packs = Vec::new();
        for state in self.packs.values_mut().filter(due) {
            state.durability = Durability::Syncing;
            packs.push(state.pack.id());
        }
        for pack in packs {
            self.say(SwarmOutput::Sync { pack });
        }
    }

    pub(super) fn sync_failed(&mut self, pack: PackId) {
        if let Some(state) = self.packs.get_mut(&pack).filter(|state| state.durability == Durability::Syncing) {
            state.durability = Durability::Incomplete;
        }
    }

    pub(super) fn request(&mut self, now: Monotonic, peer: NodeId, pack: PackId, index: u32) {
        if let Some(of_peer) = self.peers.get_mut(&peer).and_then(|state| state.packs.get_mut(&pack)) {
            of_peer.last_word = now;
        }
        if !self.packs.get(&pack).is_some_and(|state| state.have.contains(index)) {
            let refusal = Refusal::new(RefusalKind::NotFound, format!("frame {index} is not here"));
            return self.send(peer, BulkMessage::Refuse { pack, index: Some(index), refusal });
        }
        let key = (peer, pack, index);
        if self.serving.contains(&key) || self.upload_queue.contains(&key) {
            return;
        }
        let own = self.upload_queue.iter().filter(|(to, ..)| *to == peer).count();
        if own >= UPLOAD_QUEUE_PER_PEER_MAX || self.upload_queue.len() >= UPLOAD_QUEUE_MAX {
            let retry_after_milliseconds = BUSY_MILLISECONDS;
            return self.send(peer, BulkMessage::Busy { pack, index, retry_after_milliseconds });
        }
        self.upload_queue.push_back(key);
        self.start_uploads();
    }

    pub(super) fn frame_served(&mut self, peer: NodeId, pack: PackId, index: u32) {
        if self.serving.remove(&(peer, pack, index)) {
            self.start_uploads();
        }
    }

    pub(super) fn start_uploads(&mut self) {
        while self.serving.len() < UPLOAD_SLOTS {
            let Some((peer, pack, index)) = self.upload_queue.pop_front() else { return };
            self.serving.insert((peer, pack, index));
            self.say(SwarmOutput::ServeFrame { peer, pack, index });
        }
    }

    pub(super) fn announce(&mut self, now: Monotonic) {
        if self.announce_at.is_none_or(|at| at > now) {
            return;
        }
        self.announce_at = None;
        let mut messages = Vec::new();
        for (peer, state) in &mut self.peers {
            for (pack, of_peer) in &mut state.packs {
                let indexes = std::mem::take(&mut of_peer.announce);
                messages.extend(indexes.chunks(HAVE_FRAMES_MAX).map(|part| (*peer, *pack, part.to_vec())));
            }
        }
        for (peer, pack, indexes) in messages {
            self.send(peer, BulkMessage::HaveFrames { pack, indexes });
        }
    }
}
