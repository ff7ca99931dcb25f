//! The rate of a transfer that yields to other traffic on a line.
//!
//! The receiver decides: it sees the queue that others make as a longer round trip, and tells the sender a rate. The law is
//! that of LEDBAT (RFC 6817) and rLEDBAT (draft-irtf-iccrg-rledbat) with rates in place of windows: below a target delay
//! the rate grows, above it the rate falls, more steeply the further above. Three things differ, each because of what
//! was measured:
//!
//! - The round trip is that of small messages on another connection, so it shows the line's queue and not what waits at
//!   the sender. A flow of BBR keeps a queue of a few milliseconds only (median 5.8 ms at 20 Mbit/s), so the target is
//!   3 ms and not 60; that the second least of some samples counts takes out the noise of busy machines.
//! - Growth is exponential below what the line was seen to carry and slow near it: an idle line is in use again within
//!   seconds, and the own queue stays below the target.
//! - The rate never runs ahead of what arrives: where the sender's own congestion control holds it back, that too is a
//!   sign that the line is not free.
use std::{collections::VecDeque, time::Duration};

use crate::time::Monotonic;

/// Round trips of which the second least counts: noise only ever adds, a queue is there in nearly all of them.
const SAMPLES: usize = 5;
/// Fewest round trips after a decrease before the next decision.
const SAMPLES_FRESH: usize = 3;
/// The base delay is the least of so many minutes, so that a new route is learnt (RFC 6817, BASE_HISTORY).
const BASE_MINUTES: usize = 10;
/// What arrives is measured over this time.
const ARRIVAL_WINDOW: Duration = Duration::from_millis(400);
/// What the line carries is the most that arrived in this many seconds.
const PEAK_SECONDS: u64 = 60;
/// The least rate in bytes per second: a frame must pass before its request counts as lost.
const FLOOR_BYTES_PER_SECOND: u64 = 16_384;
/// The least rate as a part of what the line carries.
const FLOOR_PART: u64 = 50;
/// Growth per second, in thousandths, far below what the line carries.
const GROWTH_FAR: u64 = 1_200;
/// Growth per second, in thousandths, near it or where nothing is known, just after the last decrease,
const GROWTH_NEAR: u64 = 80;
/// and the time in which that doubles, up to the other.
const GROWTH_DOUBLES: Duration = Duration::from_millis(700);
/// Near: above this part of what the line carries, in thousandths.
const NEAR: u64 = 930;
/// Where less than this part of the rate arrives, in thousandths, the rate does not grow.
const ARRIVES: u64 = 850;

/// What a controller is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackgroundSetup {
    /// The queueing delay above which the transfer yields.
    pub delay: Duration,
}

/// Decides the rate of one transfer; see the module's description.
#[derive(Clone, Debug)]
pub struct Background {
    target: u64,
    rate: u64,
    /// The least round trip of each minute, newest last: the minute and microseconds.
    bases: VecDeque<(u64, u64)>,
    samples: VecDeque<u64>,
    /// When how many bytes had arrived.
    arrivals: VecDeque<(Monotonic, u64)>,
    /// The most that arrived per second in each tenth of [`PEAK_SECONDS`].
    peaks: VecDeque<(u64, u64)>,
    latest: Option<Monotonic>,
    /// When the transfer last yielded.
    yielded_at: Option<Monotonic>,
}

impl Background {
    /// A controller that begins at the least rate.
    pub fn new(setup: BackgroundSetup) -> Self {
        Self {
            target: u64::try_from(setup.delay.as_micros()).unwrap_or(u64::MAX).max(1),
            rate: 2 * FLOOR_BYTES_PER_SECOND,
            bases: VecDeque::new(),
            samples: VecDeque::new(),
            arrivals: VecDeque::new(),
            peaks: VecDeque::new(),
            latest: None,
            yielded_at: None,
        }
    }

    /// The rate in force, in bytes per second.
    pub fn bytes_per_second(&self) -> u64 {
        self.rate
    }

    /// The queueing delay as it is seen now, in microseconds; `None` until enough was measured.
    pub fn queueing_microseconds(&self) -> Option<u64> {
        let base = self.bases.iter().map(|(_, least)| *least).min()?;
        let mut sorted: Vec<u64> = self.samples.iter().copied().collect();
        sorted.sort_unstable();
        (sorted.len() >= SAMPLES_FRESH).then(|| sorted[1].saturating_sub(base))
    }

