//! How late this computer is, while something is measured whose figure depends on that.
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// So long the thread sleeps each time.
const NAP: Duration = Duration::from_millis(1);
/// A figure that depends on delays of some milliseconds counts where nineteen of twenty wakings were no later.
const LATE_MAX: Duration = Duration::from_micros(500);
/// And where no more of the time than this passed in later ones: a few long stalls are few wakings, but much time.
const LOST_SHARE_MAX: f64 = 0.01;

/// A thread that sleeps a millisecond at a time and notes how late it wakes. On an idle computer that is a tenth of a
/// millisecond; where its processors are taken away, by other processes or by other guests of the same machine, it is
/// many times that, and so is every delay that the processes under test measure.
#[derive(Debug)]
pub struct Punctuality {
    ends: Arc<AtomicBool>,
    naps: JoinHandle<Vec<Duration>>,
}

impl Punctuality {
    /// Begins to watch.
    pub fn watch() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ends);
        let naps = spawn(move || {
            let mut late = Vec::new();
            loop {
                let begun = Instant::now();
                sleep(NAP);
                late.push(begun.elapsed().saturating_sub(NAP));
                if seen.load(Ordering::Relaxed) {
                    return late;
                }
            }
        });
        Self { ends, naps }
    }

    /// Ends, and says how late the wakings were.
    pub fn end(self) -> Lateness {
        self.ends.store(true, Ordering::Relaxed);
        Lateness::of(self.naps.join().unwrap_or_default())
    }
}

/// How late a computer was while something was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lateness {
    /// One waking in twenty was later than this.
    pub one_in_twenty: Duration,
    /// The share of the time that passed in wakings that were later than half a millisecond.
    pub lost_share: f64,
}

impl Lateness {
    fn of(mut late: Vec<Duration>) -> Self {
        late.sort_unstable();
        let one_in_twenty = late.get(late.len() * 19 / 20).copied().unwrap_or(Duration::MAX);
        let total: Duration = late.iter().map(|late| NAP + *late).sum();
        let lost: Duration = late.iter().filter(|late| **late > LATE_MAX).sum();
        Self { one_in_twenty, lost_share: lost.as_secs_f64() / total.as_secs_f64().max(NAP.as_secs_f64()) }
    }

    /// Whether delays of some milliseconds were those of what was measured and not this computer's.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.one_in_twenty <= LATE_MAX && self.lost_share <= LOST_SHARE_MAX
    }

    /// The worse of each of two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            one_in_twenty: self.one_in_twenty.max(other.one_in_twenty),
            lost_share: self.lost_share.max(other.lost_share),
        }
    }
}

impl Display for Lateness {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let milliseconds = self.one_in_twenty.as_secs_f64() * 1e3;
        write!(out, "computer late by {milliseconds:.2} ms, {:.1} % of the time lost", self.lost_share * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_late_by_something() {
        let watch = Punctuality::watch();
        sleep(Duration::from_millis(50));
        let late = watch.end();
        assert!(late.one_in_twenty > Duration::ZERO && late.one_in_twenty < Duration::MAX, "{late:?}");
    }

    #[test]
    fn many_small_delays_and_a_few_long_ones_both_count() {
        let (good, bad, stall) = (Duration::from_micros(80), Duration::from_micros(900), Duration::from_millis(200));
        assert!(Lateness::of(vec![good; 1_000]).is_small());
        assert!(!Lateness::of(Vec::new()).is_small(), "nothing was watched");
        let often = [vec![good; 900], vec![bad; 100]].concat();
        assert!(!Lateness::of(often).is_small());
        let seldom = Lateness::of([vec![good; 990], vec![stall; 10]].concat());
        assert!(seldom.one_in_twenty == good && seldom.lost_share > 0.6 && !seldom.is_small(), "{seldom}");
    }
}
