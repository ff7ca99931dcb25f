//! The controller over a line that is modelled as a fluid queue, beside flows that keep a queue of their own.
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Monotonic;

/// Between two round trips.
const PROBE: u64 = 50_000;
/// The fluid moves in steps of this many microseconds.
const STEP: u64 = 1_000;

/// One flow of TCP that always has something to send.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flow {
    /// None.
    Silent,
    /// Keeps so many seconds of the line queued, whatever happens.
    Greedy(f64),
    /// Grows by a segment each round trip, and halves its window when the buffer overflows.
    Reno { window: f64, halved_at: u64 },
    /// Paces at the most it was served, by turns 25 % faster and slower; its window is twice what it needs.
    Bbr { served: [f64; 10], round: usize, round_began: u64, served_in_round: f64 },
}

impl Flow {
    fn reno() -> Self {
        Self::Reno { window: 10.0 * SEGMENT, halved_at: 0 }
    }

    fn bbr() -> Self {
        Self::Bbr { served: [20.0 * SEGMENT / 0.01; 10], round: 0, round_began: 0, served_in_round: 0.0 }
    }
}

const SEGMENT: f64 = 1_448.0;
/// How often a measurement crosses the line's queue, as was measured.
const CROSSINGS: f64 = 3.0;

/// A line with a buffer, what the sender under control has queued, and what another flow has.
struct Line {
    bytes_per_second: f64,
    buffer_seconds: f64,
    round_trip_seconds: f64,
    noise_seconds: f64,
    other: Flow,
    others_queued: f64,
    /// Bytes per second that the other flow was served in the last step.
    others_served: f64,
    queued: f64,
    arrived: f64,
    others_arrived: f64,
    now: u64,
    random: u64,
    control: Background,
    /// The rate that the sender was told.
    told: f64,
}

impl Line {
    fn new(megabits: f64, round_trip_ms: f64, noise_ms: f64) -> Self {
        Self {
            bytes_per_second: megabits * 125_000.0,
            buffer_seconds: 0.05,
            round_trip_seconds: round_trip_ms / 1e3,
            noise_seconds: noise_ms / 1e3,
            other: Flow::Silent,
            others_queued: 0.0,
            others_served: 0.0,
            queued: 0.0,
            arrived: 0.0,
            others_arrived: 0.0,
            now: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            control: Background::new(BackgroundSetup { delay: Duration::from_millis(3) }),
            told: 0.0,
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

    /// What the other flow sends in one step, and the window that it keeps to.
    fn others_send(&mut self) -> f64 {
        let step = STEP as f64 / 1e6;
        let queue = (self.queued + self.others_queued) / self.bytes_per_second;
        let round_trip = (self.round_trip_seconds + queue).max(step);
        let in_flight = self.others_queued + self.others_served * self.round_trip_seconds;
        match &mut self.other {
            Flow::Silent => 0.0,
            Flow::Greedy(seconds) => *seconds * self.bytes_per_second - self.others_queued,
            Flow::Reno { window, .. } => {
                *window += SEGMENT * step / round_trip;
                (*window - in_flight).max(0.0)
            }
            Flow::Bbr { served, round, round_began, served_in_round } => {
                *served_in_round += self.others_served * step;
                let seconds = (self.now - *round_began) as f64 / 1e6;
                if seconds >= round_trip {
                    *round += 1;
                    served[*round % 10] = *served_in_round / seconds;
                    (*round_began, *served_in_round) = (self.now, 0.0);
                }
                let rate = served.iter().copied().fold(0.0, f64::max);
                let gain = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0][*round % 8];
                let window = (2.0 * rate * self.round_trip_seconds).max(4.0 * SEGMENT) + 3.0 * SEGMENT;
                (rate * gain * step).min((window - in_flight).max(0.0))
            }
        }
    }

    /// Lets time pass; gives what arrived of the controlled flow and of the others, as parts of what the line carries.
    fn run(&mut self, seconds: f64) -> (f64, f64) {
        let (before, others_before) = (self.arrived, self.others_arrived);
        let end = self.now + (seconds * 1e6) as u64;
        while self.now < end {
            let step = STEP as f64 / 1e6;
            self.queued += self.told * step;
            self.others_queued += self.others_send();
            let (all, served) = (self.queued + self.others_queued, self.bytes_per_second * step);
            let served = served.min(all);
            let own = if all > 0.0 { served * self.queued / all } else { 0.0 };
            self.queued -= own;
            self.others_queued -= served - own;
            self.others_served = (served - own) / step;
            self.arrived += own;
            self.others_arrived += served - own;
            self.overflow();
            self.now += STEP;
            if self.now.is_multiple_of(PROBE) {
                let queue = (self.queued + self.others_queued) / self.bytes_per_second;
                // The measurement brings the rate that was decided before it, and crosses the queue several times.
                self.told = self.control.bytes_per_second() as f64;
                let delay = Duration::from_secs_f64(self.round_trip_seconds + CROSSINGS * queue + self.noise());
                self.control.measured(Monotonic(self.now), delay, self.arrived as u64, true);
            }
        }
        let carried = self.bytes_per_second * seconds;
        ((self.arrived - before) / carried, (self.others_arrived - others_before) / carried)
    }

    fn end_the_other(&mut self) {
        (self.other, self.others_queued, self.others_served) = (Flow::Silent, 0.0, 0.0);
    }

    fn overflow(&mut self) {
        let (all, room) = (self.queued + self.others_queued, self.buffer_seconds * self.bytes_per_second);
        if all <= room {
            return;
        }
        let part = room / all;
        (self.queued, self.others_queued) = (self.queued * part, self.others_queued * part);
        if let Flow::Reno { window, halved_at } = &mut self.other
            && (self.now - *halved_at) as f64 / 1e6 > self.round_trip_seconds + self.buffer_seconds
        {
            *window = (*window / 2.0).max(2.0 * SEGMENT);
            *halved_at = self.now;
        }
    }
}

/// What a flow gets of the line within `seconds` with nobody beside it.
fn alone(megabits: f64, round_trip: f64, flow: Flow, seconds: f64) -> f64 {
    let mut line = Line::new(megabits, round_trip, 0.0);
    line.other = flow;
    let (mut others, mut at) = (0.0, 0.0);
    while at < seconds {
        // The controlled flow sends nothing to speak of.
        line.control = Background::new(BackgroundSetup { delay: Duration::from_millis(3) });
        others += line.run(0.5).1 * 0.5;
        at += 0.5;
    }
    others / seconds
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
                line.other = Flow::Greedy(queue_ms / 1e3);
                let (own, others) = line.run(20.0);
                assert!(
                    others > 0.92 && own > 0.0,
                    "{what}: beside a queue of {queue_ms} ms own {own}, others {others}"
                );
                line.end_the_other();
                line.run(8.0);
                let (own, _) = line.run(2.0);
                assert!(own > 0.8, "{what}: back after 10 s: {own}");
                line.run(10.0);
            }
        }
    }
}

