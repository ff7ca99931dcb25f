//! The edge of the machine: nodes and packs by name, messages of the bulk plane.
//!
//! [`NamedSwarm`] owns a [`Swarm`] and the tables that turn names into keys. Runtimes that speak on sockets use this;
//! a simulator of many nodes gives its own slots to [`Swarm`] and spends nothing on names.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    interface::{
        GrantedLease, PackKey, PeerKey, Place, Progress, SwarmInput, SwarmOutput, SwarmSetup, WantedPack, Word,
    },
    names::{NamedInput, NamedOutput},
    state::Swarm,
};
use crate::{
    content::{Bitmap, Pack},
    ids::{NodeId, PackId},
    limits::{BULK_CONNECTIONS_MAX, PACKS_PER_PEER_MAX, SWARM_PACKS_MAX},
    machine::{Deadline, Machine, Sequence, Sequenced},
    refusal::{Refusal, RefusalKind},
    time::{Monotonic, Now},
    wire::bulk::{BULK_VERSION_TURNS, BulkMessage},
};

#[derive(Clone, Debug)]
struct NamedPeer {
    node: NodeId,
    place: Place,
    /// Packs that it wants to hear of, also those that are not known here yet.
    interests: BTreeSet<PackId>,
}

/// A swarm with names; see the module's description.
#[derive(Clone, Debug)]
pub struct NamedSwarm {
    swarm: Swarm,
    peers: Vec<Option<NamedPeer>>,
    by_node: BTreeMap<NodeId, PeerKey>,
    /// Known packs and their numbers of frames.
    packs: Vec<Option<(PackId, u32)>>,
    by_pack: BTreeMap<PackId, PackKey>,
    outputs: VecDeque<Sequenced<NamedOutput>>,
}

/// The first slot that is free, below `limit`.
fn free_slot<T>(slots: &mut Vec<Option<T>>, limit: usize) -> Option<usize> {
    if let Some(free) = slots.iter().position(Option::is_none) {
        return Some(free);
    }
    (slots.len() < limit).then(|| {
        slots.push(None);
        slots.len() - 1
    })
}

