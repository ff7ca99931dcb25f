//! Whom this node is connected with: a bounded neighbourhood that every member computes for itself, and exceptions.
//!
//! Members are neighbours by [`neighbours_of`]. Who lacks frames dials; who was asked by more than it serves closes. A
//! node to which its neighbours have nothing to give (a pack that few want) turns to the station, then to others.
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use branchline_protocol::{
    charter::Charter,
    ids::{Hash, NodeId},
    limits::{BULK_CONNECTIONS_MAX, BULK_NEIGHBOURS_ACCEPTED_MAX, BULK_NEIGHBOURS_MAX},
    refusal::{Refusal, RefusalKind},
    swarm::{NamedInput, Place, neighbours_of},
    wire::{bulk::BulkMessage, control::PeerRecord},
};
use tokio::{
    io::AsyncWriteExt,
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    connection::{Established, LinkError, LinkKind, judge},
    dialer::dial,
    framing::{read_message, write_message},
    links::{Inbound, Link},
    service::Service,
};
use crate::runtime::wall_time;

const DIALS_AT_ONCE: usize = 8;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_LAST: Duration = Duration::from_secs(10);
/// A member that could not be reached so often in a row is no neighbour until it comes by itself.
const UNREACHABLE_AFTER: u32 = 3;
/// Seconds without anything to ask for, after which the station is dialled, and then every so often another member.
const STARVING_TICKS: u32 = 2;
/// Connections beyond the neighbours that a node keeps while it lacks frames.
const STRANGERS_MAX: usize = 4;
/// How long a connection for which there is no place stays open, for its answer to arrive.
const FAREWELL: Duration = Duration::from_secs(2);

/// When a peer may be dialled again.
#[derive(Clone, Copy)]
pub(super) struct Backoff {
    pub failures: u32,
    pub until: Instant,
}

impl Service {
    /// Cuts whoever is no member any more: revoked, or of a site whose charter changed.
    pub(super) fn judge_again(&mut self) {
        let mut out = Vec::new();
        for (number, link) in self.links.iter_mut() {
            match judge(&self.documents, link.peer, &link.hello) {
                // Who needs a membership changes with the roles.
                Ok(admission) => link.ends_at = admission.membership_ends_at,
                Err(refusal) => out.push((number, refusal.reason)),
            }
        }
        for (number, why) in out {
            tracing::info!(number, why, "a peer is no member any more");
            self.cut(number);
        }
    }

    /// Cuts whose membership has ended; who has a new one comes again and shows it.
    pub(super) fn cut_ended(&mut self) {
        let wall = wall_time();
        let ended = self.links.iter().filter(|(_, link)| link.has_ended(wall)).map(|(number, _)| number);
        for number in ended.collect::<Vec<_>>() {
            tracing::info!(number, "the membership that a peer has shown has ended");
            self.cut(number);
        }
    }

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

