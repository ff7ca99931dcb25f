//! Token buckets.
use std::{collections::BTreeMap, time::Duration};

use super::rate::Rate;
use crate::time::Monotonic;

/// How much a bucket that was not used can let through at once, as time at its rate.
pub const BURST: Duration = Duration::from_millis(50);
/// The pieces in which a connection asks, as time at the rate: small enough that nothing else waits long behind one.
const PIECE: Duration = Duration::from_millis(2);
/// Shortest piece in bytes: what one segment of TCP holds.
const PIECE_BYTES_MIN: u64 = 1_448;
/// Longest piece in bytes.
const PIECE_BYTES_MAX: u64 = 64 << 10;
/// Tokens are counted in bytes times microseconds, so that no remainder is ever lost.
const SCALE: i128 = 1_000_000;

/// When bytes may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permit {
    /// From this time on; they are taken from the bucket already.
    At(Monotonic),
    /// Not before the rate changes; nothing was taken.
    Off,
}

/// Lets bytes through at a rate, with a burst of at most [`BURST`]. Who takes more than there is waits until it is paid
/// back, so that waiting ones go in the order in which they asked, and the mean is exact however late a timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    rate: Rate,
    /// Bytes times [`SCALE`]; negative: taken ahead of time.
    level: i128,
    filled_at: Monotonic,
}

impl TokenBucket {
    /// A bucket that starts without tokens, so that making one is no way to a burst.
    pub fn new(rate: Rate, now: Monotonic) -> Self {
        Self { rate, level: 0, filled_at: now }
    }

    /// The rate in force.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Changes the rate from now on. What was taken ahead of time is paid back at the new one.
    pub fn set_rate(&mut self, now: Monotonic, rate: Rate) {
        self.fill(now);
        self.rate = rate;
        self.level = self.level.min(self.burst());
    }

    /// The piece in which to ask: some milliseconds' worth.
    pub fn piece_bytes(&self) -> u64 {
        let bytes = |rate: u64| u64::try_from(u128::from(rate) * PIECE.as_micros() / 1_000_000).unwrap_or(u64::MAX);
        self.rate.bytes_per_second().map_or(PIECE_BYTES_MAX, bytes).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX)
    }

    fn bytes_per_second(&self) -> i128 {
        i128::from(self.rate.bytes_per_second().unwrap_or(u64::MAX))
    }

    fn burst(&self) -> i128 {
        self.bytes_per_second() * i128::try_from(BURST.as_micros()).unwrap_or(0)
    }

    fn fill(&mut self, now: Monotonic) {
        let elapsed = i128::from(now.0.saturating_sub(self.filled_at.0));
        self.filled_at = self.filled_at.max(now);
        if self.rate != Rate::Unlimited {
            self.level = (self.level + elapsed * self.bytes_per_second()).min(self.burst());
        }
    }

    /// When the next bytes may go, without taking any.
    fn free_at(&mut self, now: Monotonic) -> Permit {
        self.fill(now);
        match self.rate {
            Rate::Off => Permit::Off,
            Rate::Unlimited => Permit::At(now),
            Rate::Bits(_) if self.level >= 0 => Permit::At(now),
            Rate::Bits(_) => {
                let rate = self.bytes_per_second().max(1);
                let microseconds = (-self.level + rate - 1) / rate;
                Permit::At(now.after(Duration::from_micros(u64::try_from(microseconds).unwrap_or(u64::MAX))))
            }
        }
    }

    /// Takes `bytes` and says when they may go.
    pub fn take(&mut self, now: Monotonic, bytes: u64) -> Permit {
        let permit = self.free_at(now);
        if permit != Permit::Off && self.rate != Rate::Unlimited {
            self.level -= i128::from(bytes) * SCALE;
        }
        permit
    }

    /// Gives back what was taken and did not go.
    pub fn give_back(&mut self, bytes: u64) {
        if self.rate != Rate::Unlimited {
            self.level = (self.level + i128::from(bytes) * SCALE).min(self.burst());
        }
    }
}

/// Several buckets with names; bytes that pass several go when the strictest lets them.
#[derive(Clone, Debug)]
pub struct Limiter<K> {
    buckets: BTreeMap<K, TokenBucket>,
}

