//! Frames that are served, pushed and announced.
//!
//! The first holder pushes: what came over the WAN, and what a source has and nobody else, goes to one neighbour each,
//! in turn over the neighbours whose sockets have taken what they got before. Until all is out nothing of it is
//! announced, so that the first holder's uplink carries every frame once; then it serves like anyone else. What is not
//! heard of again in time is pushed a second time, to another.
use super::{
    bits::{PeerSet, next_in_circle},
    interface::{PackKey, PeerKey, SwarmOutput, Word},
    peers::patience,
    state::{PackState, Push, Swarm, Upload, enlist, later},
};
use crate::{
    limits::{HAVE_FRAMES_MAX, UPLOAD_QUEUE_MAX, UPLOAD_QUEUE_PER_PEER_MAX},
    machine::{Sequence, Sequenced},
    refusal::RefusalKind,
    time::Monotonic,
};

/// What a neighbour is told to wait where the queue is full, in milliseconds.
const BUSY_MILLISECONDS: u32 = 50;
/// What it is told to wait while much is to be pushed first, in milliseconds.
const PUSHING_MILLISECONDS: u32 = 250;
/// More frames than this still to be pushed: others are asked to wait.
const PUSH_BACKLOG: u32 = 16;
/// An inlet to which nothing more came for this long shows what it has pushed, in microseconds.
const QUIET: u64 = 50_000;
/// First rest of a neighbour that let a push go lost, in microseconds.
const PUSH_REST: u64 = 2_000_000;

impl Swarm {
    pub(super) fn request(&mut self, now: Monotonic, peer: PeerKey, pack: PackKey, index: u32) {
        let upload = Upload { peer, pack, index };
        let takes_turns = self.peer(peer).is_some_and(|peer| peer.takes_turns);
        let held = |state: &PackState| state.have.contains(index) && (takes_turns || !state.has_raw(index));
        if self.pack(pack).filter(|state| held(state)).is_none() {
            self.passed(peer, pack);
            return self.say(peer, pack, Word::Refuse { index: Some(index), kind: RefusalKind::NotFound });
        }
        if self.take_turn(now, upload) {
            return;
        }
        let Some(state) = self.pack(pack) else { return };
        let pushing = state.to_push.count() > PUSH_BACKLOG;
        let serving = self.uploads.iter().any(|(serving, _)| *serving == upload);
        if serving || self.uploads_overdue.contains(&upload) || self.upload_queue.contains(&upload) {
            return;
        }
        let queued = self.peer(peer).map_or(0, |peer| usize::from(peer.queued));
        let full = queued >= UPLOAD_QUEUE_PER_PEER_MAX || self.upload_queue.len() >= UPLOAD_QUEUE_MAX;
        if full || pushing {
            let retry_after_milliseconds = if pushing { PUSHING_MILLISECONDS } else { BUSY_MILLISECONDS };
            let instead = if takes_turns { self.another_holder(peer, pack, index) } else { None };
            return self.say(peer, pack, Word::Busy { index, retry_after_milliseconds, instead });
        }
        self.upload_queue.push_back(upload);
        if let Some(state) = self.peer_mut(peer) {
            state.queued += 1;
        }
        self.start_uploads(now);
    }

    /// A neighbour that has the frame, for the one who asked in vain.
    fn another_holder(&mut self, asker: PeerKey, pack: PackKey, index: u32) -> Option<PeerKey> {
        let turn = self.random.next();
        let state = self.pack(pack)?;
        let holds = |peer: &PeerKey| *peer != asker && state.peer_has(*peer, index);
        let count = state.known.iter().filter(holds).count();
        state.known.iter().filter(holds).nth((turn % count.max(1) as u64) as usize)
    }

    pub(super) fn frame_served(&mut self, now: Monotonic, peer: PeerKey, pack: PackKey, index: u32) {
        let upload = Upload { peer, pack, index };
        if let Some(state) = self.peer_mut(peer)
            && state.push == Some((pack, index))
        {
            state.push = None;
            let overdue = std::mem::take(&mut state.push_overdue);
            if state.push_rests_until.is_none() {
                self.push_busy.remove(peer);
            }
            if !overdue {
                self.push_active -= 1;
                if let Some(state) = self.pack_mut(pack) {
                    state.pushing -= 1;
                }
            }
            return self.push_settled(now, pack);
        }
        let rests = self.peer(peer).is_some_and(|peer| peer.turn.is_some() || peer.turn_rests_until.is_some());
        if !rests {
            self.upload_busy.remove(peer);
        }
        if let Some(position) = self.uploads.iter().position(|(serving, _)| *serving == upload) {
            self.uploads.remove(position);
            self.start_uploads(now);
        } else {
            self.uploads_overdue.retain(|overdue| *overdue != upload);
        }
    }

