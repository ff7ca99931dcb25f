//! A small network of swarms in memory: latency, broken connections, corrupting, silent and dying neighbours, a lease
//! that changes hands.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::{Fence, NamedInput, NamedOutput, NamedSwarm, Place, SwarmSetup, Tuning, picker::PATIENCE};
use crate::{
    charter::{Lease, Signed},
    content::{Bitmap, Pack, build_pack, verify_frame},
    ids::{Epoch, NodeId, SiteName},
    machine::Machine,
    time::{Monotonic, Now, UnixSeconds},
    wire::bulk::BulkMessage,
};

mod topologies;

const ORIGIN: usize = 0;
const CHUNK_BYTES: usize = 1000;
const LEASED_BYTES_MAX: u64 = 8 * 1024;
const MILLISECOND: u64 = 1000;

#[derive(Clone, Copy, Default)]
struct Faults {
    corrupts: bool,
    silent: bool,
}

struct Node {
    swarm: NamedSwarm,
    /// The frame that has just come.
    held: Option<Vec<u8>>,
    stored: BTreeMap<u32, Vec<u8>>,
    alive: bool,
    faults: Faults,
    complete: bool,
    duplicates: u64,
}

enum Event {
    Input(usize, NamedInput),
    Deliver { link: u64, from: usize, to: usize, message: BulkMessage },
    Connect(usize, usize),
    Grant(usize),
    Kill(usize),
    Move(usize),
    Break(usize, usize),
}

struct World {
    now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Event>,
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), (u64, u64)>,
    fence: Fence,
    wan_free_at: u64,
    pack: Arc<Pack>,
    frames: Vec<Vec<u8>>,
    inlet: usize,
    sequence: u64,
    /// Every second node speaks version 1 only.
    mixed: bool,
    /// How long a frame takes on a node's uplink, and until when that is busy.
    frame_time: u64,
    uplinks: BTreeMap<usize, u64>,
    random: ChaCha8Rng,
}

fn id(node: usize) -> NodeId {
    NodeId([node as u8; 32])
}

fn site() -> SiteName {
    "store-17".parse().unwrap()
}

impl World {
    fn new(members: usize, frames: usize, seed: u64) -> Self {
        Self::connected(members, frames, seed, |_, _| true)
    }

