//! What can happen to the machine and what it wants done.
//!
//! Peers and packs go by small keys that the caller gives: its own slots, dense and reused. Names stay outside (see
//! [`super::NamedSwarm`]), and so do the bytes of frames: the machine knows lengths and outcomes only.
use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::tuning::Tuning;
use crate::{
    charter::{Lease, Signed},
    content::{Bitmap, Pack},
    ids::{NodeId, PackId},
    refusal::RefusalKind,
    time::Monotonic,
};

/// A neighbour, by the slot that the caller keeps it in: below [`crate::limits::BULK_CONNECTIONS_MAX`]. Free for another
/// neighbour once `PeerLeft` was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u16);

/// A pack, by the slot that the caller keeps it in: below [`crate::limits::SWARM_PACKS_MAX`]. Free for another pack once
/// `Forget` was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackKey(pub u16);

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
    /// How much at a time.
    pub tuning: Tuning,
}

/// What neighbours say to each other about one pack; frames and leases are said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Tell me which frames you have, now and as they come.
    Interest,
    /// I no longer want to hear of this pack.
    NoInterest,
    /// These frames I have, and no others that you know of.
    Have(Box<Bitmap>),
    /// This frame I have as well.
    HaveFrame(u32),
    /// These frames I have as well, at most [`crate::limits::HAVE_FRAMES_MAX`].
    HaveFrames(Vec<u32>),
    /// Ask me for one frame now: I have a slot for you, and something that you may lack.
    Turn,
    /// The answer to a turn: I need nothing of you now. `Interest` says when that changes.
    Pass,
    /// Send me this frame: the answer to a turn; of a neighbour that gives none, whenever there is something to ask.
    Request(u32),
    /// Not now.
    Busy {
        /// The frame.
        index: u32,
        /// Ask again after this time.
        retry_after_milliseconds: u32,
        /// Or ask this one, in the numbering of whoever reads it: a neighbour of the speaker that has the frame.
        instead: Option<PeerKey>,
    },
    /// Not at all.
    Refuse {
        /// The frame; `None` where a lease is refused.
        index: Option<u32>,
        /// Why.
        kind: RefusalKind,
    },
}

/// A lease that was given to this node.
#[derive(Clone, Debug)]
pub struct GrantedLease {
    /// As signed, to show to the origin.
    pub signed: Signed<Lease>,
    /// The same, verified.
    pub lease: Lease,
    /// Frames that other nodes of the site hold, in a bitmap's wire form; empty: none are known.
    pub held: Vec<u8>,
}

