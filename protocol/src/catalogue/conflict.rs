//! What stops an installation before any download (R61).
use serde::{Deserialize, Serialize};

use super::rule::Rule;

/// One conflict that a package declares.
///
/// Besides these every package conflicts, without saying so, with a host of another architecture or package manager, with
/// software that listens on a port that the package declares, with too little space for its own bytes, and with what the
/// survey itself calls blocking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictRule {
    /// What it conflicts with.
    pub with: ConflictKind,
    /// Why, and what to do about it, for people.
    pub text: String,
}

/// The kinds of conflicts, in TOML for example `with = { port = 9105 }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// A package that is installed already, or chosen for the same host.
    Package(String),
    /// A process of that name that runs.
    Software(String),
    /// A TCP port that something listens on.
    Port(u16),
    /// Less free space than this at a path.
    DiskSpace {
        /// An absolute path; the file system that holds it counts.
        path: String,
        /// Bytes that must be free.
        bytes: u64,
    },
    /// An operating system other than these.
    OperatingSystemOtherThan {
        /// `ID` of `/etc/os-release`.
        id: String,
        /// Values of `VERSION_ID`; empty: any version.
        versions: Vec<String>,
    },
    /// Whatever else: a rule that is true where there is a conflict.
    When(Rule),
}
