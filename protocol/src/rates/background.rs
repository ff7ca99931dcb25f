//! The rate of a transfer that yields to other traffic on a line.
//!
//! The receiver decides: it sees the queue that others make as a longer round trip, and tells the sender a rate. The law is
//! that of LEDBAT (RFC 6817) and rLEDBAT (draft-irtf-iccrg-rledbat) with rates in place of windows: below a target delay
//! the rate grows, above it the rate falls, more steeply the further above. Five things differ, each because of what
//! was measured:
//!
//! - The round trip is that of small messages on another connection, so it shows the line's queue and not what waits at
//!   the sender. A flow of BBR keeps a queue of a few milliseconds only (median 5.8 ms at 20 Mbit/s), so the target is
//!   3 ms and not 60; that the second least of some samples counts takes out the noise of busy machines.
//! - Where noise is larger than that, the target follows it. Noise differs from a queue: it leaves some round trips alone.
//! - A queue may be the transfer's own. The first decrease asks: it is small, and a queue that goes away with it was
//!   ours, the line is full. A queue that stays is others', and the rate is halved until it is gone.
//! - Growth is exponential, and slow just after a decrease, so that a flow that is about to take what was freed gets
//!   it. Near what a line that was full has carried, growth is a hundredth a second: the own queue is small when it is
//!   seen, and the line is left alone most of the time.
//! - The rate never runs ahead of what arrives: where the sender's own congestion control holds it back, that too is a
//!   sign that the line is not free.
use std::{collections::VecDeque, time::Duration};

use crate::time::Monotonic;

/// Round trips of which the second least counts: noise only ever adds, a queue is there in nearly all of them.
const SAMPLES: usize = 4;
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
/// Growth per second, in thousandths, just after a decrease,
const GROWTH_FIRST: u64 = 80;
/// the time in which that doubles,
const GROWTH_DOUBLES: Duration = Duration::from_millis(700);
/// and what it doubles up to.
const GROWTH_MAX: u64 = 1_200;
/// The same near what a full line has carried: growth just after a decrease,
const PROBE_FIRST: u64 = 10;
/// and the time in which that doubles, so that a line that has become faster is learnt in half a minute.
const PROBE_DOUBLES: Duration = Duration::from_secs(5);
/// Near: above this part of what the line carries, in thousandths.
const NEAR: u64 = 930;
/// So long it is remembered that the line was full.
const FULL_REMEMBERED: Duration = Duration::from_secs(60);
/// Below this part of what the line carries, in thousandths, a transfer makes no queue.
const FILLS: u64 = 750;
/// The part of what arrives that is kept by the decrease that asks whose the queue is, in thousandths: it drains a
/// quarter of the time until the answer, some 40 ms.
const ASK_KEEPS: u64 = 750;
/// The same where the delay is long,
const ASK_KEEPS_LONG: u64 = 500;
/// which is more than so many times the delay at which the transfer yields.
const LONG: u64 = 5;
/// A queue that is below this part of what it was, in thousandths, is draining.
const DRAINING: u64 = 750;
/// Where less than this part of the least rate in the window arrives, in thousandths, the rate does not grow.
const ARRIVES: u64 = 850;
/// What arrives is known up to two segments at each end of the window, in bytes per second.
const ARRIVES_EXACT_TO: u64 = 4 * 1_448 * 1_000 / 400;
/// The noise of a block of so many round trips is the second largest of them.
const NOISE_BLOCK: usize = 8;
/// The upper quartile of so many blocks counts: noise comes in gusts, and a queue that comes or goes within one block is
/// not to be taken for noise.
const NOISE_BLOCKS: usize = 9;
/// The transfer yields to a delay of so many times the noise,
const NOISE_TIMES: u64 = 2;
/// but of no more than so many times the delay that was set: what looks like more noise than that may be traffic.
const NOISE_TARGET_MAX: u64 = 8;

/// What a controller is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackgroundSetup {
    /// The queueing delay above which the transfer yields, on a line and machines without noise.
    pub delay: Duration,
}

/// What a measurement led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Too little has been measured since the start or the last decrease.
    Waits,
    /// There is a queue: the rate is lowered to see whether it is the transfer's own, or left while it drains.
    Asks,
    /// The queue is others': the rate is halved.
    Yields,
    /// No queue, but nothing more is asked for, or less arrives than may come.
    Holds,
    /// No queue.
    Grows,
}

/// Whose queue it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    None,
    /// Not known yet; how long it was, in microseconds, when it was last looked at.
    Asked(u64),
    Others,
}

/// How much had arrived at a time, and the rate that was told then.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    at: Monotonic,
    bytes: u64,
    rate: u64,
}

