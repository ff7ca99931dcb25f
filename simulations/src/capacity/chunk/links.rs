//! Who is connected with whom; hosts that come and go.
use std::sync::Arc;

use branchline_protocol::{
    content::Bitmap,
    ids::{Hash, NodeId},
    limits::BULK_CONNECTIONS_MAX,
    swarm::{PeerKey, Place, SwarmInput, WantedPack, neighbours},
};

use super::{
    super::{
        local::{NEIGHBOURS_MAX, NEIGHBOURS_MIN},
        quantity::Neighbours,
        units::{NEVER, SECOND, Time},
    },
    LEASE_LIFE_MILLISECONDS,
    world::{Event, ORIGIN, PACK, STATION, World},
};

/// After which time two nodes connect again, where one had cut the connection.
const RECONNECT: Time = SECOND;

/// A connection, as one end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub node: u32,
    /// The key by which the other end knows this one.
    pub slot: u16,
    /// Never used twice, so that what is under way when a connection breaks reaches nobody.
    pub number: u32,
}

impl World<'_> {
    fn id(&self, node: u32) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.site.seed.to_le_bytes());
        id[8..12].copy_from_slice(&node.to_le_bytes());
        NodeId(id)
    }

    fn degree(&self) -> usize {
        match self.site.neighbours {
            Neighbours::All => NEIGHBOURS_MAX as usize,
            Neighbours::Number(number) => number.clamp(NEIGHBOURS_MIN, NEIGHBOURS_MAX) as usize,
        }
    }

    /// The station and the hosts that come first, in the graph that the product's nodes compute.
    pub fn found_site(&mut self, first: Time) {
        let founders: Vec<u32> = std::iter::once(STATION)
            .chain((1..).zip(&self.site.hosts).filter(|(_, host)| host.arrives == first).map(|(host, _)| host))
            .collect();
        for node in &founders {
            self.enter(*node);
        }
        let ids: Vec<NodeId> = founders.iter().map(|node| self.id(*node)).collect();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.site.seed.to_le_bytes());
        let graph = neighbours(&ids, &Hash(seed), self.degree());
        for (own, others) in graph.iter().enumerate() {
            for other in others.iter().filter(|other| **other as usize > own) {
                self.link(founders[own], founders[*other as usize]);
            }
        }
        for node in founders {
            self.seek_neighbours(node, NEIGHBOURS_MIN);
        }
    }

    /// A node is there and wants the payload; without neighbours yet.
    fn enter(&mut self, node: u32) {
        let new = self.nodes[node as usize].swarm.have(PACK).is_none();
        self.nodes[node as usize].present = true;
        if !new {
            return;
        }
        let frames = self.site.frames;
        let source = node == STATION;
        let kept = if source && self.site.prestaged { Bitmap::full(frames) } else { Bitmap::new(frames) };
        let manifest = Arc::clone(&self.content.pack);
        let wanted = Box::new(WantedPack { manifest, kept, raw: None, source });
        self.input(node, SwarmInput::Want { pack: PACK, wanted });
    }

    pub fn has_link(&self, node: u32, slot: u16, number: u32) -> bool {
        self.link_of(node, PeerKey(slot)).is_some_and(|link| link.number == number)
    }

    pub fn link_of(&self, node: u32, peer: PeerKey) -> Option<Link> {
        self.nodes[node as usize].links.get(usize::from(peer.0)).copied().flatten()
    }

    fn free_slot(&self, node: u32) -> u16 {
        let links = &self.nodes[node as usize].links;
        links.iter().position(Option::is_none).unwrap_or(links.len()) as u16
    }

    fn put_link(&mut self, node: u32, slot: u16, link: Link) {
        let of = &mut self.nodes[node as usize];
        if of.links.len() <= usize::from(slot) {
            of.links.resize(usize::from(slot) + 1, None);
        }
        of.links[usize::from(slot)] = Some(link);
        of.degree += 1;
    }

    fn are_linked(&self, a: u32, b: u32) -> bool {
        self.nodes[a as usize].links.iter().flatten().any(|link| link.node == b)
    }

    /// Connects two nodes, if both are there and not connected.
    pub fn link(&mut self, a: u32, b: u32) {
        if b == ORIGIN {
            return self.link_origin(a);
        }
        let both = self.nodes[a as usize].present && self.nodes[b as usize].present;
        let full = |node: u32| self.nodes[node as usize].degree + 2 > BULK_CONNECTIONS_MAX as u32;
        if a == b || !both || full(a) || full(b) || self.are_linked(a, b) {
            return;
        }
        let (of_a, of_b) = (self.free_slot(a), self.free_slot(b));
        self.links_made += 1;
        let number = self.links_made;
        self.put_link(a, of_a, Link { node: b, slot: of_b, number });
        self.put_link(b, of_b, Link { node: a, slot: of_a, number });
        self.join(a, of_a, b);
        self.join(b, of_b, a);
    }

    fn join(&mut self, node: u32, slot: u16, other: u32) {
        let place = if other == ORIGIN { Place::Origin } else { Place::Inside };
        let input = SwarmInput::PeerJoined { peer: PeerKey(slot), node: self.id(other), place, takes_turns: true };
        self.input(node, input);
    }

    /// Connects the inlet with headquarters.
    pub fn link_origin(&mut self, node: u32) {
        if self.inlet != Some(node) || self.are_linked(node, ORIGIN) {
            return;
        }
        let slot = self.free_slot(node);
        self.links_made += 1;
        let number = self.links_made;
        self.put_link(node, slot, Link { node: ORIGIN, slot: 0, number });
        // What is asked for first comes a round trip later.
        self.line_free = self.line_free.max(self.now.saturating_add(2 * self.site.latency));
        self.join(node, slot, ORIGIN);
    }

    /// Breaks a connection; both ends notice.
    fn unlink(&mut self, node: u32, slot: u16) {
        let of = &mut self.nodes[node as usize];
        let Some(link) = of.links.get_mut(usize::from(slot)).and_then(Option::take) else { return };
        of.degree -= 1;
        self.input(node, SwarmInput::PeerLeft { peer: PeerKey(slot) });
        if link.node == ORIGIN {
            // What the origin was about to send is not sent.
            self.line_free = self.now;
            return;
        }
        let other = &mut self.nodes[link.node as usize];
        other.links[usize::from(link.slot)] = None;
        other.degree -= 1;
        self.input(link.node, SwarmInput::PeerLeft { peer: PeerKey(link.slot) });
    }

    /// A machine has had enough of a neighbour; they may meet again.
    pub fn cut(&mut self, node: u32, peer: PeerKey) {
        if let Some(link) = self.link_of(node, peer) {
            self.unlink(node, peer.0);
            self.plan(self.now + RECONNECT, Event::Relink(node, link.node));
        }
    }

    /// Connects a node with others until it has `wanted` neighbours, as far as there are as many.
    fn seek_neighbours(&mut self, node: u32, wanted: u32) {
        let count = self.nodes.len() as u64;
        let mut tries = 4 * count;
        while self.nodes[node as usize].present && self.nodes[node as usize].degree < wanted && tries > 0 {
            self.choices += 1;
            tries -= 1;
            let draw = super::super::random::SiteRandom::new(self.site.seed, 0, 0);
            let choice = draw.draw(super::super::random::Purpose::Neighbours, self.choices, 0).below(count as usize);
            self.link(node, choice as u32);
        }
        // Where nearly everybody is gone chance may miss those that are left.
        for other in 0..self.nodes.len() as u32 {
            if !self.nodes[node as usize].present || self.nodes[node as usize].degree >= wanted {
                return;
            }
            self.link(node, other);
        }
    }

    pub fn arrives(&mut self, host: u32) {
        self.enter(host);
        // A connection counts for both ends: half as many new ones keep the mean.
        let wanted = match self.site.neighbours {
            Neighbours::All => {
                (0..self.nodes.len() as u32).for_each(|other| self.link(host, other));
                NEIGHBOURS_MIN
            }
            Neighbours::Number(number) => number.div_ceil(2).max(NEIGHBOURS_MIN),
        };
        self.seek_neighbours(host, wanted);
    }

    pub fn leaves(&mut self, host: u32, turn: u32) {
        let of = &self.site.hosts[host as usize - 1];
        if let Some(absence) = of.absences.get(turn as usize) {
            self.goes(host);
            if absence.returns == NEVER {
                return self.gives_up(host);
            }
            self.plan(of.arrives.saturating_add(absence.returns), Event::Return(host, turn));
        }
    }

    pub fn returns(&mut self, host: u32, turn: u32) {
        self.arrives(host);
        self.plan_absence(host, turn + 1);
    }

    /// A host is gone for good: nobody waits for it.
    fn gives_up(&mut self, host: u32) {
        self.incomplete -= usize::from(self.spread.ready[host as usize - 1] == NEVER);
    }

    pub fn retires(&mut self, host: u32) {
        self.goes(host);
    }

    pub fn station_fails(&mut self) {
        self.goes(STATION);
        self.inlet = None;
        self.next_inlet_from = self.site.outage.map_or(NEVER, |(_, over)| over);
    }

    /// A node is gone, without a word.
    fn goes(&mut self, node: u32) {
        let of = &mut self.nodes[node as usize];
        of.uploads.clear();
        (of.sends_until, of.receives_until) = (self.now, self.now);
        let others: Vec<(u16, u32)> =
            (0..).zip(&of.links).filter_map(|(slot, link)| link.map(|link| (slot, link.node))).collect();
        for (slot, _) in &others {
            self.unlink(node, *slot);
        }
        self.nodes[node as usize].present = false;
        if self.inlet == Some(node) && node != STATION {
            self.inlet = None;
            self.next_inlet_from = self.now.saturating_add(LEASE_LIFE_MILLISECONDS * 1_000_000);
        }
        for (_, other) in others.into_iter().filter(|(_, other)| *other != ORIGIN) {
            self.seek_neighbours(other, NEIGHBOURS_MIN);
        }
    }
}