impl<K: Ord> Default for Limiter<K> {
    fn default() -> Self {
        Self { buckets: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Limiter<K> {
    /// Sets the rate of a bucket; an unlimited one needs none. `true`: it was another before.
    pub fn set_rate(&mut self, now: Monotonic, name: &K, rate: Rate) -> bool {
        if self.rate(name) == rate {
            return false;
        }
        match self.buckets.get_mut(name) {
            _ if rate == Rate::Unlimited => drop(self.buckets.remove(name)),
            Some(bucket) => bucket.set_rate(now, rate),
            None => drop(self.buckets.insert(name.clone(), TokenBucket::new(rate, now))),
        }
        true
    }

    /// The rate of a bucket.
    pub fn rate(&self, name: &K) -> Rate {
        self.buckets.get(name).map_or(Rate::Unlimited, TokenBucket::rate)
    }

    /// Removes every bucket that is not wanted any more.
    pub fn retain(&mut self, wanted: impl Fn(&K) -> bool) {
        self.buckets.retain(|name, _| wanted(name));
    }

    /// Whether no bucket limits anything.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The strictest rate among these.
    pub fn strictest<'a>(&self, names: impl IntoIterator<Item = &'a K>) -> Rate
    where
        K: 'a,
    {
        names.into_iter().map(|name| self.rate(name)).min().unwrap_or_default()
    }

    /// The piece in which to ask these buckets, in bytes; `None` where none of them limits anything.
    pub fn piece_bytes<'a>(&self, names: impl IntoIterator<Item = &'a K>) -> Option<u64>
    where
        K: 'a,
    {
        names.into_iter().filter_map(|name| self.buckets.get(name)).map(TokenBucket::piece_bytes).min()
    }

    /// Takes `bytes` from all of these, or from none where one is off.
    pub fn take<'a>(&mut self, now: Monotonic, names: impl IntoIterator<Item = &'a K> + Clone, bytes: u64) -> Permit
    where
        K: 'a,
    {
        let mut at = Permit::At(now);
        for name in names.clone() {
            match self.buckets.get_mut(name).map_or(Permit::At(now), |bucket| bucket.free_at(now)) {
                Permit::Off => return Permit::Off,
                later => at = at.max_time(later),
            }
        }
        for name in names {
            if let Some(bucket) = self.buckets.get_mut(name) {
                bucket.take(now, bytes);
            }
        }
        at
    }

    /// Gives back what was taken and did not go.
    pub fn give_back<'a>(&mut self, names: impl IntoIterator<Item = &'a K>, bytes: u64)
    where
        K: 'a,
    {
        for name in names {
            if let Some(bucket) = self.buckets.get_mut(name) {
                bucket.give_back(bytes);
            }
        }
    }
}

