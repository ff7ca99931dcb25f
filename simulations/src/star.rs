//! One pack, one seed and many hosts on a switch: the smallest world for the swarm machine.
//!
//! Each uplink carries one frame after the other, downlinks and the switch do not limit, messages take a fixed latency.
//! That is the model of the closed form M + floor(log2 N) (Mundinger, Weber and Weiss 2008), so the machine can be held
//! against it, and so that inputs can be recorded and fed again (`examples/swarm_inputs.rs`). `capacity::chunk` is the world with
//! receivers that limit, a line, and hosts that come and go.
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use branchline_protocol::{
    content::{Bitmap, ChunkEntry, Manifest, ManifestError, OriginalFile, PACK_FORMAT, Pack},
    ids::{Hash, NodeId},
    limits::LEASED_BYTES_DEFAULT,
    machine::Machine,
    swarm::{PackKey, PeerKey, Place, Swarm, SwarmInput, SwarmOutput, SwarmSetup, Tuning, WantedPack, neighbours},
    time::{Monotonic, Now, UnixSeconds},
};

/// What a star is made of.
#[derive(Clone, Debug)]
pub struct StarScenario {
    /// Fixes every choice.
    pub seed: u64,
    /// Hosts beside the seed.
    pub hosts: usize,
    /// Frames of the pack.
    pub frames: u32,
    /// Bytes of a frame.
    pub frame_bytes: u32,
    /// How long one frame takes on an uplink, in microseconds.
    pub frame_microseconds: u64,
    /// Neighbours of each node; as many as there are nodes for a full view.
    pub degree: usize,
    /// How long a message takes, in microseconds.
    pub latency_microseconds: u64,
    /// The machine's figures.
    pub tuning: Tuning,
}

impl StarScenario {
    /// Equal uplinks on which a frame takes 10 ms, one frame at a time, and messages that take 10 microseconds.
    pub fn equal(seed: u64, hosts: usize, frames: u32, degree: usize) -> Self {
        let tuning = Tuning { upload_slots: 1, push_slots: 1, ..Tuning::default() };
        let (frame_bytes, frame_microseconds) = (128 << 10, 10_000);
        Self { seed, hosts, frames, frame_bytes, frame_microseconds, degree, latency_microseconds: 10, tuning }
    }

