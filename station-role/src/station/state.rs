//! What a station knows, as the fold of its journal.
//!
//! The facts of a session are kept apart and its [`Stage`] is computed from them
//! (see `orders`), so that no combination of messages can bring the two out of step.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use branchline_protocol::{
    charter::{JoinToken, ProbeResult},
    ids::{DocumentHash, Epoch, Hash, NodeId, SessionId, SurveyHash},
    machine::Sequence,
    report::ReportEvent,
    session::{HostState, Stage},
    time::UnixSeconds,
};
use serde::{Deserialize, Serialize};

pub use super::event::{SlotUse, StationEvent};
use super::links::LinkAddress;
use super::words::{PlanSummary, SurveyFacts};

/// A join token and its uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// What it says.
    pub token: JoinToken,
    /// How often it was used.
    pub used: u32,
}

/// A member that joined with a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its machine.
    pub machine_identifier: String,
    /// Its name.
    pub host_name: String,
    /// When it joined.
    pub joined_at: UnixSeconds,
    /// Serial of its newest membership.
    pub serial: u64,
    /// The token that let it in.
    pub token: [u8; 16],
}

/// Whether the router should map an address to a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// No.
    #[default]
    None,
    /// Yes.
    Bound,
    /// No longer; the row is not known to be gone yet.
    Releasing,
}

/// Who is at the inside address of a host that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// Another member reports from there.
    Member(NodeId),
    /// A machine that is none of ours, or says nothing, answers there.
    Machine(LinkAddress),
}

/// What is known of a host over all of its generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its machine.
    pub machine_identifier: String,
    /// Its name.
    pub host_name: String,
    /// Its inside address.
    pub inside: Ipv4Addr,
    /// The generation under way, or the last one.
    pub generation: u32,
    /// Whether it should be mapped.
    pub binding: Binding,
    /// Its mapped address, once the router has it.
    pub mapped: Option<Ipv4Addr>,
    /// Whether an earlier version was put back on it, which runs unmapped: the next generation is an update, too (R97).
    pub keeps_version: bool,
    /// Its link address, where it is in the station's segment and was heard of there.
    pub link: Option<LinkAddress>,
    /// Who is at its inside address, since it was heard of last; nothing is mapped to there then.
    pub taken_by: Option<Taker>,
    /// Why it is taken for two machines, while it is.
    pub suspect: Option<String>,
    /// Other machines that showed its identity and were not let in, until a person has seen it; at most
    /// `HOST_WARNINGS_MAX`.
    pub warnings: Vec<String>,
    /// Whether its membership is revoked.
    pub revoked: bool,
}

/// Headquarters' decision as far as the station has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ApprovalState {
    /// None, or a delay has expired.
    #[default]
    Undecided,
    /// Held.
    Delayed {
        /// The signed document.
        document: DocumentHash,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Until when.
        until: Option<UnixSeconds>,
    },
    /// Approved.
    Approved {
        /// The signed document.
        document: DocumentHash,
        /// Who.
        by: String,
        /// When it arrived.
        at: UnixSeconds,
    },
}

/// Headquarters' probe of a mapped address (R94).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedProbe {
    /// The signed document; its signature was checked when it arrived.
    pub document: DocumentHash,
    /// What headquarters saw.
    pub result: ProbeResult,
    /// What people should know of it although it is no fault, such as an undeclared port that answers where the site's
    /// policy only reports it.
    pub findings: Vec<String>,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// As what; one of the ends.
    pub stage: Stage,
    /// Why.
    pub reason: String,
    /// Who decided; empty where it follows from what happened.
    pub by: String,
    /// When.
    pub at: UnixSeconds,
}

/// One line of a session's history at the station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// When.
    pub at: UnixSeconds,
    /// What, in words.
    pub text: String,
}

