//! Descriptors to try things with: a plain Debian 12 host, one with an NFS mount, one in a corosync and pacemaker cluster.
//!
//! They are ordinary values, for tests, documentation and simulated worlds; nothing in production reads them.

use super::descriptor::*;
use super::words::{AddressFamily, InitSystem, Mode, Need, PackageManager, PortScope, Severity, SystemKind};

/// A plain Debian 12 host with systemd, two processors, 4 GiB of memory and nothing special.
#[must_use]
pub fn plain_host() -> Descriptor {
    Descriptor {
        survey_version: "0.1.0".into(),
        script_hash: "ab".repeat(32),
        mode: Mode::Discovery,
        taken_at: "2026-01-31T12:00:00Z".into(),
        root: "/".into(),
        host: plain_host_section(),
        modules: vec![
            module("cpu", Need::Required, "every host has processors", "system-type"),
            module("memory", Need::Required, "every host has memory", "system-type"),
            module("filesystem", Need::Required, "every host has file systems", "system-type"),
        ],
        thresholds: Vec::new(),
        installation: Installation {
            commands: vec![PlannedCommand {
                line: "dpkg --install PACKAGE.deb".into(),
                purpose: "install the agent".into(),
            }],
            conflicts: Vec::new(),
        },
    }
}

/// The plain host with one NFS mount in its fstab, and a monitoring agent of somebody else.
#[must_use]
pub fn network_storage_host() -> Descriptor {
    let mut descriptor = plain_host();
    descriptor.host.identity.hostname = "files-1".into();
    let facts = vec![
        fact("source", "nas.example.org:/export/data"),
        fact("mount_point", "/srv/data"),
        fact("state", "configured"),
    ];
    set_signature(&mut descriptor, "network-storage", vec![Item { kind: "nfs".into(), facts }]);
    descriptor.modules.push(module("nfs", Need::Required, "NFS file systems are mounted", "network-storage"));
    descriptor.thresholds.push(ThresholdAdvice {
        module: "nfs".into(),
        name: "stale_after".into(),
        value: "30".into(),
        unit: "seconds".into(),
        reason: "a mount that hangs stops what uses it".into(),
        signature: "network-storage".into(),
    });
    descriptor.installation.conflicts.push(Conflict {
        kind: "monitoring_agent".into(),
        severity: Severity::Warning,
        subject: "zabbix_agentd".into(),
        reason: "another monitoring agent is running".into(),
    });
    descriptor
}

/// The plain host as a member of a two-node corosync and pacemaker cluster.
#[must_use]
pub fn clustered_host() -> Descriptor {
    let mut descriptor = plain_host();
    descriptor.host.identity.hostname = "db-1".into();
    let facts =
        vec![fact("name", "databases"), fact("member", "db-1"), fact("member", "db-2"), fact("state", "configured")];
    set_signature(&mut descriptor, "cluster", vec![Item { kind: "corosync".into(), facts }]);
    let facts = vec![fact("state", "configured")];
    set_signature(&mut descriptor, "high-availability", vec![Item { kind: "pacemaker".into(), facts }]);
    descriptor.modules.push(module("corosync", Need::Required, "the host is a member of a cluster", "cluster"));
    descriptor.modules.push(module("pacemaker", Need::Required, "resources move between hosts", "high-availability"));
    descriptor
}

fn plain_host_section() -> Host {
    Host {
        identity: Identity { hostname: "host-1".into(), machine_id: Some("0123456789abcdef0123456789abcdef".into()) },
        addresses: vec![Address {
            interface: Some("eth0".into()),
            family: AddressFamily::Ipv4,
            value: "10.1.0.11".into(),
            prefix_length: Some(24),
        }],
        hardware: Hardware {
            architecture: "amd64".into(),
            machine: "x86_64".into(),
            cpu_count: 2,
            memory_bytes: 4 << 30,
            system_kind: SystemKind::Virtual,
            vendor: Some("QEMU".into()),
            model: Some("Standard PC (Q35 + ICH9, 2009)".into()),
        },
        operating_system: OperatingSystem {
            id: "debian".into(),
            version: Some("12 (bookworm)".into()),
            version_id: Some("12".into()),
            pretty_name: Some("Debian GNU/Linux 12 (bookworm)".into()),
            kernel: "6.1.0-28-amd64".into(),
            init: InitSystem::Systemd,
            package_manager: PackageManager::Dpkg,
        },
        disks: vec![Disk { name: "vda".into(), size_bytes: 20 << 30, rotational: false }],
        filesystems: vec![Filesystem {
            mount_point: "/".into(),
            source: Some("/dev/vda1".into()),
            kind: Some("ext4".into()),
            size_bytes: 20 << 30,
            free_bytes: 12 << 30,
        }],
        packages: Packages { total: 1, list: vec![Package { name: "libc6".into(), version: "2.36-9+deb12u9".into() }] },
        software: Software {
            total: 1,
            list: vec![Process { name: "sshd".into(), count: 1, command: "/usr/sbin/sshd -D".into() }],
        },
        listening_ports: vec![ListeningPort { number: 22, scope: PortScope::Any }],
        signatures: ["system-type", "network-storage", "cluster", "high-availability"].map(empty_signature).into(),
    }
}

fn empty_signature(name: &str) -> Signature {
    Signature { name: name.into(), mode: Mode::Discovery, detected: false, items: Vec::new() }
}

fn set_signature(descriptor: &mut Descriptor, name: &str, items: Vec<Item>) {
    for signature in descriptor.host.signatures.iter_mut().filter(|signature| signature.name == name) {
        signature.detected = true;
        signature.items.clone_from(&items);
    }
}

fn fact(name: &str, value: &str) -> Fact {
    Fact { name: name.into(), value: value.into() }
}

fn module(name: &str, need: Need, reason: &str, signature: &str) -> ModuleAdvice {
    ModuleAdvice { name: name.into(), need, reason: reason.into(), signature: signature.into() }
}
