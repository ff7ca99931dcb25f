//! A machine as its runtime drives it.
use branchline_protocol::{
    machine::{Journaled, Record, Sequence, Sequenced},
    time::Now,
};

/// A machine, its journal and the outputs that wait for it.
pub struct Process<M: Journaled> {
    pub machine: M,
    pub journal: Vec<Record<M::Event>>,
    pub durable: Sequence,
    pub waiting: Vec<Sequenced<M::Output>>,
    pub incarnation: u32,
}

impl<M: Journaled> Process<M>
where
    M::Event: Clone,
{
    pub fn start(setup: M::Setup, now: Now) -> Self {
        let machine = M::recover(setup, now, Vec::new());
        Self { machine, journal: Vec::new(), durable: Sequence(0), waiting: Vec::new(), incarnation: 0 }
    }

    /// Kills it and starts it again from what was durable.
    pub fn crash(&mut self, setup: M::Setup, now: Now) {
        let durable = self.durable;
        self.journal.retain(|record| record.sequence <= durable);
        self.waiting.clear();
        self.machine = M::recover(setup, now, self.journal.clone());
        self.incarnation += 1;
    }

    /// Writes the journal if `sync`, and takes the outputs that may go.
    pub fn drain(&mut self, sync: bool) -> Vec<M::Output> {
        while let Some(record) = self.machine.poll_record() {
            assert_eq!(
                record.sequence.0,
                self.journal.last().map_or(0, |last| last.sequence.0) + 1,
                "gap in a journal"
            );
            self.journal.push(record);
        }
        while let Some(output) = self.machine.poll_output() {
            self.waiting.push(output);
        }
        if sync {
            self.durable = self.journal.last().map_or(Sequence(0), |last| last.sequence);
        }
        let durable = self.durable;
        let (go, wait) = std::mem::take(&mut self.waiting).into_iter().partition(|output| output.after <= durable);
        self.waiting = wait;
        let go: Vec<Sequenced<M::Output>> = go;
        go.into_iter().map(|sequenced| sequenced.output).collect()
    }
}
