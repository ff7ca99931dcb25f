//! Headquarters' side: frames leave against the newest lease only, and every byte is counted (R70).
use std::sync::{Arc, PoisonError};

use branchline_protocol::{
    charter::{Lease, Signed},
    ids::{NodeId, PackId, SiteName},
    refusal::{Refusal, RefusalKind},
    wire::bulk::BulkMessage,
};

use super::{
    connection::{FrameOrder, LinkKind, Meter},
    handle::BulkEvent,
    service::Service,
};
use crate::runtime::wall_time;

/// What a client is told to wait where too much is queued for it.
const BUSY_MILLISECONDS: u32 = 200;

impl Service {
    /// Counts what a writer is about to send to a site.
    pub(super) fn meter(&self, site: &SiteName) -> Meter {
        let (fence, site) = (Arc::clone(&self.fence), site.clone());
        Arc::new(move |pack, bytes| fence.lock().unwrap_or_else(PoisonError::into_inner).count(&site, pack, bytes))
    }

    /// A member of a site of which this node is headquarters says something.
    pub(super) fn client_message(&mut self, number: u64, message: BulkMessage) {
        let Some((peer, site)) = self.links.get(number).map(|link| (link.peer, link.site.clone())) else { return };
        match message {
            BulkMessage::ShowLease(signed) => {
                if let Err((pack, refusal)) = self.take_lease(peer, &site, &signed) {
                    tracing::info!(%peer, %site, %refusal, "a lease was refused");
                    self.tell(number, BulkMessage::Refuse { pack, index: None, refusal });
                }
            }
            BulkMessage::Request { pack, index } => {
                if let Err(refusal) = self.order_frame(number, peer, &site, pack, index) {
                    let message = if refusal.kind == RefusalKind::Busy {
                        BulkMessage::Busy { pack, index, retry_after_milliseconds: BUSY_MILLISECONDS }
                    } else {
                        BulkMessage::Refuse { pack, index: Some(index), refusal }
                    };
                    self.tell(number, message);
                }
            }
            _ => {}
        }
    }

    fn take_lease(&mut self, peer: NodeId, site: &SiteName, signed: &Signed<Lease>) -> Result<(), (PackId, Refusal)> {
        let nameless = |refusal: Refusal| (PackId(branchline_protocol::ids::Hash([0; 32])), refusal);
        let claimed = signed.verify(signed.signer()).map_err(|error| nameless(error.into()))?;
        let pack = claimed.pack;
        let unknown = || Refusal::new(RefusalKind::NotAMember, format!("site {site} is not known here"));
        let authority = self.documents.authority(site).ok_or_else(|| (pack, unknown()))?;
        let lease = authority.check_lease(signed).map_err(|refusal| (pack, refusal))?;
        let now = self.clock.now().monotonic;
        let mut fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner);
        let admission = fence.admit(now, peer, &lease).map_err(|refusal| (pack, refusal))?;
        fence.date(site, pack, wall_time());
        drop(fence);
        if let Some(old) = admission.cut
            && let Some((number, link)) = self.links.of_peer(old)
            && link.kind == LinkKind::Client
        {
            tracing::info!(peer = %old, %site, %pack, "a connection with a lower lease is cut");
            self.cut(number);
        }
        self.tell_node(BulkEvent::FenceMoved);
        Ok(())
    }

    fn order_frame(
        &mut self,
        number: u64,
        peer: NodeId,
        site: &SiteName,
        pack: PackId,
        index: u32,
    ) -> Result<(), Refusal> {
        let now = self.clock.now().monotonic;
        self.fence.lock().unwrap_or_else(PoisonError::into_inner).check(now, peer, site, pack)?;
        if !self.store.have(pack).is_some_and(|have| have.contains(index)) {
            let reason = format!("frame {index} of pack {pack} is not at headquarters; add the package again");
            return Err(Refusal::new(RefusalKind::NotFound, reason));
        }
        let queued = self.links.get(number).map(|link| link.frames.try_send(FrameOrder { pack, index }));
        match queued {
            Some(Err(_)) => Err(Refusal::new(RefusalKind::Busy, "too many frames wait for this connection")),
            _ => Ok(()),
        }
    }
}
