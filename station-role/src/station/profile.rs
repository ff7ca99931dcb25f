//! What others see of a session: the profile that headquarters mirrors (R31, R93), the views of the command line, and
//! everything that a report is made of (R95).
use std::net::Ipv4Addr;

use branchline_protocol::{
    ids::{DocumentHash, ImageId, PlanHash, SessionId},
    report::{InstallReport, ReportEvent},
    session::{HostState, Stage, WaitReason, wait_text},
    time::UnixSeconds,
    wire::site::HostProfile,
};
use serde::Serialize;

use super::{
    machine::StationMachine,
    state::{ApprovalState, HistoryLine, Host, Session, SignedProbe, SlotUse},
};

/// What headquarters decided, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalView {
    /// Not decided.
    Undecided {
        /// When headquarters was asked.
        asked_at: Option<UnixSeconds>,
    },
    /// Held.
    Delayed {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Until when.
        until: Option<UnixSeconds>,
    },
    /// Approved.
    Approved {
        /// Who.
        by: String,
        /// When it arrived.
        at: UnixSeconds,
        /// The signed document.
        document: DocumentHash,
    },
}

/// One session, as `sessions list` and `sessions show` print it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionView {
    /// Host and generation.
    pub session: SessionId,
    /// The host's name.
    pub host_name: String,
    /// Its machine.
    pub machine_identifier: String,
    /// Whether this is the host's present generation.
    pub is_current: bool,
    /// Where it stands.
    pub stage: Stage,
    /// Why it waits or how it ended, for people; empty where it is under way.
    pub reason: String,
    /// What people should look at, such as a second machine with this identity (R99).
    pub warnings: Vec<String>,
    /// Its place in the queue, from 1, where it waits for a slot.
    pub place: Option<u32>,
    /// The slot that it holds.
    pub slot: Option<SlotUse>,
    /// Where the host is, by its own word.
    pub host_state: HostState,
    /// When it began.
    pub opened_at: UnixSeconds,
    /// When it ended.
    pub ended_at: Option<UnixSeconds>,
    /// Inside address.
    pub inside: Ipv4Addr,
    /// Mapped address.
    pub mapped: Option<Ipv4Addr>,
    /// The plan.
    pub plan: Option<PlanHash>,
    /// The images of the plan.
    pub images: Vec<ImageId>,
    /// Packages with versions.
    pub packages: Vec<String>,
    /// Modules that are switched on.
    pub modules: Vec<String>,
    /// Thresholds: name and value.
    pub thresholds: Vec<(String, String)>,
    /// Facts of the survey.
    pub facts: Vec<(String, String)>,
    /// The cluster or HA pair.
    pub group: Option<String>,
    /// What headquarters decided.
    pub approval: ApprovalView,
    /// What the check from inside found; `None` before it.
    pub checked: Option<Vec<String>>,
    /// What the probe found; `None` before it.
    pub probed: Option<Vec<String>>,
    /// What people should know of the probe although it is no fault (R94).
    pub findings: Vec<String>,
    /// Whether both were well.
    pub verified: bool,
    /// Whether the HTML report exists.
    pub has_report: bool,
    /// Frame bytes over the WAN.
    pub wan_bytes: u64,
    /// Frame bytes from inside the site.
    pub lan_bytes: u64,
    /// What happened at the station.
    pub history: Vec<HistoryLine>,
}

/// Everything that an HTML report shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionReport {
    /// The session.
    pub view: SessionView,
    /// What happened on the host, with all output (R85).
    pub install: InstallReport,
    /// Headquarters' newest probe of the mapped address (R94).
    pub probe: Option<SignedProbe>,
    /// Events of progress and output that were not kept.
    pub events_cut: u64,
}

