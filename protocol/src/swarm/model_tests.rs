//! The machine against a reference model: sets and maps, everything counted anew each time, obviously right.
//!
//! A random world of neighbours joins, leaves, speaks, lies, serves and is served. The model hears the same inputs and
//! judges every output: whether it was allowed, and after each input whether something that had to be asked was not.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::{
    GrantedLease, PackKey, PeerKey, Place, Swarm, SwarmInput, SwarmOutput, SwarmSetup, Tuning, WantedPack, Word,
};
use crate::{
    charter::{Lease, Signed},
    content::{Bitmap, ChunkEntry, Manifest, OriginalFile, PACK_FORMAT, Pack},
    ids::{Epoch, Hash, NodeId},
    limits::WAN_IN_FLIGHT_BYTES,
    machine::Machine,
    time::{Monotonic, Now},
};

mod cases;
mod silence;

const PACK: PackKey = PackKey(3);
const FRAMES: u32 = 70;
const B: u64 = 2_000;
/// How long the machine waits for a neighbour that does not speak.
const PATIENCE: u64 = super::picker::PATIENCE;

#[derive(Clone, Debug)]
enum Step {
    Join(u16, Place),
    Leave(u16),
    Say(u16, Word),
    Deliver(u16, u32),
    Push(u16, u32),
    Stored(bool),
    Served,
    Lease,
    Revoke,
    Pass(u64),
}

#[derive(Default)]
struct Neighbour {
    place: Option<Place>,
    takes_turns: bool,
    /// It has offered a turn that is not answered yet.
    offered: bool,
    /// Its turn was passed although it has something, since enough others were sending.
    declined: bool,
    last_word: u64,
    /// What it said it has; `None`: it never said so.
    has: Option<BTreeSet<u32>>,
    interested: bool,
    asked: BTreeSet<u32>,
    rests_until: u64,
    /// How often it was asked in vain since a frame came from it.
    in_vain: u32,
    served: BTreeSet<u32>,
}

struct Model {
    swarm: Swarm,
    pack: Arc<Pack>,
    now: u64,
    peers: BTreeMap<u16, Neighbour>,
    have: BTreeSet<u32>,
    told: BTreeSet<u32>,
    storing: BTreeMap<u32, (u16, Place, bool)>,
    uploads: Vec<(u16, u32)>,
    leased: bool,
    /// When a wanted frame last came.
    arrived_at: u64,
    sequence: u64,
    receive_slots: Option<u16>,
}

fn pack() -> Arc<Pack> {
    let chunk = |number: u32| ChunkEntry {
        raw_hash: Hash::of(&number.to_le_bytes()),
        raw_length: 500 + number,
        frame_hash: Hash::of(&number.to_le_bytes()),
        frame_length: 300 + number,
    };
    let chunks: Vec<_> = (0..FRAMES).map(chunk).collect();
    let original = OriginalFile { name: "pack".into(), sha256: Hash::of(b"pack"), length: 1 };
    Arc::new(Pack::new(Manifest { format: PACK_FORMAT, image: Manifest::image_of(&chunks), original, chunks }).unwrap())
}

fn bitmap(set: &BTreeSet<u32>) -> Bitmap {
    let mut bitmap = Bitmap::new(FRAMES);
    for index in set {
        bitmap.insert(*index);
    }
    bitmap
}

impl Model {
    fn new(kept: &BTreeSet<u32>, source: bool, seed: u64, receive_slots: Option<u16>) -> Self {
        // Without experiments the rarest frame is no matter of chance.
        let slots = Tuning { upload_slots: 2, receive_slots, ..Tuning::default() };
        let tuning = Tuning { experiment_one_in: 0, in_flight_bytes: 1_000, ..slots };
        let mut model = Self {
            swarm: Swarm::new(SwarmSetup { seed, leased_bytes_max: B, tuning }),
            pack: pack(),
            now: 1_000_000,
            peers: BTreeMap::new(),
            have: kept.clone(),
            told: if source { BTreeSet::new() } else { kept.clone() },
            storing: BTreeMap::new(),
            uploads: Vec::new(),
            leased: false,
            arrived_at: 1_000_000,
            sequence: 0,
            receive_slots,
        };
        let manifest = Arc::clone(&model.pack);
        let wanted = Box::new(WantedPack { manifest, kept: bitmap(kept), raw: None, source });
        model.input(SwarmInput::Want { pack: PACK, wanted });
        model
    }

