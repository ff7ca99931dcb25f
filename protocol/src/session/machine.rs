//! The machine of a host's session: takes inputs, journals what they change, and leaves the rest to `transitions`.
use std::collections::VecDeque;
use std::time::Duration;

use super::{
    buffer::{pieces, text_bytes},
    dialogue::{Directive, HostReport, HostState, Order},
    state::{HostEvent, HostInput, HostOutput, HostSession, HostSetup, InstallerEvent},
    text::order_text,
    transitions::Work,
};
use crate::{
    ids::{ImageId, PackId, PlanHash, SessionId},
    limits::{
        DIALOGUE_RETRY_SECONDS, DIALOGUE_RETRY_SECONDS_MAX, HOST_WORK_RETRY_SECONDS, PLAN_PACKS_MAX,
        REPORT_KEEPALIVE_SECONDS,
    },
    machine::{Deadline, Journaled, Machine, Record, Sequence, Sequenced},
    report::EventBody,
    time::{Monotonic, Now},
};

const RETRY_FIRST: Duration = Duration::from_secs(DIALOGUE_RETRY_SECONDS);
const RETRY_LONGEST: Duration = Duration::from_secs(DIALOGUE_RETRY_SECONDS_MAX);
const KEEPALIVE: Duration = Duration::from_secs(REPORT_KEEPALIVE_SECONDS);
const WORK_RETRY: Duration = Duration::from_secs(HOST_WORK_RETRY_SECONDS);
/// News that come in quick succession travel together.
const REPORT_SHORTEST: Duration = Duration::from_millis(250);

/// The host's side of a session (R50-R52, R62, R83-R85). Its runtime carries out one kind of work at a time.
pub struct HostMachine {
    pub(super) setup: HostSetup,
    pub(super) session: HostSession,
    /// What the runtime was asked to do and has not answered.
    under_way: Option<Work>,
    /// Work that failed for a passing reason, and from when on it is tried again.
    failed: Option<Work>,
    work_from: Monotonic,
    /// The packs that were last asked for.
    fetching: Vec<PackId>,
    /// The revision that was last sent, and when.
    sent: Option<(u64, Monotonic)>,
    next_report: Monotonic,
    backoff: Duration,
    shown: String,
    sequence: Sequence,
    records: VecDeque<Record<HostEvent>>,
    outputs: VecDeque<Sequenced<HostOutput>>,
}

impl HostMachine {
    /// What is known of the session, for the host's own command line and tests.
    pub fn session(&self) -> &HostSession {
        &self.session
    }

    /// The name of the session.
    pub fn session_id(&self) -> SessionId {
        SessionId { node: self.setup.node, generation: self.session.generation }
    }

    /// What the host's operator was told last (R83).
    pub fn shown(&self) -> &str {
        &self.shown
    }

    fn journal(&mut self, event: HostEvent) {
        self.sequence = self.sequence.next();
        self.session.apply(&event);
        self.records.push_back(Record { sequence: self.sequence, event });
    }

    fn emit(&mut self, output: HostOutput) {
        self.outputs.push_back(Sequenced { after: self.sequence, output });
    }

    fn show(&mut self, text: String) {
        if self.shown != text {
            self.shown.clone_from(&text);
            self.emit(HostOutput::ShowOperator(text));
        }
    }

    fn on_directive(&mut self, directive: Directive) {
        let Directive { session, epoch, revision, stage, order, events_durable } = directive;
        if session.node != self.setup.node || session.generation < self.session.generation {
            return;
        }
        let begins = session.generation > self.session.generation;
        let seen = self.session.standing.as_ref().map(|standing| (standing.epoch, standing.revision));
        if let Some((seen_epoch, _)) = seen.filter(|(seen_epoch, _)| epoch < *seen_epoch) {
            return self.show(format!("An order of epoch {epoch} was ignored: epoch {seen_epoch} is in force."));
        }
        if !begins && events_durable > 0 {
            self.acknowledge(events_durable);
        }
        if seen.is_some_and(|seen| (epoch, revision) <= seen) {
            return;
        }
        if let Order::Prepare { packs, .. } = &order
            && packs.len() > PLAN_PACKS_MAX
        {
            return self
                .show(format!("An order with {} packs was ignored; {PLAN_PACKS_MAX} are allowed.", packs.len()));
        }
        let text = order_text(&order);
        self.journal(HostEvent::Directed { generation: session.generation, epoch, revision, stage, order });
        self.show(text);
    }

