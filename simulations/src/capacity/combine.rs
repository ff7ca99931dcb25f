//! From all sites to one answer.
use super::{
    engine::Rollout,
    install::Gate,
    options::Options,
    outcome::{
        AddressSummary, BindingTerm, Bytes, Calibration, Completion, HostResult, Lift, Outcome, Queue, Run, Simulated,
        SiteResult, SiteSummary, Wave,
    },
    plan::{Plan, SitePlan, outage},
    scenario::Resolution,
    series,
    site::{SiteOutcome, line_time, mean_rate},
    units::{NEVER, Time, bits_per_second, bytes, duration, seconds},
};

pub(crate) fn combine(
    plan: &Plan<'_>,
    rollout: &Rollout,
    resolution: Resolution,
    calibration: Option<Calibration>,
    lifts: Vec<Lift>,
    options: &Options,
) -> Simulated {
    let completion = completion(rollout);
    let binding_term = lifts.first().filter(|lift| lift.gain_seconds > 0.0).map(|lift| lift.term);
    let outcome = Outcome {
        makespan_seconds: completion.last,
        completed_hosts: rollout.sites.iter().map(|site| site.completions().count() as u64).sum(),
        completion_seconds: completion,
        bytes: bytes_of(plan, rollout),
        wan_ratio: wan_ratio(plan, rollout),
        queue: queue(rollout),
        sites: (0..plan.scenario.sites.len()).map(|entry| summary(plan, rollout, entry)).collect(),
        addresses: addresses(plan, rollout),
        binding_term: binding_term.unwrap_or_else(|| longest_part(plan, rollout)),
        resolution,
        inputs: rollout.sites.iter().map(|site| site.spread.inputs + site.queue_inputs).sum(),
        run: Run::default(),
    };
    let sites = pairs(plan, rollout).map(|(site, outcome)| site_result(rollout, site, outcome)).collect();
    let hosts = if options.hosts { hosts(plan, rollout) } else { Vec::new() };
    let waves = rollout.waves.iter().enumerate().map(|(number, began)| Wave {
        sites: plan.sites.iter().filter(|site| site.wave == number).count() as u64,
        began_seconds: seen(*began),
    });
    let series = series::series(plan, rollout, options.series_moments.max(2));
    Simulated { outcome, series, lifts, calibration, sites, waves: waves.collect(), hosts }
}

fn pairs<'a>(plan: &'a Plan<'_>, rollout: &'a Rollout) -> impl Iterator<Item = (&'a SitePlan, &'a SiteOutcome)> {
    plan.sites.iter().zip(&rollout.sites)
}

fn seen(at: Time) -> Option<f64> {
    (at != NEVER).then(|| seconds(at))
}

fn completion(rollout: &Rollout) -> Completion {
    let mut ends: Vec<Time> = rollout.sites.iter().flat_map(SiteOutcome::completions).collect();
    ends.sort_unstable();
    // Nearest rank, in integers: the smallest that so many of a hundred do not exceed.
    let percentile = |percent: usize| {
        let rank = (ends.len() * percent).div_ceil(100);
        rank.checked_sub(1).and_then(|index| ends.get(index)).map_or(0.0, |at| seconds(*at))
    };
    Completion { p50: percentile(50), p95: percentile(95), p99: percentile(99), last: percentile(100) }
}

fn bytes_of(plan: &Plan<'_>, rollout: &Rollout) -> Bytes {
    let mut sum = Bytes::default();
    for (site, outcome) in pairs(plan, rollout) {
        let sent = outcome.spread.wan_bytes;
        sum.headquarters += sent;
        sum.wan += libm::round(sent as f64 / (1.0 - plan.entry_of(site).loss)) as u64;
        sum.lan += outcome.spread.lan_bytes;
    }
    sum
}

fn wan_ratio(plan: &Plan<'_>, rollout: &Rollout) -> f64 {
    let fetching = || pairs(plan, rollout).filter(|(_, outcome)| outcome.spread.wan_bytes > 0);
    let sent: u64 = fetching().map(|(_, outcome)| outcome.spread.wan_bytes).sum();
    let needed = fetching().count() as f64 * plan.scenario.payload.moved_bytes() as f64;
    if needed > 0.0 { sent as f64 / needed } else { 0.0 }
}

fn queue(rollout: &Rollout) -> Queue {
    let (mut started, mut waited, mut wait) = (0_u64, 0_u64, 0_u128);
    for site in &rollout.sites {
        let turns = site.turns.iter().zip(&site.spread.ready).filter(|(turn, _)| turn.started != NEVER);
        for (turn, ready) in turns {
            started += 1;
            waited += u64::from(turn.started > *ready);
            wait += u128::from(turn.started - ready);
        }
    }
    let share = |part: f64| if started > 0 { part / started as f64 } else { 0.0 };
    Queue {
        length_max: rollout.sites.iter().map(|site| u64::from(site.queue_length_max)).max().unwrap_or(0),
        wait_mean_seconds: share(wait as f64 / 1e9),
        waited_share: share(waited as f64),
    }
}

