//! The warrant: by what right a station acts.
use serde::{Deserialize, Serialize};

use super::signed::Document;
use crate::{
    ids::{DocumentHash, Epoch, NodeId, SiteName},
    limits::DOCUMENT_BYTES_MAX,
};

/// Shown by a station with everything that it orders. In its first form the charter designates the station and the
/// station signs its own warrant, which is good exactly as long as that charter is the newest that the verifier knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warrant {
    /// The site.
    pub site: SiteName,
    /// Charter version and term.
    pub epoch: Epoch,
    /// The station.
    pub holder: NodeId,
    /// The charter that designates it.
    pub charter: DocumentHash,
}

impl Document for Warrant {
    const CONTEXT: &'static str = "branchline warrant 1";
    const BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "warrant";
}