    fn length(&self, index: u32) -> u64 {
        self.pack.frame_length(index)
    }

    fn holders(&self, index: u32) -> usize {
        self.peers.values().filter(|peer| peer.has.as_ref().is_some_and(|has| has.contains(&index))).count()
    }

    fn flying(&self) -> BTreeSet<u32> {
        self.peers.values().flat_map(|peer| peer.asked.iter().copied()).collect()
    }

    fn is_missing(&self, index: u32) -> bool {
        !self.have.contains(&index) && !self.storing.contains_key(&index) && !self.flying().contains(&index)
    }

    /// Something missing that a neighbour has.
    fn useful(&self, peer: u16) -> Option<u32> {
        self.peers[&peer].has.iter().flatten().copied().find(|index| self.is_missing(*index))
    }

    /// Whether as many neighbours that give turns are asked as may be.
    fn sources_enough(&self) -> bool {
        let source =
            |peer: &&Neighbour| peer.place == Some(Place::Inside) && peer.takes_turns && !peer.asked.is_empty();
        let sources = self.peers.values().filter(source).count() as u16;
        self.receive_slots.is_some_and(|slots| sources >= slots)
    }

    fn input(&mut self, input: SwarmInput) {
        let now = Now { monotonic: Monotonic(self.now), ..Now::default() };
        self.swarm.handle(now, input);
        self.outputs();
    }

