//! One site from begin to end: spread, slots, installations, addresses.
use branchline_protocol::limits::ADDRESS_GRANTS_MAX;
use branchline_station_role::addresses::batch::is_low;

use super::{
    chunk,
    curve::Curve,
    flow,
    install::{self, Gate, Turn},
    local::{LocalSite, Spread},
    plan::{Plan, SitePlan, outage},
    random::Purpose,
    scenario::{Resolution, Site},
    units::{NEVER, Rate, Time, Volume, duration, volume},
    uplink::Demand,
};

/// What came of one site.
pub(crate) struct SiteOutcome {
    pub begin: Time,
    pub arrived: Vec<Time>,
    pub spread: Spread,
    pub turns: Vec<Turn>,
    pub succeeded: Vec<bool>,
    pub queue_length_max: u32,
    /// Inputs of the station's queue.
    pub queue_inputs: u64,
    pub address_batches: u32,
}

impl SiteOutcome {
    /// When each host was complete: those that never were are left out.
    pub fn completions(&self) -> impl Iterator<Item = Time> + '_ {
        let done =
            self.turns.iter().zip(&self.succeeded).filter(|(turn, succeeded)| **succeeded && turn.ended != NEVER);
        done.map(|(turn, _)| turn.ended)
    }

    /// When each host's installation failed.
    pub fn failures(&self) -> impl Iterator<Item = Time> + '_ {
        let failed =
            self.turns.iter().zip(&self.succeeded).filter(|(turn, succeeded)| !**succeeded && turn.ended != NEVER);
        failed.map(|(turn, _)| turn.ended)
    }
}

/// What a site asks of the uplink if it may begin at `begin`.
pub(crate) fn demand(plan: &Plan<'_>, site: &SitePlan, begin: Time) -> Demand {
    let entry = plan.entry_of(site);
    let outage = outage(entry);
    let asks = begin.saturating_add(site.first_arrival).saturating_add(site.start);
    let none = Demand { at: NEVER, volume: 0, limit: site.limit, pause: None };
    if begin == NEVER {
        return none;
    }
    let frame = volume(plan.scenario.payload.frame_bytes()).min(plan.payload());
    if !entry.prestaged {
        // What was under way is lost where the station fails in the middle.
        let under_way = |(fails, _): (Time, Time)| asks < fails && fails < asks.saturating_add(line_time(plan, site));
        let lost = if outage.is_some_and(under_way) { frame } else { 0 };
        return Demand { at: asks, volume: plan.payload() + lost, pause: outage, ..none };
    }
    // A station that held everything and failed before it was out leaves the rest to the line: a frame at least, unless
    // it had many times as long as it needed.
    let Some((fails, over)) = outage else { return none };
    let passed = fails.saturating_sub(begin.saturating_add(site.first_arrival));
    let out = Volume::from(out_rate(site, entry)) * Volume::from(passed);
    if out >= SURELY_OUT * plan.payload() {
        return none;
    }
    Demand { at: over.max(asks), volume: plan.payload().saturating_sub(out).max(frame), ..none }
}

/// Times the payload that a station could have sent before all of it has surely left.
const SURELY_OUT: Volume = 4;

/// What leaves a station that holds everything: what its card sends, its hosts receive and the medium carries.
fn out_rate(site: &SitePlan, entry: &Site) -> Rate {
    let receive = site.local_hosts(entry, 0).iter().map(|host| host.card.down).fold(0, Rate::saturating_add);
    site.card.up.min(receive).min(site.medium.unwrap_or(Rate::MAX))
}

/// The site's network and nodes, if it may begin at `begin` and `line` is its share of the uplink.
pub(crate) fn local(plan: &Plan<'_>, site: &SitePlan, begin: Time, line: Curve) -> LocalSite {
    let (entry, payload) = (plan.entry_of(site), &plan.scenario.payload);
    LocalSite {
        seed: site.random.draw(Purpose::Machine, 0, 0).bits(),
        frames: payload.frames() as u32,
        frame_bytes: payload.frame_bytes(),
        payload_bytes: payload.moved_bytes(),
        station: site.card,
        hosts: site.local_hosts(entry, begin),
        medium: site.medium,
        neighbours: entry.neighbours,
        slots: entry.slots,
        prestaged: entry.prestaged,
        line,
        latency: site.latency,
        outage: outage(entry),
        lingers: entry.linger_seconds.map(super::units::time),
    }
}

/// Simulates one site.
pub(crate) fn simulate(
    plan: &Plan<'_>,
    site: &SitePlan,
    begin: Time,
    line: Curve,
    resolution: Resolution,
    stretch: f64,
) -> SiteOutcome {
    let entry = plan.entry_of(site);
    let local = local(plan, site, begin, line);
    let spread = match resolution {
        Resolution::Flow => flow::spread(&local, stretch),
        Resolution::Chunk => chunk::spread(&local, &plan.content),
    };
    finish(plan, site, entry, begin, &local, spread)
}

fn finish(
    plan: &Plan<'_>,
    site: &SitePlan,
    entry: &Site,
    begin: Time,
    local: &LocalSite,
    spread: Spread,
) -> SiteOutcome {
    let gate = Gate::new(&plan.scenario.rollout.windows, local.outage);
    let fails = |host: u32| local.hosts[host as usize].gone;
    let install_time = |host| site.install_time(entry, host);
    let installed = install::install(&spread.ready, entry.sessions_limit, &gate, install_time, fails);
    let succeeded: Vec<bool> = (0..site.hosts).map(|host| !site.install_fails(entry, host)).collect();
    let mut outcome = SiteOutcome {
        begin,
        arrived: local.hosts.iter().map(|host| host.arrives).collect(),
        spread,
        turns: installed.turns,
        succeeded,
        queue_length_max: installed.queue_length_max,
        queue_inputs: installed.inputs,
        address_batches: 0,
    };
    let complete = outcome.completions().count() as u64;
    if begin != NEVER {
        outcome.address_batches = address_batches(complete, u64::from(plan.scenario.addresses.batch));
    }
    outcome
}

/// Batches that a site asks for while so many hosts come to hold an address, by the product's own rule (R113).
fn address_batches(needed: u64, batch: u64) -> u32 {
    let (mut batches, mut granted) = (0, 0);
    for used in 0..=needed {
        while is_low(granted, used) && (batches as usize) < ADDRESS_GRANTS_MAX {
            batches += 1;
            granted += batch;
        }
    }
    batches
}

/// The mean rate of a fetch; 0 where nothing had to cross.
pub(crate) fn mean_rate(line: &Curve) -> Rate {
    if line.total() == 0 || line.done == NEVER || line.done <= line.began {
        return 0;
    }
    let rate = line.total() / Volume::from(line.done - line.began);
    Rate::try_from(rate).unwrap_or(Rate::MAX)
}

/// How long the payload takes over the site's own line alone.
pub(crate) fn line_time(plan: &Plan<'_>, site: &SitePlan) -> Time {
    duration(plan.payload(), site.limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_before_they_are_needed() {
        assert_eq!(address_batches(0, 10), 1, "an empty ledger is low");
        assert_eq!(address_batches(7, 10), 1);
        assert_eq!(address_batches(8, 10), 2, "2 of 10 are left");
        assert_eq!(address_batches(1000, 1), 256, "no more grants than a ledger holds");
    }
}
