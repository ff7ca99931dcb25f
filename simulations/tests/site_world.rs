//! One site under virtual time: the machines of the product in good and in bad weather.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use branchline_simulations::{
    scenario::SiteScenario,
    site::{SiteWorld, Summary},
};

/// Runs a world; where something is wrong, gives what, and the end of the trace.
fn try_run(scenario: &SiteScenario) -> Result<Summary, (String, String)> {
    let mut world = SiteWorld::new(scenario.clone());
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let reason = match result {
        Ok(Ok(summary)) => return Ok(summary),
        Ok(Err(violation)) => violation.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        }
    };
    let lines = std::env::var("BRANCHLINE_TRACE_LINES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let tail: Vec<&str> = world.trace().tail().collect();
    Err((reason, tail[tail.len().saturating_sub(lines)..].join("\n")))
}

fn run(scenario: SiteScenario) -> Summary {
    match try_run(&scenario) {
        Ok(summary) => summary,
        Err((reason, tail)) => panic!("seed {}: {reason}\n{scenario:#?}\n{tail}", scenario.seed),
    }
}

#[test]
fn in_good_weather_every_byte_crosses_the_line_once() {
    for seed in 0..5 {
        let summary = run(SiteScenario::calm(seed));
        assert_eq!(summary.wan_bytes, summary.pack_bytes, "wan_ratio is exactly 1 (R70): {summary:?}");
        assert_eq!((summary.crashes, summary.holders_lost), (0, 0));
        let messages = summary.messages;
        assert!(messages.sent > 0, "{summary:?}");
        assert_eq!((messages.lost, messages.doubled, messages.overtaking), (0, 0, 0), "{summary:?}");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 17] {
        let (once, again) = (run(SiteScenario::stormy(seed)), run(SiteScenario::stormy(seed)));
        assert_eq!(once, again, "the same seed gives the same trace");
        assert!(once.lines > 100, "a trace that says nothing proves nothing");
    }
    assert_ne!(run(SiteScenario::stormy(3)).trace, run(SiteScenario::stormy(4)).trace);
}

/// Loss, doubling, reordering, outages, corrupt frames, a failing router, failing installations, crashes of everybody:
/// in every world all properties hold, and all hosts are complete in the end (the 200 seeds, in four parts).
fn storms(seeds: std::ops::Range<u64>) {
    let (mut crashes, mut wan_bytes, mut pack_bytes, mut doubled) = (0, 0, 0, 0);
    let mut failed = Vec::new();
    for seed in seeds {
        let scenario = SiteScenario { denied: 0, ..SiteScenario::stormy(seed) };
        match try_run(&scenario) {
            Ok(summary) => {
                crashes += summary.crashes;
                wan_bytes += summary.wan_bytes;
                pack_bytes += summary.pack_bytes;
                assert_eq!((summary.complete, summary.denied), (scenario.hosts, 0), "seed {seed}: {summary:?}");
                let messages = summary.messages;
                assert!(messages.lost > 0 && messages.overtaking > 0, "seed {seed} is no storm: {summary:?}");
                doubled += messages.doubled;
            }
            Err((reason, tail)) => failed.push((seed, reason, tail)),
        }
    }
    if let Some((seed, _, tail)) = failed.first() {
        let scenario = SiteScenario { denied: 0, ..SiteScenario::stormy(*seed) };
        let list: Vec<String> = failed.iter().map(|(seed, reason, _)| format!("seed {seed}: {reason}")).collect();
        panic!("{}\nthe first of them, seed {seed}: {scenario:#?}\n{tail}", list.join("\n"));
    }
    println!("{crashes} crashes, wan_ratio {:.4}", wan_bytes as f64 / pack_bytes as f64);
    assert!(wan_bytes * 10 <= pack_bytes * 11, "{wan_bytes} bytes for packs of {pack_bytes} bytes");
    assert!(doubled > 0, "no message came twice");
    assert!(crashes > 50, "only {crashes} crashes: the weather was too good");
}

/// Who is denied ends denied and is never mapped, whatever is lost; the others are complete.
#[test]
fn in_a_storm_only_those_who_are_denied_are_not_complete() {
    for seed in 200..220 {
        let scenario = SiteScenario { denied: 1, ..SiteScenario::stormy(seed) };
        let hosts = scenario.hosts;
        let summary = run(scenario);
        assert_eq!((summary.complete, summary.denied), (hosts - 1, 1), "seed {seed}: {summary:?}");
    }
}

#[test]
fn storms_0_to_49() {
    storms(0..50);
}

#[test]
fn storms_50_to_99() {
    storms(50..100);
}

#[test]
fn storms_100_to_149() {
    storms(100..150);
}

#[test]
fn storms_150_to_199() {
    storms(150..200);
}
