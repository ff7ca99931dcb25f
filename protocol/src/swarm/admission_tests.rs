//! Busy is an answer: how much waits at a holder, whom it names instead, and what a node does that is put off.
use std::{collections::VecDeque, sync::Arc};

use super::{NamedInput, NamedOutput, NamedSwarm, Place, SwarmSetup, Tuning};
use crate::{
    content::{Bitmap, Pack, build_pack},
    ids::NodeId,
    limits::{UPLOAD_QUEUE_MAX, UPLOAD_QUEUE_PER_PEER_MAX, UPLOAD_SLOTS},
    machine::Machine,
    time::{Monotonic, Now, UnixSeconds},
    wire::bulk::BulkMessage,
};

const FRAMES: u32 = 40;
const SECOND: u64 = 1_000_000;
const PER_PEER: u32 = UPLOAD_QUEUE_PER_PEER_MAX as u32;
/// The neighbour that has no time, and those that it may name.
const BUSY: NodeId = NodeId([1; 32]);
const OTHER: NodeId = NodeId([2; 32]);
const STRANGER: NodeId = NodeId([3; 32]);
const ORIGIN: NodeId = NodeId([4; 32]);
const OUTSIDE: NodeId = NodeId([5; 32]);
const IDLE: NodeId = NodeId([6; 32]);
/// The node whose machine it is; that does not know its own name.
const OWN: NodeId = NodeId([7; 32]);

/// An answer that puts a request off.
#[derive(Debug, PartialEq, Eq)]
struct PutOff {
    peer: NodeId,
    index: u32,
    retry_after_milliseconds: u32,
    instead: Option<NodeId>,
}

/// One machine and what it said and did since that was last looked at.
struct Bench {
    swarm: NamedSwarm,
    pack: Arc<Pack>,
    now: u64,
    said: Vec<(NodeId, BulkMessage)>,
    met: Vec<NodeId>,
    /// What sockets have not taken yet, the oldest first.
    serving: VecDeque<(NodeId, u32)>,
    complete: bool,
}

/// Neighbours that differ from those that have names.
fn node(number: usize) -> NodeId {
    NodeId([100 + number as u8; 32])
}

impl Bench {
    fn new(kept: Bitmap, source: bool) -> Self {
        let pack = Arc::new(build_pack("agent", &[1; FRAMES as usize * 1_000][..], 1_000, &mut Vec::new()).unwrap());
        // One frame at a time is asked of each, and the rarest always.
        let tuning = Tuning { in_flight_bytes: 1, experiment_one_in: 0, ..Tuning::default() };
        let mut bench = Self {
            swarm: NamedSwarm::new(SwarmSetup { seed: 5, leased_bytes_max: 1 << 20, tuning }),
            pack: Arc::clone(&pack),
            now: 10 * SECOND,
            said: Vec::new(),
            met: Vec::new(),
            serving: VecDeque::new(),
            complete: false,
        };
        bench.input(NamedInput::Want { pack, kept, raw: None, source });
        bench
    }

    /// A holder of everything, each of whose slots serves frame 0 to a neighbour of version 1.
    fn with_all_slots_taken() -> Self {
        let mut bench = Self::new(Bitmap::full(FRAMES), false);
        for number in 0..UPLOAD_SLOTS {
            bench.joins(node(number), 1);
            bench.asks(node(number), 0);
        }
        assert_eq!(bench.serving.len(), UPLOAD_SLOTS);
        bench
    }

    /// A node without any frame that has asked `BUSY`, which has all, for the one that is given as well.
    fn with_a_request(version: u16) -> (Self, u32) {
        let mut bench = Self::new(Bitmap::new(FRAMES), false);
        bench.joins(BUSY, version);
        bench.has(BUSY, 0..FRAMES);
        bench.offers_turn(BUSY, version);
        let requests = bench.requests();
        let [(BUSY, index)] = requests[..] else { panic!("not asked once: {requests:?}") };
        (bench, index)
    }

    fn joins(&mut self, peer: NodeId, version: u16) {
        self.input(NamedInput::PeerJoined { peer, place: Place::Inside, version });
    }

