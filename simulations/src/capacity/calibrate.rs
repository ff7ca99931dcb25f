//! The flow resolution fitted to the chunk resolution on samples of the same scenario, and its error on other samples.
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use super::{
    chunk, engine,
    engine::Rollout,
    flow,
    local::{LocalSite, Spread},
    options::{Phase, Progress, Workers},
    outcome::Calibration,
    plan::{Plan, SitePlan},
    random::{Purpose, SiteRandom},
    scenario::Resolution,
    site,
    units::{NEVER, Time, seconds},
};

/// Bounds of the stretch, and how finely it is found. Below 1 a flow would be faster than its cards.
const STRETCH: (f64, f64) = (1.0, 8.0);
const HALVINGS: u32 = 24;

/// A site in both resolutions.
struct Sample {
    entry: usize,
    site: LocalSite,
    /// When its wave began.
    begin_seconds: f64,
    /// From then until its last host held everything.
    chunk_seconds: f64,
    /// Hosts that ever did.
    ready: usize,
}

/// Draws `sites` sites (at least two per entry as far as there are as many), fits one stretch per entry to the first
/// half of them, and measures the error on the others.
pub(crate) fn calibrate(
    plan: &Plan<'_>,
    sites: u32,
    workers: &dyn Workers,
    progress: &(dyn Fn(Progress) + Sync),
) -> Calibration {
    // When waves begin, and what of the uplink their sites get then, is known roughly before anything is fitted.
    let even = vec![1.0; plan.scenario.sites.len()];
    let foreseen = Rollout::simulate(plan, Resolution::Flow, &even, workers, &|_, _| {});
    let chosen = choose(plan, &foreseen, sites);
    let found: Vec<Mutex<Option<Sample>>> = chosen.iter().map(|_| Mutex::new(None)).collect();
    let (done, total) = (AtomicU64::new(0), chosen.len() as u64);
    workers.carry_out(chosen.len(), &|part| {
        let of = chosen[part];
        let site = foreseen_site(plan, &foreseen, of);
        let spread = chunk::spread(&site, &plan.content);
        let sample = Sample::new(of.entry, foreseen.waves[of.wave], site, &spread);
        *engine::lock(&found[part]) = Some(sample);
        progress(Progress { phase: Phase::Calibrate, done: done.fetch_add(1, Ordering::Relaxed) + 1, total });
    });
    let samples: Vec<Sample> = found.iter().filter_map(|sample| engine::lock(sample).take()).collect();
    // Every other sample of an entry is for fitting, from the first on; the rest measures.
    let (mut fitted, mut measured) = (Vec::new(), Vec::new());
    for entry in 0..plan.scenario.sites.len() {
        let of_entry = samples.iter().filter(|sample| sample.entry == entry).enumerate();
        for (index, sample) in of_entry {
            if index % 2 == 0 { fitted.push(sample) } else { measured.push(sample) }
        }
    }
    let stretch = fit_each(plan, &fitted);
    // With one site per entry there is none left to measure on: what was fitted says nothing of the error.
    let errors: Vec<f64> = measured.iter().map(|sample| error(sample, stretch[sample.entry])).collect();
    let (mean, half_width) = mean_and_half_width(&errors);
    Calibration {
        fitted_sites: fitted.len() as u64,
        measured_sites: measured.len() as u64,
        stretch,
        error_mean: mean,
        error_half_width: half_width,
        error_max: errors.iter().map(|error| error.abs()).fold(0.0, f64::max),
    }
}

/// One stretch per entry, fitted to some of the sites that were simulated frame by frame.
pub(crate) fn fit_to_chunks(plan: &Plan<'_>, rollout: &Rollout, sites: u32) -> Vec<f64> {
    let sample = |of: &SitePlan| {
        let (site, spread) = (foreseen_site(plan, rollout, of), &rollout.sites[of.number].spread);
        Sample::new(of.entry, rollout.waves[of.wave], site, spread)
    };
    let samples: Vec<Sample> = choose(plan, rollout, sites).into_iter().map(sample).collect();
    fit_each(plan, &samples.iter().collect::<Vec<_>>())
}

