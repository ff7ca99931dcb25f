//! Neighbours that lie, repeat themselves, dawdle; clocks that jump. Each is refused, punished where it cannot be an
//! accident, and the pack becomes complete from the others.
use std::sync::Arc;

use ed25519_dalek::SigningKey;

use super::{NamedInput, NamedOutput, NamedSwarm, Place, SwarmSetup, Tuning};
use crate::{
    charter::{Lease, Signed},
    content::{Bitmap, Pack, build_pack},
    ids::{Epoch, NodeId},
    machine::Machine,
    refusal::{Refusal, RefusalKind},
    time::{Monotonic, Now, UnixSeconds},
    wire::bulk::BulkMessage,
};

const BAD: NodeId = NodeId([66; 32]);
const GOOD: NodeId = NodeId([7; 32]);
const ORIGIN: NodeId = NodeId([1; 32]);
const SECOND: u64 = 1_000_000;
/// Versions of the bulk protocol: neighbours of the first are asked at any time, those of the second when they offer a turn.
const VERSIONS: [u16; 2] = [1, 2];

/// One machine that wants a pack of eight frames, with a bad neighbour and later a good one.
struct Bench {
    swarm: NamedSwarm,
    version: u16,
    pack: Arc<Pack>,
    now: u64,
    punished: Vec<String>,
    /// Frames that the good neighbour was asked for, and when.
    asked_of_good: Vec<(u32, u64)>,
    asked_of_bad: Vec<u32>,
    asked_of_origin: Vec<u32>,
    complete: bool,
}

impl Bench {
    fn new(version: u16) -> Self {
        let pack = Arc::new(build_pack("agent", &[1; 8_000][..], 1_000, &mut Vec::new()).unwrap());
        let setup = SwarmSetup { seed: 5, leased_bytes_max: 1 << 20, tuning: Tuning::default() };
        let mut bench = Self {
            swarm: NamedSwarm::new(setup),
            version,
            pack: Arc::clone(&pack),
            now: 10 * SECOND,
            punished: Vec::new(),
            asked_of_good: Vec::new(),
            asked_of_bad: Vec::new(),
            asked_of_origin: Vec::new(),
            complete: false,
        };
        bench.input(NamedInput::Want { kept: Bitmap::new(pack.frames()), pack, raw: None, source: false });
        bench.joins(BAD);
        bench
    }

    /// A neighbour that says that it has everything, and may be asked.
    fn joins(&mut self, peer: NodeId) {
        self.input(NamedInput::PeerJoined { peer, place: Place::Inside, version: self.version });
        self.claims_all(peer);
        self.offers_turn(peer);
    }

    fn offers_turn(&mut self, peer: NodeId) {
        if self.version > 1 {
            self.says(peer, BulkMessage::Turn { pack: self.pack.id() });
        }
    }

    /// A line to the origin, and the lease for it; the origin answers what it is asked for.
    fn gets_a_lease(&mut self) {
        self.input(NamedInput::PeerJoined { peer: ORIGIN, place: Place::Origin, version: self.version });
        let lease = Lease {
            site: "store-17".parse().unwrap(),
            epoch: Epoch { charter_version: 1, term: 0 },
            sequence: 1,
            holder: NodeId([3; 32]),
            pack: self.pack.id(),
            life_milliseconds: 3_600_000,
        };
        let signed = Signed::sign(&lease, &SigningKey::from_bytes(&[1; 32]));
        self.input(NamedInput::LeaseGranted { signed, lease, held: Vec::new() });
    }

    fn claims_all(&mut self, peer: NodeId) {
        let bitmap = Bitmap::full(self.pack.frames()).to_bytes();
        self.says(peer, BulkMessage::Have { pack: self.pack.id(), bitmap });
    }

    fn says(&mut self, peer: NodeId, message: BulkMessage) {
        self.input(NamedInput::Message { peer, message });
    }

    fn frame(&mut self, peer: NodeId, index: u32, longer: u32) {
        let (pack, length) = (self.pack.id(), self.pack.frame_length(index) as u32 + longer);
        self.input(NamedInput::FrameArrived { peer, pack, index, length, raw: false });
    }