    fn has(&mut self, peer: NodeId, frames: impl IntoIterator<Item = u32>) {
        let mut bitmap = Bitmap::new(FRAMES);
        for index in frames {
            bitmap.insert(index);
        }
        self.says(peer, BulkMessage::Have { pack: self.pack.id(), bitmap: bitmap.to_bytes() });
    }

    fn asks(&mut self, peer: NodeId, index: u32) {
        self.says(peer, BulkMessage::Request { pack: self.pack.id(), index });
    }

    /// Those of version 1 are asked without one.
    fn offers_turn(&mut self, peer: NodeId, version: u16) {
        if version > 1 {
            self.says(peer, BulkMessage::Turn { pack: self.pack.id() });
        }
    }

    fn is_busy(&mut self, peer: NodeId, index: u32, retry_after_milliseconds: u32) {
        self.says(peer, BulkMessage::Busy { pack: self.pack.id(), index, retry_after_milliseconds });
    }

    fn sends_elsewhere(&mut self, index: u32, retry_after_milliseconds: u32, instead: NodeId) {
        let pack = self.pack.id();
        self.says(BUSY, BulkMessage::Elsewhere { pack, index, retry_after_milliseconds, instead });
    }

    fn says(&mut self, peer: NodeId, message: BulkMessage) {
        self.input(NamedInput::Message { peer, message });
    }

    fn frame(&mut self, peer: NodeId, index: u32) {
        let (pack, length) = (self.pack.id(), self.pack.frame_length(index) as u32);
        self.input(NamedInput::FrameArrived { peer, pack, index, length, raw: false });
    }

    fn input(&mut self, input: NamedInput) {
        self.swarm.handle(self.now(), input);
        self.outputs();
    }

    fn passes(&mut self, microseconds: u64) {
        self.now += microseconds;
        self.swarm.handle_timeout(self.now());
        self.outputs();
    }

    fn now(&self) -> Now {
        Now { monotonic: Monotonic(self.now), wall: UnixSeconds(0) }
    }

    fn outputs(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            match output.output {
                NamedOutput::Send { peer, message } => self.said.push((peer, message)),
                NamedOutput::ServeFrame { peer, index, .. } => self.serving.push_back((peer, index)),
                NamedOutput::Meet { node } => self.met.push(node),
                NamedOutput::Store { pack, index, .. } => self.input(NamedInput::FrameStored { pack, index }),
                NamedOutput::Sync { pack } => self.input(NamedInput::PackSynced { pack }),
                NamedOutput::Complete { .. } => self.complete = true,
                NamedOutput::Penalise { .. } | NamedOutput::Disconnect { .. } => panic!("{:?}", output.output),
                NamedOutput::AskLease { .. } => {}
            }
            self.swarm.check_invariants();
        }
    }

    /// What the machine asked for, and of whom, since anything of what it said was last looked at.
    fn requests(&mut self) -> Vec<(NodeId, u32)> {
        let request = |(peer, message)| match message {
            BulkMessage::Request { index, .. } => Some((peer, index)),
            _ => None,
        };
        std::mem::take(&mut self.said).into_iter().filter_map(request).collect()
    }

    /// Which requests were put off, since anything of what the machine said was last looked at.
    fn put_off(&mut self) -> Vec<PutOff> {
        let put_off = |(peer, message)| match message {
            BulkMessage::Busy { index, retry_after_milliseconds, .. } => {
                Some(PutOff { peer, index, retry_after_milliseconds, instead: None })
            }
            BulkMessage::Elsewhere { index, retry_after_milliseconds, instead, .. } => {
                Some(PutOff { peer, index, retry_after_milliseconds, instead: Some(instead) })
            }
            BulkMessage::Refuse { .. } => panic!("{message:?}"),
            _ => None,
        };
        std::mem::take(&mut self.said).into_iter().filter_map(put_off).collect()
    }

    /// A socket has taken a frame: the oldest that is under way.
    fn serves_one(&mut self) -> Option<(NodeId, u32)> {
        let (peer, index) = self.serving.pop_front()?;
        self.input(NamedInput::FrameServed { peer, pack: self.pack.id(), index });
        assert!(self.serving.len() <= UPLOAD_SLOTS, "more is served than there are slots");
        Some((peer, index))
    }

    /// Sockets take one frame after the other, until nothing is left; gives them in that order.
    fn serves_all(&mut self) -> Vec<(NodeId, u32)> {
        std::iter::from_fn(|| self.serves_one()).collect()
    }
}

