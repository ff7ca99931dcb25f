//! What follows from what is known: events, work for the runtime, directives, deadlines.
use std::collections::BTreeSet;

use branchline_protocol::{
    charter::UnverifiedAction,
    ids::{ImageId, NodeId, SessionId},
    machine::Deadline,
    session::{Directive, HostState, Order, Stage, WaitReason},
    time::Now,
};

use super::{
    machine::{Asked, Issued, StationMachine},
    orders::Surroundings,
    state::{Binding, Host, Session, SlotUse, StationEvent},
    words::StationOutput,
};

impl StationMachine {
    /// Brings everything up to date with the facts, then says what has changed.
    pub(super) fn advance(&mut self, now: Now) {
        self.wake(now);
        // An inside address is given up before another host's row is to lead there.
        let lost = |node: &NodeId| self.state.hosts.get(node).is_some_and(|host| host.taken_by.is_some());
        for node in self.dirty.iter().copied().filter(lost).collect::<Vec<_>>() {
            self.tell_addresses(node);
        }
        loop {
            while let Some(node) = self.dirty.pop_first() {
                self.settle(now, node);
            }
            if !std::mem::take(&mut self.queue_dirty) {
                break;
            }
            self.serve_queue(now);
        }
        self.report_site_if_due(now);
        while let Some(node) = self.reissue.pop_first() {
            self.issue(now, node);
        }
        for node in std::mem::take(&mut self.answer) {
            self.send_directive(now, node);
        }
        self.repeat_directives(now);
        if cfg!(debug_assertions) {
            self.assert_invariants();
        }
    }

    /// Marks what a deadline has come for.
    fn wake(&mut self, now: Now) {
        let due = |at: &Option<branchline_protocol::time::Monotonic>| at.is_some_and(|at| at <= now.monotonic);
        let again: Vec<SessionId> =
            self.asked.iter().filter(|(_, (_, retry))| due(retry)).map(|(session, _)| *session).collect();
        for session in again {
            self.asked.remove(&session);
            self.dirty.insert(session.node);
        }
        for (node, until) in &mut self.withdrawing {
            if until.is_some_and(|at| at <= now.monotonic) {
                *until = None;
                self.dirty.insert(*node);
            }
        }
    }

    /// Draws all conclusions about one host.
    fn settle(&mut self, now: Now, node: NodeId) {
        while let Some(event) = self.next_event(now, node) {
            if let StationEvent::AttentionRaised { session, reason, .. }
            | StationEvent::VerificationFailed { session, reason, .. } = &event
            {
                self.attention(Some(*session), reason.clone());
            }
            let revoked = matches!(event, StationEvent::Revoked { .. });
            self.journal(event);
            if revoked {
                self.withdrawing.remove(&node);
                self.emit(StationOutput::Revoke(node));
            }
        }
        self.dirty.remove(&node);
        self.ask_for_work(node);
        self.tell_addresses(node);
        self.watch_withdrawal(now, node);
        self.reissue.insert(node);
    }

    /// The next event that follows from the facts about a host, if any.
    fn next_event(&self, now: Now, node: NodeId) -> Option<StationEvent> {
        let host = self.state.hosts.get(&node)?;
        let (id, session) = self.state.current(node)?;
        let at = now.wall;
        if session.end.as_ref().is_some_and(|end| end.stage == Stage::Withdrawn) {
            return self.may_revoke(node, host, session).then_some(StationEvent::Revoked { at, node });
        }
        if session.is_half_reverted() && session.attention.is_none() {
            let reason = "not everything of the version before could be put back; the report says what".to_owned();
            return Some(StationEvent::AttentionRaised { at, session: id, reason });
        }
        if !session.is_live(host) {
            return None;
        }
        let ended = |stage, reason: String| StationEvent::Ended { at, session: id, stage, reason, by: String::new() };
        match &session.host_state {
            HostState::Failed { reason, rolled_back } if !session.installed => {
                let stage = if *rolled_back { Stage::RolledBack } else { Stage::Failed };
                return Some(ended(stage, reason.clone()));
            }
            HostState::Refused { reason } if !session.installed && self.answers_order(node) => {
                return Some(ended(Stage::Refused, format!("the host refuses: {reason}")));
            }
            _ => {}
        }
        self.progress_event(now, id, session)
            .or_else(|| self.check_event(now, id, session))
            .or_else(|| self.verdict_event(now, id, session, host))
    }

