//! The station's sessions and its addresses as one machine with one journal, so that a loop drives and recovers both
//! together and no crash can come between them.
use std::collections::VecDeque;

use branchline_protocol::{
    machine::{Deadline, Journaled, Machine, Record, Sequence, Sequenced},
    session::Stage,
    time::Now,
};
use serde::{Deserialize, Serialize};

use super::{
    machine::StationMachine,
    state::StationEvent,
    words::{SiteReportDraft, StationInput, StationOutput, StationSetup},
};
use crate::addresses::{AddressEvent, AddressInput, AddressMachine, AddressOutput, AddressSetup, Attention};

/// What a site's machine is built from besides its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteSetup {
    /// Sessions.
    pub station: StationSetup,
    /// Addresses.
    pub addresses: AddressSetup,
}

/// What can happen to a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteInput {
    /// Concerns sessions. `Headquarters` brings address grants along; they reach the addresses from here.
    Station(StationInput),
    /// Concerns the router: `RouterDone`, `ReadNow`, `InsideLost`, `WarrantProved`.
    Address(AddressInput),
}

/// What a site wants done. `Bind`, `Release`, `InsideChanged` and `InsideLost` of the station, and `Mapped`, `Unmapped`,
/// `BindRefused` and `NeedBatch` of the addresses stay inside and never come out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteOutput {
    /// Of the sessions.
    Station(StationOutput),
    /// Of the addresses: `Router`, `TableRead`, `Attention`.
    Address(AddressOutput),
}

/// What is written to a site's journal. New variants are appended, never inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteEvent {
    /// Of the sessions.
    Station(StationEvent),
    /// Of the addresses.
    Address(AddressEvent),
}

/// [`StationMachine`] and [`AddressMachine`], wired together (a hierarchical machine).
pub struct SiteMachine {
    station: StationMachine,
    addresses: AddressMachine,
    wants_batch: bool,
    sequence: Sequence,
    records: VecDeque<Record<SiteEvent>>,
    outputs: VecDeque<Sequenced<SiteOutput>>,
}

impl SiteMachine {
    /// The sessions.
    pub fn station(&self) -> &StationMachine {
        &self.station
    }

    /// The addresses.
    pub fn addresses(&self) -> &AddressMachine {
        &self.addresses
    }

    fn journal(&mut self, event: SiteEvent) {
        self.sequence = self.sequence.next();
        self.records.push_back(Record { sequence: self.sequence, event });
    }

    /// Everything that goes out depends on everything that was journaled before it.
    fn emit(&mut self, output: SiteOutput) {
        self.outputs.push_back(Sequenced { after: self.sequence, output });
    }

    fn take_records(&mut self) {
        while let Some(record) = self.station.poll_record() {
            self.journal(SiteEvent::Station(record.event));
        }
        while let Some(record) = self.addresses.poll_record() {
            if let AddressEvent::Granted { .. } = record.event {
                self.wants_batch = false;
            }
            self.journal(SiteEvent::Address(record.event));
        }
    }

    /// Carries outputs of one machine to the other until none are left. It ends, since each is level-triggered: what
    /// is known already leads to no further output.
    fn wire(&mut self, now: Now) {
        loop {
            self.take_records();
            if let Some(sequenced) = self.station.poll_output() {
                self.on_station_output(now, sequenced.output);
            } else if let Some(sequenced) = self.addresses.poll_output() {
                self.on_address_output(now, sequenced.output);
            } else {
                break;
            }
        }
    }

    fn on_station_output(&mut self, now: Now, output: StationOutput) {
        if self.station.standing_down().is_some() {
            return self.emit(SiteOutput::Station(output));
        }
        let input = match output {
            StationOutput::Bind { node, machine_identifier, inside } => {
                AddressInput::Bind { node, machine_identifier, inside }
            }
            StationOutput::Release { node } => AddressInput::Release { node },
            StationOutput::InsideChanged { node, inside } => AddressInput::InsideChanged { node, inside },
            StationOutput::InsideLost { node } => AddressInput::InsideLost { node },
            StationOutput::SendSiteReport(mut draft) => {
                self.fill_in(&mut draft);
                return self.emit(SiteOutput::Station(StationOutput::SendSiteReport(draft)));
            }
            other => return self.emit(SiteOutput::Station(other)),
        };
        self.addresses.handle(now, input);
    }

    fn fill_in(&self, draft: &mut SiteReportDraft) {
        let state = self.addresses.state();
        draft.addresses_used = self.addresses.mappings().map(|mapping| (mapping.node, mapping.mapped)).collect();
        draft.addresses_free = state.batches.total().saturating_sub(state.not_free());
        draft.grant_seen = state.batches.highest_serial();
        draft.wants_batch = self.wants_batch;
    }

