//! What hosts say, and what the runtime found out about them (R50, R52, R61, R63, R99, R116).
use std::{net::Ipv4Addr, time::Duration};

use branchline_protocol::{
    ids::{Hash, NodeId, SessionId, SurveyHash},
    limits::{
        EVENT_TEXT_BYTES_MAX, HOST_WARNINGS_MAX, MACHINE_IDENTIFIER_BYTES_MAX, PLAN_PACKS_MAX, REFUSAL_TEXT_BYTES_MAX,
        REPORT_EVENTS_MAX, REPORT_HTML_BYTES_MAX,
    },
    refusal::{Refusal, RefusalKind},
    report::{EventBody, ReportEvent},
    session::{HostReport, HostState, Stage},
    time::Now,
};

use super::{
    machine::StationMachine,
    state::{Binding, Host, Session, StationEvent},
    words::{PlanSummary, StationOutput, SurveyFacts},
};

/// A report that is older than this when it arrives was sent now: requests on the control plane end after 20 s.
const LATE_REPORT: Duration = Duration::from_secs(30);
/// Longest name of a host, in bytes (RFC 1035).
const HOST_NAME_BYTES_MAX: usize = 255;

impl StationMachine {
    pub(super) fn on_report(&mut self, now: Now, node: NodeId, report: HostReport) {
        if let Err(refusal) = self.judge_report(now, node, &report) {
            if refusal.kind == RefusalKind::DuplicateIdentity {
                let session = self.state.current(node).map(|(id, _)| id);
                self.attention(session, refusal.reason.clone());
            }
            return self.emit(StationOutput::RefuseReport(node, refusal));
        }
        if self.state.hosts.get(&node).is_none_or(|host| host.generation < report.session.generation) {
            self.supersede(now, &report);
            self.open(now, report.session, &report, "the host".to_owned());
        }
        self.answer.insert(node);
        let is_current = self.state.is_current(report.session);
        let newest = self.state.sessions.get(&report.session).map_or(0, |session| session.report_revision);
        let contact = self.contacts.entry(node).or_default();
        contact.heard_at = now.monotonic;
        self.strangers.remove(&node);
        let newest = newest.max(contact.revision);
        if !is_current || report.revision < newest {
            return;
        }
        contact.revision = report.revision;
        contact.directive_seen = report.directive_seen;
        self.take_inside(now, node, report.inside);
        self.take_report(now, report);
        self.dirty.insert(node);
    }

    fn judge_report(&mut self, now: Now, node: NodeId, report: &HostReport) -> Result<(), Refusal> {
        let refuse = |kind, reason: String| Err(Refusal::new(kind, reason));
        if report.session.node != node || report.session.generation == 0 {
            return refuse(RefusalKind::Malformed, "the report is not of the session of its sender".to_owned());
        }
        check_bounds(report)?;
        if self.state.revoked.contains(&node) {
            return refuse(RefusalKind::NotAMember, format!("{node} was withdrawn; join anew with a token"));
        }
        let Some(host) = self.state.hosts.get(&node) else {
            let most = self.setup.limits.members_max as usize;
            return if self.state.hosts.len() - self.state.revoked.len().min(self.state.hosts.len()) >= most {
                refuse(RefusalKind::Busy, format!("site {} has its {most} members already", self.setup.site))
            } else {
                Ok(())
            };
        };
        if host.machine_identifier != report.machine_identifier {
            return refuse(
                RefusalKind::DuplicateIdentity,
                format!(
                    "{} is machine {} and now also machine {} at {}; one of them is a copy: give it an identity of its \
                     own",
                    host.host_name, host.machine_identifier, report.machine_identifier, report.inside
                ),
            );
        }
        if host.suspect.is_none()
            && let Some(reason) = self.duplicate(now, node, report)
        {
            self.journal(StationEvent::Suspected { at: now.wall, node, reason });
        }
        match self.state.hosts.get(&node).and_then(|host| host.suspect.clone()) {
            Some(reason) => refuse(RefusalKind::DuplicateIdentity, reason),
            None => Ok(()),
        }
    }

    /// Why the report shows that two machines have this identity, where it does: a machine numbers its reports, so one
    /// number comes from one address; an address that was left does not come back at once; and who has left it says
    /// nothing from there any more, once messages that were under way have arrived (R99).
    fn duplicate(&self, now: Now, node: NodeId, report: &HostReport) -> Option<String> {
        let (host, contact) = (self.state.hosts.get(&node)?, self.contacts.get(&node)?);
        if report.inside == host.inside || report.session.generation != host.generation {
            return None;
        }
        let same_number = report.revision == contact.revision;
        let left = contact.former_inside.filter(|(address, _)| *address == report.inside);
        let since_left = left.map(|(_, left_at)| now.monotonic.since(left_at));
        let comes_back = report.revision > contact.revision
            && since_left.is_some_and(|since| since < self.setup.timing.duplicate_window);
        let lingers = report.revision < contact.revision && since_left.is_some_and(|since| since > LATE_REPORT);
        (same_number || comes_back || lingers).then(|| {
            format!(
                "{} answers at {} and at {}: two machines have one identity; switch one off or give it an identity of \
                 its own, then retry the session",
                host.host_name, host.inside, report.inside
            )
        })
    }