impl StationMachine {
    /// All sessions in order of host and generation.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> + '_ {
        self.state.sessions.keys().filter_map(|id| self.session(*id))
    }

    /// One session.
    pub fn session(&self, id: SessionId) -> Option<SessionView> {
        let (session, host) = (self.state.sessions.get(&id)?, self.state.hosts.get(&id.node)?);
        let is_current = self.state.is_current(id);
        let plan = session.plan.as_ref();
        let place = match self.waits.get(&id.node).filter(|_| is_current) {
            Some(WaitReason::Slots { place, .. }) => Some(*place),
            _ => None,
        };
        Some(SessionView {
            session: id,
            host_name: host.host_name.clone(),
            machine_identifier: host.machine_identifier.clone(),
            is_current,
            stage: session.stage(host, &self.setup.policies),
            reason: self.reason(id, session, host),
            warnings: host.warnings.clone(),
            place,
            slot: session.slot,
            host_state: session.host_state.clone(),
            opened_at: session.opened_at,
            ended_at: session.end.as_ref().map(|end| end.at),
            inside: host.inside,
            mapped: mapped_of(session, host, is_current),
            plan: session.plan_hash(),
            images: plan.map(|plan| plan.images.clone()).unwrap_or_default(),
            packages: plan.map(|plan| plan.packages.clone()).unwrap_or_default(),
            modules: plan.map(|plan| plan.modules.clone()).unwrap_or_default(),
            thresholds: plan.map(|plan| plan.thresholds.clone()).unwrap_or_default(),
            facts: session.facts.facts.clone(),
            group: plan.and_then(|plan| plan.group.clone()),
            approval: approval_view(session),
            checked: session.checked.clone(),
            probed: session.probed.clone(),
            findings: session.probe.as_ref().map(|probe| probe.findings.clone()).unwrap_or_default(),
            verified: session.verified,
            has_report: session.html.is_some(),
            wan_bytes: session.bytes.0,
            lan_bytes: session.bytes.1,
            history: session.history.clone(),
        })
    }

    /// The events of a session that the host reported; kept for good (R85).
    pub fn session_events(&self, id: SessionId) -> &[ReportEvent] {
        self.state.sessions.get(&id).map_or(&[], |session| &session.events)
    }

    /// The HTML report of a session, once it is made.
    pub fn session_html(&self, id: SessionId) -> Option<&str> {
        self.state.sessions.get(&id)?.html.as_deref()
    }

    /// Everything that the HTML report of a session shows.
    pub fn session_report(&self, id: SessionId) -> Option<SessionReport> {
        let (session, view) = (self.state.sessions.get(&id)?, self.session(id)?);
        let (install, probe) = (InstallReport::of(&session.events), session.probe.clone());
        Some(SessionReport { view, install, probe, events_cut: session.events_cut })
    }

    /// The profile of a session as headquarters should hold it.
    pub fn profile(&self, id: SessionId) -> Option<HostProfile> {
        let (session, host) = (self.state.sessions.get(&id)?, self.state.hosts.get(&id.node)?);
        let plan = session.plan.as_ref();
        let is_current = self.state.is_current(id);
        Some(HostProfile {
            session: id,
            revision: session.profile_revision,
            host_name: host.host_name.clone(),
            machine_identifier: host.machine_identifier.clone(),
            stage: session.stage(host, &self.setup.policies),
            reason: self.reason(id, session, host),
            warnings: host.warnings.clone(),
            inside: host.inside,
            mapped: mapped_of(session, host, is_current),
            packages: plan.map(|plan| plan.packages.clone()).unwrap_or_default(),
            modules: plan.map(|plan| plan.modules.clone()).unwrap_or_default(),
            thresholds: plan.map(|plan| plan.thresholds.clone()).unwrap_or_default(),
            scrape: plan.map(|plan| plan.scrape.clone()).unwrap_or_default(),
            // What headquarters holds it keeps: the text is long, and travels once.
            report_html: session.html.clone().filter(|_| session.profile_durable < session.html_revision),
            wan_bytes: session.bytes.0,
            lan_bytes: session.bytes.1,
        })
    }

    fn reason(&self, id: SessionId, session: &Session, host: &Host) -> String {
        let is_current = self.state.is_current(id);
        if let Some(reason) = host.suspect.as_ref().filter(|_| is_current).or(session.attention.as_ref()) {
            return reason.clone();
        }
        if let Some(end) = &session.end {
            return if end.by.is_empty() { end.reason.clone() } else { format!("{} (by {})", end.reason, end.by) };
        }
        if let ApprovalState::Delayed { by, reason, .. } = &session.approval {
            return format!("delayed by {by}: {reason}");
        }
        let wait = self.waits.get(&id.node).filter(|_| is_current);
        if let Some(trouble) = self.router_trouble.as_ref().filter(|_| wait.is_none() && host.mapped.is_none())
            && session.is_approved()
            && session.installed
        {
            return trouble.clone();
        }
        wait.map(wait_text).unwrap_or_default()
    }
}

/// The mapped address belongs to the generation that is verified under it, and to the one that is being verified.
fn mapped_of(session: &Session, host: &Host, is_current: bool) -> Option<Ipv4Addr> {
    let serves =
        session.verified || (is_current && session.is_approved() && session.installed && session.end.is_none());
    host.mapped.filter(|_| serves)
}

fn approval_view(session: &Session) -> ApprovalView {
    match &session.approval {
        ApprovalState::Undecided => ApprovalView::Undecided { asked_at: session.asked_at },
        ApprovalState::Delayed { by, reason, until, .. } => {
            ApprovalView::Delayed { by: by.clone(), reason: reason.clone(), until: *until }
        }
        ApprovalState::Approved { by, at, document } => {
            ApprovalView::Approved { by: by.clone(), at: *at, document: *document }
        }
    }
}
