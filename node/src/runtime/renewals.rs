//! Memberships are renewed once half of their life is over (R50a).
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use branchline_protocol::{
    charter::{Membership, Signed},
    ids::SiteName,
    time::UnixSeconds,
    wire::control::{ControlAnswer, ControlRequest},
};

use super::{clock::wall_time, node::Node};

/// How often it is looked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Asks the station for a new membership of each site, as long as the node runs.
pub(super) async fn renew_memberships(node: Arc<Node>) {
    let mut half_lives = HalfLives::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let wall = wall_time();
        for site in node.documents.sites() {
            let Some(state) = node.documents.site(&site) else { continue };
            let Some(signed) = &state.membership else { continue };
            if half_lives.end_of(&site, signed).is_none_or(|end| wall < end) {
                continue;
            }
            let station = state.authority.charter().station.node;
            match node.mesh.request(station, ControlRequest::RenewMembership).await {
                Ok(ControlAnswer::Membership(renewed)) => {
                    if let Err(error) = node.documents.take_membership(&site, renewed, wall) {
                        tracing::warn!("the renewed membership is not accepted: {error:#}");
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the membership is not renewed yet"),
            }
        }
    }
}

/// When half of the life of each site's membership is over. Each is verified and read once: doing that at every look would keep
/// the code for it in an idle node's memory.
#[derive(Debug, Default)]
struct HalfLives(BTreeMap<SiteName, (Signed<Membership>, Option<UnixSeconds>)>);

impl HalfLives {
    /// Of this membership of this site; `None` where its signature does not hold.
    fn end_of(&mut self, site: &SiteName, signed: &Signed<Membership>) -> Option<UnixSeconds> {
        if let Some((known, end)) = self.0.get(site)
            && known == signed
        {
            return *end;
        }
        let end = signed.verify(signed.signer()).ok().map(|membership| {
            let (from, until) = (membership.issued_at.0, membership.expires_at.0);
            UnixSeconds(from + until.saturating_sub(from) / 2)
        });
        self.0.insert(site.clone(), (signed.clone(), end));
        end
    }
}

#[cfg(test)]
mod tests {
    use branchline_protocol::ids::{Epoch, NodeId};
    use ed25519_dalek::SigningKey;

    use super::*;

    fn membership(issued_at: u64, expires_at: u64) -> Signed<Membership> {
        let key = SigningKey::from_bytes(&[3; 32]);
        let membership = Membership {
            site: "north".parse().unwrap(),
            node: NodeId(key.verifying_key().to_bytes()),
            machine_identifier: "machine".into(),
            epoch: Epoch { charter_version: 1, term: 0 },
            serial: 1,
            issued_at: UnixSeconds(issued_at),
            expires_at: UnixSeconds(expires_at),
        };
        Signed::sign(&membership, &key)
    }

    #[test]
    fn a_membership_is_due_after_half_of_its_life_and_so_is_the_one_that_follows() {
        let (north, south) = ("north".parse().unwrap(), "south".parse().unwrap());
        let mut half_lives = HalfLives::default();
        for _ in 0..2 {
            assert_eq!(half_lives.end_of(&north, &membership(1_000, 2_000)), Some(UnixSeconds(1_500)));
            assert_eq!(half_lives.end_of(&south, &membership(1_000, 1_200)), Some(UnixSeconds(1_100)));
        }
        assert_eq!(half_lives.end_of(&north, &membership(1_500, 2_500)), Some(UnixSeconds(2_000)), "renewed");
        assert_eq!(
            half_lives.end_of(&north, &membership(3_000, 2_000)),
            Some(UnixSeconds(3_000)),
            "ended before it began"
        );
        assert_eq!(half_lives.0.len(), 2, "one of each site is known");
    }

    #[test]
    fn a_membership_whose_signature_does_not_hold_is_not_renewed() {
        let mut broken = serde_json::to_value(membership(1_000, 2_000)).unwrap();
        let other = serde_json::to_value(membership(1_000, 3_000)).unwrap();
        broken["signature"] = other["signature"].clone();
        let broken: Signed<Membership> = serde_json::from_value(broken).unwrap();
        assert_eq!(HalfLives::default().end_of(&"north".parse().unwrap(), &broken), None);
    }
}
