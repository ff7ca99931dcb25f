//! The judge: what one verifier holds for true about a site, and what it therefore accepts.
use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use super::{
    approval::Approval,
    grant::{AddressGrant, ProbeResult},
    lease::Lease,
    membership::{Membership, Revocations},
    signed::{Document, PublicKey, Signed},
    site::Charter,
    warrant::Warrant,
};
use crate::{
    ids::{Epoch, Hash, NodeId},
    refusal::{Refusal, RefusalKind},
    time::UnixSeconds,
};

/// A function that the charter gives a node (R2). One node may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Has software installed.
    Host,
    /// Holds sessions, approvals and the router of a site.
    Station,
    /// Approves, grants addresses, mirrors, monitors.
    Headquarters,
}

/// The newest charter and revocations that a verifier has seen, and the root that must have signed them.
///
/// Serializable as a whole, because it must survive a restart: a verifier that forgets could be led back to an old
/// charter. `former_owner_roots` do not exist; a new root is a new site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    root: PublicKey,
    signed_charter: Signed<Charter>,
    charter: Charter,
    signed_revocations: Option<Signed<Revocations>>,
    revocations: Revocations,
}

fn refuse<T>(kind: RefusalKind, reason: String) -> Result<T, Refusal> {
    Err(Refusal::new(kind, reason))
}

impl Authority {
    /// Starts from a charter that `root` must have signed.
    ///
    /// # Errors
    /// A bad signature, or a charter that breaks a rule.
    pub fn establish(root: PublicKey, signed_charter: Signed<Charter>) -> Result<Self, Refusal> {
        let charter = signed_charter.verify(root)?;
        charter.check().map_err(|error| Refusal::new(RefusalKind::Malformed, error.to_string()))?;
        Ok(Self { root, signed_charter, charter, signed_revocations: None, revocations: Revocations::default() })
    }

    /// Starts from a charter whose signer's hash a join token names (R50a).
    ///
    /// # Errors
    /// As [`Authority::establish`], or signed by another than the token's root.
    pub fn establish_by_root_hash(root: Hash, signed_charter: Signed<Charter>) -> Result<Self, Refusal> {
        let signer = signed_charter.signer();
        if signer.root_hash() != root {
            let reason = format!("the charter is signed by {signer}, which is not the owner that the join token names");
            return refuse(RefusalKind::BadSignature, reason);
        }
        Self::establish(signer, signed_charter)
    }

    /// The owner's key.
    pub fn root(&self) -> PublicKey {
        self.root
    }

    /// The newest charter.
    pub fn charter(&self) -> &Charter {
        &self.charter
    }

    /// The newest charter as it was signed, to pass on.
    pub fn signed_charter(&self) -> &Signed<Charter> {
        &self.signed_charter
    }

    /// The newest list of revoked members, to pass on.
    pub fn signed_revocations(&self) -> Option<&Signed<Revocations>> {
        self.signed_revocations.as_ref()
    }

    /// Orders lists of revoked members.
    pub fn revocations_rank(&self) -> (Epoch, u64) {
        (self.revocations.epoch, self.revocations.version)
    }

    /// The list by which a new station takes this one over: the same nodes and those that the former station's journal
    /// puts out, under its own epoch, so that a former station cannot put anybody out any more. `None` where the list in
    /// force is of this epoch already, or none is needed.
    pub fn revocations_to_take_over(&self, journaled: &BTreeSet<NodeId>) -> Option<Revocations> {
        let epoch = self.charter.epoch();
        let needed = !self.charter.former_stations.is_empty() && self.revocations.epoch < epoch;
        needed.then(|| Revocations { epoch, version: 1, nodes: &self.revocations.nodes | journaled })
    }

    /// Whether the station has put `node` out.
    pub fn is_revoked(&self, node: NodeId) -> bool {
        self.revocations.nodes.contains(&node)
    }

    /// The roles of `node`. Everybody is a host; membership is another question.
    pub fn roles(&self, node: NodeId) -> Vec<Role> {
        let mut roles = vec![Role::Host];
        if self.charter.station.node == node {
            roles.push(Role::Station);
        }
        if self.charter.headquarters.node == node {
            roles.push(Role::Headquarters);
        }
        roles
    }

