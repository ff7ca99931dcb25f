//! The types of a descriptor, section by section (R46).
//!
//! Strings follow the forms of [`super::lexical`]; a value that came from anywhere but [`Descriptor::parse`] can be held against them
//! with [`Descriptor::check`].

use serde::{Deserialize, Serialize};

use super::error::DescriptorError;
use super::words::{AddressFamily, InitSystem, Mode, Need, PackageManager, PortScope, Severity, SystemKind};
use super::xml;

/// One survey of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Version of the survey script that wrote it.
    pub survey_version: String,
    /// BLAKE3 of that script's body, 64 hexadecimal digits (R41).
    pub script_hash: String,
    /// How thoroughly the signatures looked (R44).
    pub mode: Mode,
    /// When it was taken, by the host's own clock: `2026-01-31T23:59:59Z`.
    pub taken_at: String,
    /// The root that was surveyed, `/` unless another was asked for.
    pub root: String,
    /// Section 1.
    pub host: Host,
    /// Section 2: modules useful or required to monitor the detected hardware.
    pub modules: Vec<ModuleAdvice>,
    /// Section 3: thresholds that should differ from their defaults.
    pub thresholds: Vec<ThresholdAdvice>,
    /// Section 4: what installation will run and may collide with.
    pub installation: Installation,
}

/// Section 1: identifiers, hardware, operating system, software.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Names of this machine.
    pub identity: Identity,
    /// Addresses of its interfaces.
    pub addresses: Vec<Address>,
    /// What it is made of.
    pub hardware: Hardware,
    /// What runs on it.
    pub operating_system: OperatingSystem,
    /// Whole disks.
    pub disks: Vec<Disk>,
    /// Mounted local file systems.
    pub filesystems: Vec<Filesystem>,
    /// Installed packages.
    pub packages: Packages,
    /// Running software.
    pub software: Software,
    /// TCP ports in the listening state.
    pub listening_ports: Vec<ListeningPort>,
    /// What the signatures found (R43).
    pub signatures: Vec<Signature>,
}

/// Names of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Host name, as the machine gives it.
    pub hostname: String,
    /// The content of `/etc/machine-id`.
    pub machine_id: Option<String>,
}

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Name of the interface, where the system tells.
    pub interface: Option<String>,
    /// Address family.
    pub family: AddressFamily,
    /// The address in its usual notation, without prefix length.
    pub value: String,
    /// Bits of the prefix, 0 to 128.
    pub prefix_length: Option<u8>,
}

/// What a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Architecture in Debian's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Architecture in the kernel's words: `x86_64`, `aarch64`.
    pub machine: String,
    /// Processing units available.
    pub cpu_count: u32,
    /// Main memory, bytes.
    pub memory_bytes: u64,
    /// Physical, virtual or container.
    pub system_kind: SystemKind,
    /// Who made the machine or the hypervisor.
    pub vendor: Option<String>,
    /// Model of the machine.
    pub model: Option<String>,
}

/// The operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatingSystem {
    /// `ID` of os-release: `debian`.
    pub id: String,
    /// `VERSION` of os-release: `12 (bookworm)`.
    pub version: Option<String>,
    /// `VERSION_ID` of os-release: `12`.
    pub version_id: Option<String>,
    /// `PRETTY_NAME` of os-release.
    pub pretty_name: Option<String>,
    /// Release of the running kernel.
    pub kernel: String,
    /// What starts services.
    pub init: InitSystem,
    /// What installs packages.
    pub package_manager: PackageManager,
}

/// One whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Kernel name: `sda`.
    pub name: String,
    /// Size, bytes.
    pub size_bytes: u64,
    /// Whether it turns.
    pub rotational: bool,
}

/// One mounted local file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Where it is mounted.
    pub mount_point: String,
    /// Device or name.
    pub source: Option<String>,
    /// Type: `ext4`.
    pub kind: Option<String>,
    /// Size, bytes.
    pub size_bytes: u64,
    /// Free to unprivileged users, bytes.
    pub free_bytes: u64,
}

