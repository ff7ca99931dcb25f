//! Leases: who may bring a pack's frames over the WAN (R70).
use serde::{Deserialize, Serialize};

use super::signed::Document;
use crate::{
    ids::{Epoch, NodeId, PackId, SiteName},
    limits::DOCUMENT_BYTES_MAX,
};

/// Lets one node, the inlet, fetch one pack from the origin. Signed by the station.
///
/// The origin is the fence: it serves only against a lease and cuts connections whose (epoch, sequence) is lower than
/// the highest it has seen for the site and pack. The holder stops by its own monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The site.
    pub site: SiteName,
    /// The station's epoch.
    pub epoch: Epoch,
    /// Grows with each lease that the station gives out.
    pub sequence: u64,
    /// The inlet.
    pub holder: NodeId,
    /// The pack.
    pub pack: PackId,
    /// How long it lasts from when the holder receives it, in milliseconds.
    pub life_milliseconds: u64,
}

impl Lease {
    /// Orders leases of one site and pack; the origin refuses all but the highest.
    pub fn rank(&self) -> (Epoch, u64) {
        (self.epoch, self.sequence)
    }
}

impl Document for Lease {
    const CONTEXT: &'static str = "branchline lease 1";
    const BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "lease";
}
