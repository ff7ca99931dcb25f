//! Neighbours that come, go, speak and misbehave.
use super::{
    interface::{Offence, PackKey, PeerKey, Place, SwarmOutput, Word},
    state::{Ban, PackState, PeerState, Swarm, later},
};
use crate::{
    content::{Bitmap, bits},
    ids::NodeId,
    limits::{
        BANS_MAX, BULK_CONNECTIONS_MAX, HAVE_FRAMES_MAX, HOST_RATE_BITS_PER_SECOND_MIN, PUSH_SLOTS, UPLOAD_SLOTS,
    },
    refusal::RefusalKind,
    time::Monotonic,
};

/// Longest rest after a busy answer, in microseconds.
const BUSY_MAX: u64 = 10_000_000;
/// First ban, in microseconds; doubles each time, up to 64 times as long.
const BAN: u64 = 60_000_000;
/// Frames in a row that a peer may announce and then refuse.
const FALSE_CLAIMS_MAX: u16 = 32;
/// What a neighbour gets to answer a request before it counts as silent, in microseconds.
const SILENCE: u64 = 1_500_000;
/// Times in a row that a neighbour may be asked in vain for what it announced before that is doubted; each time it gets
/// twice as long as before, so that this takes about twenty seconds.
const SILENCES_MAX: u8 = 3;
/// And answers in a row that it is busy.
const BUSY_ANSWERS_MAX: u8 = 16;
/// And what the origin gets: its line may be down for a while.
const ORIGIN_SILENCE: u64 = 30_000_000;
/// The slowest rate at which a line may bring a frame: 2 KiB/s, as microseconds per KiB. That the origin's machine is gone
/// is noticed by the connection; a thin line that others use as well is no reason to ask anew for what is on its way.
const ORIGIN_MICROSECONDS_PER_KIB: u64 = 500_000;
/// And the most: an origin that lost a request and answers pings keeps a lease idle for no longer.
const ORIGIN_SILENCE_MAX: u64 = 300_000_000;
/// The slowest rate at which a neighbour may send without counting as silent: 256 KiB/s, as microseconds per KiB.
const MICROSECONDS_PER_KIB: u64 = 3_906;

/// Frames of 64 KiB, of which all images below 512 MiB are made, pass in time from the slowest node that a rule may make.
const _: () = {
    let bits = (if PUSH_SLOTS > UPLOAD_SLOTS { PUSH_SLOTS } else { UPLOAD_SLOTS } * 8) as u64 * (64 << 10);
    assert!(bits * 1_000_000 / HOST_RATE_BITS_PER_SECOND_MIN < patience(64 << 10));
};

/// The time in which `bytes` must have been sent by a neighbour that counts as alive, in microseconds.
pub(super) const fn patience(bytes: u64) -> u64 {
    SILENCE + bytes.div_ceil(1024) * MICROSECONDS_PER_KIB
}

impl Swarm {
    pub(super) fn peer_joined(&mut self, now: Monotonic, peer: PeerKey, node: NodeId, place: Place, takes_turns: bool) {
        self.peer_left(now, peer);
        let slot = usize::from(peer.0);
        if slot >= BULK_CONNECTIONS_MAX {
            return self.out(SwarmOutput::Disconnect { peer, why: "more neighbours than one node may have" });
        }
        if self.bans(now, node) {
            return self.out(SwarmOutput::Disconnect { peer, why: "it was cut off not long ago" });
        }
        if self.peers.len() <= slot {
            self.peers.resize_with(slot + 1, || None);
        }
        self.peers[slot] = Some(Box::new(PeerState::new(node, place, takes_turns, self.tuning.in_flight_bytes, now)));
        match place {
            Place::Inside => self.inside.insert(peer),
            Place::Origin => self.origins.insert(peer),
            Place::Outside => {}
        }
        for pack in self.pack_keys() {
            match place {
                Place::Inside => self.say(peer, pack, Word::Interest),
                Place::Origin => self.show_lease(pack, peer),
                Place::Outside => {}
            }
        }
    }

