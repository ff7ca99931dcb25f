//! What host and station tell each other about one session.
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{DocumentHash, Epoch, Hash, ImageId, PackId, PlanHash, SessionId, SurveyHash},
    report::ReportEvent,
    time::UnixSeconds,
};

/// Where a session stands, as people see it (DESIGN.md, a session).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waits for a slot (R22); the wait's reason and place are in the directive.
    Queued,
    /// The station knows of the host and waits for its survey.
    Open,
    /// The survey is stored.
    Surveyed,
    /// The plan is made.
    Selected,
    /// The host accepted the plan and gathers the packs.
    Spreading,
    /// The host installs; holds a slot.
    Installing,
    /// Installed and started.
    Installed,
    /// Headquarters has been asked.
    AwaitingApproval,
    /// Approved; the router comes next.
    Approved,
    /// The router maps an address to the host.
    Mapped,
    /// Checked from inside and through the mapped address; holds a slot while it is checked.
    Verified,
    /// The report is made, the host is a monitoring target.
    Complete,
    /// A conflict, or a plan that the host refuses.
    Refused,
    /// Headquarters denied it.
    Denied,
    /// The installation failed and everything was put back.
    RolledBack,
    /// The installation failed and could not be put back.
    Failed,
    /// Cancelled by a person.
    Cancelled,
    /// Waits for a person.
    Attention,
    /// Headquarters delays its decision (R91).
    Delayed,
    /// Withdrawn after it was complete (R98).
    Withdrawn,
}

impl Stage {
    /// Whether nothing more will happen without a new generation or a person.
    pub fn is_end(self) -> bool {
        matches!(
            self,
            Self::Complete
                | Self::Refused
                | Self::Denied
                | Self::RolledBack
                | Self::Failed
                | Self::Cancelled
                | Self::Withdrawn
        )
    }
}

/// Where the host is, by its own word. It survives a restart of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Joined; not surveyed yet in this generation.
    Joined,
    /// Surveyed; the sealed survey is named in the report.
    Surveyed,
    /// Computed the plan, agrees, and fetches packs.
    Accepted {
        /// The plan.
        plan: PlanHash,
    },
    /// All packs of the plan are complete and kept.
    Staged {
        /// The plan.
        plan: PlanHash,
    },
    /// Installing.
    Installing {
        /// The plan.
        plan: PlanHash,
    },
    /// Installed and started.
    Installed {
        /// The plan.
        plan: PlanHash,
        /// The images that are installed.
        images: Vec<ImageId>,
    },
    /// Checked from inside after an order to verify.
    Checked {
        /// The plan.
        plan: PlanHash,
        /// Whether configuration and operation were as planned.
        passed: bool,
        /// What was not.
        faults: Vec<String>,
    },
    /// Told that all is complete, and has the report.
    Complete {
        /// The plan.
        plan: PlanHash,
    },
    /// Refuses the station's plan or order, and says why. Stays until another order comes.
    Refused {
        /// Why.
        reason: String,
    },
    /// The installation failed.
    Failed {
        /// What failed.
        reason: String,
        /// Everything is as before.
        rolled_back: bool,
    },
    /// Stopped or uninstalled on order.
    Withdrawn {
        /// Whether the files were removed too.
        uninstalled: bool,
    },
}

/// From host to station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Host and generation.
    pub session: SessionId,
    /// Grows with every change of what follows; the station ignores lower ones.
    pub revision: u64,
    /// The machine (R99, R116).
    pub machine_identifier: String,
    /// Its name, for people.
    pub host_name: String,
    /// Its address inside the site.
    pub inside: Ipv4Addr,
    /// Where it is.
    pub state: HostState,
    /// The newest sealed survey, once there is one.
    pub survey: Option<SurveyHash>,
    /// The highest revision of a directive that the host has made durable.
    pub directive_seen: u64,
    /// Events after the station's acknowledgement, in order, at most `REPORT_EVENTS_MAX`.
    pub events: Vec<ReportEvent>,
}

/// Why a session waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// All session slots are taken (R22).
    Slots {
        /// Sessions ahead, plus one.
        place: u32,
        /// The limit.
        limit: u32,
    },
    /// The station has not read the survey yet.
    Survey,
    /// Headquarters has not decided.
    Approval,
    /// Headquarters delays, with its reason.
    Delayed {
        /// Why.
        reason: String,
        /// Until when.
        until: Option<UnixSeconds>,
    },
    /// No address is free; more were asked for.
    Address,
    /// The router does not answer or refuses; what it said.
    Router(String),
    /// Headquarters probes the mapped address.
    Probe,
    /// A person is needed; what for.
    Attention(String),
    /// Another member of the same cluster or HA pair is under way (R5).
    Group {
        /// Which member.
        member: String,
    },
}

/// What the station wants the host to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Nothing for now.
    Wait(WaitReason),
    /// Survey yourself and store the sealed survey.
    Survey,
    /// Compute the plan from these documents and your own descriptor; if it has this hash, fetch the packs.
    Prepare {
        /// The plan's hash.
        plan: PlanHash,
        /// The signed catalogue.
        catalogue: DocumentHash,
        /// The signed site policy.
        policy: DocumentHash,
        /// The descriptor that the station read, by its content hash.
        descriptor: Hash,
        /// The packs to fetch.
        packs: Vec<PackId>,
    },
    /// Carry the plan out.
    Install {
        /// The plan's hash.
        plan: PlanHash,
    },
    /// Check the configuration and the operation from inside.
    Verify {
        /// The plan's hash.
        plan: PlanHash,
    },
    /// All is done: keep this report.
    Complete {
        /// The plan's hash.
        plan: PlanHash,
        /// The mapped address.
        mapped: Ipv4Addr,
        /// The HTML report.
        report_html: String,
    },
    /// Stop the agent (R92).
    Stop {
        /// Why, for the host's operator.
        reason: String,
    },
    /// Stop the agent and remove what was installed (R98).
    Uninstall {
        /// Why, for the host's operator.
        reason: String,
    },
    /// Leave everything as it is; the session is over.
    End {
        /// Why, for the host's operator.
        reason: String,
    },
    /// The session is over without success, and all that follows from that is done: keep this report (R85, R92).
    Keep {
        /// Why, for the host's operator.
        reason: String,
        /// The HTML report.
        report_html: String,
    },
    /// Take this generation's installation back: the version before it runs again (R95, R97).
    Revert {
        /// Why, for the host's operator.
        reason: String,
    },
}

/// From station to host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// Host and generation.
    pub session: SessionId,
    /// The station's epoch; a host ignores lower ones than it has seen.
    pub epoch: Epoch,
    /// Grows with every change of what follows, within an epoch.
    pub revision: u64,
    /// Where the session stands.
    pub stage: Stage,
    /// What to do.
    pub order: Order,
    /// Events up to this number are durable at the station; the host may forget them.
    pub events_durable: u64,
}
