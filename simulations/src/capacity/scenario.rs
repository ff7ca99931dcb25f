//! What a planner writes: a rollout, its sites and its lines, as TOML.
//!
//! Every key is documented at its field. Rates are what the line or the network card carries of payload (goodput), in
//! bits per second; times are in seconds; shares lie between 0 and 1. Unknown keys are refused.
use branchline_protocol::{
    content::chunk_bytes_for,
    limits::{BULK_NEIGHBOURS_MAX, SESSIONS_DEFAULT},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    check,
    quantity::{Arrivals, InstallTime, Neighbours, Quantity, Wifi},
};

/// Everything that an outcome depends on. Two equal scenarios have the same outcome, byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Fixes every random figure.
    #[serde(default)]
    pub seed: u64,
    /// How finely the spread inside the sites is simulated; chosen by size where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// What is rolled out.
    pub payload: Payload,
    /// Where it comes from.
    pub headquarters: Headquarters,
    /// Where it goes: one entry per kind of site.
    pub sites: Vec<Site>,
    /// In which order sites may begin, and when hosts may install.
    #[serde(default)]
    pub rollout: Rollout,
    /// Mapped addresses, one per installed host (R110-R114).
    #[serde(default)]
    pub addresses: Addresses,
}

/// How finely the spread inside the sites is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Every frame is asked for, sent and announced by the swarm machine of every host.
    Chunk,
    /// Frames flow like a fluid, at rates that the chunk resolution calibrates.
    Flow,
}

/// What is rolled out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Length of the packs chosen for one host, in bytes.
    pub size_bytes: u64,
    /// Length of a frame in bytes; what the catalogue would choose for this size where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_bytes: Option<u64>,
    /// Share of `size_bytes` that has to move, because hosts hold a base to which a patch applies (R73). 1: all of it.
    #[serde(default = "one")]
    pub patch_share: f64,
}

/// Where the payload comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Headquarters {
    /// Uplink in bits per second, shared max-min fair by the sites that fetch.
    pub uplink_bits_per_second: f64,
    /// Sites that may fetch at a time; others wait in the order of waves and entries. Left out: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_sites: Option<u64>,
}

/// One kind of site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// How many sites of this kind there are.
    #[serde(default = "one_site")]
    pub count: u64,
    /// Hosts beside the station of one site.
    pub hosts: Quantity,
    /// The line into the site, in bits per second.
    pub wan_bits_per_second: Quantity,
    /// Latency of the line, one way, in seconds. A frame is asked for with one latency and comes with another.
    #[serde(default = "nothing")]
    pub wan_latency_seconds: Quantity,
    /// How `wan_bits_per_second` is meant.
    #[serde(default)]
    pub wan_tcp: WanTcp,
    /// Every host's network card and the station's, in bits per second, in each direction.
    pub lan_bits_per_second: Quantity,
    /// Share of hosts that are slow.
    #[serde(default)]
    pub slow_share: f64,
    /// What a slow host's network card carries, as a share of `lan_bits_per_second`: 0.25 is a quarter.
    #[serde(default = "one")]
    pub slow_factor: f64,
    /// Hosts of one site that install at a time (R22); 100 where it is left out.
    #[serde(default = "sessions_limit")]
    pub sessions_limit: u32,
    /// How many hosts of its site a host exchanges frames with: a number or `"all"`.
    #[serde(default = "neighbours")]
    pub neighbours: Neighbours,
    /// How many frames a machine sends and takes at a time.
    #[serde(default)]
    pub slots: Slots,
    /// Whether the station holds the payload from the start.
    #[serde(default)]
    pub prestaged: bool,
    /// When hosts ask: `"together"` or `{ poisson_per_second = x }`.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// How long an installation holds its slot: `{ fixed = x }`, `{ exponential_mean = x }`,
    /// `{ lognormal = [median, sigma] }` or `{ range = [low, high] }`.
    #[serde(default = "installs_at_once")]
    pub install_seconds: InstallTime,
    /// Hosts that are off at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<Offline>,
    /// Hosts that leave without a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub churn: Option<Churn>,
    /// Share of installations that fail and are rolled back; such a host holds its slot all the same and is not
    /// complete.
    #[serde(default)]
    pub failure_share: f64,
    /// Share of packets that the line into the site loses; what is lost crosses it again, and a fetch slows down by
    /// the formula of Mathis et al. (1997).
    #[serde(default)]
    pub loss: f64,
    /// When the station fails for good, in seconds after the rollout's start; a host takes its role over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station_fails_at_seconds: Option<f64>,
    /// How long after that nobody gives slots or leases: until the owner's charter designates another host, and the
    /// leases of the former station are over (10 s).
    #[serde(default = "takeover_seconds")]
    pub station_takeover_seconds: f64,
    /// Hosts that fail for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts_fail: Option<HostsFail>,
    /// Whether the hosts share one radio medium: `true`, `false` or `{ bits_per_second = x }`.
    #[serde(default)]
    pub wifi: Wifi,
    /// How long a host goes on serving after it completed, in seconds. Left out: for good, as the product does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linger_seconds: Option<f64>,
}

