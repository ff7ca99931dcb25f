//! Packs that are wanted and forgotten; frames that arrive and are stored.
use std::collections::VecDeque;

use super::{
    bits::{PeerSet, Rarity},
    interface::{Offence, PackKey, PeerKey, Place, SwarmOutput, WantedPack, Word},
    state::{Durability, PackState, PeerState, Storing, Swarm, enlist, later},
};
use crate::{
    content::Bitmap,
    limits::{STORING_BYTES_MAX, SWARM_PACKS_MAX},
    time::Monotonic,
};

/// How long a pack rests after its store failed, in microseconds.
const STALL: u64 = 10_000_000;
/// Frames in excess that a peer may send unasked, which are here already.
const REPLAYS_MAX: u16 = 256;

impl Swarm {
    pub(super) fn want(&mut self, now: Monotonic, key: PackKey, wanted: WantedPack) {
        let WantedPack { manifest, kept, raw, source } = wanted;
        let slot = usize::from(key.0);
        let frames = manifest.frames();
        let raw = raw.filter(|raw| raw.length() == frames && !raw.is_empty()).map(Box::new);
        if slot >= SWARM_PACKS_MAX || self.pack(key).is_some() || kept.length() != frames {
            return;
        }
        if self.packs.len() <= slot {
            self.packs.resize_with(slot + 1, || None);
        }
        let have_bytes = kept.iter().map(|index| manifest.frame_length(index)).sum();
        let mut missing = Bitmap::full(frames);
        missing.subtract(&kept);
        let withhold = source && self.tuning.push_slots > 0;
        let complete = kept.is_full();
        let words = kept.words().len();
        let state = PackState {
            longest_frame_bytes: (0..frames).map(|index| manifest.frame_length(index)).max().unwrap_or(0),
            manifest,
            missing,
            shown: if withhold { Bitmap::new(frames) } else { kept.clone() },
            to_push: if withhold { kept.clone() } else { Bitmap::new(frames) },
            have: kept,
            raw,
            words,
            rows: Vec::new(),
            held: Vec::new(),
            given: Vec::new(),
            rarity: Rarity::new(words),
            known: PeerSet::default(),
            interested: PeerSet::default(),
            spent: PeerSet::default(),
            hungry: PeerSet::default(),
            passed: PeerSet::default(),
            declined: PeerSet::default(),
            storing: Vec::new(),
            pushes: VecDeque::new(),
            pushing: 0,
            push_cursor: self.random.below(frames),
            quiet_at: None,
            announce: Vec::new(),
            confirm: Vec::new(),
            announce_all: false,
            have_bytes,
            sole_bytes: have_bytes,
            wan_pending_bytes: 0,
            lease: None,
            ask_lease_at: now,
            asked_with: 0,
            ask_interval: 0,
            site_held: None,
            stalled_until: None,
            origin_busy_until: None,
            origin_was_busy: false,
            probe_at: None,
            arrived_at: now,
            durability: if complete { Durability::Complete } else { Durability::Incomplete },
            wan_bytes: 0,
            lan_bytes: 0,
        };
        self.packs[slot] = Some(Box::new(state));
        if withhold && have_bytes > 0 {
            self.pushing.push(key);
        }
        if complete {
            self.out(SwarmOutput::Complete { pack: key, wan_bytes: 0, lan_bytes: 0 });
        } else {
            self.lacking.push(key);
            self.wake_at(now, "ask for the lease");
        }
        let inside: Vec<PeerKey> = self.inside.iter().collect();
        for peer in inside {
            self.say(peer, key, Word::Interest);
        }
    }