/// A pack that this node wants, or has.
#[derive(Clone, Debug)]
pub struct WantedPack {
    /// The checked manifest.
    pub manifest: Arc<Pack>,
    /// Frames that are verified and synced.
    pub kept: Bitmap,
    /// Frames of `kept` that are here as raw chunks only; `None`: none of them.
    pub raw: Option<Bitmap>,
    /// Whether this node is where the pack enters the site: it was published here, or this is the station. What no
    /// neighbour has is then pushed, each frame once, before it is announced.
    pub source: bool,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum SwarmInput {
    /// This node wants the pack, or has it already. Ignored where the key is taken.
    Want {
        /// Its key.
        pack: PackKey,
        /// Which one.
        wanted: Box<WantedPack>,
    },
    /// The pack no longer matters; its frames may be deleted.
    Forget {
        /// The pack.
        pack: PackKey,
    },
    /// A neighbour's hello was accepted. One that has this key already is gone.
    PeerJoined {
        /// Its key.
        peer: PeerKey,
        /// Who: a ban is for a node, not for a key.
        node: NodeId,
        /// Where it is.
        place: Place,
        /// Whether it takes turns, raw chunks and redirections: version 2 of the bulk protocol.
        takes_turns: bool,
    },
    /// A neighbour's connection is gone.
    PeerLeft {
        /// Who.
        peer: PeerKey,
    },
    /// A neighbour sent what no node of its version sends: none is taken from it for a while. Its connection is about to end.
    PeerMalformed {
        /// Who.
        peer: PeerKey,
    },
    /// A neighbour says something about a pack.
    Said {
        /// Who.
        peer: PeerKey,
        /// About which pack.
        pack: PackKey,
        /// What.
        word: Word,
    },
    /// A whole frame came, asked for or not. Where it is wanted, [`SwarmOutput::Store`] follows before the next input;
    /// else its bytes are thrown away.
    FrameArrived {
        /// From whom.
        peer: PeerKey,
        /// The pack.
        pack: PackKey,
        /// The frame.
        index: u32,
        /// Bytes that came.
        length: u32,
        /// Whether they are the raw chunk instead of the frame.
        raw: bool,
    },
    /// A frame passed its check and is written; it can be read and served from now on.
    FrameStored {
        /// The pack.
        pack: PackKey,
        /// The frame.
        index: u32,
    },
    /// A frame is not what the manifest says; it was thrown away, and its sender is banned.
    FrameCorrupt {
        /// The pack.
        pack: PackKey,
        /// The frame.
        index: u32,
    },
    /// A frame was good but could not be written, or (`None`) the pack could not be synced; the pack rests for a while.
    StoreFailed {
        /// The pack.
        pack: PackKey,
        /// The frame.
        index: Option<u32>,
    },
    /// A frame that counted as stored cannot be read back any more.
    FrameLost {
        /// The pack.
        pack: PackKey,
        /// The frame.
        index: u32,
    },
    /// An answer to [`SwarmOutput::ServeFrame`]: the socket took it all, or it was given up.
    FrameServed {
        /// To whom.
        peer: PeerKey,
        /// The pack.
        pack: PackKey,
        /// The frame.
        index: u32,
    },
    /// An answer to [`SwarmOutput::Sync`]: every frame of the pack survives a power cut.
    PackSynced {
        /// The pack.
        pack: PackKey,
    },
    /// What rules let this node send and receive, TLS included; `None`: as much as its link carries (R71). No more frames are
    /// served and asked for at a time than pass before those who wait for them lose patience.
    Rates {
        /// What it may send.
        send_bytes_per_second: Option<u64>,
        /// What it may receive.
        receive_bytes_per_second: Option<u64>,
    },
    /// The station made this node the pack's inlet, or goes on doing so.
    LeaseGranted {
        /// The pack.
        pack: PackKey,
        /// The lease.
        lease: Box<GrantedLease>,
    },
    /// The station took the lease back.
    LeaseRevoked {
        /// The pack.
        pack: PackKey,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwarmOutput {
    /// Say something.
    Say {
        /// To whom.
        peer: PeerKey,
        /// About which pack.
        pack: PackKey,
        /// What.
        word: Word,
    },
    /// Show the lease to the origin.
    ShowLease {
        /// The origin.
        peer: PeerKey,
        /// As signed.
        signed: Box<Signed<Lease>>,
    },
    /// The frame that just arrived is wanted: check it against the manifest and write it; answer with `FrameStored`,
    /// `FrameCorrupt` or `StoreFailed`.
    Store {
        /// The pack.
        pack: PackKey,
        /// The frame.
        index: u32,
        /// Who sent it.
        peer: PeerKey,
    },
    /// Read the frame, or the raw chunk where only that is here, and send it; answer with `FrameServed` once the socket
    /// took it, whatever comes of it.
    ServeFrame {
        /// To whom.
        peer: PeerKey,
        /// The pack.
        pack: PackKey,
        /// The frame.
        index: u32,
    },
    /// Make every frame of the pack durable; answer with `PackSynced` or `StoreFailed`.
    Sync {
        /// The pack.
        pack: PackKey,
    },
    /// Close the connection and take none from this node until then.
    Penalise {
        /// Who.
        peer: PeerKey,
        /// Which pack it was about.
        pack: PackKey,
        /// Until when.
        until: Monotonic,
        /// What it did.
        offence: Offence,
    },
    /// Close the connection; the peer may come again.
    Disconnect {
        /// Who.
        peer: PeerKey,
        /// Why.
        why: &'static str,
    },
    /// Ask the station for the pack's lease, or renew it.
    AskLease {
        /// The pack.
        pack: PackKey,
        /// Frames that this node has.
        held: u32,
    },
    /// All frames are here, verified and synced. Said once per pack, also where nothing was missing from the start.
    Complete {
        /// The pack.
        pack: PackKey,
        /// Frame bytes that came over the WAN since the start of the process.
        wan_bytes: u64,
        /// Frame bytes that came from inside the site since the start of the process.
        lan_bytes: u64,
    },
}

/// What a peer did that cannot be an accident of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// A frame that does not have the hash that the manifest says.
    CorruptFrame {
        /// Which.
        index: u32,
    },
    /// A frame that the pack does not have, or of another length.
    WrongFrame {
        /// Which.
        index: u32,
        /// Bytes that came.
        length: u32,
    },
    /// A bitmap of another length.
    WrongBitmap,
    /// An announcement of frames that the pack does not have, or of too many at once.
    WrongAnnouncement,
    /// Frame after frame that was announced and then refused.
    FalseClaims,
    /// Frame after frame that nobody asked for and that is here already.
    Replays,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CorruptFrame { index } => {
                write!(f, "its frame {index} does not have the hash that the manifest says")
            }
            Self::WrongFrame { index, length } => {
                write!(f, "it sent {length} bytes as frame {index}, which the manifest does not allow")
            }
            Self::WrongBitmap => f.write_str("it sent a bitmap that does not fit the pack"),
            Self::WrongAnnouncement => f.write_str("it announced frames that the pack does not have"),
            Self::FalseClaims => f.write_str("it announced many frames and then refused them"),
            Self::Replays => f.write_str("it sent many frames again that nobody had asked for"),
        }
    }
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
