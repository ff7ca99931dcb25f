//! Bytes as a life of the swarm machine: neighbours of every kind come, say anything, send anything and leave, the store
//! and the sockets answer late and badly, time passes. Each input is followed by the machine's own invariants.
use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock},
};

use branchline_protocol::{
    charter::{Lease, Signed},
    content::{Bitmap, Pack, build_pack},
    ids::{Epoch, Hash, NodeId, PackId},
    machine::Machine,
    refusal::{Refusal, RefusalKind},
    swarm::{NamedInput, NamedOutput, NamedSwarm, Place, SwarmSetup, Tuning},
    time::{Monotonic, Now, UnixSeconds},
    wire::bulk::BulkMessage,
};
use ed25519_dalek::SigningKey;

/// Steps of one life: more show nothing that fewer do not.
const STEPS_MAX: usize = 2_000;
/// Outputs that one input may lead to before the machine counts as one that never stops.
const OUTPUTS_MAX: usize = 100_000;
const NEIGHBOURS: u8 = 6;

/// Two packs, of many frames and of few, and the leases for them.
static PACKS: LazyLock<[(Arc<Pack>, Lease, Signed<Lease>); 2]> = LazyLock::new(|| {
    [(70_000, 1_000), (3_500, 1_000)].map(|(length, chunk)| {
        let raw: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
        let pack = build_pack("agent", &raw[..], chunk, &mut Vec::new()).expect("a pack");
        let epoch = Epoch { charter_version: 1, term: 0 };
        let (site, holder) = ("store-17".parse().expect("a name"), NodeId([3; 32]));
        let lease = Lease { site, epoch, sequence: 1, holder, pack: pack.id(), life_milliseconds: 10_000 };
        let signed = Signed::sign(&lease, &SigningKey::from_bytes(&[1; 32]));
        (Arc::new(pack), lease, signed)
    })
});

/// What is left of the input; zeros after its end.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, count: u8) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

struct Life<'a> {
    source: Source<'a>,
    swarm: NamedSwarm,
    now: u64,
    sequence: u64,
    storing: VecDeque<(PackId, u32)>,
    serving: VecDeque<(NodeId, PackId, u32)>,
    syncing: VecDeque<PackId>,
}

/// Lives through the bytes.
pub(super) fn feed(bytes: &[u8]) {
    let mut source = Source(bytes);
    let tuning = match source.byte() % 3 {
        0 => Tuning::default(),
        1 => Tuning { upload_slots: 1, receive_slots: Some(2), ..Tuning::default() },
        _ => Tuning { push_slots: 0, in_flight_bytes: 2_000, ..Tuning::default() },
    };
    let swarm = NamedSwarm::new(SwarmSetup { seed: 5, leased_bytes_max: 4_000, tuning });
    let (storing, serving, syncing) = <_>::default();
    let mut life = Life { source, swarm, now: 1_000_000, sequence: 1, storing, serving, syncing };
    for _ in 0..STEPS_MAX {
        if life.source.0.is_empty() {
            return;
        }
        life.step();
    }
}

