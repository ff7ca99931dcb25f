//! The only clock.
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use branchline_protocol::time::{Monotonic, Now, UnixSeconds};

/// Reads the two clocks; the monotonic one counts from when this value was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Both times.
    pub fn now(self) -> Now {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now { monotonic: Monotonic(micros), wall: wall_time() }
    }

    /// When a monotonic time comes, as the runtime's timers want it.
    pub fn instant(self, at: Monotonic) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + Duration::from_micros(at.0.min(u64::MAX / 4)))
    }
}

/// The wall clock.
pub fn wall_time() -> UnixSeconds {
    UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
}
