//! The contract of a machine.
//!
//! A machine decides and does nothing else. The loop that owns it, in the runtime or in a simulated world, does this:
//!
//! 1. calls [`Machine::handle`] with the time and one input, or [`Machine::handle_timeout`] once the deadline that
//!    [`Machine::poll_timeout`] named has come;
//! 2. takes what [`Machine::poll_output`] gives until it gives `None`.
//!
//! A machine that must survive a crash is [`Journaled`]. It takes an input and advances at once; every change of its
//! state is an event, and the state is the fold of the events. Each output carries `after`, the sequence of the last
//! event it depends on, and the loop holds the output back until the journal is durable up to there (group commit).
//! If the journal cannot be written the process ends: a machine never learns of a lost event.
use serde::{Deserialize, Serialize};

use crate::time::{Monotonic, Now};

/// The position of an event in a machine's journal; the first event has 1, and 0 means "depends on nothing".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The sequence that follows.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// When a machine wants to be called next, and why (the reason appears in traces and in the stepper).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Call [`Machine::handle_timeout`] at this time or later.
    pub at: Monotonic,
    /// A short constant such as `"retry the router"`.
    pub reason: &'static str,
}

impl Deadline {
    /// The earlier of two optional deadlines.
    pub fn earlier(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (one, other) => one.or(other),
        }
    }
}

/// An output, and the event that must be durable before anybody may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequenced<T> {
    /// Hold the output back until the journal is durable up to and including this event.
    pub after: Sequence,
    /// What to do.
    pub output: T,
}

/// A pure state machine; see the module's description for how it is driven.
pub trait Machine {
    /// What can happen to it.
    type Input;
    /// What it wants done.
    type Output;

    /// Takes one input. Never blocks, never fails: what cannot be accepted leads to an output that says so.
    fn handle(&mut self, now: Now, input: Self::Input);

    /// Tells the machine that its deadline has come. Calling it early is harmless.
    fn handle_timeout(&mut self, now: Now);

    /// The next thing to do, oldest first.
    fn poll_output(&mut self) -> Option<Sequenced<Self::Output>>;

    /// The next deadline, if any.
    fn poll_timeout(&self) -> Option<Deadline>;

    /// Panics with a description where an invariant is broken. Called after every input in debug builds and by every
    /// simulated world.
    fn check_invariants(&self) {}
}

/// One event with its place in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<E> {
    /// Its place.
    pub sequence: Sequence,
    /// What happened.
    pub event: E,
}

/// A machine whose state is the fold of its events.
pub trait Journaled: Machine + Sized {
    /// What is written to the journal.
    type Event: Serialize + for<'de> Deserialize<'de>;
    /// What the machine is built from besides its events: configuration, identity, a random seed.
    type Setup;

    /// Builds the machine from its journal; an empty journal gives a new machine. After it, the first outputs restart
    /// whatever was under way.
    fn recover(setup: Self::Setup, now: Now, events: impl IntoIterator<Item = Record<Self::Event>>) -> Self;

    /// The next event to append to the journal, in order, without gaps.
    fn poll_record(&mut self) -> Option<Record<Self::Event>>;
}
