//! Neighbours that were asked and send nothing.
use super::{Model, Neighbour, Word};
use crate::{
    machine::Machine,
    swarm::{PeerKey, SwarmOutput},
    time::{Monotonic, Now},
};

impl Model {
    /// Time passes. Whoever was asked and is silent for too long is asked no more: the model learns that by looking.
    pub(super) fn silence(&mut self) {
        let now = Now { monotonic: Monotonic(self.now), ..Now::default() };
        let before: Vec<u16> = self.peers.keys().copied().collect();
        self.swarm.handle_timeout(now);
        for key in before {
            let state = self.peers.get_mut(&key).unwrap();
            let Some(machine) = self.swarm.peer(PeerKey(key)) else { continue };
            // A request that has ended without an answer ends a silent neighbour's rest at a time of the machine's.
            if state.asked.len() > machine.flights.len() || machine.rests_until.is_some() {
                state.in_vain += 1;
                state.rests_until = machine.rests_until.map_or(self.now, |until| until.0);
                state.asked.retain(|index| machine.flights.iter().any(|flight| flight.index == *index));
            }
        }
        let again = self.swarm.poll_timeout();
        assert!(again.is_none_or(|due| due.at.0 > self.now), "a deadline that does not pass: {again:?}");
        // What the neighbours that rest no longer owe may have been asked of others within the same call.
        while let Some(output) = self.swarm.poll_output() {
            if let SwarmOutput::Say { peer, word: Word::Request(index), .. } = output.output {
                self.peers.get_mut(&peer.0).unwrap().asked.insert(index);
            } else {
                self.judge(output.output);
            }
        }
        self.outputs();
    }

    /// Neighbours that have a frame and are not doubted. Who was not asked in vain three times since a frame came from it
    /// must not be doubted; who was may be.
    pub(super) fn trusted_holders(&self, index: u32) -> usize {
        let has = |peer: &Neighbour| peer.has.as_ref().is_some_and(|has| has.contains(&index));
        let trusted = |key: u16, peer: &Neighbour| peer.in_vain < 3 || !self.swarm.doubts(PeerKey(key));
        self.peers.iter().filter(|(key, peer)| has(peer) && trusted(**key, peer)).count()
    }
}