fn fit_each(plan: &Plan<'_>, samples: &[&Sample]) -> Vec<f64> {
    (0..plan.scenario.sites.len())
        .map(|entry| fit(&samples.iter().copied().filter(|sample| sample.entry == entry).collect::<Vec<_>>()))
        .collect()
}

/// Sites of every entry whose wave begins, drawn by the seed.
fn choose<'p>(plan: &'p Plan<'_>, rollout: &Rollout, sites: u32) -> Vec<&'p SitePlan> {
    let entries = plan.scenario.sites.len();
    let each = (sites as usize / entries).max(2);
    let mut chosen = Vec::new();
    for entry in 0..entries {
        let mut of_entry: Vec<&SitePlan> =
            plan.sites.iter().filter(|site| site.entry == entry && rollout.waves[site.wave] != NEVER).collect();
        let random = SiteRandom::new(plan.scenario.seed, entry as u64, u64::MAX - 1);
        for turn in 0..each.min(of_entry.len()) {
            let index = random.draw(Purpose::Sample, turn as u64, 0).below(of_entry.len());
            chosen.push(of_entry.swap_remove(index));
        }
    }
    chosen
}

fn foreseen_site(plan: &Plan<'_>, rollout: &Rollout, of: &SitePlan) -> LocalSite {
    site::local(plan, of, rollout.waves[of.wave], rollout.lines[of.number].clone())
}

impl Sample {
    fn new(entry: usize, begin: Time, site: LocalSite, spread: &Spread) -> Self {
        let begin_seconds = seconds(begin);
        Self {
            entry,
            site,
            begin_seconds,
            chunk_seconds: spread.last_seconds() - begin_seconds,
            ready: spread.ready_seconds().flatten().count(),
        }
    }
}

fn error(sample: &Sample, stretch: f64) -> f64 {
    let spread = flow::spread(&sample.site, stretch);
    if spread.ready_seconds().flatten().count() < sample.ready {
        // Where hosts fail, a flow that is stretched too far loses more of them: their last is no measure.
        return 0.0;
    }
    let flow = spread.last_seconds() - sample.begin_seconds;
    if sample.chunk_seconds > 0.0 && flow.is_finite() { flow / sample.chunk_seconds - 1.0 } else { 0.0 }
}

/// The stretch at which the mean error is nothing: it grows with the stretch, so halving finds it.
fn fit(samples: &[&Sample]) -> f64 {
    let mean = |stretch: f64| samples.iter().map(|sample| error(sample, stretch)).sum::<f64>();
    let (mut low, mut high) = STRETCH;
    if samples.is_empty() {
        return 1.0;
    }
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if mean(middle) < 0.0 { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// Mean and half the width of its 95 % confidence interval.
pub(crate) fn mean_and_half_width(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mean = values.iter().sum::<f64>() / count;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (count - 1.0);
    (mean, student_t(values.len() - 1) * libm::sqrt(variance / count))
}

/// The 97.5 % quantile of Student's distribution.
fn student_t(degrees: usize) -> f64 {
    const FIRST: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    let n = degrees as f64;
    // Beyond the table the expansion of Cornish and Fisher is good to three digits.
    let z = 1.959_964;
    let expansion =
        z + (z * z * z + z) / (4.0 * n) + (5.0 * libm::pow(z, 5.0) + 16.0 * z * z * z + 3.0 * z) / (96.0 * n * n);
    degrees.checked_sub(1).and_then(|index| FIRST.get(index)).copied().unwrap_or(expansion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_tables() {
        assert!((student_t(15) - 2.131).abs() < 1e-3 && (student_t(30) - 2.042).abs() < 1e-3);
        let (mean, half_width) = mean_and_half_width(&[1.0, 2.0, 3.0]);
        assert!((mean - 2.0).abs() < 1e-12 && (half_width - 4.303 / libm::sqrt(3.0)).abs() < 1e-9);
    }
}
