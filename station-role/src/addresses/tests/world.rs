//! A model router and a lossy world: requests and answers get lost, come late or twice, the station crashes anywhere.
use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};

use branchline_protocol::{
    charter::AddressBatch,
    ids::{Epoch, NodeId},
    limits::SNMP_SET_LIFETIME_SECONDS,
    machine::{Journaled, Machine, Record, Sequenced},
    time::{Monotonic, Now, UnixSeconds},
};
use proptest::prelude::*;

use super::super::*;
use crate::router::{
    AddressRange, DriverProperties, NatRow, NatTable, RouterError, RouterOperation, RouterResult, RowIndex, RowKey,
};

pub(super) const INTERFACE: u32 = 2;

pub(super) fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

pub(super) fn inside(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

pub(super) fn mapped(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, last)
}

pub(super) fn setup(conditional_create: bool) -> AddressSetup {
    let properties =
        DriverProperties { conditional_create, atomic_rows: true, rows_survive_restart: true, reads_back: true };
    AddressSetup::new(Epoch { charter_version: 1, term: 0 }, INTERFACE, "branchline", properties).unwrap()
}

/// What the driver and the router behind it do with one operation.
pub(super) struct ModelRouter {
    pub(super) table: NatTable,
    pub(super) conditional_create: bool,
}

impl ModelRouter {
    pub(super) fn apply(&mut self, operation: RouterOperation) -> Result<RouterResult, RouterError> {
        let key = |row: RowIndex| RowKey { interface: INTERFACE, index: row.raw() };
        match operation {
            RouterOperation::ReadTable => Ok(RouterResult::Table(self.table.clone())),
            RouterOperation::Map { row, inside, mapped } => {
                let takes = |range: Option<AddressRange>, address| range.is_some_and(|range| range.contains(address));
                let overlaps = |other: &NatRow| takes(other.inside, inside) || takes(other.mapped, mapped);
                let in_use = self.table.rows.contains_key(&key(row)) || self.table.rows.values().any(overlaps);
                if self.conditional_create && in_use {
                    return Err(RouterError::InUse { row: row.raw(), object: "the row".into() });
                }
                let made = NatRow::one_to_one("branchline", inside, mapped);
                self.table.rows.insert(key(row), made.clone());
                Ok(RouterResult::Mapped(made))
            }
            RouterOperation::Unmap { row } => {
                self.table.rows.remove(&key(row));
                Ok(RouterResult::Unmapped(row))
            }
        }
    }
}

pub(super) struct World {
    pub(super) machine: AddressMachine,
    pub(super) setup: AddressSetup,
    pub(super) now: Now,
    pub(super) router: ModelRouter,
    /// Given to the driver and not answered.
    pub(super) outstanding: Option<(OperationId, RouterOperation)>,
    /// Writes under way in the network, with the time until which the router would accept them.
    pub(super) late: Vec<(RouterOperation, Monotonic)>,
    pub(super) last_answer: Option<(OperationId, Result<RouterResult, RouterError>)>,
    pub(super) journal: Vec<Record<AddressEvent>>,
    pub(super) volatile: VecDeque<Record<AddressEvent>>,
    pub(super) held: VecDeque<Sequenced<AddressOutput>>,
    /// What the station was told.
    pub(super) announced: BTreeMap<NodeId, Ipv4Addr>,
    /// What the station wants of each host, until it was told that a released one is unmapped. The station's facts
    /// outlive a crash, and it says all of it again when it recovers (`StationMachine::recover`).
    pub(super) wishes: BTreeMap<NodeId, AddressInput>,
    pub(super) batches_asked: u64,
    pub(super) grants: u64,
}

impl World {
    pub(super) fn new(conditional_create: bool) -> Self {
        let setup = setup(conditional_create);
        let now = Now::from_seconds(1000);
        let mut world = Self {
            machine: AddressMachine::recover(setup.clone(), now, []),
            setup,
            now,
            router: ModelRouter { table: NatTable::default(), conditional_create },
            outstanding: None,
            late: Vec::new(),
            last_answer: None,
            journal: Vec::new(),
            volatile: VecDeque::new(),
            held: VecDeque::new(),
            announced: BTreeMap::new(),
            wishes: BTreeMap::new(),
            batches_asked: 0,
            grants: 0,
        };
        world.collect();
        world.sync();
        world
    }

