//! Equal uplinks by the swarm machines: how near they come to M + floor(log2 N) rounds.
use branchline_simulations::capacity::{
    Neighbours,
    local::{Card, LocalSite},
};

use super::{
    search::fewest_rounds,
    spread::{hosts, run},
};

const MIB: u64 = 1 << 20;
/// What every card sends, in bits per second.
const UP: f64 = 100e6;
/// What a card receives that does not limit.
const AMPLE: f64 = 10.0 * UP;

/// One site of equal cards.
#[derive(Clone, Copy)]
struct Case {
    count: usize,
    frames: u64,
    frame: u64,
    /// What a card receives, in bits per second.
    down: f64,
    neighbours: Neighbours,
}

impl Case {
    fn least(self) -> f64 {
        fewest_rounds(self.count, self.frames) as f64
    }

    /// How many rounds a seed takes; never fewer than theory allows, and with every frame at every host once.
    fn rounds(self, seed: u64) -> f64 {
        let Self { count, frames, frame, down, neighbours } = self;
        let card = Card::new(UP, down);
        let site = LocalSite::prestaged(frames * frame, frame, card, hosts(count, card));
        let spread = run(&site.with_neighbours(neighbours).seeded(seed), frames * frame, frame);
        let rounds = spread.makespan_seconds() / (8.0 * frame as f64 / UP);
        assert!(rounds >= self.least(), "{self}, seed {seed}: {rounds} rounds, at least {}", self.least());
        assert_eq!(spread.lan_bytes - spread.wasted_bytes, count as u64 * frames * frame, "{self}, seed {seed}");
        rounds
    }

    /// Asserts that no seed takes more than `most` times the bound, and prints and returns the mean of all.
    fn within(self, seeds: u64, most: f64) -> f64 {
        let ratios: Vec<f64> = (0..seeds).map(|seed| self.rounds(seed) / self.least()).collect();
        let mean = ratios.iter().sum::<f64>() / seeds as f64;
        println!("{self}, bound {}: {mean:.3} of it, each {ratios:.3?}", self.least());
        for (seed, ratio) in ratios.into_iter().enumerate() {
            assert!(ratio <= most, "{self}, seed {seed}: {ratio} of the bound, at most {most}");
        }
        mean
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, frames, down, neighbours, .. } = self;
        write!(
            to,
            "{count} hosts, {frames} frames, cards receive {:.0} times what they send, {neighbours:?}",
            down / UP
        )
    }
}

/// A site whose downlinks do not limit, in full view.
fn uplinks_only(count: usize, frames: u64) -> Case {
    Case { count, frames, frame: MIB, down: AMPLE, neighbours: Neighbours::All }
}

#[test]
fn equal_uplinks_take_m_plus_log2_n_rounds() {
    // Mundinger, Weber, Weiss: only the uplinks limit. Hundred frames and more, as the row asks for a twentieth. Every
    // seed has to hold it; the mean of four is held to 1.04, since their makespans differ by half a round.
    for (count, frames) in [(10, 100), (50, 128), (100, 100), (100, 256)] {
        let case = uplinks_only(count, frames);
        let mean = case.within(4, 1.05);
        assert!(mean <= 1.04, "{case}: {mean} of the bound in the mean");
    }
}

#[test]
fn a_thousand_hosts_take_109_rounds_for_a_hundred_frames() {
    // A hundred neighbours instead of all, because in a full view every frame is announced a thousand times a host. The
    // bound holds for any neighbours, and the next test shows that a full view takes as many rounds. With ten frames
    // the last rounds count for more: one more for every three or four doublings, as with a hundred hosts.
    for (frames, least, most) in [(10, 19.0, 1.20), (100, 109.0, 1.05), (256, 265.0, 1.05)] {
        let case = Case { neighbours: Neighbours::Number(100), ..uplinks_only(1000, frames) };
        assert_eq!(case.least(), least);
        case.within(1, most);
    }
}

/// `cargo test --release -p branchline-simulations --test theory -- --ignored --nocapture in_a_full_view`
#[test]
#[ignore = "takes 40 s on a quiet core, and minutes on a busy one; 113.62 rounds"]
fn a_thousand_hosts_take_109_rounds_in_a_full_view_too() {
    uplinks_only(1000, 100).within(1, 1.05);
}

#[test]
fn few_frames_take_a_round_or_two_more() {
    // No frame at all may be sent in vain where there is one frame and N+1 is a power of two: in the last round every
    // holder has to find another host that lacks it, without any of them knowing whom the others choose. So the
    // machines take one round more there (63 and 127 hosts), as many as for the next host (64 and 128), where they need
    // none more. With ten frames among hundred hosts they lose two rounds, one for every three or four doublings. A
    // third of a round comes on top for the messages between frames and for what seeds differ by.
    for (count, frames, more) in
        [(63, 1, 1.0), (64, 1, 0.0), (127, 1, 1.0), (128, 1, 0.0), (10, 10, 1.0), (100, 10, 2.0)]
    {
        let case = uplinks_only(count, frames);
        case.within(4, (case.least() + more + 0.33) / case.least());
    }
}

/// A site whose cards receive no faster than they send: one download in a round.
fn symmetric(count: usize, frames: u64, neighbours: Neighbours) -> Case {
    Case { count, frames, frame: MIB / 4, down: UP, neighbours }
}

#[test]
fn symmetric_cards_come_near() {
    // With a full view THEORY.md asks for 1.05 where there are hundred frames and more. Where each card receives no
    // faster than the others send, choices collide, and the machine keeps it from about two hundred frames on.
    for (count, frames, most) in [(20, 256, 1.05), (50, 50, 1.15), (100, 100, 1.10), (100, 256, 1.05)] {
        symmetric(count, frames, Neighbours::All).within(2, most);
    }
}

#[test]
fn the_machines_come_nearer_to_rarest_first_than_to_a_random_useful_part() {
    // The row's figures in rounds: a random useful part, rarest first. Where downlinks do not limit the machine is as
    // good as rarest first is in the row; where they do, as in the row, its choices collide more often than the row's,
    // whose hosts see who is free, so that it is held to the middle of both.
    for (count, frames, random, rarest) in [(50, 50, 69.9, 57.1), (100, 100, 128.6, 108.3), (100, 256, 291.7, 265.2)] {
        let ample = uplinks_only(count, frames);
        let rounds = ample.within(4, 1.05) * ample.least();
        assert!(rounds <= 1.02 * rarest, "{ample}: {rounds} rounds, {rarest} by rarest first in the row");
        let equal = symmetric(count, frames, Neighbours::All);
        let rounds = equal.within(4, 1.15) * equal.least();
        let middle = (random + rarest) / 2.0;
        assert!(
            rounds <= middle,
            "{equal}: {rounds} rounds, {rarest} by rarest first and {random} at random in the row"
        );
    }
}

#[test]
fn with_ten_or_five_neighbours_the_machines_stay_within_the_row() {
    for (count, frames) in [(50, 50), (100, 100), (100, 256)] {
        symmetric(count, frames, Neighbours::Number(10)).within(4, 1.15);
        symmetric(count, frames, Neighbours::Number(5)).within(4, 1.28);
    }
    // With 256 frames ten neighbours are nearly as good as all of them.
    for count in [20, 100] {
        symmetric(count, 256, Neighbours::Number(10)).within(2, 1.07);
    }
}
