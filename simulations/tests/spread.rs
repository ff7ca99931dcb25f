//! The swarm machine against the closed form M + floor(log2 N) (THEORY.md, Mundinger, Weber and Weiss 2008).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use branchline_simulations::star::{Star, StarReport, StarScenario};

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