    fn acknowledge(&mut self, number: u64) {
        let number = number.min(self.session.events.last_number());
        if self.session.events.numbers().next().is_some_and(|first| first <= number) {
            self.journal(HostEvent::Acknowledged { number });
            self.backoff = RETRY_FIRST;
            if !self.session.events.is_empty() {
                self.sent = None;
            }
        }
    }

    fn order(&self) -> Option<&Order> {
        self.session.standing.as_ref().map(|standing| &standing.order)
    }

    fn on_plan_computed(&mut self, now: Now, plan: PlanHash, packs: Vec<PackId>) {
        let Some(Order::Prepare { plan: ordered, packs: ordered_packs, .. }) = self.order() else { return };
        let (ordered, mut ordered_packs, mut own_packs) = (*ordered, ordered_packs.clone(), packs.clone());
        ordered_packs.sort_unstable();
        own_packs.sort_unstable();
        let at = now.wall;
        if plan != ordered {
            let reason = format!(
                "the station ordered plan {}, but this host computes plan {} from the signed catalogue, the signed \
                 policy and its own survey",
                ordered.0.short(),
                plan.0.short()
            );
            self.journal(HostEvent::Refused { at, reason });
        } else if ordered_packs != own_packs {
            let reason = format!("the station ordered other packs than those of plan {}", plan.0.short());
            self.journal(HostEvent::Refused { at, reason });
        } else {
            self.journal(HostEvent::Agreed { at, plan, packs });
        }
    }

    fn on_installer(&mut self, now: Now, event: InstallerEvent) {
        let HostState::Installing { plan: under_way } = self.session.state else { return };
        let at = now.wall;
        match event {
            InstallerEvent::Event { number, body } => self.on_progress(now, number, body),
            InstallerEvent::Done { plan, images } if plan == under_way => {
                self.journal(HostEvent::Installed { at, plan, images });
            }
            InstallerEvent::Failed { plan, reason, rolled_back } if plan == under_way => {
                self.journal(HostEvent::InstallFailed { at, reason, rolled_back });
            }
            InstallerEvent::Refused { plan, reason } if plan == under_way => {
                self.journal(HostEvent::Refused { at, reason: format!("the installer refuses: {reason}") });
            }
            InstallerEvent::Done { .. } | InstallerEvent::Failed { .. } | InstallerEvent::Refused { .. } => {}
        }
    }

    /// Progress and output; told again after a restart, it is taken once.
    fn on_progress(&mut self, now: Now, number: u64, body: EventBody) {
        if body.is_terminal() || number <= self.session.installer_seen {
            return;
        }
        match body {
            EventBody::Output { step, text } => {
                for piece in pieces(&text) {
                    self.note(now, number, EventBody::Output { step, text: piece.to_owned() });
                }
            }
            body => self.note(now, number, body),
        }
    }

    fn note(&mut self, now: Now, number: u64, body: EventBody) {
        if self.session.events.is_full() {
            self.journal(HostEvent::Cut { number, bytes: text_bytes(&body) as u64 });
        } else {
            self.journal(HostEvent::Noted { at: now.wall, number, body });
        }
    }

    fn on_work_failed(&mut self, now: Now, reason: String) {
        if let Some(work) = self.under_way.take() {
            self.failed = Some(work);
            let text: String = reason.chars().take(2000).collect();
            self.note(now, 0, EventBody::Note(format!("Tried again in {} s: {text}", WORK_RETRY.as_secs())));
            self.work_from = now.monotonic.after(WORK_RETRY);
        }
    }

    fn on_inside(&mut self, now: Now, inside: std::net::Ipv4Addr) {
        if self.session.moved_to != Some(inside) {
            self.journal(HostEvent::Moved { at: now.wall, inside });
        }
    }

    /// Begins, replaces or ends work until what is under way is what the state asks for.
    fn pursue(&mut self, now: Now) {
        while let Some(work) = self.session.work() {
            let again = self.failed.as_ref() == Some(&work);
            if self.under_way.as_ref() == Some(&work) || (again && now.monotonic < self.work_from) {
                break;
            }
            if again {
                self.failed = None;
                self.fetching.clear();
            }
            if !self.begin(now, work) {
                break;
            }
        }
        if self.session.work().is_none() {
            self.under_way = None;
        }
        self.adjust_fetching();
    }