impl NamedSwarm {
    /// A swarm without packs and neighbours.
    pub fn new(setup: SwarmSetup) -> Self {
        Self {
            swarm: Swarm::new(setup),
            peers: Vec::new(),
            by_node: BTreeMap::new(),
            packs: Vec::new(),
            by_pack: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Frames of `pack` that are stored here; `None` where the pack is not known.
    pub fn have(&self, pack: PackId) -> Option<&Bitmap> {
        self.swarm.have(*self.by_pack.get(&pack)?)
    }

    /// Whether a node may not be a neighbour now, because it served corrupt frames.
    pub fn bans(&self, now: Monotonic, node: NodeId) -> bool {
        self.swarm.bans(now, node)
    }

    /// How far every pack is.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        self.swarm.progress()
    }

    /// Whether a neighbour and this node have nothing to give each other now, so that it may be left for another's sake.
    pub fn is_spare(&self, node: NodeId) -> bool {
        self.by_node.get(&node).is_none_or(|peer| self.swarm.is_spare(*peer))
    }

    /// Whether any pack still lacks frames.
    pub fn wants_frames(&self) -> bool {
        self.swarm.wants_frames()
    }

    /// Whether frames are missing and nobody has been asked for any.
    pub fn is_starving(&self) -> bool {
        self.swarm.is_starving()
    }

    /// Whether this node holds a lease and needs the origin.
    pub fn needs_origin(&self) -> bool {
        self.swarm.needs_origin()
    }

    fn out(&mut self, output: NamedOutput) {
        self.outputs.push_back(Sequenced { after: Sequence::default(), output });
    }

    fn tell(&mut self, now: Now, input: SwarmInput) {
        self.swarm.handle(now, input);
        self.drain();
    }

    fn want(&mut self, now: Now, manifest: Arc<Pack>, kept: Bitmap, raw: Option<Bitmap>, source: bool) {
        let id = manifest.id();
        if self.by_pack.contains_key(&id) || kept.length() != manifest.frames() {
            return;
        }
        let Some(slot) = free_slot(&mut self.packs, SWARM_PACKS_MAX) else { return };
        let pack = PackKey(slot as u16);
        self.packs[slot] = Some((id, manifest.frames()));
        self.by_pack.insert(id, pack);
        let wanted = Box::new(WantedPack { manifest, kept, raw, source });
        self.tell(now, SwarmInput::Want { pack, wanted });
        let interested = |(slot, peer): (usize, &Option<NamedPeer>)| {
            peer.as_ref().filter(|peer| peer.interests.contains(&id)).map(|_| PeerKey(slot as u16))
        };
        let interested: Vec<PeerKey> = self.peers.iter().enumerate().filter_map(interested).collect();
        for peer in interested {
            self.tell(now, SwarmInput::Said { peer, pack, word: Word::Interest });
        }
    }

    fn forget(&mut self, now: Now, id: PackId) {
        if let Some(pack) = self.by_pack.get(&id).copied() {
            self.tell(now, SwarmInput::Forget { pack });
            self.by_pack.remove(&id);
            self.packs[usize::from(pack.0)] = None;
        }
    }

    fn peer_joined(&mut self, now: Now, node: NodeId, place: Place, version: u16) {
        self.peer_left(now, node);
        let Some(slot) = free_slot(&mut self.peers, BULK_CONNECTIONS_MAX) else {
            return self.out(NamedOutput::Disconnect { peer: node, why: "more neighbours than one node may have" });
        };
        let peer = PeerKey(slot as u16);
        self.peers[slot] = Some(NamedPeer { node, place, interests: BTreeSet::new() });
        self.by_node.insert(node, peer);
        let takes_turns = version >= BULK_VERSION_TURNS;
        self.tell(now, SwarmInput::PeerJoined { peer, node, place, takes_turns });
    }

    fn peer_left(&mut self, now: Now, node: NodeId) {
        if let Some(peer) = self.by_node.remove(&node) {
            self.tell(now, SwarmInput::PeerLeft { peer });
            self.peers[usize::from(peer.0)] = None;
        }
    }

    fn message(&mut self, now: Now, node: NodeId, message: BulkMessage) {
        let Some(peer) = self.by_node.get(&node).copied() else { return };
        let (id, word) = match message {
            BulkMessage::Interest { pack } => (pack, Word::Interest),
            BulkMessage::NoInterest { pack } => (pack, Word::NoInterest),
            BulkMessage::Have { pack, bitmap } => {
                let frames = self.by_pack.get(&pack).and_then(|key| self.packs[usize::from(key.0)]);
                // What does not fit becomes a bitmap that fits no pack: the machine knows what to do with it.
                let bitmap = frames.map_or_else(Default::default, |(_, frames)| {
                    Bitmap::from_bytes(&bitmap, frames).unwrap_or_default()
                });
                (pack, Word::Have(Box::new(bitmap)))
            }
            BulkMessage::HaveFrames { pack, indexes } => match indexes[..] {
                [index] => (pack, Word::HaveFrame(index)),
                _ => (pack, Word::HaveFrames(indexes)),
            },
            BulkMessage::Request { pack, index } => (pack, Word::Request(index)),
            BulkMessage::Turn { pack } => (pack, Word::Turn),
            BulkMessage::Pass { pack } => (pack, Word::Pass),
            BulkMessage::Busy { pack, index, retry_after_milliseconds } => {
                (pack, Word::Busy { index, retry_after_milliseconds, instead: None })
            }
            BulkMessage::Elsewhere { pack, index, retry_after_milliseconds, instead } => {
                let known = self.by_node.get(&instead).copied();
                if known.is_none() {
                    self.out(NamedOutput::Meet { node: instead });
                }
                (pack, Word::Busy { index, retry_after_milliseconds, instead: known })
            }
            BulkMessage::Refuse { pack, index, refusal } => (pack, Word::Refuse { index, kind: refusal.kind }),
            BulkMessage::Frame { pack, index, bytes } => {
                return self.frame_arrived(now, node, pack, index, bytes.len() as u32, false);
            }
            BulkMessage::Chunk { pack, index, bytes } => {
                return self.frame_arrived(now, node, pack, index, bytes.len() as u32, true);
            }
            _ => return,
        };
        self.said(now, peer, id, word);
    }

    fn said(&mut self, now: Now, peer: PeerKey, id: PackId, word: Word) {
        let Some(named) = self.peers[usize::from(peer.0)].as_mut() else { return };
        match word {
            Word::Interest if named.interests.len() < PACKS_PER_PEER_MAX => drop(named.interests.insert(id)),
            Word::NoInterest => drop(named.interests.remove(&id)),
            _ => {}
        }
        let (node, place) = (named.node, named.place);
        match (self.by_pack.get(&id).copied(), word) {
            (Some(pack), word) => self.tell(now, SwarmInput::Said { peer, pack, word }),
            (None, Word::Turn) => self.out(NamedOutput::Send { peer: node, message: BulkMessage::Pass { pack: id } }),
            (None, Word::Request(index)) => {
                let kind = if place == Place::Inside { RefusalKind::NotFound } else { RefusalKind::NotAuthorised };
                let message = refuse(id, Some(index), kind);
                self.out(NamedOutput::Send { peer: node, message });
            }
            _ => {}
        }
    }

    fn frame_arrived(&mut self, now: Now, node: NodeId, id: PackId, index: u32, length: u32, raw: bool) {
        if let (Some(peer), Some(pack)) = (self.by_node.get(&node).copied(), self.by_pack.get(&id).copied()) {
            self.tell(now, SwarmInput::FrameArrived { peer, pack, index, length, raw });
        }
    }

    /// Something happened to a pack; what is no longer known is ignored.
    fn of_pack(&mut self, now: Now, id: PackId, input: impl FnOnce(PackKey) -> SwarmInput) {
        if let Some(pack) = self.by_pack.get(&id).copied() {
            self.tell(now, input(pack));
        }
    }

    fn drain(&mut self) {
        while let Some(Sequenced { output, .. }) = self.swarm.poll_output() {
            let named = self.named(output);
            self.outputs.extend(named.map(|output| Sequenced { after: Sequence::default(), output }));
        }
    }

    fn node(&self, peer: PeerKey) -> Option<NodeId> {
        self.peers.get(usize::from(peer.0))?.as_ref().map(|peer| peer.node)
    }

    fn id(&self, pack: PackKey) -> Option<PackId> {
        self.packs.get(usize::from(pack.0))?.map(|(id, _)| id)
    }

    fn named(&self, output: SwarmOutput) -> Option<NamedOutput> {
        Some(match output {
            SwarmOutput::Say { peer, pack, word } => {
                let message = self.message_of(self.id(pack)?, word);
                NamedOutput::Send { peer: self.node(peer)?, message }
            }
            SwarmOutput::ShowLease { peer, signed } => {
                NamedOutput::Send { peer: self.node(peer)?, message: BulkMessage::ShowLease(signed) }
            }
            SwarmOutput::Store { pack, index, peer } => {
                NamedOutput::Store { pack: self.id(pack)?, index, peer: self.node(peer)? }
            }
            SwarmOutput::ServeFrame { peer, pack, index } => {
                NamedOutput::ServeFrame { peer: self.node(peer)?, pack: self.id(pack)?, index }
            }
            SwarmOutput::Sync { pack } => NamedOutput::Sync { pack: self.id(pack)? },
            SwarmOutput::Penalise { peer, pack, until, offence } => {
                let (peer, pack) = (self.node(peer)?, self.id(pack)?);
                NamedOutput::Penalise { peer, pack, until, why: offence.to_string() }
            }
            SwarmOutput::Disconnect { peer, why } => NamedOutput::Disconnect { peer: self.node(peer)?, why },
            SwarmOutput::AskLease { pack, held } => NamedOutput::AskLease { pack: self.id(pack)?, held },
            SwarmOutput::Complete { pack, wan_bytes, lan_bytes } => {
                NamedOutput::Complete { pack: self.id(pack)?, wan_bytes, lan_bytes }
            }
        })
    }

    fn message_of(&self, pack: PackId, word: Word) -> BulkMessage {
        match word {
            Word::Interest => BulkMessage::Interest { pack },
            Word::NoInterest => BulkMessage::NoInterest { pack },
            Word::Have(bitmap) => BulkMessage::Have { pack, bitmap: bitmap.to_bytes() },
            Word::HaveFrame(index) => BulkMessage::HaveFrames { pack, indexes: vec![index] },
            Word::HaveFrames(indexes) => BulkMessage::HaveFrames { pack, indexes },
            Word::Request(index) => BulkMessage::Request { pack, index },
            Word::Turn => BulkMessage::Turn { pack },
            Word::Pass => BulkMessage::Pass { pack },
            Word::Busy { index, retry_after_milliseconds, instead } => match instead.and_then(|peer| self.node(peer)) {
                Some(instead) => BulkMessage::Elsewhere { pack, index, retry_after_milliseconds, instead },
                None => BulkMessage::Busy { pack, index, retry_after_milliseconds },
            },
            Word::Refuse { index, kind } => refuse(pack, index, kind),
        }
    }
}

fn refuse(pack: PackId, index: Option<u32>, kind: RefusalKind) -> BulkMessage {
    let reason = match (kind, index) {
        (RefusalKind::NotFound, Some(index)) => format!("frame {index} is not here"),
        _ => "frames are served inside the site only".to_owned(),
    };
    BulkMessage::Refuse { pack, index, refusal: Refusal::new(kind, reason) }
}

impl Machine for NamedSwarm {
    type Input = NamedInput;
    type Output = NamedOutput;