    pub(super) fn input(&mut self, input: AddressInput) {
        self.machine.handle(self.now, input);
        self.collect();
    }

    pub(super) fn collect(&mut self) {
        self.machine.check_invariants();
        while let Some(record) = self.machine.poll_record() {
            self.volatile.push_back(record);
        }
        while let Some(output) = self.machine.poll_output() {
            self.held.push_back(output);
        }
    }

    /// The journal becomes durable, and the outputs are let out.
    pub(super) fn sync(&mut self) {
        self.journal.extend(self.volatile.drain(..));
        self.release(usize::MAX);
    }

    /// Lets out at most `count` of the outputs whose event is durable.
    pub(super) fn release(&mut self, count: usize) {
        let durable = self.journal.last().map(|record| record.sequence).unwrap_or_default();
        for _ in 0..count {
            let Some(output) = self.held.pop_front_if(|output| output.after <= durable) else { return };
            self.see(output.output);
        }
    }

    pub(super) fn see(&mut self, output: AddressOutput) {
        match output {
            AddressOutput::Router { id, operation } => {
                let intended = AddressEvent::Intended { id, operation };
                assert!(self.journal.iter().any(|record| record.event == intended), "no intent for {operation}");
                assert!(self.outstanding.is_none(), "two operations at a time");
                self.outstanding = Some((id, operation));
            }
            AddressOutput::Mapped { node, mapped, .. } => {
                let other = self.announced.iter().find(|(other, address)| **other != node && **address == mapped);
                assert_eq!(other, None, "{mapped} was announced for two hosts");
                self.announced.insert(node, mapped);
            }
            AddressOutput::Unmapped { node } => {
                self.announced.remove(&node);
                let over = matches!(self.wishes.get(&node), Some(AddressInput::Release { .. }));
                self.wishes.retain(|other, _| *other != node || !over);
            }
            AddressOutput::NeedBatch { .. } => self.batches_asked += 1,
            AddressOutput::BindRefused { .. } | AddressOutput::TableRead { .. } | AddressOutput::Attention(_) => {}
        }
    }

    pub(super) fn crash(&mut self, records: usize, outputs: usize) {
        let kept = records.min(self.volatile.len());
        self.journal.extend(self.volatile.drain(..kept));
        self.release(outputs);
        if let Some((_, operation)) = self.outstanding.take()
            && operation.row().is_some()
        {
            self.send_late(operation);
        }
        self.volatile.clear();
        self.held.clear();
        self.machine = AddressMachine::recover(self.setup.clone(), self.now, self.journal.iter().cloned());
        for wish in self.wishes.values() {
            self.machine.handle(self.now, wish.clone());
        }
        self.collect();
    }

    /// The station says what it wants of a host.
    pub(super) fn wish(&mut self, node: NodeId, wish: AddressInput) {
        self.wishes.insert(node, wish.clone());
        self.input(wish);
    }

    pub(super) fn move_inside(&mut self, node: NodeId, to: Ipv4Addr) {
        match self.wishes.get_mut(&node) {
            Some(AddressInput::Bind { inside, .. }) => *inside = to,
            Some(wish @ (AddressInput::InsideLost { .. } | AddressInput::InsideChanged { .. })) => {
                *wish = AddressInput::InsideChanged { node, inside: to };
            }
            _ => {}
        }
        self.input(AddressInput::InsideChanged { node, inside: to });
    }

    pub(super) fn send_late(&mut self, operation: RouterOperation) {
        self.late.push((operation, self.now.monotonic.after(Duration::from_secs(SNMP_SET_LIFETIME_SECONDS))));
    }