    /// What the line was seen to carry, in bytes per second; 0 until something arrived.
    pub fn peak_bytes_per_second(&self) -> u64 {
        self.peaks.iter().map(|(_, most)| *most).max().unwrap_or(0)
    }

    /// Takes one measurement: a round trip, and how many bytes have arrived since the start. `wanting`: more was asked
    /// for than has arrived. Gives the rate from now on, in bytes per second.
    pub fn measured(&mut self, now: Monotonic, round_trip: Duration, arrived_bytes: u64, wanting: bool) -> u64 {
        let elapsed = self.latest.map_or(Duration::ZERO, |before| now.since(before)).min(Duration::from_secs(1));
        self.latest = Some(now);
        self.note_round_trip(now, round_trip);
        let arriving = self.note_arrival(now, arrived_bytes);
        let Some(queueing) = self.queueing_microseconds() else { return self.rate };
        if queueing > self.target {
            self.yield_to_others(now, queueing, arriving);
        } else if wanting {
            self.grow(now, elapsed, arriving);
        }
        self.rate
    }

    fn note_round_trip(&mut self, now: Monotonic, round_trip: Duration) {
        let round_trip = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(round_trip);
        let minute = now.0 / 60_000_000;
        match self.bases.back_mut() {
            Some((of, least)) if *of == minute => *least = round_trip.min(*least),
            _ => self.bases.push_back((minute, round_trip)),
        }
        while self.bases.len() > BASE_MINUTES {
            self.bases.pop_front();
        }
    }

    /// Bytes per second that arrive now; `None` until the window is full.
    fn note_arrival(&mut self, now: Monotonic, arrived_bytes: u64) -> Option<u64> {
        self.arrivals.push_back((now, arrived_bytes));
        while self.arrivals.get(1).is_some_and(|(at, _)| now.since(*at) >= ARRIVAL_WINDOW) {
            self.arrivals.pop_front();
        }
        let (since, before) = *self.arrivals.front()?;
        let time = now.since(since);
        if time < ARRIVAL_WINDOW {
            return None;
        }
        let bytes = u128::from(arrived_bytes.saturating_sub(before)) * 1_000_000 / time.as_micros().max(1);
        let rate = u64::try_from(bytes).unwrap_or(u64::MAX);
        let part = now.0 / (PEAK_SECONDS * 100_000);
        match self.peaks.back_mut() {
            Some((of, most)) if *of == part => *most = rate.max(*most),
            _ => self.peaks.push_back((part, rate)),
        }
        while self.peaks.front().is_some_and(|(of, _)| *of + 10 < part) {
            self.peaks.pop_front();
        }
        Some(rate)
    }

    fn floor(&self) -> u64 {
        FLOOR_BYTES_PER_SECOND.max(self.peak_bytes_per_second() / FLOOR_PART)
    }

    /// At least a tenth less, at most half; then fresh round trips are waited for.
    fn yield_to_others(&mut self, now: Monotonic, queueing: u64, arriving: Option<u64>) {
        let above = (queueing - self.target).saturating_mul(1_000) / self.target;
        let keep = 1_000 - (above / 4).clamp(100, 500);
        let from = arriving.map_or(self.rate, |arriving| arriving.clamp(self.rate / 2, self.rate));
        self.rate = (from.saturating_mul(keep) / 1_000).max(self.floor());
        self.samples.clear();
        self.yielded_at = Some(now);
    }

    fn grow(&mut self, now: Monotonic, elapsed: Duration, arriving: Option<u64>) {
        if arriving.is_none_or(|arriving| arriving < self.rate.saturating_mul(ARRIVES) / 1_000) {
            return;
        }
        let far = self.rate < self.peak_bytes_per_second().saturating_mul(NEAR) / 1_000;
        let growth = match self.yielded_at {
            Some(at) if !far => {
                let doublings = now.since(at).as_micros() / GROWTH_DOUBLES.as_micros();
                (GROWTH_NEAR << doublings.min(8)).min(GROWTH_FAR)
            }
            _ => GROWTH_FAR,
        };
        let step = u128::from(self.rate) * u128::from(growth) * elapsed.as_micros() / 1_000_000_000;
        self.rate = self.rate.saturating_add(u64::try_from(step).unwrap_or(u64::MAX)).max(self.floor());
    }
}
