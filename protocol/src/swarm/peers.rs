//! Neighbours that come, go, speak and misbehave.
use std::time::Duration;

use super::state::{Ban, PackState, PeerPack, PeerState, Place, Swarm, SwarmOutput};
use crate::{
    content::Bitmap,
    ids::{NodeId, PackId},
    limits::{BANS_MAX, HAVE_FRAMES_MAX, LAN_IN_FLIGHT_BYTES, PACKS_PER_PEER_MAX},
    refusal::{Refusal, RefusalKind},
    time::Monotonic,
    wire::bulk::BulkMessage,
};

/// Longest rest after a busy answer.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// First ban; doubles each time, up to 64 times as long.
const BAN: Duration = Duration::from_secs(60);

impl Swarm {
    pub(super) fn peer_joined(&mut self, now: Monotonic, peer: NodeId, place: Place) {
        self.peer_left(now, peer);
        if self.bans.get(&peer).is_some_and(|ban| ban.until > now) {
            return self.say(SwarmOutput::Disconnect { peer, why: "it served corrupt frames not long ago" });
        }
        self.peers.insert(peer, PeerState::new(place, now));
        let packs: Vec<PackId> = self.packs.keys().copied().collect();
        for pack in packs {
            match place {
                Place::Inside => self.send(peer, BulkMessage::Interest { pack }),
                Place::Origin => self.show_lease(pack, peer),
                Place::Outside => {}
            }
        }
    }

    pub(super) fn peer_left(&mut self, _now: Monotonic, peer: NodeId) {
        self.serving.retain(|(to, ..)| *to != peer);
        self.upload_queue.retain(|(to, ..)| *to != peer);
        let Some(gone) = self.peers.remove(&peer) else { return };
        for (pack, index) in gone.flights.keys() {
            self.flight_ended(*pack, *index);
        }
        for (pack, of_peer) in gone.packs {
            if let (Some(state), Some(have)) = (self.packs.get_mut(&pack), of_peer.have) {
                have.iter().for_each(|index| state.lost_holder(index));
            }
        }
        self.start_uploads();
    }

    /// Bans a peer that sent something that cannot be an accident of the network.
    pub(super) fn penalise(&mut self, now: Monotonic, peer: NodeId, pack: PackId, why: String) {
        if self.bans.len() >= BANS_MAX && !self.bans.contains_key(&peer) {
            let first = self.bans.iter().min_by_key(|(_, ban)| ban.until).map(|(node, _)| *node);
            first.map(|node| self.bans.remove(&node));
        }
        let ban = self.bans.entry(peer).or_insert(Ban { until: now, times: 0 });
        ban.until = now.after(BAN * (1 << ban.times.min(6)));
        ban.times += 1;
        let until = ban.until;
        self.peer_left(now, peer);
        self.say(SwarmOutput::Penalise { peer, pack, until, why });
    }

    pub(super) fn message(&mut self, now: Monotonic, peer: NodeId, message: BulkMessage) {
        let Some(place) = self.peers.get(&peer).map(|state| state.place) else { return };
        match (place, message) {
            (Place::Inside, BulkMessage::Interest { pack }) => self.interest(now, peer, pack),
            (Place::Inside, BulkMessage::NoInterest { pack }) => {
                if let Some(of_peer) = self.peer_pack(now, peer, pack) {
                    of_peer.interested = false;
                    of_peer.announce.clear();
                }
            }
            (Place::Inside, BulkMessage::Have { pack, bitmap }) => self.peer_has(now, peer, pack, &bitmap),
            (Place::Inside, BulkMessage::HaveFrames { pack, indexes }) => {
                self.peer_has_more(now, peer, pack, &indexes);
            }
            (Place::Inside, BulkMessage::Request { pack, index }) => self.request(now, peer, pack, index),
            (_, BulkMessage::Request { pack, index }) => {
                let refusal = Refusal::new(RefusalKind::NotAuthorised, "frames are served inside the site only");
                self.send(peer, BulkMessage::Refuse { pack, index: Some(index), refusal });
            }
            (Place::Inside | Place::Origin, BulkMessage::Frame { pack, index, bytes }) => {
                self.frame(now, peer, pack, index, bytes);
            }
            (_, BulkMessage::Busy { pack, index, retry_after_milliseconds }) => {
                let rest = Duration::from_millis(retry_after_milliseconds.max(1).into()).min(BUSY_MAX);
                if self.take_flight(peer, pack, index)
                    && let Some(state) = self.peers.get_mut(&peer)
                {
                    state.last_progress = now;
                    state.rests_until = Some(now.after(rest));
                }
            }
            (_, BulkMessage::Refuse { pack, index, .. }) => self.refused(now, peer, place, pack, index),
            _ => {}
        }
    }