#[test]
fn flows_with_congestion_control_keep_nine_tenths_from_their_first_second_on() {
    for (megabits, round_trip) in [(10.0, 0.1), (20.0, 0.1), (20.0, 20.0), (50.0, 10.0)] {
        for flow in [Flow::reno(), Flow::bbr()] {
            let gets = alone(megabits, round_trip, flow, 12.0);
            // Whenever it begins, since the background's rate goes up and down.
            for begins in [21.0, 22.7, 24.4, 26.1, 27.8] {
                let mut line = Line::new(megabits, round_trip, 1.0);
                line.run(begins);
                line.other = flow;
                let (own, others) = line.run(12.0);
                let what =
                    format!("{megabits} Mbit/s, {round_trip} ms, from {begins} s on, {flow:?} gets {gets} alone");
                assert!(others > 0.9 * gets, "{what}: beside the background {others}, which has {own}");
                line.end_the_other();
                line.run(10.0);
                let (own, _) = line.run(4.0);
                assert!(own > 0.8, "{what}: back after 10 s: {own}");
            }
        }
    }
}

/// Round trips over machines that are busy with other things: most are delayed by more than the target, few are not.
#[test]
fn noise_neither_starves_it_nor_hides_others() {
    for noise_ms in [6.0, 12.0, 20.0] {
        let mut line = Line::new(20.0, 1.5, noise_ms);
        line.run(25.0);
        let (own, _) = line.run(20.0);
        let target = line.control.target_microseconds();
        assert!(own > 0.8, "{noise_ms} ms of noise, yields above {target} us: alone {own}");
        for queue_ms in [12.0, 40.0] {
            line.other = Flow::Greedy(queue_ms / 1e3);
            let (own, others) = line.run(12.0);
            assert!(others > 0.9, "{noise_ms} ms of noise: beside a queue of {queue_ms} ms own {own}, others {others}");
            line.end_the_other();
            line.run(10.0);
            let (own, _) = line.run(4.0);
            assert!(own > 0.75, "{noise_ms} ms of noise: back after 10 s: {own}");
        }
    }
}

#[test]
fn without_noise_it_yields_to_what_was_set_and_a_flow_of_bbr_is_no_noise() {
    let mut line = Line::new(20.0, 0.1, 0.5);
    line.run(30.0);
    assert_eq!(line.control.target_microseconds(), 3_000);
    line.other = Flow::bbr();
    for _ in 0..20 {
        line.run(1.0);
        assert_eq!(line.control.target_microseconds(), 3_000);
    }
}

#[test]
fn it_grows_from_a_trickle_that_arrives_in_segments() {
    let mut control = Background::new(BackgroundSetup { delay: Duration::from_millis(3) });
    let first = control.bytes_per_second();
    for at in 0..40_u64 {
        // Two thirds of the rate, as a busy sender's timers make of it, counted where a segment is complete.
        let arrived = at * first * 2 / 3 / 4 / 1_448 * 1_448;
        control.measured(Monotonic(at * 250_000), Duration::from_millis(1), arrived, true);
    }
    assert!(control.bytes_per_second() > first, "{}", control.bytes_per_second());
}

#[test]
fn it_comes_back_also_when_it_has_forgotten_the_line() {
    let mut line = Line::new(20.0, 0.1, 0.5);
    line.run(20.0);
    line.other = Flow::Greedy(0.006);
    line.run(180.0);
    assert!(line.control.peak_bytes_per_second() < 500_000, "after three minutes the peak is forgotten");
    line.end_the_other();
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
fn a_line_that_becomes_faster_is_learnt() {
    let mut line = Line::new(20.0, 5.0, 0.5);
    line.run(60.0);
    line.bytes_per_second *= 5.0;
    line.run(40.0);
    let (own, _) = line.run(10.0);
    assert!(own > 0.85, "{own}");
}

#[test]
fn the_own_queue_stays_short_on_an_idle_line() {
    let mut line = Line::new(20.0, 0.1, 0.5);
    line.run(20.0);
    let (mut longest, mut sum) = (0.0_f64, 0.0);
    for _ in 0..20_000 {
        sum += line.run(0.002).0;
        longest = longest.max(line.queued / line.bytes_per_second);
    }
    assert!(longest < 0.008 && sum / 20_000.0 > 0.9, "{longest} s of queue, {} of the line", sum / 20_000.0);
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
    #![proptest_config(ProptestConfig { cases: crate::property_tests::cases(48), ..ProptestConfig::default() })]
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
