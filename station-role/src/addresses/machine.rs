//! The machine of addresses: takes inputs, journals what they change, and leaves to `reconcile` what to ask the router.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv4Addr,
};

use branchline_protocol::{
    ids::NodeId,
    limits::{ADDRESS_WAITING_MAX, MACHINE_IDENTIFIER_BYTES_MAX},
    machine::{Deadline, Journaled, Machine, Record, Sequence, Sequenced},
    refusal::{Refusal, RefusalKind},
    time::{Monotonic, Now},
};

use super::{
    reconcile::{Backoff, InFlight, View},
    state::{AddressEvent, AddressInput, AddressOutput, AddressSetup, AddressState, Attention, MappingView},
};
use crate::router::{NatTable, RowGeneration, RowIndex, RowIndexError};

/// Most things that are remembered as said; beyond it they are said anew.
const SAID_MAX: usize = 1024;

/// See the module's description.
#[derive(Debug)]
pub struct AddressMachine {
    pub(super) setup: AddressSetup,
    pub(super) state: AddressState,
    pub(super) view: View,
    pub(super) table: Option<NatTable>,
    pub(super) in_flight: Option<InFlight>,
    /// Failures that concern the router as a whole.
    pub(super) router_backoff: Option<Backoff>,
    /// Failures that concern one row.
    pub(super) row_backoffs: BTreeMap<RowIndex, Backoff>,
    pub(super) next_read: Monotonic,
    pub(super) rest_until: BTreeMap<Ipv4Addr, Monotonic>,
    pub(super) superseded_by: Option<RowGeneration>,
    /// Hosts whose mapping was announced by this process.
    pub(super) announced: BTreeSet<NodeId>,
    pub(super) said: BTreeSet<Attention>,
    next_batch_request: Monotonic,
    sequence: Sequence,
    records: VecDeque<Record<AddressEvent>>,
    outputs: VecDeque<Sequenced<AddressOutput>>,
}

impl AddressMachine {
    /// What the journal says so far.
    #[must_use]
    pub fn state(&self) -> &AddressState {
        &self.state
    }

    /// The table as last read or written, if it was read at all.
    #[must_use]
    pub fn table(&self) -> Option<&NatTable> {
        self.table.as_ref()
    }

    /// Whether this station has stood down before a later epoch, and which.
    #[must_use]
    pub fn superseded_by(&self) -> Option<RowGeneration> {
        self.superseded_by
    }

    /// The mapped address of a host, whether confirmed or not.
    #[must_use]
    pub fn mapped(&self, node: NodeId) -> Option<Ipv4Addr> {
        self.state.bindings.get(&node).map(|binding| binding.mapped)
    }

