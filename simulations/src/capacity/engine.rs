//! The whole rollout: waves, the uplink, all sites.
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{
    combine,
    curve::Curve,
    lift,
    options::{Options, Phase, Progress, SimulateError, Workers},
    outcome::Simulated,
    plan::Plan,
    scenario::{Resolution, Scenario},
    site::{self, SiteOutcome},
    units::{NEVER, Time, rate},
    uplink,
};

/// Simulates a scenario.
///
/// The outcome, but for `run`, depends on nothing but the scenario and the options. `progress` may be called from the
/// threads of `workers`.
///
/// # Errors
/// [`SimulateError`]: the scenario makes no sense.
pub fn simulate(
    scenario: &Scenario,
    options: &Options,
    workers: &dyn Workers,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Simulated, SimulateError> {
    let plan = Plan::new(scenario)?;
    let resolution = resolution_of(scenario);
    if resolution == Resolution::Chunk {
        return Err(SimulateError::NotYet);
    }
    let stretch = vec![1.0; scenario.sites.len()];
    let tell = |done, total| progress(Progress { phase: Phase::Simulate, done, total });
    let rollout = Rollout::simulate(&plan, resolution, &stretch, workers, &tell);
    let lifts =
        if options.lifts { lift::lifts(&plan, resolution, &stretch, &rollout, workers, progress)? } else { Vec::new() };
    Ok(combine::combine(&plan, &rollout, resolution, None, lifts, options))
}

/// The resolution that a scenario asks for; without one the flow, since frames are not simulated yet.
pub fn resolution_of(scenario: &Scenario) -> Resolution {
    scenario.resolution.unwrap_or(Resolution::Flow)
}

/// What came of all sites.
pub(crate) struct Rollout {
    pub sites: Vec<SiteOutcome>,
    pub lines: Vec<Curve>,
    /// When each wave began.
    pub waves: Vec<Time>,
}

impl Rollout {
    /// Simulates all waves. A wave begins when the one before has shown what it must; what it adds to the uplink's load
    /// changes nothing of what was before, so that only sites that still fetched then are simulated again.
    pub fn simulate(
        plan: &Plan<'_>,
        resolution: Resolution,
        stretch: &[f64],
        workers: &dyn Workers,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Self {
        let headquarters = &plan.scenario.headquarters;
        let capacity = rate(headquarters.uplink_bits_per_second);
        let mut waves = vec![NEVER; plan.waves];
        let mut lines = Vec::new();
        let outcomes: Vec<Mutex<Option<SiteOutcome>>> = plan.sites.iter().map(|_| Mutex::new(None)).collect();
        let done = AtomicU64::new(0);
        for wave in 0..plan.waves {
            waves[wave] = match wave.checked_sub(1) {
                None => 0,
                Some(before) => passed_at(plan, before, waves[before], &outcomes),
            };
            let demands: Vec<_> = plan.sites.iter().map(|site| site::demand(plan, site, waves[site.wave])).collect();
            let shares = uplink::share(capacity, headquarters.concurrent_sites, &demands);
            let stale: Vec<usize> = (0..plan.sites.len())
                .filter(|site| {
                    plan.sites[*site].wave == wave || lines.get(*site).is_some_and(|line| *line != shares[*site])
                })
                .collect();
            workers.carry_out(stale.len(), &|part| {
                let site = &plan.sites[stale[part]];
                let (line, stretch) = (shares[site.number].clone(), stretch[site.entry]);
                let outcome = site::simulate(plan, site, waves[site.wave], line, resolution, stretch);
                *lock(&outcomes[site.number]) = Some(outcome);
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, plan.sites.len() as u64);
            });
            lines = shares;
        }
        let sites = outcomes.iter().filter_map(|outcome| lock(outcome).take()).collect();
        Self { sites, lines, waves }
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a wave has shown what it must; never where too many of its hosts fail before, or too few ever complete.
fn passed_at(plan: &Plan<'_>, wave: usize, began: Time, outcomes: &[Mutex<Option<SiteOutcome>>]) -> Time {
    let thresholds = plan.scenario.rollout.thresholds;
    let (mut hosts, mut completions, mut failures) = (0_u64, Vec::new(), Vec::new());
    for site in plan.sites.iter().filter(|site| site.wave == wave) {
        hosts += u64::from(site.hosts);
        if let Some(outcome) = lock(&outcomes[site.number]).as_ref() {
            completions.extend(outcome.completions());
            failures.extend(outcome.failures());
        }
    }
    if began == NEVER || hosts == 0 {
        return began;
    }
    completions.sort_unstable();
    failures.sort_unstable();
    let needed = libm::ceil(thresholds.success * hosts as f64) as usize;
    let passed = needed.checked_sub(1).map_or(Some(began), |last| completions.get(last).copied());
    let allowed = libm::floor(thresholds.error * hosts as f64) as usize;
    match (passed, failures.get(allowed)) {
        (Some(passed), Some(stopped)) if *stopped <= passed => NEVER,
        (passed, _) => passed.unwrap_or(NEVER),
    }
}