    pub(super) fn forget(&mut self, now: Monotonic, key: PackKey) {
        let Some(state) = self.packs.get_mut(usize::from(key.0)).and_then(Option::take) else { return };
        let storing: u64 = state.storing.iter().map(|storing| state.length_of(storing.index)).sum();
        self.storing_bytes -= storing;
        self.leases -= u16::from(state.lease.is_some());
        for list in [&mut self.lacking, &mut self.pushing, &mut self.announcing, &mut self.feeding] {
            list.retain(|other| *other != key);
        }
        self.drop_queued(|upload| upload.pack == key);
        let ended: Vec<PeerKey> =
            self.uploads.iter().filter(|(upload, _)| upload.pack == key).map(|(upload, _)| upload.peer).collect();
        self.uploads.retain(|(upload, _)| upload.pack != key);
        self.uploads_overdue.retain(|upload| upload.pack != key);
        self.ready.union(&self.inside);
        let inside: Vec<PeerKey> = self.inside.iter().chain(self.origins.iter()).collect();
        for peer in inside {
            let Some(of_peer) = self.peer_mut(peer) else { continue };
            let (mut freed, was_source) = (0, of_peer.is_source());
            of_peer.flights.retain(|flight| {
                let keep = flight.pack != key;
                freed += if keep { 0 } else { u64::from(flight.length) };
                keep
            });
            of_peer.in_flight_bytes -= freed;
            let ended_source = was_source && !of_peer.is_source();
            let inside = of_peer.place == Place::Inside;
            let pushed = of_peer.push.take_if(|(pack, _)| *pack == key).is_some();
            let counted = pushed && !std::mem::take(&mut of_peer.push_overdue);
            let rests = of_peer.push_rests_until.is_some();
            let turn = of_peer.turn.take_if(|(pack, _)| *pack == key).is_some();
            if (turn || ended.contains(&peer)) && of_peer.turn_rests_until.is_none() && of_peer.turn.is_none() {
                self.upload_busy.remove(peer);
            }
            self.turns -= u16::from(turn);
            self.push_active -= u16::from(counted);
            if pushed && !rests {
                self.push_busy.remove(peer);
            }
            self.flying_bytes -= freed;
            self.sources -= u16::from(ended_source);
            if inside {
                self.say(peer, key, Word::NoInterest);
            }
        }
        self.start_uploads(now);
        self.room_again();
        self.invite();
    }

    pub(super) fn frame_arrived(
        &mut self,
        now: Monotonic,
        peer: PeerKey,
        key: PackKey,
        index: u32,
        length: u32,
        raw: bool,
    ) {
        let Some(of_peer) = self.peer_mut(peer) else { return };
        let place = of_peer.place;
        if place == Place::Outside {
            return;
        }
        of_peer.last_word = now;
        let Some(state) = self.pack(key) else { return };
        let entry = state.manifest.chunk(index);
        let expected = entry.map(|entry| if raw { entry.raw_length } else { entry.frame_length });
        if expected != Some(length) || (raw && place == Place::Origin) {
            return self.penalise(now, peer, key, Offence::WrongFrame { index, length });
        }
        self.sends(peer);
        let asked = self.end_flight(peer, key, index);
        let on_disk = self.frame_on_disk(key, index);
        if asked || !on_disk {
            self.progressed(now, peer, u64::from(length));
        }
        let room = asked || self.storing_bytes + self.flying_bytes + u64::from(length) <= STORING_BYTES_MAX;
        self.ready.insert(peer);
        if on_disk || !room {
            if asked && !on_disk {
                self.missing_again(key, index);
            }
            return self.count_replay(now, peer, key, !asked && on_disk);
        }
        let Some(of_peer) = self.peer_mut(peer) else { return };
        of_peer.false_claims = 0;
        of_peer.replays = of_peer.replays.saturating_sub(1);
        let node = of_peer.node;
        let Some(state) = self.pack_mut(key) else { return };
        let frame_bytes = state.length_of(index);
        let wan = place == Place::Origin;
        state.missing.remove(index);
        state.arrived_at = now;
        state.storing.push(Storing { index, peer, node, wan, pushed: !asked, raw });
        if wan {
            state.wan_pending_bytes += frame_bytes;
            state.origin_was_busy = false;
        }
        self.storing_bytes += frame_bytes;
        self.out(SwarmOutput::Store { pack: key, index, peer });
    }

    /// Whether a frame needs no other copy: it is here, or at the store.
    fn frame_on_disk(&self, key: PackKey, index: u32) -> bool {
        let Some(state) = self.pack(key) else { return true };
        state.have.contains(index) || state.storing.iter().any(|storing| storing.index == index)
    }

    fn count_replay(&mut self, now: Monotonic, peer: PeerKey, key: PackKey, replay: bool) {
        let Some(of_peer) = self.peer_mut(peer) else { return };
        of_peer.replays += u16::from(replay);
        if of_peer.replays > REPLAYS_MAX {
            self.penalise(now, peer, key, Offence::Replays);
        }
    }

    /// Ends the time of a frame at the store; gives where it had come from.
    fn leave_store(&mut self, key: PackKey, index: u32) -> Option<Storing> {
        let state = self.pack_mut(key)?;
        let position = state.storing.iter().position(|storing| storing.index == index)?;
        let storing = state.storing.swap_remove(position);
        let length = state.length_of(index);
        if storing.wan {
            state.wan_pending_bytes -= length;
        }
        self.storing_bytes -= length;
        self.room_again();
        Some(storing)
    }