    /// The fewest rounds in which any scheme is done where uplinks are equal: M + floor(log2 N).
    pub fn bound_rounds(&self) -> u64 {
        u64::from(self.frames) + u64::from(self.hosts.max(1).ilog2())
    }
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StarReport {
    /// When each host had everything, in microseconds.
    pub done_microseconds: Vec<u64>,
    /// Inputs of all machines.
    pub inputs: u64,
    /// Frames that the seed sent.
    pub seed_frames: u64,
    /// Frames that came to who had them.
    pub duplicates: u64,
}

impl StarReport {
    /// When the last host had everything, in microseconds.
    pub fn makespan_microseconds(&self) -> u64 {
        self.done_microseconds.iter().copied().max().unwrap_or(0)
    }
}

/// One input of one machine, as it happened.
pub type Recorded = (u32, Now, SwarmInput);

#[derive(Clone, Debug)]
enum Event {
    Input(SwarmInput),
    /// The uplink has sent its first frame.
    Sent,
    Wake,
}

struct Node {
    swarm: Swarm,
    /// The other end of each slot, and this node's slot there.
    ends: Vec<(u32, PeerKey)>,
    uplink: VecDeque<(PeerKey, u32)>,
    planned_wake: Option<u64>,
    done_at: Option<u64>,
}

/// One star; see the module's description.
pub struct Star {
    scenario: StarScenario,
    nodes: Vec<Node>,
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<Event>>,
    free: Vec<u32>,
    order: u64,
    now: u64,
    report: StarReport,
    unfinished: usize,
    /// Inputs as they happened, where they are wanted.
    pub record: Option<Vec<Recorded>>,
}

const PACK: PackKey = PackKey(0);

/// A pack of equal frames whose bytes nobody needs.
///
/// # Errors
/// More frames, or longer ones, than a manifest may have.
fn equal_pack(frames: u32, frame_bytes: u32) -> Result<Pack, ManifestError> {
    let entry = |number: u32| {
        let hash = Hash::of(&number.to_le_bytes());
        ChunkEntry { raw_hash: hash, raw_length: frame_bytes, frame_hash: hash, frame_length: frame_bytes }
    };
    let chunks: Vec<ChunkEntry> = (0..frames).map(entry).collect();
    let length = u64::from(frames) * u64::from(frame_bytes);
    let original = OriginalFile { name: "pack".to_owned(), sha256: Hash::of(b"pack"), length };
    Pack::new(Manifest { format: PACK_FORMAT, image: Manifest::image_of(&chunks), original, chunks })
}

/// The identity of a node of the star.
fn node_id(number: usize) -> NodeId {
    NodeId(Hash::in_domain("star node", &(number as u64).to_le_bytes()).0)
}

/// The machines of a star at its beginning, the seed's first.
pub fn machines(scenario: &StarScenario) -> Vec<Swarm> {
    let setup = |number: u64| SwarmSetup {
        seed: scenario.seed.wrapping_mul(1_000_003).wrapping_add(number),
        leased_bytes_max: LEASED_BYTES_DEFAULT,
        tuning: scenario.tuning,
    };
    (0..=scenario.hosts as u64).map(|number| Swarm::new(setup(number))).collect()
}

impl Star {
    /// A star at its beginning: everybody is connected and wants the pack, the seed has it.
    ///
    /// # Errors
    /// The scenario's pack is none.
    pub fn new(scenario: StarScenario, recorded: bool) -> Result<Self, ManifestError> {
        let members: Vec<NodeId> = (0..=scenario.hosts).map(node_id).collect();
        let graph = neighbours(&members, &Hash::of(&scenario.seed.to_le_bytes()), scenario.degree);
        let node = |(swarm, list): (Swarm, &Vec<u32>)| {
            let ends = list.iter().map(|other| (*other, PeerKey(0))).collect();
            Node { swarm, ends, uplink: VecDeque::new(), planned_wake: None, done_at: None }
        };
        let mut nodes: Vec<Node> = machines(&scenario).into_iter().zip(&graph).map(node).collect();
        for (own, list) in graph.iter().enumerate() {
            for (slot, other) in list.iter().enumerate() {
                let there = graph[*other as usize].iter().position(|back| *back as usize == own);
                nodes[own].ends[slot].1 = PeerKey(there.unwrap_or(0) as u16);
            }
        }
        let pack = Arc::new(equal_pack(scenario.frames, scenario.frame_bytes)?);
        let report = StarReport { done_microseconds: Vec::new(), inputs: 0, seed_frames: 0, duplicates: 0 };
        let mut star = Self {
            scenario,
            nodes,
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            order: 0,
            now: 0,
            report,
            unfinished: 0,
            record: recorded.then(Vec::new),
        };
        star.unfinished = star.nodes.len();
        for number in 0..star.nodes.len() {
            let kept = if number == 0 { Bitmap::full(pack.frames()) } else { Bitmap::new(pack.frames()) };
            let manifest = Arc::clone(&pack);
            let wanted = Box::new(WantedPack { manifest, kept, raw: None, source: number == 0 });
            star.input(number, SwarmInput::Want { pack: PACK, wanted });
        }
        for number in 0..star.nodes.len() {
            for slot in 0..star.nodes[number].ends.len() {
                let (peer, node) = (PeerKey(slot as u16), node_id(star.nodes[number].ends[slot].0 as usize));
                let joined = SwarmInput::PeerJoined { peer, node, place: Place::Inside, takes_turns: true };
                star.input(number, joined);
            }
        }
        Ok(star)
    }

