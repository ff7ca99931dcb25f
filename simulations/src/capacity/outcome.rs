//! What comes of a scenario.
use serde::{Deserialize, Serialize};

use super::scenario::Resolution;

/// The answer, as `--json` prints it: these keys in this order. Times are in seconds of virtual time after the
/// rollout's start. Everything but `run` is the same for the same scenario on every machine and any number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// When the last host was complete.
    pub makespan_seconds: f64,
    /// Hosts whose installation succeeded.
    pub completed_hosts: u64,
    /// When hosts were complete.
    pub completion_seconds: Completion,
    /// Frame bytes by the lines they crossed.
    pub bytes: Bytes,
    /// Frame bytes that headquarters sent, divided by the packs' length times the sites that had to fetch (R70); 0
    /// where no site had to.
    pub wan_ratio: f64,
    /// The sessions' queue of all stations (R22).
    pub queue: Queue,
    /// One per `[[sites]]` entry, in their order.
    pub sites: Vec<SiteSummary>,
    /// Mapped addresses (R113, R114).
    pub addresses: AddressSummary,
    /// What the makespan depends on most.
    pub binding_term: BindingTerm,
    /// How finely the spread was simulated.
    pub resolution: Resolution,
    /// Inputs that the product's machines decided on: frames, messages and timers of the swarm, requests and returns
    /// of slots.
    pub inputs: u64,
    /// What the run itself took; the caller fills it in.
    pub run: Run,
}

/// When hosts were complete, in seconds; 0 where none is. Percentiles are of the completed hosts, by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Half of them.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
    /// All of them.
    pub last: f64,
}

/// Frame bytes by the lines they crossed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Sent by headquarters.
    pub headquarters: u64,
    /// Carried by the lines into the sites: the same, and what packet loss made them carry again.
    pub wan: u64,
    /// Sent between nodes of one site.
    pub lan: u64,
}

/// The sessions' queue of all stations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// The most hosts that waited for a slot at one station.
    pub length_max: u64,
    /// Mean wait for a slot of all hosts that got one, those that did not wait included.
    pub wait_mean_seconds: f64,
    /// Share of these hosts that waited at all.
    pub waited_share: f64,
}

/// All sites of one `[[sites]]` entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteSummary {
    /// Hosts of all these sites.
    pub hosts: u64,
    /// Mean rate at which such a site fetched, from its first request until its last frame, in bits per second; 0 where
    /// the station held everything.
    pub rate_bits_per_second: f64,
    /// When the last of these hosts was complete.
    pub makespan_seconds: f64,
}

/// Mapped addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressSummary {
    /// Addresses that completed hosts hold.
    pub needed: u64,
    /// Hosts that the operators foresaw.
    pub forecast: u64,
    /// What the need exceeds the forecast by; 0 where it does not.
    pub beyond_forecast: u64,
    /// Addresses in batches that were granted.
    pub granted: u64,
    /// Batches that were granted.
    pub batches: u64,
}

/// What a makespan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindingTerm {
    /// The uplink that all sites share.
    HeadquartersUplink,
    /// The lines into the sites.
    Wan,
    /// The networks inside the sites.
    Lan,
    /// The sessions of the stations, or the sites that headquarters serves at a time.
    SessionLimit,
    /// The installations themselves.
    InstallTime,
    /// Hosts that come late: switched off, arriving, slow, churning, or waiting for a wave or a window.
    Stragglers,
}

/// What the run itself took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Time by the wall clock, in seconds.
    pub wall_seconds: f64,
    /// Most memory that the process held, in bytes.
    pub peak_memory_bytes: u64,
}

/// An outcome with all that plots, tables and words need beyond it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Simulated {
    /// The answer.
    pub outcome: Outcome,
    /// Figures over time.
    pub series: Series,
    /// What lifting each term would gain, the greatest gain first.
    pub lifts: Vec<Lift>,
    /// How far the flow resolution is from the chunk resolution on samples; only where it was measured.
    pub calibration: Option<Calibration>,
    /// One per site, in the order of entries and sites.
    pub sites: Vec<SiteResult>,
    /// One per wave.
    pub waves: Vec<Wave>,
    /// One per host, in the order of sites and hosts.
    pub hosts: Vec<HostResult>,
}