    /// A host that is in a later generation than the station knows of: the one under way is over.
    fn supersede(&mut self, now: Now, report: &HostReport) {
        let live = self.state.current(report.session.node).filter(|(_, session)| session.end.is_none());
        if let Some((session, _)) = live {
            let reason = format!("the host is in generation {} already", report.session.generation);
            self.end(now, session, Stage::Cancelled, reason, String::new());
        }
    }

    pub(super) fn open(&mut self, now: Now, session: SessionId, report: &HostReport, by: String) {
        self.contacts.remove(&session.node);
        self.journal(StationEvent::Opened {
            at: now.wall,
            session,
            host_name: report.host_name.clone(),
            machine_identifier: report.machine_identifier.clone(),
            inside: report.inside,
            by,
        });
        self.take_from_others(now, session.node, report.inside);
    }

    fn take_inside(&mut self, now: Now, node: NodeId, inside: Ipv4Addr) {
        let Some(host) = self.state.hosts.get(&node) else { return };
        let (former, is_back) = (host.inside, host.taken_by.is_some());
        if former != inside {
            self.contacts.entry(node).or_default().former_inside = Some((former, now.monotonic));
            self.journal(StationEvent::Moved { at: now.wall, node, inside });
            self.take_from_others(now, node, inside);
        } else if is_back {
            self.journal(StationEvent::Moved { at: now.wall, node, inside });
        }
    }

    /// A mapped host that is off cannot say that its address is another's now; that other one does (R116). Where both go
    /// on to report from one address, the row is for the one that is mapped there first, and people are told.
    fn take_from_others(&mut self, now: Now, by: NodeId, inside: Ipv4Addr) {
        let has_lost = |(node, host): &(&NodeId, &Host)| {
            **node != by && host.inside == inside && host.binding == Binding::Bound && host.taken_by.is_none()
        };
        let losers: Vec<NodeId> = self.state.hosts.iter().filter(has_lost).map(|(node, _)| *node).collect();
        for node in losers {
            self.journal(StationEvent::InsideTaken { at: now.wall, node, by });
        }
    }

    fn take_report(&mut self, now: Now, report: HostReport) {
        let Some(session) = self.state.sessions.get(&report.session) else { return };
        let mut next = session.events_taken + 1;
        let mut events: Vec<ReportEvent> = Vec::new();
        for event in report.events {
            if event.number == next {
                events.push(event);
                next += 1;
            }
        }
        if events.is_empty() && session.host_state == report.state && session.survey == report.survey {
            return;
        }
        self.journal(StationEvent::Reported {
            at: now.wall,
            session: report.session,
            revision: report.revision,
            state: report.state,
            survey: report.survey,
            events,
        });
    }

    pub(super) fn on_survey_opened(
        &mut self,
        now: Now,
        session: SessionId,
        survey: SurveyHash,
        descriptor: Hash,
        facts: SurveyFacts,
    ) {
        let wanted = self.state.sessions.get(&session).is_some_and(|found| {
            self.state.is_current(session)
                && found.end.is_none()
                && found.survey == Some(survey)
                && found.descriptor.is_none()
        });
        if wanted {
            self.journal(StationEvent::SurveyOpened { at: now.wall, session, survey, descriptor, facts });
        }
    }

    pub(super) fn on_survey_failed(
        &mut self,
        now: Now,
        session: SessionId,
        survey: SurveyHash,
        why: String,
        passing: bool,
    ) {
        let Some(found) = self.state.sessions.get(&session) else { return };
        if found.survey != Some(survey) || found.descriptor.is_some() || found.end.is_some() {
            return;
        }
        if passing {
            let again = now.monotonic.after(self.setup.timing.retry_longest);
            if let Some((_, retry)) = self.asked.get_mut(&session) {
                *retry = Some(again);
            }
            return self.attention(Some(session), format!("the survey cannot be fetched yet: {why}"));
        }
        let reason = format!("the survey cannot be read: {}; retry the session to have a new one taken", cut(&why));
        self.raise(now, session, reason);
    }

    /// The session, where a plan that follows from `descriptor` is still wanted for it.
    fn wants_plan(&self, session: SessionId, descriptor: Hash) -> bool {
        self.state.sessions.get(&session).is_some_and(|found| {
            self.state.is_current(session)
                && found.end.is_none()
                && found.descriptor == Some(descriptor)
                && found.plan.is_none()
        })
    }

    pub(super) fn on_plan_made(&mut self, now: Now, session: SessionId, descriptor: Hash, summary: PlanSummary) {
        if !self.wants_plan(session, descriptor) {
            return;
        }
        if summary.packs.len() > PLAN_PACKS_MAX {
            let reason = format!("the plan has {} packs; {PLAN_PACKS_MAX} are allowed", summary.packs.len());
            return self.end(now, session, Stage::Refused, reason, String::new());
        }
        self.journal(StationEvent::Planned { at: now.wall, session, summary });
    }