#[test]
fn one_neighbour_has_no_more_than_its_places_and_whatever_waits_is_served() {
    let mut bench = Bench::with_all_slots_taken();
    let greedy = node(20);
    bench.joins(greedy, 1);
    (0..PER_PEER + 5).for_each(|index| bench.asks(greedy, index));
    let put_off = bench.put_off();
    let beyond: Vec<u32> = put_off.iter().map(|answer| answer.index).collect();
    assert_eq!(beyond, (PER_PEER..PER_PEER + 5).collect::<Vec<_>>());
    assert!(put_off.iter().all(|answer| answer.peer == greedy && answer.instead.is_none()), "{put_off:?}");
    assert!(put_off.iter().all(|answer| answer.retry_after_milliseconds > 0), "{put_off:?}");
    let others = [node(21), node(22), node(23)];
    for other in others {
        bench.joins(other, 1);
        bench.asks(other, 0);
    }
    assert_eq!(bench.put_off(), [], "each has places of its own");
    let first = (0..UPLOAD_SLOTS).map(|number| (node(number), 0));
    let waited = (0..PER_PEER).map(|index| (greedy, index)).chain(others.map(|other| (other, 0)));
    assert_eq!(bench.serves_all(), first.chain(waited).collect::<Vec<_>>());
    // Whoever asks again later is served.
    beyond.iter().for_each(|index| bench.asks(greedy, *index));
    assert_eq!(bench.serves_all(), beyond.iter().map(|index| (greedy, *index)).collect::<Vec<_>>());
    assert_eq!(bench.put_off(), []);
}

#[test]
fn all_neighbours_together_have_no_more_than_the_queue_and_places_that_come_free_are_given_anew() {
    let mut bench = Bench::with_all_slots_taken();
    let many = 20..20 + UPLOAD_QUEUE_MAX / UPLOAD_QUEUE_PER_PEER_MAX;
    for number in many.clone() {
        bench.joins(node(number), 1);
        (0..PER_PEER).for_each(|index| bench.asks(node(number), index));
    }
    assert_eq!(bench.put_off(), []);
    let late = node(many.end);
    bench.joins(late, 1);
    bench.asks(late, 0);
    let put_off = bench.put_off();
    assert!(matches!(put_off[..], [PutOff { peer, index: 0, .. }] if peer == late), "{put_off:?}");
    assert!(put_off[0].retry_after_milliseconds > 0);
    // A frame that is served leaves a place, and so does each that a neighbour waited for that is gone.
    bench.serves_one();
    bench.asks(late, 0);
    assert_eq!(bench.put_off(), []);
    bench.asks(late, 1);
    assert_eq!(bench.put_off().len(), 1);
    bench.input(NamedInput::PeerLeft { peer: node(many.end - 1) });
    bench.asks(late, 1);
    assert_eq!(bench.put_off(), []);
    let served = bench.serves_all();
    let stayed = many.clone().take(many.len() - 1).flat_map(|number| (0..PER_PEER).map(move |index| (number, index)));
    let waited = stayed.map(|(number, index)| (node(number), index)).chain([(late, 0), (late, 1)]);
    assert!(served.ends_with(&waited.collect::<Vec<_>>()), "{served:?}");
}

#[test]
fn what_waits_for_a_neighbour_that_takes_nothing_is_put_off_and_its_slot_serves_others() {
    let mut bench = Bench::with_all_slots_taken();
    let (stuck, other) = (node(0), node(20));
    bench.joins(other, 1);
    bench.asks(stuck, 1);
    bench.asks(stuck, 2);
    bench.asks(other, 7);
    bench.passes(2 * SECOND);
    let put_off = bench.put_off();
    let indexes: Vec<u32> = put_off.iter().map(|answer| answer.index).collect();
    assert_eq!(indexes, [1, 2]);
    assert!(put_off.iter().all(|answer| answer.peer == stuck && answer.retry_after_milliseconds > 0), "{put_off:?}");
    assert_eq!(bench.serving.back(), Some(&(other, 7)));
}

