//! What to ask the router next, and what its answers mean. One operation is under way at a time.
use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use branchline_protocol::{
    ids::Epoch,
    machine::Deadline,
    time::{Monotonic, Now},
};

use super::{
    machine::AddressMachine,
    plan::{Conflict, Plan, plan},
    state::{AddressEvent, AddressOutput, Attention, OperationId},
};
use crate::router::{NatRow, NatTable, RouterError, RouterOperation, RouterResult, RowGeneration, RowIndex, RowKey};

/// How much the table in memory is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Nothing may be concluded from it; read first.
    Unknown,
    /// Read, and written to since; read once more when the operations are done.
    Written,
    /// As read.
    Read,
}

/// The operation that the driver works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) id: OperationId,
    pub(super) operation: RouterOperation,
    pub(super) deadline: Monotonic,
}

/// How often something failed in a row, and when it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    pub(super) failures: u32,
    pub(super) until: Monotonic,
}

impl AddressMachine {
    /// Gives the driver its next operation, if there is one and the driver is free.
    pub(super) fn reconcile(&mut self, now: Now) {
        if self.in_flight.is_some() || self.router_backoff.is_some_and(|backoff| now.monotonic < backoff.until) {
            return;
        }
        if self.view == View::Unknown || now.monotonic >= self.next_read {
            return self.start(now, RouterOperation::ReadTable);
        }
        let Some(plan) = self.settled_plan(now) else {
            self.row_backoffs.clear();
            return;
        };
        // A row that needs nothing any more needs no further attempt; without this its deadline would never pass.
        let wanted: BTreeSet<RowIndex> = plan.operations.iter().filter_map(RouterOperation::row).collect();
        self.row_backoffs.retain(|row, _| wanted.contains(row));
        let ready = plan.operations.iter().copied().find(|operation| {
            let backoff = operation.row().and_then(|row| self.row_backoffs.get(&row));
            backoff.is_none_or(|backoff| backoff.until <= now.monotonic)
        });
        match ready {
            Some(operation) => self.start(now, operation),
            None if self.view == View::Written => self.start(now, RouterOperation::ReadTable),
            None => {}
        }
        self.conclude(now);
    }

    /// Plans, after every binding whose row was spoiled or whose address is taken has got another row.
    fn settled_plan(&mut self, now: Now) -> Option<Plan> {
        // Each round gives away at least one row index or address, and conflicts that cannot be helped are left as
        // they are; two rounds are enough, the third only confirms.
        for _ in 0..3 {
            let table = self.table.as_ref()?;
            let plan = plan(&self.state.desired(), table, &self.setup.ownership);
            if let Some(by) = plan.superseded_by {
                self.superseded_by = Some(by);
                self.attention(Attention::Superseded { by });
                return None;
            }
            self.superseded_by = None;
            if !self.evade(now, &plan) {
                return Some(plan);
            }
        }
        None
    }

    /// Gives new rows to spoiled bindings, new addresses where a foreign row holds the old one.
    fn evade(&mut self, now: Now, plan: &Plan) -> bool {
        let mut changed = false;
        for row in &plan.spoiled {
            changed |= self.rebind(now, *row, None);
        }
        for conflict in &plan.conflicts {
            self.attention(Attention::Conflict(*conflict));
            if matches!(conflict, Conflict::MappedTaken { .. })
                && let Some(address) = self.free_address()
            {
                changed |= self.rebind(now, conflict.row(), Some(address));
            }
        }
        changed
    }

    fn rebind(&mut self, now: Now, old: RowIndex, address: Option<Ipv4Addr>) -> bool {
        let Some(node) = self.state.by_row.get(&old).copied() else { return false };
        let Some(binding) = self.state.bindings.get(&node) else { return false };
        let Some((inside, _)) = binding.place else { return false };
        let mapped = address.unwrap_or(binding.mapped);
        match self.next_row() {
            Ok(row) => {
                // A router that spoils every row must not burn an index with every breath.
                if let Some(backoff) = self.row_backoffs.get(&old).copied() {
                    self.row_backoffs.insert(row, backoff);
                }
                self.journal(now, AddressEvent::Rebound { node, inside, mapped, row });
                self.announced.remove(&node);
                true
            }
            Err(error) => {
                // The old index is burnt; without a new one the host can have no row.
                self.journal(now, AddressEvent::InsideLost { node });
                self.attention(error.into());
                true
            }
        }
    }