    fn connected(members: usize, frames: usize, seed: u64, are_neighbours: impl Fn(usize, usize) -> bool) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut raw = vec![0; frames * CHUNK_BYTES - 1];
        random.fill_bytes(&mut raw);
        let mut bytes = Vec::new();
        let pack = Arc::new(build_pack("agent", &raw[..], CHUNK_BYTES, &mut bytes).unwrap());
        let cut = |index: u32| {
            let start = pack.frame_offset(index).unwrap() as usize;
            bytes[start..start + pack.frame_length(index) as usize].to_vec()
        };
        let frames = (0..pack.frames()).map(cut).collect();
        // Half of the worlds as nodes are, the others with few receive slots or many.
        let receive_slots = [None, Some(1), None, Some(2), None, Some(8)][(seed % 6) as usize];
        let tuning = Tuning { receive_slots, ..Tuning::default() };
        let node = |seed| Node {
            swarm: NamedSwarm::new(SwarmSetup { seed, leased_bytes_max: LEASED_BYTES_MAX, tuning }),
            held: None,
            stored: BTreeMap::new(),
            alive: true,
            faults: Faults::default(),
            complete: false,
            duplicates: 0,
        };
        let nodes = (0..=members).map(|index| node(seed ^ index as u64)).collect();
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            nodes,
            links: BTreeMap::new(),
            fence: Fence::default(),
            wan_free_at: 0,
            pack,
            frames,
            inlet: 1,
            sequence: 0,
            mixed: false,
            frame_time: 0,
            uplinks: BTreeMap::new(),
            random,
        };
        for a in 1..=members {
            let kept = Bitmap::new(world.pack.frames());
            world.at(
                0,
                Event::Input(a, NamedInput::Want { pack: Arc::clone(&world.pack), kept, raw: None, source: false }),
            );
            for b in (1..a).filter(|b| are_neighbours(a, *b)) {
                world.at(0, Event::Connect(a, b));
            }
            world.at(0, Event::Connect(a, ORIGIN));
        }
        world
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), event);
    }

    fn latency(&mut self) -> u64 {
        MILLISECOND + self.random.next_u64() % (5 * MILLISECOND)
    }

    fn clock(&self) -> Now {
        Now { monotonic: Monotonic(self.now), wall: UnixSeconds(self.now / 1_000_000) }
    }

    fn link(&self, a: usize, b: usize) -> Option<u64> {
        self.links.get(&(a.min(b), a.max(b))).map(|(link, _)| *link)
    }

    /// Delivers in order on each connection, with another latency each time.
    fn send(&mut self, from: usize, to: usize, message: BulkMessage, delay: u64) {
        let latency = self.latency();
        let now = self.now;
        let Some((link, free)) = self.links.get_mut(&(from.min(to), from.max(to))) else { return };
        let at = (now + delay + latency).max(*free + 1);
        *free = at;
        let link = *link;
        self.at(at - now, Event::Deliver { link, from, to, message });
    }

    fn connect(&mut self, a: usize, b: usize) {
        if !self.nodes[a].alive || !self.nodes[b].alive || self.link(a, b).is_some() {
            return;
        }
        self.order += 1;
        self.links.insert((a.min(b), a.max(b)), (self.order, self.now));
        let version = if self.mixed && (a.is_multiple_of(2) || b.is_multiple_of(2)) { 1 } else { 2 };
        for (node, peer) in [(a, b), (b, a)] {
            let place = if peer == ORIGIN { Place::Origin } else { Place::Inside };
            if node != ORIGIN {
                self.input(node, NamedInput::PeerJoined { peer: id(peer), place, version });
            }
        }
    }

    fn disconnect(&mut self, a: usize, b: usize, again: bool) {
        if self.links.remove(&(a.min(b), a.max(b))).is_none() {
            return;
        }
        for (node, peer) in [(a, b), (b, a)] {
            if node != ORIGIN && self.nodes[node].alive {
                self.input(node, NamedInput::PeerLeft { peer: id(peer) });
            }
        }
        if again {
            self.at(200 * MILLISECOND, Event::Connect(a, b));
        }
    }

    fn input(&mut self, node: usize, input: NamedInput) {
        let now = self.clock();
        self.nodes[node].swarm.handle(now, input);
        self.drain(node);
        self.nodes[node].duplicates += u64::from(self.nodes[node].held.take().is_some());
    }

    fn drain(&mut self, node: usize) {
        self.nodes[node].swarm.check_invariants();
        while let Some(output) = self.nodes[node].swarm.poll_output() {
            self.output(node, output.output);
        }
    }

    fn output(&mut self, node: usize, output: NamedOutput) {
        let number = |peer: NodeId| usize::from(peer.0[0]);
        match output {
            NamedOutput::Send { peer, message } => self.send(node, number(peer), message, 0),
            NamedOutput::Store { pack, index, .. } => {
                let bytes = self.nodes[node].held.take().expect("the frame that has just come");
                let good = verify_frame(self.pack.chunk(index).unwrap(), &bytes).is_ok();
                let input = if good {
                    self.nodes[node].stored.insert(index, bytes);
                    NamedInput::FrameStored { pack, index }
                } else {
                    NamedInput::FrameCorrupt { pack, index }
                };
                self.at(MILLISECOND, Event::Input(node, input));
            }
            NamedOutput::ServeFrame { peer, pack, index } => {
                if self.nodes[node].faults.silent {
                    return;
                }
                let mut bytes = self.nodes[node].stored[&index].clone();
                if self.nodes[node].faults.corrupts {
                    bytes[0] ^= 1;
                }
                let free_at = self.uplinks.entry(node).or_default();
                *free_at = (*free_at).max(self.now) + self.frame_time;
                let left = *free_at - self.now;
                self.send(node, number(peer), BulkMessage::Frame { pack, index, bytes }, left);
                self.at(left + MILLISECOND, Event::Input(node, NamedInput::FrameServed { peer, pack, index }));
            }
            NamedOutput::Sync { pack } => self.at(MILLISECOND, Event::Input(node, NamedInput::PackSynced { pack })),
            NamedOutput::Penalise { peer, .. } => self.disconnect(node, number(peer), false),
            NamedOutput::Disconnect { peer, .. } => self.disconnect(node, number(peer), true),
            NamedOutput::AskLease { .. } => self.at(100 * MILLISECOND, Event::Grant(node)),
            NamedOutput::Complete { wan_bytes, lan_bytes, .. } => {
                assert_eq!(wan_bytes + lan_bytes, self.pack.length());
                assert!(!std::mem::replace(&mut self.nodes[node].complete, true), "complete is said once");
            }
            NamedOutput::Meet { .. } => {}
        }
    }

    /// What the other living members hold, as the station collects it before a lease changes hands.
    fn held_by_others(&self, node: usize) -> Bitmap {
        let mut held = Bitmap::new(self.pack.frames());
        let others = self.nodes.iter().enumerate().skip(1).filter(|(other, node_state)| {
            *other != node && node_state.alive && !node_state.faults.silent && !node_state.faults.corrupts
        });
        others.filter_map(|(_, other)| other.swarm.have(self.pack.id())).for_each(|have| held.union(have));
        held
    }

    fn grant(&mut self, node: usize) {
        if node != self.inlet || !self.nodes[node].alive {
            return;
        }
        self.sequence += 1;
        let epoch = Epoch { charter_version: 1, term: 0 };
        let (holder, pack) = (id(node), self.pack.id());
        let lease = Lease { site: site(), epoch, sequence: self.sequence, holder, pack, life_milliseconds: 10_000 };
        let signed = Signed::sign(&lease, &SigningKey::from_bytes(&[1; 32]));
        let held = self.held_by_others(node).to_bytes();
        self.input(node, NamedInput::LeaseGranted { signed, lease, held });
    }

    fn at_origin(&mut self, from: usize, message: BulkMessage) {
        let now = Monotonic(self.now);
        match message {
            BulkMessage::ShowLease(signed) => {
                let lease = signed.verify(signed.signer()).unwrap();
                let admission = self.fence.admit(now, id(from), &lease).unwrap();
                if let Some(cut) = admission.cut {
                    self.disconnect(usize::from(cut.0[0]), ORIGIN, true);
                }
            }
            BulkMessage::Request { pack, index } => match self.fence.check(now, id(from), &site(), pack) {
                Ok(()) => {
                    let bytes = self.frames[index as usize].clone();
                    self.fence.count(&site(), pack, bytes.len() as u64);
                    self.wan_free_at = self.wan_free_at.max(self.now) + 2 * MILLISECOND;
                    let delay = self.wan_free_at - self.now;
                    self.send(ORIGIN, from, BulkMessage::Frame { pack, index, bytes }, delay);
                }
                Err(refusal) => {
                    self.send(ORIGIN, from, BulkMessage::Refuse { pack, index: Some(index), refusal }, 0);
                }
            },
            _ => {}
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Input(node, input) if self.nodes[node].alive => self.input(node, input),
            Event::Input(..) => {}
            Event::Deliver { link, from, to, message } => {
                if self.link(from, to) != Some(link) || !self.nodes[to].alive {
                } else if to == ORIGIN {
                    self.at_origin(from, message);
                } else {
                    let (input, bytes) = NamedInput::of_message(id(from), message);
                    self.nodes[to].held = bytes;
                    self.input(to, input);
                }
            }
            Event::Connect(a, b) => self.connect(a, b),
            Event::Grant(node) => self.grant(node),
            Event::Break(a, b) => self.disconnect(a, b, true),
            Event::Move(to) => {
                let pack = self.pack.id();
                self.input(self.inlet, NamedInput::LeaseRevoked { pack });
                self.inlet = to;
                // A planned move waits until what is under way from the origin has come in.
                self.at(2_000 * MILLISECOND, Event::Grant(to));
            }
            Event::Kill(node) => {
                self.nodes[node].alive = false;
                for other in 0..self.nodes.len() {
                    self.disconnect(node, other, false);
                }
                if node == self.inlet {
                    self.inlet = (1..self.nodes.len()).find(|other| self.nodes[*other].alive).unwrap();
                    self.at(500 * MILLISECOND, Event::Grant(self.inlet));
                }
            }
        }
    }

    fn unfinished(&self) -> BTreeSet<usize> {
        let members = (1..self.nodes.len()).filter(|node| self.nodes[*node].alive);
        members.filter(|node| !self.nodes[*node].complete).collect()
    }

    /// Runs until all living members are complete; panics where that takes more than ten minutes.
    fn run(&mut self) {
        while !self.unfinished().is_empty() {
            assert!(self.now < 600_000 * MILLISECOND, "unfinished after ten minutes: {:?}", self.unfinished());
            let timeout = |node: usize| self.nodes[node].swarm.poll_timeout().map(|due| (due.at.0, node));
            let living = (1..self.nodes.len()).filter(|node| self.nodes[*node].alive);
            let timer = living.filter_map(timeout).min();
            let next = self.queue.keys().next().copied();
            match (timer, next) {
                (Some((at, node)), next) if next.is_none_or(|(event_at, _)| at < event_at) => {
                    assert!(at >= self.now || at + 1 > self.now, "time runs backwards");
                    self.now = self.now.max(at);
                    let now = self.clock();
                    self.nodes[node].swarm.handle_timeout(now);
                    let again = self.nodes[node].swarm.poll_timeout();
                    assert!(again.is_none_or(|due| due.at.0 > self.now), "a deadline that does not pass: {again:?}");
                    self.drain(node);
                }
                (_, Some(key)) => {
                    self.now = key.0;
                    let event = self.queue.remove(&key).unwrap();
                    self.event(event);
                }
                _ => panic!("nothing will ever happen again; unfinished: {:?}", self.unfinished()),
            }
        }
    }

    fn wan_bytes(&self) -> u64 {
        self.fence.meter(&site(), self.pack.id()).bytes
    }

    fn assert_all_hold_the_image(&self) {
        for node in self.nodes.iter().skip(1).filter(|node| node.alive) {
            let held: Vec<_> = node.stored.values().cloned().collect();
            assert_eq!(held, self.frames, "what is stored is not the pack");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::property_tests::cases(24), ..ProptestConfig::default() })]

    #[test]
    fn every_frame_crosses_the_wan_once_when_all_start_together(members in 1usize..8, frames in 1usize..60, seed: u64) {
        let mut world = World::new(members, frames, seed);
        world.run();
        world.assert_all_hold_the_image();
        prop_assert_eq!(world.wan_bytes(), world.pack.length());
        prop_assert_eq!(world.nodes.iter().map(|node| node.duplicates).sum::<u64>(), 0);
        // Recorded failure: the inlet never heard that others hold its frames, and went on only when it lost patience.
        prop_assert!(world.now < PATIENCE, "the inlet waited: {} us", world.now);
    }

    #[test]
    fn nodes_of_version_1_are_served_with_the_others(members in 2usize..8, frames in 1usize..60, seed: u64) {
        let mut world = World::new(members, frames, seed);
        world.mixed = true;
        world.run();
        world.assert_all_hold_the_image();
        prop_assert_eq!(world.wan_bytes(), world.pack.length());
    }

    #[test]
    fn broken_connections_inside_the_site_cost_no_wan_byte(seed: u64, breaks in prop::collection::vec((1usize..6, 1usize..6, 0u64..400), 1..30)) {
        let mut world = World::new(5, 50, seed);
        for (a, b, at) in breaks {
            if a != b {
                world.at(at * MILLISECOND, Event::Break(a, b));
            }
        }
        world.run();
        world.assert_all_hold_the_image();
        prop_assert_eq!(world.wan_bytes(), world.pack.length());
    }

    #[test]
    fn a_lost_inlet_costs_at_most_what_only_it_held(seed: u64, deaths in prop::collection::vec(110u64..400, 1..3)) {
        let mut world = World::new(6, 60, seed);
        let lost = deaths.len() as u64;
        for (node, at) in (1..).zip(&deaths) {
            world.at(at * MILLISECOND * node as u64, Event::Kill(node));
        }
        world.run();
        world.assert_all_hold_the_image();
        let bound = world.pack.length() + lost * LEASED_BYTES_MAX;
        prop_assert!(world.wan_bytes() <= bound, "{} > {bound}", world.wan_bytes());
    }

    #[test]
    fn a_planned_change_of_the_inlet_costs_nothing(seed: u64, at in 100u64..300) {
        let mut world = World::new(5, 60, seed);
        world.at(at * MILLISECOND, Event::Move(3));
        world.run();
        world.assert_all_hold_the_image();
        prop_assert_eq!(world.wan_bytes(), world.pack.length());
    }

    #[test]
    fn corrupting_and_silent_neighbours_slow_and_never_stop_the_others(seed: u64, corrupting in 2usize..6, silent in 2usize..6) {
        let mut world = World::new(6, 40, seed);
        world.nodes[corrupting].faults.corrupts = true;
        world.nodes[silent].faults.silent = true;
        world.run();
        world.assert_all_hold_the_image();
        prop_assert_eq!(world.wan_bytes(), world.pack.length());
    }
}

#[test]
fn a_site_of_one_node_is_not_held_back_by_the_bound_on_unshared_bytes() {
    let mut world = World::new(1, 200, 7);
    world.run();
    assert!(world.pack.length() > LEASED_BYTES_MAX * 10);
    assert!(world.now < 5_000 * MILLISECOND, "took {} microseconds", world.now);
}

/// Recorded failure: an inlet never heard that its neighbours held what it had given them, and stood still for 30 s
/// after each B bytes.
#[test]
fn an_inlet_goes_on_as_soon_as_its_neighbours_hold_what_it_brought() {
    let mut world = World::new(4, 200, 7);
    world.run();
    assert!(world.pack.length() > LEASED_BYTES_MAX * 10);
    assert!(world.now < 10_000 * MILLISECOND, "took {} microseconds", world.now);
}