    fn refused(&mut self, now: Monotonic, peer: NodeId, place: Place, pack: PackId, index: Option<u32>) {
        if let Some(index) = index {
            self.take_flight(peer, pack, index);
        }
        match (place, index) {
            (Place::Origin, _) => self.lease_refused(now, pack),
            (_, Some(index)) => self.peer_lacks(peer, pack, index),
            _ => {}
        }
    }

    /// What is known of `peer` about `pack`; `None` where it names more packs than a neighbour may.
    fn peer_pack(&mut self, now: Monotonic, peer: NodeId, pack: PackId) -> Option<&mut PeerPack> {
        let state = self.peers.get_mut(&peer)?;
        if !state.packs.contains_key(&pack) && state.packs.len() >= PACKS_PER_PEER_MAX {
            return None;
        }
        let of_peer = state.packs.entry(pack).or_insert(PeerPack {
            have: None,
            interested: false,
            last_word: now,
            nothing_useful: false,
            announce: Vec::new(),
        });
        of_peer.last_word = now;
        Some(of_peer)
    }

    fn interest(&mut self, now: Monotonic, peer: NodeId, pack: PackId) {
        if let Some(of_peer) = self.peer_pack(now, peer, pack) {
            of_peer.interested = true;
            self.tell_have(peer, pack);
        }
    }

    /// Tells `peer` all that this node has of `pack`, if it knows the pack.
    pub(super) fn tell_have(&mut self, peer: NodeId, pack: PackId) {
        let Some(state) = self.packs.get(&pack) else { return };
        let bitmap = state.have.as_bytes().to_vec();
        if let Some(of_peer) = self.peers.get_mut(&peer).and_then(|state| state.packs.get_mut(&pack)) {
            of_peer.announce.clear();
        }
        self.send(peer, BulkMessage::Have { pack, bitmap });
    }

    fn peer_has(&mut self, now: Monotonic, peer: NodeId, pack: PackId, bitmap: &[u8]) {
        let Some(length) = self.packs.get(&pack).map(|state| state.have.length()) else { return };
        let Ok(new) = Bitmap::from_bytes(bitmap, length) else {
            return self.penalise(now, peer, pack, "it sent a bitmap that does not fit the pack".to_owned());
        };
        let Some(of_peer) = self.peer_pack(now, peer, pack) else { return };
        of_peer.nothing_useful = false;
        let old = of_peer.have.replace(new.clone());
        let Some(state) = self.packs.get_mut(&pack) else { return };
        old.iter().flat_map(Bitmap::iter).for_each(|index| state.lost_holder(index));
        new.iter().for_each(|index| state.new_holder(index));
    }

    fn peer_has_more(&mut self, now: Monotonic, peer: NodeId, pack: PackId, indexes: &[u32]) {
        let Some(length) = self.packs.get(&pack).map(|state| state.have.length()) else { return };
        if indexes.len() > HAVE_FRAMES_MAX || indexes.iter().any(|index| *index >= length) {
            return self.penalise(now, peer, pack, "it announced frames that the pack does not have".to_owned());
        }
        let Some(of_peer) = self.peer_pack(now, peer, pack) else { return };
        of_peer.nothing_useful = false;
        let have = of_peer.have.get_or_insert_with(|| Bitmap::new(length));
        let new: Vec<u32> = indexes.iter().copied().filter(|index| have.insert(*index)).collect();
        let Some(state) = self.packs.get_mut(&pack) else { return };
        new.into_iter().for_each(|index| state.new_holder(index));
    }

