//! The flow resolution fitted to the chunk resolution on samples of the same scenario, and its error on other samples.
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use super::{
    chunk,
    curve::Curve,
    engine, flow,
    local::LocalSite,
    options::{Phase, Progress, Workers},
    outcome::Calibration,
    plan::{Plan, SitePlan},
    random::{Purpose, SiteRandom},
    site,
    units::rate,
    uplink,
};

/// Bounds of the stretch, and how finely it is found.
const STRETCH: (f64, f64) = (0.5, 8.0);
const HALVINGS: u32 = 24;

/// A site in both resolutions.
struct Sample {
    entry: usize,
    site: LocalSite,
    chunk_seconds: f64,
}

/// Draws `sites` sites (at least two per entry as far as there are as many), fits one stretch per entry to the first
/// half of them, and measures the error on the others.
pub(crate) fn calibrate(
    plan: &Plan<'_>,
    sites: u32,
    workers: &dyn Workers,
    progress: &(dyn Fn(Progress) + Sync),
) -> Calibration {
    let headquarters = &plan.scenario.headquarters;
    let demands: Vec<_> = plan.sites.iter().map(|of| site::demand(plan, of, 0)).collect();
    let lines = uplink::share(rate(headquarters.uplink_bits_per_second), headquarters.concurrent_sites, &demands);
    let chosen = choose(plan, sites);
    let found: Vec<Mutex<Option<Sample>>> = chosen.iter().map(|_| Mutex::new(None)).collect();
    let (done, total) = (AtomicU64::new(0), chosen.len() as u64);
    workers.carry_out(chosen.len(), &|part| {
        let of = chosen[part];
        let sample = sample(plan, of, lines[of.number].clone());
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
    let stretch: Vec<f64> = (0..plan.scenario.sites.len())
        .map(|entry| fit(&fitted.iter().copied().filter(|sample| sample.entry == entry).collect::<Vec<_>>()))
        .collect();
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

/// Sites of every entry, drawn by the seed.
fn choose<'p>(plan: &'p Plan<'_>, sites: u32) -> Vec<&'p SitePlan> {
    let entries = plan.scenario.sites.len();
    let each = (sites as usize / entries).max(2);
    let mut chosen = Vec::new();
    for entry in 0..entries {
        let mut of_entry: Vec<&SitePlan> = plan.sites.iter().filter(|site| site.entry == entry).collect();
        let random = SiteRandom::new(plan.scenario.seed, entry as u64, u64::MAX - 1);
        for turn in 0..each.min(of_entry.len()) {
            let index = random.draw(Purpose::Sample, turn as u64, 0).below(of_entry.len());
            chosen.push(of_entry.swap_remove(index));
        }
    }
    chosen
}

fn sample(plan: &Plan<'_>, of: &SitePlan, line: Curve) -> Sample {
    let site = site::local(plan, of, 0, line);
    let chunk_seconds = chunk::spread(&site, &plan.content).makespan_seconds();
    Sample { entry: of.entry, site, chunk_seconds }
}

fn error(sample: &Sample, stretch: f64) -> f64 {
    let flow = flow::spread(&sample.site, stretch).makespan_seconds();
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