    pub(super) fn peer_left(&mut self, now: Monotonic, peer: PeerKey) {
        let Some(gone) = self.peers.get_mut(usize::from(peer.0)).and_then(Option::take) else { return };
        for set in [&mut self.inside, &mut self.origins, &mut self.ready, &mut self.no_room, &mut self.doubted] {
            set.remove(peer);
        }
        self.push_busy.remove(peer);
        self.upload_busy.remove(peer);
        self.turns -= u16::from(gone.turn.is_some());
        self.uploads.retain(|(upload, _)| upload.peer != peer);
        self.uploads_overdue.retain(|upload| upload.peer != peer);
        self.drop_queued(|upload| upload.peer == peer);
        self.push_active -= u16::from(gone.push.is_some() && !gone.push_overdue);
        self.flying_bytes -= gone.in_flight_bytes;
        self.sources -= u16::from(gone.is_source());
        if gone.place == Place::Origin {
            for flight in &gone.flights {
                self.wan_flight_ended(flight.pack, flight.index);
            }
        }
        for key in self.pack_keys() {
            if let Some(state) = self.pack_mut(key) {
                state.forget_peer(peer);
            }
            let pushed = gone.push.is_some_and(|(pack, _)| pack == key) && !gone.push_overdue;
            self.pushes_lost(now, key, peer, pushed);
        }
        for flight in gone.flights {
            self.missing_again(flight.pack, flight.index);
        }
        self.room_again();
        self.invite();
        self.start_uploads(now);
    }

    /// Whether a node may not be a neighbour now, because it was cut off not long ago.
    pub fn bans(&self, now: Monotonic, node: NodeId) -> bool {
        self.bans.get(&node).is_some_and(|ban| ban.until > now)
    }

    pub(super) fn ban(&mut self, now: Monotonic, node: NodeId) -> Monotonic {
        if self.bans.len() >= BANS_MAX && !self.bans.contains_key(&node) {
            let first = self.bans.iter().min_by_key(|(_, ban)| ban.until).map(|(node, _)| *node);
            first.map(|node| self.bans.remove(&node));
        }
        let ban = self.bans.entry(node).or_insert(Ban { until: now, times: 0 });
        ban.until = later(now, BAN << ban.times.min(6));
        ban.times += 1;
        ban.until
    }

    /// Bans a peer that did what cannot be an accident of the network.
    pub(super) fn penalise(&mut self, now: Monotonic, peer: PeerKey, pack: PackKey, offence: Offence) {
        let Some(node) = self.peer(peer).map(|state| state.node) else { return };
        let until = self.ban(now, node);
        self.peer_left(now, peer);
        self.out(SwarmOutput::Penalise { peer, pack, until, offence });
    }

    pub(super) fn said(&mut self, now: Monotonic, peer: PeerKey, pack: PackKey, word: Word) {
        let Some(state) = self.peer_mut(peer) else { return };
        state.last_word = now;
        match (state.place, word) {
            (Place::Inside, Word::HaveFrame(index)) => self.peer_has_more(now, peer, pack, &[index]),
            (Place::Inside, Word::HaveFrames(indexes)) => self.peer_has_more(now, peer, pack, &indexes),
            (Place::Inside, Word::Request(index)) => self.request(now, peer, pack, index),
            (Place::Inside, Word::Have(bitmap)) => self.peer_has(now, peer, pack, &bitmap),
            (Place::Inside, Word::Interest) => self.interest(peer, pack),
            (Place::Inside, Word::NoInterest) => {
                if let Some(state) = self.pack_mut(pack) {
                    state.interested.remove(peer);
                    state.hungry.remove(peer);
                }
            }
            (Place::Inside, Word::Turn) => self.turn(now, peer, pack),
            (Place::Inside, Word::Pass) => self.passed(peer, pack),
            (_, Word::Request(index)) => {
                self.say(peer, pack, Word::Refuse { index: Some(index), kind: RefusalKind::NotAuthorised });
            }
            (Place::Inside | Place::Origin, Word::Busy { index, retry_after_milliseconds, instead }) => {
                self.busy(now, peer, pack, index, retry_after_milliseconds, instead);
            }
            (Place::Origin, Word::Refuse { index, .. }) => {
                if let Some(index) = index {
                    self.give_up_flight(peer, pack, index);
                }
                self.lease_refused(now, pack);
            }
            (Place::Inside, Word::Refuse { index: Some(index), .. }) => self.peer_lacks(now, peer, pack, index),
            _ => {}
        }
    }

