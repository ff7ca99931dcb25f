//! Dispatch and deadlines.
use super::{
    picker::PATIENCE,
    state::{Swarm, SwarmInput, SwarmOutput},
};
use crate::{
    machine::{Deadline, Machine, Sequenced},
    time::{Monotonic, Now},
};

impl Machine for Swarm {
    type Input = SwarmInput;
    type Output = SwarmOutput;

    fn handle(&mut self, now: Now, input: SwarmInput) {
        let now = now.monotonic;
        match input {
            SwarmInput::Want { pack, kept } => self.want(now, pack, kept),
            SwarmInput::Forget { pack } => self.forget(pack),
            SwarmInput::PeerJoined { peer, place } => self.peer_joined(now, peer, place),
            SwarmInput::PeerLeft { peer } => self.peer_left(now, peer),
            SwarmInput::Message { peer, message } => self.message(now, peer, message),
            SwarmInput::FrameStored { pack, index } => self.frame_stored(now, pack, index),
            SwarmInput::FrameCorrupt { pack, index, peer } => self.frame_corrupt(now, pack, index, peer),
            SwarmInput::StoreFailed { pack, index } => {
                self.store_failed(now, pack, index);
                self.sync_failed(pack);
            }
            SwarmInput::FrameLost { pack, index } => self.frame_lost(pack, index),
            SwarmInput::FrameServed { peer, pack, index } => self.frame_served(peer, pack, index),
            SwarmInput::PackSynced { pack } => self.pack_synced(pack),
            SwarmInput::LeaseGranted { signed, lease, held } => self.lease_granted(now, signed, &lease, &held),
            SwarmInput::LeaseRevoked { pack } => self.lease_lost(pack),
        }
        self.advance(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.advance(now.monotonic);
    }

    fn poll_output(&mut self) -> Option<Sequenced<SwarmOutput>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let mut first = self.announce_at.map(|at| Deadline { at, reason: "announce new frames" });
        let mut consider = |at: Monotonic, reason: &'static str| {
            first = Deadline::earlier(first, Some(Deadline { at, reason }));
        };
        for state in self.peers.values() {
            state.rests_until.into_iter().for_each(|at| consider(at, "ask a busy neighbour again"));
            if !state.flights.is_empty() {
                consider(state.progress_due(), "give up a silent neighbour");
            }
        }
        for (pack, own) in &self.packs {
            own.stalled_until.into_iter().for_each(|at| consider(at, "try the store again"));
            if own.have.is_full() {
                continue;
            }
            match &own.lease {
                Some(lease) => {
                    consider(lease.expires_at, "the lease ends");
                    consider(lease.renew_at.max(own.ask_lease_at), "renew the lease");
                    let waits = self.peers.values().filter_map(|state| state.packs.get(pack));
                    let waits =
                        waits.filter(|of_peer| of_peer.interested).map(|of_peer| of_peer.last_word.after(PATIENCE));
                    // Only what lies ahead: a neighbour that is past it no longer holds anything back.
                    let ahead = waits.filter(|at| *at > self.latest).min();
                    ahead.into_iter().for_each(|at| consider(at, "a silent neighbour no longer holds the line back"));
                }
                None => consider(own.ask_lease_at, "ask for the lease"),
            }
        }
        first
    }

    fn check_invariants(&self) {
        self.assert_invariants();
    }
}

impl Swarm {
    fn advance(&mut self, now: Monotonic) {
        self.latest = self.latest.max(now);
        self.end_rests(now);
        self.expire_silent(now);
        self.tend_leases(now);
        self.retry_syncs();
        self.schedule(now);
        self.announce(now);
        #[cfg(debug_assertions)]
        self.assert_invariants();
    }
}