    pub(super) fn start_uploads(&mut self, now: Monotonic) {
        while self.has_free_slot() {
            let Some(upload) = self.upload_queue.pop_front() else { return };
            if let Some(state) = self.peer_mut(upload.peer) {
                state.queued -= 1;
            }
            self.start_upload(now, upload, false);
        }
    }

    pub(super) fn drop_queued(&mut self, gone: impl Fn(&Upload) -> bool) {
        let dropped: Vec<PeerKey> = self.upload_queue.iter().filter(|upload| gone(upload)).map(|u| u.peer).collect();
        self.upload_queue.retain(|upload| !gone(upload));
        for peer in dropped {
            if let Some(state) = self.peer_mut(peer) {
                state.queued -= 1;
            }
        }
    }

    /// Uploads to neighbours that take nothing any more no longer hold a slot, and what else these wanted is dropped.
    pub(super) fn expire_uploads(&mut self, now: Monotonic) {
        let late: Vec<Upload> = self.uploads.iter().filter(|(_, due)| *due <= now).map(|(upload, _)| *upload).collect();
        self.uploads.retain(|(_, due)| *due > now);
        for upload in late {
            let Upload { peer, .. } = upload;
            self.uploads_overdue.push(upload);
            let refused: Vec<Upload> = self.upload_queue.iter().filter(|queued| queued.peer == peer).copied().collect();
            self.drop_queued(|queued| queued.peer == peer);
            for Upload { peer, pack, index } in refused {
                let retry_after_milliseconds = PUSHING_MILLISECONDS;
                self.say(peer, pack, Word::Busy { index, retry_after_milliseconds, instead: None });
            }
        }
        self.start_uploads(now);
    }

    /// Pushes what there is to be pushed, to whoever takes it.
    pub(super) fn push(&mut self, now: Monotonic) {
        while self.push_active < self.push_slots() {
            // The pack with the least to push first: small payloads are quick.
            let waiting = self.pushing.iter().filter_map(|key| {
                let state = self.pack(*key)?;
                let next = state.interested.next_after(self.push_cursor, &state.known, &self.push_busy)?;
                (!state.to_push.is_empty()).then_some((state.to_push.count(), *key, next))
            });
            let Some((_, key, peer)) = waiting.min() else { return };
            self.push_one(now, key, peer);
        }
    }

    fn push_one(&mut self, now: Monotonic, key: PackKey, peer: PeerKey) {
        let takes_turns = self.peer(peer).is_some_and(|peer| peer.takes_turns);
        let Some(state) = self.pack_mut(key) else { return };
        let Some(index) = next_in_circle(state.to_push.words(), state.push_cursor) else { return };
        if !takes_turns && state.has_raw(index) {
            // Rare: a raw chunk for a node of version 1. It gets nothing of this pack, until it leaves.
            state.interested.remove(peer);
            return;
        }
        state.to_push.remove(index);
        state.push_cursor = index + 1;
        state.pushing += 1;
        let expires_at = later(now, patience(state.length_of(index)));
        state.pushes.push_back(Push { peer, index, expires_at });
        if let Some(of_peer) = self.peer_mut(peer) {
            of_peer.push = Some((key, index));
        }
        self.push_active += 1;
        self.push_busy.insert(peer);
        self.push_cursor = peer;
        self.wake_at(expires_at, "push again what was not heard of");
        self.out(SwarmOutput::ServeFrame { peer, pack: key, index });
    }

    /// Frames that went to a neighbour that is gone are pushed again, unless somebody else has them.
    pub(super) fn pushes_lost(&mut self, now: Monotonic, key: PackKey, peer: PeerKey, under_way: bool) {
        let Some(state) = self.pack_mut(key) else { return };
        state.pushing -= u16::from(under_way);
        let lost: Vec<u32> = state.pushes.iter().filter(|push| push.peer == peer).map(|push| push.index).collect();
        state.pushes.retain(|push| push.peer != peer);
        lost.into_iter().for_each(|index| state.push_again(index));
        self.push_settled(now, key);
    }

    /// Looks at what was pushed long ago.
    pub(super) fn expire_pushes(&mut self, now: Monotonic) {
        for key in self.pushing.clone() {
            while let Some(state) = self.pack_mut(key)
                && let Some(push) = state.pushes.front().copied()
            {
                let confirmed = !state.rarity.is_zero(push.index);
                if !confirmed && push.expires_at > now {
                    break;
                }
                state.pushes.pop_front();
                if !confirmed {
                    state.push_again(push.index);
                    self.push_failed(now, key, push);
                }
            }
            self.push_settled(now, key);
        }
    }

