//! What one site wishes: which packages, which versions, which thresholds.
use serde::{Deserialize, Serialize};

use super::{package::DefinitionError, rule::Rule};
use crate::{charter::Document, ids::SiteName, limits, time::UnixSeconds};

/// The wishes of one site, signed by the charter's administrator.
///
/// A policy only chooses among what the catalogue allows; the empty policy takes what the catalogue's rules select.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SitePolicy {
    /// The site that it is for.
    pub site: SiteName,
    /// Grows with every publication; lower ones are refused.
    pub version: u64,
    /// From then on it is not accepted any more. Absent: it does not expire.
    #[serde(default)]
    pub expires_at: Option<UnixSeconds>,
    /// How updates cross the line into the site.
    #[serde(default, skip_serializing_if = "UpdateTravel::is_default")]
    pub updates: UpdateTravel,
    /// What happens to a host of which more can be reached through its mapping than its packages declare.
    #[serde(default, skip_serializing_if = "UndeclaredRule::is_default")]
    pub undeclared_ports: UndeclaredRule,
    /// Wishes about packages; of several that hold for one package, the first counts.
    #[serde(default)]
    pub packages: Vec<PackageWish>,
    /// Modules switched on or off; the first that holds counts.
    #[serde(default)]
    pub modules: Vec<ModuleOverride>,
    /// Thresholds set; the first that holds counts.
    #[serde(default)]
    pub thresholds: Vec<ThresholdOverride>,
}

/// How an update crosses the line where a node of the site holds an earlier version (R70, R73).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateTravel {
    /// Only the patch; the whole pack where the patch cannot be applied.
    #[default]
    Patch,
    /// Only the patch; where it cannot be applied, or no node has an earlier version, the site waits for a person.
    PatchOnly,
    /// Only the whole pack, also to nodes that have the base.
    Whole,
}

impl UpdateTravel {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens to a host of which a port answers through the mapping that no package declares (R94).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndeclaredRule {
    /// Its verification fails, and it is unmapped.
    #[default]
    Refuse,
    /// It completes, and its report and the station's status show the port.
    Report,
}

impl UndeclaredRule {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A wish about one package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageWish {
    /// Name of the package.
    pub package: String,
    /// What is wished.
    pub wish: Wish,
    /// Only this version, for wishes other than [`Wish::Forbidden`].
    #[serde(default)]
    pub version: Option<String>,
    /// For which hosts; absent: all.
    #[serde(default)]
    pub when: Option<Rule>,
    /// Why, for people.
    pub reason: String,
}

/// What a site can wish about a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Install it, whatever its own `select` rule says.
    Wanted,
    /// Do not install it.
    Forbidden,
    /// Leave it to its `select` rule; makes sense with a version.
    Pinned,
}

/// A module switched on or off by the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleOverride {
    /// Name of the package.
    pub package: String,
    /// Name of the module.
    pub module: String,
    /// On or off.
    pub enabled: bool,
    /// For which hosts; absent: all.
    #[serde(default)]
    pub when: Option<Rule>,
    /// Why, for people.
    pub reason: String,
}

/// A threshold set by the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThresholdOverride {
    /// Name of the package.
    pub package: String,
    /// Name of the threshold.
    pub threshold: String,
    /// The value.
    pub value: Rule,
    /// For which hosts; absent: all.
    #[serde(default)]
    pub when: Option<Rule>,
    /// Why, for people.
    pub reason: String,
}

impl Document for SitePolicy {
    const CONTEXT: &'static str = "branchline site policy 1";
    const BYTES_MAX: usize = limits::DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "site policy";
}

impl SitePolicy {
    /// The policy of a site that wishes nothing in particular.
    pub fn empty(site: SiteName, version: u64) -> Self {
        Self {
            site,
            version,
            expires_at: None,
            updates: UpdateTravel::default(),
            undeclared_ports: UndeclaredRule::default(),
            packages: vec![],
            modules: vec![],
            thresholds: vec![],
        }
    }

    /// Reads a policy as people write it.
    ///
    /// # Errors
    /// What TOML or a rule of the policy does not allow, with the key and, for TOML, the line.
    pub fn from_toml(text: &str) -> Result<Self, DefinitionError> {
        let policy: Self = super::package::read_toml("site policy", text, limits::DOCUMENT_BYTES_MAX)?;
        policy.check().map_err(|error| super::package::with_line(error, text))?;
        Ok(policy)
    }

    /// Checks what the types do not: bounds, and that every rule can be compiled.
    ///
    /// # Errors
    /// The first fault, with the key where it is.
    pub fn check(&self) -> Result<(), DefinitionError> {
        let fault = |key: String, reason: String| Err(DefinitionError::Rule { key, reason });
        if self.version == 0 {
            return fault("version".into(), "must be at least 1".into());
        }
        let wishes = self.packages.len() + self.modules.len() + self.thresholds.len();
        if wishes > limits::POLICY_WISHES_MAX {
            return fault(
                "packages".into(),
                format!("{wishes} wishes; at most {} are allowed", limits::POLICY_WISHES_MAX),
            );
        }
        let rules = (self
            .packages
            .iter()
            .enumerate()
            .map(|(i, wish)| (format!("packages[{i}].when"), wish.when.as_ref())))
        .chain(self.modules.iter().enumerate().map(|(i, wish)| (format!("modules[{i}].when"), wish.when.as_ref())))
        .chain(
            self.thresholds.iter().enumerate().map(|(i, wish)| (format!("thresholds[{i}].when"), wish.when.as_ref())),
        )
        .chain(
            self.thresholds.iter().enumerate().map(|(i, wish)| (format!("thresholds[{i}].value"), Some(&wish.value))),
        );
        for (key, rule) in rules {
            if let Some(Err(error)) = rule.map(Rule::compile) {
                return fault(key, error.to_string());
            }
        }
        Ok(())
    }
}