    /// Acceptance, staging, installation.
    fn progress_event(&self, now: Now, id: SessionId, session: &Session) -> Option<StationEvent> {
        let (at, plan) = (now.wall, session.plan.as_ref()?);
        let own = match &session.host_state {
            HostState::Accepted { plan }
            | HostState::Staged { plan }
            | HostState::Installing { plan }
            | HostState::Installed { plan, .. }
            | HostState::Checked { plan, .. }
            | HostState::Complete { plan } => *plan,
            _ => return None,
        };
        if own != plan.plan {
            return None;
        }
        if !session.accepted {
            return Some(StationEvent::Accepted { at, session: id });
        }
        if !session.staged && !matches!(session.host_state, HostState::Accepted { .. }) {
            return Some(StationEvent::Staged { at, session: id });
        }
        if session.installed || !session.begun {
            return None;
        }
        let HostState::Installed { images, .. } = &session.host_state else { return None };
        let (planned, found): (BTreeSet<&ImageId>, BTreeSet<&ImageId>) =
            (plan.images.iter().collect(), images.iter().collect());
        if planned == found {
            return Some(StationEvent::Installed { at, session: id });
        }
        let reason = "the host says that it installed other images than the plan names".to_owned();
        Some(StationEvent::AttentionRaised { at, session: id, reason })
    }

    fn check_event(&self, now: Now, id: SessionId, session: &Session) -> Option<StationEvent> {
        let HostState::Checked { plan, passed, faults } = &session.host_state else { return None };
        let fits = session.slot == Some(SlotUse::Verify) && session.plan_hash() == Some(*plan);
        if !fits || !self.answers_order(id.node) {
            return None;
        }
        let mut faults = faults.clone();
        if !passed && faults.is_empty() {
            faults.push("the host says that its check failed".to_owned());
        }
        Some(StationEvent::Checked { at: now.wall, session: id, faults })
    }

    /// What follows from check and probe together, and from the report.
    fn verdict_event(&self, now: Now, id: SessionId, session: &Session, host: &Host) -> Option<StationEvent> {
        let at = now.wall;
        if session.verified {
            let mapped = host.mapped?;
            let reason = format!("verified and monitored at {mapped}");
            let (stage, by) = (Stage::Complete, String::new());
            return session.html.as_ref().map(|_| StationEvent::Ended { at, session: id, stage, reason, by });
        }
        let none = Vec::new();
        // A plan that declares no port, of a host that listens nowhere, has nothing that could be probed.
        let nothing_to_probe = session.plan.as_ref().is_some_and(|plan| !plan.can_be_probed());
        let probed = session.probed.as_ref().or(nothing_to_probe.then_some(&none));
        let faults: Vec<String> = session.checked.iter().chain(probed).flatten().cloned().collect();
        if !faults.is_empty() {
            let faults = faults.join("; ");
            // What was verified once and is not reached at another address, or after a stranger had it, is no bad installation.
            if self.setup.policies.on_unverified == UnverifiedAction::RollBack && !session.was_verified {
                let what = if session.is_update { "the version before is put back" } else { "the agent is removed" };
                let reason = format!("{faults}; {what}, as the charter wants it of what cannot be verified");
                let (stage, by) = (Stage::RolledBack, String::new());
                return Some(StationEvent::Ended { at, session: id, stage, reason, by });
            }
            let reason = format!("{faults}; the mapping was taken away, retry the session once it is mended");
            return Some(StationEvent::VerificationFailed { at, session: id, reason });
        }
        (session.checked.is_some() && probed.is_some()).then_some(StationEvent::Verified { at, session: id })
    }

    /// Whether the host has seen the order that is in force, so that its state answers it. An order to prepare is no
    /// longer in force once the host has surveyed itself again: that it refuses it and the new survey may come in one
    /// report.
    pub(super) fn answers_order(&self, node: NodeId) -> bool {
        let seen = self.contacts.get(&node).map_or(0, |contact| contact.directive_seen);
        let known = self.state.current(node).and_then(|(_, session)| session.descriptor);
        self.issued.get(&node).is_some_and(|issued| {
            let outdated =
                matches!(issued.directive.order, Order::Prepare { descriptor, .. } if known != Some(descriptor));
            issued.directive.session.generation == self.state.hosts.get(&node).map_or(0, |host| host.generation)
                && seen >= issued.directive.revision
                && !matches!(issued.directive.order, Order::Wait(_))
                && !outdated
        })
    }

