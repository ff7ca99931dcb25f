//! The swarm machine against the closed form M + floor(log2 N) (THEORY.md, Mundinger, Weber and Weiss 2008).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use branchline_protocol::swarm::Tuning;
use branchline_simulations::{
    capacity::{
        Neighbours,
        chunk::{self, Content},
        local::{Card, LocalHost, LocalSite},
    },
    star::{Star, StarReport, StarScenario},
};

fn run(scenario: &StarScenario) -> (StarReport, f64) {
    let mut star = Star::new(scenario.clone(), false).unwrap();
    let report = star.run();
    star.check_invariants();
    assert_eq!(report.done_microseconds.len(), scenario.hosts, "not everybody has everything");
    let rounds = report.makespan_microseconds() as f64 / scenario.frame_microseconds as f64;
    let ratio = rounds / scenario.bound_rounds() as f64;
    assert!(ratio >= 0.999, "{rounds} rounds beat the bound of {}", scenario.bound_rounds());
    (report, ratio)
}

#[test]
fn ten_neighbours_of_five_hundred_stay_within_a_tenth_of_the_bound() {
    for seed in 0..3 {
        let scenario = StarScenario::equal(seed, 500, 256, 10);
        let (report, ratio) = run(&scenario);
        assert!(ratio <= 1.10, "seed {seed}: {ratio}");
        let sent = report.seed_frames as f64 / f64::from(scenario.frames);
        assert!(sent <= 1.10, "the seed sent {sent} times the pack");
    }
}

/// The same with what nodes have: cards alike, frames of 64 KiB, twelve slots to serve and thirteen to push.
#[test]
fn ten_neighbours_of_five_hundred_nodes_stay_within_a_tenth_of_the_bound() {
    let (hosts, frames, frame_bytes, bits_per_second) = (500, 1024, 64 << 10, 100e6);
    let card = Card::new(bits_per_second, bits_per_second);
    let mut content = Content::new(frames * frame_bytes, frame_bytes).unwrap();
    content.tuning = Some(Tuning::default());
    let everybody = vec![LocalHost::new(card, 0.0); hosts];
    for seed in 0..2 {
        let site = LocalSite::prestaged(frames * frame_bytes, frame_bytes, card, everybody.clone());
        let spread = chunk::spread(&site.with_neighbours(Neighbours::Number(10)).seeded(seed), &content);
        assert_eq!(spread.ready_seconds().flatten().count(), hosts, "not everybody has everything");
        let rounds = spread.makespan_seconds() * bits_per_second / (8 * frame_bytes) as f64;
        let ratio = rounds / (frames + u64::from(hosts.ilog2())) as f64;
        assert!((0.999..=1.10).contains(&ratio), "seed {seed}: {ratio}");
    }
}
