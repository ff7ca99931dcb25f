//! Which connections stay, and who is dialled.
use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use branchline_protocol::{
    ids::{NodeId, SiteName},
    limits::CONTROL_NEIGHBOURS_MAX,
    wire::control::ControlRequest,
};
use tokio::time::Instant;

use super::{Asked, Peer, Service, TICK};
use crate::mesh::{REDIAL_MAX, translate};

/// A connection that nobody needs is let go when no question over it is open, nor was so short a time ago: who asked
/// once often asks again.
const UNUSED: Duration = Duration::from_secs(5);

impl Service {
    /// Closes a node's connections from an address that it has left. Nothing says so on these: a machine that has lost its
    /// address cannot send another packet from there, and what is asked over them would wait for a timeout (R116).
    pub(super) fn close_from(&mut self, node: NodeId, former: IpAddr) {
        let stale = self.remotes.iter().filter(|(_, remote)| **remote == (node, former)).map(|(id, _)| *id);
        for connection in stale.collect::<Vec<_>>() {
            self.swarm.close_connection(connection);
        }
    }

    /// Cuts who is not admitted in time, dials who must be reached, and asks the station whom it knows.
    pub(super) fn look_after_connections(&mut self) {
        let now = Instant::now();
        let late = self.peers.iter().filter(|(_, peer)| peer.cut_at.is_some_and(|at| at <= now));
        for node in late.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.disconnect(node);
        }
        let (cut, stay): (Vec<_>, Vec<_>) = self.refused.drain(..).partition(|(_, at)| *at <= now);
        self.refused = stay;
        for (connection, _) in cut {
            self.swarm.close_connection(connection);
        }
        let own = self.documents.node();
        let exchange = now >= self.next_exchange;
        for site in self.documents.sites() {
            let Some(authority) = self.documents.authority(&site) else { continue };
            let charter = authority.charter();
            let (station, headquarters) = (charter.station.node, charter.headquarters.node);
            if own == station && own != headquarters {
                self.dial_again(headquarters, now);
            } else if own != headquarters {
                self.dial_again(station, now);
                let wanted = self.neighbours.wanted(&site, own);
                for node in wanted.iter().filter(|node| !self.peers.contains_key(node)).copied().collect::<Vec<_>>() {
                    self.dial_again(node, now);
                }
                self.let_go(&site, &[wanted, vec![station, headquarters]].concat(), now);
            }
            if exchange && own != station && own != headquarters && self.peers.contains_key(&station) {
                self.ask(station, ControlRequest::Peers, Asked::Peers(site.clone()));
            }
        }
        if exchange {
            let known = self.records_sender.borrow().len();
            let pause =
                if known < CONTROL_NEIGHBOURS_MAX / 2 { Duration::from_secs(2) } else { Duration::from_secs(30) };
            self.next_exchange = now + pause;
        }
    }

    /// Closes what this node dialled, for one question or while it knew few, and wants no longer. Each connection is let go
    /// by the end that dialled it, so that what the other end wants is not closed over and over.
    fn let_go(&mut self, site: &SiteName, keep: &[NodeId], now: Instant) {
        let asked = self.asked.values().filter(|(_, asked)| !matches!(asked, Asked::Hello)).map(|(node, _)| *node);
        let needed: BTreeSet<NodeId> =
            asked.chain(self.answering.values().copied()).chain(keep.iter().copied()).collect();
        let rests = |(node, peer): (&NodeId, &Peer)| {
            let of_site = peer.admission.as_ref().is_some_and(|admission| admission.site == *site);
            let rests = peer.waiting.is_empty() && peer.used_at.is_none_or(|at| at + UNUSED <= now);
            (of_site && peer.dialled && rests && !needed.contains(node)).then_some(*node)
        };
        for node in self.peers.iter().filter_map(rests).collect::<Vec<_>>() {
            self.disconnect(node);
        }
    }

    fn dial_again(&mut self, node: NodeId, now: Instant) {
        let connected = translate::peer_id(node).is_some_and(|peer| self.swarm.is_connected(&peer));
        let (at, pause) = self.redial.get(&node).copied().unwrap_or((now, TICK));
        if !connected && at <= now && self.dial(node) {
            self.redial.insert(node, (now + pause, (pause * 2).min(REDIAL_MAX)));
        }
    }
}