fn summary(plan: &Plan<'_>, rollout: &Rollout, entry: usize) -> SiteSummary {
    let of_entry = || pairs(plan, rollout).filter(|(site, _)| site.entry == entry);
    let rates: Vec<f64> = of_entry()
        .map(|(site, _)| mean_rate(&rollout.lines[site.number]))
        .filter(|rate| *rate > 0)
        .map(bits_per_second)
        .collect();
    SiteSummary {
        hosts: of_entry().map(|(site, _)| u64::from(site.hosts)).sum(),
        // The sum of no floats is -0.
        rate_bits_per_second: rates.iter().fold(0.0, |sum, rate| sum + rate) / rates.len().max(1) as f64,
        makespan_seconds: of_entry().flat_map(|(_, outcome)| outcome.completions()).max().map_or(0.0, seconds),
    }
}

fn addresses(plan: &Plan<'_>, rollout: &Rollout) -> AddressSummary {
    let needed: u64 = rollout.sites.iter().map(|site| site.completions().count() as u64).sum();
    let hosts = plan.sites.iter().map(|site| u64::from(site.hosts)).sum();
    let forecast = plan.scenario.addresses.forecast.unwrap_or(hosts);
    let batches: u64 = rollout.sites.iter().map(|site| u64::from(site.address_batches)).sum();
    let granted = batches * u64::from(plan.scenario.addresses.batch);
    AddressSummary { needed, forecast, beyond_forecast: needed.saturating_sub(forecast), granted, batches }
}

/// Which part of the way of the last host took longest.
fn longest_part(plan: &Plan<'_>, rollout: &Rollout) -> BindingTerm {
    let ends = pairs(plan, rollout).flat_map(|(site, outcome)| {
        let succeeded = (0..outcome.turns.len()).filter(|host| outcome.succeeded[*host]);
        succeeded.map(move |host| (outcome.turns[host].ended, site, outcome, host))
    });
    let last =
        ends.filter(|(ended, ..)| *ended != NEVER).max_by_key(|(ended, site, _, host)| (*ended, site.number, *host));
    let Some((ended, site, outcome, host)) = last else { return BindingTerm::Stragglers };
    let (line, ready, started) = (&rollout.lines[site.number], outcome.spread.ready[host], outcome.turns[host].started);
    let fetched = outcome.spread.fetched.min(ready);
    let alone = line_time(plan, site).min(fetched);
    let asked = outcome.begin.saturating_add(site.first_arrival);
    let began = line.began.min(fetched).max(asked.min(fetched));
    // An inlet whose card is slower than its line keeps the line waiting.
    let on_line = (fetched - began).min(duration(plan.payload(), site.line).min(alone));
    let gate = Gate::new(&plan.scenario.rollout.windows, outage(plan.entry_of(site)));
    let opens = gate.next_open(ready).clamp(ready, started);
    let late = outcome.arrived[host].saturating_sub(fetched.max(outcome.begin));
    let parts = [
        (BindingTerm::HeadquartersUplink, (fetched - began).saturating_sub(alone)),
        (BindingTerm::Wan, on_line),
        (BindingTerm::Lan, (ready - fetched).saturating_sub(late) + (fetched - began).min(alone) - on_line),
        (BindingTerm::SessionLimit, (started - opens) + began.saturating_sub(asked)),
        (BindingTerm::InstallTime, ended - started),
        (BindingTerm::Stragglers, late + outcome.begin + (opens - ready)),
    ];
    // The first of the longest.
    parts.into_iter().rev().max_by_key(|(_, part)| *part).map_or(BindingTerm::Wan, |(term, _)| term)
}

fn site_result(rollout: &Rollout, site: &SitePlan, outcome: &SiteOutcome) -> SiteResult {
    let line = &rollout.lines[site.number];
    let spread = outcome.spread.ready.iter().filter(|at| **at != NEVER).max();
    SiteResult {
        entry: site.entry as u32,
        hosts: site.hosts,
        completed: outcome.completions().count() as u32,
        wave: site.wave as u32,
        began_seconds: seen(line.began).or_else(|| seen(outcome.begin)).unwrap_or(0.0),
        fetched_seconds: seen(outcome.spread.fetched).unwrap_or(0.0),
        spread_seconds: spread.map_or(0.0, |at| seconds(*at)),
        makespan_seconds: outcome.completions().max().map_or(0.0, seconds),
        headquarters_bytes: outcome.spread.wan_bytes,
        lan_bytes: outcome.spread.lan_bytes,
        queue_length_max: outcome.queue_length_max,
        address_batches: outcome.address_batches,
    }
}

fn hosts(plan: &Plan<'_>, rollout: &Rollout) -> Vec<HostResult> {
    let of_site = |(site, outcome): (&SitePlan, &SiteOutcome)| {
        let (entry, site_number) = (site.entry as u32, site.number as u32);
        let host = |host: usize| HostResult {
            entry,
            site: site_number,
            host: host as u32,
            arrived_seconds: seen(outcome.arrived[host]),
            ready_seconds: seen(outcome.spread.ready[host]),
            started_seconds: seen(outcome.turns[host].started),
            ended_seconds: seen(outcome.turns[host].ended),
            completed: outcome.succeeded[host] && outcome.turns[host].ended != NEVER,
        };
        (0..outcome.turns.len()).map(host).collect::<Vec<_>>()
    };
    let mut all = Vec::with_capacity(plan.sites.iter().map(|site| site.hosts as usize).sum());
    pairs(plan, rollout).for_each(|pair| all.extend(of_site(pair)));
    all
}

/// Bytes of a volume as they cross a line, for the series.
pub(crate) fn bits(volume: super::units::Volume) -> f64 {
    8.0 * bytes(volume) as f64
}