    /// Begins `work`; true where that changed the state at once, so that other work may follow.
    fn begin(&mut self, now: Now, work: Work) -> bool {
        let at = now.wall;
        let output = match &work {
            Work::Refuse(reason) => {
                let reason = reason.clone();
                self.journal(HostEvent::Refused { at, reason });
                return true;
            }
            Work::Begin(plan) => {
                self.journal(HostEvent::Began { at, plan: *plan });
                return true;
            }
            Work::Stop | Work::Uninstall if self.has_nothing_installed() => {
                self.journal(HostEvent::Withdrawn { at, uninstalled: work == Work::Uninstall });
                return true;
            }
            Work::Plan(plan) => match self.plan_output(*plan) {
                Ok(output) => Some(output),
                Err(reason) => {
                    self.journal(HostEvent::Refused { at, reason });
                    return true;
                }
            },
            Work::Survey => Some(HostOutput::RunSurvey),
            Work::Fetch(_) => None,
            Work::Install(plan) => Some(HostOutput::Install { plan: *plan }),
            Work::Verify(plan) => Some(HostOutput::Verify { plan: *plan }),
            Work::Save(_) | Work::Keep => self.save_output(),
            Work::Reverted => {
                let installed = self.session.installed.as_ref().map(|plan| (plan.plan, plan.images.clone()));
                self.on_reverted(now, installed, true);
                return true;
            }
            Work::Revert(plan) => Some(HostOutput::Revert { plan: *plan }),
            Work::Stop => Some(HostOutput::Stop),
            Work::Uninstall => Some(HostOutput::Uninstall),
        };
        self.under_way = Some(work);
        if let Some(output) = output {
            self.emit(output);
        }
        false
    }

    fn on_reverted(&mut self, now: Now, installed: Option<(PlanHash, Vec<ImageId>)>, rolled_back: bool) {
        if let Some(Order::Revert { reason }) = self.order() {
            let reason = reason.clone();
            self.journal(HostEvent::Reverted { at: now.wall, reason, installed, rolled_back });
        }
    }

    fn has_nothing_installed(&self) -> bool {
        self.session.installed.is_none() && !matches!(self.session.state, HostState::Failed { rolled_back: false, .. })
    }

    fn plan_output(&self, plan: PlanHash) -> Result<HostOutput, String> {
        let Some(Order::Prepare { catalogue, policy, descriptor, .. }) = self.order() else {
            return Err("no plan is ordered".to_owned());
        };
        match self.session.survey {
            Some((_, own)) if own == *descriptor => {
                Ok(HostOutput::ComputePlan { plan, catalogue: *catalogue, policy: *policy, descriptor: own })
            }
            Some((_, own)) => Err(format!(
                "the plan follows from descriptor {}, but this host's newest is {}",
                descriptor.short(),
                own.short()
            )),
            None => Err("this host has not surveyed itself yet".to_owned()),
        }
    }

    fn save_output(&self) -> Option<HostOutput> {
        let (html, mapped) = match self.order()? {
            Order::Complete { report_html, mapped, .. } => (report_html.clone(), Some(*mapped)),
            Order::Keep { report_html, .. } => (report_html.clone(), None),
            _ => return None,
        };
        Some(HostOutput::SaveReport { generation: self.session.generation, html, mapped })
    }

    fn adjust_fetching(&mut self) {
        let wanted = match self.session.work() {
            Some(Work::Fetch(_)) => self.session.missing_packs(),
            _ => Vec::new(),
        };
        if wanted != self.fetching {
            self.fetching.clone_from(&wanted);
            self.emit(HostOutput::FetchPacks(wanted));
        }
    }

    /// Whether the station may not know yet what the last report said.
    fn is_unanswered(&self) -> bool {
        self.session.standing.is_none() || !self.session.events.is_empty()
    }

    fn report_if_due(&mut self, now: Now) {
        let news = self.sent.is_none_or(|(revision, _)| revision != self.session.revision);
        if news {
            let earliest = self.sent.map_or(now.monotonic, |(_, at)| at.after(REPORT_SHORTEST));
            self.next_report = self.next_report.min(earliest);
        }
        if now.monotonic < self.next_report {
            return;
        }
        if news {
            self.backoff = RETRY_FIRST;
        }
        let wait = if self.is_unanswered() { self.backoff } else { KEEPALIVE };
        self.backoff = (self.backoff * 2).min(RETRY_LONGEST);
        self.next_report = now.monotonic.after(wait);
        self.sent = Some((self.session.revision, now.monotonic));
        let report = self.report();
        self.emit(HostOutput::SendReport(Box::new(report)));
    }

    /// The report as it would be sent now.
    pub fn report(&self) -> HostReport {
        HostReport {
            session: self.session_id(),
            revision: self.session.revision,
            machine_identifier: self.setup.machine_identifier.clone(),
            host_name: self.setup.host_name.clone(),
            inside: self.session.moved_to.unwrap_or(self.setup.inside),
            state: self.session.state.clone(),
            survey: self.session.survey.map(|(sealed, _)| sealed),
            directive_seen: self.session.standing.as_ref().map_or(0, |standing| standing.revision),
            events: self.session.events.head(),
        }
    }