    pub(super) fn arrive_late(&mut self, which: usize) {
        self.late.retain(|(_, until)| *until > self.now.monotonic);
        if self.late.is_empty() {
            return;
        }
        let (operation, _) = self.late.remove(which % self.late.len());
        if let RouterOperation::Unmap { row } = operation {
            let desired = self.machine.state().desired();
            assert!(!desired.contains_key(&row), "a late destroy hits the row of a successor");
        }
        let _ = self.router.apply(operation);
    }

    pub(super) fn answer(&mut self, apply: bool, reply: bool) {
        let Some((id, operation)) = self.outstanding.take() else { return };
        let no_answer = RouterError::NoAnswer { router: "model".into(), waited_milliseconds: 1 };
        let result = if apply { self.router.apply(operation) } else { Err(no_answer.clone()) };
        let result = if reply { result } else { Err(no_answer) };
        self.last_answer = Some((id, result.clone()));
        self.input(AddressInput::RouterDone { id, result });
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        let end = self.now.monotonic.after(Duration::from_secs(seconds));
        while let Some(deadline) = self.machine.poll_timeout().filter(|deadline| deadline.at <= end) {
            let before = (self.machine.poll_timeout(), self.now);
            self.at(deadline.at.max(self.now.monotonic));
            self.machine.handle_timeout(self.now);
            self.collect();
            // An operation that the machine gave up counts as under way still.
            let given_up = self.machine.in_flight.as_ref().map(|in_flight| in_flight.id);
            if let Some((_, operation)) = self.outstanding.take_if(|(id, _)| Some(*id) != given_up)
                && operation.row().is_some()
            {
                self.send_late(operation);
            }
            assert_ne!((self.machine.poll_timeout(), self.now), before, "a deadline that does not pass");
            self.sync();
        }
        self.at(end);
    }

    pub(super) fn at(&mut self, monotonic: Monotonic) {
        self.now = Now { monotonic, wall: UnixSeconds(monotonic.0 / 1_000_000) };
    }

    pub(super) fn grant(&mut self) {
        let first = u8::try_from(self.grants * 4).unwrap_or(250).min(250);
        self.grants += 1;
        let batch = AddressBatch { first: mapped(first), last: mapped(first.saturating_add(3)) };
        self.input(AddressInput::Grant { serial: self.grants, batch });
    }

    /// Everything works from now on: drives the world until nothing is left to do.
    pub(super) fn heal(&mut self) {
        self.sync();
        while !self.late.is_empty() {
            self.arrive_late(0);
        }
        for _ in 0..400 {
            self.sync();
            if self.outstanding.is_some() {
                self.answer(true, true);
            } else {
                self.pass(20);
            }
        }
        self.sync();
    }

    pub(super) fn ours(&self) -> BTreeMap<RowIndex, DesiredRow> {
        let single = |range: Option<AddressRange>| range.unwrap().first;
        let ownership = &self.setup.ownership;
        let rows = self.router.table.rows.iter().filter_map(|(key, row)| {
            let index = ownership.index_of(*key, row)?;
            Some((index, DesiredRow { inside: single(row.inside), mapped: single(row.mapped) }))
        });
        rows.collect()
    }

