//! How late this computer is, while something is measured whose figure depends on that.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// So long the thread sleeps each time.
const NAP: Duration = Duration::from_millis(1);

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

    /// Ends, and gives how late one waking in twenty was at least.
    pub fn end(self) -> Duration {
        self.ends.store(true, Ordering::Relaxed);
        let mut late = self.naps.join().unwrap_or_default();
        late.sort_unstable();
        late.get(late.len() * 19 / 20).copied().unwrap_or(Duration::MAX)
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
        assert!(late > Duration::ZERO && late < Duration::MAX, "{late:?}");
    }
}