    fn advance(&mut self, now: Now) {
        self.pursue(now);
        self.report_if_due(now);
        if cfg!(debug_assertions) {
            self.assert_invariants();
        }
    }
}

impl Machine for HostMachine {
    type Input = HostInput;
    type Output = HostOutput;

    fn handle(&mut self, now: Now, input: HostInput) {
        let at = now.wall;
        let asked = self.under_way.as_ref();
        match input {
            HostInput::Start => {
                self.sent = None;
                self.backoff = RETRY_FIRST;
            }
            HostInput::Directive(directive) => self.on_directive(*directive),
            HostInput::Surveyed { sealed, descriptor, changes } if asked == Some(&Work::Survey) => {
                self.journal(HostEvent::Surveyed { at, sealed, descriptor });
                for text in changes.iter().flat_map(|text| pieces(text)) {
                    self.note(now, 0, EventBody::Note(text.to_owned()));
                }
            }
            HostInput::PlanComputed { plan, packs } if matches!(asked, Some(Work::Plan(_))) => {
                self.on_plan_computed(now, plan, packs);
            }
            HostInput::PlanRefused { reason } if matches!(asked, Some(Work::Plan(_))) => {
                self.journal(HostEvent::Refused { at, reason });
            }
            HostInput::PackComplete { pack, wan_bytes, lan_bytes } => {
                if self.session.packs.get(&pack) == Some(&false) {
                    self.journal(HostEvent::Gathered { at, pack, wan_bytes, lan_bytes });
                }
            }
            HostInput::Installer(event) => self.on_installer(now, event),
            HostInput::CheckDone { plan, checks } if asked == Some(&Work::Verify(plan)) => {
                self.journal(HostEvent::Checked { at, plan, checks });
            }
            HostInput::ReportSaved => match asked {
                Some(Work::Save(plan)) => {
                    let plan = *plan;
                    self.journal(HostEvent::Completed { at, plan });
                }
                Some(Work::Keep) => self.journal(HostEvent::ReportKept { at }),
                _ => {}
            },
            HostInput::Withdrawn { uninstalled } if matches!(asked, Some(Work::Stop | Work::Uninstall)) => {
                self.journal(HostEvent::Withdrawn { at, uninstalled });
            }
            HostInput::Reverted { installed, rolled_back } if matches!(asked, Some(Work::Revert(_))) => {
                self.on_reverted(now, installed, rolled_back);
            }
            HostInput::WorkFailed { reason } => self.on_work_failed(now, reason),
            HostInput::InsideChanged(inside) => self.on_inside(now, inside),
            HostInput::CorruptFrame { peer, pack } => self.note(now, 0, EventBody::CorruptFrame { peer, pack }),
            // Answers to work that is not wanted any more.
            HostInput::Surveyed { .. }
            | HostInput::PlanComputed { .. }
            | HostInput::PlanRefused { .. }
            | HostInput::CheckDone { .. }
            | HostInput::Withdrawn { .. }
            | HostInput::Reverted { .. } => {}
        }
        self.advance(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.advance(now);
    }

    fn poll_output(&mut self) -> Option<Sequenced<HostOutput>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let report = Deadline { at: self.next_report, reason: "report to the station" };
        let waits = self.session.work().is_some_and(|work| self.under_way.as_ref() != Some(&work));
        let work = waits.then_some(Deadline { at: self.work_from, reason: "try the work again" });
        Deadline::earlier(Some(report), work)
    }

    fn check_invariants(&self) {
        self.assert_invariants();
    }
}

impl Journaled for HostMachine {
    type Event = HostEvent;
    type Setup = HostSetup;

    fn recover(setup: HostSetup, now: Now, events: impl IntoIterator<Item = Record<HostEvent>>) -> Self {
        let inside = setup.inside;
        let mut machine = Self {
            setup,
            session: HostSession::new(),
            under_way: None,
            failed: None,
            work_from: now.monotonic,
            fetching: Vec::new(),
            sent: None,
            next_report: now.monotonic,
            backoff: RETRY_FIRST,
            shown: String::new(),
            sequence: Sequence::default(),
            records: VecDeque::new(),
            outputs: VecDeque::new(),
        };
        for record in events {
            machine.session.apply(&record.event);
            machine.sequence = record.sequence;
        }
        // A report states the address, and a change of it must have a revision of its own (R99).
        machine.on_inside(now, inside);
        machine.advance(now);
        machine
    }

    fn poll_record(&mut self) -> Option<Record<HostEvent>> {
        self.records.pop_front()
    }
}