    fn interest(&mut self, peer: PeerKey, key: PackKey) {
        let takes_turns = self.peer(peer).is_some_and(|peer| peer.takes_turns);
        let Some(state) = self.pack_mut(key) else { return };
        // Who says so again, after a turn that it passed, has heard of all that was announced, or will once it is.
        let new = !state.interested.contains(peer);
        state.interested.insert(peer);
        if takes_turns {
            state.hungry.insert(peer);
        }
        if new {
            self.tell_have(peer, key);
        }
        self.feed(key);
    }

    fn tell_have(&mut self, peer: PeerKey, key: PackKey) {
        let takes_turns = self.peer(peer).is_some_and(|peer| peer.takes_turns);
        let Some(state) = self.pack(key) else { return };
        let bitmap = Box::new(state.told(takes_turns));
        self.say(peer, key, Word::Have(bitmap));
    }

    fn busy(
        &mut self,
        now: Monotonic,
        peer: PeerKey,
        key: PackKey,
        index: u32,
        milliseconds: u32,
        instead: Option<PeerKey>,
    ) {
        if !self.give_up_flight(peer, key, index) {
            return;
        }
        let until = later(now, (u64::from(milliseconds.max(1)) * 1000).min(BUSY_MAX));
        let from_origin = self.origins.contains(peer);
        if let Some(state) = self.peer_mut(peer) {
            state.last_progress = now;
            if !from_origin {
                state.rests_until = Some(until);
                state.busy_answers = state.busy_answers.saturating_add(1);
                if state.busy_answers >= BUSY_ANSWERS_MAX {
                    self.doubt(peer);
                }
            }
        }
        // The rollout of one pack may be off, while others cross the line.
        if let Some(own) = self.pack_mut(key).filter(|_| from_origin) {
            own.origin_busy_until = Some(until);
            own.origin_was_busy = true;
        }
        self.wake_at(until, "ask a busy neighbour again");
        if let Some(other) = instead.filter(|other| self.inside.contains(*other)) {
            self.ready.insert(other);
        }
    }

    fn peer_has(&mut self, now: Monotonic, peer: PeerKey, key: PackKey, bitmap: &Bitmap) {
        let takes_turns = self.peer(peer).is_some_and(|peer| peer.takes_turns);
        let Some(state) = self.pack_mut(key) else { return };
        if bitmap.length() != state.have.length() {
            return self.penalise(now, peer, key, Offence::WrongBitmap);
        }
        let lost: Vec<u32> = bits(state.row(peer)).filter(|index| !bitmap.contains(*index)).collect();
        for index in &lost {
            state.peer_loses(peer, *index);
        }
        for index in bitmap.iter() {
            state.peer_gains(peer, index);
        }
        state.known.insert(peer);
        state.spent.remove(peer);
        let interested = state.interested.contains(peer);
        if takes_turns && interested {
            state.hungry.insert(peer);
            self.feed(key);
        }
        if interested && !lost.is_empty() {
            // Of what it had it was not told that it is here too.
            self.tell_have(peer, key);
        }
        self.ready.insert(peer);
        self.probe_later(key);
        self.push_settled(now, key);
    }

    #[inline]
    fn peer_has_more(&mut self, now: Monotonic, peer: PeerKey, key: PackKey, indexes: &[u32]) {
        let Some(state) = self.pack_mut(key) else { return };
        let length = state.have.length();
        if indexes.len() > HAVE_FRAMES_MAX || indexes.iter().any(|index| *index >= length) {
            return self.penalise(now, peer, key, Offence::WrongAnnouncement);
        }
        let withheld = state.is_pushing();
        let mut useful = false;
        for index in indexes {
            if state.peer_gains(peer, *index) {
                useful |= state.missing.contains(*index);
            }
        }
        state.known.insert(peer);
        if useful {
            state.spent.remove(peer);
            let planned = state.probe_at.is_some();
            self.ready.insert(peer);
            if !planned {
                self.probe_later(key);
            }
        }
        if withheld {
            if let Some(state) = self.peer_mut(peer) {
                state.push_failures = 0;
            }
            self.push_settled(now, key);
        }
    }

