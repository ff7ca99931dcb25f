//! Slots, windows and installations of one site; the station's own queue decides whose turn it is (R22).
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use branchline_station_role::station::slots::SlotQueue;

use super::{
    scenario::Window,
    units::{NEVER, Time, time},
};

/// When slots are given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    /// Opens, lasts, every.
    windows: Vec<(Time, Time, Time)>,
    outage: Option<(Time, Time)>,
}

impl Gate {
    pub fn new(windows: &[Window], outage: Option<(Time, Time)>) -> Self {
        let window = |window: &Window| {
            (time(window.opens_seconds), time(window.lasts_seconds), time(window.every_seconds).max(1))
        };
        Self { windows: windows.iter().map(window).collect(), outage }
    }

    /// The first moment from `at` on at which slots are given.
    pub fn next_open(&self, at: Time) -> Time {
        let opens = self.windows.iter().map(|window| next_in(*window, at)).min().unwrap_or(at);
        match self.outage {
            // One more look is enough: there is one outage.
            Some((from, until)) if (from..until).contains(&opens) => {
                self.windows.iter().map(|window| next_in(*window, until)).min().unwrap_or(until)
            }
            _ => opens,
        }
    }
}

fn next_in((opens, lasts, every): (Time, Time, Time), at: Time) -> Time {
    if at < opens {
        return opens;
    }
    let since = (at - opens) % every;
    if since < lasts { at } else { at.saturating_add(every - since) }
}

/// What came of one host's wait and installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub started: Time,
    pub ended: Time,
    /// When the host is gone for good: it waits and installs no longer.
    pub gone: Time,
}

/// What came of one site's installations.
pub(crate) struct Installed {
    pub turns: Vec<Turn>,
    pub queue_length_max: u32,
    pub inputs: u64,
}

/// Installs on every host that is ever ready. One that is gone from a time on gives its slot up then, and is never done;
/// where it still waits, its turn passes to the next.
pub(crate) fn install(
    ready: &[Time],
    sessions_limit: u32,
    gate: &Gate,
    install_time: impl Fn(u32) -> Time,
    gone_from: impl Fn(u32) -> Time,
) -> Installed {
    let mut arrivals: Vec<(Time, u32)> =
        ready.iter().zip(0..).filter(|(at, _)| **at != NEVER).map(|(at, host)| (*at, host)).collect();
    arrivals.sort_unstable();
    let mut arrivals = arrivals.into_iter().peekable();
    let turn = |host| Turn { started: NEVER, ended: NEVER, gone: gone_from(host) };
    let mut turns: Vec<Turn> = (0..ready.len() as u32).map(turn).collect();
    let mut queue: SlotQueue<u32, ()> = SlotQueue::new(sessions_limit, 0, BTreeMap::new());
    let mut ends: BinaryHeap<Reverse<(Time, u32)>> = BinaryHeap::new();
    let mut opens = NEVER;
    let mut inputs = 0;
    loop {
        let end = ends.peek().map_or(NEVER, |Reverse((at, _))| *at);
        let now = arrivals.peek().map_or(NEVER, |(at, _)| *at).min(end).min(opens);
        if now == NEVER {
            let queue_length_max = longest_queue(ready, &turns);
            return Installed { turns, queue_length_max, inputs };
        }
        // Whoever gives a slot back at this moment does so before others ask for one.
        while ends.peek().is_some_and(|Reverse((at, _))| *at == now) {
            ends.pop();
            queue.give_back(None);
            inputs += 1;
        }
        while let Some((at, host)) = arrivals.next_if(|(at, _)| *at == now) {
            queue.request(host, 0, at, None);
            inputs += 1;
        }
        opens = gate.next_open(now);
        if opens == now {
            opens = NEVER;
            for host in queue.grant() {
                let ended = now.saturating_add(install_time(host));
                let turn = &mut turns[host as usize];
                if turn.gone > now {
                    (turn.started, turn.ended) = (now, if turn.gone < ended { NEVER } else { ended });
                }
                ends.push(Reverse((ended.min(turn.gone.max(now)), host)));
            }
        } else if queue.length() == 0 {
            opens = NEVER;
        }
    }
}

/// The most hosts that waited at a time. Those that are gone stand in the queue until their turn, and wait no longer.
fn longest_queue(ready: &[Time], turns: &[Turn]) -> u32 {
    let waits = ready.iter().zip(turns).map(|(ready, turn)| (*ready, turn.started.min(turn.gone)));
    // Whoever stops waiting at a moment does so before others begin.
    let mut changes: Vec<(Time, i32)> =
        waits.filter(|(from, until)| from < until).flat_map(|(from, until)| [(until, -1), (from, 1)]).collect();
    changes.sort_unstable();
    let waiting = changes.iter().scan(0, |waiting, (_, change)| {
        *waiting += change;
        Some(*waiting)
    });
    waiting.max().unwrap_or(0).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::units::SECOND;

    #[test]
    fn windows_open_again_and_wait_for_a_successor() {
        let window = Window { opens_seconds: 100.0, lasts_seconds: 10.0, every_seconds: 50.0 };
        let gate = Gate::new(&[window], Some((150 * SECOND, 205 * SECOND)));
        let opens = |seconds: u64| gate.next_open(seconds * SECOND) / SECOND;
        assert_eq!([0, 100, 109, 110, 150, 160].map(opens), [100, 100, 109, 205, 205, 205]);
        assert_eq!(gate.next_open(211 * SECOND) / SECOND, 250);
        assert_eq!(Gate::default().next_open(7), 7);
    }

    #[test]
    fn slots_are_given_in_the_order_of_asking() {
        let ready = [5, 0, 0, NEVER, 1];
        let done = install(&ready, 2, &Gate::default(), |_| 10, |_| NEVER);
        let started: Vec<Time> = done.turns.iter().map(|turn| turn.started).collect();
        assert_eq!(started, [10, 0, 0, NEVER, 10]);
        assert_eq!((done.queue_length_max, done.inputs), (2, 8));
    }

    #[test]
    fn who_is_gone_neither_waits_nor_installs() {
        // One slot; the second is gone while it waits, the third while it installs.
        let gone = [NEVER, 4, 12, NEVER];
        let done = install(&[0, 1, 2, 3], 1, &Gate::default(), |_| 10, |host| gone[host as usize]);
        let turns: Vec<(Time, Time)> = done.turns.iter().map(|turn| (turn.started, turn.ended)).collect();
        assert_eq!(turns, [(0, 10), (NEVER, NEVER), (10, NEVER), (12, 22)]);
        assert_eq!(done.queue_length_max, 3);
    }

    #[test]
    fn an_installation_that_takes_no_time_ends_at_once() {
        let done = install(&[3, 3, 3], 1, &Gate::default(), |_| 0, |_| NEVER);
        assert!(done.turns.iter().all(|turn| *turn == Turn { started: 3, ended: 3, gone: NEVER }));
    }
}
