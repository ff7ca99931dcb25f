//! One run of one seed: its report, and its recording where somebody wants to look.
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use super::{Sabotage, draw};
use crate::{
    checkers::{Kind, Violation},
    recording::{Failure, Header, RECORDING_FORMAT, Recording},
    scenario::SiteScenario,
    site::{SiteWorld, Summary},
};

/// How the run of one seed went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What was broken, if anything.
    pub failure: Option<Failure>,
    /// Names the whole run: equal names, equal runs.
    pub trace: String,
    /// Things that happened.
    pub happenings: u64,
    /// Length of the run in seconds of the world.
    pub seconds: u64,
    /// How long the core needed after the faults had stopped, in seconds.
    pub healing_seconds: u64,
    /// Frame bytes that crossed the line.
    pub wan_bytes: u64,
    /// Length of the packs that were chosen.
    pub pack_bytes: u64,
    /// How often a lease holder or its connection was lost.
    pub holders_lost: u64,
    /// Processes that died.
    pub crashes: u64,
}

/// The scenario of a seed with something broken on purpose: small and crowded, so that there is an occasion.
fn scenario(seed: u64, sabotage: Option<Sabotage>) -> SiteScenario {
    let drawn = draw(seed);
    if sabotage.is_none() {
        return drawn;
    }
    let calm = SiteScenario::calm(seed);
    SiteScenario { sabotage, hosts: drawn.hosts.max(4), sessions_max: 1, ..calm }
}

fn go(world: &mut SiteWorld) -> (Option<Failure>, Summary) {
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let failure = match result {
        Ok(Ok(_)) => None,
        Ok(Err(Violation { kind, property, what })) => Some(Failure { kind, property: property.to_owned(), what }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let property = "no machine breaks an invariant of its own".to_owned();
            Some(Failure { kind: Kind::Machine, property, what: text.unwrap_or_default() })
        }
    };
    (failure, world.summary())
}

/// Runs one seed.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Report {
    let mut world = SiteWorld::new(scenario(seed, sabotage));
    let (failure, summary) = go(&mut world);
    report(seed, failure, &summary)
}

/// Runs one seed twice; two traces are a failure of their own.
pub fn run_twice(seed: u64, sabotage: Option<Sabotage>) -> Report {
    let mut once = run(seed, sabotage);
    let again = run(seed, sabotage);
    if once.trace != again.trace && once.failure.is_none() {
        let what = format!("{} and {}", once.trace, again.trace);
        once.failure = Some(Failure { kind: Kind::Determinism, property: "one seed is one run".to_owned(), what });
    }
    once
}

fn report(seed: u64, failure: Option<Failure>, summary: &Summary) -> Report {
    Report {
        seed,
        failure,
        trace: summary.trace.to_string(),
        happenings: summary.happenings,
        seconds: summary.seconds,
        healing_seconds: summary.healing_seconds,
        wan_bytes: summary.wan_bytes,
        pack_bytes: summary.pack_bytes,
        holders_lost: summary.holders_lost,
        crashes: summary.crashes,
    }
}

/// Runs one seed and takes down everything that happens. It takes several times as long as [`run`].
pub fn record(seed: u64, sabotage: Option<Sabotage>) -> Recording {
    let scenario = scenario(seed, sabotage);
    let options = format!("{scenario:#?}");
    let mut world = SiteWorld::new(scenario).recorded();
    let (failure, _) = go(&mut world);
    let steps = world.take_recorder().map(|recorder| recorder.into_steps()).unwrap_or_default();
    let header = Header {
        format: RECORDING_FORMAT,
        seed,
        sabotage: sabotage.map(|sabotage| sabotage.word().to_owned()),
        options,
        failure,
        steps: steps.len() as u64,
    };
    Recording { header, steps }
}