    fn handle(&mut self, now: Now, input: NamedInput) {
        match input {
            NamedInput::Want { pack, kept, raw, source } => self.want(now, pack, kept, raw, source),
            NamedInput::Forget { pack } => self.forget(now, pack),
            NamedInput::PeerJoined { peer, place, version } => self.peer_joined(now, peer, place, version),
            NamedInput::PeerLeft { peer } => self.peer_left(now, peer),
            NamedInput::PeerMalformed { peer } => {
                if let Some(peer) = self.by_node.get(&peer).copied() {
                    self.tell(now, SwarmInput::PeerMalformed { peer });
                }
            }
            NamedInput::Message { peer, message } => self.message(now, peer, message),
            NamedInput::FrameArrived { peer, pack, index, length, raw } => {
                self.frame_arrived(now, peer, pack, index, length, raw);
            }
            NamedInput::FrameStored { pack, index } => {
                self.of_pack(now, pack, |pack| SwarmInput::FrameStored { pack, index });
            }
            NamedInput::FrameCorrupt { pack, index } => {
                self.of_pack(now, pack, |pack| SwarmInput::FrameCorrupt { pack, index });
            }
            NamedInput::StoreFailed { pack, index } => {
                self.of_pack(now, pack, |pack| SwarmInput::StoreFailed { pack, index });
            }
            NamedInput::FrameLost { pack, index } => {
                self.of_pack(now, pack, |pack| SwarmInput::FrameLost { pack, index });
            }
            NamedInput::FrameServed { peer, pack, index } => {
                if let Some(peer) = self.by_node.get(&peer).copied() {
                    self.of_pack(now, pack, |pack| SwarmInput::FrameServed { peer, pack, index });
                }
            }
            NamedInput::PackSynced { pack } => self.of_pack(now, pack, |pack| SwarmInput::PackSynced { pack }),
            NamedInput::Rates { send_bytes_per_second, receive_bytes_per_second } => {
                self.tell(now, SwarmInput::Rates { send_bytes_per_second, receive_bytes_per_second });
            }
            NamedInput::LeaseGranted { signed, lease, held } => {
                let granted = Box::new(GrantedLease { signed, lease, held });
                let id = granted.lease.pack;
                self.of_pack(now, id, |pack| SwarmInput::LeaseGranted { pack, lease: granted });
            }
            NamedInput::LeaseRevoked { pack } => self.of_pack(now, pack, |pack| SwarmInput::LeaseRevoked { pack }),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.swarm.handle_timeout(now);
        self.drain();
    }

    fn poll_output(&mut self) -> Option<Sequenced<NamedOutput>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.swarm.poll_timeout()
    }

    fn check_invariants(&self) {
        self.swarm.check_invariants();
        let nodes = self.by_node.iter().all(|(node, key)| self.node(*key) == Some(*node));
        let packs = self.by_pack.iter().all(|(pack, key)| self.id(*key) == Some(*pack));
        assert!(nodes && packs, "a name leads to another's key");
        assert_eq!(self.peers.iter().flatten().count(), self.by_node.len(), "a key without a name");
    }
}
