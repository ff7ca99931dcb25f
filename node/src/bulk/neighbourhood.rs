//! Whom this node is connected with: a bounded neighbourhood that every member computes for itself, and exceptions.
//!
//! Members are neighbours by [`neighbours_of`]. Who lacks frames dials; who was asked by more than it serves closes. A
//! node to which its neighbours have nothing to give (a pack that few want) turns to the station, then to others.
use std::{collections::BTreeSet, time::Duration};

use branchline_protocol::{
    charter::Charter,
    ids::{Hash, NodeId},
    limits::{BULK_CONNECTIONS_MAX, BULK_NEIGHBOURS_ACCEPTED_MAX, BULK_NEIGHBOURS_MAX},
    swarm::{Place, neighbours_of},
    wire::control::PeerRecord,
};
use tokio::time::Instant;

use super::{
    connection::{LinkError, LinkKind},
    dialer::dial,
    links::Inbound,
    service::Service,
};

const DIALS_AT_ONCE: usize = 8;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_LAST: Duration = Duration::from_secs(10);
/// A member that could not be reached so often in a row is no neighbour until it comes by itself.
const UNREACHABLE_AFTER: u32 = 3;
/// Seconds without anything to ask for, after which the station is dialled, and then every so often another member.
const STARVING_TICKS: u32 = 2;
/// Connections beyond the neighbours that a node keeps while it lacks frames.
const STRANGERS_MAX: usize = 4;

/// When a peer may be dialled again.
#[derive(Clone, Copy)]
pub(super) struct Backoff {
    pub failures: u32,
    pub until: Instant,
}

impl Service {
    fn charter(&self) -> Option<Charter> {
        let authority = self.site.as_ref().and_then(|site| self.documents.authority(site))?;
        Some(authority.charter().clone())
    }

    pub(super) fn is_station(&self) -> bool {
        self.charter().is_some_and(|charter| charter.station.node == self.documents.node())
    }

    /// The members that are this node's neighbours by the site's graph, as far as they can be reached.
    fn neighbours(&self, charter: &Charter) -> Vec<NodeId> {
        let own = self.documents.node();
        let inside = self.records.iter().filter(|record| charter.is_inside(record.addresses.bulk.ip()));
        let reachable = |node: &NodeId| {
            self.links.of_peer(*node).is_some()
                || self.backoffs.get(node).is_none_or(|backoff| backoff.failures < UNREACHABLE_AFTER)
        };
        let members: Vec<NodeId> = inside.map(|record| record.node).filter(reachable).collect();
        let seed = Hash::of(charter.site.to_string().as_bytes());
        neighbours_of(own, &members, &seed, BULK_NEIGHBOURS_MAX)
    }

    fn inside_links(&self) -> usize {
        self.links.iter().filter(|(_, link)| link.kind == LinkKind::Swarm(Place::Inside)).count()
    }

    /// Whether there is a place for a member that dialled.
    pub(super) fn takes_neighbour(&self, peer: NodeId) -> bool {
        self.inside_links() < BULK_NEIGHBOURS_ACCEPTED_MAX
            || self.charter().is_some_and(|charter| self.neighbours(&charter).contains(&peer))
    }

    /// Whom this node wants to be connected with: its neighbours while frames are missing, the origin under a lease.
    fn wanted_peers(&self) -> Vec<PeerRecord> {
        let Some(charter) = self.charter() else { return Vec::new() };
        let own = self.documents.node();
        let mut wanted = BTreeSet::new();
        if self.swarm.wants_frames() || self.keeps_neighbours {
            wanted.extend(self.neighbours(&charter));
            if self.inside_links() <= BULK_NEIGHBOURS_MAX {
                wanted.extend(self.suggested.iter().copied());
            }
            if self.starving >= STARVING_TICKS {
                wanted.insert(charter.station.node);
                // Every few seconds another one, in an order of its own for each node.
                let turn = self.starving / STARVING_TICKS;
                let place =
                    |record: &&PeerRecord| Hash::of(&[&own.0[..], &record.node.0, &turn.to_le_bytes()].concat());
                let other = |record: &&PeerRecord| record.node != own && charter.is_inside(record.addresses.bulk.ip());
                wanted.extend(self.records.iter().filter(other).min_by_key(place).map(|record| record.node));
            }
            wanted.remove(&own);
        }
        let inside =
            |record: &&PeerRecord| wanted.contains(&record.node) && charter.is_inside(record.addresses.bulk.ip());
        let mut peers: Vec<PeerRecord> = self.records.iter().filter(inside).cloned().collect();
        if self.swarm.needs_origin() && charter.headquarters.node != own && self.line_off_since.is_none() {
            let seat = &charter.headquarters;
            peers.push(PeerRecord { node: seat.node, addresses: seat.addresses });
        }
        peers
    }

    pub(super) fn dial_due(&mut self) {
        let now = Instant::now();
        let Some(site) = self.site.clone() else { return };
        for record in self.wanted_peers() {
            let node = record.node;
            let waits = self.backoffs.get(&node).is_some_and(|backoff| backoff.until > now);
            if waits || self.dialling.contains(&node) || self.links.of_peer(node).is_some() {
                continue;
            }
            if self.dialling.len() >= DIALS_AT_ONCE {
                return;
            }
            self.dialling.insert(node);
            let (documents, tls, inbox) = (self.documents.clone(), self.tls.clone(), self.inbox.clone());
            let site = site.clone();
            tokio::spawn(async move {
                let inbound = match dial(&documents, &tls, &site, node, record.addresses.bulk).await {
                    Ok(established) => Inbound::Established(Box::new(established)),
                    Err(why) => Inbound::DialFailed { peer: node, why },
                };
                let _ = inbox.send(inbound).await;
            });
        }
    }

    pub(super) fn dial_failed(&mut self, peer: NodeId, why: &LinkError) {
        tracing::debug!(%peer, %why, "dialling failed");
        self.dialling.remove(&peer);
        self.suggested.remove(&peer);
        self.back_off(peer);
    }

    pub(super) fn back_off(&mut self, peer: NodeId) {
        if self.backoffs.len() > BULK_CONNECTIONS_MAX {
            self.backoffs.clear();
        }
        let backoff = self.backoffs.entry(peer).or_insert(Backoff { failures: 0, until: Instant::now() });
        let wait = (BACKOFF_FIRST * (1 << backoff.failures.min(6))).min(BACKOFF_LAST);
        let until = backoff.until.max(Instant::now() + wait);
        *backoff = Backoff { failures: backoff.failures.saturating_add(1), until };
    }

    /// Who is connected with more than its neighbours leaves those that it dialled itself: all of them once it lacks
    /// nothing, else one a second.
    pub(super) fn drop_strangers(&mut self) {
        let Some(charter) = self.charter() else { return };
        let neighbours = self.neighbours(&charter);
        let lacks = self.swarm.wants_frames() || self.keeps_neighbours;
        let stranger = |(number, link): (u64, &super::links::Link)| {
            let inside = link.kind == LinkKind::Swarm(Place::Inside);
            (inside && link.dialled && !neighbours.contains(&link.peer)).then_some(number)
        };
        let mut strangers: Vec<u64> = self.links.iter().filter_map(stranger).collect();
        if lacks {
            let many = self.inside_links() > BULK_NEIGHBOURS_MAX + STRANGERS_MAX;
            strangers.truncate(usize::from(many));
        }
        strangers.into_iter().for_each(|number| self.cut(number));
    }
}