    fn outputs(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            self.judge(output.output);
        }
        self.swarm.check_invariants();
        assert_eq!(self.swarm.have(PACK).unwrap(), &bitmap(&self.have));
        self.expect_asked();
        self.peers.iter().for_each(|(peer, state)| self.expect_kept(*peer, state));
    }

    /// A neighbour with which there is something to exchange is not left for another's sake.
    fn expect_kept(&self, peer: u16, state: &Neighbour) {
        let held = state.has.as_ref().map_or(0, BTreeSet::len) as u32;
        let lacks = state.place == Some(Place::Inside) && state.interested && held < FRAMES;
        let served = self.uploads.iter().any(|(to, _)| *to == peer);
        if lacks || served || !state.asked.is_empty() || self.useful(peer).is_some() {
            assert!(!self.swarm.is_spare(PeerKey(peer)), "{peer} would be left");
        }
    }

    fn judge(&mut self, output: SwarmOutput) {
        match output {
            SwarmOutput::Say { peer, word, .. } => self.judge_word(peer.0, word),
            SwarmOutput::ServeFrame { peer, index, .. } => {
                assert!(self.have.contains(&index), "frame {index} is not here and is served");
                let asked = self.peers.get_mut(&peer.0).unwrap().served.remove(&index);
                let pushed = self.holders(index) == 0 && !self.told.contains(&index);
                assert!(
                    asked || pushed,
                    "frame {index} is sent to {peer:?}, who did not ask, and who is not the first"
                );
                self.uploads.push((peer.0, index));
            }
            SwarmOutput::Store { index, peer, .. } => panic!("frame {index} of {peer:?} is stored and did not come"),
            SwarmOutput::Penalise { peer, offence, .. } => panic!("{peer:?} is punished: {offence}"),
            SwarmOutput::Disconnect { peer, .. } => self.leave(peer.0),
            SwarmOutput::Complete { .. } => assert_eq!(self.have.len() as u32, FRAMES),
            _ => {}
        }
    }

    fn judge_word(&mut self, peer: u16, word: Word) {
        match word {
            Word::Request(index) => {
                assert!(self.is_missing(index), "frame {index} is asked for and is not missing");
                self.judge_request(peer, index);
                let state = self.peers.get_mut(&peer).unwrap();
                (state.offered, state.declined) = (false, false);
                state.asked.insert(index);
            }
            Word::Interest => self.peers.get_mut(&peer).unwrap().declined = false,
            Word::Pass => {
                let enough = self.sources_enough() && self.peers[&peer].asked.is_empty();
                let useful = self.useful(peer);
                let state = self.peers.get_mut(&peer).unwrap();
                assert!(std::mem::take(&mut state.offered), "{peer} offered no turn");
                let full = state.asked.len() >= 4 || self.swarm.is_silent(PeerKey(peer));
                state.declined = enough && useful.is_some();
                assert!(
                    full || enough || useful.is_none(),
                    "frame {useful:?} is missing and the turn of {peer} is passed"
                );
            }
            Word::Turn => {
                let state = &self.peers[&peer];
                assert!(state.takes_turns && state.interested, "{peer} takes no turns");
                let lacks = self.told.iter().any(|index| state.has.as_ref().is_none_or(|has| !has.contains(index)));
                assert!(lacks, "{peer} lacks nothing that is here");
            }
            Word::HaveFrame(index) => self.judge_news(peer, &[index]),
            Word::HaveFrames(indexes) => self.judge_news(peer, &indexes),
            Word::Have(bitmap) => {
                assert!(bitmap.iter().all(|index| self.have.contains(&index)), "what is not here is announced");
                self.told.extend(bitmap.iter());
            }
            Word::Refuse { index: Some(index), .. } => {
                let state = self.peers.get_mut(&peer).unwrap();
                assert!(state.served.remove(&index), "refuses what was not asked for");
                assert!(state.place != Some(Place::Inside) || !self.have.contains(&index), "refuses what is here");
            }
            Word::Busy { index, .. } => assert!(self.peers.get_mut(&peer).unwrap().served.remove(&index)),
            _ => {}
        }
    }

    fn judge_news(&mut self, peer: u16, indexes: &[u32]) {
        assert!(self.peers[&peer].interested, "{peer} does not want to hear");
        assert!(indexes.iter().all(|index| self.have.contains(index)), "what is not here is announced");
        self.told.extend(indexes);
    }

    fn judge_request(&self, peer: u16, index: u32) {
        let state = &self.peers[&peer];
        let under_way: u64 = state.asked.iter().map(|index| self.length(*index)).sum();
        if state.place == Some(Place::Origin) {
            assert!(self.leased, "the origin is asked without a lease");
            assert_eq!(self.trusted_holders(index), 0, "the origin is asked for what a neighbour has");
            assert!(state.asked.is_empty() || under_way < WAN_IN_FLIGHT_BYTES);
            let living = self.peers.values().any(|peer| peer.interested && self.now < peer.last_word + PATIENCE);
            let storing = self.storing.iter().filter(|(_, (_, place, _))| *place == Place::Origin);
            let pending = under_way + storing.map(|(index, _)| self.length(*index)).sum::<u64>();
            let sole = self.have.iter().filter(|index| self.holders(**index) == 0);
            let unshared = pending + sole.map(|index| self.length(*index)).sum::<u64>() + self.length(index);
            assert!(
                !living || unshared <= B || unshared == self.length(index),
                "{unshared} bytes are ahead of the site"
            );
            return;
        }
        assert_eq!(state.place, Some(Place::Inside));
        let has = state.has.as_ref().expect("asked of a neighbour that has said nothing");
        assert!(has.contains(&index), "{peer} never said that it has frame {index}");
        if state.takes_turns {
            let probed = state.asked.is_empty() && self.now >= self.arrived_at + 3_000_000;
            assert!(state.offered && state.asked.len() < 4 || probed, "{peer} is asked out of turn");
        } else if !state.offered {
            assert!(state.asked.is_empty() || under_way < 1_000, "too much is under way from {peer}");
            assert!(self.now >= state.rests_until, "{peer} was busy");
        }
        let rarest = has.iter().filter(|index| self.is_missing(**index)).map(|index| self.holders(*index)).min();
        assert_eq!(Some(self.holders(index)), rarest, "frame {index} is not the rarest that {peer} has");
    }

    /// Nobody who has something useful, owes nothing and does not rest is left unasked.
    fn expect_asked(&self) {
        for (key, state) in &self.peers {
            assert!(!state.offered, "the turn of {key} is not answered");
            let idle = !state.takes_turns
                && state.place == Some(Place::Inside)
                && state.asked.is_empty()
                && self.now > state.rests_until;
            let useful = self.useful(*key);
            let declined = state.declined && !self.sources_enough();
            assert!(!declined || useful.is_none(), "{key} has frame {useful:?} and does not hear that it may send it");
            assert!(!idle || useful.is_none(), "{key} has frame {useful:?} and is not asked");
        }
    }

    fn leave(&mut self, peer: u16) {
        self.peers.remove(&peer);
        self.uploads.retain(|(to, _)| *to != peer);
    }

    fn arrive(&mut self, peer: u16, index: u32) {
        let place = self.peers[&peer].place.unwrap();
        let state = self.peers.get_mut(&peer).unwrap();
        state.last_word = self.now;
        let asked = state.asked.remove(&index);
        state.in_vain = 0;
        let wanted = !self.have.contains(&index) && !self.storing.contains_key(&index) && place != Place::Outside;
        let now = Now { monotonic: Monotonic(self.now), ..Now::default() };
        let length = self.length(index) as u32;
        let key = PeerKey(peer);
        self.swarm.handle(now, SwarmInput::FrameArrived { peer: key, pack: PACK, index, length, raw: false });
        if wanted {
            self.arrived_at = self.now;
            self.storing.insert(index, (peer, place, asked));
        }
        let mut stored = false;
        while let Some(output) = self.swarm.poll_output() {
            match output.output {
                SwarmOutput::Store { index: of, .. } => stored = of == index,
                output => self.judge(output),
            }
        }
        assert_eq!(stored, wanted, "frame {index} of {peer}");
        self.outputs();
    }

    fn step(&mut self, step: Step) {
        let joined = |peer: &u16| self.peers.contains_key(peer);
        match step {
            Step::Join(peer, place) => {
                self.leave(peer);
                let takes_turns = peer % 2 == 0;
                let state = Neighbour { place: Some(place), takes_turns, last_word: self.now, ..Neighbour::default() };
                self.peers.insert(peer, state);
                let node = NodeId([peer as u8; 32]);
                self.input(SwarmInput::PeerJoined { peer: PeerKey(peer), node, place, takes_turns });
            }
            Step::Leave(peer) => {
                self.leave(peer);
                self.input(SwarmInput::PeerLeft { peer: PeerKey(peer) });
            }
            Step::Say(peer, word) if joined(&peer) => self.say(peer, word),
            Step::Deliver(peer, nth) if joined(&peer) => {
                let asked = &self.peers[&peer].asked;
                let index = asked.iter().nth(nth as usize % asked.len().max(1)).copied();
                index.into_iter().for_each(|index| self.arrive(peer, index));
            }
            Step::Push(peer, index) if joined(&peer) && self.peers[&peer].place == Some(Place::Inside) => {
                self.arrive(peer, index);
            }
            Step::Stored(good) => {
                let Some((index, _)) = self.storing.pop_first() else { return };
                if good {
                    self.have.insert(index);
                    self.input(SwarmInput::FrameStored { pack: PACK, index });
                } else {
                    self.now += 1;
                    // The pack rests: nothing is asked for a while, so the model's clock moves past it.
                    let now = Now { monotonic: Monotonic(self.now), ..Now::default() };
                    self.swarm.handle(now, SwarmInput::StoreFailed { pack: PACK, index: Some(index) });
                    self.now += 10_000_001;
                    self.silence();
                }
            }
            Step::Served if !self.uploads.is_empty() => {
                let (peer, index) = self.uploads.remove(0);
                self.input(SwarmInput::FrameServed { peer: PeerKey(peer), pack: PACK, index });
            }
            Step::Lease => {
                self.sequence += 1;
                self.leased = (self.have.len() as u32) < FRAMES;
                let epoch = Epoch { charter_version: 1, term: 0 };
                let lease = Lease {
                    site: "store-17".parse().unwrap(),
                    epoch,
                    sequence: self.sequence,
                    holder: NodeId([200; 32]),
                    pack: self.pack.id(),
                    life_milliseconds: 1 << 40,
                };
                let signed = Signed::sign(&lease, &SigningKey::from_bytes(&[1; 32]));
                let lease = Box::new(GrantedLease { signed, lease, held: Vec::new() });
                self.input(SwarmInput::LeaseGranted { pack: PACK, lease });
            }
            Step::Revoke => {
                self.leased = false;
                self.input(SwarmInput::LeaseRevoked { pack: PACK });
            }
            Step::Pass(microseconds) => {
                self.now += microseconds;
                self.silence();
            }
            _ => {}
        }
    }

    fn say(&mut self, peer: u16, word: Word) {
        let silent = self.swarm.is_silent(PeerKey(peer));
        let state = self.peers.get_mut(&peer).unwrap();
        let inside = state.place == Some(Place::Inside);
        state.last_word = self.now;
        match &word {
            // The turn of one that never sends is passed, and its rest goes on.
            Word::Turn if inside && silent => state.offered = true,
            Word::Turn if inside => (state.offered, state.rests_until) = (true, 0),
            Word::Interest => state.interested |= inside,
            Word::NoInterest => state.interested = false,
            Word::Have(bitmap) if inside => state.has = Some(bitmap.iter().collect()),
            Word::HaveFrame(index) if inside => drop(state.has.get_or_insert_default().insert(*index)),
            Word::HaveFrames(indexes) if inside => state.has.get_or_insert_default().extend(indexes),
            // Whoever has asked already is not heard twice.
            Word::Request(index) if self.uploads.contains(&(peer, *index)) || !state.served.insert(*index) => return,
            Word::Request(_) => {}
            Word::Busy { index, retry_after_milliseconds, .. } => {
                state.in_vain += 1;
                if !state.asked.remove(index) {
                    return;
                }
                state.rests_until = self.now + u64::from(*retry_after_milliseconds) * 1000;
            }
            Word::Refuse { index, .. } => {
                let Some(index) = index.filter(|index| state.asked.remove(index)) else { return };
                if inside {
                    state.has.as_mut().map(|has| has.remove(&index));
                } else {
                    self.leased = false;
                }
            }
            _ => {}
        }
        self.input(SwarmInput::Said { peer: PeerKey(peer), pack: PACK, word });
    }
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0u16..6;
    let index = 0..FRAMES;
    let place = prop_oneof![8 => Just(Place::Inside), 2 => Just(Place::Origin), 1 => Just(Place::Outside)];
    let set = prop::collection::btree_set(0..FRAMES, 0..40);
    let word = prop_oneof![
        3 => Just(Word::Interest),
        1 => Just(Word::NoInterest),
        3 => set.prop_map(|set| Word::Have(Box::new(bitmap(&set)))),
        8 => Just(Word::Turn),
        2 => Just(Word::Pass),
        6 => index.clone().prop_map(Word::HaveFrame),
        2 => prop::collection::vec(0..FRAMES, 0..5).prop_map(Word::HaveFrames),
        4 => index.clone().prop_map(Word::Request),
        2 => (index.clone(), 1u32..200).prop_map(|(index, wait)| Word::Busy { index, retry_after_milliseconds: wait, instead: None }),
        1 => index.clone().prop_map(|index| Word::Refuse { index: Some(index), kind: crate::refusal::RefusalKind::NotFound }),
    ];
    prop_oneof![
        4 => (peer.clone(), place).prop_map(|(peer, place)| Step::Join(peer, place)),
        1 => peer.clone().prop_map(Step::Leave),
        20 => (peer.clone(), word).prop_map(|(peer, word)| Step::Say(peer, word)),
        12 => (peer.clone(), 0u32..8).prop_map(|(peer, nth)| Step::Deliver(peer, nth)),
        3 => (peer, index).prop_map(|(peer, index)| Step::Push(peer, index)),
        16 => Just(Step::Stored(true)),
        1 => Just(Step::Stored(false)),
        8 => Just(Step::Served),
        2 => Just(Step::Lease),
        1 => Just(Step::Revoke),
        4 => (1u64..4_000_000).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::property_tests::cases(400), ..ProptestConfig::default() })]

    #[test]
    fn every_output_is_what_the_model_allows_and_nothing_is_left_undone(
        kept in prop::collection::btree_set(0..FRAMES, 0..60),
        source: bool,
        seed: u64,
        receive_slots in prop::option::of(1u16..4),
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut model = Model::new(&kept, source, seed, receive_slots);
        for step in steps {
            model.step(step);
        }
        prop_assert!(model.told.is_subset(&model.have));
    }
}
