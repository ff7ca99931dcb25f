//! The station's machine: dispatch of inputs, the journal, and what is only known while it runs.
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use branchline_protocol::{
    ids::{Hash, NodeId, SessionId, SurveyHash},
    machine::{Deadline, Journaled, Machine, Record, Sequence, Sequenced},
    session::{Directive, WaitReason},
    time::{Monotonic, Now},
};

use super::{
    links::LinkAddress,
    state::{Binding, StationEvent, StationState},
    words::{StationInput, StationOutput, StationSetup},
};

/// Texts for people that were said already; beyond it they may be said again.
const SAID_MAX: usize = 1024;

/// The directive in force for a host, as far as it was sent in this run.
pub(super) struct Issued {
    pub directive: Directive,
    pub repeat_at: Monotonic,
    pub backoff: std::time::Duration,
}

/// What was heard of a host in this run.
#[derive(Default)]
pub(super) struct Contact {
    pub revision: u64,
    pub directive_seen: u64,
    pub heard_at: Monotonic,
    pub former_inside: Option<(std::net::Ipv4Addr, Monotonic)>,
    /// The link address that was seen at its inside address, and since when, until the host proves that it is its own.
    pub link: Option<(LinkAddress, Monotonic)>,
}

/// Work that the runtime was asked to do for a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    OpenSurvey(SurveyHash),
    MakePlan(Hash),
    MakeReport,
}

/// One station (R20, R21). See the module's description.
pub struct StationMachine {
    pub(super) setup: StationSetup,
    pub(super) state: StationState,
    pub(super) standing_down: Option<String>,
    pub(super) issued: BTreeMap<NodeId, Issued>,
    pub(super) contacts: BTreeMap<NodeId, Contact>,
    pub(super) asked: BTreeMap<SessionId, (Asked, Option<Monotonic>)>,
    pub(super) waits: BTreeMap<NodeId, WaitReason>,
    /// Machines that were seen at the inside addresses of hosts that are off, and since when.
    pub(super) strangers: BTreeMap<NodeId, (LinkAddress, Monotonic)>,
    /// What the machine of addresses was told last.
    pub(super) bindings_said: BTreeMap<NodeId, (Binding, Option<std::net::Ipv4Addr>)>,
    pub(super) router_trouble: Option<String>,
    pub(super) addresses_short: bool,
    /// Hosts whose facts have changed.
    pub(super) dirty: BTreeSet<NodeId>,
    /// Hosts whose directive may have changed.
    pub(super) reissue: BTreeSet<NodeId>,
    /// Hosts that are owed an answer.
    pub(super) answer: BTreeSet<NodeId>,
    pub(super) queue_dirty: bool,
    /// Slots that were held when the limit was last lowered.
    pub(super) slots_allowed_before: u32,
    /// Hosts of ended sessions that have not confirmed the last order, and until when that is waited for; `None` once
    /// it is not waited for any more.
    pub(super) withdrawing: BTreeMap<NodeId, Option<Monotonic>>,
    /// When this run began.
    pub(super) started_at: Monotonic,
    pub(super) site_dirty: bool,
    pub(super) site_report_at: Monotonic,
    pub(super) site_reported_at: Option<Monotonic>,
    said: BTreeSet<(Option<SessionId>, String)>,
    pub(super) sequence: Sequence,
    records: VecDeque<Record<StationEvent>>,
    outputs: VecDeque<Sequenced<StationOutput>>,
}

impl StationMachine {
    /// Everything that the journal says.
    pub fn state(&self) -> &StationState {
        &self.state
    }

    /// What it was built from.
    pub fn setup(&self) -> &StationSetup {
        &self.setup
    }

    /// Whether hosts wait because no address is free.
    pub fn addresses_short(&self) -> bool {
        self.addresses_short
    }

    /// Why it gives no orders any more, where it does not.
    pub fn standing_down(&self) -> Option<&str> {
        self.standing_down.as_deref()
    }

    pub(super) fn journal(&mut self, event: StationEvent) {
        self.sequence = self.sequence.next();
        self.state.apply(self.sequence, &event);
        let node = event.session().map(|session| session.node).or(event.host());
        self.dirty.extend(node.filter(|_| !matches!(event, StationEvent::ProfileDurable { .. })));
        self.queue_dirty |= event.moves_queue();
        self.site_dirty |= event.concerns_headquarters();
        self.records.push_back(Record { sequence: self.sequence, event });
    }

    pub(super) fn emit(&mut self, output: StationOutput) {
        self.outputs.push_back(Sequenced { after: self.sequence, output });
    }

    /// Tells people something once.
    pub(super) fn attention(&mut self, session: Option<SessionId>, text: String) {
        if self.said.len() >= SAID_MAX {
            self.said.clear();
        }
        if self.said.insert((session, text.clone())) {
            self.emit(StationOutput::Attention { session, text });
        }
    }

    /// The session of a host has moved on: what was said about it may be said again, should it come again.
    pub(super) fn attention_over(&mut self, node: NodeId) {
        let before = self.said.len();
        self.said.retain(|(session, _)| session.is_none_or(|session| session.node != node));
        if self.said.len() != before {
            self.emit(StationOutput::AttentionOver(node));
        }
    }

    fn on_epoch_changed(&mut self, now: Now, setup: StationSetup) {
        if setup.node != self.setup.node {
            return self
                .stand_down(format!("the charter of epoch {} designates {} as station", setup.epoch, setup.node));
        }
        if setup.epoch < self.setup.epoch {
            return;
        }
        self.standing_down = None;
        self.slots_allowed_before = self.slots_held();
        self.setup = setup;
        self.journal(StationEvent::EpochEntered { at: now.wall, epoch: self.setup.epoch });
        self.dirty.extend(self.state.hosts.keys().copied());
        self.queue_dirty = true;
    }

