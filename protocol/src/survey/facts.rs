//! A descriptor as the plain facts over which the catalogue's rules run (R60, R61).
//!
//! The names are an interface to every catalogue: they are documented in the book (`protocol/facts.md`), only ever added to, and every
//! one is present for every host, with `""`, `0`, `false` or an empty list where nothing is known, so that a rule needs no guards.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::descriptor::{Descriptor, Item, Signature};
use super::words::{Need, Vocabulary};

/// Version of the document of facts; a new name does not change it.
pub const FACTS_VERSION: u32 = 1;

impl Descriptor {
    /// The facts of this host as one JSON object with lower_snake names (R60).
    #[must_use]
    pub fn facts(&self) -> Value {
        let host = &self.host;
        let filesystems: Vec<Value> = host.filesystems.iter().map(|filesystem| json!({
            "mount_point": filesystem.mount_point, "kind": text(&filesystem.kind), "source": text(&filesystem.source),
            "size_bytes": filesystem.size_bytes, "free_bytes": filesystem.free_bytes,
        })).collect();
        let disks: Vec<Value> = host
            .disks
            .iter()
            .map(|disk| {
                json!({
                    "name": disk.name, "size_bytes": disk.size_bytes, "rotational": disk.rotational,
                })
            })
            .collect();
        let packages: BTreeMap<&str, &str> =
            host.packages.list.iter().map(|package| (package.name.as_str(), package.version.as_str())).collect();
        let software: BTreeSet<&str> = host.software.list.iter().map(|process| process.name.as_str()).collect();
        json!({
            "facts_version": FACTS_VERSION,
            "host": self.host_facts(),
            "os": self.operating_system_facts(),
            "init": host.operating_system.init.word(),
            "package_manager": host.operating_system.package_manager.word(),
            "storage": { "network": self.network_storage_facts(), "disks": disks },
            "cluster": self.cluster_facts("cluster"),
            "high_availability": self.cluster_facts("high-availability"),
            "ports": { "listening": self.listening_numbers() },
            "packages": packages,
            "software": software,
            "filesystems": filesystems,
            "modules": self.module_facts(),
            "conflicts": self.conflict_facts(),
            "signatures": self.signature_facts(),
        })
    }

    fn host_facts(&self) -> Value {
        let host = &self.host;
        let addresses: Vec<&str> = host.addresses.iter().map(|address| address.value.as_str()).collect();
        json!({
            "hostname": host.identity.hostname,
            "machine_id": text(&host.identity.machine_id),
            "addresses": addresses,
            "architecture": host.hardware.architecture,
            "machine": host.hardware.machine,
            "cpu_count": host.hardware.cpu_count,
            "memory_bytes": host.hardware.memory_bytes,
            "system_kind": host.hardware.system_kind.word(),
            "vendor": text(&host.hardware.vendor),
            "model": text(&host.hardware.model),
        })
    }

    fn operating_system_facts(&self) -> Value {
        let system = &self.host.operating_system;
        json!({
            "id": system.id,
            "version": text(&system.version),
            "version_id": text(&system.version_id),
            "pretty_name": text(&system.pretty_name),
            "kernel": system.kernel,
        })
    }

    fn network_storage_facts(&self) -> Vec<Value> {
        self.items("network-storage")
            .map(|item| {
                json!({
                    "kind": item.kind,
                    "source": item.fact("source").unwrap_or(""),
                    "mount_point": item.fact("mount_point").unwrap_or(""),
                    "state": item.fact("state").unwrap_or(""),
                })
            })
            .collect()
    }

    fn cluster_facts(&self, signature: &str) -> Value {
        let kinds: BTreeSet<&str> = self.items(signature).map(|item| item.kind.as_str()).collect();
        let members: BTreeSet<&str> = self
            .items(signature)
            .flat_map(|item| &item.facts)
            .filter(|fact| fact.name == "member")
            .map(|fact| fact.value.as_str())
            .collect();
        let names: BTreeSet<&str> = self.items(signature).filter_map(|item| item.fact("name")).collect();
        json!({
            "detected": self.signature(signature).is_some_and(|found| found.detected),
            "kinds": kinds,
            "names": names,
            "members": members,
        })
    }

    fn listening_numbers(&self) -> BTreeSet<u16> {
        self.host.listening_ports.iter().map(|port| port.number).collect()
    }

    fn module_facts(&self) -> Value {
        let of = |need: Need| -> Vec<&str> {
            self.modules.iter().filter(|module| module.need == need).map(|module| module.name.as_str()).collect()
        };
        json!({ "required": of(Need::Required), "useful": of(Need::Useful) })
    }

    fn conflict_facts(&self) -> Vec<Value> {
        self.installation
            .conflicts
            .iter()
            .map(|conflict| {
                json!({
                    "kind": conflict.kind, "severity": conflict.severity.word(), "subject": conflict.subject,
                })
            })
            .collect()
    }

    fn signature_facts(&self) -> Value {
        let of = |signature: &Signature| {
            json!({
                "detected": signature.detected,
                "items": signature.items.iter().map(item_facts).collect::<Vec<_>>(),
            })
        };
        let signatures: Map<String, Value> =
            self.host.signatures.iter().map(|signature| (signature.name.replace('-', "_"), of(signature))).collect();
        Value::Object(signatures)
    }

    fn items(&self, signature: &str) -> impl Iterator<Item = &Item> {
        self.host.signatures.iter().filter(move |found| found.name == signature).flat_map(|found| &found.items)
    }
}

/// One finding as an object; of a repeated name the first value counts.
fn item_facts(item: &Item) -> Value {
    let mut object = Map::from_iter([("kind".to_owned(), Value::from(item.kind.clone()))]);
    for fact in &item.facts {
        object.entry(fact.name.replace('-', "_")).or_insert_with(|| Value::from(fact.value.clone()));
    }
    Value::Object(object)
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::survey::fixtures;

    #[test]
    fn facts_of_a_clustered_host() {
        insta::assert_snapshot!(format!("{:#}", fixtures::clustered_host().facts()));
    }

    #[test]
    fn every_host_has_every_fact() {
        let names = |value: &serde_json::Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        let plain = fixtures::plain_host().facts();
        let clustered = fixtures::clustered_host().facts();
        assert_eq!(names(&plain), names(&clustered));
        for part in ["host", "os", "storage", "cluster", "high_availability", "ports", "modules"] {
            assert_eq!(names(&plain[part]), names(&clustered[part]), "{part}");
        }
        assert_eq!(plain["cluster"]["detected"], false);
        assert_eq!(fixtures::network_storage_host().facts()["storage"]["network"][0]["kind"], "nfs");
    }
}