    /// A neighbour announced a frame and then could not serve it.
    fn peer_lacks(&mut self, peer: NodeId, pack: PackId, index: u32) {
        let of_peer = self.peers.get_mut(&peer).and_then(|state| state.packs.get_mut(&pack));
        let had = of_peer.and_then(|of_peer| of_peer.have.as_mut()).is_some_and(|have| have.remove(index));
        if let (true, Some(state)) = (had, self.packs.get_mut(&pack)) {
            state.lost_holder(index);
        }
    }

    /// Ends the request of this frame from this peer. `false`: there was none.
    pub(super) fn take_flight(&mut self, peer: NodeId, pack: PackId, index: u32) -> bool {
        let Some(state) = self.peers.get_mut(&peer) else { return false };
        let Some(bytes) = state.flights.remove(&(pack, index)) else { return false };
        state.in_flight_bytes -= bytes;
        self.flight_ended(pack, index);
        true
    }

    /// Takes the frame back among the missing.
    fn flight_ended(&mut self, pack: PackId, index: u32) {
        let Some(state) = self.packs.get_mut(&pack) else { return };
        if let Some(flight) = state.in_flight.remove(&index) {
            if flight.wan {
                state.wan_pending_bytes -= state.pack.frame_length(index);
            }
            state.missing.insert(index);
            self.reconsider(pack);
        }
    }

    /// A frame of `pack` is missing again: whoever seemed useless may have it.
    pub(super) fn reconsider(&mut self, pack: PackId) {
        for peer in self.peers.values_mut() {
            if let Some(of_peer) = peer.packs.get_mut(&pack) {
                of_peer.nothing_useful = false;
            }
        }
    }

    /// A neighbour from which nothing came for too long loses its requests and its budget, and rests.
    pub(super) fn expire_silent(&mut self, now: Monotonic) {
        let silent = |state: &PeerState| !state.flights.is_empty() && now >= state.progress_due();
        let late: Vec<(NodeId, Place)> =
            self.peers.iter().filter(|(_, state)| silent(state)).map(|(peer, state)| (*peer, state.place)).collect();
        for (peer, place) in late {
            if place == Place::Origin {
                // Frames that the origin has already sent must not be asked for twice on one connection.
                self.peer_left(now, peer);
                self.say(SwarmOutput::Disconnect { peer, why: "nothing came from the origin for too long" });
                continue;
            }
            let flights: Vec<_> =
                self.peers.get(&peer).into_iter().flat_map(|state| state.flights.keys()).copied().collect();
            for (pack, index) in flights {
                self.take_flight(peer, pack, index);
            }
            if let Some(state) = self.peers.get_mut(&peer) {
                state.budget_bytes = 0;
                state.rests_until = Some(now.after(PeerState::SILENCE));
            }
        }
    }

    pub(super) fn end_rests(&mut self, now: Monotonic) {
        let over = |until: &mut Option<Monotonic>| {
            if until.is_some_and(|until| until <= now) {
                *until = None;
            }
        };
        self.peers.values_mut().for_each(|state| over(&mut state.rests_until));
        self.packs.values_mut().for_each(|state| over(&mut state.stalled_until));
    }
}

impl PeerState {
    const SILENCE: Duration = Duration::from_secs(5);
    const ORIGIN_SILENCE: Duration = Duration::from_secs(30);

    /// When this neighbour, of which something was asked, counts as silent.
    pub(super) fn progress_due(&self) -> Monotonic {
        self.last_progress.after(if self.place == Place::Origin { Self::ORIGIN_SILENCE } else { Self::SILENCE })
    }

    /// Something came: the budget grows back.
    pub(super) fn progressed(&mut self, now: Monotonic, bytes: u64) {
        self.last_progress = now;
        self.budget_bytes = (self.budget_bytes + bytes).min(LAN_IN_FLIGHT_BYTES);
    }
}

impl PackState {
    pub(super) fn new_holder(&mut self, index: u32) {
        let holders = &mut self.holders[index as usize];
        if *holders == 0 && self.have.contains(index) {
            self.sole_bytes -= self.pack.frame_length(index);
        }
        *holders += 1;
    }

    pub(super) fn lost_holder(&mut self, index: u32) {
        let holders = &mut self.holders[index as usize];
        *holders -= 1;
        if *holders == 0 && self.have.contains(index) {
            self.sole_bytes += self.pack.frame_length(index);
        }
    }
}