    fn stand_down(&mut self, reason: String) {
        self.outputs.clear();
        self.attention(None, format!("this station stands down: {reason}"));
        self.standing_down = Some(reason);
    }

    fn dispatch(&mut self, now: Now, input: StationInput) {
        match input {
            StationInput::Report(node, report) => self.on_report(now, node, *report),
            StationInput::SurveyOpened { session, survey, descriptor, facts } => {
                self.on_survey_opened(now, session, survey, descriptor, facts);
            }
            StationInput::SurveyFailed { session, survey, why, passing } => {
                self.on_survey_failed(now, session, survey, why, passing);
            }
            StationInput::PlanMade { session, descriptor, summary } => {
                self.on_plan_made(now, session, descriptor, *summary);
            }
            StationInput::PlanConflict { session, descriptor, explanation } => {
                self.on_plan_conflict(now, session, descriptor, explanation);
            }
            StationInput::Headquarters(word) => self.on_headquarters(now, *word),
            StationInput::Mapped { node, inside, mapped } => self.on_mapped(now, node, inside, mapped),
            StationInput::MappingFailed { node, why } => self.on_mapping_failed(now, node, why),
            StationInput::Unmapped { node } => self.on_unmapped(now, node),
            StationInput::RouterTrouble(trouble) => {
                self.router_trouble = trouble;
                self.reissue.extend(self.bindings_said.keys().copied());
            }
            StationInput::AddressesShort(short) => {
                self.addresses_short = short;
                self.reissue.extend(self.bindings_said.keys().copied());
            }
            StationInput::TokenCreate(token) => self.on_token_create(*token),
            StationInput::TokenUse { identifier, node, machine_identifier, host_name } => {
                self.on_token_use(now, identifier, node, machine_identifier, host_name);
            }
            StationInput::MemberRenew { node } => self.on_member_renew(now, node),
            StationInput::CopySeen { node, text } => self.on_copy_seen(now, node, &text),
            StationInput::LinkSeen { node, inside, link, is_connected } => {
                self.on_link_seen(now, node, inside, link, is_connected);
            }
            StationInput::Cancel { session, by } => self.on_cancel(now, session, by),
            StationInput::Retry { session, by } => self.on_retry(now, session, by),
            StationInput::Withdraw { session, by } => self.on_withdraw(now, session, by),
            StationInput::NewGeneration { node, by } => self.on_new_generation(now, node, by),
            StationInput::Prioritise { session, priority } => {
                if self.state.sessions.get(&session).is_some_and(|found| found.priority != priority) {
                    self.journal(StationEvent::Prioritised { session, priority });
                }
            }
            StationInput::ReportMade { session, html } => self.on_report_made(now, session, html),
            StationInput::EpochChanged(setup) => self.on_epoch_changed(now, *setup),
            StationInput::StandDown { reason } => self.stand_down(reason),
        }
    }
}

impl Machine for StationMachine {
    type Input = StationInput;
    type Output = StationOutput;

    fn handle(&mut self, now: Now, input: StationInput) {
        if self.standing_down.is_some() && !matches!(input, StationInput::EpochChanged(_)) {
            return;
        }
        self.dispatch(now, input);
        if self.standing_down.is_none() {
            self.advance(now);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.standing_down.is_none() {
            self.advance(now);
        }
    }

    fn poll_output(&mut self) -> Option<Sequenced<StationOutput>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if self.standing_down.is_some() { None } else { self.next_deadline() }
    }

    fn check_invariants(&self) {
        self.assert_invariants();
    }
}

impl Journaled for StationMachine {
    type Event = StationEvent;
    type Setup = StationSetup;

    fn recover(setup: StationSetup, now: Now, events: impl IntoIterator<Item = Record<StationEvent>>) -> Self {
        let mut machine = Self {
            setup,
            state: StationState::default(),
            standing_down: None,
            issued: BTreeMap::new(),
            contacts: BTreeMap::new(),
            asked: BTreeMap::new(),
            waits: BTreeMap::new(),
            strangers: BTreeMap::new(),
            bindings_said: BTreeMap::new(),
            router_trouble: None,
            addresses_short: false,
            dirty: BTreeSet::new(),
            reissue: BTreeSet::new(),
            answer: BTreeSet::new(),
            queue_dirty: true,
            slots_allowed_before: 0,
            withdrawing: BTreeMap::new(),
            started_at: now.monotonic,
            site_dirty: true,
            site_report_at: now.monotonic,
            site_reported_at: None,
            said: BTreeSet::new(),
            sequence: Sequence::default(),
            records: VecDeque::new(),
            outputs: VecDeque::new(),
        };
        for record in events {
            machine.state.apply(record.sequence, &record.event);
            machine.sequence = record.sequence;
        }
        machine.slots_allowed_before = machine.slots_held();
        // An event of every start: revisions of directives are made from the journal's sequence, and this one lies
        // above all that an earlier run may have sent.
        machine.journal(StationEvent::EpochEntered { at: now.wall, epoch: machine.setup.epoch });
        machine.dirty.extend(machine.state.hosts.keys().copied());
        machine.advance(now);
        machine
    }

    fn poll_record(&mut self) -> Option<Record<StationEvent>> {
        self.records.pop_front()
    }
}
