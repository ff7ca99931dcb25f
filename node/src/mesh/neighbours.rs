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

    /// Nodes of one site, for a peer exchange: those that follow `asker` in the order of identities, so that different
    /// askers hear of different nodes and the mesh is spread evenly.
    pub fn exchange(&self, site: &SiteName, asker: NodeId) -> Vec<PeerRecord> {
        let after = self.records.range(asker..).chain(self.records.range(..asker));
        after
            .filter(|(node, (of, _))| **node != asker && of == site)
            .take(PEER_RECORDS_MAX)
            .map(|(node, (_, addresses))| PeerRecord { node: *node, addresses: *addresses })
            .collect()
    }

    /// Whom to dial now: nearest in the order of identities after `own`, up to the wanted degree.
    pub fn to_dial(&self, site: &SiteName, own: NodeId, connected: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let wanted = CONTROL_NEIGHBOURS_MAX / 2;
        let circle = self.exchange(site, own).into_iter().map(|record| record.node).take(wanted);
        circle.filter(|node| !connected(*node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_named_to_somebody_and_nobody_dials_more_than_half_the_degree() {
        let site: SiteName = "store-17".parse().unwrap();
        let mut neighbours = Neighbours::default();
        let addresses =
            NodeAddresses { control: "10.1.0.2:7400".parse().unwrap(), bulk: "10.1.0.2:7401".parse().unwrap() };
        for number in 0..200u8 {
            neighbours.learn(&site, PeerRecord { node: NodeId([number; 32]), addresses });
        }
        let mut dialled = std::collections::BTreeSet::new();
        for number in 0..200u8 {
            let dial = neighbours.to_dial(&site, NodeId([number; 32]), |_| false);
            assert!(dial.len() <= CONTROL_NEIGHBOURS_MAX / 2 && !dial.contains(&NodeId([number; 32])));
            dialled.extend(dial);
        }
        assert_eq!(dialled.len(), 200);
        let other: SiteName = "store-18".parse().unwrap();
        assert!(neighbours.exchange(&other, NodeId([0; 32])).is_empty());
    }
}
