//! What can happen to a [`super::NamedSwarm`] and what it wants done: the machine's interface by names.
use std::sync::Arc;

use super::interface::Place;
use crate::{
    charter::{Lease, Signed},
    content::{Bitmap, Pack},
    ids::{NodeId, PackId},
    time::Monotonic,
    wire::bulk::BulkMessage,
};

/// What can happen; each variant is the one of the same name of [`super::SwarmInput`], by names.
#[derive(Clone, Debug)]
pub enum NamedInput {
    /// This node wants the pack, or has it already. Repeating it changes nothing.
    Want {
        /// The checked manifest.
        pack: Arc<Pack>,
        /// Frames that are verified and synced.
        kept: Bitmap,
        /// Frames of `kept` that are here as raw chunks only; `None`: none of them.
        raw: Option<Bitmap>,
        /// Whether this node is where the pack enters the site.
        source: bool,
    },
    /// The pack no longer matters.
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
        /// The highest version of the bulk protocol that both ends speak.
        version: u16,
    },
    /// A neighbour's connection is gone.
    PeerLeft {
        /// Who.
        peer: NodeId,
    },
    /// A neighbour sent what no node of its version sends: none is taken from it for a while. Its connection is about to end.
    PeerMalformed {
        /// Who.
        peer: NodeId,
    },
    /// A neighbour says something; frames are [`NamedInput::FrameArrived`], see [`NamedInput::of_message`].
    Message {
        /// Who.
        peer: NodeId,
        /// What.
        message: BulkMessage,
    },
    /// A whole frame came. Where it is wanted, [`NamedOutput::Store`] is among the outputs before the next input; else
    /// its bytes are thrown away.
    FrameArrived {
        /// From whom.
        peer: NodeId,
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
        /// Bytes that came.
        length: u32,
        /// Whether they are the raw chunk instead of the frame.
        raw: bool,
    },
    /// A frame passed its check and is written.
    FrameStored {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// A frame is not what the manifest says.
    FrameCorrupt {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// A frame could not be written, or (`None`) the pack not be synced.
    StoreFailed {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: Option<u32>,
    },
    /// A frame that counted as stored cannot be read back any more.
    FrameLost {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// An answer to [`NamedOutput::ServeFrame`].
    FrameServed {
        /// To whom.
        peer: NodeId,
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// An answer to [`NamedOutput::Sync`].
    PackSynced {
        /// The pack.
        pack: PackId,
    },
    /// What rules let this node send and receive; see [`SwarmInput::Rates`](super::SwarmInput::Rates).
    Rates {
        /// What it may send.
        send_bytes_per_second: Option<u64>,
        /// What it may receive.
        receive_bytes_per_second: Option<u64>,
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

impl NamedInput {
    /// What a message is to the machine, and the bytes that it carries where it is a frame.
    pub fn of_message(peer: NodeId, message: BulkMessage) -> (Self, Option<Vec<u8>>) {
        let arrived = |pack, index, bytes: &[u8], raw| {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            Self::FrameArrived { peer, pack, index, length, raw }
        };
        match message {
            BulkMessage::Frame { pack, index, bytes } => (arrived(pack, index, &bytes, false), Some(bytes)),
            BulkMessage::Chunk { pack, index, bytes } => (arrived(pack, index, &bytes, true), Some(bytes)),
            message => (Self::Message { peer, message }, None),
        }
    }
}

/// What is to be done; each variant is the one of the same name of [`super::SwarmOutput`], by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedOutput {
    /// Send a message.
    Send {
        /// To whom.
        peer: NodeId,
        /// What.
        message: BulkMessage,
    },
    /// Check the frame that just arrived and write it; answer with `FrameStored`, `FrameCorrupt` or `StoreFailed`.
    Store {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
        /// Who sent it.
        peer: NodeId,
    },
    /// Read the frame and send it; answer with `FrameServed` once the socket took it, whatever comes of it.
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
    /// A busy neighbour named this member as one to ask: connect with it, if there is room for one more.
    Meet {
        /// Whom.
        node: NodeId,
    },
    /// Ask the station for the pack's lease, or renew it.
    AskLease {
        /// The pack.
        pack: PackId,
        /// Frames that this node has.
        held: u32,
    },
    /// All frames are here, verified and synced.
    Complete {
        /// The pack.
        pack: PackId,
        /// Frame bytes that came over the WAN since the start of the process.
        wan_bytes: u64,
        /// Frame bytes that came from inside the site since the start of the process.
        lan_bytes: u64,
    },
}
