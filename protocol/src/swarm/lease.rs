//! The own lease: asking for it, showing it, keeping to it.
use std::time::Duration;

use super::state::{OwnLease, Place, Swarm, SwarmOutput};
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
            own.lease = None;
        }
    }

    /// The origin does not accept the lease: ask the station for a better one, but not at once.
    pub(super) fn lease_refused(&mut self, now: Monotonic, pack: PackId) {
        if let Some(own) = self.packs.get_mut(&pack).filter(|own| own.lease.is_some()) {
            own.lease = None;
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
                own.lease = None;
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
