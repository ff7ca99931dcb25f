//! Monitoring targets: what the operator's Prometheus scrapes, by HTTP service discovery (R34).
use std::{collections::BTreeMap, net::Ipv4Addr};

use branchline_protocol::{
    ids::{NodeId, SiteName},
    session::Stage,
    wire::site::HostProfile,
};
use serde::{Deserialize, Serialize};

use super::{authority::NatAuthority, state::SiteState};

/// One port of one host at its mapped address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// The site.
    pub site: SiteName,
    /// The host's name.
    pub host: String,
    /// The host's identity.
    pub node: NodeId,
    /// The address under which headquarters reaches it.
    pub mapped: Ipv4Addr,
    /// The port that the package declares.
    pub port: u16,
    /// The HTTP path of the metrics; empty where the package declares none, then Prometheus' default holds.
    pub path: String,
}

/// The targets of one site, in order of host and port.
///
/// A host is a target while all of this holds: headquarters approved it and has not withdrawn it; the site says that
/// it is verified or complete and has a mapping; the mapped address lies in a batch that was granted to this site; and
/// headquarters' own probe of that address found everything as declared. An address that two hosts claim is no target
/// at all (R115): what would answer there is not known.
pub fn targets_of_site(site: &SiteName, state: &SiteState, authority: &NatAuthority) -> Vec<Target> {
    let mut newest: BTreeMap<NodeId, (&HostProfile, Ipv4Addr)> = BTreeMap::new();
    let mut claims: BTreeMap<Ipv4Addr, NodeId> = BTreeMap::new();
    let mut doubled: Vec<Ipv4Addr> = Vec::new();
    for profile in state.mirror.profiles() {
        let Some(mapped) = profile.mapped else { continue };
        let node = profile.session.node;
        if claims.insert(mapped, node).is_some_and(|other| other != node) {
            doubled.push(mapped);
        }
        if is_target(profile, mapped, state) && authority.holds(site, mapped) {
            newest.insert(node, (profile, mapped));
        }
    }
    newest.retain(|_, (_, mapped)| !doubled.contains(mapped));
    let targets = newest.into_iter().flat_map(|(node, (profile, mapped))| {
        // One path per port: a list that names a port twice counts once.
        let ports: BTreeMap<u16, &String> = profile.scrape.iter().map(|(port, path)| (*port, path)).collect();
        ports.into_iter().map(move |(port, path)| Target {
            site: site.clone(),
            host: profile.host_name.clone(),
            node,
            mapped,
            port,
            path: path.clone(),
        })
    });
    targets.collect()
}

fn is_target(profile: &HostProfile, mapped: Ipv4Addr, state: &SiteState) -> bool {
    let session = profile.session;
    let approved = state.desk.docket(session).is_some_and(super::desk::Docket::is_approved);
    let verified = matches!(profile.stage, Stage::Verified | Stage::Complete);
    let probed = state.probes.get(&session).is_some_and(|probe| probe.result.passed() && probe.result.mapped == mapped);
    approved && verified && probed && !state.withdrawals.contains_key(&session)
}

#[derive(Serialize)]
struct TargetGroup<'a> {
    targets: [String; 1],
    labels: BTreeMap<&'static str, &'a str>,
}

/// The answer of the service discovery endpoint: a JSON list of groups, each with one target and the labels `site`,
/// `host`, `node` and, where the package declares a path, `__metrics_path__` (Prometheus, HTTP SD).
///
/// # Panics
/// Never in practice: maps with text keys serialize to JSON.
pub fn render_targets(targets: &[Target]) -> String {
    let nodes: Vec<String> = targets.iter().map(|target| target.node.to_string()).collect();
    let groups: Vec<TargetGroup<'_>> = targets.iter().zip(&nodes).map(|(target, node)| group(target, node)).collect();
    serde_json::to_string(&groups).expect("targets serialize to JSON")
}

fn group<'a>(target: &'a Target, node: &'a str) -> TargetGroup<'a> {
    let mut labels = BTreeMap::from([("site", target.site.as_str()), ("host", &target.host), ("node", node)]);
    if !target.path.is_empty() {
        labels.insert("__metrics_path__", &target.path);
    }
    TargetGroup { targets: [format!("{}:{}", target.mapped, target.port)], labels }
}