    fn input(&mut self, input: NamedInput) {
        let now = Now { monotonic: Monotonic(self.now), wall: UnixSeconds(0) };
        self.swarm.handle(now, input);
        self.outputs();
    }

    fn passes(&mut self, microseconds: u64) {
        self.now += microseconds;
        let now = Now { monotonic: Monotonic(self.now), wall: UnixSeconds(0) };
        self.swarm.handle_timeout(now);
        self.outputs();
    }

    fn outputs(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            match output.output {
                NamedOutput::Store { pack, index, .. } => self.input(NamedInput::FrameStored { pack, index }),
                NamedOutput::Sync { pack } => self.input(NamedInput::PackSynced { pack }),
                NamedOutput::Complete { .. } => self.complete = true,
                NamedOutput::Penalise { peer, why, .. } => {
                    assert_eq!(peer, BAD);
                    self.punished.push(why);
                    self.input(NamedInput::PeerLeft { peer });
                }
                NamedOutput::Send { peer, message: BulkMessage::Request { index, .. } } if peer == GOOD => {
                    self.asked_of_good.push((index, self.now));
                }
                NamedOutput::Send { peer, message: BulkMessage::Request { index, .. } } if peer == ORIGIN => {
                    self.asked_of_origin.push(index);
                }
                NamedOutput::Send { message: BulkMessage::Request { index, .. }, .. } => self.asked_of_bad.push(index),
                _ => {}
            }
            self.swarm.check_invariants();
        }
    }

    /// The good neighbour comes, if it is not there, and answers what it was and is asked for.
    fn completes_from_the_good(&mut self) {
        self.joins(GOOD);
        for _ in 0..20 {
            for (index, _) in std::mem::take(&mut self.asked_of_good) {
                self.frame(GOOD, index, 0);
            }
            self.offers_turn(GOOD);
            self.passes(SECOND);
        }
        assert!(self.complete, "not complete: {:?}", self.swarm.progress().collect::<Vec<_>>());
    }
}

#[test]
fn who_claims_what_it_has_not_is_cut_off() {
    for version in VERSIONS {
        let mut bench = Bench::new(version);
        let pack = bench.pack.id();
        for _ in 0..100 {
            let Some(index) = bench.asked_of_bad.pop() else { break };
            let refusal = Refusal::new(RefusalKind::NotFound, "frame is not here");
            bench.says(BAD, BulkMessage::Refuse { pack, index: Some(index), refusal });
            bench.claims_all(BAD);
            bench.offers_turn(BAD);
        }
        assert_eq!(bench.punished, ["it announced many frames and then refused them"], "version {version}");
        bench.completes_from_the_good();
    }
}

#[test]
fn replayed_frames_count_once_and_are_punished() {
    for version in VERSIONS {
        let mut bench = Bench::new(version);
        for _ in 0..300 {
            bench.frame(BAD, 3, 0);
        }
        assert_eq!(bench.swarm.progress().next().unwrap().frames, 1);
        assert_eq!(bench.punished, ["it sent many frames again that nobody had asked for"], "version {version}");
        bench.completes_from_the_good();
    }
}

#[test]
fn frames_of_another_length_or_beyond_the_last_are_refused_unread() {
    let wrong = [(2, 1), (8, 500), (u32::MAX, 0)];
    for (version, (index, longer)) in VERSIONS.into_iter().flat_map(|version| wrong.map(|wrong| (version, wrong))) {
        let mut bench = Bench::new(version);
        bench.frame(BAD, index, longer);
        assert_eq!(bench.punished.len(), 1, "frame {index}");
        assert!(bench.punished[0].contains("which the manifest does not allow"));
        bench.completes_from_the_good();
    }
}

#[test]
fn bitmaps_and_lists_that_do_not_fit_are_refused() {
    let bad: [fn(&Bench) -> BulkMessage; 3] = [
        |bench| BulkMessage::Have { pack: bench.pack.id(), bitmap: vec![0xff; 2] },
        |bench| BulkMessage::HaveFrames { pack: bench.pack.id(), indexes: vec![1, 8] },
        |bench| BulkMessage::HaveFrames { pack: bench.pack.id(), indexes: vec![0; 5_000] },
    ];
    for (version, message) in VERSIONS.into_iter().flat_map(|version| bad.map(|message| (version, message))) {
        let mut bench = Bench::new(version);
        bench.says(BAD, message(&bench));
        assert_eq!(bench.punished.len(), 1);
        bench.completes_from_the_good();
    }
}

