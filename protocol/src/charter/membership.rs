//! Memberships: who belongs to a site, for how long, and who no longer does.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::signed::Document;
use crate::{
    ids::{Epoch, NodeId, SiteName},
    limits::{CATALOGUE_BYTES_MAX, DOCUMENT_BYTES_MAX},
    time::UnixSeconds,
};

/// A short-lived credential of one node, signed by the station and renewed at half its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The site.
    pub site: SiteName,
    /// The member.
    pub node: NodeId,
    /// The machine that it was given to (`/etc/machine-id` or what stands for it); R99, R116.
    pub machine_identifier: String,
    /// Under which epoch it was signed.
    pub epoch: Epoch,
    /// Grows with each one that a station signs; names this one in a revocation.
    pub serial: u64,
    /// From when on it counts.
    pub issued_at: UnixSeconds,
    /// From when on it does not.
    pub expires_at: UnixSeconds,
}

impl Document for Membership {
    const CONTEXT: &'static str = "branchline membership 1";
    const BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "membership";
}

/// Members that the station has put out before their membership expired (R98).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// Under which epoch it was signed; orders lists together with `version`.
    pub epoch: Epoch,
    /// Grows with every change within an epoch.
    pub version: u64,
    /// The nodes; a node that joins anew comes with a new identity.
    pub nodes: BTreeSet<NodeId>,
}

impl Document for Revocations {
    const CONTEXT: &'static str = "branchline revocations 1";
    const BYTES_MAX: usize = CATALOGUE_BYTES_MAX;
    const NAME: &'static str = "list of revoked members";
}