#[test]
fn who_is_put_off_and_takes_redirections_hears_of_another_that_has_the_frame() {
    let mut bench = Bench::with_all_slots_taken();
    let (asker, even, also_even, odd, without) = (node(20), node(21), node(22), node(23), node(24));
    for peer in [asker, even, also_even, odd, without] {
        bench.joins(peer, 2);
    }
    // It says that it has them all itself: to itself it must not be sent.
    bench.has(asker, 0..FRAMES);
    bench.has(even, (0..FRAMES).step_by(2));
    bench.has(also_even, (0..FRAMES).step_by(2));
    bench.has(odd, (1..FRAMES).step_by(2));
    bench.has(without, []);
    (0..FRAMES).for_each(|index| bench.asks(asker, index));
    let put_off = bench.put_off();
    assert_eq!(put_off.len() as u32, FRAMES - PER_PEER);
    for PutOff { peer, index, retry_after_milliseconds, instead } in &put_off {
        let holders = if index % 2 == 0 { &[even, also_even][..] } else { &[odd] };
        assert!(*peer == asker && *retry_after_milliseconds > 0);
        assert!(instead.is_some_and(|instead| holders.contains(&instead)), "frame {index}: {instead:?}");
    }
    for holder in [even, also_even] {
        assert!(put_off.iter().any(|answer| answer.instead == Some(holder)), "one of two is always chosen");
    }
    // Where nobody else has it, nobody is named.
    bench.input(NamedInput::PeerLeft { peer: odd });
    bench.asks(asker, PER_PEER + 1);
    assert!(matches!(bench.put_off()[..], [PutOff { instead: None, .. }]));
    // Nor to one of version 1, which does not know the message.
    let old = node(25);
    bench.joins(old, 1);
    (0..=PER_PEER).for_each(|index| bench.asks(old, index));
    let put_off = bench.put_off();
    assert!(matches!(put_off[..], [PutOff { index: PER_PEER, instead: None, .. }]), "{put_off:?}");
}

#[test]
fn the_first_holder_puts_off_whoever_asks_out_of_turn_while_it_has_much_to_push() {
    for (version, named) in [(1, None), (2, Some(OTHER))] {
        let mut bench = Bench::new(Bitmap::full(FRAMES), true);
        let asker = node(0);
        bench.joins(asker, version);
        bench.joins(OTHER, 2);
        // What a neighbour has need not be pushed: 17 frames are left.
        bench.has(OTHER, 0..FRAMES - 17);
        bench.asks(asker, 0);
        let put_off = bench.put_off();
        let longer = matches!(put_off[..], [PutOff { index: 0, retry_after_milliseconds: 100.., instead, .. }] if instead == named);
        assert!(longer, "version {version}: {put_off:?}");
        bench.has(OTHER, 0..FRAMES - 16);
        bench.asks(asker, 0);
        assert_eq!((bench.put_off(), bench.serves_all()), (vec![], vec![(asker, 0)]), "version {version}");
    }
}

#[test]
fn who_is_sent_to_a_member_that_it_does_not_know_meets_it_and_asks_it() {
    for version in [1, 2] {
        let (mut bench, index) = Bench::with_a_request(2);
        bench.sends_elsewhere(index, 5_000, OTHER);
        assert_eq!((bench.requests(), &bench.met[..]), (vec![], &[OTHER][..]));
        bench.joins(OTHER, version);
        bench.has(OTHER, [index]);
        bench.offers_turn(OTHER, version);
        assert_eq!(bench.requests(), [(OTHER, index)], "version {version}");
    }
}

#[test]
fn who_is_sent_to_a_neighbour_asks_it_at_once_or_tells_it_that_its_turns_are_welcome() {
    let (mut bench, index) = Bench::with_a_request(2);
    bench.joins(OTHER, 1);
    bench.has(OTHER, [index]);
    assert_eq!(bench.requests(), [], "the frame is on its way");
    bench.sends_elsewhere(index, 5_000, OTHER);
    assert_eq!((bench.requests(), &bench.met[..]), (vec![(OTHER, index)], &[][..]));

    let (mut bench, index) = Bench::with_a_request(2);
    let pack = bench.pack.id();
    bench.joins(OTHER, 2);
    bench.has(OTHER, [index]);
    bench.said.clear();
    bench.offers_turn(OTHER, 2);
    assert_eq!(bench.said, [(OTHER, BulkMessage::Pass { pack })], "the frame is on its way");
    bench.said.clear();
    bench.sends_elsewhere(index, 5_000, OTHER);
    assert!(bench.met.is_empty() && bench.said.contains(&(OTHER, BulkMessage::Interest { pack })), "{:?}", bench.said);
    bench.offers_turn(OTHER, 2);
    assert_eq!(bench.requests(), [(OTHER, index)]);
}

