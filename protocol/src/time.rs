//! The two clocks, as plain values that come in from outside.
//!
//! [`Monotonic`] orders what happens in one process and never jumps; deadlines use it. [`UnixSeconds`] is the wall
//! clock: it appears in signed documents and reports, may jump, and never drives a timer.
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since an arbitrary start of the process (or of the simulated world).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// A time `seconds` after the start.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds * 1_000_000)
    }

    /// This time plus `duration`, saturating at the end of time.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero where it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Seconds since 1970-01-01 UTC by the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// This time plus `seconds`, saturating.
    pub fn after(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// What a machine is told about the time with every input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// For deadlines and rates.
    pub monotonic: Monotonic,
    /// For documents and reports.
    pub wall: UnixSeconds,
}

impl Now {
    /// The same instant on both clocks, `seconds` after the start; handy where virtual time begins at zero.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self { monotonic: Monotonic::from_seconds(seconds), wall: UnixSeconds(seconds) }
    }
}