    fn start(&mut self, now: Now, operation: RouterOperation) {
        let id = OperationId(self.state.last_operation.0 + 1);
        self.journal(now, AddressEvent::Intended { id, operation });
        let deadline = now.monotonic.after(self.setup.timing.operation_longest);
        self.in_flight = Some(InFlight { id, operation, deadline });
        self.emit(AddressOutput::Router { id, operation });
    }

    /// Draws conclusions from a table that shows what is: rows that are as they should be, rows that are gone.
    fn conclude(&mut self, now: Now) {
        if self.view == View::Unknown {
            return;
        }
        let Some(table) = &self.table else { return };
        let ownership = &self.setup.ownership;
        let key = |row: &RowIndex| RowKey { interface: ownership.interface, index: row.raw() };
        let holds = |row: &RowIndex| {
            table.rows.get(&key(row)).is_some_and(|found| ownership.index_of(key(row), found).is_some())
        };
        let gone: Vec<RowIndex> = self.state.leaving.keys().filter(|row| !holds(row)).copied().collect();
        let mapped: Vec<_> = self
            .state
            .bindings
            .iter()
            .filter(|(node, binding)| !binding.confirmed || !self.announced.contains(node))
            .filter_map(|(node, binding)| {
                let (inside, row) = binding.place?;
                let found = table.rows.get(&key(&row))?;
                found.is_binding(inside, binding.mapped).then_some((*node, inside, binding.mapped, row))
            })
            .collect();
        for (node, inside, mapped, row) in mapped {
            if self.state.bindings.get(&node).is_some_and(|binding| !binding.confirmed) {
                self.journal(now, AddressEvent::Confirmed { row });
            }
            self.row_backoffs.remove(&row);
            self.announced.insert(node);
            self.emit(AddressOutput::Mapped { node, inside, mapped });
        }
        for row in gone {
            let node = self.state.leaving.get(&row).map(|leaving| leaving.node);
            self.journal(now, AddressEvent::RowGone { row });
            self.row_backoffs.remove(&row);
            if let Some(node) = node {
                self.say_if_unmapped(node);
            }
        }
    }

