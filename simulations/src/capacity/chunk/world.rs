//! Nodes, events in time, and what the machines want done.
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use branchline_protocol::{
    content::Bitmap,
    limits::LEASED_BYTES_DEFAULT,
    machine::Machine,
    swarm::{PackKey, PeerKey, Swarm, SwarmInput, SwarmOutput, SwarmSetup, Word},
    time::{Monotonic, Now, UnixSeconds},
};

use super::{
    super::{
        local::{Card, LAN_LATENCY, LocalSite, Spread},
        units::{NEVER, SECOND, Time, duration, volume},
    },
    Content,
    links::Link,
    slots::Slots,
};

/// The only payload.
pub(super) const PACK: PackKey = PackKey(0);
/// The station; hosts follow.
pub(super) const STATION: u32 = 0;
/// Headquarters, as a node's neighbour.
pub(super) const ORIGIN: u32 = u32::MAX;
/// Beyond everything that is planned, so long is waited for the last host before the spread counts as stuck.
const STUCK: Time = 30 * 86_400 * SECOND;

/// What is planned for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A host is there for the first time.
    Arrive(u32),
    /// A host goes; its absences so far.
    Leave(u32, u32),
    /// A host is back.
    Return(u32, u32),
    /// A host has lingered long enough.
    Retire(u32),
    /// The station is gone for good.
    StationFails,
    /// The station may fetch.
    Begin,
    /// A lease reaches a node.
    Grant(u32),
    /// Two nodes connect again.
    Relink(u32, u32),
    /// A card that has more to send is free.
    CardFree(u32),
    /// A frame has reached a node, over the link that it knows by this slot.
    Carried { node: u32, link: u32, slot: u16, index: u32 },
    /// A machine's deadline.
    Wake(u32),
}

/// A message under way.
pub(super) struct Letter {
    pub at: Time,
    pub order: u64,
    pub to: u32,
    pub slot: u16,
    pub link: u32,
    pub word: Word,
}

/// One node.
pub(super) struct Node {
    pub swarm: Swarm,
    pub card: Card,
    pub present: bool,
    /// By the keys that the machine knows its neighbours by.
    pub links: Vec<Option<Link>>,
    pub degree: u32,
    /// Frames that wait for the card, in order: key, link, frame.
    pub uploads: VecDeque<(u16, u32, u32)>,
    /// When the card has sent what it sends now.
    pub sends_until: Time,
    /// How long a whole frame takes to leave this node, and to reach it.
    pub frame_up: Time,
    pub frame_down: Time,
    /// When what is on its way to this node has been received.
    pub receives_until: Time,
    /// The next deadline that is planned.
    pub wake: Time,
    /// Whether the frame that came last was wanted.
    pub took: bool,
}

pub(super) struct World<'a> {
    pub site: &'a LocalSite,
    pub content: &'a Content,
    pub now: Time,
    pub order: u64,
    pub events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    /// All messages take the same time, so that they stay in order.
    pub letters: VecDeque<Letter>,
    pub nodes: Vec<Node>,
    pub links_made: u32,
    pub choices: u64,
    /// Who fetches over the line, and from when on another may.
    pub inlet: Option<u32>,
    pub next_inlet_from: Time,
    pub leases: u64,
    pub line_free: Time,
    pub medium_free: Time,
    pub incomplete: usize,
    pub spread: Spread,
}

impl<'a> World<'a> {
    pub fn new(site: &'a LocalSite, content: &'a Content) -> Self {
        let cards = std::iter::once(site.station).chain(site.hosts.iter().map(|host| host.card));
        let slots = Slots::new(site);
        let frame = volume(site.frame_bytes);
        let node = |(number, card): (u64, Card)| Node {
            swarm: Swarm::new(SwarmSetup {
                seed: site.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                leased_bytes_max: LEASED_BYTES_DEFAULT,
                tuning: content.tuning.unwrap_or_else(|| slots.tuning(content.rule, card)),
            }),
            card,
            present: false,
            links: Vec::new(),
            degree: 0,
            uploads: VecDeque::new(),
            sends_until: 0,
            frame_up: duration(frame, card.up),
            frame_down: duration(frame, card.down),
            receives_until: 0,
            wake: NEVER,
            took: false,
        };
        Self {
            site,
            content,
            now: 0,
            order: 0,
            events: BinaryHeap::new(),
            letters: VecDeque::new(),
            nodes: (0..).zip(cards).map(node).collect(),
            links_made: 0,
            choices: 0,
            inlet: Some(STATION),
            next_inlet_from: NEVER,
            leases: 0,
            line_free: 0,
            medium_free: 0,
            incomplete: site.hosts.iter().filter(|host| host.arrives != NEVER).count(),
            spread: Spread { ready: vec![NEVER; site.hosts.len()], fetched: NEVER, ..Spread::default() },
        }
    }

