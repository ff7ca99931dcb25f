//! What the plans of several hosts come to.
use std::{collections::BTreeMap, fmt};

use branchline_protocol::ids::PackId;
use serde::Serialize;

use crate::runtime::{HostPlan, KnownHost};

/// Hosts that one line names.
const NAMES_MAX: usize = 8;

/// What the plans of several hosts come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many hosts were looked at.
    pub hosts: usize,
    /// How many have a plan.
    pub planned: usize,
    /// Bytes of all packs that some plan names, each counted once: what would cross the line at most.
    pub pack_bytes: u64,
    /// The plans, by what they install.
    pub selections: Vec<Selection>,
    /// The hosts without a plan.
    pub without: Vec<Without>,
}

/// Hosts that would get the same packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// The packages with their versions.
    pub packages: Vec<String>,
    /// Bytes of their packs.
    pub pack_bytes: u64,
    /// The hosts, sorted.
    pub hosts: Vec<String>,
}

/// A host without a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Without {
    /// The host.
    pub host: String,
    /// Why.
    pub reason: String,
}

impl Summary {
    /// What `plans` come to.
    pub fn of(plans: &[(KnownHost, HostPlan)]) -> Self {
        let mut summary = Self::default();
        let mut packs: BTreeMap<PackId, u64> = BTreeMap::new();
        let mut selections: BTreeMap<Vec<String>, Selection> = BTreeMap::new();
        for (host, found) in plans {
            let name = host.host_name.clone();
            match found {
                HostPlan::LeftOut => continue,
                HostPlan::Refused { reason, .. } | HostPlan::NotSurveyed { reason } => {
                    summary.without.push(Without { host: name, reason: reason.clone() });
                }
                HostPlan::Planned { plan, .. } => {
                    summary.planned += 1;
                    let own: BTreeMap<PackId, u64> = plan.packages.iter().map(|p| (p.pack, p.pack_bytes)).collect();
                    let packages: Vec<String> =
                        plan.packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
                    let selection = selections.entry(packages.clone()).or_insert_with(|| Selection {
                        packages,
                        pack_bytes: own.values().sum(),
                        hosts: Vec::new(),
                    });
                    selection.hosts.push(name);
                    packs.extend(own);
                }
            }
            summary.hosts += 1;
        }
        summary.pack_bytes = packs.values().sum();
        summary.selections = selections.into_values().collect();
        summary
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, planned, pack_bytes, .. } = self;
        writeln!(f, "{hosts} hosts: {planned} with a plan, {} without", self.without.len())?;
        for selection in &self.selections {
            let (count, packages) = (selection.hosts.len(), selection.packages.join(", "));
            writeln!(f, "  {count} get {packages}, {} bytes: {}", selection.pack_bytes, named(&selection.hosts))?;
        }
        for without in &self.without {
            let mut lines = without.reason.lines();
            writeln!(f, "  none for {}: {}", without.host, lines.next().unwrap_or_default())?;
            for line in lines {
                writeln!(f, "    {line}")?;
            }
        }
        writeln!(f, "At most {pack_bytes} bytes cross the line, less what the site holds already.")
    }
}

fn named(hosts: &[String]) -> String {
    let more = match hosts.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    hosts[..hosts.len().min(NAMES_MAX)].join(", ") + &more
}

#[cfg(test)]
mod tests {
    use branchline_protocol::{
        catalogue::PayloadFormat,
        ids::{DocumentHash, Hash, ImageId, NodeId},
        plan::{Plan, PlannedPackage},
    };

    use super::*;

    fn package(name: &str, bytes: u64) -> PlannedPackage {
        PlannedPackage {
            name: name.to_owned(),
            version: "1.0".to_owned(),
            format: PayloadFormat::Tar,
            image: ImageId(Hash::of(name.as_bytes())),
            pack: PackId(Hash::of(name.as_bytes())),
            pack_bytes: bytes,
            raw_bytes: 3 * bytes,
            sha256: Hash::of(b"file"),
            file_name: format!("{name}.tar"),
            modules: vec![],
            thresholds: vec![],
            files: vec![],
            steps: vec![],
            service: None,
            health: None,
            ports: vec![],
        }
    }

    fn host(number: u8) -> KnownHost {
        KnownHost { host_name: format!("till-{number}"), node: NodeId([number; 32]) }
    }

    fn planned(number: u8, packages: Vec<PlannedPackage>) -> (KnownHost, HostPlan) {
        let plan = Plan {
            node: NodeId([number; 32]),
            descriptor: Hash::of(b"descriptor"),
            catalogue: DocumentHash(Hash::of(b"catalogue")),
            policy: DocumentHash(Hash::of(b"policy")),
            group: None,
            packages,
            explanation: vec![],
        };
        (host(number), HostPlan::Planned { hash: plan.hash(), plan: Box::new(plan) })
    }

    #[test]
    fn hosts_with_the_same_packages_are_one_line_and_a_pack_counts_once() {
        let conflict = "conflicts stop the installation before any download:\n- agent: port 9100 is in use".to_owned();
        let mut plans: Vec<_> = (1..=10).map(|number| planned(number, vec![package("agent", 1_000)])).collect();
        plans.push(planned(11, vec![package("agent", 1_000), package("nfs-tools", 500)]));
        plans.push((host(12), HostPlan::Refused { reason: conflict, conflicts: vec![], explanation: vec![] }));
        plans.push((host(13), HostPlan::NotSurveyed { reason: "no survey of it has been reported yet".into() }));
        plans.push((host(14), HostPlan::LeftOut));
        let summary = Summary::of(&plans);
        assert_eq!((summary.hosts, summary.planned, summary.pack_bytes), (13, 11, 1_500));
        insta::assert_snapshot!(summary, @r"
        13 hosts: 11 with a plan, 2 without
          10 get agent 1.0, 1000 bytes: till-1, till-2, till-3, till-4, till-5, till-6, till-7, till-8 and 2 more
          1 get agent 1.0, nfs-tools 1.0, 1500 bytes: till-11
          none for till-12: conflicts stop the installation before any download:
            - agent: port 9100 is in use
          none for till-13: no survey of it has been reported yet
        At most 1500 bytes cross the line, less what the site holds already.
        ");
    }

    #[test]
    fn nobody_is_a_summary_too() {
        insta::assert_snapshot!(Summary::of(&[]), @r"
        0 hosts: 0 with a plan, 0 without
        At most 0 bytes cross the line, less what the site holds already.
        ");
    }
}
