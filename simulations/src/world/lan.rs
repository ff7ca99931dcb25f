//! Control messages: lost, doubled, late, out of order; and the count of what happened to them.
use std::{collections::BTreeMap, time::Duration};

use branchline_protocol::time::Monotonic;

use super::chance::Chance;

/// One kind of path between two nodes. A message takes a time of its own, so that a later one may overtake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Messages that never arrive, in thousandths.
    pub lost_per_mille: u32,
    /// Messages that arrive twice, in thousandths.
    pub doubled_per_mille: u32,
    /// Messages that arrive very late, in thousandths.
    pub straggling_per_mille: u32,
    /// Shortest way.
    pub shortest: Duration,
    /// Longest way.
    pub longest: Duration,
    /// Longest way of a straggler.
    pub straggler_longest: Duration,
}

impl Link {
    /// A path without faults.
    pub const fn perfect(delay: Duration) -> Self {
        Self {
            lost_per_mille: 0,
            doubled_per_mille: 0,
            straggling_per_mille: 0,
            shortest: delay,
            longest: delay,
            straggler_longest: delay,
        }
    }

    /// How long each copy of one message is under way; empty where it is lost.
    pub fn deliveries(&self, chance: &mut Chance) -> Vec<Duration> {
        let copies = if chance.happens(self.lost_per_mille) {
            0
        } else if chance.happens(self.doubled_per_mille) {
            2
        } else {
            1
        };
        let mut way = |_| {
            let straggles = chance.happens(self.straggling_per_mille);
            chance.between(self.shortest, if straggles { self.straggler_longest } else { self.longest })
        };
        (0..copies).map(&mut way).collect()
    }
}

/// What happened to messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// Messages that were sent.
    pub sent: u64,
    /// Of them, those that never arrived.
    pub lost: u64,
    /// Those that arrived twice.
    pub doubled: u64,
    /// Those whose first copy arrived before that of an earlier message of the same path.
    pub overtaking: u64,
}

/// Counts messages on paths that are told apart by `P`: a kind of message and its two ends.
#[derive(Clone, Debug)]
pub struct MessageWatch<P> {
    counts: MessageCounts,
    /// When the last first copy of what was sent so far arrives.
    latest: BTreeMap<P, Monotonic>,
}

impl<P> Default for MessageWatch<P> {
    fn default() -> Self {
        Self { counts: MessageCounts::default(), latest: BTreeMap::new() }
    }
}

impl<P: Ord> MessageWatch<P> {
    /// Notes a message that is sent at `now`, with how long each of its copies is under way.
    pub fn sent(&mut self, path: P, now: Monotonic, ways: &[Duration]) {
        self.counts.sent += 1;
        self.counts.lost += u64::from(ways.is_empty());
        self.counts.doubled += u64::from(ways.len() > 1);
        let Some(arrival) = ways.iter().map(|way| now.after(*way)).min() else { return };
        let before = self.latest.get(&path).copied().unwrap_or_default();
        self.counts.overtaking += u64::from(arrival < before);
        self.latest.insert(path, before.max(arrival));
    }

    /// The counts so far.
    pub fn counts(&self) -> MessageCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faulty_link_loses_doubles_and_reorders() {
        let link = Link {
            lost_per_mille: 200,
            doubled_per_mille: 100,
            straggling_per_mille: 50,
            shortest: Duration::from_millis(1),
            longest: Duration::from_millis(10),
            straggler_longest: Duration::from_secs(5),
        };
        let mut chance = Chance::new(1);
        let sent: Vec<_> = (0..1000).map(|_| link.deliveries(&mut chance)).collect();
        assert!(sent.iter().any(Vec::is_empty) && sent.iter().any(|copies| copies.len() == 2));
        assert!(sent.iter().flatten().any(|way| *way > Duration::from_secs(1)));
        let mut watch = MessageWatch::default();
        for (number, ways) in (0..).zip(&sent) {
            watch.sent(number % 2, Monotonic(number * 1_000), ways);
        }
        let counts = watch.counts();
        assert_eq!(counts.sent, 1000);
        assert_eq!(counts.lost, sent.iter().filter(|ways| ways.is_empty()).count() as u64);
        assert_eq!(counts.doubled, sent.iter().filter(|ways| ways.len() == 2).count() as u64);
        assert!(counts.overtaking > 300, "of a thousand in a second with ways of up to 10 ms: {counts:?}");
        let perfect = Link::perfect(Duration::from_millis(1));
        assert_eq!(perfect.deliveries(&mut chance), [Duration::from_millis(1)]);
        let mut watch = MessageWatch::default();
        for number in 0..100 {
            watch.sent((), Monotonic(number), &perfect.deliveries(&mut chance));
        }
        assert_eq!(watch.counts(), MessageCounts { sent: 100, ..MessageCounts::default() });
    }
}