    /// Runs until every host that ever comes has everything.
    pub fn run(mut self) -> Spread {
        self.plan_all();
        let stuck = self.stuck_at();
        while self.incomplete > 0 {
            let letter = self.letters.front().map_or((NEVER, u64::MAX), |letter| (letter.at, letter.order));
            let event = self.events.peek().map_or((NEVER, u64::MAX), |Reverse((at, order, _))| (*at, *order));
            self.now = letter.0.min(event.0);
            if self.now >= stuck {
                break;
            }
            if letter < event {
                self.deliver();
            } else if let Some(Reverse((_, _, event))) = self.events.pop() {
                self.happens(event);
            }
        }
        self.spread
    }

    /// Puts everything that the site foresees on the calendar, and the station and who comes with the first in place.
    fn plan_all(&mut self) {
        let first = self.site.hosts.iter().map(|host| host.arrives).min().unwrap_or(NEVER);
        if first == NEVER {
            return;
        }
        self.now = first;
        if self.site.prestaged {
            self.spread.fetched = first;
        }
        self.found_site(first);
        for (host, of) in (1..).zip(&self.site.hosts).filter(|(_, of)| of.arrives != NEVER) {
            if of.arrives > first {
                self.plan(of.arrives, Event::Arrive(host));
            }
            self.plan_absence(host, 0);
        }
        if let Some((fails, _)) = self.site.outage {
            self.plan(fails.max(first), Event::StationFails);
        }
        if !self.site.prestaged && self.site.line.began != NEVER {
            let asks = self.site.line.began.saturating_sub(2 * self.site.latency);
            self.plan(asks.max(first), Event::Begin);
        }
    }

    pub fn plan_absence(&mut self, host: u32, turn: u32) {
        let of = &self.site.hosts[host as usize - 1];
        if let Some(absence) = of.absences.get(turn as usize) {
            let leaves = of.arrives.saturating_add(absence.leaves);
            self.plan(leaves, Event::Leave(host, turn));
        }
    }

    fn stuck_at(&self) -> Time {
        let arrivals = self.site.hosts.iter().map(|host| host.arrives).filter(|at| *at != NEVER);
        let line = Some(self.site.line.done).filter(|at| *at != NEVER);
        let last = arrivals.chain(line).chain(self.site.outage.map(|(_, over)| over)).max().unwrap_or(0);
        last.saturating_add(STUCK).min(NEVER - 1)
    }

