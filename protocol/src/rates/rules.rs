//! The signed document in which a site says how fast its bytes may flow.
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    rate::Rate,
    schedule::{Schedule, Window},
};
use crate::{
    catalogue::DefinitionError,
    charter::Document,
    ids::SiteName,
    limits::{
        BACKGROUND_DELAY_MILLISECONDS_MAX, DOCUMENT_BYTES_MAX, HOST_RATE_BITS_PER_SECOND_MIN,
        LINE_RATE_BITS_PER_SECOND_MIN, ROLLOUT_LIMITS_MAX, SCHEDULE_WINDOWS_MAX,
    },
    time::UnixSeconds,
};

/// How fast the bytes of one site may flow, signed by the charter's administrator.
///
/// It is a document of its own, because plans follow from the site policy and epochs from the charter: a new rate must
/// change neither. It may be replaced while transfers run; the new rates hold at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BandwidthRules {
    /// The site that it is for.
    pub site: SiteName,
    /// Grows with every publication; lower ones are refused.
    pub version: u64,
    /// From then on it is not accepted any more. Absent: it does not expire.
    #[serde(default)]
    pub expires_at: Option<UnixSeconds>,
    /// Whose clocks the windows follow: a name of the IANA time zone database.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// The site's line to headquarters.
    #[serde(default)]
    pub line: LineLimits,
    /// Every node of the site.
    #[serde(default)]
    pub host: HostLimits,
    /// Limits of single rollouts; of several that fit, all hold.
    #[serde(default)]
    pub rollouts: Vec<RolloutLimit>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What holds on the line into the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LineLimits {
    /// What holds outside every window.
    pub rate: Rate,
    /// When something else holds.
    pub windows: Vec<Window>,
    /// Whether transfers yield to whatever else is on the line.
    pub background: bool,
    /// The delay by others that makes a background transfer yield, in milliseconds. Raise it where the round trip over an
    /// idle line varies by more.
    pub background_delay_milliseconds: u32,
}

impl Default for LineLimits {
    fn default() -> Self {
        Self { rate: Rate::Unlimited, windows: Vec::new(), background: false, background_delay_milliseconds: 3 }
    }
}

impl LineLimits {
    /// The rates without the background mode.
    pub fn schedule(&self) -> Schedule {
        Schedule { rate: self.rate, windows: self.windows.clone() }
    }
}

/// What holds at every node of the site, over the line and inside the site together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostLimits {
    /// What it sends.
    pub upload: Schedule,
    /// What it receives.
    pub download: Schedule,
}

/// What holds for the packs of one package on the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutLimit {
    /// Name of the package.
    pub package: String,
    /// Only this version.
    #[serde(default)]
    pub version: Option<String>,
    /// What holds outside every window.
    #[serde(default)]
    pub rate: Rate,
    /// When something else holds.
    #[serde(default)]
    pub windows: Vec<Window>,
}

impl RolloutLimit {
    /// The rates of the rollout.
    pub fn schedule(&self) -> Schedule {
        Schedule { rate: self.rate, windows: self.windows.clone() }
    }
}

/// A rule that the document breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the bandwidth rules of {site}, version {version}: {key}: {rule}")]
pub struct BandwidthRulesError {
    /// The site.
    pub site: SiteName,
    /// Its version.
    pub version: u64,
    /// Where.
    pub key: String,
    /// What is wrong and what to change.
    pub rule: String,
}

impl Document for BandwidthRules {
    const CONTEXT: &'static str = "branchline bandwidth rules 1";
    const BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "bandwidth rules";
}

impl BandwidthRules {
    /// Rules that limit nothing.
    pub fn unlimited(site: SiteName, version: u64) -> Self {
        Self {
            site,
            version,
            expires_at: None,
            time_zone: utc(),
            line: LineLimits::default(),
            host: HostLimits::default(),
            rollouts: Vec::new(),
        }
    }

    /// Reads rules as people write them.
    ///
    /// # Errors
    /// What TOML or [`BandwidthRules::check`] does not allow, with the key and, for TOML, the line.
    pub fn from_toml(text: &str) -> Result<Self, DefinitionError> {
        let rules: Self = crate::catalogue::package::read_toml("bandwidth rules", text, DOCUMENT_BYTES_MAX)?;
        rules.check().map_err(|error| DefinitionError::Rule { key: error.key, reason: error.rule })?;
        Ok(rules)
    }

    /// Checks what the types do not. Whether the time zone is known is checked where the database is.
    ///
    /// # Errors
    /// The first fault, with the key where it is.
    pub fn check(&self) -> Result<(), BandwidthRulesError> {
        let fault = |key: String, rule: String| {
            Err(BandwidthRulesError { site: self.site.clone(), version: self.version, key, rule })
        };
        if self.version == 0 {
            return fault("version".into(), "must be at least 1".into());
        }
        if self.rollouts.len() > ROLLOUT_LIMITS_MAX {
            return fault("rollouts".into(), format!("at most {ROLLOUT_LIMITS_MAX} are allowed"));
        }
        let delay = self.line.background_delay_milliseconds;
        if !(1..=BACKGROUND_DELAY_MILLISECONDS_MAX).contains(&delay) {
            let rule = format!("must be 1 to {BACKGROUND_DELAY_MILLISECONDS_MAX}");
            return fault("line.background_delay_milliseconds".into(), rule);
        }
        let line = ("line".to_owned(), self.line.schedule(), LINE_RATE_BITS_PER_SECOND_MIN, true);
        let rollouts = self.rollouts.iter().enumerate();
        let rollouts = rollouts
            .map(|(at, limit)| (format!("rollouts[{at}]"), limit.schedule(), LINE_RATE_BITS_PER_SECOND_MIN, true));
        let hosts = [("host.upload", &self.host.upload), ("host.download", &self.host.download)];
        let hosts =
            hosts.map(|(key, schedule)| (key.to_owned(), schedule.clone(), HOST_RATE_BITS_PER_SECOND_MIN, false));
        for (key, schedule, least, may_be_off) in [line].into_iter().chain(rollouts).chain(hosts) {
            if let Err(rule) = check_schedule(&schedule, least, may_be_off) {
                return fault(key, rule);
            }
        }
        Ok(())
    }
}

/// Frames must pass before whoever waits for them gives up, so a rate has a least value.
pub(super) fn check_schedule(schedule: &Schedule, least_bits: u64, may_be_off: bool) -> Result<(), String> {
    if schedule.windows.len() > SCHEDULE_WINDOWS_MAX {
        return Err(format!("at most {SCHEDULE_WINDOWS_MAX} windows are allowed"));
    }
    for rate in schedule.rates() {
        if rate == Rate::Off && !may_be_off {
            return Err("a node cannot be off; give it a low rate".into());
        }
        if rate != Rate::Off && rate < Rate::Bits(least_bits) {
            return Err(format!("{rate} is too slow for a frame to pass in time; at least {}", Rate::Bits(least_bits)));
        }
    }
    Ok(())
}

impl Schedule {
    /// Checks the schedule of a single node's own limit.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_for_host(&self) -> Result<(), String> {
        check_schedule(self, HOST_RATE_BITS_PER_SECOND_MIN, false)
    }
}
