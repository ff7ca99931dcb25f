//! Modules of a package: parts that are switched on where the survey finds what they monitor (R46, R81).
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rule::Rule;

/// A part of a package that can be switched on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleDefinition {
    /// Its name, unique in the package.
    pub name: String,
    /// Whether it is switched on; true or false.
    pub when: Rule,
    /// Why somebody would want it, for people.
    pub reason: String,
    /// Pieces of configuration where it is on: name of the place, then the pieces in order. Templates read all pieces of
    /// a place as the list `plan.fragments.PLACE`.
    #[serde(default)]
    pub on: BTreeMap<String, Vec<String>>,
    /// The same where it is off.
    #[serde(default)]
    pub off: BTreeMap<String, Vec<String>>,
}
