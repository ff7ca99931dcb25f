//! How an event changes what the station knows. Total and pure; the machine has checked what it journals.
use branchline_protocol::{
    ids::{NodeId, SessionId},
    limits::{HOST_WARNINGS_MAX, SESSION_EVENTS_MAX},
    machine::Sequence,
    report::{EventBody, ReportEvent},
    session::{HostState, Stage},
    time::UnixSeconds,
};

use super::state::{
    ApprovalState, Binding, End, HistoryLine, Host, Member, Session, SignedProbe, SlotUse, StationEvent, StationState,
    Taker, TokenRecord,
};

impl Session {
    pub(super) fn new(opened_at: UnixSeconds, arrival: Sequence, is_update: bool) -> Self {
        Self {
            opened_at,
            arrival,
            priority: 0,
            is_update,
            report_revision: 0,
            host_state: HostState::Joined,
            survey: None,
            survey_again: false,
            descriptor: None,
            facts: Default::default(),
            plan: None,
            accepted: false,
            staged: false,
            slot: None,
            begun: false,
            installed: false,
            asked_at: None,
            approval: ApprovalState::Undecided,
            attempt: 0,
            checked: None,
            probed: None,
            probe: None,
            verified: false,
            was_verified: false,
            html: None,
            html_revision: 0,
            attention: None,
            end: None,
            events: Vec::new(),
            events_taken: 0,
            events_cut: 0,
            bytes: (0, 0),
            history: Vec::new(),
            profile_revision: arrival.0,
            profile_durable: 0,
        }
    }

    fn take_events(&mut self, events: &[ReportEvent]) {
        for event in events {
            self.events_taken = event.number;
            if let EventBody::PackComplete { wan_bytes, lan_bytes, .. } = event.body {
                self.bytes.0 = self.bytes.0.saturating_add(wan_bytes);
                self.bytes.1 = self.bytes.1.saturating_add(lan_bytes);
            }
            if self.events.len() < SESSION_EVENTS_MAX || event.body.is_terminal() {
                self.events.push(event.clone());
            } else {
                self.events_cut += 1;
            }
        }
    }
}

