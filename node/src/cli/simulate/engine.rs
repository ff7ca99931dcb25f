//! Runs a simulation on the threads of this machine, and says how far it is.
use std::{
    io::{IsTerminal, Write},
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use branchline_simulations::capacity::{
    self, Options, Phase, Progress, Run, Scenario, SimulateError, Simulated, Workers,
};
use indicatif::{ProgressBar, ProgressStyle};

use super::units::count;

/// Threads of this process. The outcome does not depend on their number.
#[derive(Clone, Copy, Debug)]
pub struct Threads(pub NonZeroUsize);

impl Threads {
    /// As many as asked for, or as many as the machine runs at a time.
    pub fn new(asked: Option<NonZeroUsize>) -> Self {
        Self(asked.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN))
    }
}

impl Workers for Threads {
    fn carry_out(&self, count: usize, part: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < count) {
                part(index);
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.0.get().min(count) {
                scope.spawn(work);
            }
            work();
        });
    }
}

/// How often a line says how far a simulation is, where standard error is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Simulates, and fills in what the run took. Standard error shows how far it is: a bar on a terminal, elsewhere a line
/// now and then, so that the log of a long job is not silent.
///
/// # Errors
/// [`SimulateError`].
pub fn run(scenario: &Scenario, options: &Options, threads: Threads) -> Result<Simulated, SimulateError> {
    let started = Instant::now();
    let bar = Bar::new();
    let mut simulated = capacity::simulate(scenario, options, &threads, &|progress| bar.show(progress))?;
    bar.bar.finish_and_clear();
    simulated.outcome.run = Run { wall_seconds: started.elapsed().as_secs_f64(), peak_memory_bytes: peak_memory() };
    Ok(simulated)
}

struct Bar {
    bar: ProgressBar,
    phase: Mutex<Option<Phase>>,
    /// When the last line was written, where there is no terminal.
    line_at: Option<Mutex<Instant>>,
}

impl Bar {
    /// indicatif shows nothing where standard error is no terminal.
    fn new() -> Self {
        let line_at = (!std::io::stderr().is_terminal()).then(|| Mutex::new(Instant::now()));
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {human_pos} of {human_len} sites, {eta} left")
        {
            bar.set_style(style);
        }
        Self { bar, phase: Mutex::new(None), line_at }
    }

    fn show(&self, progress: Progress) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if phase.replace(progress.phase) != Some(progress.phase) {
            self.bar.reset();
            self.bar.set_message(named(progress.phase));
        }
        self.bar.set_length(progress.total);
        // Calls from several threads may come out of order, and a bar does not go back.
        self.bar.set_position(progress.done.max(self.bar.position()));
        let Some(line_at) = &self.line_at else { return };
        let mut line_at = line_at.lock().unwrap_or_else(PoisonError::into_inner);
        if line_at.elapsed() >= LINE_EVERY {
            *line_at = Instant::now();
            // Nobody may read it any more, which is no reason to end.
            let done = self.bar.position().min(progress.total);
            let _ = writeln!(std::io::stderr(), "{}", line(progress.phase, done, progress.total));
        }
    }
}

fn named(phase: Phase) -> &'static str {
    match phase {
        Phase::Calibrate => "Calibrating",
        Phase::Simulate => "Simulating",
        Phase::Lift => "What if",
    }
}

fn line(phase: Phase, done: u64, total: u64) -> String {
    let what = if phase == Phase::Lift { "limits" } else { "sites" };
    format!("{}: {} of {} {what}", named(phase), count(done), count(total))
}

/// Most memory that this process held, in bytes, as Linux tells it; 0 where the system does not.
fn peak_memory() -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|status| peak_of(&status)).unwrap_or(0)
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn every_part_is_carried_out_once_whatever_the_threads() {
        for (threads, count) in [(1, 5), (4, 1000), (8, 3), (2, 0)] {
            let calls: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
            Threads::new(NonZeroUsize::new(threads)).carry_out(count, &|index| {
                calls[index].fetch_add(1, Ordering::Relaxed);
            });
            assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1), "{threads} threads");
        }
    }

    #[test]
    fn a_log_is_told_how_far_it_is() {
        assert_eq!(line(Phase::Simulate, 1200, 10_000), "Simulating: 1,200 of 10,000 sites");
        assert_eq!(line(Phase::Lift, 2, 6), "What if: 2 of 6 limits");
    }

    #[test]
    fn the_peak_is_read_where_the_system_tells_it() {
        assert_eq!(peak_of("Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(peak_of("Name:\tx\n"), None);
        assert!(peak_memory() > 1 << 20, "a test's process holds more than a megabyte");
    }
}