/// Installed packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// How many are installed, also beyond those listed.
    pub total: u64,
    /// Those listed, in the order of their names.
    pub list: Vec<Package>,
}

/// One installed package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version in its package manager's form.
    pub version: String,
}

/// Running software.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Software {
    /// How many processes run, also beyond those listed.
    pub total: u64,
    /// Those listed: equal ones once.
    pub list: Vec<Process>,
}

/// Processes with one name and one command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Name of the program.
    pub name: String,
    /// How many of them run.
    pub count: u32,
    /// The command line, secrets redacted (R49).
    pub command: String,
}

/// A TCP port in the listening state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningPort {
    /// The port.
    pub number: u16,
    /// Who reaches it.
    pub scope: PortScope,
}

/// What one signature found (R43, R45).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Name of the signature: `network-storage`.
    pub name: String,
    /// How thoroughly it looked.
    pub mode: Mode,
    /// Whether it found what it looks for.
    pub detected: bool,
    /// The findings.
    pub items: Vec<Item>,
}

/// One finding of a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What was found: `nfs`, `corosync`.
    pub kind: String,
    /// Details, in the signature's order.
    pub facts: Vec<Fact>,
}

impl Item {
    /// The first value under a name, if there is one.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|fact| fact.name == name).map(|fact| fact.value.as_str())
    }
}

/// One named detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Its name: `mount_point`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A module that should watch this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleAdvice {
    /// The module.
    pub name: String,
    /// Useful or required.
    pub need: Need,
    /// Why, for people.
    pub reason: String,
    /// The signature that says so.
    pub signature: String,
}

/// A threshold that should differ from its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThresholdAdvice {
    /// The module that it belongs to.
    pub module: String,
    /// The threshold.
    pub name: String,
    /// The value, a decimal number as written.
    pub value: String,
    /// The unit of the value: `percent`, `seconds`, `bytes`, `count`.
    pub unit: String,
    /// Why, for people.
    pub reason: String,
    /// The signature that says so.
    pub signature: String,
}

/// Section 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// What an installation will run, in this order.
    pub commands: Vec<PlannedCommand>,
    /// What it may collide with.
    pub conflicts: Vec<Conflict>,
}

/// A command that an installation will run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedCommand {
    /// The command; words in capitals stand for what selection decides.
    pub line: String,
    /// What it is for.
    pub purpose: String,
}

/// A potential conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Its kind: `port_in_use`, `monitoring_agent`, `disk_space`, `package_manager_locked`, or a signature's own.
    pub kind: String,
    /// How much it matters.
    pub severity: Severity,
    /// The port, program, file system or lock concerned.
    pub subject: String,
    /// Why, for people.
    pub reason: String,
}

impl Descriptor {
    /// Reads a descriptor strictly: takes what the schema takes, and nothing else (R46).
    ///
    /// # Errors
    /// See [`DescriptorError`]; a document beyond [`crate::limits::DESCRIPTOR_BYTES_MAX`] is refused unread.
    pub fn parse(bytes: &[u8]) -> Result<Self, DescriptorError> {
        Self::from_element(&xml::read_document(bytes)?)
    }

    /// The canonical print: equal descriptors give equal bytes, and `parse(print(d)) == d` for every `d` that passes [`Self::check`].
    #[must_use]
    pub fn print(&self) -> String {
        self.to_element().to_document()
    }

    /// Checks that this value could have been read, as a value built by a program may not.
    ///
    /// # Errors
    /// What [`Self::parse`] says of its print.
    pub fn check(&self) -> Result<(), DescriptorError> {
        Self::parse(self.print().as_bytes()).map(|_| ())
    }

    /// BLAKE3 of the canonical print.
    #[must_use]
    pub fn content_hash(&self) -> blake3::Hash {
        blake3::hash(self.print().as_bytes())
    }

    /// The signature of a name, if the survey ran it.
    #[must_use]
    pub fn signature(&self, name: &str) -> Option<&Signature> {
        self.host.signatures.iter().find(|signature| signature.name == name)
    }
}