/// Decides the rate of one transfer; see the module's description.
#[derive(Clone, Debug)]
pub struct Background {
    target: u64,
    rate: u64,
    /// The least round trip of each minute, newest last: the minute and microseconds.
    bases: VecDeque<(u64, u64)>,
    samples: VecDeque<u64>,
    /// The round trips of the block that is not full yet,
    block: Vec<u64>,
    /// and the noise of the last blocks; 0 where the line was not seen empty.
    noises: VecDeque<u64>,
    arrivals: VecDeque<Arrival>,
    /// The most that arrived per second in each tenth of [`PEAK_SECONDS`].
    peaks: VecDeque<(u64, u64)>,
    latest: Option<Monotonic>,
    /// When there was last a queue,
    queue_at: Option<Monotonic>,
    /// and when there was last one that may be others'.
    made_room_at: Option<Monotonic>,
    /// Whether the next round trip was begun under the rate before.
    is_stale: bool,
    /// When a queue last showed that the line may have been full.
    full_at: Option<Monotonic>,
    /// Whether more than one queue showed it, or one that went away with the first decrease.
    full_is_sure: bool,
    queue: Queue,
    step: Step,
    arriving: Option<u64>,
    queueing: Option<u64>,
}

impl Background {
    /// A controller that begins at the least rate.
    pub fn new(setup: BackgroundSetup) -> Self {
        Self {
            target: u64::try_from(setup.delay.as_micros()).unwrap_or(u64::MAX).max(1),
            rate: 2 * FLOOR_BYTES_PER_SECOND,
            bases: VecDeque::new(),
            samples: VecDeque::new(),
            block: Vec::new(),
            // Nothing counts as noise until a quarter of the blocks say so.
            noises: VecDeque::from([0; NOISE_BLOCKS]),
            arrivals: VecDeque::new(),
            peaks: VecDeque::new(),
            latest: None,
            queue_at: None,
            made_room_at: None,
            is_stale: false,
            full_at: None,
            full_is_sure: false,
            queue: Queue::None,
            step: Step::Waits,
            arriving: None,
            queueing: None,
        }
    }

    /// The rate in force, in bytes per second.
    pub fn bytes_per_second(&self) -> u64 {
        self.rate
    }

    /// Bytes per second that arrive; `None` until the first 400 ms are over.
    pub fn arriving_bytes_per_second(&self) -> Option<u64> {
        self.arriving
    }

    /// What the last measurement led to.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The queueing delay as it was last seen, in microseconds; `None` until enough was measured.
    pub fn queueing_microseconds(&self) -> Option<u64> {
        self.queueing
    }

    /// The delay above which the transfer yields now, in microseconds: what was set, or more where there is noise.
    pub fn target_microseconds(&self) -> u64 {
        let mut noises: Vec<u64> = self.noises.iter().copied().collect();
        noises.sort_unstable();
        let noise = noises.get(noises.len() * 3 / 4).copied().unwrap_or(0);
        let most = self.target.saturating_mul(NOISE_TARGET_MAX);
        noise.saturating_mul(NOISE_TIMES).clamp(self.target, most)
    }

    fn base(&self) -> Option<u64> {
        self.bases.iter().map(|(_, least)| *least).min()
    }

    fn look_for_queue(&self) -> Option<u64> {
        let base = self.base()?;
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
        self.arriving = self.note_arrival(now, arrived_bytes);
        let queueing = self.look_for_queue();
        self.queueing = queueing.or(self.queueing);
        self.step = match queueing {
            None => Step::Waits,
            Some(queueing) if queueing > self.target_microseconds() => self.lower(now, queueing),
            Some(_) => {
                if matches!(self.queue, Queue::Asked(_)) {
                    (self.full_is_sure, self.made_room_at) = (true, None);
                }
                self.queue = Queue::None;
                if wanting && self.keeps_up() { self.grow(now, elapsed) } else { Step::Holds }
            }
        };
        self.rate
    }

    fn note_round_trip(&mut self, now: Monotonic, round_trip: Duration) {
        let round_trip = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        let counts = !std::mem::take(&mut self.is_stale);
        if counts {
            self.samples.push_back(round_trip);
        }
        let minute = now.0 / 60_000_000;
        match self.bases.back_mut() {
            Some((of, least)) if *of == minute => *least = round_trip.min(*least),
            _ => self.bases.push_back((minute, round_trip)),
        }
        while self.bases.len() > BASE_MINUTES {
            self.bases.pop_front();
        }
        if counts {
            self.note_noise(round_trip);
        }
    }

