//! Whom a node knows in its sites, and whom it should dial.
use std::collections::BTreeMap;

use branchline_protocol::{
    charter::NodeAddresses,
    ids::{NodeId, SiteName},
    limits::{CONTROL_NEIGHBOURS_MAX, MEMBERS_DEFAULT, PEER_RECORDS_MAX},
    wire::control::PeerRecord,
};

/// Nodes that may be dialled, bounded; the oldest unproved record makes place for a new one.
#[derive(Debug, Default)]
pub struct Neighbours {
    records: BTreeMap<NodeId, (SiteName, NodeAddresses)>,
}

/// Records of one node.
const RECORDS_MAX: usize = MEMBERS_DEFAULT as usize * 2;

/// Nodes that one wants to be connected with. As many want it, and it is connected with the station.
const WANTED_MAX: usize = (CONTROL_NEIGHBOURS_MAX - 1) / 2;

impl Neighbours {
    /// Remembers where a node listens. Refuses silently where the table is full of others.
    pub fn learn(&mut self, site: &SiteName, record: PeerRecord) {
        if self.records.len() < RECORDS_MAX || self.records.contains_key(&record.node) {
            self.records.insert(record.node, (site.clone(), record.addresses));
        }
    }

    /// Forgets a node.
    pub fn forget(&mut self, node: NodeId) {
        self.records.remove(&node);
    }

    /// Where a node listens.
    pub fn addresses(&self, node: NodeId) -> Option<NodeAddresses> {
        self.records.get(&node).map(|(_, addresses)| *addresses)
    }

    /// The other nodes of one site, in the circle of identities after `from`.
    fn circle(&self, site: &SiteName, from: NodeId) -> Vec<PeerRecord> {
        let after = self.records.range(from..).chain(self.records.range(..from));
        let others = after.filter(|(node, (of, _))| **node != from && of == site);
        others.map(|(node, (_, addresses))| PeerRecord { node: *node, addresses: *addresses }).collect()
    }

    /// Nodes of one site, for a peer exchange: the asker's successor in the circle of identities, and others in equal
    /// steps around it, so that every node is named to somebody and everybody hears of all parts of the site.
    pub fn exchange(&self, site: &SiteName, asker: NodeId) -> Vec<PeerRecord> {
        let circle = self.circle(site, asker);
        let step = circle.len().div_ceil(PEER_RECORDS_MAX).max(1);
        circle.into_iter().step_by(step).collect()
    }

    /// Whom to be connected with: the successor in the circle of identities, and others around it, each the same number of
    /// times as far as the one before, so that while the station is away any node is reached in few hops, of 1,000 in
    /// seven. As many nodes want this one; with the station that is the degree.
    pub fn wanted(&self, site: &SiteName, own: NodeId) -> Vec<NodeId> {
        let circle = self.circle(site, own);
        let distance = |power: usize| (circle.len() as f64).powf(power as f64 / WANTED_MAX as f64).round() as usize;
        let mut places: Vec<usize> = (0..WANTED_MAX).map(|power| distance(power).saturating_sub(1)).collect();
        places.dedup();
        places.into_iter().filter_map(|place| circle.get(place)).map(|record| record.node).collect()
    }

    /// Every known node of a site.
    pub fn all(&self, site: &SiteName, own: NodeId) -> Vec<PeerRecord> {
        self.circle(site, own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site_of(nodes: u8) -> (SiteName, Neighbours) {
        let site: SiteName = "store-17".parse().unwrap();
        let mut neighbours = Neighbours::default();
        let addresses =
            NodeAddresses { control: "10.1.0.2:7400".parse().unwrap(), bulk: "10.1.0.2:7401".parse().unwrap() };
        for number in 0..nodes {
            neighbours.learn(&site, PeerRecord { node: NodeId([number; 32]), addresses });
        }
        (site, neighbours)
    }

    #[test]
    fn in_a_small_site_everybody_is_wanted_once() {
        for nodes in 1..=40 {
            let (site, neighbours) = site_of(nodes);
            let wanted = neighbours.wanted(&site, NodeId([0; 32]));
            let different: std::collections::BTreeSet<_> = wanted.iter().collect();
            assert!(different.len() == wanted.len() && wanted.len() <= WANTED_MAX);
            assert!(nodes == 1 || wanted.contains(&NodeId([1; 32])), "the successor of {nodes}");
        }
    }

    #[test]
    fn every_node_is_wanted_by_as_many_as_it_wants_and_reached_in_few_hops() {
        let (site, neighbours) = site_of(200);
        let mut wanted_by = BTreeMap::new();
        for number in 0..200u8 {
            let wanted = neighbours.wanted(&site, NodeId([number; 32]));
            assert!(wanted.len() == WANTED_MAX && !wanted.contains(&NodeId([number; 32])));
            wanted.into_iter().for_each(|node| *wanted_by.entry(node).or_insert(0) += 1);
        }
        assert!(wanted_by.len() == 200 && wanted_by.values().all(|count| *count == WANTED_MAX));
        assert!(hops_to_reach_all(&neighbours, &site) <= 4, "ten neighbours, a hundred of theirs: three hops at best");
        let other: SiteName = "store-18".parse().unwrap();
        assert!(neighbours.exchange(&other, NodeId([0; 32])).is_empty());
    }

    /// Hops from node 0 until everybody is reached over dialled connections, which carry both ways.
    fn hops_to_reach_all(neighbours: &Neighbours, site: &SiteName) -> usize {
        let nodes: Vec<NodeId> = (0..200u8).map(|number| NodeId([number; 32])).collect();
        let mut edges = std::collections::BTreeSet::new();
        for node in &nodes {
            for other in neighbours.wanted(site, *node) {
                edges.insert((*node, other));
                edges.insert((other, *node));
            }
        }
        let mut reached = std::collections::BTreeSet::from([nodes[0]]);
        for hops in 0..200 {
            if reached.len() == nodes.len() {
                return hops;
            }
            let next: Vec<NodeId> =
                edges.iter().filter(|(from, _)| reached.contains(from)).map(|edge| edge.1).collect();
            reached.extend(next);
        }
        usize::MAX
    }
}