    fn push_failed(&mut self, now: Monotonic, key: PackKey, push: Push) {
        let Some(state) = self.peer_mut(push.peer) else { return };
        let until = later(now, PUSH_REST << state.push_failures.min(5));
        state.push_failures = state.push_failures.saturating_add(1);
        state.push_rests_until = Some(until);
        let stuck = state.push == Some((key, push.index)) && !state.push_overdue;
        state.push_overdue |= stuck;
        if stuck {
            self.push_active -= 1;
            if let Some(state) = self.pack_mut(key) {
                state.pushing -= 1;
            }
        }
        self.push_busy.insert(push.peer);
        self.wake_at(until, "push to a neighbour again");
    }

    /// Shows what is withheld as soon as all is out: at once where the pack is whole, else when no more comes.
    pub(super) fn push_settled(&mut self, now: Monotonic, key: PackKey) {
        let Some(state) = self.pack_mut(key) else { return };
        if state.shown.count() == state.have.count() || state.is_pushing() {
            return;
        }
        if state.have.is_full() {
            return self.show_all(now, key);
        }
        if state.quiet_at.is_none() {
            let at = later(now, QUIET);
            state.quiet_at = Some(at);
            self.wake_at(at, "show what was pushed");
        }
    }

    /// Shows what is withheld.
    pub(super) fn show_all(&mut self, now: Monotonic, key: PackKey) {
        let Some(state) = self.pack_mut(key) else { return };
        state.quiet_at = None;
        let mut withheld = state.have.clone();
        withheld.subtract(&state.shown);
        state.announce_all |= withheld.count() * 32 > state.have.length();
        state.announce.extend(withheld.iter());
        state.shown = state.have.clone();
        state.pushes.clear();
        let full = state.have.is_full();
        self.pushing.retain(|other| *other != key);
        self.announce_soon(now, key, full);
    }

    /// Announces new frames of a pack: at once where it is urgent or the last announcement was long enough ago.
    pub(super) fn announce_soon(&mut self, now: Monotonic, key: PackKey, urgent: bool) {
        enlist(&mut self.announcing, key);
        let delay = self.tuning.announce_delay.as_micros() as u64;
        let at = self.announced_at.filter(|_| !urgent).map_or(now, |last| later(last, delay).max(now));
        if self.announce_at.is_none_or(|planned| at < planned) {
            self.announce_at = Some(at);
        }
    }

    pub(super) fn announce(&mut self, now: Monotonic) {
        self.announce_at = None;
        self.announced_at = Some(now);
        for key in std::mem::take(&mut self.announcing) {
            self.announce_pack(key);
        }
    }

    fn announce_pack(&mut self, key: PackKey) {
        let Some(state) = self.packs.get_mut(usize::from(key.0)).and_then(Option::as_deref_mut) else { return };
        let mut hungry = PeerSet::default();
        let (indexes, confirm) = (std::mem::take(&mut state.announce), std::mem::take(&mut state.confirm));
        let all = std::mem::take(&mut state.announce_all);
        for peer in state.interested.iter() {
            let takes_turns = self.peers.get(usize::from(peer.0)).and_then(Option::as_ref);
            let takes_turns = takes_turns.is_some_and(|peer| peer.takes_turns);
            let confirmed = |index: u32| confirm.iter().any(|(to, what)| *to == peer && *what == index);
            let news = |index: &&u32| {
                (!state.peer_has(peer, **index) || confirmed(**index)) && (takes_turns || !state.has_raw(**index))
            };
            let mut news = indexes.iter().filter(news).copied();
            let word = if all {
                let told = state.told(takes_turns);
                let new = state.lacks_any(peer, &told);
                if !new && confirm.iter().all(|(to, _)| *to != peer) && state.known.contains(peer) {
                    continue;
                }
                Word::Have(Box::new(told))
            } else {
                let Some(first) = news.next() else { continue };
                match news.next() {
                    None => Word::HaveFrame(first),
                    Some(second) => Word::HaveFrames([first, second].into_iter().chain(news).collect()),
                }
            };
            if takes_turns {
                hungry.insert(peer);
            }
            let mut say = |word| {
                let output = SwarmOutput::Say { peer, pack: key, word };
                self.outputs.push_back(Sequenced { after: Sequence::default(), output });
            };
            match word {
                // Cut into pieces of the size that one message may have.
                Word::HaveFrames(indexes) if indexes.len() > HAVE_FRAMES_MAX => {
                    indexes.chunks(HAVE_FRAMES_MAX).for_each(|part| say(Word::HaveFrames(part.to_vec())));
                }
                word => say(word),
            }
        }
        if !hungry.is_empty() {
            state.hungry.union(&hungry);
            self.feed(key);
        }
    }
}

impl PackState {
    fn push_again(&mut self, index: u32) {
        if self.source_of(index) && self.rarity.is_zero(index) {
            self.to_push.insert(index);
        }
    }
}