    fn on_address_output(&mut self, now: Now, output: AddressOutput) {
        let input = match output {
            AddressOutput::Mapped { node, inside, mapped } => StationInput::Mapped { node, inside, mapped },
            AddressOutput::Unmapped { node } => StationInput::Unmapped { node },
            AddressOutput::BindRefused { node, refusal } => StationInput::MappingFailed { node, why: refusal.reason },
            AddressOutput::NeedBatch { waiting, .. } => {
                self.wants_batch = true;
                StationInput::AddressesShort(waiting > 0)
            }
            AddressOutput::Attention(attention) => {
                let trouble = match &attention {
                    Attention::RouterFailed { operation, error, next_step, .. } => {
                        Some(Some(format!("{operation}: {error}; {next_step}")))
                    }
                    Attention::RouterWorks => Some(None),
                    _ => None,
                };
                self.emit(SiteOutput::Address(AddressOutput::Attention(attention)));
                match trouble {
                    Some(trouble) => StationInput::RouterTrouble(trouble),
                    None => return,
                }
            }
            output @ (AddressOutput::Router { .. } | AddressOutput::TableRead { .. }) => {
                if self.station.standing_down().is_none() {
                    self.emit(SiteOutput::Address(output));
                }
                return;
            }
        };
        self.station.handle(now, input);
    }

    fn on_station_input(&mut self, now: Now, input: StationInput) {
        match &input {
            StationInput::Headquarters(word) => {
                for grant in &word.grants {
                    let (serial, batch) = (grant.serial, grant.batch);
                    self.addresses.handle(now, AddressInput::Grant { serial, batch });
                }
            }
            StationInput::EpochChanged(setup) => {
                self.addresses.handle(now, AddressInput::WarrantProved { epoch: setup.epoch });
            }
            _ => {}
        }
        let short = !self.addresses.state().waiting.is_empty() && self.wants_batch;
        self.station.handle(now, input);
        if !short && self.station.addresses_short() {
            self.station.handle(now, StationInput::AddressesShort(false));
        }
    }

    /// One line for an overview: how many sessions stand in each stage.
    pub fn stages(&self) -> std::collections::BTreeMap<Stage, usize> {
        let mut stages = std::collections::BTreeMap::new();
        for view in self.station.sessions().filter(|view| view.is_current) {
            *stages.entry(view.stage).or_default() += 1;
        }
        stages
    }
}

impl Machine for SiteMachine {
    type Input = SiteInput;
    type Output = SiteOutput;

    fn handle(&mut self, now: Now, input: SiteInput) {
        match input {
            SiteInput::Station(input) => self.on_station_input(now, input),
            SiteInput::Address(input) => self.addresses.handle(now, input),
        }
        self.wire(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.station.handle_timeout(now);
        if self.station.standing_down().is_none() {
            self.addresses.handle_timeout(now);
        }
        self.wire(now);
    }

    fn poll_output(&mut self) -> Option<Sequenced<SiteOutput>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if self.station.standing_down().is_some() {
            return None;
        }
        Deadline::earlier(self.station.poll_timeout(), self.addresses.poll_timeout())
    }

    fn check_invariants(&self) {
        self.station.check_invariants();
        self.addresses.check_invariants();
    }
}

impl Journaled for SiteMachine {
    type Event = SiteEvent;
    type Setup = SiteSetup;

    fn recover(setup: SiteSetup, now: Now, events: impl IntoIterator<Item = Record<SiteEvent>>) -> Self {
        let (mut station, mut addresses) = (Vec::new(), Vec::new());
        let mut sequence = Sequence::default();
        for record in events {
            sequence = record.sequence;
            // Each machine counts its own events.
            match record.event {
                SiteEvent::Station(event) => {
                    station.push(Record { sequence: Sequence(station.len() as u64 + 1), event });
                }
                SiteEvent::Address(event) => {
                    addresses.push(Record { sequence: Sequence(addresses.len() as u64 + 1), event });
                }
            }
        }
        let mut machine = Self {
            station: StationMachine::recover(setup.station, now, station),
            addresses: AddressMachine::recover(setup.addresses, now, addresses),
            wants_batch: false,
            sequence,
            records: VecDeque::new(),
            outputs: VecDeque::new(),
        };
        machine.wire(now);
        machine
    }

    fn poll_record(&mut self) -> Option<Record<SiteEvent>> {
        self.records.pop_front()
    }
}