/// Figures over time: every list has one value per moment of `at_seconds`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The moments, evenly spaced from 0 to the makespan.
    pub at_seconds: Vec<f64>,
    /// Hosts that are complete.
    pub completed_hosts: Vec<u64>,
    /// What headquarters sends, in bits per second: the mean since the moment before.
    pub headquarters_bits_per_second: Vec<f64>,
    /// What all sites' lines could carry that fetch, in bits per second: the mean since the moment before.
    pub wan_capacity_bits_per_second: Vec<f64>,
    /// Hosts that wait for a slot, over all stations.
    pub queue_length: Vec<u64>,
    /// Mean wait of the hosts that got a slot since the moment before, in seconds; 0 where none did.
    pub wait_seconds: Vec<f64>,
    /// Hosts that hold a slot, over all stations.
    pub slots_held: Vec<u64>,
}

/// What lifting one term would gain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lift {
    /// The term.
    pub term: BindingTerm,
    /// The makespan in seconds less what is gained. Installations and lines are judged where the limits of sessions are
    /// lifted as well: lifted alone they would gain more.
    pub makespan_seconds: f64,
    /// How much earlier that is, in seconds.
    pub gain_seconds: f64,
}

/// How far the flow resolution is from the chunk resolution: the same sites in both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Sites that were simulated both ways to fit the flow.
    pub fitted_sites: u64,
    /// Other sites that were simulated both ways to measure its error; 0 where every entry has one site, and the error is
    /// not known.
    pub measured_sites: u64,
    /// By what the time inside the site was stretched, one per `[[sites]]` entry.
    pub stretch: Vec<f64>,
    /// Mean of (flow - chunk) / chunk over the measured sites' makespans.
    pub error_mean: f64,
    /// Half the width of the 95 % confidence interval of that mean (Student's t); 0 where one site was measured.
    pub error_half_width: f64,
    /// The greatest error of one site, without its sign.
    pub error_max: f64,
}

/// One site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteResult {
    /// Its entry, from 0.
    pub entry: u32,
    /// Hosts beside the station.
    pub hosts: u32,
    /// Hosts that are complete.
    pub completed: u32,
    /// Its wave, from 0.
    pub wave: u32,
    /// When it began to fetch, in seconds.
    pub began_seconds: f64,
    /// When the last frame had crossed its line, in seconds; the start where the station held everything.
    pub fetched_seconds: f64,
    /// When the last host held the payload, in seconds.
    pub spread_seconds: f64,
    /// When the last host was complete, in seconds.
    pub makespan_seconds: f64,
    /// Frame bytes that headquarters sent to it.
    pub headquarters_bytes: u64,
    /// Frame bytes between its nodes.
    pub lan_bytes: u64,
    /// The most hosts that waited for a slot.
    pub queue_length_max: u32,
    /// Batches of addresses that it was granted.
    pub address_batches: u32,
}

/// One wave of the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wave {
    /// Sites that begin with it.
    pub sites: u64,
    /// When it began, in seconds; `None`: it never did, because the wave before missed its thresholds.
    pub began_seconds: Option<f64>,
}

/// One host. Times are in seconds after the rollout's start; a time that never came is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostResult {
    /// The `[[sites]]` entry, from 0.
    pub entry: u32,
    /// The site, from 0 over all entries.
    pub site: u32,
    /// The host, from 0 in its site.
    pub host: u32,
    /// When it asked for the payload.
    pub arrived_seconds: Option<f64>,
    /// When it held all of it and asked for a slot.
    pub ready_seconds: Option<f64>,
    /// When it got a slot.
    pub started_seconds: Option<f64>,
    /// When its installation was over.
    pub ended_seconds: Option<f64>,
    /// Whether the installation succeeded.
    pub completed: bool,
}