    /// Takes the driver's answer; one that is not awaited (late, repeated, of a former process) changes nothing.
    pub(super) fn on_router_done(&mut self, now: Now, id: OperationId, result: Result<RouterResult, RouterError>) {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.id == id) else { return };
        match result {
            Ok(result) => self.on_success(now, &in_flight, result),
            Err(error) => self.on_failure(now, &in_flight, &error),
        }
    }

    fn on_success(&mut self, now: Now, in_flight: &InFlight, result: RouterResult) {
        let interface = self.setup.ownership.interface;
        match (in_flight.operation, result) {
            (RouterOperation::ReadTable, RouterResult::Table(table)) => self.on_table(now, table),
            (RouterOperation::Map { row, inside, mapped }, RouterResult::Mapped(found)) => {
                if !found.is_binding(inside, mapped) {
                    let error = RouterError::ReadBackDiffers { row: row.raw(), found: format!("{found:?}") };
                    return self.on_failure(now, in_flight, &error);
                }
                self.written(RowKey { interface, index: row.raw() }, Some(found));
                self.works(row);
            }
            (RouterOperation::Unmap { row }, RouterResult::Unmapped(gone)) if row == gone => {
                self.written(RowKey { interface, index: row.raw() }, None);
                self.works(row);
            }
            (operation, result) => {
                let reason = format!("the driver answered {operation} with {result:?}");
                self.on_failure(now, in_flight, &RouterError::Malformed { reason });
            }
        }
    }

    fn written(&mut self, key: RowKey, row: Option<NatRow>) {
        self.view = View::Written;
        if let Some(table) = self.table.as_mut() {
            match row {
                Some(row) => table.rows.insert(key, row),
                None => table.rows.remove(&key),
            };
        }
    }

    fn works(&mut self, row: RowIndex) {
        self.row_backoffs.remove(&row);
        self.said.retain(
            |attention| !matches!(attention, Attention::RouterFailed { row: Some(failed), .. } if *failed == row),
        );
        self.router_works();
    }

    fn router_works(&mut self) {
        if self.router_backoff.take().is_some() {
            self.emit(AddressOutput::Attention(Attention::RouterWorks));
        }
        self.said.retain(|attention| !matches!(attention, Attention::RouterFailed { row: None, .. }));
    }

    fn on_table(&mut self, now: Now, table: NatTable) {
        self.router_works();
        // Only a difference that nobody caused is worth saying: not what this process has yet to write.
        let settled = self.table.is_some() && self.view == View::Read;
        if settled && self.table.as_ref() != Some(&table) {
            let plan = plan(&self.state.desired(), &table, &self.setup.ownership);
            let operations = plan.operations.len() as u64;
            if operations > 0 {
                self.emit(AddressOutput::Attention(Attention::TableDiffered { operations }));
            }
        }
        self.view = View::Read;
        self.next_read = now.monotonic.after(self.setup.timing.read_interval);
        self.emit(AddressOutput::TableRead { table: table.clone(), at: now.wall });
        self.table = Some(table);
        self.said.retain(|attention| !matches!(attention, Attention::Conflict(_)));
        self.serve_waiting(now);
        self.conclude(now);
    }

    fn on_failure(&mut self, now: Now, in_flight: &InFlight, error: &RouterError) {
        self.attention(Attention::RouterFailed {
            row: in_flight.operation.row().filter(|_| error.concerns_one_row()),
            operation: in_flight.operation.to_string(),
            error: error.to_string(),
            next_step: error.next_step().to_owned(),
            needs_a_person: error.needs_a_person(),
        });
        // Whatever was refused may have been refused because the table is not what we think it is.
        self.view = View::Unknown;
        match in_flight.operation.row() {
            Some(row) if error.concerns_one_row() => {
                let backoff = self.backoff(now, self.row_backoffs.get(&row).copied());
                self.row_backoffs.insert(row, backoff);
            }
            _ => self.router_backoff = Some(self.backoff(now, self.router_backoff)),
        }
    }

    fn backoff(&self, now: Now, before: Option<Backoff>) -> Backoff {
        let failures = before.map_or(1, |before| before.failures.saturating_add(1));
        let timing = &self.setup.timing;
        let wait = timing.retry_first.saturating_mul(1 << (failures - 1).min(16));
        Backoff { failures, until: now.monotonic.after(wait.min(timing.retry_longest)) }
    }

    pub(super) fn expire_in_flight(&mut self, now: Now) {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.deadline <= now.monotonic) else { return };
        let waited: Duration = self.setup.timing.operation_longest;
        let waited_milliseconds = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let error = RouterError::NoAnswer { router: "its configured address".to_owned(), waited_milliseconds };
        self.on_failure(now, &in_flight, &error);
    }

    /// A later epoch takes over row allocation; a stand-down ends once the epoch is as late as what the table shows.
    pub(super) fn on_warrant_proved(&mut self, epoch: Epoch) {
        match RowGeneration::new(epoch.charter_version, epoch.term) {
            Ok(generation) if generation > self.setup.ownership.generation => {
                self.setup.ownership.generation = generation;
                self.superseded_by = self.superseded_by.filter(|by| *by > generation);
                self.said.retain(|attention| !matches!(attention, Attention::Superseded { .. }));
                self.view = View::Unknown;
            }
            Ok(_) => {}
            Err(error) => self.attention(error.into()),
        }
    }

    /// When the router is to be asked again.
    pub(super) fn reconcile_deadline(&self) -> Option<Deadline> {
        if let Some(in_flight) = &self.in_flight {
            return Some(Deadline { at: in_flight.deadline, reason: "the router's driver does not answer" });
        }
        if let Some(backoff) = self.router_backoff {
            return Some(Deadline { at: backoff.until, reason: "try the router again" });
        }
        let read = Deadline { at: self.next_read, reason: "read the router's table" };
        let rows = self.row_backoffs.values().map(|backoff| backoff.until).min();
        let rows = rows.map(|at| Deadline { at, reason: "try a row of the router again" });
        Deadline::earlier(Some(read), rows)
    }
}