    /// Others' queue is there all the time. So a block in which one round trip was not delayed shows noise by the others.
    fn note_noise(&mut self, round_trip: u64) {
        self.block.push(round_trip);
        if self.block.len() < NOISE_BLOCK {
            return;
        }
        let base = self.base().unwrap_or(0);
        self.block.sort_unstable();
        let was_empty = self.block[0].saturating_sub(base) <= self.target;
        self.noises.push_back(if was_empty { self.block[NOISE_BLOCK - 2].saturating_sub(base) } else { 0 });
        if self.noises.len() > NOISE_BLOCKS {
            self.noises.pop_front();
        }
        self.block.clear();
    }

    /// Bytes per second that arrive now; `None` until the window is full.
    fn note_arrival(&mut self, now: Monotonic, arrived_bytes: u64) -> Option<u64> {
        self.arrivals.push_back(Arrival { at: now, bytes: arrived_bytes, rate: self.rate });
        while self.arrivals.get(1).is_some_and(|arrival| now.since(arrival.at) >= ARRIVAL_WINDOW) {
            self.arrivals.pop_front();
        }
        let first = *self.arrivals.front()?;
        let time = now.since(first.at);
        if time < ARRIVAL_WINDOW {
            return None;
        }
        let bytes = u128::from(arrived_bytes.saturating_sub(first.bytes)) * 1_000_000 / time.as_micros().max(1);
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

    /// There is a queue: asks whose it is, waits while it drains, or makes room. Then fresh round trips are waited for.
    fn lower(&mut self, now: Monotonic, queueing: u64) -> Step {
        self.samples.clear();
        (self.queue_at, self.made_room_at, self.is_stale) = (Some(now), Some(now), true);
        let (queue, rate) = match self.queue {
            Queue::None if self.may_fill_the_line() => {
                self.full_is_sure = self.full_recently(now);
                self.full_at = Some(now);
                let from = self.arriving.map_or(self.rate, |arriving| arriving.clamp(self.rate / 2, self.rate));
                let keeps = if queueing > LONG * self.target_microseconds() { ASK_KEEPS_LONG } else { ASK_KEEPS };
                (Queue::Asked(queueing), from.saturating_mul(keeps) / 1_000)
            }
            Queue::Asked(before) if queueing < before.saturating_mul(DRAINING) / 1_000 => {
                (Queue::Asked(queueing), self.rate)
            }
            _ => {
                if !self.full_is_sure && self.rate < self.peak_bytes_per_second() / 3 {
                    // Others were here from the start: what arrived beside them says little about the line.
                    self.full_at = None;
                }
                (Queue::Others, self.rate / 2)
            }
        };
        (self.queue, self.rate) = (queue, rate.max(self.floor()));
        if queue == Queue::Others { Step::Yields } else { Step::Asks }
    }

    fn full_recently(&self, now: Monotonic) -> bool {
        self.full_at.is_some_and(|at| now.since(at) < FULL_REMEMBERED)
    }

    /// Whether the queue may be the transfer's own: not where the line was seen to carry much more than the rate, nor at
    /// the least rate.
    fn may_fill_the_line(&self) -> bool {
        self.rate >= self.peak_bytes_per_second().saturating_mul(FILLS) / 1_000 && self.rate > 2 * self.floor()
    }

    /// Whether that arrives which was allowed: the least rate within the window, since each takes a while to be seen.
    fn keeps_up(&self) -> bool {
        let least = self.arrivals.iter().map(|arrival| arrival.rate).min().unwrap_or(0);
        let wanted = least.saturating_mul(ARRIVES) / 1_000;
        self.arriving.is_some_and(|arriving| arriving > 0 && arriving.saturating_add(ARRIVES_EXACT_TO) >= wanted)
    }

    fn grow(&mut self, now: Monotonic, elapsed: Duration) -> Step {
        let near =
            if self.full_recently(now) { self.peak_bytes_per_second().saturating_mul(NEAR) / 1_000 } else { u64::MAX };
        let (first, doubles, since) = if self.rate < near {
            (GROWTH_FIRST, GROWTH_DOUBLES, self.made_room_at)
        } else {
            (PROBE_FIRST, PROBE_DOUBLES, self.queue_at)
        };
        let growth = since.map_or(GROWTH_MAX, |at| {
            let doublings = now.since(at).as_micros() / doubles.as_micros();
            (first << doublings.min(8)).min(GROWTH_MAX)
        });
        let step = u128::from(self.rate) * u128::from(growth) * elapsed.as_micros() / 1_000_000_000;
        let grown = self.rate.saturating_add(u64::try_from(step).unwrap_or(u64::MAX));
        // Fast growth ends where the slow one begins.
        let grown = if self.rate < near { grown.min(near) } else { grown };
        self.rate = grown.max(self.floor());
        Step::Grows
    }
}