    /// A neighbour announced a frame and then could not serve it.
    fn peer_lacks(&mut self, now: Monotonic, peer: PeerKey, key: PackKey, index: u32) {
        if let Some(state) = self.pack_mut(key) {
            state.peer_loses(peer, index);
        }
        let asked = self.give_up_flight(peer, key, index);
        let Some(state) = self.peer_mut(peer) else { return };
        state.false_claims += u16::from(asked);
        if state.false_claims > FALSE_CLAIMS_MAX {
            self.penalise(now, peer, key, Offence::FalseClaims);
        }
    }

    /// Ends the request of this frame from this peer. `false`: there was none.
    pub(super) fn end_flight(&mut self, peer: PeerKey, key: PackKey, index: u32) -> bool {
        let Some(state) = self.peer_mut(peer) else { return false };
        let Some(position) = state.flights.iter().position(|flight| flight.index == index && flight.pack == key) else {
            return false;
        };
        let was_source = state.is_source();
        let flight = state.flights.swap_remove(position);
        let ended_source = was_source && !state.is_source();
        state.in_flight_bytes -= u64::from(flight.length);
        let wan = state.place == Place::Origin;
        self.flying_bytes -= u64::from(flight.length);
        self.sources -= u16::from(ended_source);
        if wan {
            self.wan_flight_ended(key, index);
        }
        self.room_again();
        if ended_source {
            self.invite();
        }
        true
    }

    fn wan_flight_ended(&mut self, key: PackKey, index: u32) {
        if let Some(state) = self.pack_mut(key) {
            state.wan_pending_bytes -= state.length_of(index);
        }
    }

    /// Ends a request that brought nothing.
    pub(super) fn give_up_flight(&mut self, peer: PeerKey, key: PackKey, index: u32) -> bool {
        let ended = self.end_flight(peer, key, index);
        if ended {
            self.missing_again(key, index);
            self.ready.insert(peer);
        }
        ended
    }

    /// Something that was asked for came: the budget grows back.
    pub(super) fn progressed(&mut self, now: Monotonic, peer: PeerKey, bytes: u64) {
        let budget = self.tuning.in_flight_bytes;
        let Some(state) = self.peer_mut(peer) else { return };
        state.last_progress = now;
        state.budget_bytes = (state.budget_bytes + bytes).min(budget);
    }

    /// A neighbour from which nothing came for too long loses its requests and its budget, and rests.
    pub(super) fn silent(&mut self, now: Monotonic, peer: PeerKey) {
        let Some(state) = self.peer_mut(peer) else { return };
        if state.place == Place::Origin {
            // Frames that the origin has already sent must not be asked for twice on one connection.
            self.peer_left(now, peer);
            return self.out(SwarmOutput::Disconnect { peer, why: "nothing came from the origin for too long" });
        }
        state.budget_bytes = 0;
        state.rests_until = Some(later(now, SILENCE << state.silences.min(4)));
        state.silences = state.silences.saturating_add(1);
        let silences = state.silences;
        let flights = state.flights.clone();
        for flight in &flights {
            self.give_up_flight(peer, flight.pack, flight.index);
        }
        if silences >= SILENCES_MAX {
            self.doubt(peer);
        }
    }

    /// Nobody fetches over the line what a neighbour claims to have, so the claims of one that sends nothing must end: until
    /// a frame comes from it, they keep nobody from the line. It is no offence: a machine that is suspended or throttled
    /// does the same.
    fn doubt(&mut self, peer: PeerKey) {
        self.doubted.insert(peer);
        let origins: Vec<PeerKey> = self.origins.iter().collect();
        origins.into_iter().for_each(|origin| self.ready.insert(origin));
    }

