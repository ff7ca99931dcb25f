//! From what a planner writes to sites with figures: everything that is drawn once per site.
use super::{
    chunk::Content,
    local::{Absence, Card, LocalHost},
    options::SimulateError,
    quantity::{Arrivals, Wifi},
    random::{Purpose, SiteRandom},
    scenario::{Rollout, Scenario, Site, WanTcp},
    tcp,
    units::{NEVER, Rate, Time, Volume, rate, time, volume},
};

/// One site.
#[derive(Clone, Debug)]
pub(crate) struct SitePlan {
    pub entry: usize,
    /// Over all entries.
    pub number: usize,
    pub hosts: u32,
    pub wave: usize,
    pub random: SiteRandom,
    pub card: Card,
    pub slow: Card,
    /// What the radio medium carries.
    pub medium: Option<Rate>,
    /// One way, as the requests for frames see it.
    pub latency: Time,
    /// What the line allows alone.
    pub line: Rate,
    /// What line and inlet allow.
    pub limit: Rate,
    /// From the first request to the first byte.
    pub start: Time,
    /// When the first host is there, after the wave's begin.
    pub first_arrival: Time,
}

/// All sites, in the order of entries.
pub(crate) struct Plan<'a> {
    pub scenario: &'a Scenario,
    pub sites: Vec<SitePlan>,
    pub waves: usize,
    /// The payload as the machines know it.
    pub content: Content,
}

impl<'a> Plan<'a> {
    /// # Errors
    /// The scenario makes no sense, the drawn sites have too many hosts, or the payload too many frames.
    pub fn new(scenario: &'a Scenario) -> Result<Self, SimulateError> {
        scenario.check()?;
        let mut sites = Vec::new();
        for (entry, site) in scenario.sites.iter().enumerate() {
            for index in 0..site.count {
                let wave = wave_of(&scenario.rollout, index, site.count);
                sites.push(SitePlan::new(scenario, entry, index, sites.len(), wave));
            }
        }
        let (hosts, most) = (sites.iter().map(|site| u64::from(site.hosts)).sum(), super::check::HOSTS_MAX as u64);
        if hosts > most {
            return Err(SimulateError::TooManyHosts { hosts, most });
        }
        let content = Content::new(scenario.payload.moved_bytes(), scenario.payload.frame_bytes())?;
        Ok(Self { scenario, sites, waves: scenario.rollout.waves.len().max(1), content })
    }

    pub fn entry_of(&self, plan: &SitePlan) -> &'a Site {
        &self.scenario.sites[plan.entry]
    }

    pub fn payload(&self) -> Volume {
        volume(self.scenario.payload.moved_bytes())
    }
}

/// The wave of a site: its middle within its entry lies in the wave's share.
fn wave_of(rollout: &Rollout, index: u64, count: u64) -> usize {
    let middle = (index as f64 + 0.5) / count as f64;
    rollout.waves.iter().position(|share| middle <= *share).unwrap_or(0)
}

impl SitePlan {
    fn new(scenario: &Scenario, entry: usize, index: u64, number: usize, wave: usize) -> Self {
        let site = &scenario.sites[entry];
        let random = SiteRandom::new(scenario.seed, entry as u64, index);
        let draw = |purpose| random.draw(purpose, 0, 0);
        let latency_seconds = site.wan_latency_seconds.sample(draw(Purpose::SiteLatency));
        let lan = site.lan_bits_per_second.sample(draw(Purpose::SiteLan));
        let line = site.wan_bits_per_second.sample(draw(Purpose::SiteLine));
        let connection = match site.wan_tcp {
            WanTcp::Goodput => tcp::goodput(line, latency_seconds),
            WanTcp::Lv08 => tcp::lv08(line, latency_seconds, tcp::WINDOW_BYTES),
        };
        let payload = &scenario.payload;
        let connection = connection.with_loss(site.loss, latency_seconds).asked_for(
            payload.frames(),
            payload.frame_bytes(),
            latency_seconds,
        );
        let medium = match site.wifi {
            Wifi::Wired => None,
            Wifi::Medium { bits_per_second } => Some(rate(bits_per_second.unwrap_or(lan))),
        };
        let hosts = libm::round(site.hosts.sample(draw(Purpose::SiteHosts))).max(1.0) as u32;
        let card = Card::both_ways(rate(lan));
        let plan = Self {
            entry,
            number,
            hosts,
            wave,
            random,
            card,
            slow: Card::both_ways(rate(lan * site.slow_factor)),
            medium,
            latency: time(latency_seconds),
            line: rate(connection.bits_per_second),
            limit: rate(connection.bits_per_second).min(card.down).min(card.up),
            start: time(connection.start_seconds),
            first_arrival: 0,
        };
        Self { first_arrival: plan.arrivals(site).min().unwrap_or(0), ..plan }
    }