impl StationState {
    /// Folds one event that has the place `sequence` in the journal.
    pub fn apply(&mut self, sequence: Sequence, event: &StationEvent) {
        match event {
            StationEvent::EpochEntered { epoch, .. } => self.enter_epoch(*epoch),
            StationEvent::TokenCreated { token } => {
                self.tokens.insert(token.identifier, TokenRecord { token: token.clone(), used: 0 });
            }
            StationEvent::TokenUsed { at, identifier, node, machine_identifier, host_name, serial } => {
                if let Some(record) = self.tokens.get_mut(identifier) {
                    record.used += 1;
                }
                self.last_serial = self.last_serial.max(*serial);
                let member = Member {
                    machine_identifier: machine_identifier.clone(),
                    host_name: host_name.clone(),
                    joined_at: *at,
                    serial: *serial,
                    token: *identifier,
                };
                self.members.insert(*node, member);
            }
            StationEvent::Renewed { node, serial } => {
                self.last_serial = self.last_serial.max(*serial);
                if let Some(member) = self.members.get_mut(node) {
                    member.serial = *serial;
                }
            }
            StationEvent::Opened { at, session, host_name, machine_identifier, inside, .. } => {
                self.open(sequence, *at, *session, (host_name, machine_identifier, *inside));
            }
            StationEvent::Moved { node, inside, .. } => self.move_inside(sequence, *node, *inside),
            StationEvent::InsideTaken { node, by, .. } => self.lose_inside(sequence, *node, Taker::Member(*by)),
            StationEvent::InsideAnswered { node, link, .. } => {
                self.lose_inside(sequence, *node, Taker::Machine(*link));
            }
            StationEvent::LinkLearnt { node, link } => {
                if let Some(host) = self.hosts.get_mut(node) {
                    host.link = Some(*link);
                }
            }
            StationEvent::Mapped { node, mapped, .. } => self.map(sequence, *node, *mapped),
            StationEvent::Unmapped { node, .. } => {
                if let Some(host) = self.hosts.get_mut(node)
                    && host.binding == Binding::Releasing
                {
                    host.binding = Binding::None;
                }
            }
            StationEvent::Suspected { node, reason, .. } => {
                self.release(sequence, *node);
                if let Some(host) = self.hosts.get_mut(node) {
                    host.suspect = Some(reason.clone());
                }
            }
            StationEvent::Warned { node, text, .. } => {
                if let Some(host) = self.hosts.get_mut(node)
                    && host.warnings.len() < HOST_WARNINGS_MAX
                {
                    host.warnings.push(text.clone());
                }
            }
            StationEvent::WarningsCleared { node, .. } => {
                if let Some(host) = self.hosts.get_mut(node) {
                    host.warnings.clear();
                }
            }
            StationEvent::Revoked { node, .. } => {
                self.members.remove(node);
                self.revoked.insert(*node);
                if let Some(host) = self.hosts.get_mut(node) {
                    host.revoked = true;
                }
            }
            StationEvent::ProfileDurable { session, revision } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.profile_durable = session.profile_durable.max(*revision);
                }
            }
            StationEvent::AttentionCleared { session, .. } => self.clear_attention(*session),
            StationEvent::Reported { session, state: HostState::Withdrawn { .. }, .. } => {
                if let Some(host) = self.hosts.get_mut(&session.node) {
                    host.keeps_version = false;
                }
            }
            StationEvent::VerificationFailed { session, .. } => self.release(sequence, session.node),
            StationEvent::Ended { session, stage, .. } => self.end_on_host(sequence, *session, *stage),
            _ => {}
        }
        self.apply_to_session(event);
        self.note(sequence, event);
    }

    /// What was decided under an older epoch stays; what was only asked is asked anew.
    fn enter_epoch(&mut self, epoch: branchline_protocol::ids::Epoch) {
        if epoch != self.epoch {
            for session in self.sessions.values_mut() {
                if !matches!(session.approval, ApprovalState::Approved { .. }) {
                    session.asked_at = None;
                    session.approval = ApprovalState::Undecided;
                }
            }
        }
        self.epoch = epoch;
    }

    fn open(
        &mut self,
        sequence: Sequence,
        at: UnixSeconds,
        session: SessionId,
        (host_name, machine_identifier, inside): (&str, &str, std::net::Ipv4Addr),
    ) {
        let host = self.hosts.entry(session.node).or_insert_with(|| Host {
            machine_identifier: machine_identifier.to_owned(),
            host_name: host_name.to_owned(),
            inside,
            generation: session.generation,
            binding: Binding::None,
            mapped: None,
            keeps_version: false,
            link: None,
            taken_by: None,
            suspect: None,
            warnings: Vec::new(),
            revoked: false,
        });
        host.generation = session.generation;
        let is_update = host.binding == Binding::Bound || host.keeps_version;
        self.sessions.insert(session, Session::new(at, sequence, is_update));
        // A person may begin a generation of a host that is off: who is at its address meanwhile stays known.
        if self.hosts.get(&session.node).is_some_and(|host| host.inside != inside) {
            self.move_inside(sequence, session.node, inside);
        }
    }

    /// The mapped address leads to where the host no longer is: it is nobody's target until the router's row leads to
    /// the new place and headquarters has probed it there, also while the router cannot be written (R116).
    fn move_inside(&mut self, sequence: Sequence, node: NodeId, inside: std::net::Ipv4Addr) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.taken_by = None;
        if std::mem::replace(&mut host.inside, inside) != inside {
            self.lead_nowhere(sequence, node);
        }
    }

    /// Who answers at the inside address is not the host: it is nobody's target before it has reported again (R116).
    fn lose_inside(&mut self, sequence: Sequence, node: NodeId, by: Taker) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.taken_by = Some(by);
            self.lead_nowhere(sequence, node);
        }
    }

    fn lead_nowhere(&mut self, sequence: Sequence, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.mapped.is_some()) else { return };
        host.mapped = None;
        let session = SessionId { node, generation: host.generation };
        self.touch_all(sequence, node);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.slot.take_if(|slot| *slot == SlotUse::Verify);
            session.verify_again();
        }
    }

    fn map(&mut self, sequence: Sequence, node: NodeId, mapped: std::net::Ipv4Addr) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let before = host.mapped.replace(mapped);
        let session = SessionId { node, generation: host.generation };
        self.touch_all(sequence, node);
        let Some(session) = self.sessions.get_mut(&session) else { return };
        let probed_at = session.probe.as_ref().map(|probe| probe.result.mapped);
        // Who cleared a suspicion forgot the probe with it: what was verified may have been so at another address.
        let unknown = before.is_none() && probed_at.is_none() && session.verified;
        if unknown || before.or(probed_at).is_some_and(|before| before != mapped) {
            session.verify_again();
        }
    }

    /// The host's mapping goes, and with it that of all of its generations.
    fn release(&mut self, sequence: Sequence, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if host.binding == Binding::Bound {
            host.binding = Binding::Releasing;
        }
        host.mapped = None;
        self.touch_all(sequence, node);
    }

    fn touch_all(&mut self, sequence: Sequence, node: NodeId) {
        for (_, session) in self.sessions_of(node) {
            session.profile_revision = sequence.0;
        }
    }

    fn sessions_of(&mut self, node: NodeId) -> impl Iterator<Item = (&SessionId, &mut Session)> {
        let first = SessionId { node, generation: 0 };
        self.sessions.range_mut(first..=SessionId { node, generation: u32::MAX })
    }

    /// An ended update leaves the mapping to the version before it (R97); every other end takes it away.
    fn end_on_host(&mut self, sequence: Sequence, id: SessionId, stage: Stage) {
        let session = self.sessions.get(&id);
        let is_update = session.is_some_and(|session| session.is_update);
        // An update that was installed and not verified has shown that what is behind the mapping is not as it should be.
        let is_unverified = stage == Stage::RolledBack && session.is_some_and(|session| session.installed);
        let keeps = stage == Stage::Complete || (is_update && stage != Stage::Withdrawn && !is_unverified);
        if !keeps {
            self.release(sequence, id.node);
        }
        if let Some(host) = self.hosts.get_mut(&id.node).filter(|_| is_unverified && is_update) {
            host.keeps_version = true;
        }
        if stage == Stage::Withdrawn {
            for (_, session) in self.sessions_of(id.node) {
                if let Some(end) = session.end.as_mut().filter(|end| end.stage == Stage::Complete) {
                    end.stage = Stage::Withdrawn;
                }
            }
        }
    }

    /// The host may be mapped again if it was approved; a check that failed is made anew.
    fn clear_attention(&mut self, id: SessionId) {
        let Some(host) = self.hosts.get_mut(&id.node) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        host.suspect = None;
        let approved = matches!(session.approval, ApprovalState::Approved { .. });
        let serves = session.end.as_ref().is_none_or(|end| end.stage == Stage::Complete);
        if approved && session.installed && serves {
            host.binding = Binding::Bound;
        }
        if session.descriptor.is_none() {
            session.survey_again = true;
        }
        session.attention = None;
        session.checked = None;
        (session.probed, session.probe) = (None, None);
    }

    fn apply_to_session(&mut self, event: &StationEvent) {
        let Some(id) = event.session() else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match event {
            StationEvent::Reported { revision, state, survey, events, .. } => {
                session.report_revision = *revision;
                session.host_state = state.clone();
                if session.survey != *survey && !session.accepted {
                    session.survey = *survey;
                    session.descriptor = None;
                    session.plan = None;
                    session.survey_again = false;
                }
                session.take_events(events);
            }
            StationEvent::SurveyOpened { descriptor, facts, .. } => {
                session.descriptor = Some(*descriptor);
                session.facts = facts.clone();
            }
            StationEvent::Planned { summary, .. } => session.plan = Some(summary.clone()),
            StationEvent::Accepted { .. } => session.accepted = true,
            StationEvent::Staged { .. } => session.staged = true,
            StationEvent::SlotTaken { slot, .. } => {
                session.slot = Some(*slot);
                match slot {
                    SlotUse::Install => session.begun = true,
                    SlotUse::Verify => session.begin_attempt(),
                }
            }
            StationEvent::Installed { .. } => {
                session.installed = true;
                session.slot = None;
                if matches!(session.approval, ApprovalState::Approved { .. })
                    && let Some(host) = self.hosts.get_mut(&id.node)
                {
                    host.binding = Binding::Bound;
                }
            }
            StationEvent::ApprovalAsked { at, .. } => session.asked_at = Some(*at),
            StationEvent::Approved { at, document, by, .. } => {
                session.approval = ApprovalState::Approved { document: *document, by: by.clone(), at: *at };
                if session.installed
                    && let Some(host) = self.hosts.get_mut(&id.node)
                {
                    host.binding = Binding::Bound;
                }
            }
            StationEvent::Delayed { document, by, reason, until, .. } => {
                let (document, by, reason, until) = (*document, by.clone(), reason.clone(), *until);
                session.approval = ApprovalState::Delayed { document, by, reason, until };
            }
            StationEvent::DelayExpired { .. } => {
                session.approval = ApprovalState::Undecided;
                session.asked_at = None;
            }
            StationEvent::Checked { faults, .. } => {
                session.checked = Some(faults.clone());
                session.slot = None;
            }
            StationEvent::Probed { document, probe, faults, findings, .. } => {
                session.probed = Some(faults.clone());
                let (result, findings) = (probe.clone(), findings.clone());
                session.probe = Some(SignedProbe { document: *document, result, findings });
            }
            StationEvent::Verified { .. } => (session.verified, session.was_verified) = (true, true),
            StationEvent::VerificationFailed { reason, .. } | StationEvent::AttentionRaised { reason, .. } => {
                session.attention = Some(reason.clone());
                session.slot = None;
            }
            StationEvent::ReportMade { html, .. } => session.html = Some(html.clone()),
            StationEvent::Ended { at, stage, reason, by, .. } => {
                let (stage, reason, by, at) = (*stage, reason.clone(), by.clone(), *at);
                session.end = Some(End { stage, reason, by, at });
                session.slot = None;
                session.attention = None;
            }
            StationEvent::Prioritised { priority, .. } => session.priority = *priority,
            _ => {}
        }
    }

    /// Adds what people should read later, and marks the profile as changed.
    fn note(&mut self, sequence: Sequence, event: &StationEvent) {
        let session = match (event.session(), event.host()) {
            (Some(id), _) => Some(id),
            (None, Some(node)) => self.hosts.get(&node).map(|host| SessionId { node, generation: host.generation }),
            (None, None) => None,
        };
        let Some(session) = session.and_then(|id| self.sessions.get_mut(&id)) else { return };
        match event {
            // Progress alone is no news for headquarters.
            StationEvent::ProfileDurable { .. } | StationEvent::LinkLearnt { .. } => return,
            StationEvent::Reported { events, .. } if !events.iter().any(|event| event.body.is_terminal()) => return,
            _ => {}
        }
        session.profile_revision = sequence.0;
        if let StationEvent::ReportMade { .. } = event {
            session.html_revision = sequence.0;
        }
        if let Some((at, text)) = event.history_line() {
            session.history.push(HistoryLine { at, text });
        }
    }
}