    fn at(&mut self, at: u64, node: usize, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            (self.events.len() - 1) as u32
        });
        self.events[slot as usize] = Some(event);
        self.order += 1;
        // The node rides in the order's low bits, so that an entry stays small.
        self.heap.push(Reverse((at, self.order << 24 | node as u64, slot)));
    }

    fn clock(&self) -> Now {
        Now { monotonic: Monotonic(self.now), wall: UnixSeconds(0) }
    }

    fn input(&mut self, node: usize, input: SwarmInput) {
        let now = self.clock();
        if let Some(record) = &mut self.record {
            record.push((node as u32, now, input.clone()));
        }
        self.report.inputs += 1;
        self.nodes[node].swarm.handle(now, input);
        self.perform(node);
    }

    fn perform(&mut self, number: usize) {
        let mut stored = None;
        while let Some(output) = self.nodes[number].swarm.poll_output() {
            match output.output {
                SwarmOutput::Say { peer, pack, word } => {
                    let (to, back) = self.nodes[number].ends[usize::from(peer.0)];
                    let said = SwarmInput::Said { peer: back, pack, word };
                    self.at(self.now + self.scenario.latency_microseconds, to as usize, Event::Input(said));
                }
                SwarmOutput::Store { index, .. } => stored = Some(index),
                SwarmOutput::ServeFrame { peer, index, .. } => {
                    self.nodes[number].uplink.push_back((peer, index));
                    if self.nodes[number].uplink.len() == 1 {
                        self.at(self.now + self.scenario.frame_microseconds, number, Event::Sent);
                    }
                }
                SwarmOutput::Sync { pack } => self.at(self.now, number, Event::Input(SwarmInput::PackSynced { pack })),
                SwarmOutput::Complete { .. } => {
                    self.nodes[number].done_at = Some(self.now);
                    self.unfinished -= 1;
                }
                _ => {}
            }
        }
        if let Some(index) = stored {
            self.input(number, SwarmInput::FrameStored { pack: PACK, index });
        }
        let wake = self.nodes[number].swarm.poll_timeout().map(|due| due.at.0.max(self.now));
        if let Some(at) = wake
            && self.nodes[number].planned_wake.is_none_or(|planned| planned > at)
        {
            self.nodes[number].planned_wake = Some(at);
            self.at(at, number, Event::Wake);
        }
    }

    fn sent(&mut self, number: usize) {
        let Some((peer, index)) = self.nodes[number].uplink.pop_front() else { return };
        self.report.seed_frames += u64::from(number == 0);
        if !self.nodes[number].uplink.is_empty() {
            self.at(self.now + self.scenario.frame_microseconds, number, Event::Sent);
        }
        let (to, back) = self.nodes[number].ends[usize::from(peer.0)];
        let before = self.nodes[to as usize].swarm.have(PACK).is_some_and(|have| have.contains(index));
        self.report.duplicates += u64::from(before);
        let length = self.scenario.frame_bytes;
        let arrived = SwarmInput::FrameArrived { peer: back, pack: PACK, index, length, raw: false };
        self.at(self.now + self.scenario.latency_microseconds, to as usize, Event::Input(arrived));
        self.input(number, SwarmInput::FrameServed { peer, pack: PACK, index });
    }

    /// Runs until every host has everything, or for a simulated day; who has not by then has no entry in the report.
    pub fn run(&mut self) -> StarReport {
        while let Some(Reverse((at, order, slot))) = self.heap.pop() {
            self.now = at;
            let node = (order & 0xff_ffff) as usize;
            let event = self.events[slot as usize].take();
            self.free.push(slot);
            match event {
                Some(Event::Input(input)) => self.input(node, input),
                Some(Event::Sent) => self.sent(node),
                Some(Event::Wake) if self.nodes[node].planned_wake == Some(at) => {
                    self.nodes[node].planned_wake = None;
                    let now = self.clock();
                    self.nodes[node].swarm.handle_timeout(now);
                    self.perform(node);
                }
                // A wake-up that was moved since.
                Some(Event::Wake) | None => {}
            }
            if self.unfinished == 0 || at > 86_400_000_000 {
                break;
            }
        }
        let done = self.nodes.iter().skip(1).filter_map(|node| node.done_at);
        self.report.done_microseconds = done.collect();
        self.report.clone()
    }

    /// The machines, for their invariants.
    pub fn check_invariants(&self) {
        self.nodes.iter().for_each(|node| node.swarm.check_invariants());
    }
}
