//! Thresholds of a package: numbers and words that depend on the host (R46, R81).
use serde::{Deserialize, Serialize};

use super::rule::Rule;

/// A value that the agent is configured with.
///
/// What counts, from strongest to weakest: the site policy, the survey's own advice (section 3 of the descriptor, same
/// module and name), [`ThresholdDefinition::value`], [`ThresholdDefinition::default`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThresholdDefinition {
    /// Its name, unique in the package.
    pub name: String,
    /// The module that it belongs to: it is planned only where that is switched on. Absent: always.
    #[serde(default)]
    pub module: Option<String>,
    /// The value where nothing else says otherwise.
    pub default: String,
    /// The value for this host: a number, a text, true or false.
    #[serde(default)]
    pub value: Option<Rule>,
    /// For people: `bytes`, `seconds`, `percent`, ...
    #[serde(default)]
    pub unit: String,
    /// Why it depends on the host, for people.
    #[serde(default)]
    pub reason: String,
}