/// How many frames a machine sends and takes at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slots {
    /// As many as fit its card and the cards of its neighbours.
    #[default]
    Link,
    /// As many as nodes have, whatever the link.
    Nodes,
}

/// How a line's rate is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WanTcp {
    /// The rate is what TCP gets through, as a speed test shows it.
    #[default]
    Goodput,
    /// The rate is the line's; TCP's overhead, start and window follow the model LV08 of SimGrid (Velho, Legrand,
    /// 2009).
    Lv08,
}

/// Hosts that are off at first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offline {
    /// Share of the hosts.
    pub share: f64,
    /// Mean of the exponential time after which such a host is switched on, in seconds.
    pub return_mean_seconds: f64,
}

/// Hosts that leave without a word while they wait for frames or serve them, and come back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// How often one host leaves.
    pub leave_per_hour: f64,
    /// Mean of the exponential time after which it is back with what it had, in seconds.
    #[serde(default = "back_after")]
    pub return_mean_seconds: f64,
}

/// Hosts that fail for good and never complete, at once and without a word.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostsFail {
    /// How many of each site, the last that come; as many as it has, at most.
    pub count: u32,
    /// When, in seconds after the rollout's start.
    pub at_seconds: f64,
}

/// Waves, thresholds and windows (R120).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Share of all sites that has begun with each wave, ascending; the last is 1. Empty: one wave.
    #[serde(default)]
    pub waves: Vec<f64>,
    /// What a wave must show before the next begins.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// When hosts may begin to install; staging goes on outside. Empty: always.
    #[serde(default)]
    pub windows: Vec<Window>,
}

/// What a wave must show before the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Share of the wave's hosts that must be complete.
    #[serde(default = "success")]
    pub success: f64,
    /// Share of the wave's hosts that may have failed; beyond it the rollout stops and later waves never begin.
    #[serde(default = "one")]
    pub error: f64,
}

/// A maintenance window that comes again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// When it opens, in seconds after the rollout's start.
    pub opens_seconds: f64,
    /// How long it stays open, in seconds.
    pub lasts_seconds: f64,
    /// After how long it opens again, in seconds; a day where it is left out.
    #[serde(default = "day")]
    pub every_seconds: f64,
}

/// Mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// Addresses of one grant to a site; a site asks for the next before it is empty (R113).
    #[serde(default = "batch")]
    pub batch: u32,
    /// Hosts that the operators foresaw to install, over all sites (R114). Left out: as many as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<u64>,
}

/// Why a text is not a scenario.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum ScenarioError {
    /// It is not TOML, a key is unknown or missing, or a value has the wrong type.
    #[error("the scenario cannot be read: {0}")]
    Unreadable(#[from] toml::de::Error),
    /// A figure makes no sense.
    #[error("{key}: {fault}")]
    Senseless {
        /// Where: the key, with the number of the entry from 1 in a list.
        key: String,
        /// What is wrong, and what would be right.
        fault: String,
    },
}

impl Scenario {
    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// [`ScenarioError`], which names the key.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Whether every figure makes sense.
    ///
    /// # Errors
    /// [`ScenarioError::Senseless`] for the first that does not.
    pub fn check(&self) -> Result<(), ScenarioError> {
        check::check(self)
    }

    /// Sites in all.
    pub fn sites_total(&self) -> u64 {
        self.sites.iter().map(|site| site.count).sum()
    }

    /// About how many hosts there are; exact where every entry's `hosts` is one number.
    pub fn hosts_about(&self) -> f64 {
        self.sites.iter().map(|site| site.count as f64 * site.hosts.typical()).sum()
    }
}

impl Payload {
    /// Bytes that have to reach every host: P of R70.
    pub fn moved_bytes(&self) -> u64 {
        ((self.size_bytes as f64 * self.patch_share) as u64).max(1)
    }

    /// Length of a frame in bytes.
    pub fn frame_bytes(&self) -> u64 {
        let chosen = chunk_bytes_for(self.moved_bytes()) as u64;
        self.chunk_bytes.unwrap_or(chosen)
    }

    /// Frames of the payload.
    pub fn frames(&self) -> u64 {
        self.moved_bytes().div_ceil(self.frame_bytes())
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { success: success(), error: 1.0 }
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self { batch: batch(), forecast: None }
    }
}

fn one() -> f64 {
    1.0
}

fn one_site() -> u64 {
    1
}

fn nothing() -> Quantity {
    Quantity::Fixed(0.0)
}

fn sessions_limit() -> u32 {
    SESSIONS_DEFAULT
}

fn neighbours() -> Neighbours {
    Neighbours::Number(BULK_NEIGHBOURS_MAX as u32)
}

fn installs_at_once() -> InstallTime {
    InstallTime::Fixed(0.0)
}

fn takeover_seconds() -> f64 {
    60.0
}

fn back_after() -> f64 {
    600.0
}

fn success() -> f64 {
    0.95
}

fn day() -> f64 {
    86_400.0
}

fn batch() -> u32 {
    256
}