    /// When each host is there and asks, after the wave's begin.
    fn arrivals<'s>(&'s self, site: &'s Site) -> impl Iterator<Item = Time> + 's {
        let mut last = 0;
        (0..u64::from(self.hosts)).map(move |host| {
            if let Arrivals::PoissonPerSecond(rate) = site.arrivals {
                last += time(self.random.draw(Purpose::Arrival, host, 0).exponential() / rate);
            }
            let Some(offline) = site.offline else { return last };
            if !self.random.draw(Purpose::Offline, host, 0).happens(offline.share) {
                return last;
            }
            let back = self.random.draw(Purpose::Return, host, 0).exponential() * offline.return_mean_seconds;
            last.max(time(back))
        })
    }

    /// The hosts, if the site may begin at `begin`.
    pub fn local_hosts(&self, site: &Site, begin: Time) -> Vec<LocalHost> {
        let host = |(host, arrives): (usize, Time)| {
            let slow = self.random.draw(Purpose::Slow, host as u64, 0).happens(site.slow_share);
            let card = if slow { self.slow } else { self.card };
            LocalHost {
                card,
                arrives: begin.saturating_add(arrives),
                absences: self.absences(site, host as u64),
                gone: NEVER,
            }
        };
        let mut hosts: Vec<LocalHost> = self.arrivals(site).enumerate().map(host).collect();
        if let Some(fail) = site.hosts_fail {
            hosts.iter_mut().rev().take(fail.count as usize).for_each(|host| host.fails_at(time(fail.at_seconds)));
        }
        hosts
    }

    /// When a host leaves and comes back, counted from its arrival: as often as matters.
    fn absences(&self, site: &Site, host: u64) -> Vec<Absence> {
        const TURNS: u64 = 64;
        let Some(churn) = site.churn.filter(|churn| churn.leave_per_hour > 0.0) else { return Vec::new() };
        let mut at = 0.0;
        let turn = |turn| {
            let stays = self.random.draw(Purpose::Leave, host, turn).exponential() * 3600.0 / churn.leave_per_hour;
            let away = self.random.draw(Purpose::Away, host, turn).exponential() * churn.return_mean_seconds;
            let leaves: f64 = at + stays;
            at = leaves + away;
            Absence { leaves: time(leaves), returns: time(at) }
        };
        (0..TURNS).map(turn).collect()
    }

    /// How long the installation of a host holds its slot.
    pub fn install_time(&self, site: &Site, host: u32) -> Time {
        time(site.install_seconds.sample(self.random.draw(Purpose::Install, u64::from(host), 0)))
    }

    /// Whether the installation of a host fails.
    pub fn install_fails(&self, site: &Site, host: u32) -> bool {
        self.random.draw(Purpose::Failure, u64::from(host), 0).happens(site.failure_share)
    }
}

/// When nobody gives slots and leases, in a site whose station fails.
pub(crate) fn outage(site: &Site) -> Option<(Time, Time)> {
    let fails = time(site.station_fails_at_seconds?);
    Some((fails, fails.saturating_add(time(site.station_takeover_seconds))))
}