    pub(super) fn on_plan_conflict(&mut self, now: Now, session: SessionId, descriptor: Hash, explanation: String) {
        if self.wants_plan(session, descriptor) {
            self.end(now, session, Stage::Refused, cut(&explanation), String::new());
        }
    }

    pub(super) fn on_mapped(&mut self, now: Now, node: NodeId, inside: Ipv4Addr, mapped: Ipv4Addr) {
        let news = self.state.hosts.get(&node).is_some_and(|host| {
            let is_there = host.inside == inside && host.taken_by.is_none();
            host.binding == Binding::Bound && is_there && host.mapped != Some(mapped)
        });
        if news {
            self.journal(StationEvent::Mapped { at: now.wall, node, mapped });
            // At another address everything is verified anew, and the report is made anew as well.
            let current = self.state.current(node).filter(|(_, session)| !session.verified).map(|(id, _)| id);
            current.map(|session| self.asked.remove(&session));
        }
    }

    pub(super) fn on_mapping_failed(&mut self, now: Now, node: NodeId, why: String) {
        let waits = self.state.hosts.get(&node).is_some_and(|host| host.binding == Binding::Bound);
        if let Some((session, _)) = self.state.current(node).filter(|_| waits) {
            self.raise(now, session, format!("no mapping is made: {}", cut(&why)));
        }
    }

    pub(super) fn on_unmapped(&mut self, now: Now, node: NodeId) {
        if self.state.hosts.get(&node).is_some_and(|host| host.binding == Binding::Releasing) {
            self.journal(StationEvent::Unmapped { at: now.wall, node });
        }
    }

    /// Another machine showed a host's identity and was turned away: the host itself goes on, and people are told.
    pub(super) fn on_copy_seen(&mut self, now: Now, node: NodeId, text: &str) {
        let text = cut(text);
        let news = self
            .state
            .hosts
            .get(&node)
            .is_some_and(|host| !host.warnings.contains(&text) && host.warnings.len() < HOST_WARNINGS_MAX);
        if news {
            self.journal(StationEvent::Warned { at: now.wall, node, text });
        }
    }

    pub(super) fn on_report_made(&mut self, now: Now, session: SessionId, html: String) {
        let wanted = |found: &Session| found.html.is_none() && (found.verified || found.is_without_success());
        let wanted = self.state.sessions.get(&session).is_some_and(wanted);
        if !wanted {
            return;
        }
        if html.len() > REPORT_HTML_BYTES_MAX {
            let reason = format!("the report has {} bytes; {REPORT_HTML_BYTES_MAX} are allowed", html.len());
            return self.raise(now, session, reason);
        }
        self.journal(StationEvent::ReportMade { at: now.wall, session, html });
    }

    /// Holds a session for a person (R95).
    pub(super) fn raise(&mut self, now: Now, session: SessionId, reason: String) {
        self.attention(Some(session), reason.clone());
        self.journal(StationEvent::AttentionRaised { at: now.wall, session, reason });
    }

    pub(super) fn end(&mut self, now: Now, session: SessionId, stage: Stage, reason: String, by: String) {
        self.journal(StationEvent::Ended { at: now.wall, session, stage, reason, by });
    }
}

fn cut(text: &str) -> String {
    Refusal::new(RefusalKind::Internal, text).reason
}

fn check_bounds(report: &HostReport) -> Result<(), Refusal> {
    let text_of = |body: &EventBody| match body {
        EventBody::Output { text, .. } | EventBody::Note(text) | EventBody::Unknown(text) => text.len(),
        EventBody::Refused(reason) | EventBody::InstallFailed { reason, .. } => reason.len(),
        EventBody::StepStarted { title, .. } => title.len(),
        EventBody::Checked { checks } => checks.len(),
        _ => 0,
    };
    let state_fits = match &report.state {
        HostState::Installed { images, .. } => images.len() <= PLAN_PACKS_MAX,
        HostState::Refused { reason } | HostState::Failed { reason, .. } => reason.len() <= 4 * REFUSAL_TEXT_BYTES_MAX,
        HostState::Checked { faults, .. } => faults.len() <= PLAN_PACKS_MAX,
        _ => true,
    };
    let fits = state_fits
        && report.events.len() <= REPORT_EVENTS_MAX
        && report.events.iter().all(|event| text_of(&event.body) <= EVENT_TEXT_BYTES_MAX)
        && (1..=MACHINE_IDENTIFIER_BYTES_MAX).contains(&report.machine_identifier.len())
        && report.host_name.len() <= HOST_NAME_BYTES_MAX;
    if fits { Ok(()) } else { Err(Refusal::new(RefusalKind::TooLarge, "a part of the report is longer than allowed")) }
}
