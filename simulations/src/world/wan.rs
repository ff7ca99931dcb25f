//! The thin line between headquarters and the site.
use std::{collections::BTreeMap, time::Duration};

use branchline_protocol::{ids::PackId, time::Monotonic};

/// The line: bytes leave one after the other at its rate, and every frame byte that crosses it is counted.
#[derive(Clone, Debug)]
pub struct Wan {
    /// Bytes per second into the site.
    pub rate_bytes_per_second: u64,
    free_at: Monotonic,
    down_until: Monotonic,
    crossed: BTreeMap<PackId, u64>,
    /// Every frame is counted twice: a sabotage.
    pub(crate) doubled: bool,
}

impl Wan {
    /// An idle line.
    pub fn new(rate_bytes_per_second: u64) -> Self {
        let (free_at, down_until) = (Monotonic(0), Monotonic(0));
        let rate_bytes_per_second = rate_bytes_per_second.max(1);
        Self { rate_bytes_per_second, free_at, down_until, crossed: BTreeMap::new(), doubled: false }
    }

    /// The line is down from now until `until`: nothing is sent, what is under way still arrives.
    pub fn cut(&mut self, until: Monotonic) {
        self.down_until = self.down_until.max(until);
    }

    /// Whether the line is up.
    pub fn is_up(&self, now: Monotonic) -> bool {
        now >= self.down_until
    }

    /// Sends `bytes` of a pack behind all that was sent before, and says when the last of them arrives.
    pub fn send_frame(&mut self, now: Monotonic, pack: PackId, bytes: u64) -> Monotonic {
        *self.crossed.entry(pack).or_default() += if self.doubled { 2 * bytes } else { bytes };
        let begin = now.max(self.free_at).max(self.down_until);
        let microseconds = bytes.saturating_mul(1_000_000) / self.rate_bytes_per_second;
        self.free_at = begin.after(Duration::from_micros(microseconds));
        self.free_at
    }

    /// Frame bytes of a pack that crossed the line: what R70 bounds.
    pub fn crossed(&self, pack: PackId) -> u64 {
        self.crossed.get(&pack).copied().unwrap_or(0)
    }

    /// Frame bytes of all packs.
    pub fn crossed_in_all(&self) -> u64 {
        self.crossed.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use branchline_protocol::ids::Hash;

    #[test]
    fn bytes_queue_behind_each_other_and_wait_out_an_outage() {
        let pack = PackId(Hash::of(b"pack"));
        let mut wan = Wan::new(1000);
        assert_eq!(wan.send_frame(Monotonic(0), pack, 500), Monotonic(500_000));
        assert_eq!(wan.send_frame(Monotonic(0), pack, 500), Monotonic(1_000_000));
        wan.cut(Monotonic::from_seconds(5));
        assert!(!wan.is_up(Monotonic::from_seconds(4)));
        assert_eq!(wan.send_frame(Monotonic::from_seconds(4), pack, 1000), Monotonic::from_seconds(6));
        assert_eq!((wan.crossed(pack), wan.crossed_in_all()), (2000, 2000));
    }
}