    /// All mappings in order of nodes, for `nat show`.
    pub fn mappings(&self) -> impl Iterator<Item = MappingView> + '_ {
        self.state.bindings.iter().map(|(node, binding)| MappingView {
            node: *node,
            machine_identifier: binding.machine_identifier.clone(),
            inside: binding.place.map(|(inside, _)| inside),
            mapped: binding.mapped,
            row: binding.place.map(|(_, row)| row.raw()),
            confirmed: binding.confirmed,
        })
    }

    pub(super) fn journal(&mut self, now: Now, event: AddressEvent) {
        self.sequence = self.sequence.next();
        self.state.apply(&event);
        self.keep_rests(now);
        self.records.push_back(Record { sequence: self.sequence, event });
    }

    /// Every resting address has its end.
    fn keep_rests(&mut self, now: Now) {
        if self.rest_until.len() == self.state.resting.len() {
            return;
        }
        let until = now.monotonic.after(self.setup.timing.rest);
        self.rest_until.retain(|address, _| self.state.resting.contains(address));
        for address in &self.state.resting {
            self.rest_until.entry(*address).or_insert(until);
        }
    }

    pub(super) fn emit(&mut self, output: AddressOutput) {
        self.outputs.push_back(Sequenced { after: self.sequence, output });
    }

    pub(super) fn attention(&mut self, attention: Attention) {
        if self.said.len() >= SAID_MAX {
            self.said.clear();
        }
        if self.said.insert(attention.clone()) {
            self.emit(AddressOutput::Attention(attention));
        }
    }

    fn refuse(&mut self, node: NodeId, kind: RefusalKind, reason: String) {
        self.emit(AddressOutput::BindRefused { node, refusal: Refusal::new(kind, reason) });
    }

    /// The next row index of this epoch.
    pub(super) fn next_row(&self) -> Result<RowIndex, RowIndexError> {
        let generation = self.setup.ownership.generation;
        let last = self.state.last_sequence.get(&generation).copied().unwrap_or(0);
        RowIndex::new(generation, last.saturating_add(1))
    }

    /// A granted address that nobody has, had lately, or holds in the router's table.
    pub(super) fn free_address(&self) -> Option<Ipv4Addr> {
        let leaving: BTreeSet<Ipv4Addr> = self.state.leaving.values().map(|row| row.mapped).collect();
        let held: Vec<_> =
            self.table.iter().flat_map(|table| table.rows.values()).filter_map(|row| row.mapped).collect();
        let singles: BTreeSet<Ipv4Addr> =
            held.iter().filter(|range| range.first == range.last).map(|range| range.first).collect();
        let ranges: Vec<_> = held.iter().filter(|range| range.first != range.last).collect();
        self.state.batches.first_free(|address| {
            self.state.by_mapped.contains_key(&address)
                || self.state.resting.contains(&address)
                || leaving.contains(&address)
                || singles.contains(&address)
                || ranges.iter().any(|range| range.contains(address))
        })
    }

    fn on_grant(&mut self, now: Now, serial: u64, batch: branchline_protocol::charter::AddressBatch) {
        match self.state.batches.check(serial, batch) {
            Ok(true) => self.journal(now, AddressEvent::Granted { serial, batch }),
            Ok(false) => {}
            Err(error) => self.attention(error.into()),
        }
    }

    fn on_bind(&mut self, now: Now, node: NodeId, machine_identifier: String, inside: Ipv4Addr) {
        if machine_identifier.is_empty() || machine_identifier.len() > MACHINE_IDENTIFIER_BYTES_MAX {
            let reason = format!("the machine identifier must have 1 to {MACHINE_IDENTIFIER_BYTES_MAX} bytes");
            return self.refuse(node, RefusalKind::Malformed, reason);
        }
        if let Some(binding) = self.state.bindings.get(&node) {
            if binding.machine_identifier != machine_identifier {
                let reason = format!(
                    "{node} is mapped for machine {} and machine {machine_identifier} claims it too; withdraw or \
                     replace the host if that is meant, else one of them is a copy",
                    binding.machine_identifier
                );
                return self.refuse(node, RefusalKind::DuplicateIdentity, reason);
            }
            // A repeated wish is answered anew.
            self.announced.remove(&node);
            return self.on_inside_changed(now, node, inside);
        }
        if let Some(other) = self.state.by_inside.get(&inside) {
            let reason = format!("{inside} is mapped for {other}; it is free once that host has moved or is withdrawn");
            return self.refuse(node, RefusalKind::Busy, reason);
        }
        if !self.state.waiting.contains_key(&node) && self.state.waiting.len() >= ADDRESS_WAITING_MAX {
            let reason = format!("{ADDRESS_WAITING_MAX} hosts wait for an address already; ask again later");
            return self.refuse(node, RefusalKind::Busy, reason);
        }
        let known =
            self.state.waiting.get(&node).is_some_and(|(machine, at)| (machine, *at) == (&machine_identifier, inside));
        if !known {
            self.journal(now, AddressEvent::Waiting { node, machine_identifier, inside });
        }
    }

    /// Gives addresses to hosts that wait, as far as there are any. Not before the table was read: it may hold rows
    /// that the journal does not know of.
    pub(super) fn serve_waiting(&mut self, now: Now) {
        if self.table.is_none() || self.superseded_by.is_some() {
            return;
        }
        let waiting: Vec<_> =
            self.state.waiting.iter().map(|(node, (machine, inside))| (*node, machine.clone(), *inside)).collect();
        for (node, machine_identifier, inside) in waiting {
            if let Some(other) = self.state.by_inside.get(&inside) {
                let reason = format!("{inside} is mapped for {other}; withdraw one of the two hosts");
                self.refuse(node, RefusalKind::Busy, reason);
                self.journal(now, AddressEvent::Released { node });
                continue;
            }
            let row = match self.next_row() {
                Ok(row) => row,
                Err(error) => return self.attention(error.into()),
            };
            let Some(mapped) = self.free_address() else { return };
            self.journal(now, AddressEvent::Bound { node, machine_identifier, inside, mapped, row });
        }
    }

    fn on_release(&mut self, now: Now, node: NodeId) {
        if self.state.bindings.contains_key(&node) || self.state.waiting.contains_key(&node) {
            self.journal(now, AddressEvent::Released { node });
            self.announced.remove(&node);
        }
        self.say_if_unmapped(node);
    }

    /// Tells that a host has no row, whatever is wished for it. It is told with every wish, since a crash may have
    /// taken the word that was said when the row went, and from then on its address rests for somebody else.
    pub(super) fn say_if_unmapped(&mut self, node: NodeId) {
        let leaves = self.state.leaving.values().any(|row| row.node == node);
        let mapped = self.state.bindings.get(&node).is_some_and(|binding| binding.confirmed);
        if !leaves && !mapped {
            self.emit(AddressOutput::Unmapped { node });
        }
    }

    fn on_inside_changed(&mut self, now: Now, node: NodeId, inside: Ipv4Addr) {
        let Some(binding) = self.state.bindings.get(&node) else {
            if let Some((machine_identifier, _)) = self.state.waiting.get(&node).cloned() {
                self.journal(now, AddressEvent::Waiting { node, machine_identifier, inside });
            }
            return;
        };
        if binding.place.is_some_and(|(present, _)| present == inside) {
            return;
        }
        let mapped = binding.mapped;
        if let Some(other) = self.state.by_inside.get(&inside).copied() {
            // What was known of this host is wrong in any case, so it loses its row.
            self.journal(now, AddressEvent::InsideLost { node });
            let reason = format!("{inside} is mapped for {other}; it is free once that host has moved or is withdrawn");
            return self.refuse(node, RefusalKind::Busy, reason);
        }
        match self.next_row() {
            Ok(row) => self.journal(now, AddressEvent::Rebound { node, inside, mapped, row }),
            Err(error) => {
                self.journal(now, AddressEvent::InsideLost { node });
                self.attention(error.into());
            }
        }
        self.announced.remove(&node);
    }

    fn on_inside_lost(&mut self, now: Now, node: NodeId) {
        if self.state.bindings.get(&node).is_some_and(|binding| binding.place.is_some()) {
            self.journal(now, AddressEvent::InsideLost { node });
            self.announced.remove(&node);
        }
    }

    fn end_rests(&mut self, now: Now) {
        let over: Vec<Ipv4Addr> =
            self.rest_until.iter().filter(|(_, until)| **until <= now.monotonic).map(|(address, _)| *address).collect();
        for mapped in over {
            self.journal(now, AddressEvent::Rested { mapped });
        }
    }

    fn wants_batch(&self) -> bool {
        let none_free = || self.table.is_some() && !self.state.waiting.is_empty() && self.free_address().is_none();
        self.superseded_by.is_none() && (self.state.batches.is_low(self.state.not_free()) || none_free())
    }

    fn ask_for_batch(&mut self, now: Now) {
        if !self.wants_batch() || now.monotonic < self.next_batch_request {
            return;
        }
        self.next_batch_request = now.monotonic.after(self.setup.timing.batch_request_interval);
        let total = self.state.batches.total();
        self.emit(AddressOutput::NeedBatch {
            highest_serial: self.state.batches.highest_serial(),
            free: total.saturating_sub(self.state.not_free()),
            total,
            waiting: self.state.waiting.len() as u64,
        });
    }

    fn advance(&mut self, now: Now) {
        self.end_rests(now);
        self.serve_waiting(now);
        self.ask_for_batch(now);
        self.reconcile(now);
        if cfg!(debug_assertions) {
            self.assert_invariants();
        }
    }
}

