//! Dispatch and deadlines.
use super::{
    interface::{PackKey, PeerKey, SwarmInput, SwarmOutput},
    picker::PATIENCE,
    state::{Durability, Swarm, later},
};
use crate::{
    machine::{Deadline, Machine, Sequenced},
    time::{Monotonic, Now},
};

impl Machine for Swarm {
    type Input = SwarmInput;
    type Output = SwarmOutput;

    fn handle(&mut self, now: Now, input: SwarmInput) {
        // The clock never jumps back; were it to, deadlines must not move.
        let now = self.latest.max(now.monotonic);
        self.latest = now;
        match input {
            SwarmInput::Said { peer, pack, word } => self.said(now, peer, pack, word),
            SwarmInput::FrameArrived { peer, pack, index, length, raw } => {
                self.frame_arrived(now, peer, pack, index, length, raw);
            }
            SwarmInput::FrameStored { pack, index } => self.frame_stored(now, pack, index),
            SwarmInput::FrameServed { peer, pack, index } => self.frame_served(now, peer, pack, index),
            SwarmInput::Want { pack, wanted } => self.want(now, pack, *wanted),
            SwarmInput::Forget { pack } => self.forget(now, pack),
            SwarmInput::PeerJoined { peer, node, place, takes_turns } => {
                self.peer_joined(now, peer, node, place, takes_turns);
            }
            SwarmInput::PeerLeft { peer } => self.peer_left(now, peer),
            SwarmInput::PeerMalformed { peer } => {
                if let Some(node) = self.peer(peer).map(|state| state.node) {
                    self.ban(now, node);
                }
            }
            SwarmInput::FrameCorrupt { pack, index } => self.frame_corrupt(now, pack, index),
            SwarmInput::StoreFailed { pack, index } => self.store_failed(now, pack, index),
            SwarmInput::FrameLost { pack, index } => self.frame_lost(now, pack, index),
            SwarmInput::PackSynced { pack } => self.pack_synced(pack),
            SwarmInput::Rates { send_bytes_per_second, receive_bytes_per_second } => {
                self.set_rates(now, send_bytes_per_second, receive_bytes_per_second);
            }
            SwarmInput::LeaseGranted { pack, lease } => self.lease_granted(now, pack, *lease),
            SwarmInput::LeaseRevoked { pack } => self.drop_lease(pack),
        }
        self.advance(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.latest = self.latest.max(now.monotonic);
        self.advance(self.latest);
    }

    #[inline]
    fn poll_output(&mut self) -> Option<Sequenced<SwarmOutput>> {
        self.outputs.pop_front()
    }

    /// A lower bound of the next deadline: what was planned and is no longer needed costs one call that does nothing.
    #[inline]
    fn poll_timeout(&self) -> Option<Deadline> {
        let announce = self.announce_at.map(|at| Deadline { at, reason: "announce new frames" });
        match (self.wake, announce) {
            (Some(wake), Some(announce)) if announce.at < wake.at => Some(announce),
            (wake, announce) => wake.or(announce),
        }
    }

    fn check_invariants(&self) {
        self.assert_invariants();
    }
}

impl Swarm {
    /// Does what has become possible: only for peers and packs that something happened to.
    fn advance(&mut self, now: Monotonic) {
        let due = self.wake.is_some_and(|wake| wake.at <= now);
        if due {
            self.run_deadlines(now);
        }
        if !self.ready.is_empty() || self.leases > 0 {
            self.schedule(now);
        }
        if !self.pushing.is_empty() {
            self.push(now);
        }
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce(now);
        }
        if !self.feeding.is_empty() {
            self.give_turns(now);
        }
        if due {
            self.plan_wake();
        }
        #[cfg(debug_assertions)]
        self.assert_invariants();
    }

