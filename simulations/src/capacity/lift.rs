//! What lifting each term would gain: the same scenario without it.
use super::{
    calibrate,
    engine::Rollout,
    options::{Phase, Progress, SimulateError, Workers},
    outcome::{BindingTerm, Lift},
    plan::Plan,
    quantity::{Arrivals, InstallTime, Quantity, Wifi},
    scenario::{Resolution, Rollout as Waves, Scenario},
    units::{Time, seconds},
};

/// Sites that a flow is fitted to, where the rollout was simulated frame by frame.
const FITTED_SITES: u32 = 16;
/// So fast that it never binds, in bits per second.
const UNLIMITED: f64 = 1e13;

const TERMS: [BindingTerm; 6] = [
    BindingTerm::HeadquartersUplink,
    BindingTerm::Wan,
    BindingTerm::Lan,
    BindingTerm::SessionLimit,
    BindingTerm::InstallTime,
    BindingTerm::Stragglers,
];

/// The scenario without one term. All random figures stay as they are.
pub(crate) fn without(scenario: &Scenario, term: BindingTerm) -> Scenario {
    let mut lifted = scenario.clone();
    match term {
        BindingTerm::HeadquartersUplink => lifted.headquarters.uplink_bits_per_second = UNLIMITED,
        BindingTerm::SessionLimit => lifted.headquarters.concurrent_sites = None,
        BindingTerm::Stragglers => {
            // All at once and always: the share of each wave stays one wave.
            lifted.rollout = Waves::default();
        }
        BindingTerm::Wan | BindingTerm::Lan | BindingTerm::InstallTime => {}
    }
    for site in &mut lifted.sites {
        match term {
            BindingTerm::HeadquartersUplink => {}
            BindingTerm::Wan => {
                site.wan_bits_per_second = Quantity::Fixed(UNLIMITED);
                site.wan_latency_seconds = Quantity::Fixed(0.0);
                site.loss = 0.0;
            }
            BindingTerm::Lan => {
                site.lan_bits_per_second = Quantity::Fixed(UNLIMITED);
                site.wifi = Wifi::Wired;
                site.slow_share = 0.0;
            }
            BindingTerm::SessionLimit => site.sessions_limit = u32::MAX,
            BindingTerm::InstallTime => site.install_seconds = InstallTime::Fixed(0.0),
            BindingTerm::Stragglers => {
                (site.offline, site.churn, site.station_fails_at_seconds) = (None, None, None);
                site.arrivals = Arrivals::Together;
                site.slow_share = 0.0;
            }
        }
    }
    lifted
}

/// The makespan of a rollout: when its last host was complete.
pub(crate) fn makespan(rollout: &Rollout) -> Time {
    rollout.sites.iter().flat_map(|site| site.completions()).max().unwrap_or(0)
}

/// What lifting each term would gain, the greatest gain first; ties in the order of the terms.
///
/// A rollout in chunk resolution is compared in flow resolution on both sides, fitted to its own sites: what is gained
/// is then taken from its own makespan.
pub(crate) fn lifts(
    plan: &Plan<'_>,
    resolution: Resolution,
    stretch: &[f64],
    rollout: &Rollout,
    workers: &dyn Workers,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<Lift>, SimulateError> {
    let quiet = |_, _| {};
    let own = makespan(rollout);
    let (stretch, base) = match resolution {
        Resolution::Flow => (stretch.to_vec(), own),
        Resolution::Chunk => {
            let fitted = calibrate::fit_to_chunks(plan, rollout, FITTED_SITES);
            let base = makespan(&Rollout::simulate(plan, Resolution::Flow, &fitted, workers, &quiet));
            (fitted, base)
        }
    };
    let lifted = |scenario: &Scenario| -> Result<Time, SimulateError> {
        Ok(makespan(&Rollout::simulate(&Plan::new(scenario)?, Resolution::Flow, &stretch, workers, &quiet)))
    };
    // A queue is as long as what is waited for: without installations, or with lines that take no time, nobody would
    // wait either, and no limit of sessions could ever bind. So these two are judged beside a limit that is lifted.
    let unqueued = without(plan.scenario, BindingTerm::SessionLimit);
    let base_unqueued = lifted(&unqueued)?;
    let mut lifts = Vec::with_capacity(TERMS.len());
    for (index, term) in TERMS.into_iter().enumerate() {
        progress(Progress { phase: Phase::Lift, done: index as u64, total: TERMS.len() as u64 });
        let gain = match term {
            BindingTerm::SessionLimit => base.saturating_sub(base_unqueued),
            BindingTerm::InstallTime | BindingTerm::Wan => {
                base_unqueued.saturating_sub(lifted(&without(&unqueued, term))?)
            }
            _ => base.saturating_sub(lifted(&without(plan.scenario, term))?),
        };
        let gain = gain.min(own);
        lifts.push(Lift { term, makespan_seconds: seconds(own - gain), gain_seconds: seconds(gain) });
    }
    lifts.sort_by(|a, b| b.gain_seconds.total_cmp(&a.gain_seconds).then(a.term.cmp(&b.term)));
    Ok(lifts)
}