    /// Neither a host that says nothing nor a router that cannot be written keeps a withdrawn host a member (R98).
    fn may_revoke(&self, node: NodeId, host: &Host, session: &Session) -> bool {
        let confirmed = matches!(session.host_state, HostState::Withdrawn { uninstalled: true });
        let patience_over = self.withdrawing.get(&node).is_some_and(Option::is_none);
        !host.revoked && (patience_over || confirmed && host.binding == Binding::None)
    }

    /// Waits for the host of an ended session to confirm that its agent is stopped or gone, but not for ever.
    fn watch_withdrawal(&mut self, now: Now, node: NodeId) {
        let waits = self.state.current(node).zip(self.state.hosts.get(&node)).is_some_and(|((_, session), host)| {
            let withdrawn = session.end.as_ref().is_some_and(|end| end.stage == Stage::Withdrawn);
            match withdrawn {
                true => !host.revoked,
                false => session.html.is_none() && session.owes_confirmation(host, &self.setup.policies),
            }
        });
        if waits {
            let until = now.monotonic.after(self.setup.timing.withdraw_patience);
            self.withdrawing.entry(node).or_insert(Some(until));
        } else {
            self.withdrawing.remove(&node);
        }
    }

    /// Has the runtime read a survey, make a plan or render a report; once in each run, and again where it failed.
    fn ask_for_work(&mut self, node: NodeId) {
        let Some((session, found)) = self.state.current(node) else { return };
        let Some(host) = self.state.hosts.get(&node) else { return };
        let asked = match (found.survey, found.descriptor, &found.plan) {
            _ if found.is_without_success() => match found.html {
                None if self.is_settled(node, found, host) => Asked::MakeReport,
                _ => return,
            },
            _ if !found.is_live(host) => return,
            (Some(survey), None, _) if !found.survey_again => Asked::OpenSurvey(survey),
            (_, Some(descriptor), None) => Asked::MakePlan(descriptor),
            _ if found.verified && found.html.is_none() && host.mapped.is_some() => Asked::MakeReport,
            _ => return,
        };
        if self.asked.get(&session).is_some_and(|(before, _)| *before == asked) {
            return;
        }
        self.asked.insert(session, (asked, None));
        self.emit(match asked {
            Asked::OpenSurvey(survey) => StationOutput::OpenSurvey { session, survey },
            Asked::MakePlan(descriptor) => StationOutput::MakePlan { session, descriptor },
            Asked::MakeReport => StationOutput::MakeReport { session },
        });
    }

    /// Whether the report of an ended session can say all that will be said: the host has confirmed the last order, or
    /// that is not waited for any more.
    fn is_settled(&self, node: NodeId, session: &Session, host: &Host) -> bool {
        let patience_over = self.withdrawing.get(&node).is_some_and(Option::is_none);
        patience_over || !session.owes_confirmation(host, &self.setup.policies)
    }

    /// Keeps the machine of addresses informed.
    fn tell_addresses(&mut self, node: NodeId) {
        let Some(host) = self.state.hosts.get(&node) else { return };
        let (binding, place) = (host.binding, host.taken_by.is_none().then_some(host.inside));
        let machine_identifier = host.machine_identifier.clone();
        let said = self.bindings_said.insert(node, (binding, place));
        if binding == Binding::None {
            self.bindings_said.remove(&node);
        }
        match (binding, place, said) {
            (Binding::Bound, place, Some((Binding::Bound, before))) if place == before => {}
            (Binding::Bound, None, _) => self.emit(StationOutput::InsideLost { node }),
            (Binding::Bound, Some(inside), Some((Binding::Bound, Some(_)))) => {
                self.emit(StationOutput::InsideChanged { node, inside });
            }
            (Binding::Bound, Some(inside), _) => {
                self.emit(StationOutput::Bind { node, machine_identifier, inside });
            }
            (Binding::Releasing, _, Some((Binding::Releasing, _))) | (Binding::None, ..) => {}
            (Binding::Releasing, ..) => self.emit(StationOutput::Release { node }),
        }
    }