    pub fn plan(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Carried { node, link, slot, index } => self.carried(node, link, slot, index),
            Event::CardFree(node) => self.send_next(node),
            Event::Wake(node) => self.wakes(node),
            Event::Arrive(host) => self.arrives(host),
            Event::Leave(host, turn) => self.leaves(host, turn),
            Event::Return(host, turn) => self.returns(host, turn),
            Event::Retire(host) => self.retires(host),
            Event::StationFails => self.station_fails(),
            Event::Begin if self.nodes[STATION as usize].present => self.grant(STATION),
            // The station is gone: a host gets the lease once that may pass on.
            Event::Begin => {}
            Event::Grant(node) => self.granted(node),
            Event::Relink(a, b) => self.link(a, b),
        }
    }

    fn deliver(&mut self) {
        let Some(Letter { to, slot, link, word, .. }) = self.letters.pop_front() else { return };
        if self.has_link(to, slot, link) {
            self.input(to, SwarmInput::Said { peer: PeerKey(slot), pack: PACK, word });
        }
    }

    fn clock(&self) -> Now {
        Now { monotonic: Monotonic(self.now / 1000), wall: UnixSeconds(0) }
    }

    /// Has a machine decide, and carries out what it wants.
    pub fn input(&mut self, node: u32, input: SwarmInput) {
        self.spread.inputs += 1;
        let clock = self.clock();
        self.nodes[node as usize].swarm.handle(clock, input);
        self.carry_out(node);
    }

    fn wakes(&mut self, node: u32) {
        let clock = self.clock();
        let of = &mut self.nodes[node as usize];
        if of.wake != self.now {
            return;
        }
        of.wake = NEVER;
        if !of.present {
            return;
        }
        if of.swarm.poll_timeout().is_some_and(|deadline| deadline.at <= clock.monotonic) {
            self.spread.inputs += 1;
            of.swarm.handle_timeout(clock);
        }
        self.carry_out(node);
    }

    fn carry_out(&mut self, node: u32) {
        while let Some(output) = self.nodes[node as usize].swarm.poll_output() {
            self.wanted(node, output.output);
        }
        let of = &mut self.nodes[node as usize];
        let deadline = of.swarm.poll_timeout().map_or(NEVER, |deadline| deadline.at.0.saturating_mul(1000));
        let at = deadline.max(self.now);
        if at < of.wake && of.present {
            of.wake = at;
            self.plan(at, Event::Wake(node));
        }
    }

    fn wanted(&mut self, node: u32, output: SwarmOutput) {
        match output {
            SwarmOutput::Say { peer, word, .. } => self.say(node, peer, word),
            SwarmOutput::ServeFrame { peer, index, .. } => self.serve(node, peer, index),
            SwarmOutput::Store { pack, index, .. } => {
                self.nodes[node as usize].took = true;
                self.spread.inputs += 1;
                let clock = self.clock();
                self.nodes[node as usize].swarm.handle(clock, SwarmInput::FrameStored { pack, index });
            }
            SwarmOutput::Sync { pack } => {
                self.spread.inputs += 1;
                let clock = self.clock();
                self.nodes[node as usize].swarm.handle(clock, SwarmInput::PackSynced { pack });
            }
            SwarmOutput::Complete { .. } => self.completes(node),
            SwarmOutput::AskLease { .. } => self.asks_lease(node),
            SwarmOutput::Disconnect { peer, .. } | SwarmOutput::Penalise { peer, .. } => self.cut(node, peer),
            // This world's origin lets the inlet through without looking.
            SwarmOutput::ShowLease { .. } => {}
        }
    }

    fn completes(&mut self, node: u32) {
        let Some(host) = (node as usize).checked_sub(1) else { return };
        if self.spread.ready[host] != NEVER {
            return;
        }
        self.spread.ready[host] = self.now;
        self.incomplete -= 1;
        if let Some(lingers) = self.site.lingers {
            self.plan(self.now.saturating_add(lingers), Event::Retire(node));
        }
    }

    fn asks_lease(&mut self, node: u32) {
        // Whose place at headquarters has not come asks again.
        let asks = self.site.line.began.saturating_sub(2 * self.site.latency);
        let free = self.now >= self.next_inlet_from.max(asks);
        if self.inlet == Some(node) || (free && node != STATION) {
            self.grant(node);
        }
    }

    /// Makes a node the inlet; the lease is on its way.
    fn grant(&mut self, node: u32) {
        self.inlet = Some(node);
        self.next_inlet_from = NEVER;
        self.plan(self.now + 2 * LAN_LATENCY, Event::Grant(node));
    }

    fn granted(&mut self, node: u32) {
        if self.inlet != Some(node) || !self.nodes[node as usize].present {
            return;
        }
        self.leases += 1;
        self.link_origin(node);
        let lease = self.content.grant(self.leases, self.held_by_others(node));
        self.input(node, SwarmInput::LeaseGranted { pack: PACK, lease });
    }

    /// What other nodes hold, where the inlet is new: the station collects it before it gives the lease.
    fn held_by_others(&self, node: u32) -> Vec<u8> {
        if node == STATION {
            return Vec::new();
        }
        let mut held = Bitmap::new(self.site.frames);
        let others = (0..).zip(&self.nodes).filter(|(other, of)| *other != node && of.present);
        others.filter_map(|(_, of)| of.swarm.have(PACK)).for_each(|have| held.union(have));
        held.to_bytes()
    }
}