impl StationEvent {
    /// The session that it belongs to, where it names one.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Opened { session, .. }
            | Self::Reported { session, .. }
            | Self::SurveyOpened { session, .. }
            | Self::Planned { session, .. }
            | Self::Accepted { session, .. }
            | Self::Staged { session, .. }
            | Self::SlotTaken { session, .. }
            | Self::Installed { session, .. }
            | Self::ApprovalAsked { session, .. }
            | Self::Approved { session, .. }
            | Self::Delayed { session, .. }
            | Self::DelayExpired { session, .. }
            | Self::Checked { session, .. }
            | Self::Probed { session, .. }
            | Self::Verified { session, .. }
            | Self::VerificationFailed { session, .. }
            | Self::ReportMade { session, .. }
            | Self::AttentionRaised { session, .. }
            | Self::AttentionCleared { session, .. }
            | Self::Ended { session, .. }
            | Self::Prioritised { session, .. }
            | Self::ProfileDurable { session, .. } => Some(*session),
            Self::EpochEntered { .. }
            | Self::TokenCreated { .. }
            | Self::TokenUsed { .. }
            | Self::Renewed { .. }
            | Self::Moved { .. }
            | Self::InsideTaken { .. }
            | Self::InsideAnswered { .. }
            | Self::LinkLearnt { .. }
            | Self::Mapped { .. }
            | Self::Unmapped { .. }
            | Self::Suspected { .. }
            | Self::Warned { .. }
            | Self::WarningsCleared { .. }
            | Self::Revoked { .. } => None,
        }
    }

    /// The host whose present session it concerns, where it names a host and no session.
    pub(super) fn host(&self) -> Option<NodeId> {
        match self {
            Self::Moved { node, .. }
            | Self::InsideTaken { node, .. }
            | Self::InsideAnswered { node, .. }
            | Self::LinkLearnt { node, .. }
            | Self::Mapped { node, .. }
            | Self::Unmapped { node, .. }
            | Self::Suspected { node, .. }
            | Self::Warned { node, .. }
            | Self::WarningsCleared { node, .. }
            | Self::Revoked { node, .. } => Some(*node),
            _ => None,
        }
    }
}