    pub(super) fn frame_stored(&mut self, now: Monotonic, key: PackKey, index: u32) {
        let Some(came) = self.leave_store(key, index) else { return };
        let pushes = self.tuning.push_slots > 0;
        let Some(state) = self.pack_mut(key) else { return };
        let length = state.length_of(index);
        state.have.insert(index);
        state.have_bytes += length;
        match (came.raw, &mut state.raw) {
            (true, Some(raw)) => drop(raw.insert(index)),
            (true, none) => {
                let mut raw = Bitmap::new(state.have.length());
                raw.insert(index);
                *none = Some(Box::new(raw));
            }
            _ => {}
        }
        let alone = state.rarity.is_zero(index);
        if alone {
            state.sole_bytes += length;
        }
        *(if came.wan { &mut state.wan_bytes } else { &mut state.lan_bytes }) += length;
        let full = state.have.is_full();
        if full {
            state.durability = Durability::Syncing;
        }
        if came.wan && alone && pushes {
            state.to_push.insert(index);
            state.quiet_at = None;
            enlist(&mut self.pushing, key);
        } else {
            state.shown.insert(index);
            state.announce.push(index);
            // Who pushed it must learn that it has arrived (R70: a second node holds it), and so must an inlet that
            // was asked for what nobody else had.
            if !came.wan && (came.pushed || state.rarity.count(index) <= 1) {
                state.confirm.push((came.peer, index));
            }
            self.announce_soon(now, key, full);
        }
        if full {
            self.drop_lease(key);
            self.lacking.retain(|other| *other != key);
            self.out(SwarmOutput::Sync { pack: key });
        }
    }

    pub(super) fn frame_corrupt(&mut self, now: Monotonic, key: PackKey, index: u32) {
        let Some(came) = self.leave_store(key, index) else { return };
        self.missing_again(key, index);
        let same = self.peer(came.peer).is_some_and(|peer| peer.node == came.node);
        if same {
            self.penalise(now, came.peer, key, Offence::CorruptFrame { index });
        } else {
            self.ban(now, came.node);
        }
    }

    pub(super) fn store_failed(&mut self, now: Monotonic, key: PackKey, index: Option<u32>) {
        if let Some(index) = index
            && self.leave_store(key, index).is_some()
        {
            self.missing_again(key, index);
        }
        let until = later(now, STALL);
        let Some(state) = self.pack_mut(key) else { return };
        state.stalled_until = Some(until);
        if index.is_none() && state.durability == Durability::Syncing {
            state.durability = Durability::Incomplete;
        }
        self.wake_at(until, "try the store again");
    }

    pub(super) fn frame_lost(&mut self, now: Monotonic, key: PackKey, index: u32) {
        let Some(state) = self.pack_mut(key) else { return };
        if !state.have.remove(index) {
            return;
        }
        let length = state.length_of(index);
        state.have_bytes -= length;
        if state.rarity.is_zero(index) {
            state.sole_bytes -= length;
        }
        state.shown.remove(index);
        state.to_push.remove(index);
        state.raw.as_mut().map(|raw| raw.remove(index));
        state.announce.retain(|other| *other != index);
        state.durability = Durability::Incomplete;
        state.ask_lease_at = now;
        enlist(&mut self.lacking, key);
        self.wake_at(now, "ask for the lease");
        self.missing_again(key, index);
        self.push_settled(now, key);
    }

    /// A frame is wanted again, unless it is here, at the store, or on its way from elsewhere.
    pub(super) fn missing_again(&mut self, key: PackKey, index: u32) {
        let flying = |peer: &PeerState| peer.flights.iter().any(|flight| flight.pack == key && flight.index == index);
        if self.frame_on_disk(key, index) || self.peers.iter().flatten().any(|peer| flying(peer)) {
            return;
        }
        let Some(state) = self.packs.get_mut(usize::from(key.0)).and_then(Option::as_deref_mut) else { return };
        state.missing.insert(index);
        let holders: Vec<PeerKey> = state.known.iter().filter(|peer| state.peer_has(*peer, index)).collect();
        for peer in &holders {
            state.spent.remove(*peer);
            self.ready.insert(*peer);
        }
        self.hungry_again(key, &holders);
        if !holders.is_empty() {
            self.probe_later(key);
        }
    }

    pub(super) fn pack_synced(&mut self, key: PackKey) {
        let Some(state) = self.pack_mut(key) else { return };
        if state.durability == Durability::Syncing && state.have.is_full() {
            state.durability = Durability::Complete;
            let (wan_bytes, lan_bytes) = (state.wan_bytes, state.lan_bytes);
            self.out(SwarmOutput::Complete { pack: key, wan_bytes, lan_bytes });
        }
    }

    /// The store has room again for whoever was not asked for lack of it.
    pub(super) fn room_again(&mut self) {
        if !self.no_room.is_empty() {
            self.ready.union(&self.no_room);
            self.no_room.clear();
            self.all_hungry_again();
        }
    }

    pub(super) fn store_has_room(&self) -> bool {
        self.storing_bytes + self.flying_bytes < STORING_BYTES_MAX
    }
}
