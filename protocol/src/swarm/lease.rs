//! The own lease: asking for it, showing it, keeping to it.
use std::time::Duration;

use super::state::{OwnLease, PackState, Place, Swarm, SwarmOutput};
use crate::{
    charter::{Lease, Signed},
    content::Bitmap,
    ids::{NodeId, PackId},
    time::Monotonic,
    wire::bulk::BulkMessage,
};

/// Between two wishes for a lease.
const ASK_AGAIN: Duration = Duration::from_secs(2);

impl Swarm {
    pub(super) fn lease_granted(&mut self, now: Monotonic, signed: Signed<Lease>, lease: &Lease, held: &[u8]) {
        let pack = lease.pack;
        let Some(own) = self.packs.get_mut(&pack).filter(|own| !own.have.is_full()) else { return };
        // A grant that was late on the way must not take the place of a newer one: the origin would refuse it.
        if own.lease.as_ref().is_some_and(|newer| newer.rank > lease.rank()) {
            return;
        }
        let life = Duration::from_millis(lease.life_milliseconds);
        own.site_held = Bitmap::from_bytes(held, own.have.length()).unwrap_or_else(|_| Bitmap::new(own.have.length()));
        own.lease =
            Some(OwnLease { signed, rank: lease.rank(), expires_at: now.after(life), renew_at: now.after(life / 2) });
        let origins: Vec<NodeId> =
            self.peers.iter().filter(|(_, state)| state.place == Place::Origin).map(|(peer, _)| *peer).collect();
        for peer in origins {
            self.show_lease(pack, peer);
        }
    }

    pub(super) fn show_lease(&mut self, pack: PackId, origin: NodeId) {
        if let Some(lease) = self.packs.get(&pack).and_then(|own| own.lease.as_ref()) {
            let message = BulkMessage::ShowLease(Box::new(lease.signed.clone()));
            self.send(origin, message);
        }
    }

    /// The lease is gone; what is under way may still arrive, nothing more is asked.
    pub(super) fn lease_lost(&mut self, pack: PackId) {
        if let Some(own) = self.packs.get_mut(&pack) {
            own.end_lease();
        }
    }

    /// The origin does not accept the lease: ask the station for a better one, but not at once.
    pub(super) fn lease_refused(&mut self, now: Monotonic, pack: PackId) {
        if let Some(own) = self.packs.get_mut(&pack).filter(|own| own.lease.is_some()) {
            own.end_lease();
            own.ask_lease_at = now.after(ASK_AGAIN);
        }
    }

    /// Lets leases end by the own clock and asks for new ones where the site lacks frames.
    pub(super) fn tend_leases(&mut self, now: Monotonic) {
        let mut asks = Vec::new();
        for (pack, own) in &mut self.packs {
            if own.have.is_full() {
                continue;
            }
            if own.lease.as_ref().is_some_and(|lease| lease.expires_at <= now) {
                own.end_lease();
            }
            let due = match &own.lease {
                Some(lease) => lease.renew_at.max(own.ask_lease_at) <= now,
                None => own.ask_lease_at <= now,
            };
            if due {
                own.ask_lease_at = now.after(ASK_AGAIN);
                if own.lease.is_some() || own.wan_candidate().is_some() {
                    asks.push((*pack, own.have.count()));
                }
            }
        }
        for (pack, held) in asks {
            self.say(SwarmOutput::AskLease { pack, held });
        }
    }
}

impl PackState {
    /// What the station said of other holders goes with the lease: they may have died since, and who believes that
    /// somebody holds all that is missing would never ask for a lease again.
    fn end_lease(&mut self) {
        self.lease = None;
        self.site_held = Bitmap::new(self.have.length());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::{
        content::build_pack,
        ids::Epoch,
        machine::Machine,
        swarm::{SwarmInput, SwarmSetup},
        time::Now,
    };

    /// Found by the fault simulation (seeds 2, 190 and 272 of its first night): all that a node lacked was held by one
    /// other node, which died for good.
    #[test]
    fn who_was_told_that_others_hold_all_asks_again_once_its_lease_is_over() {
        let pack = Arc::new(build_pack("payload", [7; 4000].as_slice(), 1000, &mut Vec::new()).unwrap());
        let id = pack.id();
        let mut swarm = Swarm::new(SwarmSetup { seed: 1, leased_bytes_max: 10_000 });
        let mut asks = |seconds: u64, input: Option<SwarmInput>| {
            let now = Now::from_seconds(seconds);
            match input {
                Some(input) => swarm.handle(now, input),
                None => swarm.handle_timeout(now),
            }
            std::iter::from_fn(|| swarm.poll_output())
                .any(|said| matches!(said.output, SwarmOutput::AskLease { pack, .. } if pack == id))
        };
        assert!(asks(0, Some(SwarmInput::Want { pack: Arc::clone(&pack), kept: Bitmap::new(pack.frames()) })));
        let lease = Lease {
            site: "store-17".parse().unwrap(),
            epoch: Epoch { charter_version: 1, term: 0 },
            sequence: 1,
            holder: NodeId([1; 32]),
            pack: id,
            life_milliseconds: 10_000,
        };
        let signed = Signed::sign(&lease, &SigningKey::from_bytes(&[1; 32]));
        let held = Bitmap::full(pack.frames()).as_bytes().to_vec();
        asks(1, Some(SwarmInput::LeaseGranted { signed, lease, held }));
        asks(6, None);
        assert!(asks(12, None), "the lease has ended and frames are missing still");
    }
}