    /// Takes a charter. `Ok(true)`: it is newer and now in force; `Ok(false)`: it is the one in force.
    ///
    /// # Errors
    /// Older than the one in force, another site's, another content under the same version, or badly signed.
    pub fn take_charter(&mut self, signed: Signed<Charter>) -> Result<bool, Refusal> {
        if signed == self.signed_charter {
            return Ok(false);
        }
        let charter = signed.verify(self.root)?;
        charter.check().map_err(|error| Refusal::new(RefusalKind::Malformed, error.to_string()))?;
        if charter.site != self.charter.site {
            let reason = format!("this charter is of site {}, not of {}", charter.site, self.charter.site);
            return refuse(RefusalKind::NotAuthorised, reason);
        }
        if charter.version <= self.charter.version {
            let reason = format!(
                "charter version {} is not newer than version {}, which is in force",
                charter.version, self.charter.version
            );
            return refuse(RefusalKind::Stale, reason);
        }
        self.charter = charter;
        self.signed_charter = signed;
        Ok(true)
    }

    /// Takes a list of revoked members. `Ok(true)`: it is newer and now in force.
    ///
    /// # Errors
    /// Badly signed, or older than the one in force.
    pub fn take_revocations(&mut self, signed: Signed<Revocations>) -> Result<bool, Refusal> {
        if self.signed_revocations.as_ref() == Some(&signed) {
            return Ok(false);
        }
        let list: Revocations = self.verify_by_station(&signed, |list: &Revocations| list.epoch)?;
        if (list.epoch, list.version) <= self.revocations_rank() && self.signed_revocations.is_some() {
            let (epoch, version) = self.revocations_rank();
            let reason = format!(
                "list {} of revoked members, of epoch {}, is not newer than list {version} of epoch {epoch}, which is in force",
                list.version, list.epoch
            );
            return refuse(RefusalKind::Stale, reason);
        }
        self.revocations = list;
        self.signed_revocations = Some(signed);
        Ok(true)
    }

    /// The warrant that a station signs for itself under the charter in force.
    pub fn sign_warrant(&self, key: &SigningKey) -> Signed<Warrant> {
        let holder = PublicKey::of(key).0;
        let site = self.charter.site.clone();
        Signed::sign(&Warrant { site, epoch: self.charter.epoch(), holder, charter: self.signed_charter.hash() }, key)
    }

    /// Checks that whoever showed this warrant is the station now.
    ///
    /// # Errors
    /// A lower epoch than the charter in force ([`RefusalKind::Stale`]: the old station must stand down), a higher one
    /// (fetch the newer charter first), or a holder that the charter does not designate.
    pub fn check_warrant(&self, signed: &Signed<Warrant>) -> Result<Warrant, Refusal> {
        let warrant = signed.verify(signed.signer())?;
        let epoch = self.charter.epoch();
        if warrant.site != self.charter.site {
            return refuse(RefusalKind::NotAuthorised, format!("the warrant is for site {}", warrant.site));
        }
        if warrant.epoch < epoch {
            let reason = format!("the warrant is of epoch {}, but the station's epoch is {epoch}", warrant.epoch);
            return refuse(RefusalKind::Stale, reason);
        }
        if warrant.epoch > epoch {
            let reason = format!("the warrant is of epoch {}, but only epoch {epoch} is proved here", warrant.epoch);
            return refuse(RefusalKind::NotAuthorised, reason);
        }
        let designated = self.charter.station.node;
        if warrant.holder != designated || signed.signer() != PublicKey(designated) {
            let reason = format!("{} shows a warrant, but the charter designates {designated}", warrant.holder);
            return refuse(RefusalKind::NotAuthorised, reason);
        }
        if warrant.charter != self.signed_charter.hash() {
            return refuse(RefusalKind::NotAuthorised, "the warrant names another charter".to_owned());
        }
        Ok(warrant)
    }

    /// Checks that `node` is a member at `wall`: by its role, or by the membership that it shows.
    ///
    /// # Errors
    /// [`RefusalKind::NotAMember`] with the reason.
    pub fn check_member(
        &self,
        node: NodeId,
        membership: Option<&Signed<Membership>>,
        wall: UnixSeconds,
    ) -> Result<Option<Membership>, Refusal> {
        let membership = self.check_membership(node, membership)?;
        if membership.as_ref().is_some_and(|membership| wall >= membership.expires_at) {
            let reason = format!("the membership of {node} expired; the station renews it when the node reaches it");
            return refuse(RefusalKind::NotAMember, reason);
        }
        Ok(membership)
    }