#[test]
fn a_neighbour_at_a_byte_a_second_costs_less_than_two_seconds() {
    for version in VERSIONS {
        let mut bench = Bench::new(version);
        let waits = bench.asked_of_bad[0];
        bench.joins(GOOD);
        // The good one answers at once, so that in the end only the frame is missing that the bad one is sending.
        let began = bench.now;
        while !bench.complete {
            for (index, _) in std::mem::take(&mut bench.asked_of_good) {
                bench.frame(GOOD, index, 0);
                bench.offers_turn(GOOD);
            }
            let due = bench.swarm.poll_timeout().unwrap().at.0;
            bench.passes(due.saturating_sub(bench.now).clamp(1, SECOND / 10));
            bench.offers_turn(GOOD);
        }
        assert!(bench.now - began < 2 * SECOND, "version {version}: took {} us", bench.now - began);
        assert!(bench.punished.is_empty(), "slow is no crime");
        bench.frame(BAD, waits, 0);
        assert!(bench.punished.is_empty());
    }
}

/// Found by a reading: nobody fetched over the line what a neighbour claimed to have, so that one that claimed everything,
/// answered pings and never sent a frame stopped the line into its site for good.
#[test]
fn who_claims_everything_and_never_sends_stops_the_line_for_seconds_only() {
    for version in VERSIONS {
        let mut bench = Bench::new(version);
        bench.gets_a_lease();
        let began = bench.now;
        while !bench.complete && bench.now - began < 3_600 * SECOND {
            for index in std::mem::take(&mut bench.asked_of_origin) {
                bench.frame(ORIGIN, index, 0);
            }
            let due = bench.swarm.poll_timeout().map_or(bench.now, |due| due.at.0);
            bench.passes(due.saturating_sub(bench.now).clamp(1, SECOND / 10));
        }
        let took = bench.now - began;
        assert!(bench.complete && took < 30 * SECOND, "version {version}: took {took} us");
        assert!(bench.punished.is_empty(), "a machine that is suspended does the same");
    }
}

#[test]
fn who_claims_everything_and_is_always_busy_stops_the_line_for_minutes_only() {
    let mut bench = Bench::new(1);
    bench.gets_a_lease();
    let (began, pack) = (bench.now, bench.pack.id());
    while !bench.complete && bench.now - began < 3_600 * SECOND {
        for index in std::mem::take(&mut bench.asked_of_origin) {
            bench.frame(ORIGIN, index, 0);
        }
        for index in std::mem::take(&mut bench.asked_of_bad) {
            let busy = BulkMessage::Busy { pack, index, retry_after_milliseconds: 10_000 };
            bench.says(BAD, busy);
        }
        bench.passes(SECOND / 2);
    }
    assert!(bench.complete && bench.now - began < 300 * SECOND, "took {} us", bench.now - began);
}

#[test]
fn who_was_doubted_and_sends_again_is_trusted_again() {
    let mut bench = Bench::new(1);
    let first = bench.asked_of_bad[0];
    for _ in 0..250 {
        bench.passes(SECOND / 10);
    }
    // What it has is not fetched over the line any more once a frame has come from it.
    bench.frame(BAD, first, 0);
    bench.gets_a_lease();
    assert!(bench.asked_of_origin.is_empty(), "{:?}", bench.asked_of_origin);
}

#[test]
fn a_clock_that_jumps_ends_nothing_but_what_was_under_way() {
    for jump in [3_600 * SECOND, 365 * 86_400 * SECOND] {
        let mut bench = Bench::new(2);
        bench.passes(jump);
        assert!(bench.punished.is_empty());
        bench.completes_from_the_good();
    }
    let mut bench = Bench::new(1);
    let before = bench.now;
    // Back: what was due stays due, and passes when the clock has caught up.
    bench.now = 0;
    bench.joins(GOOD);
    bench.passes(0);
    bench.now = before;
    bench.completes_from_the_good();
}