impl Machine for AddressMachine {
    type Input = AddressInput;
    type Output = AddressOutput;

    fn handle(&mut self, now: Now, input: AddressInput) {
        match input {
            AddressInput::Grant { serial, batch } => self.on_grant(now, serial, batch),
            AddressInput::Bind { node, machine_identifier, inside } => {
                self.on_bind(now, node, machine_identifier, inside);
                self.say_if_unmapped(node);
            }
            AddressInput::Release { node } => self.on_release(now, node),
            AddressInput::InsideChanged { node, inside } => self.on_inside_changed(now, node, inside),
            AddressInput::InsideLost { node } => self.on_inside_lost(now, node),
            AddressInput::RouterDone { id, result } => self.on_router_done(now, id, result),
            AddressInput::ReadNow => self.next_read = now.monotonic,
            AddressInput::WarrantProved { epoch } => self.on_warrant_proved(epoch),
        }
        self.advance(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.expire_in_flight(now);
        self.advance(now);
    }

    fn poll_output(&mut self) -> Option<Sequenced<AddressOutput>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let rest = self.rest_until.values().min().map(|at| Deadline { at: *at, reason: "an address has rested" });
        let batch = self
            .wants_batch()
            .then_some(Deadline { at: self.next_batch_request, reason: "ask the NAT authority for a batch again" });
        Deadline::earlier(Deadline::earlier(rest, batch), self.reconcile_deadline())
    }

    fn check_invariants(&self) {
        self.assert_invariants();
    }
}

impl Journaled for AddressMachine {
    type Event = AddressEvent;
    type Setup = AddressSetup;

    fn recover(setup: AddressSetup, now: Now, events: impl IntoIterator<Item = Record<AddressEvent>>) -> Self {
        let mut machine = Self {
            setup,
            state: AddressState::default(),
            view: View::Unknown,
            table: None,
            in_flight: None,
            router_backoff: None,
            row_backoffs: BTreeMap::new(),
            next_read: now.monotonic,
            rest_until: BTreeMap::new(),
            superseded_by: None,
            announced: BTreeSet::new(),
            said: BTreeSet::new(),
            next_batch_request: now.monotonic,
            sequence: Sequence::default(),
            records: VecDeque::new(),
            outputs: VecDeque::new(),
        };
        for record in events {
            machine.state.apply(&record.event);
            machine.sequence = record.sequence;
        }
        machine.keep_rests(now);
        machine.advance(now);
        machine
    }

    fn poll_record(&mut self) -> Option<Record<AddressEvent>> {
        self.records.pop_front()
    }
}
