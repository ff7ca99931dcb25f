//! Virtual time: an agenda of what happens when.
use std::{collections::BTreeMap, time::Duration};

use branchline_protocol::time::{Monotonic, Now, UnixSeconds};

/// The wall clock at the world's start.
pub const WALL_START: UnixSeconds = UnixSeconds(1_800_000_000);

/// What is to happen, in order of time; what falls on one instant happens in the order in which it was planned.
#[derive(Clone, Debug)]
pub struct Agenda<E> {
    now: Monotonic,
    planned: u64,
    events: BTreeMap<(Monotonic, u64), E>,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { now: Monotonic(0), planned: 0, events: BTreeMap::new() }
    }
}

impl<E> Agenda<E> {
    /// The present, on both clocks.
    pub fn now(&self) -> Now {
        Now { monotonic: self.now, wall: WALL_START.after(self.now.0 / 1_000_000) }
    }

    /// Plans an event; one that lies in the past happens next.
    pub fn at(&mut self, at: Monotonic, event: E) {
        self.planned += 1;
        self.events.insert((at.max(self.now), self.planned), event);
    }

    /// Plans an event `wait` from now.
    pub fn after(&mut self, wait: Duration, event: E) {
        self.at(self.now.after(wait), event);
    }

    /// Goes on to the next event and takes it.
    pub fn pop(&mut self) -> Option<E> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some(event)
    }

    /// How many events are planned.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing will happen any more.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_instant_keep_their_order_and_time_never_goes_back() {
        let mut agenda = Agenda::default();
        agenda.after(Duration::from_secs(2), 'c');
        agenda.after(Duration::from_secs(1), 'a');
        agenda.after(Duration::from_secs(1), 'b');
        assert_eq!((agenda.pop(), agenda.pop()), (Some('a'), Some('b')));
        agenda.at(Monotonic(0), 'x');
        assert_eq!(agenda.pop(), Some('x'));
        assert_eq!(agenda.now().monotonic, Monotonic::from_seconds(1));
        assert_eq!(agenda.pop(), Some('c'));
        assert_eq!(agenda.now().wall, WALL_START.after(2));
        assert!(agenda.is_empty());
    }
}