    /// With conditional creation no announced address ever leads to another host.
    pub(super) fn check_no_double(&self) {
        if !self.router.conditional_create {
            return;
        }
        let owner: BTreeMap<RowIndex, NodeId> = self
            .journal
            .iter()
            .filter_map(|record| match record.event {
                AddressEvent::Bound { node, row, .. } | AddressEvent::Rebound { node, row, .. } => Some((row, node)),
                _ => None,
            })
            .collect();
        for (row, found) in self.ours() {
            for (node, address) in &self.announced {
                assert!(*address != found.mapped || owner.get(&row) == Some(node), "{address} leads to another host");
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Bind(u8, u8),
    Release(u8),
    InsideChanged(u8, u8),
    InsideLost(u8),
    Grant,
    Answer,
    LoseRequest,
    LoseAnswer,
    Late,
    AnswerAgain,
    ArriveLate(usize),
    Crash(usize, usize),
    Sync,
    Pass(u64),
    ForeignRow(u8, u8),
    ForeignGoes,
    RowVanishes(usize),
    RowChanges(usize),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..7_u8, 1..9_u8).prop_map(|(node, inside)| Step::Bind(node, inside)),
        2 => (1..7_u8).prop_map(Step::Release),
        2 => (1..7_u8, 1..9_u8).prop_map(|(node, inside)| Step::InsideChanged(node, inside)),
        1 => (1..7_u8).prop_map(Step::InsideLost),
        2 => Just(Step::Grant),
        8 => Just(Step::Answer),
        1 => Just(Step::LoseRequest),
        2 => Just(Step::LoseAnswer),
        2 => Just(Step::Late),
        1 => Just(Step::AnswerAgain),
        2 => (0..4_usize).prop_map(Step::ArriveLate),
        2 => (0..6_usize, 0..4_usize).prop_map(|(records, outputs)| Step::Crash(records, outputs)),
        6 => Just(Step::Sync),
        4 => prop_oneof![Just(1), Just(30), Just(100), Just(700)].prop_map(Step::Pass),
        1 => (0..12_u8, 1..9_u8).prop_map(|(mapped, inside)| Step::ForeignRow(mapped, inside)),
        1 => Just(Step::ForeignGoes),
        1 => (0..4_usize).prop_map(Step::RowVanishes),
        1 => (0..4_usize).prop_map(Step::RowChanges),
    ]
}

pub(super) fn take(world: &mut World, step: &Step) {
    let machine_identifier = |number: u8| format!("machine-{number}");
    match *step {
        Step::Bind(number, last) => {
            let (node, machine_identifier, inside) = (node(number), machine_identifier(number), inside(last));
            world.wish(node, AddressInput::Bind { node, machine_identifier, inside });
        }
        Step::Release(number) => {
            world.wish(node(number), AddressInput::Release { node: node(number) });
        }
        Step::InsideChanged(number, last) => world.move_inside(node(number), inside(last)),
        Step::InsideLost(number) => {
            let lost = AddressInput::InsideLost { node: node(number) };
            if matches!(world.wishes.get(&node(number)), Some(AddressInput::Release { .. }) | None) {
                world.input(lost);
            } else {
                world.wish(node(number), lost);
            }
        }
        Step::Grant => world.grant(),
        Step::Answer => world.answer(true, true),
        Step::LoseRequest => world.answer(false, false),
        Step::LoseAnswer => world.answer(true, false),
        Step::Late => {
            if let Some((_, operation)) = world.outstanding
                && operation.row().is_some()
            {
                world.send_late(operation);
            }
            world.answer(false, false);
        }
        Step::AnswerAgain => {
            if let Some((id, result)) = world.last_answer.clone() {
                world.input(AddressInput::RouterDone { id, result });
            }
        }
        Step::ArriveLate(which) => world.arrive_late(which),
        Step::Crash(records, outputs) => world.crash(records, outputs),
        Step::Sync => world.sync(),
        Step::Pass(seconds) => world.pass(seconds),
        Step::ForeignRow(to, from) => {
            let key = RowKey { interface: INTERFACE, index: 1 };
            let row = NatRow::one_to_one("mail", inside(from), mapped(to));
            let free =
                world.router.table.rows.values().all(|other| other.mapped != row.mapped && other.inside != row.inside);
            if free {
                world.router.table.rows.insert(key, row);
            }
        }
        Step::ForeignGoes => {
            world.router.table.rows.remove(&RowKey { interface: INTERFACE, index: 1 });
        }
        Step::RowVanishes(which) => {
            if let Some(row) = world.ours().into_keys().nth(which) {
                world.router.table.rows.remove(&RowKey { interface: INTERFACE, index: row.raw() });
            }
        }
        Step::RowChanges(which) => {
            if let Some(row) = world.ours().into_keys().nth(which) {
                let key = RowKey { interface: INTERFACE, index: row.raw() };
                let changed = NatRow::one_to_one("branchline", inside(200), mapped(200));
                world.router.table.rows.insert(key, changed);
            }
        }
    }
}
