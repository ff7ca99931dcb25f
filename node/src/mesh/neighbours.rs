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

    /// Whom to be connected with: the two successors, and nodes a sixteenth, an eighth, a quarter and half around the
    /// circle. With such distances any node is reached in about log2(N) hops while the station is away; with successors
    /// alone it would be N / 6. As many nodes want this one, so that the degree is twice as much, and the station.
    pub fn wanted(&self, site: &SiteName, own: NodeId) -> Vec<NodeId> {
        let circle = self.circle(site, own);
        let count = circle.len();
        let mut places = vec![0, 1, count / 16, count / 8, count / 4, count / 2];
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|place| circle.get(place)).map(|record| record.node).collect()
    }

    /// Every known node of a site.
    pub fn all(&self, site: &SiteName, own: NodeId) -> Vec<PeerRecord> {
        self.circle(site, own)
    }
}

/// Which of the connections that this node dialled, and over which nothing is asked, are to be closed where it has so
/// many: as many as are too many, but none to keep. Each connection is let go by the end that dialled it, so that what the
/// other end wants is not closed over and over.
pub fn surplus(connections: usize, rest: impl Iterator<Item = NodeId>, keep: &[NodeId]) -> Vec<NodeId> {
    let too_many = connections.saturating_sub(CONTROL_NEIGHBOURS_MAX);
    rest.filter(|node| !keep.contains(node)).take(too_many).collect()
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
    fn what_was_dialled_and_is_wanted_no_longer_is_let_go_beyond_the_degree() {
        let (site, neighbours) = site_of(200);
        let mut keep = neighbours.wanted(&site, NodeId([7; 32]));
        keep.push(NodeId([50; 32]));
        let dialled = || (0..60).filter(|number| *number != 7).map(|number| NodeId([number; 32]));
        let closed = surplus(62, dialled(), &keep);
        assert!(closed.len() == 62 - CONTROL_NEIGHBOURS_MAX && closed.iter().all(|node| !keep.contains(node)));
        assert!(surplus(CONTROL_NEIGHBOURS_MAX, dialled(), &[]).is_empty(), "so few are no burden");
        let all = dialled().collect::<Vec<_>>();
        assert!(surplus(100, dialled(), &all).is_empty(), "what is needed stays, however much it is");
    }

    #[test]
    fn every_node_is_named_to_somebody_and_nobody_dials_more_than_half_the_degree() {
        let (site, neighbours) = site_of(200);
        let mut dialled = std::collections::BTreeSet::new();
        for number in 0..200u8 {
            let dial = neighbours.wanted(&site, NodeId([number; 32]));
            assert!(dial.len() <= CONTROL_NEIGHBOURS_MAX / 2 && !dial.contains(&NodeId([number; 32])));
            dialled.extend(dial);
        }
        assert_eq!(dialled.len(), 200);
        assert!(hops_to_reach_all(&neighbours, &site) <= 8, "half the circle in each hop: log2(200) is 7.6");
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
