//! The dialogue with headquarters (R30, R90-R96) and the commands of people (R35, R97, R98).
use std::collections::BTreeSet;

use branchline_protocol::{
    catalogue::UndeclaredRule,
    charter::{Approval, Decision, ProbeResult},
    ids::{DocumentHash, Epoch, ImageId, NodeId, SessionId},
    limits::{SITE_REPORT_PROFILES_MAX, SITE_REPORT_REQUESTS_MAX},
    session::{HostReport, HostState, Stage},
    time::Now,
    wire::site::{ApprovalRequest, ProbeRequest},
};

use super::{
    machine::StationMachine,
    probing::judge,
    state::{ApprovalState, Session, StationEvent},
    words::{HeadquartersWord, SiteReportDraft, StationOutput},
};

/// Whether an approval names exactly what this session has installed, or will install (R96).
///
/// # Errors
/// What it does not bind, in words.
pub fn check_binding(approval: &Approval, id: SessionId, session: &Session, epoch: Epoch) -> Result<(), String> {
    let plan = session.plan.as_ref().ok_or("no plan is made yet")?;
    let (bound, planned): (BTreeSet<&ImageId>, BTreeSet<&ImageId>) =
        (approval.images.iter().collect(), plan.images.iter().collect());
    if approval.session != id {
        return Err(format!("it is for session {}", approval.session));
    }
    if approval.plan != plan.plan {
        return Err(format!(
            "it is for plan {}, but plan {} is in force",
            approval.plan.0.short(),
            plan.plan.0.short()
        ));
    }
    if bound != planned {
        return Err("it names other images than the plan".to_owned());
    }
    if approval.epoch != epoch {
        return Err(format!("it is for epoch {}, but epoch {epoch} is in force", approval.epoch));
    }
    Ok(())
}

impl StationMachine {
    pub(super) fn on_headquarters(&mut self, now: Now, word: HeadquartersWord) {
        for (document, approval) in word.approvals {
            self.take_approval(now, document, approval);
        }
        for (attempt, document, probe) in word.probes {
            self.take_probe(now, attempt, document, probe, word.undeclared_ports);
        }
        for (session, revision) in word.profiles_durable {
            let news = self
                .state
                .sessions
                .get(&session)
                .is_some_and(|found| found.profile_durable < revision && revision <= found.profile_revision);
            if news {
                self.journal(StationEvent::ProfileDurable { session, revision });
            }
        }
        for session in word.withdraw {
            self.on_withdraw(now, session, "headquarters".to_owned());
        }
        // What did not fit into the last report follows at once.
        let more = self.profiles_due().next().is_some();
        self.site_dirty |= more;
    }

    fn take_approval(&mut self, now: Now, document: DocumentHash, approval: Approval) {
        let id = approval.session;
        let Some(session) = self.state.sessions.get(&id) else { return };
        let Some(host) = self.state.hosts.get(&id.node) else { return };
        let decided = match &session.approval {
            ApprovalState::Approved { .. } => true,
            ApprovalState::Delayed { document: known, .. } => *known == document,
            ApprovalState::Undecided => false,
        };
        if decided || session.end.is_some() {
            return;
        }
        if let Err(why) = check_binding(&approval, id, session, self.setup.epoch) {
            let text = format!("a decision of {} was not accepted: {why}", approval.decided_by);
            return self.attention(Some(id), text);
        }
        if !self.state.is_current(id) || !session.wants_approval(host, &self.setup.policies) {
            return;
        }
        let (at, by) = (now.wall, approval.decided_by);
        match approval.decision {
            Decision::Approve => self.journal(StationEvent::Approved { at, session: id, document, by }),
            Decision::Deny { reason } => self.end(now, id, Stage::Denied, reason, by),
            // A delay that is over was asked about again already.
            Decision::Delay { until: Some(until), .. } if until <= now.wall => {}
            Decision::Delay { reason, until } => {
                self.journal(StationEvent::Delayed { at, session: id, document, by, reason, until });
            }
        }
    }

    fn take_probe(&mut self, now: Now, attempt: u32, document: DocumentHash, probe: ProbeResult, rule: UndeclaredRule) {
        let id = probe.session;
        let Some(session) = self.state.sessions.get(&id) else { return };
        let Some(host) = self.state.hosts.get(&id.node) else { return };
        let Some(plan) = &session.plan else { return };
        let fits = self.state.is_current(id)
            && session.wants_probe(host)
            && session.attempt == attempt
            && plan.plan == probe.plan
            && host.mapped == Some(probe.mapped);
        if !fits {
            return;
        }
        let (faults, findings) = judge(plan, host.inside, &probe, rule);
        for finding in &findings {
            self.attention(Some(id), finding.clone());
        }
        self.journal(StationEvent::Probed { at: now.wall, session: id, document, probe, faults, findings });
    }