    /// A neighbour with which there is nothing to exchange, and which is none by the site's graph: it makes room for one
    /// that may lack something. Where a switch lets hosts speak with the station only, all depend on its places.
    pub(super) fn spare_neighbour(&self) -> Option<u64> {
        let neighbours = self.neighbours(&self.charter()?);
        let spare = |link: &Link| {
            let inside = link.kind == LinkKind::Swarm(Place::Inside) && link.is_settled();
            inside && !neighbours.contains(&link.peer) && self.swarm.is_spare(link.peer)
        };
        self.links.iter().find(|(_, link)| spare(link)).map(|(number, _)| number)
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
        let origin = self.charter().map(|charter| charter.headquarters.node);
        for record in self.wanted_peers() {
            let node = record.node;
            let waits = self.backoffs.get(&node).is_some_and(|backoff| backoff.until > now);
            if waits || self.dialling.contains(&node) || self.links.of_peer(node).is_some() {
                continue;
            }
            // Under a lease the whole site waits for what only the origin has.
            if self.dialling.len() >= DIALS_AT_ONCE && Some(node) != origin {
                continue;
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

    /// A dial is over; who waited for its place is dialled now, and not with the next second.
    pub(super) fn dialled(&mut self, peer: NodeId) {
        let was_full = self.dialling.len() >= DIALS_AT_ONCE;
        if self.dialling.remove(&peer) && was_full {
            self.dial_due();
        }
    }

    pub(super) fn dial_failed(&mut self, peer: NodeId, why: &LinkError) {
        tracing::debug!(%peer, %why, "dialling failed");
        self.suggested.remove(&peer);
        self.back_off(peer);
        self.dialled(peer);
    }

    /// A neighbour has no place for this node: it is left alone for a while, and another member is asked instead.
    pub(super) fn turned_away(&mut self, number: u64, refusal: &Refusal) {
        let Some((peer, dialled)) = self.links.get(number).map(|link| (link.peer, link.dialled)) else { return };
        tracing::info!(%peer, why = %refusal, "a neighbour refuses this node");
        self.cut(number);
        self.back_off(peer);
        if let Some(backoff) = self.backoffs.get_mut(&peer) {
            backoff.until = backoff.until.max(Instant::now() + BACKOFF_LAST);
        }
        if dialled && refusal.kind == RefusalKind::Busy && self.suggested.len() < BULK_NEIGHBOURS_MAX {
            let other = self.charter().and_then(|charter| self.another_member(&charter, peer));
            self.suggested.extend(other);
            self.dial_due();
        }
    }

    /// A member inside the site that may be dialled, in an order of its own for each node and neighbour that is full.
    fn another_member(&self, charter: &Charter, full: NodeId) -> Option<NodeId> {
        let own = self.documents.node();
        let now = Instant::now();
        let place = |record: &&PeerRecord| Hash::of(&[own.0, record.node.0, full.0].concat());
        let free = |record: &&PeerRecord| {
            let waits = self.backoffs.get(&record.node).is_some_and(|backoff| backoff.until > now);
            let known = self.suggested.contains(&record.node) || self.links.of_peer(record.node).is_some();
            record.node != own && !waits && !known && charter.is_inside(record.addresses.bulk.ip())
        };
        self.records.iter().filter(free).min_by_key(place).map(|record| record.node)
    }

    /// A peer that came by itself may be dialled at once; but a ban outlasts that.
    pub(super) fn forget_failures_of(&mut self, peer: NodeId) {
        let now = Instant::now();
        self.backoffs.retain(|other, backoff| *other != peer || backoff.until > now);
    }

    /// So may one with which a connection stands: not one that closed it at once.
    pub(super) fn forget_failures(&mut self) {
        let now = Instant::now();
        let stands = |peer: &NodeId| self.links.of_peer(*peer).is_some_and(|(_, link)| link.is_settled());
        self.backoffs.retain(|peer, backoff| backoff.until > now || !stands(peer));
    }

    /// A connection has ended without this node's doing.
    pub(super) fn closed(&mut self, number: u64, why: &LinkError) {
        let Some((peer, short)) = self.links.get(number).map(|link| (link.peer, link.was_short())) else { return };
        let malformed = matches!(why, LinkError::TooLong(_) | LinkError::Codec(_));
        if malformed {
            tracing::warn!(%peer, %why, "a peer is cut off for a while");
            self.input(NamedInput::PeerMalformed { peer });
        } else {
            tracing::debug!(%peer, %why, "a bulk connection ended");
        }
        self.cut(number);
        if short || malformed {
            // Where it was short, very likely the peer has no place for one more neighbour: not again at once, and each time
            // later.
            self.back_off(peer);
        }
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
        let stranger = |(number, link): (u64, &Link)| {
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

/// Says that there is no place for one more connection, and closes it once the peer has closed too, or soon: closed with
/// words unread, the answer might be lost. Where as many are being told so as may be, it is closed without a word.
pub(super) fn turn_away(new: Established, farewells: &Arc<Semaphore>) {
    let Ok(place) = Arc::clone(farewells).try_acquire_owned() else { return };
    let mut stream = new.stream;
    tokio::spawn(timeout(FAREWELL, async move {
        let _place = place;
        let reason = format!(
            "this node serves as many neighbours as it may; ask another member, and this one again after {} seconds",
            BACKOFF_LAST.as_secs()
        );
        let refusal = BulkMessage::Refused(Refusal::new(RefusalKind::Busy, reason));
        if write_message(&mut stream, &refusal).await.is_ok() && stream.shutdown().await.is_ok() {
            while read_message(&mut stream).await.is_ok() {}
        }
    }));
}
