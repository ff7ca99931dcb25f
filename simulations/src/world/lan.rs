//! Control messages: lost, doubled, late, out of order.
use std::time::Duration;

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
        let perfect = Link::perfect(Duration::from_millis(1));
        assert_eq!(perfect.deliveries(&mut chance), [Duration::from_millis(1)]);
    }
}
