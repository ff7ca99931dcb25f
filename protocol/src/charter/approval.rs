//! Approvals: headquarters' word on one host, bound to what was approved (R90-R96).
use serde::{Deserialize, Serialize};

use super::signed::Document;
use crate::{
    ids::{Epoch, ImageId, PlanHash, SessionId, SiteName},
    limits::DOCUMENT_BYTES_MAX,
    time::UnixSeconds,
};

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The host becomes a monitoring target.
    Approve,
    /// The session ends; the host is marked (R92).
    Deny {
        /// Why.
        reason: String,
    },
    /// The session is held (R91). Expiry asks again, it never approves.
    Delay {
        /// Why.
        reason: String,
        /// When to ask again, if there is a deadline.
        until: Option<UnixSeconds>,
    },
}

/// A signed decision; a change of any bound field needs a new one (R96).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The site.
    pub site: SiteName,
    /// Host and generation.
    pub session: SessionId,
    /// The images that were installed.
    pub images: Vec<ImageId>,
    /// The plan that was carried out.
    pub plan: PlanHash,
    /// The epoch of the station that asked.
    pub epoch: Epoch,
    /// What was decided.
    pub decision: Decision,
    /// Who decided: a person's name, or `rule:NAME`.
    pub decided_by: String,
    /// When.
    pub decided_at: UnixSeconds,
}

impl Document for Approval {
    const CONTEXT: &'static str = "branchline approval 1";
    const BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "approval";
}
