//! The pump: takes inputs, drives one machine, journals its events, and lets outputs go when they are safe.
use std::collections::VecDeque;

use anyhow::{Context, Result, ensure};
use branchline_protocol::machine::{Journaled, Machine, Record, Sequence, Sequenced};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use super::clock::Clock;
use crate::store::journal::{JournalStore, JournalWriter};

/// Inputs that may wait for one machine; senders wait beyond it.
const INPUTS_MAX: usize = 4096;
/// Why a machine says nothing any more.
const ENDED: &str = "this role of the node has ended, or the node is shutting down";

/// Carries out what a machine wants. It must not block: longer work is spawned and comes back as an input.
pub trait Effects<M: Machine>: Send + 'static {
    /// Does one thing.
    fn perform(&mut self, output: M::Output);

    /// Called after a batch of inputs, with the machine to look at: views for commands are refreshed here.
    fn observe(&mut self, _machine: &M) {}
}

type Query<M> = Box<dyn FnOnce(&M) + Send>;

enum Message<M: Machine> {
    Input(M::Input),
    Query(Query<M>),
    End(oneshot::Sender<()>),
}

/// The way into a pump; cheap to clone.
pub struct PumpHandle<M: Machine> {
    sender: mpsc::Sender<Message<M>>,
}

impl<M: Machine> Clone for PumpHandle<M> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

impl<M: Machine + 'static> PumpHandle<M>
where
    M::Input: Send,
{
    /// Hands an input to the machine; waits where many are waiting. An ended pump swallows it.
    pub async fn input(&self, input: M::Input) {
        let _ = self.sender.send(Message::Input(input)).await;
    }

    /// Looks at the machine between two inputs.
    ///
    /// # Errors
    /// The pump has ended.
    pub async fn query<T: Send + 'static>(&self, look: impl FnOnce(&M) -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let query: Query<M> = Box::new(move |machine| {
            let _ = sender.send(look(machine));
        });
        self.sender.send(Message::Query(query)).await.ok().context(ENDED)?;
        receiver.await.context(ENDED)
    }

    /// Ends the pump after everything that was handed to it before. Once this resolves the machine's journal is durable,
    /// and nobody writes to it any more, whoever still holds a handle: the next machine of this node may open it.
    pub async fn end(&self) {
        let (done, ended) = oneshot::channel();
        // A pump that is gone already drops the message, or never gets it.
        if self.sender.send(Message::End(done)).await.is_ok() {
            let _ = ended.await;
        }
    }
}

/// The tasks of one machine that end with it: a machine that nobody holds must not go on writing its journal, or the next
/// one of this node would meet its events.
pub struct Tasks(Vec<AbortHandle>);

impl Tasks {
    /// Ends these when it is dropped.
    pub fn new(tasks: impl IntoIterator<Item = AbortHandle>) -> Self {
        Self(tasks.into_iter().collect())
    }

    /// Ends them now.
    pub fn abort(&self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.abort();
    }
}

/// One machine with its journal and its effects.
pub struct Pump<M: Journaled, E> {
    machine: M,
    writer: JournalWriter,
    durable: watch::Receiver<Sequence>,
    /// The last event that was handed to the journal.
    appended: Sequence,
    waiting: VecDeque<Sequenced<M::Output>>,
    effects: E,
    clock: Clock,
    receiver: mpsc::Receiver<Message<M>>,
}

/// Makes the channel first, because effects need the handle before the pump exists.
pub fn channel<M: Machine>() -> (PumpHandle<M>, PumpInputs<M>) {
    let (sender, receiver) = mpsc::channel(INPUTS_MAX);
    (PumpHandle { sender }, PumpInputs { receiver })
}

/// The receiving end of [`channel`].
pub struct PumpInputs<M: Machine> {
    receiver: mpsc::Receiver<Message<M>>,
}

impl<M, E> Pump<M, E>
where
    M: Journaled + Send + 'static,
    M::Input: Send,
    M::Output: Send,
    M::Event: Send + Sync,
    E: Effects<M>,
{
    /// Recovers the machine from its journal.
    ///
    /// # Errors
    /// The journal cannot be read, or another pump still writes it.
    pub fn recover(
        store: &JournalStore,
        name: &'static str,
        setup: M::Setup,
        clock: Clock,
        inputs: PumpInputs<M>,
        effects: E,
    ) -> Result<Self> {
        // First the writer: from here on nobody else adds to what is read.
        let writer = store.writer(name)?;
        let records: Vec<Record<M::Event>> = store.read(name)?;
        let machine = M::recover(setup, clock.now(), records);
        let durable = writer.durable();
        let (appended, waiting, receiver) = (*durable.borrow(), VecDeque::new(), inputs.receiver);
        Ok(Self { machine, writer, durable, appended, waiting, effects, clock, receiver })
    }

    /// The machine as its journal left it.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Runs until every handle is gone, or one of them ends it.
    ///
    /// # Errors
    /// The journal's thread has ended.
    pub async fn run(mut self) -> Result<()> {
        loop {
            self.drain().await?;
            self.effects.observe(&self.machine);
            let deadline = self.machine.poll_timeout().map(|deadline| self.clock.instant(deadline.at));
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = self.receiver.recv() => match message {
                    None => return Ok(()),
                    Some(Message::End(done)) => {
                        self.end().await?;
                        // Whoever asked may have gone.
                        let _ = done.send(());
                        return Ok(());
                    }
                    Some(Message::Query(query)) => query(&self.machine),
                    Some(Message::Input(input)) => self.take(input),
                },
                () = sleep => self.machine.handle_timeout(self.clock.now()),
                changed = self.durable.changed() => changed.context("the journal's thread has ended")?,
            }
        }
    }

    fn take(&mut self, input: M::Input) {
        self.machine.handle(self.clock.now(), input);
        if cfg!(debug_assertions) {
            self.machine.check_invariants();
        }
    }

    /// Waits until all that was journaled is durable and the journal's thread has ended, and lets go what waited for that.
    async fn end(&mut self) -> Result<()> {
        self.writer.close();
        while self.durable.changed().await.is_ok() {}
        let durable = *self.durable.borrow();
        self.perform(durable);
        // A thread that broke looks like one that was done, and the next station would get a journal with a gap.
        ensure!(durable >= self.appended, "the journal's thread has ended before it wrote all");
        Ok(())
    }

    async fn drain(&mut self) -> Result<()> {
        while let Some(record) = self.machine.poll_record() {
            self.writer.append(&record).await?;
            self.appended = record.sequence;
        }
        while let Some(output) = self.machine.poll_output() {
            self.waiting.push_back(output);
        }
        let durable = *self.durable.borrow_and_update();
        self.perform(durable);
        Ok(())
    }

    fn perform(&mut self, durable: Sequence) {
        while self.waiting.front().is_some_and(|output| output.after <= durable) {
            if let Some(output) = self.waiting.pop_front() {
                self.effects.perform(output.output);
            }
        }
    }
}
