//! A journaled machine on a disk: the loop of the runtime under virtual time.
use std::collections::VecDeque;

use branchline_protocol::{
    machine::{Deadline, Journaled, Sequenced},
    time::{Monotonic, Now, UnixSeconds},
};

use super::{chance::Chance, disk::Disk};

/// A machine that runs, or that is down and has only its disk.
pub struct Driven<M: Journaled>
where
    M::Event: Clone,
{
    machine: Option<M>,
    disk: Disk<M::Event>,
    /// Outputs that wait until the journal is durable.
    held: VecDeque<Sequenced<M::Output>>,
    /// Grows with each start; what belongs to an earlier life means nothing.
    life: u32,
    /// When this life began: a machine's monotonic clock starts anew with each process.
    born: Monotonic,
    /// How far this machine's wall clock is off, in seconds.
    wall_offset: i64,
}

impl<M: Journaled> Driven<M>
where
    M::Event: Clone,
{
    /// A machine that has never run.
    pub fn new(setup: M::Setup, now: Now) -> Self {
        let (machine, held) = (None, VecDeque::new());
        let mut driven = Self { machine, disk: Disk::default(), held, life: 0, born: Monotonic(0), wall_offset: 0 };
        driven.start(setup, now);
        driven
    }

    /// Starts the machine from what is durable.
    pub fn start(&mut self, setup: M::Setup, now: Now) {
        self.life += 1;
        self.born = now.monotonic;
        let local = self.local(now);
        self.machine = Some(M::recover(setup, local, self.disk.records().iter().cloned()));
        self.collect();
    }

    /// The machine, while it runs.
    pub fn machine(&self) -> Option<&M> {
        self.machine.as_ref()
    }

    /// What is durable.
    pub fn disk(&self) -> &Disk<M::Event> {
        &self.disk
    }

    /// Gives an input to a running machine, and says whether it runs.
    pub fn handle(&mut self, now: Now, input: M::Input) -> bool {
        let local = self.local(now);
        let Some(machine) = &mut self.machine else { return false };
        machine.handle(local, input);
        self.collect();
        true
    }

    /// The outputs that may go, oldest first. An output never overtakes an earlier one.
    pub fn release(&mut self) -> Vec<M::Output> {
        let durable = self.disk.durable_to();
        let mut released = Vec::new();
        while self.held.front().is_some_and(|held| held.after <= durable) {
            released.extend(self.held.pop_front().map(|held| held.output));
        }
        released
    }

    fn local(&self, now: Now) -> Now {
        let monotonic = Monotonic(now.monotonic.0.saturating_sub(self.born.0));
        Now { monotonic, wall: UnixSeconds(now.wall.0.saturating_add_signed(self.wall_offset)) }
    }

    /// Loses everything that was durable, as no disk may.
    pub(crate) fn lose_everything(&mut self) {
        self.disk = Disk::default();
        self.held.clear();
    }

    fn collect(&mut self) {
        let Some(machine) = &mut self.machine else { return };
        machine.check_invariants();
        while let Some(record) = machine.poll_record() {
            self.disk.append(record);
        }
        while let Some(output) = machine.poll_output() {
            self.held.push_back(output);
        }
    }
}

/// What the world needs of a process, whatever machine it runs.
pub trait Process {
    /// Whether it runs.
    fn is_up(&self) -> bool;
    /// How often it was started.
    fn life(&self) -> u32;
    /// Whether a commit would make something durable.
    fn is_dirty(&self) -> bool;
    /// The group commit.
    fn commit(&mut self);
    /// The machine's next deadline.
    fn deadline(&self) -> Option<Deadline>;
    /// Calls the machine where its deadline has come.
    fn handle_timeout(&mut self, now: Now);
    /// It dies.
    fn crash(&mut self, chance: &mut Chance);
    /// It ends in good order: what was written is durable.
    fn stop(&mut self);
    /// Puts the wall clock off by so many seconds.
    fn set_wall_offset(&mut self, seconds: i64);
}

impl<M: Journaled> Process for Driven<M>
where
    M::Event: Clone,
{
    fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    fn life(&self) -> u32 {
        self.life
    }

    fn is_dirty(&self) -> bool {
        self.disk.is_dirty()
    }

    fn commit(&mut self) {
        self.disk.commit();
    }

    fn deadline(&self) -> Option<Deadline> {
        let local = self.machine.as_ref()?.poll_timeout()?;
        Some(Deadline { at: Monotonic(local.at.0.saturating_add(self.born.0)), reason: local.reason })
    }

    fn handle_timeout(&mut self, now: Now) {
        let local = self.local(now);
        let Some(machine) = &mut self.machine else { return };
        if machine.poll_timeout().is_some_and(|deadline| deadline.at <= local.monotonic) {
            machine.handle_timeout(local);
            self.collect();
        }
    }

    fn crash(&mut self, chance: &mut Chance) {
        self.machine = None;
        self.held.clear();
        self.disk.crash(chance);
    }

    fn stop(&mut self) {
        self.disk.commit();
        self.machine = None;
        self.held.clear();
    }

    fn set_wall_offset(&mut self, seconds: i64) {
        self.wall_offset = seconds;
    }
}
