//! What it costs to keep events in one calendar instead of one per site, and to compare maps of frames (a benchmark, no
//! test).
//!
//! `cargo run --release -p branchline-simulations --example event_queues`
//!
//! Sites meet only at headquarters' uplink, so that each can have a calendar of its own. An operation takes the next
//! event out and plans another. Ten thousand calendars of 200 events are worked off site by site, a thousand events of
//! one before the next site's turn, because `capacity` simulates one site after another, and for comparison one event
//! of each in turn. One calendar of all events can only be worked off in the order of time. About 15 s.
//!
//! The maps depend on the processor's instructions: without `RUSTFLAGS="-C target-cpu=native"` the compiler counts bits
//! without the instruction that does so.
#![forbid(unsafe_code)]
use std::{cmp::Reverse, collections::BinaryHeap, hint::black_box, time::Instant};

use branchline_protocol::content::Bitmap;

const SITES: u64 = 10_000;
const EVENTS_OF_A_SITE: u64 = 200;
/// How long each part measures, in seconds.
const SECONDS: f64 = 3.0;

/// When, and in which order: the key of `capacity::chunk` without what happens, which moves along with either calendar.
type Key = (u64, u64);
type Calendar = BinaryHeap<Reverse<Key>>;

/// Bits that look random and cost nothing beside a heap (xorshift; Marsaglia, 2003).
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn calendar(events: u64, bits: &mut Bits) -> Calendar {
    (0..events).map(|order| Reverse((bits.next() >> 24, order))).collect()
}

/// Takes the next event out and plans another, later by something like the time between two events of one node.
fn operate(calendar: &mut Calendar, operations: u64, order: &mut u64, bits: &mut Bits) {
    for _ in 0..operations {
        let Some(Reverse((at, _))) = calendar.pop() else { return };
        *order += 1;
        calendar.push(Reverse((at + (bits.next() >> 24), *order)));
    }
}

/// Operations per second, where the calendars come one after another and each has so many operations in its turn.
fn measure(calendars: &mut [Calendar], in_a_turn: u64, bits: &mut Bits) -> f64 {
    let (mut done, mut order) = (0, u64::MAX / 2);
    let begun = Instant::now();
    for turn in (0..calendars.len()).cycle() {
        operate(&mut calendars[turn], in_a_turn, &mut order, bits);
        done += in_a_turn;
        // The clock is asked rarely, since asking takes as long as an operation.
        if done % 64_000 == 0 && begun.elapsed().as_secs_f64() >= SECONDS {
            break;
        }
    }
    black_box(calendars.iter().map(BinaryHeap::len).sum::<usize>());
    done as f64 / begun.elapsed().as_secs_f64()
}

/// Nanoseconds for the number of frames that one map has and another lacks.
fn compare_maps(bits: &mut Bits) -> f64 {
    const MAPS: usize = 64;
    const FRAMES: u32 = 1024;
    let map = |_| {
        let bytes: Vec<u8> = (0..FRAMES / 8).map(|_| bits.next() as u8).collect();
        Bitmap::from_bytes(&bytes, FRAMES).expect("as many bytes as 1024 frames need")
    };
    let maps: Vec<Bitmap> = (0..MAPS).map(map).collect();
    let begun = Instant::now();
    let (mut done, mut sum) = (0_u64, 0_u64);
    while begun.elapsed().as_secs_f64() < SECONDS / 3.0 {
        for own in &maps {
            for other in &maps {
                let lacks = own.words().iter().zip(other.words()).map(|(own, other)| (other & !own).count_ones());
                sum += u64::from(black_box(lacks.sum::<u32>()));
                done += 1;
            }
        }
    }
    black_box(sum);
    begun.elapsed().as_secs_f64() * 1e9 / done as f64
}

fn main() {
    let mut bits = Bits(0x9e37_79b9_7f4a_7c15);
    let mut local: Vec<Calendar> = (0..SITES).map(|_| calendar(EVENTS_OF_A_SITE, &mut bits)).collect();
    let scattered = measure(&mut local, 1, &mut bits);
    let local = measure(&mut local, 1_000, &mut bits);
    println!(
        "{SITES} calendars of {EVENTS_OF_A_SITE} events, site by site: {:.1} million operations a second",
        local / 1e6
    );
    println!("  one operation of each in turn: {:.1} million operations a second", scattered / 1e6);
    for events in [1_000_000, SITES * EVENTS_OF_A_SITE] {
        let global = measure(&mut [calendar(events, &mut bits)], 1_000, &mut bits);
        println!(
            "one calendar of {events} events: {:.2} million operations a second, {:.1} times as slow",
            global / 1e6,
            local / global
        );
    }
    println!("and-not with popcount of two maps of 1024 frames: {:.1} ns", compare_maps(&mut bits));
}