    /// Renews the directive of a host if what it says has changed.
    fn issue(&mut self, now: Now, node: NodeId) {
        let Some(host) = self.state.hosts.get(&node) else { return };
        let Some((session, found)) = self.state.current(node) else { return };
        let around = Surroundings {
            policies: &self.setup.policies,
            wait: self.waits.get(&node),
            router_trouble: self.router_trouble.as_deref(),
            addresses_short: self.addresses_short,
        };
        let (stage, order) = (found.stage(host, around.policies), found.order(host, around));
        let epoch = self.setup.epoch;
        let before = self.issued.get(&node).map(|issued| &issued.directive);
        let unchanged = before.is_some_and(|before| {
            (before.session, before.epoch, before.stage) == (session, epoch, stage) && before.order == order
        });
        if unchanged || host.revoked {
            return;
        }
        // Above all that an earlier run sent: see `recover`.
        let revision = before.map_or(0, |before| before.revision + 1).max(self.sequence.0 << 16);
        let moved_on = before.is_some_and(|before| before.stage != stage) && stage != Stage::Attention;
        let events_durable = found.events_taken;
        let directive = Directive { session, epoch, revision, stage, order, events_durable };
        if moved_on {
            self.attention_over(node);
        }
        let backoff = self.setup.timing.retry_first;
        self.issued.insert(node, Issued { directive, repeat_at: now.monotonic, backoff });
        self.send_directive(now, node);
        self.answer.remove(&node);
    }

    fn send_directive(&mut self, now: Now, node: NodeId) {
        let taken = self.state.current(node).map_or(0, |(_, session)| session.events_taken);
        let Some(issued) = self.issued.get_mut(&node) else { return };
        issued.directive.events_durable = taken;
        issued.repeat_at = now.monotonic.after(issued.backoff);
        let directive = Box::new(issued.directive.clone());
        self.emit(StationOutput::SendDirective(node, directive));
    }

    /// Whether the host's acknowledgement of its directive is waited for. What is over is told when the host asks.
    fn is_awaited(&self, node: NodeId, issued: &Issued) -> bool {
        let seen = self.contacts.get(&node).map_or(0, |contact| contact.directive_seen);
        let over = matches!(issued.directive.order, Order::End { .. });
        seen < issued.directive.revision && !over && !self.state.revoked.contains(&node)
    }

    fn repeat_directives(&mut self, now: Now) {
        let due: Vec<NodeId> = self
            .issued
            .iter()
            .filter(|(node, issued)| issued.repeat_at <= now.monotonic && self.is_awaited(**node, issued))
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            if let Some(issued) = self.issued.get_mut(&node) {
                issued.backoff = (issued.backoff * 2).min(self.setup.timing.retry_longest);
            }
            self.send_directive(now, node);
        }
        self.watch_slots(now);
    }

    /// Tells people of hosts that hold a slot and are silent.
    fn watch_slots(&mut self, now: Now) {
        let silence = self.setup.timing.slot_silence;
        // Whoever was not heard since the station started may have died before that.
        let heard_at = |node| self.contacts.get(node).map_or(self.started_at, |contact| contact.heard_at);
        let holders = self.state.sessions.iter().filter(|(_, session)| session.slot.is_some());
        let silent: Vec<(SessionId, String)> = holders
            .filter(|(id, _)| heard_at(&id.node).after(silence) <= now.monotonic)
            .map(|(id, _)| {
                (*id, self.state.hosts.get(&id.node).map_or_else(String::new, |host| host.host_name.clone()))
            })
            .collect();
        for (session, name) in silent {
            let text = format!(
                "{name} holds a slot and is silent for {} s; cancel the session if the host does not come back",
                silence.as_secs()
            );
            self.attention(Some(session), text);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Deadline> {
        let repeat = self
            .issued
            .iter()
            .filter(|(node, issued)| self.is_awaited(**node, issued))
            .map(|(_, issued)| issued.repeat_at)
            .min()
            .map(|at| Deadline { at, reason: "repeat a directive" });
        let work = self.asked.values().filter_map(|(_, retry)| *retry).min();
        let work = work.map(|at| Deadline { at, reason: "fetch a survey again" });
        let patience = self.withdrawing.values().flatten().min();
        let patience = patience.map(|at| Deadline { at: *at, reason: "go on without a silent host" });
        let site = Deadline { at: self.site_report_at, reason: "report to headquarters" };
        Deadline::earlier(Deadline::earlier(repeat, work), Deadline::earlier(patience, Some(site)))
    }

    /// Why a session waits for a slot, where it does.
    pub fn wait_of(&self, node: NodeId) -> Option<&WaitReason> {
        self.waits.get(&node)
    }
}
