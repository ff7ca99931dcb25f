//! Packages, and the catalogue that holds them.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::{
    conflict::ConflictRule,
    module::ModuleDefinition,
    rule::{PortNumber, Rule},
    threshold::ThresholdDefinition,
};
use crate::{
    charter::Document,
    ids::{Hash, ImageId, PackId},
    limits,
    time::UnixSeconds,
};

/// Everything that may be installed at the sites of one owner, signed by the catalogue key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Grows with every publication; verifiers refuse lower ones (R122).
    pub version: u64,
    /// From then on it is not accepted any more. Absent: it does not expire.
    #[serde(default)]
    pub expires_at: Option<UnixSeconds>,
    /// The packages; their order has no meaning.
    #[serde(default)]
    pub packages: Vec<Package>,
    /// Patches between images, of which the target at least belongs to a package here (R73).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchOffer>,
}

/// A patch that a host with the base can fetch instead of the target's pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchOffer {
    /// The image that it needs.
    pub base: ImageId,
    /// The image that it makes.
    pub target: ImageId,
    /// The pack whose image is the patch.
    pub pack: PackId,
    /// Sum of the pack's frame lengths in bytes.
    pub pack_bytes: u64,
    /// Length of the patch in bytes.
    pub raw_bytes: u64,
    /// Length of the target's original file in bytes, which the target's manifest states.
    pub original_bytes: u64,
}

impl Document for Catalogue {
    const CONTEXT: &'static str = "branchline catalogue 1";
    const BYTES_MAX: usize = limits::CATALOGUE_BYTES_MAX;
    const NAME: &'static str = "catalogue";
}

/// One version of one package: what people wrote, and the payload's measures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// What people wrote.
    pub definition: PackageDefinition,
    /// The bytes.
    pub payload: Payload,
}

/// The bytes of a package. `catalogue add` fills it in from the payload file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// The raw bytes in their normal form.
    pub image: ImageId,
    /// Their encoding.
    pub pack: PackId,
    /// Sum of the pack's frame lengths in bytes: P of R70.
    pub pack_bytes: u64,
    /// Length of the image in bytes.
    pub raw_bytes: u64,
    /// SHA-256 of the original file, as 32 bytes in the text form of a hash.
    pub sha256: Hash,
    /// Name of the original file, without directories.
    pub file_name: String,
}

/// How a payload is installed (R80).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadFormat {
    /// A Debian package, by dpkg.
    Deb,
    /// An RPM, by rpm.
    Rpm,
    /// A tar archive (plain, or what the image's normal form made of a compressed one), by the definition's steps.
    Tar,
}

/// A package as people write it: `package.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageDefinition {
    /// Name: 1 to 63 of `a-z 0-9 + . -`.
    pub name: String,
    /// Version; the highest that fits is chosen, numbers in it compare as numbers.
    pub version: String,
    /// What it is, for people.
    #[serde(default)]
    pub description: String,
    /// Architectures that it runs on (`amd64`, `arm64`); `all` for every one.
    pub architectures: Vec<String>,
    /// How it is installed.
    pub format: PayloadFormat,
    /// Whether it suits a host: true or false.
    pub select: Rule,
    /// Parts that can be switched on.
    #[serde(default)]
    pub modules: Vec<ModuleDefinition>,
    /// Values that depend on the host.
    #[serde(default)]
    pub thresholds: Vec<ThresholdDefinition>,
    /// What stops it.
    #[serde(default)]
    pub conflicts: Vec<ConflictRule>,
    /// Configuration files.
    #[serde(default)]
    pub files: Vec<FileTemplate>,
    /// Steps of a tar payload.
    #[serde(default)]
    pub steps: Vec<StepDefinition>,
    /// What runs afterwards.
    #[serde(default)]
    pub service: Option<ServiceDefinition>,
    /// How to see that it works.
    #[serde(default)]
    pub health: Option<HealthDefinition>,
    /// Ports that may be reached from outside the site (R94).
    #[serde(default)]
    pub ports: Vec<PortDefinition>,
}

/// A configuration file with `{{ }}` placeholders (see the module `plan`'s template).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTemplate {
    /// Absolute path; no placeholders.
    pub path: String,
    /// Permission bits, in TOML for example `0o644`.
    pub mode: u32,
    /// Name of the owning user; root where absent.
    #[serde(default)]
    pub owner: Option<String>,
    /// What it holds.
    pub content: String,
}

/// One step of a tar payload, with its undo (R86).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDefinition {
    /// What is done; its texts may have placeholders where [`StepAction`] says so.
    pub action: StepAction,
    /// What takes a command back; the other actions have an undo of their own.
    #[serde(default)]
    pub undo: Option<CommandLine>,
    /// Whether it cannot be taken back.
    #[serde(default, rename = "final")]
    pub is_final: bool,
}

