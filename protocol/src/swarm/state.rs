//! What the machine knows, what can happen to it, what it wants done.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::{
    charter::{Lease, Signed},
    content::{Bitmap, Pack},
    ids::{Epoch, NodeId, PackId},
    limits::LAN_IN_FLIGHT_BYTES,
    machine::{Sequence, Sequenced},
    time::Monotonic,
    wire::bulk::BulkMessage,
};

/// Where a neighbour is, as both ends see it by their socket addresses and the charter's prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Both addresses lie in the site's prefixes: what it sends is LAN traffic.
    Inside,
    /// A member elsewhere: nothing is exchanged with it.
    Outside,
    /// Headquarters: what it sends crosses the WAN and needs a lease.
    Origin,
}

/// What a swarm is built from.
#[derive(Clone, Copy, Debug)]
pub struct SwarmSetup {
    /// Seeds the choice among equally rare frames.
    pub seed: u64,
    /// B of R70 in bytes, from the charter.
    pub leased_bytes_max: u64,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum SwarmInput {
    /// This node wants the pack, or has it already; `kept` is what its store holds. Repeating it changes nothing.
    Want {
        /// The checked manifest.
        pack: Arc<Pack>,
        /// Frames that are verified and synced.
        kept: Bitmap,
    },
    /// The pack no longer matters; its frames may be deleted.
    Forget {
        /// The pack.
        pack: PackId,
    },
    /// A neighbour's hello was accepted.
    PeerJoined {
        /// Who.
        peer: NodeId,
        /// Where it is.
        place: Place,
    },
    /// A neighbour's connection is gone.
    PeerLeft {
        /// Who.
        peer: NodeId,
    },
    /// A neighbour says something.
    Message {
        /// Who.
        peer: NodeId,
        /// What.
        message: BulkMessage,
    },
    /// A frame passed its check and is written; it can be read and served from now on.
    FrameStored {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// A frame is not what the manifest says; it was thrown away.
    FrameCorrupt {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
        /// Who sent it.
        peer: NodeId,
    },
    /// A frame was good but could not be written; the pack rests for a while.
    StoreFailed {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// A frame that counted as stored cannot be read back any more.
    FrameLost {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// An answer to [`SwarmOutput::ServeFrame`]: sent, or given up.
    FrameServed {
        /// To whom.
        peer: NodeId,
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// An answer to [`SwarmOutput::Sync`]: every frame of the pack survives a power cut.
    PackSynced {
        /// The pack.
        pack: PackId,
    },
    /// The station made this node the pack's inlet, or goes on doing so.
    LeaseGranted {
        /// As signed, to show to the origin.
        signed: Signed<Lease>,
        /// The same, verified.
        lease: Lease,
        /// Frames that other nodes of the site hold, in a bitmap's wire form; empty: none are known.
        held: Vec<u8>,
    },
    /// The station took the lease back.
    LeaseRevoked {
        /// The pack.
        pack: PackId,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwarmOutput {
    /// Send a message.
    Send {
        /// To whom.
        peer: NodeId,
        /// What.
        message: BulkMessage,
    },
    /// Check the frame against the manifest and write it; answer with `FrameStored`, `FrameCorrupt` or `StoreFailed`.
    Store {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
        /// What came.
        bytes: Vec<u8>,
        /// Who sent it.
        peer: NodeId,
    },
    /// Read the frame and send it; answer with `FrameServed`, whatever comes of it.
    ServeFrame {
        /// To whom.
        peer: NodeId,
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// Make every frame of the pack durable; answer with `PackSynced` or `StoreFailed`.
    Sync {
        /// The pack.
        pack: PackId,
    },
    /// Close the connection and take none from this peer until then.
    Penalise {
        /// Who.
        peer: NodeId,
        /// Which pack it was about.
        pack: PackId,
        /// Until when.
        until: Monotonic,
        /// What it did.
        why: String,
    },
    /// Close the connection; the peer may come again.
    Disconnect {
        /// Who.
        peer: NodeId,
        /// Why.
        why: &'static str,
    },
    /// Ask the station for the pack's lease, or renew it.
    AskLease {
        /// The pack.
        pack: PackId,
        /// Frames that this node has.
        held: u32,
    },
    /// All frames are here, verified and synced. Said once per pack, also where nothing was missing from the start.
    Complete {
        /// The pack.
        pack: PackId,
        /// Frame bytes that came over the WAN since the start of the process.
        wan_bytes: u64,
        /// Frame bytes that came from inside the site since the start of the process.
        lan_bytes: u64,
    },
    /// A frame came in; for the accounts.
    Account {
        /// From whom.
        peer: NodeId,
        /// The pack.
        pack: PackId,
        /// Frame bytes.
        bytes: u64,
        /// Over which path.
        place: Place,
        /// Whether it was wanted; `false` for duplicates.
        useful: bool,
    },
}

/// How far a pack is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The pack.
    pub pack: PackId,
    /// Frames that are verified and stored.
    pub frames: u32,
    /// Frames in all.
    pub frames_total: u32,
    /// Bytes that are verified and stored.
    pub bytes: u64,
    /// Length of the pack in bytes.
    pub bytes_total: u64,
    /// Bytes that came over the WAN.
    pub wan_bytes: u64,
    /// Bytes that came from inside the site.
    pub lan_bytes: u64,
    /// Whether this node holds the lease.
    pub inlet: bool,
    /// Whether everything is synced.
    pub complete: bool,
}

/// How far making a pack durable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    Incomplete,
    Syncing,
    Complete,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub peer: NodeId,
    pub wan: bool,
}

/// The own lease of one pack.
#[derive(Clone, Debug)]
pub(super) struct OwnLease {
    pub signed: Signed<Lease>,
    pub rank: (Epoch, u64),
    pub expires_at: Monotonic,
    pub renew_at: Monotonic,
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    pub peer: NodeId,
    /// It crossed the WAN.
    pub wan: bool,
}

/// One pack. Every frame is in exactly one of `have`, `storing`, `in_flight` and `missing`.
#[derive(Clone, Debug)]
pub(super) struct PackState {
    pub pack: Arc<Pack>,
    pub have: Bitmap,
    pub missing: BTreeSet<u32>,
    pub in_flight: BTreeMap<u32, Flight>,
    /// Frames at the store, and who sent them.
    pub storing: BTreeMap<u32, Sender>,
    /// How many neighbours inside the site have each frame.
    pub holders: Vec<u16>,
    /// Bytes of frames that this node has and no neighbour has.
    pub sole_bytes: u64,
    /// Bytes that were asked of the origin and are not stored yet.
    pub wan_pending_bytes: u64,
    pub lease: Option<OwnLease>,
    pub ask_lease_at: Monotonic,
    /// Frames that some node of the site holds, by the station's word.
    pub site_held: Bitmap,
    pub stalled_until: Option<Monotonic>,
    pub durability: Durability,
    pub wan_bytes: u64,
    pub lan_bytes: u64,
}

/// What a neighbour has and wants of one pack.
#[derive(Clone, Debug)]
pub(super) struct PeerPack {
    /// Known frames; `None` until it says so and the pack is known here.
    pub have: Option<Bitmap>,
    pub interested: bool,
    /// When it last spoke of this pack.
    pub last_word: Monotonic,
    /// Nothing that it has is missing here; cleared when that may have changed.
    pub nothing_useful: bool,
    /// Frames to announce to it.
    pub announce: Vec<u32>,
}

/// One neighbour.
#[derive(Clone, Debug)]
pub(super) struct PeerState {
    pub place: Place,
    pub packs: BTreeMap<PackId, PeerPack>,
    pub flights: BTreeMap<(PackId, u32), u64>,
    pub in_flight_bytes: u64,
    pub budget_bytes: u64,
    pub last_progress: Monotonic,
    /// Busy, or silent for too long: nothing is asked of it until then.
    pub rests_until: Option<Monotonic>,
}

impl PeerState {
    pub fn new(place: Place, now: Monotonic) -> Self {
        Self {
            place,
            packs: BTreeMap::new(),
            flights: BTreeMap::new(),
            in_flight_bytes: 0,
            budget_bytes: LAN_IN_FLIGHT_BYTES,
            last_progress: now,
            rests_until: None,
        }
    }
}

/// A peer that sent what it should not have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ban {
    pub until: Monotonic,
    pub times: u32,
}

/// One node's part in the swarm; see the module's description.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub(super) leased_bytes_max: u64,
    pub(super) random: ChaCha8Rng,
    pub(super) packs: BTreeMap<PackId, PackState>,
    pub(super) peers: BTreeMap<NodeId, PeerState>,
    pub(super) bans: BTreeMap<NodeId, Ban>,
    /// Uploads that the runtime carries out now.
    pub(super) serving: BTreeSet<(NodeId, PackId, u32)>,
    /// Uploads that wait for a slot.
    pub(super) upload_queue: VecDeque<(NodeId, PackId, u32)>,
    pub(super) announce_at: Option<Monotonic>,
    pub(super) storing_bytes: u64,
    /// The latest time that the machine was told.
    pub(super) latest: Monotonic,
    pub(super) outputs: VecDeque<Sequenced<SwarmOutput>>,
}

impl Swarm {
    /// A swarm without packs and neighbours.
    pub fn new(setup: SwarmSetup) -> Self {
        Self {
            leased_bytes_max: setup.leased_bytes_max,
            random: ChaCha8Rng::seed_from_u64(setup.seed),
            packs: BTreeMap::new(),
            peers: BTreeMap::new(),
            bans: BTreeMap::new(),
            serving: BTreeSet::new(),
            upload_queue: VecDeque::new(),
            announce_at: None,
            storing_bytes: 0,
            latest: Monotonic::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Frames of `pack` that are stored here; `None` where the pack is not known.
    pub fn have(&self, pack: PackId) -> Option<&Bitmap> {
        self.packs.get(&pack).map(|state| &state.have)
    }

    /// How far every pack is.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        self.packs.iter().map(|(pack, state)| Progress {
            pack: *pack,
            frames: state.have.count(),
            frames_total: state.have.length(),
            bytes: state.have.iter().map(|index| state.pack.frame_length(index)).sum(),
            bytes_total: state.pack.length(),
            wan_bytes: state.wan_bytes,
            lan_bytes: state.lan_bytes,
            inlet: state.lease.is_some(),
            complete: state.durability == Durability::Complete,
        })
    }

    /// Whether any pack still lacks frames.
    pub fn wants_frames(&self) -> bool {
        self.packs.values().any(|state| !state.have.is_full())
    }

    /// Whether this node holds a lease and needs the origin.
    pub fn needs_origin(&self) -> bool {
        self.packs.values().any(|state| state.lease.is_some() && !state.have.is_full())
    }

    pub(super) fn say(&mut self, output: SwarmOutput) {
        self.outputs.push_back(Sequenced { after: Sequence::default(), output });
    }

    pub(super) fn send(&mut self, peer: NodeId, message: BulkMessage) {
        self.say(SwarmOutput::Send { peer, message });
    }
}