    /// The same at any time: what a station asks of a node that was away for longer than its membership lived, before it
    /// renews it.
    ///
    /// # Errors
    /// [`RefusalKind::NotAMember`] with the reason.
    pub fn check_membership(
        &self,
        node: NodeId,
        membership: Option<&Signed<Membership>>,
    ) -> Result<Option<Membership>, Refusal> {
        let no = |reason: String| refuse(RefusalKind::NotAMember, reason);
        if node == self.charter.station.node || node == self.charter.headquarters.node {
            return Ok(None);
        }
        if self.is_revoked(node) {
            return no(format!("the membership of {node} was revoked; join anew with a token"));
        }
        if self.charter.former_stations.iter().any(|(former, _)| *former == node) {
            // The charter itself names it, and it must still hand its journal over (R4).
            return Ok(None);
        }
        let Some(signed) = membership else {
            return no(format!("{node} shows no membership of site {}; join with a token first", self.charter.site));
        };
        let membership: Membership = self.verify_by_station(signed, |membership: &Membership| membership.epoch)?;
        if membership.site != self.charter.site || membership.node != node {
            return no(format!("the membership is of {} in site {}", membership.node, membership.site));
        }
        Ok(Some(membership))
    }

    /// Checks a lease: signed by the station of its epoch.
    ///
    /// # Errors
    /// Badly signed, of another site, or of an epoch that is not in force.
    pub fn check_lease(&self, signed: &Signed<Lease>) -> Result<Lease, Refusal> {
        let lease: Lease = self.verify_by_station(signed, |lease: &Lease| lease.epoch)?;
        if lease.site != self.charter.site || lease.epoch != self.charter.epoch() {
            let reason = format!(
                "the lease is of site {} and epoch {}, in force are {} and {}",
                lease.site,
                lease.epoch,
                self.charter.site,
                self.charter.epoch()
            );
            return refuse(RefusalKind::Stale, reason);
        }
        Ok(lease)
    }

    /// Checks an approval: signed by one of the charter's approval keys, for this site.
    ///
    /// # Errors
    /// Badly signed, or for another site.
    pub fn check_approval(&self, signed: &Signed<Approval>) -> Result<Approval, Refusal> {
        let approval = signed.verify_any(&self.charter.keys.approvers)?;
        if approval.site != self.charter.site {
            return refuse(RefusalKind::NotAuthorised, format!("the approval is for site {}", approval.site));
        }
        Ok(approval)
    }

    /// Checks an address grant by headquarters.
    ///
    /// # Errors
    /// Badly signed, or for another site.
    pub fn check_grant(&self, signed: &Signed<AddressGrant>) -> Result<AddressGrant, Refusal> {
        let grant = signed.verify(PublicKey(self.charter.headquarters.node))?;
        if grant.site != self.charter.site {
            return refuse(RefusalKind::NotAuthorised, format!("the address grant is for site {}", grant.site));
        }
        Ok(grant)
    }

    /// Checks a probe result by headquarters.
    ///
    /// # Errors
    /// Badly signed, or for another site.
    pub fn check_probe(&self, signed: &Signed<ProbeResult>) -> Result<ProbeResult, Refusal> {
        let probe = signed.verify(PublicKey(self.charter.headquarters.node))?;
        if probe.site != self.charter.site {
            return refuse(RefusalKind::NotAuthorised, format!("the probe result is for site {}", probe.site));
        }
        Ok(probe)
    }

    /// What a station of the past signed in its time still counts; what it signs under a later epoch does not.
    fn verify_by_station<T: Document>(&self, signed: &Signed<T>, epoch_of: impl Fn(&T) -> Epoch) -> Result<T, Refusal> {
        let signer = signed.signer();
        let document = signed.verify(signer)?;
        let epoch = epoch_of(&document);
        let now = signer == PublicKey(self.charter.station.node) && epoch <= self.charter.epoch();
        let then = self.charter.former_stations.iter().any(|(node, last)| signer.0 == *node && epoch <= *last);
        if now || then {
            return Ok(document);
        }
        let reason = format!("the {} is signed by {signer} under epoch {epoch}, who was not station then", T::NAME);
        refuse(RefusalKind::BadSignature, reason)
    }
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