impl Life<'_> {
    fn step(&mut self) {
        let input = match self.source.byte() % 13 {
            0 => Some(self.neighbour()),
            1..=4 => Some(self.word()),
            5 => Some(self.arrival()),
            6 => self.store_answers(),
            7 => self.serving.pop_front().map(|(peer, pack, index)| NamedInput::FrameServed { peer, pack, index }),
            8 => self.sync_answers(),
            9 => Some(self.pack_changes()),
            10 => Some(self.lease()),
            11 => Some(self.rates()),
            _ => {
                self.passes();
                None
            }
        };
        if let Some(input) = input {
            self.input(input);
        }
    }

    fn peer(&mut self) -> NodeId {
        NodeId([self.source.byte() % NEIGHBOURS; 32])
    }

    /// One of the packs, or one that nobody knows.
    fn pack(&mut self) -> PackId {
        let which = [0, 0, 0, 0, 1, 1, 1, 2][usize::from(self.source.byte() % 8)];
        let known = PACKS.get(which).map(|(pack, ..)| pack.id());
        known.unwrap_or(PackId(Hash([9; 32])))
    }

    fn neighbour(&mut self) -> NamedInput {
        let (peer, what) = (self.peer(), self.source.byte());
        let place = match what / 2 % 4 {
            0 | 1 => Place::Inside,
            2 => Place::Origin,
            _ => Place::Outside,
        };
        match what % 8 {
            7 => NamedInput::PeerLeft { peer },
            6 if what > 0xc0 => NamedInput::PeerMalformed { peer },
            version => NamedInput::PeerJoined { peer, place, version: 1 + u16::from(version % 2) },
        }
    }

    fn word(&mut self) -> NamedInput {
        let (peer, pack, index) = (self.peer(), self.pack(), u32::from(self.source.byte()));
        let retry_after_milliseconds = index * index * 10;
        let kinds = [RefusalKind::NotFound, RefusalKind::Stale, RefusalKind::NotAuthorised];
        let refusal = Refusal::new(kinds[index as usize % 3], "no");
        let message = match self.source.byte() % 14 {
            0 => BulkMessage::Interest { pack },
            1 => BulkMessage::NoInterest { pack },
            2 => BulkMessage::Have { pack, bitmap: self.source.bytes(9) },
            3 => BulkMessage::Have { pack, bitmap: Bitmap::full(self.frames(pack)).to_bytes() },
            4 => BulkMessage::HaveFrames { pack, indexes: self.source.bytes(3).into_iter().map(u32::from).collect() },
            5 | 6 => BulkMessage::Request { pack, index },
            7 => BulkMessage::Busy { pack, index, retry_after_milliseconds },
            8 => BulkMessage::Elsewhere { pack, index, retry_after_milliseconds, instead: self.peer() },
            9 => BulkMessage::Refuse { pack, index: Some(index), refusal },
            10 => BulkMessage::Refuse { pack, index: None, refusal },
            11 => BulkMessage::Turn { pack },
            12 => BulkMessage::Pass { pack },
            _ => BulkMessage::Ping,
        };
        NamedInput::Message { peer, message }
    }

    fn frames(&self, id: PackId) -> u32 {
        PACKS.iter().find(|(pack, ..)| pack.id() == id).map_or(5, |(pack, ..)| pack.frames())
    }

    /// A frame of the right length, mostly.
    fn arrival(&mut self) -> NamedInput {
        let (peer, id, index, what) = (self.peer(), self.pack(), u32::from(self.source.byte()), self.source.byte());
        let raw = what & 1 == 1;
        let known = PACKS.iter().find(|(pack, ..)| pack.id() == id).and_then(|(pack, ..)| pack.chunk(index));
        let length = known.map_or(7, |entry| if raw { entry.raw_length } else { entry.frame_length });
        NamedInput::FrameArrived { peer, pack: id, index, length: length + u32::from(what / 2 == 127), raw }
    }

    fn store_answers(&mut self) -> Option<NamedInput> {
        let what = self.source.byte();
        // Threads of the store overtake each other.
        let place = usize::from(what / 8).min(self.storing.len().saturating_sub(1));
        let (pack, index) = self.storing.remove(place)?;
        Some(match what % 8 {
            0 => NamedInput::FrameCorrupt { pack, index },
            1 => NamedInput::StoreFailed { pack, index: Some(index) },
            _ => NamedInput::FrameStored { pack, index },
        })
    }

    fn sync_answers(&mut self) -> Option<NamedInput> {
        let (pack, what) = (self.syncing.pop_front()?, self.source.byte());
        Some(match what % 4 {
            0 => NamedInput::StoreFailed { pack, index: None },
            1 => NamedInput::FrameLost { pack, index: u32::from(what / 4) },
            _ => NamedInput::PackSynced { pack },
        })
    }

    fn pack_changes(&mut self) -> NamedInput {
        let (id, what) = (self.pack(), self.source.byte());
        let known = PACKS.iter().find(|(pack, ..)| pack.id() == id);
        let Some((pack, ..)) = known.filter(|_| what % 4 > 0) else { return NamedInput::Forget { pack: id } };
        let frames = pack.frames();
        if what % 4 == 1 {
            return NamedInput::FrameLost { pack: id, index: u32::from(what / 4) % frames };
        }
        let mut kept = if what & 16 == 0 { Bitmap::new(frames) } else { Bitmap::full(frames) };
        for byte in self.source.bytes(what >> 5) {
            kept.remove(u32::from(byte) % frames);
        }
        NamedInput::Want { pack: Arc::clone(pack), kept, raw: None, source: what & 8 == 0 }
    }

    fn rates(&mut self) -> NamedInput {
        let mut rate = || {
            let what = self.source.byte();
            (what > 0).then(|| u64::from(what - 1) << (what % 64))
        };
        NamedInput::Rates { send_bytes_per_second: rate(), receive_bytes_per_second: rate() }
    }

    fn lease(&mut self) -> NamedInput {
        let (id, what) = (self.pack(), self.source.byte());
        let known = PACKS.iter().find(|(pack, ..)| pack.id() == id);
        let Some((_, lease, signed)) = known.filter(|_| what % 4 > 0) else {
            return NamedInput::LeaseRevoked { pack: id };
        };
        // The station's word is trusted, but its list of what others hold may be of any form.
        self.sequence += u64::from(what & 4) / 4;
        let lease = Lease { sequence: self.sequence, ..lease.clone() };
        let held = self.source.bytes([0, 0, 9, 1][usize::from(what % 4)]);
        NamedInput::LeaseGranted { signed: signed.clone(), lease, held }
    }

    fn passes(&mut self) {
        self.now += 1 << (self.source.byte() % 34);
        self.swarm.handle_timeout(self.clock());
        self.outputs();
        let due = self.swarm.poll_timeout();
        assert!(due.is_none_or(|due| due.at.0 > self.now), "a deadline that does not pass: {due:?}");
    }

    fn clock(&self) -> Now {
        Now { monotonic: Monotonic(self.now), wall: UnixSeconds(0) }
    }

    fn input(&mut self, input: NamedInput) {
        self.swarm.handle(self.clock(), input);
        self.outputs();
    }

    /// Carries out what the machine wants as the bulk plane does: whoever is to be cut leaves.
    fn outputs(&mut self) {
        for _ in 0..OUTPUTS_MAX {
            self.swarm.check_invariants();
            let Some(output) = self.swarm.poll_output() else { return };
            match output.output {
                NamedOutput::Store { pack, index, .. } => self.storing.push_back((pack, index)),
                NamedOutput::ServeFrame { peer, pack, index } => self.serving.push_back((peer, pack, index)),
                NamedOutput::Sync { pack } => self.syncing.push_back(pack),
                NamedOutput::Penalise { peer, .. } | NamedOutput::Disconnect { peer, .. } => {
                    let now = self.clock();
                    self.swarm.handle(now, NamedInput::PeerLeft { peer });
                }
                _ => {}
            }
        }
        panic!("more than {OUTPUTS_MAX} outputs of one input");
    }
}
