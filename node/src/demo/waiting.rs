//! What bounds every wait of the demo: a deadline, a person's Ctrl-C, and processes that end.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::processes::Processes;
use crate::runtime::shutdown_requested;

/// Pause between two looks.
pub const PAUSE: Duration = Duration::from_millis(50);

/// Bounds waits.
#[derive(Clone, Debug)]
pub struct Watchdog {
    started: Instant,
    limit: Duration,
    interrupted: Arc<AtomicBool>,
}

impl Watchdog {
    /// Begins now: waits end after `limit`, or when the process is told to end (SIGINT, SIGTERM).
    ///
    /// # Errors
    /// The thread that hears signals cannot be started.
    pub fn start(limit: Duration) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, listens) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                let requested = shutdown_requested();
                tokio::pin!(requested);
                // One poll registers the signals; only then may anything be started that has to be ended.
                let at_once = futures::future::poll_immediate(&mut requested).await.is_some();
                let _ = ready.send(());
                if !at_once {
                    requested.await;
                }
            });
            flag.store(true, Ordering::Relaxed);
        })?;
        let _ = listens.recv();
        Ok(Self { started: Instant::now(), limit, interrupted })
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Fails where waiting has to end.
    ///
    /// # Errors
    /// Told to end, a process has ended, or the time is over.
    pub fn check(&self, processes: &mut Processes, what: &str) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted while waiting for {what}");
        }
        if let Some((name, how)) = processes.ended()? {
            bail!("the process {name} has ended by itself ({how}) while the demo waited for {what}");
        }
        if self.elapsed() > self.limit {
            bail!("{what} did not come within {} s", self.limit.as_secs());
        }
        Ok(())
    }

    /// Looks until there is something.
    ///
    /// # Errors
    /// As [`Watchdog::check`].
    pub fn wait<T>(&self, processes: &mut Processes, mut look: impl FnMut() -> Option<T>, what: &str) -> Result<T> {
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            self.check(processes, what)?;
            std::thread::sleep(PAUSE);
        }
    }
}