    fn run_deadlines(&mut self, now: Monotonic) {
        for slot in 0..self.peers.len() {
            self.run_deadlines_of(now, PeerKey(slot as u16));
        }
        if self.uploads.iter().any(|(_, due)| *due <= now) {
            self.expire_uploads(now);
        }
        if !self.pushing.is_empty() {
            self.expire_pushes(now);
        }
        for key in (0..self.packs.len()).map(|slot| PackKey(slot as u16)) {
            let Some(own) = self.pack_mut(key) else { continue };
            let _ = own.origin_busy_until.take_if(|until| *until <= now);
            let quiet = own.quiet_at.take_if(|at| *at <= now).is_some() && !own.is_pushing();
            if own.stalled_until.take_if(|until| *until <= now).is_some() {
                let again = own.durability == Durability::Incomplete && own.have.is_full();
                if again {
                    own.durability = Durability::Syncing;
                    self.out(SwarmOutput::Sync { pack: key });
                }
                self.ready.union(&self.inside);
                self.all_hungry_again();
            }
            if quiet {
                self.show_all(now, key);
            }
        }
        let mut position = 0;
        while let Some(key) = self.lacking.get(position).copied() {
            self.tend_lease(now, key);
            self.probe(now, key);
            position += 1;
        }
    }

    fn run_deadlines_of(&mut self, now: Monotonic, peer: PeerKey) {
        let Some(state) = self.peer_mut(peer) else { return };
        let rested = state.rests_until.take_if(|until| *until <= now).is_some();
        let pushable = state.push_rests_until.take_if(|until| *until <= now).is_some() && state.push.is_none();
        let offered = state.turn_rests_until.take_if(|until| *until <= now).is_some() && state.turn.is_none();
        let went_by = state.turn.filter(|(_, due)| *due <= now);
        let silent = !state.flights.is_empty() && state.progress_due() <= now;
        if rested {
            self.ready.insert(peer);
        }
        if pushable {
            self.push_busy.remove(peer);
        }
        if offered && !self.uploads.iter().any(|(upload, _)| upload.peer == peer) {
            self.upload_busy.remove(peer);
        }
        if let Some((key, _)) = went_by {
            self.turn_went_by(now, peer, key);
        }
        if silent {
            self.silent(now, peer);
        }
    }

    /// The next deadline, from scratch.
    fn plan_wake(&mut self) {
        let mut next: Option<Deadline> = None;
        let mut plan = |at: Option<Monotonic>, reason| {
            if let Some(at) = at.filter(|at| next.is_none_or(|next| *at < next.at)) {
                next = Some(Deadline { at, reason });
            }
        };
        for state in self.peers.iter().flatten() {
            plan(state.rests_until, "ask a busy neighbour again");
            plan(state.turn.map(|(_, at)| at), "a neighbour lets its turn go by");
            plan(state.turn_rests_until, "offer a neighbour turns again");
            plan(state.push_rests_until, "push to a neighbour again");
            let waits = !state.flights.is_empty();
            plan(waits.then(|| state.progress_due()), "give up a silent neighbour");
        }
        for (_, due) in &self.uploads {
            plan(Some(*due), "a neighbour takes nothing any more");
        }
        for own in self.pushing.iter().filter_map(|key| self.pack(*key)) {
            plan(own.pushes.front().map(|push| push.expires_at), "push again what was not heard of");
        }
        for own in self.packs.iter().flatten() {
            plan(own.quiet_at, "show what was pushed");
            plan(own.stalled_until, "try the store again");
            plan(own.origin_busy_until, "ask a busy origin again");
        }
        for own in self.lacking.iter().filter_map(|key| self.pack(*key)) {
            plan(own.probe_at, "ask out of turn for what neighbours claim");
            match &own.lease {
                Some(lease) => {
                    plan(Some(lease.expires_at), "the lease ends");
                    plan(Some(lease.renew_at.max(own.ask_lease_at)), "renew the lease");
                    let waits = own.interested.iter().filter_map(|peer| self.peer(peer));
                    let ends = waits.map(|peer| later(peer.last_word, PATIENCE)).filter(|at| *at > self.latest);
                    plan(ends.min(), "a silent neighbour no longer holds the line back");
                }
                None => plan(Some(own.ask_lease_at), "ask for the lease"),
            }
        }
        self.wake = next;
    }
}