/// The facts of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// When it began.
    pub opened_at: UnixSeconds,
    /// Its place in the order of arrival.
    pub arrival: Sequence,
    /// Its rollout's priority; higher is earlier.
    pub priority: u32,
    /// Whether an earlier generation is installed and mapped (R97).
    pub is_update: bool,
    /// The newest report that was taken.
    pub report_revision: u64,
    /// Where the host is.
    pub host_state: HostState,
    /// The survey that the host names.
    pub survey: Option<SurveyHash>,
    /// Whether only a survey newer than the present order counts.
    pub survey_again: bool,
    /// The descriptor, once it is read.
    pub descriptor: Option<Hash>,
    /// What matters of it.
    pub facts: SurveyFacts,
    /// The plan, once it is made.
    pub plan: Option<PlanSummary>,
    /// Whether the host agrees.
    pub accepted: bool,
    /// Whether the host holds all packs.
    pub staged: bool,
    /// The slot that it holds.
    pub slot: Option<SlotUse>,
    /// Whether it was ever told to install.
    pub begun: bool,
    /// Whether it is installed.
    pub installed: bool,
    /// When headquarters was asked.
    pub asked_at: Option<UnixSeconds>,
    /// What headquarters decided.
    pub approval: ApprovalState,
    /// How often it was told to verify.
    pub attempt: u32,
    /// What the check from inside found, in this attempt.
    pub checked: Option<Vec<String>>,
    /// What headquarters' probe found, in this attempt.
    pub probed: Option<Vec<String>>,
    /// That probe itself.
    pub probe: Option<SignedProbe>,
    /// Whether both were well.
    pub verified: bool,
    /// Whether they ever were, also at another address.
    pub was_verified: bool,
    /// The HTML report.
    pub html: Option<String>,
    /// The event that made it: a profile of this revision or a later one that headquarters holds holds the report.
    pub html_revision: u64,
    /// What a person is needed for.
    pub attention: Option<String>,
    /// How it ended.
    pub end: Option<End>,
    /// The host's events, from 1 without gaps in what was taken; the permanent install report (R85).
    pub events: Vec<ReportEvent>,
    /// The number of the last event that was taken.
    pub events_taken: u64,
    /// Events of progress and output that were not kept, since the session has too many.
    pub events_cut: u64,
    /// Frame bytes over the WAN and from inside the site.
    pub bytes: (u64, u64),
    /// What happened at the station.
    pub history: Vec<HistoryLine>,
    /// The event that last changed the profile: its revision.
    pub profile_revision: u64,
    /// The revision that headquarters holds.
    pub profile_durable: u64,
}

/// Everything that the journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StationState {
    /// The epoch of the last start.
    pub epoch: Epoch,
    /// Join tokens.
    pub tokens: BTreeMap<[u8; 16], TokenRecord>,
    /// Members.
    pub members: BTreeMap<NodeId, Member>,
    /// Members that were put out.
    pub revoked: BTreeSet<NodeId>,
    /// Serial of the newest membership.
    pub last_serial: u64,
    /// Hosts that ever reported.
    pub hosts: BTreeMap<NodeId, Host>,
    /// Sessions of all generations.
    pub sessions: BTreeMap<SessionId, Session>,
}

impl Session {
    /// Whatever was verified was verified at another address, mapped or inside: nothing claims success at the new one
    /// before headquarters has probed it (R94, R95, R116).
    pub(super) fn verify_again(&mut self) {
        self.begin_attempt();
        if std::mem::take(&mut self.verified) {
            self.html = None;
            if self.end.as_ref().is_some_and(|end| end.stage == Stage::Complete) {
                self.end = None;
            }
        }
    }

    /// Forgets what an attempt at verification found.
    pub(super) fn begin_attempt(&mut self) {
        self.attempt += 1;
        self.checked = None;
        (self.probed, self.probe) = (None, None);
    }
}

impl StationState {
    /// The session of a host's present generation.
    pub fn current(&self, node: NodeId) -> Option<(SessionId, &Session)> {
        let session = SessionId { node, generation: self.hosts.get(&node)?.generation };
        Some((session, self.sessions.get(&session)?))
    }

    /// Whether `session` is its host's present generation.
    pub fn is_current(&self, session: SessionId) -> bool {
        self.hosts.get(&session.node).is_some_and(|host| host.generation == session.generation)
    }
}
