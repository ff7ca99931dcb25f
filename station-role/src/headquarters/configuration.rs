//! What an operator configures at headquarters: address pools, batch size and automatic approval rules.
use branchline_protocol::{
    catalogue::{Rule, RuleError, rule::Facts},
    charter::AddressBatch,
    ids::SiteName,
    wire::site::ApprovalRequest,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// A run of addresses that the authority may grant, to one site or to any.
///
/// A router can only map addresses that are routed to it, so most pools name their site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolEntry {
    /// The only site that may get these addresses; any site where it is absent.
    #[serde(default)]
    pub site: Option<SiteName>,
    /// First address.
    pub first: std::net::Ipv4Addr,
    /// Last address, not below the first.
    pub last: std::net::Ipv4Addr,
}

impl PoolEntry {
    /// The run of addresses.
    pub fn batch(&self) -> AddressBatch {
        AddressBatch { first: self.first, last: self.last }
    }

    /// Whether `site` may get addresses of this entry.
    pub fn serves(&self, site: &SiteName) -> bool {
        self.site.as_ref().is_none_or(|only| only == site)
    }
}

/// What an automatic rule does with a request that it matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RuleAction {
    /// Approves.
    Approve,
    /// Denies.
    Deny {
        /// Why, for the host's operator.
        reason: String,
    },
    /// Holds the request; the expiry asks a person, never a rule (R91).
    Delay {
        /// Why, for the host's operator.
        reason: String,
        /// After how many seconds to ask again; never, where it is absent.
        #[serde(default)]
        seconds: Option<u64>,
    },
}

/// An automatic rule (R30). All conditions that it states must hold; the first rule that matches decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRule {
    /// Its name: decisions are recorded as by `rule:NAME`.
    pub name: String,
    /// The sites it is for; every site where the list is empty.
    #[serde(default)]
    pub sites: Vec<SiteName>,
    /// Every package of the request (`name` or `name version`) must have one of these names; any where the list is empty.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Facts that must have exactly this value.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// A condition in CEL over the request: `site`, `host`, `packages` (a list) and `facts` (a map of texts), such as
    /// `facts.operating_system == "debian" && size(packages) == 1`. Where it gives no answer the rule does not match.
    #[serde(default)]
    pub when: Option<Rule>,
    /// What it does.
    pub action: RuleAction,
}

impl ApprovalRule {
    /// Whether the rule decides `request` of `site`.
    pub fn matches(&self, site: &SiteName, request: &ApprovalRequest) -> bool {
        let site_fits = self.sites.is_empty() || self.sites.contains(site);
        let name_of = |package: &str| package.split_whitespace().next().unwrap_or_default().to_owned();
        let packages_fit = self.packages.is_empty()
            || (!request.packages.is_empty()
                && request.packages.iter().all(|package| self.packages.contains(&name_of(package))));
        let has_fact = |(name, value): (&String, &String)| request.facts.iter().any(|(n, v)| n == name && v == value);
        let holds = |rule: &Rule| holds(rule, site, request).unwrap_or(false);
        site_fits && packages_fit && self.facts.iter().all(has_fact) && self.when.as_ref().is_none_or(holds)
    }
}

fn holds(rule: &Rule, site: &SiteName, request: &ApprovalRequest) -> Result<bool, RuleError> {
    let facts: serde_json::Map<String, serde_json::Value> =
        request.facts.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let json = serde_json::json!({
        "site": site.as_str(), "host": request.host_name, "packages": request.packages, "facts": facts,
    });
    rule.compile()?.holds(&Facts::new(json))
}

/// Headquarters' configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadquartersConfiguration {
    /// Addresses that the authority may grant, in the order in which they are used.
    pub pools: Vec<PoolEntry>,
    /// Addresses in one batch.
    pub batch_addresses: u32,
    /// Most addresses that one site may ever be granted, whatever it asks for.
    pub site_addresses_max: u64,
    /// Automatic rules, first match first. What no rule matches waits for a person.
    pub rules: Vec<ApprovalRule>,
}

impl Default for HeadquartersConfiguration {
    fn default() -> Self {
        Self { pools: Vec::new(), batch_addresses: 16, site_addresses_max: 4096, rules: Vec::new() }
    }
}

/// A rule that a configuration breaks.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ConfigurationError {
    /// A pool whose last address lies below its first.
    #[error("the address pool {first} to {last} is empty: swap first and last")]
    EmptyPool {
        /// As configured.
        first: std::net::Ipv4Addr,
        /// As configured.
        last: std::net::Ipv4Addr,
    },
    /// Two pools share an address, so one address could be granted twice.
    #[error("the address pools that begin at {first} and {second} overlap: every address may be in one pool only")]
    Overlap {
        /// Begin of the one.
        first: std::net::Ipv4Addr,
        /// Begin of the other.
        second: std::net::Ipv4Addr,
    },
    /// No address in a batch.
    #[error("batch_addresses must be at least 1")]
    BatchSize,
    /// Two rules with one name, or a rule without.
    #[error("the approval rule name {name:?} is empty or used twice: decisions are recorded under it")]
    RuleName {
        /// The name.
        name: String,
    },
    /// A rule whose condition is no CEL.
    #[error("the approval rule {name:?} cannot be used: {source}")]
    Condition {
        /// The rule's name.
        name: String,
        /// What is wrong with its condition.
        source: RuleError,
    },
}

impl HeadquartersConfiguration {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ConfigurationError> {
        if self.batch_addresses == 0 {
            return Err(ConfigurationError::BatchSize);
        }
        for (index, pool) in self.pools.iter().enumerate() {
            if pool.last < pool.first {
                return Err(ConfigurationError::EmptyPool { first: pool.first, last: pool.last });
            }
            if let Some(other) = self.pools[..index].iter().find(|o| o.first <= pool.last && pool.first <= o.last) {
                return Err(ConfigurationError::Overlap { first: other.first, second: pool.first });
            }
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if rule.name.is_empty() || self.rules[..index].iter().any(|other| other.name == rule.name) {
                return Err(ConfigurationError::RuleName { name: rule.name.clone() });
            }
            if let Some(Err(source)) = rule.when.as_ref().map(Rule::compile) {
                return Err(ConfigurationError::Condition { name: rule.name.clone(), source });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "configuration_tests.rs"]
mod tests;
