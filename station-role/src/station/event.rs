//! What is written to the station's journal.
use std::net::Ipv4Addr;

use branchline_protocol::{
    charter::{JoinToken, ProbeResult},
    ids::{DocumentHash, Epoch, Hash, NodeId, SessionId, SurveyHash},
    report::ReportEvent,
    session::{HostState, Stage},
    time::UnixSeconds,
};
use serde::{Deserialize, Serialize};

use super::{
    links::LinkAddress,
    words::{PlanSummary, SurveyFacts},
};

/// What a slot is held for (R22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotUse {
    /// From installing to installed.
    Install,
    /// The check from inside.
    Verify,
}

/// What is written to the station's journal. New variants are appended, never inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StationEvent {
    /// The station acts under this epoch from now on; also written at every start.
    EpochEntered {
        /// When.
        at: UnixSeconds,
        /// The epoch.
        epoch: Epoch,
    },
    /// A join token was made.
    TokenCreated {
        /// The token.
        token: JoinToken,
    },
    /// A join token was used (R50a).
    TokenUsed {
        /// When.
        at: UnixSeconds,
        /// The token.
        identifier: [u8; 16],
        /// The new member.
        node: NodeId,
        /// Its machine.
        machine_identifier: String,
        /// Its name.
        host_name: String,
        /// Serial of its first membership.
        serial: u64,
    },
    /// A membership was renewed.
    Renewed {
        /// Whose.
        node: NodeId,
        /// Its serial.
        serial: u64,
    },
    /// A session, or a new generation of it, begins.
    Opened {
        /// When.
        at: UnixSeconds,
        /// Which.
        session: SessionId,
        /// The host's name.
        host_name: String,
        /// Its machine.
        machine_identifier: String,
        /// Its inside address.
        inside: Ipv4Addr,
        /// Who wanted it: `the host`, or a person.
        by: String,
    },
    /// The host said something new.
    Reported {
        /// When.
        at: UnixSeconds,
        /// Whose session.
        session: SessionId,
        /// The report's revision.
        revision: u64,
        /// Where the host is.
        state: HostState,
        /// Its newest sealed survey.
        survey: Option<SurveyHash>,
        /// New events of it, without gaps.
        events: Vec<ReportEvent>,
    },
    /// The host has another inside address.
    Moved {
        /// When.
        at: UnixSeconds,
        /// The host.
        node: NodeId,
        /// The address.
        inside: Ipv4Addr,
    },
    /// The survey was read.
    SurveyOpened {
        /// When.
        at: UnixSeconds,
        /// Whose.
        session: SessionId,
        /// Its sealed form.
        survey: SurveyHash,
        /// The descriptor.
        descriptor: Hash,
        /// What matters of it.
        facts: SurveyFacts,
    },
    /// The plan is made.
    Planned {
        /// When.
        at: UnixSeconds,
        /// For whom.
        session: SessionId,
        /// The plan.
        summary: PlanSummary,
    },
    /// The host computed the same plan and gathers its packs.
    Accepted {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
    },
    /// The host holds all packs.
    Staged {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
    },
    /// The session got a slot (R22).
    SlotTaken {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
        /// What for.
        slot: SlotUse,
    },
    /// Installed and started.
    Installed {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
    },
    /// Headquarters is asked for an approval, for the first time or again after a delay.
    ApprovalAsked {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
    },
    /// Headquarters approved exactly what is installed (R96).
    Approved {
        /// When it arrived.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
        /// The signed document.
        document: DocumentHash,
        /// Who decided.
        by: String,
    },
    /// Headquarters delays (R91).
    Delayed {
        /// When it arrived.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
        /// The signed document.
        document: DocumentHash,
        /// Who decided.
        by: String,
        /// Why.
        reason: String,
        /// Until when.
        until: Option<UnixSeconds>,
    },
    /// The delay is over: headquarters is asked again.
    DelayExpired {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
    },
    /// The router maps an address to the host.
    Mapped {
        /// When.
        at: UnixSeconds,
        /// The host.
        node: NodeId,
        /// The mapped address.
        mapped: Ipv4Addr,
    },
    /// The router maps nothing to the host any more.
    Unmapped {
        /// When.
        at: UnixSeconds,
        /// The host.
        node: NodeId,
    },
    /// The host checked itself from inside (R94).
    Checked {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
        /// What was not as planned; empty where all was well.
        faults: Vec<String>,
    },
    /// Headquarters probed the mapped address (R94).
    Probed {
        /// When it arrived.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
        /// The signed document.
        document: DocumentHash,
        /// What headquarters saw.
        probe: ProbeResult,
        /// What was not as declared; empty where all was well.
        faults: Vec<String>,
        /// What people should know all the same.
        findings: Vec<String>,
    },
    /// Inside check and probe agree with the plan.
    Verified {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
    },
    /// The verification failed: the mapping goes and a person is needed (R94, R95).
    VerificationFailed {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
        /// What was wrong.
        reason: String,
    },
    /// The HTML report is made (R95).
    ReportMade {
        /// When.
        at: UnixSeconds,
        /// Of which session.
        session: SessionId,
        /// The text.
        html: String,
    },
    /// A person is needed.
    AttentionRaised {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
        /// What for.
        reason: String,
    },
    /// A person wants the session to go on.
    AttentionCleared {
        /// When.
        at: UnixSeconds,
        /// Which session.
        session: SessionId,
        /// Who.
        by: String,
    },
    /// One identity shows up as two machines (R99): its mapping goes and its reports are refused.
    Suspected {
        /// When.
        at: UnixSeconds,
        /// The host.
        node: NodeId,
        /// What was seen.
        reason: String,
    },
    /// The session is over.
    Ended {
        /// When.
        at: UnixSeconds,
        /// Which.
        session: SessionId,
        /// As what.
        stage: Stage,
        /// Why.
        reason: String,
        /// Who decided; empty where it follows from what happened.
        by: String,
    },
    /// A withdrawn host's membership is revoked (R98).
    Revoked {
        /// When.
        at: UnixSeconds,
        /// The host.
        node: NodeId,
    },
    /// Another place in the queue.
    Prioritised {
        /// Which session.
        session: SessionId,
        /// Higher is earlier.
        priority: u32,
    },
    /// Headquarters holds the profile in this revision.
    ProfileDurable {
        /// Which session.
        session: SessionId,
        /// The revision.
        revision: u64,
    },
    /// Another machine showed a host's identity and was not let in (R99).
    Warned {
        /// When.
        at: UnixSeconds,
        /// The host.
        node: NodeId,
        /// What was seen.
        text: String,
    },
    /// A person has seen the warnings about a host.
    WarningsCleared {
        /// When.
        at: UnixSeconds,
        /// The host.
        node: NodeId,
        /// Who.
        by: String,
    },
    /// Another member reports from the inside address of a mapped host (R116).
    InsideTaken {
        /// When.
        at: UnixSeconds,
        /// The host.
        node: NodeId,
        /// Who reports from there.
        by: NodeId,
    },
    /// The host has reported after this link address was seen at its inside address (R116).
    LinkLearnt {
        /// The host.
        node: NodeId,
        /// Its link address.
        link: LinkAddress,
    },
    /// A machine with another link address answers at the inside address of a mapped host that is off (R116).
    InsideAnswered {
        /// When.
        at: UnixSeconds,
        /// The host.
        node: NodeId,
        /// Whose.
        link: LinkAddress,
    },
}

impl StationEvent {
    /// Whether the queue for slots may look different after it.
    pub(super) fn moves_queue(&self) -> bool {
        !matches!(
            self,
            Self::Reported { .. }
                | Self::TokenCreated { .. }
                | Self::TokenUsed { .. }
                | Self::Renewed { .. }
                | Self::SurveyOpened { .. }
                | Self::Accepted { .. }
                | Self::ReportMade { .. }
                | Self::Warned { .. }
                | Self::WarningsCleared { .. }
                | Self::LinkLearnt { .. }
                | Self::ProfileDurable { .. }
        )
    }

    /// Whether headquarters should hear of it soon.
    pub(super) fn concerns_headquarters(&self) -> bool {
        match self {
            Self::Reported { events, .. } => events.iter().any(|event| event.body.is_terminal()),
            Self::TokenCreated { .. }
            | Self::TokenUsed { .. }
            | Self::Renewed { .. }
            | Self::ApprovalAsked { .. }
            | Self::LinkLearnt { .. }
            | Self::ProfileDurable { .. } => false,
            _ => true,
        }
    }
}
