//! The whole rollout: waves, the uplink, all sites.
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{
    calibrate, combine,
    curve::Curve,
    lift,
    options::{Options, Phase, Progress, SimulateError, Workers},
    outcome::{Calibration, Simulated},
    plan::Plan,
    quantity::Neighbours,
    scenario::{Resolution, Scenario, Site},
    site::{self, SiteOutcome},
    units::{NEVER, Time, rate},
    uplink,
};

/// Frames over all hosts up to which every frame is simulated unless the scenario says otherwise: what one core does
/// in about a minute. A frame of a host with more neighbours than ten counts for more, in proportion, because each of
/// them hears of it.
const CHUNK_FRAMES_MAX: f64 = 10e6;

/// Less than any share of hosts, and more than what floats round off.
const ROUNDING: f64 = 1e-6;

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
    let calibration = match resolution {
        Resolution::Flow if options.calibration_sites > 0 => {
            Some(calibrate::calibrate(&plan, options.calibration_sites, workers, progress))
        }
        _ => None,
    };
    let stretch = calibration.as_ref().map_or_else(|| vec![1.0; scenario.sites.len()], |found| found.stretch.clone());
    let tell = |done, total| progress(Progress { phase: Phase::Simulate, done, total });
    let rollout = Rollout::simulate(&plan, resolution, &stretch, workers, &tell);
    let lifts =
        if options.lifts { lift::lifts(&plan, resolution, &stretch, &rollout, workers, progress)? } else { Vec::new() };
    Ok(combine::combine(&plan, &rollout, resolution, calibration, lifts, options))
}

/// The resolution that a scenario asks for, or that its size allows: every frame, as long as that takes no more than
/// about a minute.
pub fn resolution_of(scenario: &Scenario) -> Resolution {
    let weight = |site: &Site| match site.neighbours {
        Neighbours::All => (site.hosts.typical() / 10.0).max(1.0),
        Neighbours::Number(number) => (f64::from(number) / 10.0).max(1.0),
    };
    let hosts = scenario.sites.iter().map(|site| site.count as f64 * site.hosts.typical() * weight(site)).sum::<f64>();
    let small = hosts * scenario.payload.frames() as f64 <= CHUNK_FRAMES_MAX;
    let by_size = if small { Resolution::Chunk } else { Resolution::Flow };
    scenario.resolution.unwrap_or(by_size)
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
                    plan.sites[*site].wave == wave
                        || lines.get(*site).is_some_and(|line: &Curve| !line.brings_the_same_as(&shares[*site]))
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

pub(crate) fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
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
    // Shares are decimal fractions, which floats hold not quite: 0.55 of 100 are 55.
    let needed = libm::ceil(thresholds.success * hosts as f64 - ROUNDING) as usize;
    let passed = needed.checked_sub(1).map_or(Some(began), |last| completions.get(last).copied());
    let allowed = libm::floor(thresholds.error * hosts as f64 + ROUNDING) as usize;
    match (passed, failures.get(allowed)) {
        (Some(passed), Some(stopped)) if *stopped <= passed => NEVER,
        (passed, _) => passed.unwrap_or(NEVER),
    }
}

/// The calibration of a scenario alone, for benchmarks and the book.
///
/// # Errors
/// [`SimulateError`]: the scenario makes no sense.
pub fn calibrate_flow(scenario: &Scenario, sites: u32, workers: &dyn Workers) -> Result<Calibration, SimulateError> {
    let plan = Plan::new(scenario)?;
    Ok(calibrate::calibrate(&plan, sites, workers, &|_| {}))
}