/// What a step can do. In TOML for example `action = { unpack = { prefix = "/opt/agent" } }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepAction {
    /// Unpack the payload under an absolute path.
    Unpack {
        /// The path.
        prefix: String,
    },
    /// Create a system user with a group of the same name, where it does not exist.
    CreateUser {
        /// Its name.
        name: String,
        /// Its home; not created.
        home: String,
    },
    /// Create a directory, where it does not exist.
    CreateDirectory {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Owning user; root where absent.
        owner: Option<String>,
    },
    /// Write a file.
    WriteFile {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Owning user; root where absent.
        owner: Option<String>,
        /// What it holds; may have placeholders.
        content: String,
    },
    /// Run a program that the payload brought.
    RunCommand(CommandLine),
}

/// A program that the payload brought, and its arguments. There is no shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLine {
    /// Absolute path under the prefix of an earlier `unpack`.
    pub program: String,
    /// Arguments; may have placeholders.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// What runs after the installation (R84).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceDefinition {
    /// Name, also of the systemd unit.
    pub name: String,
    /// Absolute path of the program.
    pub program: String,
    /// Arguments; may have placeholders, and one that is a single placeholder with a list becomes several.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The user that it runs as.
    #[serde(default)]
    pub user: Option<String>,
    /// Environment variables; values may have placeholders.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Whose systemd unit.
    #[serde(default)]
    pub unit: SystemdUnit,
}

/// Where the systemd unit of a service comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemdUnit {
    /// The installer writes it from program, arguments, user and environment.
    #[default]
    Generated,
    /// The payload brings it.
    FromPayload,
}

/// How to see that it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthDefinition {
    /// The address to ask; may have placeholders. Absent: 127.0.0.1.
    #[serde(default)]
    pub address: Option<String>,
    /// TCP port.
    pub port: PortNumber,
    /// Path, from `/`.
    pub http_path: String,
    /// Text that the answer must contain.
    #[serde(default)]
    pub expected_text: Option<String>,
    /// How long it may take after the start, in seconds: 1 to 600.
    pub timeout_seconds: u32,
}

/// A port that may be reached from outside the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortDefinition {
    /// TCP port.
    pub port: PortNumber,
    /// HTTP path that answers 200; empty: a TCP connection is enough.
    #[serde(default)]
    pub http_path: String,
    /// Whether monitoring scrapes it.
    #[serde(default)]
    pub scrape: bool,
}

/// Why a definition, catalogue or policy is not usable.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum DefinitionError {
    /// Not TOML, an unknown key, a missing key or a value of the wrong kind.
    #[error("the {document} is not usable:\n{reason}")]
    Toml {
        /// What was read.
        document: &'static str,
        /// The parser's words, with line and key.
        reason: String,
    },
    /// Longer than its bound.
    #[error("the {document} has {length} bytes; at most {limit} are allowed")]
    TooLarge {
        /// What was read.
        document: &'static str,
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A value breaks a rule.
    #[error("{key}: {reason}")]
    Rule {
        /// Where it is, for example `modules[2].when`.
        key: String,
        /// What is wrong and what to change.
        reason: String,
    },
}

/// Reads bounded TOML.
pub(crate) fn read_toml<T: DeserializeOwned>(
    document: &'static str,
    text: &str,
    limit: usize,
) -> Result<T, DefinitionError> {
    if text.len() > limit {
        return Err(DefinitionError::TooLarge { document, length: text.len(), limit });
    }
    toml::from_str(text).map_err(|error| DefinitionError::Toml { document, reason: error.to_string() })
}

/// Adds the line to a fault that was found after the TOML was read.
pub(super) fn with_line(error: DefinitionError, text: &str) -> DefinitionError {
    match error {
        DefinitionError::Rule { key, reason } => {
            let line = line_of(text, &key).map(|line| format!("line {line}, ")).unwrap_or_default();
            DefinitionError::Rule { key: format!("{line}{key}"), reason }
        }
        other => other,
    }
}

/// The line of `modules[2].when` in a TOML text, or of the deepest part of the key that is there.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let table = toml::de::DeTable::parse(text).ok()?;
    let mut position = None;
    let mut values = Some(table.get_ref());
    let mut names = key.split('.');
    while let (Some(table), Some(name)) = (values.take(), names.next()) {
        let (name, index) = match name.trim_end_matches(']').split_once('[') {
            Some((name, index)) => (name, index.parse::<usize>().ok()),
            None => (name, None),
        };
        let Some((_, value)) = table.iter().find(|(known, _)| known.get_ref() == name) else { break };
        let value = match (value.get_ref(), index) {
            (toml::de::DeValue::Array(list), Some(index)) => list.get(index)?,
            _ => value,
        };
        position = Some(value.span().start);
        values = value.get_ref().as_table();
    }
    position.map(|position| text[..position].matches('\n').count() + 1)
}