    /// Whether a neighbour is doubted because it sends nothing; one that says that it is busy does send.
    pub(super) fn is_silent(&self, peer: PeerKey) -> bool {
        self.peer(peer).is_some_and(|state| state.silences >= SILENCES_MAX)
    }

    /// Whether a neighbour and this node have nothing to give each other now: what it wants to hear of it has, and it has
    /// nothing that is missing here. It may be left for somebody else's sake.
    pub fn is_spare(&self, peer: PeerKey) -> bool {
        let Some(state) = self.peer(peer) else { return true };
        let mut being_served = self.uploads.iter().map(|(upload, _)| upload).chain(&self.uploads_overdue);
        let served = being_served.any(|upload| upload.peer == peer);
        if served || state.queued > 0 || !state.flights.is_empty() || state.turn.is_some() || state.push.is_some() {
            return false;
        }
        let lacks = |own: &PackState| own.interested.contains(peer) && own.held_by(peer) < own.have.length();
        !self.packs.iter().flatten().any(|own| lacks(own) || own.lacks_of(peer))
    }

    /// Whether what a neighbour claims is doubted.
    #[cfg(test)]
    pub(super) fn doubts(&self, peer: PeerKey) -> bool {
        self.doubted.contains(peer)
    }

    /// A frame came from a neighbour: it sends, whatever the frame is good for.
    pub(super) fn sends(&mut self, peer: PeerKey) {
        if let Some(state) = self.peer_mut(peer) {
            (state.silences, state.busy_answers) = (0, 0);
        }
        if self.doubted.contains(peer) {
            self.doubted.remove(peer);
            for key in self.lacking.clone() {
                self.hungry_again(key, &[peer]);
            }
        }
    }
}

impl PeerState {
    fn new(node: NodeId, place: Place, takes_turns: bool, budget_bytes: u64, now: Monotonic) -> Self {
        Self {
            node,
            place,
            takes_turns,
            flights: Vec::new(),
            in_flight_bytes: 0,
            budget_bytes,
            last_progress: now,
            silences: 0,
            busy_answers: 0,
            rests_until: None,
            last_word: now,
            turn: None,
            turn_rests_until: None,
            turn_failures: 0,
            queued: 0,
            push: None,
            push_overdue: false,
            push_rests_until: None,
            push_failures: 0,
            false_claims: 0,
            replays: 0,
        }
    }

    /// When this neighbour, of which something was asked, counts as silent.
    pub(super) fn progress_due(&self) -> Monotonic {
        if self.place == Place::Origin {
            let longest = self.flights.iter().map(|flight| u64::from(flight.length)).max().unwrap_or(0);
            let patience = ORIGIN_SILENCE + longest.div_ceil(1024) * ORIGIN_MICROSECONDS_PER_KIB;
            return later(self.last_progress, patience.min(ORIGIN_SILENCE_MAX));
        }
        later(self.last_progress, patience(self.in_flight_bytes) << self.silences.min(4))
    }
}

impl PackState {
    /// What a neighbour is told that this node has.
    pub(super) fn told(&self, takes_turns: bool) -> Bitmap {
        let mut told = self.shown.clone();
        if let (false, Some(raw)) = (takes_turns, &self.raw) {
            told.subtract(raw);
        }
        told
    }

    fn forget_peer(&mut self, peer: PeerKey) {
        let held: Vec<u32> = bits(self.row(peer)).collect();
        for index in held {
            self.peer_loses(peer, index);
            // What no neighbour was shown must still be pushed where the one that had it is gone.
            if self.source_of(index) && self.rarity.is_zero(index) {
                self.to_push.insert(index);
            }
        }
        for set in [&mut self.known, &mut self.interested, &mut self.spent, &mut self.hungry] {
            set.remove(peer);
        }
        self.passed.remove(peer);
        self.declined.remove(peer);
        if let Some(given) = self.given.get_mut(usize::from(peer.0)) {
            *given = 0;
        }
        self.confirm.retain(|(to, _)| *to != peer);
    }

    /// Whether a frame is here and withheld.
    pub(super) fn source_of(&self, index: u32) -> bool {
        self.have.contains(index) && !self.shown.contains(index)
    }
}