    /// The approvals that are waited for (R90), oldest session first.
    pub fn pending_approvals(&self) -> impl Iterator<Item = ApprovalRequest> + '_ {
        self.state.hosts.iter().filter_map(|(node, host)| {
            let id = SessionId { node: *node, generation: host.generation };
            let session = self.state.sessions.get(&id)?;
            let plan = session.plan.as_ref().filter(|_| session.wants_approval(host, &self.setup.policies))?;
            Some(ApprovalRequest {
                session: id,
                host_name: host.host_name.clone(),
                images: plan.images.clone(),
                plan: plan.plan,
                epoch: self.setup.epoch,
                packages: plan.packages.clone(),
                facts: session.facts.facts.clone(),
                asked_at: session.asked_at.unwrap_or_default(),
            })
        })
    }

    fn pending_probes(&self) -> impl Iterator<Item = ProbeRequest> + '_ {
        self.state.hosts.iter().filter_map(|(node, host)| {
            let id = SessionId { node: *node, generation: host.generation };
            let session = self.state.sessions.get(&id)?;
            let plan = session.plan.as_ref().filter(|plan| session.wants_probe(host) && plan.can_be_probed())?;
            let (ports, undeclared, mapped) = (plan.probes.clone(), plan.undeclared.ports.clone(), host.mapped?);
            Some(ProbeRequest { session: id, plan: plan.plan, mapped, ports, undeclared, attempt: session.attempt })
        })
    }

    fn profiles_due(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.state
            .sessions
            .iter()
            .filter(|(_, session)| session.profile_revision > session.profile_durable)
            .map(|(id, _)| *id)
    }

    pub(super) fn report_site_if_due(&mut self, now: Now) {
        let timing = self.setup.timing;
        if std::mem::take(&mut self.site_dirty) {
            let earliest = self.site_reported_at.map_or(now.monotonic, |at| at.after(timing.site_report_shortest));
            self.site_report_at = self.site_report_at.min(earliest.max(now.monotonic));
        }
        if now.monotonic < self.site_report_at {
            return;
        }
        self.expire_delays(now);
        self.note_asked(now);
        let draft = SiteReportDraft {
            approvals: self.pending_approvals().take(SITE_REPORT_REQUESTS_MAX).collect(),
            probes: self.pending_probes().take(SITE_REPORT_REQUESTS_MAX).collect(),
            profiles: self.profiles_due().take(SITE_REPORT_PROFILES_MAX).filter_map(|id| self.profile(id)).collect(),
            ..SiteReportDraft::default()
        };
        let waits = !(draft.approvals.is_empty() && draft.probes.is_empty() && draft.profiles.is_empty());
        let interval = if waits { timing.site_report_waiting } else { timing.site_report_idle };
        self.site_reported_at = Some(now.monotonic);
        self.site_report_at = now.monotonic.after(interval);
        self.emit(StationOutput::SendSiteReport(Box::new(draft)));
    }

    /// A delay that is over leads to a new question, never to an approval (R91).
    fn expire_delays(&mut self, now: Now) {
        let over = |session: &Session| matches!(session.approval, ApprovalState::Delayed { until: Some(until), .. } if until <= now.wall);
        let sessions: Vec<SessionId> =
            self.state.sessions.iter().filter(|(_, session)| over(session)).map(|(id, _)| *id).collect();
        for session in sessions {
            self.journal(StationEvent::DelayExpired { at: now.wall, session });
        }
    }

    fn note_asked(&mut self, now: Now) {
        let asked: Vec<SessionId> = self
            .pending_approvals()
            .take(SITE_REPORT_REQUESTS_MAX)
            .map(|request| request.session)
            .filter(|id| self.state.sessions.get(id).is_some_and(|session| session.asked_at.is_none()))
            .collect();
        for session in asked {
            self.journal(StationEvent::ApprovalAsked { at: now.wall, session });
        }
        // The stage that hosts see has changed.
        self.reissue.extend(std::mem::take(&mut self.dirty));
    }

    pub(super) fn on_cancel(&mut self, now: Now, session: SessionId, by: String) {
        let live = self.state.sessions.get(&session).is_some_and(|found| found.end.is_none());
        if live && self.state.is_current(session) {
            self.end(now, session, Stage::Cancelled, "cancelled".to_owned(), by);
        }
    }

    pub(super) fn on_retry(&mut self, now: Now, session: SessionId, by: String) {
        let Some(found) = self.state.sessions.get(&session).filter(|_| self.state.is_current(session)) else { return };
        let host = self.state.hosts.get(&session.node);
        let suspect = host.is_some_and(|host| host.suspect.is_some());
        let warned = host.is_some_and(|host| !host.warnings.is_empty());
        if found.attention.is_some() || suspect {
            self.asked.remove(&session);
            self.contacts.remove(&session.node);
            self.journal(StationEvent::AttentionCleared { at: now.wall, session, by: by.clone() });
        } else if found.end.as_ref().is_some_and(|end| !matches!(end.stage, Stage::Complete | Stage::Withdrawn)) {
            self.on_new_generation(now, session.node, by.clone());
        }
        if warned {
            self.journal(StationEvent::WarningsCleared { at: now.wall, node: session.node, by });
        }
    }

    pub(super) fn on_new_generation(&mut self, now: Now, node: NodeId, by: String) {
        let Some((id, session)) = self.state.current(node) else { return };
        let Some(host) = self.state.hosts.get(&node) else { return };
        match session.end.as_ref().map(|end| end.stage) {
            None => {
                let text = "a new generation begins only once the present one is over; cancel it first".to_owned();
                return self.attention(Some(id), text);
            }
            Some(Stage::Withdrawn) => {
                return self.attention(Some(id), "a withdrawn host comes back by joining anew".to_owned());
            }
            Some(_) => {}
        }
        if let Some(text) = self.reverting(node) {
            return self.attention(Some(id), text);
        }
        let next = SessionId { node, generation: id.generation + 1 };
        let report = HostReport {
            session: next,
            revision: 0,
            machine_identifier: host.machine_identifier.clone(),
            host_name: host.host_name.clone(),
            inside: host.inside,
            state: HostState::Joined,
            survey: None,
            directive_seen: 0,
            events: Vec::new(),
        };
        self.open(now, next, &report, by);
    }

    pub(super) fn on_withdraw(&mut self, now: Now, session: SessionId, by: String) {
        if !self.state.sessions.contains_key(&session) {
            return;
        }
        let Some((current, found)) = self.state.current(session.node) else { return };
        if found.end.as_ref().is_none_or(|end| end.stage != Stage::Withdrawn) {
            self.end(now, current, Stage::Withdrawn, "withdrawn".to_owned(), by);
        }
    }
}