impl Permit {
    fn max_time(self, other: Self) -> Self {
        match (self, other) {
            (Self::At(a), Self::At(b)) => Self::At(a.max(b)),
            _ => Self::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(rate: u64) -> Rate {
        Rate::Bits(rate)
    }

    /// Takes pieces as a connection does, with timers that are late by `late`; gives the bytes within `seconds`.
    fn run(bucket: &mut TokenBucket, seconds: u64, late: Duration) -> u64 {
        let (mut now, mut sent) = (Monotonic::from_seconds(1), 0);
        let end = now.after(Duration::from_secs(seconds));
        loop {
            let piece = bucket.piece_bytes();
            let Permit::At(at) = bucket.take(now, piece) else { return sent };
            if at > now {
                now = at.after(late);
            }
            if now > end {
                return sent;
            }
            sent += piece;
        }
    }

    #[test]
    fn the_mean_is_exact_however_late_the_timers_are() {
        for rate in [128_000, 2_000_000, 20_000_000, 940_000_000] {
            for late in [0, 300, 2_000] {
                let mut bucket = TokenBucket::new(bits(rate), Monotonic::from_seconds(1));
                let sent = run(&mut bucket, 20, Duration::from_micros(late)) as f64;
                let wanted = rate as f64 / 8.0 * 20.0;
                assert!((sent / wanted - 1.0).abs() < 0.005, "{rate} bit/s, {late} us late: {sent} of {wanted}");
            }
        }
    }

    #[test]
    fn an_idle_bucket_holds_fifty_milliseconds_and_a_new_one_nothing() {
        let mut bucket = TokenBucket::new(bits(8_000_000), Monotonic::from_seconds(1));
        assert_eq!(bucket.take(Monotonic::from_seconds(1), 1000), Permit::At(Monotonic::from_seconds(1)));
        assert_eq!(bucket.take(Monotonic::from_seconds(1), 1000), Permit::At(Monotonic(1_001_000)));
        let hour = Monotonic::from_seconds(3600);
        let mut at_once = 0;
        while bucket.take(hour, 1000) == Permit::At(hour) {
            at_once += 1000;
        }
        assert_eq!(at_once, 51_000, "50 ms at 1 MB/s, and the piece that makes the debt");
    }

    #[test]
    fn a_new_rate_holds_at_once_and_off_takes_nothing() {
        let now = Monotonic::from_seconds(5);
        let mut bucket = TokenBucket::new(bits(8_000), now);
        bucket.take(now, 10_000);
        assert_eq!(bucket.take(now, 0), Permit::At(now.after(Duration::from_secs(10))));
        bucket.set_rate(now, bits(80_000));
        assert_eq!(bucket.take(now, 0), Permit::At(now.after(Duration::from_secs(1))));
        bucket.set_rate(now, Rate::Off);
        assert_eq!(bucket.take(now.after(Duration::from_secs(60)), 5), Permit::Off);
        bucket.set_rate(now.after(Duration::from_secs(60)), bits(80_000));
        let later = now.after(Duration::from_secs(60));
        assert_eq!(bucket.take(later, 0), Permit::At(later.after(Duration::from_secs(1))), "off pays nothing back");
    }

    #[test]
    fn of_several_buckets_the_strictest_decides_and_off_takes_from_none() {
        let now = Monotonic::from_seconds(1);
        let mut limiter = Limiter::default();
        assert!(limiter.set_rate(now, &"line", bits(8_000)));
        assert!(!limiter.set_rate(now, &"line", bits(8_000)));
        limiter.set_rate(now, &"host", bits(80_000));
        let names = ["line", "host", "unknown"];
        assert_eq!(limiter.strictest(&names), bits(8_000));
        limiter.take(now, &names, 1000);
        assert_eq!(limiter.take(now, &names, 0), Permit::At(now.after(Duration::from_secs(1))));
        assert_eq!(limiter.take(now, &["host"], 0), Permit::At(now.after(Duration::from_millis(100))));
        limiter.give_back(&names, 1000);
        assert_eq!(limiter.take(now, &names, 0), Permit::At(now));
        limiter.set_rate(now, &"line", Rate::Off);
        assert_eq!(limiter.take(now, &names, 1000), Permit::Off);
        assert_eq!(limiter.take(now, &["host"], 0), Permit::At(now));
        limiter.set_rate(now, &"line", Rate::Unlimited);
        limiter.retain(|name| *name != "host");
        assert!(limiter.is_empty() && limiter.piece_bytes(&names).is_none());
    }

    proptest! {
        /// Over any stretch no more flows than the rates allow, and one burst and one piece.
        #[test]
        fn never_more_than_rate_and_burst(steps in prop::collection::vec((0_u64..400_000, 1_u64..40_000_000), 1..60)) {
            let mut bucket = TokenBucket::new(bits(1_000_000), Monotonic(0));
            let (mut now, mut free, mut sent, mut allowed) = (Monotonic(0), Monotonic(0), 0_u128, 0_u128);
            let (mut largest_burst, mut rate) = (0_u128, 1_000_000_u64);
            for (microseconds, next) in steps {
                let until = now.after(Duration::from_micros(microseconds));
                allowed += u128::from(rate / 8) * u128::from(microseconds);
                largest_burst = largest_burst.max(u128::from(rate / 8) * BURST.as_micros() + u128::from(bucket.piece_bytes()) * 1_000_000);
                while free <= until {
                    let piece = bucket.piece_bytes();
                    let Permit::At(at) = bucket.take(free.max(now), piece) else { unreachable!() };
                    sent += u128::from(piece) * 1_000_000;
                    free = at.max(free);
                    if at > until {
                        bucket.give_back(piece);
                        sent -= u128::from(piece) * 1_000_000;
                        break;
                    }
                }
                prop_assert!(sent <= allowed + 2 * largest_burst, "{sent} {allowed} {largest_burst}");
                (now, free, rate) = (until, until, next);
                bucket.set_rate(now, bits(rate));
            }
        }
    }
}
