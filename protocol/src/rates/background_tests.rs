//! The controller over a line that is modelled as a fluid queue, beside flows that keep a queue of their own.
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Monotonic;

/// Between two round trips.
const PROBE: u64 = 50_000;
/// The fluid moves in steps of this many microseconds.
const STEP: u64 = 1_000;

/// A line, what the sender under control has queued, and how much others keep queued.
struct Line {
    bytes_per_second: f64,
    round_trip_seconds: f64,
    noise_seconds: f64,
    /// What a greedy flow keeps queued; 0 where there is none.
    others_queued: f64,
    queued: f64,
    arrived: f64,
    others_arrived: f64,
    now: u64,
    random: u64,
    control: Background,
}

impl Line {
    fn new(megabits: f64, round_trip_ms: f64, noise_ms: f64) -> Self {
        Self {
            bytes_per_second: megabits * 125_000.0,
            round_trip_seconds: round_trip_ms / 1e3,
            noise_seconds: noise_ms / 1e3,
            others_queued: 0.0,
            queued: 0.0,
            arrived: 0.0,
            others_arrived: 0.0,
            now: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            control: Background::new(BackgroundSetup { delay: Duration::from_millis(3) }),
        }
    }

    fn noise(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // Squared: mostly small, now and then large, as the delays of busy machines are.
        let uniform = (self.random >> 11) as f64 / (1_u64 << 53) as f64;
        uniform * uniform * self.noise_seconds
    }

    /// Lets time pass; gives what arrived of the controlled flow and of the others, as parts of what the line carries.
    fn run(&mut self, seconds: f64) -> (f64, f64) {
        let (before, others_before) = (self.arrived, self.others_arrived);
        let end = self.now + (seconds * 1e6) as u64;
        while self.now < end {
            let step = STEP as f64 / 1e6;
            self.queued += self.control.bytes_per_second() as f64 * step;
            let (all, served) = (self.queued + self.others_queued, self.bytes_per_second * step);
            let served = served.min(all);
            let own = if all > 0.0 { served * self.queued / all } else { 0.0 };
            self.queued -= own;
            self.arrived += own;
            // A greedy flow fills its queue up again at once.
            self.others_arrived += served - own;
            self.now += STEP;
            if self.now.is_multiple_of(PROBE) {
                let queue = (self.queued + self.others_queued) / self.bytes_per_second;
                let delay = Duration::from_secs_f64(self.round_trip_seconds + queue + self.noise());
                self.control.measured(Monotonic(self.now), delay, self.arrived as u64, true);
            }
        }
        let carried = self.bytes_per_second * seconds;
        ((self.arrived - before) / carried, (self.others_arrived - others_before) / carried)
    }
}

#[test]
fn it_takes_an_idle_line_yields_to_others_and_comes_back() {
    for megabits in [10.0, 20.0, 100.0, 1000.0] {
        for (round_trip, noise) in [(0.1, 0.5), (20.0, 1.0), (100.0, 2.0)] {
            let mut line = Line::new(megabits, round_trip, noise);
            let what = format!("{megabits} Mbit/s, {round_trip} ms");
            line.run(10.0);
            let (own, _) = line.run(20.0);
            assert!(own > 0.85, "{what}: alone {own}");
            // BBR beside it keeps some milliseconds queued, a loss-based flow fills the buffer.
            for queue_ms in [6.0, 40.0] {
                line.others_queued = line.bytes_per_second * queue_ms / 1e3;
                let (own, others) = line.run(20.0);
                assert!(
                    others > 0.92 && own > 0.0,
                    "{what}: beside a queue of {queue_ms} ms own {own}, others {others}"
                );
                line.others_queued = 0.0;
                line.run(8.0);
                let (own, _) = line.run(2.0);
                assert!(own > 0.8, "{what}: back after 10 s: {own}");
                line.run(10.0);
            }
        }
    }
}

#[test]
fn it_comes_back_also_when_it_has_forgotten_the_line() {
    let mut line = Line::new(20.0, 0.1, 0.5);
    line.run(20.0);
    line.others_queued = line.bytes_per_second * 0.006;
    line.run(180.0);
    assert!(line.control.peak_bytes_per_second() < 500_000, "after three minutes the peak is forgotten");
    line.others_queued = 0.0;
    line.run(8.0);
    let (own, _) = line.run(2.0);
    assert!(own > 0.8, "{own}");
}

#[test]
fn a_line_that_becomes_slower_is_learnt() {
    let mut line = Line::new(100.0, 5.0, 0.5);
    line.run(30.0);
    line.bytes_per_second /= 10.0;
    line.run(90.0);
    let (own, _) = line.run(20.0);
    assert!(own > 0.75, "{own}");
    assert!(line.queued / line.bytes_per_second < 0.03, "{} s of queue", line.queued / line.bytes_per_second);
}

#[test]
fn nothing_is_decided_before_something_is_known_and_nothing_grows_that_is_not_used() {
    let mut control = Background::new(BackgroundSetup { delay: Duration::from_millis(3) });
    let first = control.bytes_per_second();
    for at in 0..100 {
        control.measured(Monotonic(at * PROBE), Duration::from_millis(1), 0, false);
    }
    assert_eq!(control.bytes_per_second(), first);
    assert_eq!(control.queueing_microseconds(), Some(0));
    // Asked for, but nothing comes: the sender cannot.
    for at in 100..200 {
        control.measured(Monotonic(at * PROBE), Duration::from_millis(1), 0, true);
    }
    assert_eq!(control.bytes_per_second(), first);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Whatever comes in, the rate stays between its floor and a step above what arrives.
    #[test]
    fn the_rate_stays_within_bounds(samples in prop::collection::vec((0_u64..2_000_000, 0_u64..5_000_000, 0_u64..400_000, any::<bool>()), 1..400)) {
        let mut control = Background::new(BackgroundSetup { delay: Duration::from_millis(3) });
        let (mut now, mut arrived) = (0, 0);
        for (round_trip, bytes, step, wanting) in samples {
            now += step;
            arrived += bytes;
            let rate = control.measured(Monotonic(now), Duration::from_micros(round_trip), arrived, wanting);
            prop_assert!(rate >= 16_384);
            prop_assert!(rate <= 32_768 + 4 * control.peak_bytes_per_second(), "{rate} {}", control.peak_bytes_per_second());
        }
    }
}
