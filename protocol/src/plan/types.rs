//! A plan as data. Every type encodes in JSON and in the binary format.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::explain::Explanation;
use crate::{
    catalogue::{CommandLine, PayloadFormat, StepAction, SystemdUnit},
    ids::{DocumentHash, Hash, ImageId, NodeId, PackId},
};

/// Everything that one host will install, configure and run (R62).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The host.
    pub node: NodeId,
    /// Content hash of the descriptor that it follows from (R63).
    pub descriptor: Hash,
    /// The signed catalogue that it follows from.
    pub catalogue: DocumentHash,
    /// The signed site policy that it follows from.
    pub policy: DocumentHash,
    /// The cluster or high-availability pair that the host is a member of (R5).
    pub group: Option<HostGroup>,
    /// What is installed, ordered by name.
    pub packages: Vec<PlannedPackage>,
    /// What was chosen and left out, and why; not part of the plan's hash.
    pub explanation: Vec<Explanation>,
}

/// Hosts of which only one is worked on at a time (R5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostGroup {
    /// Name of the cluster, or the members' names joined, where it has none.
    pub name: String,
    /// Its members' host names as the survey found them, sorted.
    pub members: Vec<String>,
}

/// One package of a plan, with all templates filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPackage {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// How it is installed.
    pub format: PayloadFormat,
    /// The raw bytes.
    pub image: ImageId,
    /// Their encoding that is fetched.
    pub pack: PackId,
    /// Sum of the frames' lengths in bytes.
    pub pack_bytes: u64,
    /// Length of the image in bytes.
    pub raw_bytes: u64,
    /// SHA-256 of the original file, as 32 bytes in the text form of a hash.
    pub sha256: Hash,
    /// Name of the original file.
    pub file_name: String,
    /// Modules that are switched on, in the definition's order.
    pub modules: Vec<PlannedModule>,
    /// Thresholds, in the definition's order.
    pub thresholds: Vec<PlannedThreshold>,
    /// Configuration files to write, after the payload is in place and before the service starts.
    pub files: Vec<ConfigurationFile>,
    /// Steps of a tar payload, in order; empty for the other formats.
    pub steps: Vec<Step>,
    /// What to start.
    pub service: Option<Service>,
    /// How to see that it works.
    pub health: Option<HealthCheck>,
    /// The only ports that are reachable through the mapping (R94).
    pub ports: Vec<PortDeclaration>,
}

/// A module that is switched on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedModule {
    /// Name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A threshold with its value for this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedThreshold {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
    /// Unit, for people.
    pub unit: String,
    /// Who decided the value: policy, survey, rule or default, and why.
    pub reason: String,
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationFile {
    /// Absolute path, without `.` and `..`.
    pub path: String,
    /// Permission bits, for example 0o644.
    pub mode: u32,
    /// Name of the owning user; root where absent.
    pub owner: Option<String>,
    /// What it holds.
    pub content: String,
}

/// One step of a tar payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub action: StepAction,
    /// What takes it back (R86).
    pub undo: StepUndo,
}

impl Step {
    /// Whether it cannot be taken back.
    pub fn is_final(&self) -> bool {
        self.undo == StepUndo::Final
    }
}

/// What takes a step back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepUndo {
    /// Every path that the step touched is put back as it was, or removed where it was not there.
    RestorePaths,
    /// The user is removed, where this step created it.
    RemoveUser,
    /// This command runs.
    RunCommand(CommandLine),
    /// Nothing: the step is marked final.
    Final,
}

/// What runs after the installation (R84).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Name, also of the systemd unit: `NAME.service`.
    pub name: String,
    /// Absolute path of the program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The user that it runs as; the installer's own where absent.
    pub user: Option<String>,
    /// Environment variables beside a minimal environment.
    pub environment: BTreeMap<String, String>,
    /// Where systemd runs: whose unit. Elsewhere the program is a supervised process.
    pub unit: SystemdUnit,
}

/// How to see that a service works: `GET http://ADDRESS:PORT/PATH` gives 200 and the expected text (R84, R94).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The address to ask, as seen on the host.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Path, from `/`.
    pub http_path: String,
    /// Text that the answer must contain.
    pub expected_text: Option<String>,
    /// How long it may take after the start until it answers so, in seconds.
    pub timeout_seconds: u32,
}

/// A port that may be reached through the mapping (R94).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDeclaration {
    /// TCP port.
    pub port: u16,
    /// HTTP path that answers 200; empty: a TCP connection is enough.
    pub http_path: String,
    /// Whether monitoring scrapes it.
    pub scrape: bool,
}

impl Plan {
    /// The packs to fetch, each once, ordered by package.
    pub fn packs(&self) -> Vec<PackId> {
        once(self.packages.iter().map(|package| package.pack))
    }

    /// The images to install, each once, ordered by package.
    pub fn images(&self) -> Vec<ImageId> {
        once(self.packages.iter().map(|package| package.image))
    }

    /// Names of all modules that are switched on, each once, sorted.
    pub fn module_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.packages.iter().flat_map(|package| &package.modules).map(|module| module.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Name and value of all thresholds, sorted by name.
    pub fn threshold_values(&self) -> Vec<(String, String)> {
        let thresholds = self.packages.iter().flat_map(|package| &package.thresholds);
        let mut values: Vec<_> =
            thresholds.map(|threshold| (threshold.name.clone(), threshold.value.clone())).collect();
        values.sort();
        values
    }

    /// All declared ports, sorted by number.
    pub fn ports(&self) -> Vec<PortDeclaration> {
        let mut ports: Vec<_> = self.packages.iter().flat_map(|package| package.ports.clone()).collect();
        ports.sort_by_key(|port| port.port);
        ports
    }
}

fn once<T: Ord + Copy>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    items.filter(|item| seen.insert(*item)).collect()
}