#[test]
fn a_redirection_to_whoever_cannot_help_does_no_harm() {
    for (named, is_met) in
        [(STRANGER, true), (OWN, true), (BUSY, false), (ORIGIN, false), (OUTSIDE, false), (IDLE, false)]
    {
        let (mut bench, index) = Bench::with_a_request(1);
        bench.joins(IDLE, 1);
        bench.has(IDLE, []);
        bench.input(NamedInput::PeerJoined { peer: ORIGIN, place: Place::Origin, version: 2 });
        bench.input(NamedInput::PeerJoined { peer: OUTSIDE, place: Place::Outside, version: 2 });
        bench.sends_elsewhere(index, 1_000, named);
        let met = if is_met { vec![named] } else { vec![] };
        assert_eq!((bench.requests(), &bench.met), (vec![], &met), "{named:?}");
        // Whoever was named is not waited for: the speaker is asked again after its time.
        bench.passes(SECOND - 1);
        assert_eq!(bench.requests(), [], "{named:?}");
        bench.passes(1);
        for _ in 0..FRAMES {
            let requests = bench.requests();
            let [(BUSY, index)] = requests[..] else { panic!("{named:?}: {requests:?}") };
            bench.frame(BUSY, index);
        }
        assert!(bench.complete && bench.met == met, "{named:?}");
    }
}

#[test]
fn a_busy_neighbour_rests_as_long_as_it_says_up_to_ten_seconds_and_others_are_asked_meanwhile() {
    let rests = [(0, 1_000), (1, 1_000), (2_500, 2_500_000), (10_000, 10 * SECOND), (u32::MAX, 10 * SECOND)];
    for (milliseconds, rest) in rests {
        let (mut bench, index) = Bench::with_a_request(1);
        bench.joins(OTHER, 1);
        bench.has(OTHER, [index]);
        assert_eq!(bench.requests(), []);
        bench.is_busy(BUSY, index, milliseconds);
        assert_eq!(bench.requests(), [(OTHER, index)], "{milliseconds} ms");
        bench.frame(OTHER, index);
        bench.passes(rest - 1);
        assert_eq!(bench.requests(), [], "{milliseconds} ms");
        bench.passes(1);
        let requests = bench.requests();
        assert!(matches!(requests[..], [(BUSY, again)] if again != index), "{milliseconds} ms: {requests:?}");
    }
}

#[test]
fn a_busy_neighbour_that_gives_turns_is_asked_out_of_turn_after_its_time_only() {
    let mut bench = Bench::new(Bitmap::new(FRAMES), false);
    bench.joins(BUSY, 2);
    bench.has(BUSY, 0..FRAMES);
    bench.passes(3 * SECOND);
    let requests = bench.requests();
    let [(BUSY, index)] = requests[..] else { panic!("{requests:?}") };
    bench.is_busy(BUSY, index, 7_000);
    for _ in 0..69 {
        bench.passes(SECOND / 10);
        assert_eq!(bench.requests(), []);
    }
    (0..31).for_each(|_| bench.passes(SECOND / 10));
    let requests = bench.requests();
    let [(BUSY, index)] = requests[..] else { panic!("{requests:?}") };
    // A turn that it offers itself says that it has time.
    bench.is_busy(BUSY, index, 7_000);
    bench.offers_turn(BUSY, 2);
    assert_eq!(bench.requests().len(), 1);
}

#[test]
fn a_busy_answer_that_nobody_asked_for_stops_nothing() {
    let (mut bench, index) = Bench::with_a_request(1);
    bench.is_busy(BUSY, (index + 1) % FRAMES, 10_000);
    bench.sends_elsewhere((index + 1) % FRAMES, 10_000, BUSY);
    bench.frame(BUSY, index);
    assert_eq!(bench.requests().len(), 1);
}
