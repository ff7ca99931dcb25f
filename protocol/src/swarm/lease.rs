//! The own lease: asking for it, showing it, keeping to it.
use std::time::Duration;

use super::{
    interface::{GrantedLease, PackKey, PeerKey, SwarmOutput},
    state::{OwnLease, PackState, Swarm, later},
};
use crate::{content::Bitmap, time::Monotonic};

/// Between two wishes for a lease, in microseconds.
const ASK_AGAIN: u64 = 2_000_000;
/// And the most while frames come from inside the site anyway, in microseconds.
const ASK_AGAIN_MAX: u64 = 16_000_000;

impl Swarm {
    pub(super) fn lease_granted(&mut self, now: Monotonic, key: PackKey, granted: GrantedLease) {
        let GrantedLease { signed, lease, held } = granted;
        let Some(own) = self.pack_mut(key) else { return };
        if own.have.is_full() || own.manifest.id() != lease.pack {
            return;
        }
        // A grant that was late on the way must not take the place of a newer one: the origin would refuse it.
        if own.lease.as_ref().is_some_and(|newer| newer.rank > lease.rank()) {
            return;
        }
        let life = Duration::from_millis(lease.life_milliseconds);
        own.site_held = Bitmap::from_bytes(&held, own.have.length()).ok().map(Box::new);
        own.ask_interval = 0;
        let (expires_at, renew_at) = (now.after(life), now.after(life / 2));
        let ask_at = renew_at.max(own.ask_lease_at);
        let lease = OwnLease { signed, rank: lease.rank(), expires_at, renew_at };
        let new = own.lease.replace(Box::new(lease)).is_none();
        self.leases += u16::from(new);
        self.wake_at(expires_at, "the lease ends");
        self.wake_at(ask_at, "renew the lease");
        let origins: Vec<PeerKey> = self.origins.iter().collect();
        for peer in origins {
            self.show_lease(key, peer);
        }
    }

    pub(super) fn show_lease(&mut self, key: PackKey, origin: PeerKey) {
        if let Some(lease) = self.pack(key).and_then(|own| own.lease.as_ref()) {
            let signed = Box::new(lease.signed.clone());
            self.out(SwarmOutput::ShowLease { peer: origin, signed });
        }
    }

    /// The lease is gone; what is under way may still arrive, nothing more is asked. What the station said of other
    /// holders goes with it: they may have died since, and who believes that somebody holds all that is missing would
    /// never ask for a lease again.
    pub(super) fn drop_lease(&mut self, key: PackKey) {
        let Some(own) = self.pack_mut(key) else { return };
        own.site_held = None;
        let had = own.lease.take().is_some();
        self.leases -= u16::from(had);
    }

    /// The origin does not accept the lease: ask the station for a better one, but not at once.
    pub(super) fn lease_refused(&mut self, now: Monotonic, key: PackKey) {
        let again = later(now, ASK_AGAIN);
        if let Some(own) = self.pack_mut(key).filter(|own| own.lease.is_some()) {
            own.ask_lease_at = again;
            self.drop_lease(key);
            self.wake_at(again, "ask for the lease");
        }
    }

    /// Lets leases end by the own clock and asks for new ones where the site lacks frames.
    pub(super) fn tend_lease(&mut self, now: Monotonic, key: PackKey) {
        let Some(own) = self.pack_mut(key) else { return };
        if own.lease.as_ref().is_some_and(|lease| lease.expires_at <= now) {
            own.ask_lease_at = own.ask_lease_at.min(now);
            self.drop_lease(key);
        }
        let Some(own) = self.pack_mut(key) else { return };
        let due = match &own.lease {
            Some(lease) => lease.renew_at.max(own.ask_lease_at) <= now,
            None => own.ask_lease_at <= now,
        };
        if !due {
            return;
        }
        let held = own.have.count();
        // Whoever gets on without a lease asks less and less often; the first of many asks soon enough.
        let gets_on = own.lease.is_none() && held > own.asked_with;
        own.ask_interval = if gets_on { (own.ask_interval * 2).clamp(ASK_AGAIN, ASK_AGAIN_MAX) } else { ASK_AGAIN };
        own.asked_with = held;
        own.ask_lease_at = later(now, own.ask_interval);
        let leased = own.lease.is_some();
        let lacks = |own: &PackState| own.wan_candidate(&self.inside, &self.doubted).is_some();
        if leased || self.pack(key).is_some_and(lacks) {
            self.out(SwarmOutput::AskLease { pack: key, held });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ed25519_dalek::SigningKey;

    use crate::{
        charter::{Lease, Signed},
        content::{Bitmap, build_pack},
        ids::{Epoch, NodeId},
        machine::Machine,
        swarm::{NamedInput, NamedOutput, NamedSwarm, SwarmSetup, Tuning},
        time::Now,
    };

    /// Found by the fault simulation (seeds 2, 190 and 272 of its first night): all that a node lacked was held by one
    /// other node, which died for good.
    #[test]
    fn who_was_told_that_others_hold_all_asks_again_once_its_lease_is_over() {
        let pack = Arc::new(build_pack("payload", [7; 4000].as_slice(), 1000, &mut Vec::new()).unwrap());
        let id = pack.id();
        let mut swarm = NamedSwarm::new(SwarmSetup { seed: 1, leased_bytes_max: 10_000, tuning: Tuning::default() });
        let mut asks = |seconds: u64, input: Option<NamedInput>| {
            let now = Now::from_seconds(seconds);
            match input {
                Some(input) => swarm.handle(now, input),
                None => swarm.handle_timeout(now),
            }
            std::iter::from_fn(|| swarm.poll_output())
                .any(|said| matches!(said.output, NamedOutput::AskLease { pack, .. } if pack == id))
        };
        let (wanted, kept) = (Arc::clone(&pack), Bitmap::new(pack.frames()));
        assert!(asks(0, Some(NamedInput::Want { pack: wanted, kept, raw: None, source: false })));
        let lease = Lease {
            site: "store-17".parse().unwrap(),
            epoch: Epoch { charter_version: 1, term: 0 },
            sequence: 1,
            holder: NodeId([1; 32]),
            pack: id,
            life_milliseconds: 10_000,
        };
        let signed = Signed::sign(&lease, &SigningKey::from_bytes(&[1; 32]));
        let held = Bitmap::full(pack.frames()).to_bytes();
        asks(1, Some(NamedInput::LeaseGranted { signed, lease, held }));
        asks(6, None);
        assert!(asks(12, None), "the lease has ended and frames are missing still");
    }
}
