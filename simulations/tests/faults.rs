//! Fault simulation: committed cases, 500 seeds, and proof that each checker can fail.
#![forbid(unsafe_code)]

use branchline_simulations::{
    checkers::Kind,
    faults::{Report, Sabotage, record, run, run::run_twice},
    recording::{Filter, Stepper},
};

/// Seeds that once failed, with what they found.
const CASES: &str = include_str!("seeds.txt");

fn cases() -> Vec<u64> {
    let lines = CASES.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a case is a number")).collect()
}

/// Runs seeds; says of each that fails how to look at it.
fn hold(seeds: impl IntoIterator<Item = u64>) -> Vec<Report> {
    let reports: Vec<Report> = seeds.into_iter().map(|seed| run(seed, None)).collect();
    let failed = reports.iter().filter_map(|report| {
        let failure = report.failure.as_ref()?;
        let (seed, kind) = (report.seed, failure.kind.word());
        Some(format!(
            "seed {seed}: {kind}: {}: {:.1000}\n  look at it with: branchline replay {seed} --step",
            failure.property, failure.what
        ))
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
    reports
}

#[test]
fn committed_cases_hold() {
    hold(cases());
}

/// Fifty seeds each, so that the parts run beside each other.
macro_rules! seeds {
    ($($name:ident: $from:literal),* $(,)?) => {$(
        #[test]
        fn $name() {
            let reports = hold($from..$from + 50);
            let crashes: u64 = reports.iter().map(|report| report.crashes).sum();
            assert!(crashes > 50, "only {crashes} processes died: the weather was too good");
        }
    )*};
}

seeds! {
    seeds_000_to_049: 0, seeds_050_to_099: 50, seeds_100_to_149: 100, seeds_150_to_199: 150, seeds_200_to_249: 200,
    seeds_250_to_299: 250, seeds_300_to_349: 300, seeds_350_to_399: 350, seeds_400_to_449: 400, seeds_450_to_499: 450,
}

#[test]
fn one_seed_is_one_run() {
    for seed in 1000..1010 {
        let report = run_twice(seed, None);
        assert_eq!(report.failure, None, "seed {seed}");
    }
    assert_ne!(run(1000, None).trace, run(1001, None).trace);
}

/// Whatever is broken on purpose is found, by the checker whose business it is.
#[test]
fn every_sabotage_is_found_by_its_checker() {
    for sabotage in Sabotage::ALL {
        for seed in 0..3 {
            // What differs between two runs shows in none of them alone.
            let runs = if sabotage == Sabotage::KeptState { run_twice } else { run };
            let failure = runs(seed, Some(sabotage)).failure;
            let found = failure.as_ref().map(|failure| failure.kind);
            assert_eq!(found, Some(sabotage.is_found_by()), "{sabotage}, seed {seed}: {failure:?}");
        }
    }
    let found = Sabotage::ALL.map(Sabotage::is_found_by);
    let never: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !found.contains(kind)).collect();
    assert_eq!(never, [], "each kind can be provoked");
}

#[test]
fn a_recording_tells_the_run_to_its_end() {
    let (report, recording) = (run(0, Some(Sabotage::DoubledMapping)), record(0, Some(Sabotage::DoubledMapping)));
    assert_eq!(recording.header.failure, report.failure, "recording changes nothing");
    assert_eq!(recording.steps.len() as u64, report.happenings);
    let mut stepper = Stepper::new(&recording, Filter::default());
    let table = stepper.until("sabotage").map(|step| step.number);
    assert_eq!(table, None, "this sabotage says nothing; the router's rows show it");
    while stepper.forward().is_some() {}
    let behind = stepper.state_of("router");
    assert_eq!(behind.len(), 2, "one host, two rows: {behind:?}");
    assert!(stepper.machines().contains(&"till-0"));
    let station = stepper.state_of("station");
    assert!(station.keys().any(|key| key.starts_with("mapping of")), "{station:?}");
}
