//! One connection: the hellos, a reader and a writer.
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    framing::{LinkStream, read_message_in_time, write_frame, write_message, write_messages},
    links::{Inbound, Served},
    read_ahead::{Read, ReadAhead},
    shaper::Lane,
};
use crate::{
    mesh::{Admission, Documents},
    runtime::wall_time,
};
use branchline_protocol::{
    ids::{NodeId, PackId, SiteName},
    limits::{BULK_INBOX_BYTES_MAX, BULK_MESSAGE_BYTES_MAX},
    refusal::{Refusal, RefusalKind},
    swarm::Place,
    wire::{
        bulk::{BULK_VERSIONS, BulkMessage},
        codec::CodecError,
        control::{CONTROL_VERSIONS, Hello},
    },
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{MissedTickBehavior, interval},
};

/// Handshake and hellos together, per step.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(15);
/// What a site is told to wait that asks for a pack whose rollout is off (R71): the most that it believes.
const ROLLOUT_OFF_MILLISECONDS: u32 = 10_000;
/// Messages that are written at once.
const MESSAGES_AT_ONCE: usize = 16;

/// Why there is no connection, or none any more.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The system or the other end broke it.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// Nothing came, or nothing was taken, for too long.
    #[error("nothing happened for too long while {0}")]
    Timeout(&'static str),
    /// A message longer than its bound.
    #[error("the peer announces a message of {0} bytes; at most {BULK_MESSAGE_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// A message that cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The hello is not accepted here.
    #[error("the peer's hello is not accepted: {0}")]
    Refused(Refusal),
    /// The hello is not accepted there.
    #[error("the peer refuses this node: {0}")]
    RefusedThere(Refusal),
    /// Something else than a hello came first.
    #[error("the peer speaks before its hello")]
    NoHello,
    /// Another node than the one that was dialled.
    #[error("{found} answers where {expected} was expected")]
    OtherNode {
        /// Who answers.
        found: NodeId,
        /// Who was dialled.
        expected: NodeId,
    },
    /// The certificate proves no node key.
    #[error("the peer shows no node identity")]
    NoIdentity,
}

/// What a connection is for, as both ends see it by addresses and charter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// A neighbour of the swarm.
    Swarm(Place),
    /// A member of a site of which this node is headquarters, from outside that site's prefixes or not.
    Client,
}

/// A connection whose hellos were exchanged.
pub(super) struct Established {
    pub peer: NodeId,
    pub site: SiteName,
    pub kind: LinkKind,
    /// Whether this node dialled.
    pub dialled: bool,
    /// To be judged again when it is taken in, and when documents change.
    pub hello: Box<Hello>,
    pub stream: LinkStream,
}

/// This node's hello in a site, with the bulk plane's versions.
pub(super) fn own_hello(documents: &Documents, site: &SiteName) -> Option<Box<Hello>> {
    documents.hello(site).map(|hello| Box::new(Hello { versions: BULK_VERSIONS, ..hello }))
}

/// Judges a peer's hello; gives its site, and how long it is a member there.
pub(super) fn judge(documents: &Documents, peer: NodeId, hello: &Hello) -> Result<Admission, Refusal> {
    if hello.versions.0.max(BULK_VERSIONS.0) > hello.versions.1.min(BULK_VERSIONS.1) {
        let reason = format!(
            "this node speaks versions {} to {} of the bulk protocol, the peer {} to {}; upgrade the older one",
            BULK_VERSIONS.0, BULK_VERSIONS.1, hello.versions.0, hello.versions.1
        );
        return Err(Refusal::new(RefusalKind::Malformed, reason));
    }
    let hello = Hello { versions: CONTROL_VERSIONS, ..hello.clone() };
    let wall = wall_time();
    let admission = documents.admit(peer, &hello, wall)?;
    if !admission.holds_at(wall) {
        let reason = format!("the membership of {peer} expired; the station renews it on the control plane");
        return Err(Refusal::new(RefusalKind::NotAMember, reason));
    }
    Ok(admission)
}

/// Where the two ends of a connection stand to each other (R70: LAN only if both addresses lie in the prefixes).
pub(super) fn kind_of(
    documents: &Documents,
    site: &SiteName,
    peer: NodeId,
    ends: (IpAddr, IpAddr),
) -> Option<LinkKind> {
    let authority = documents.authority(site)?;
    let charter = authority.charter();
    Some(if charter.is_inside(ends.0) && charter.is_inside(ends.1) {
        LinkKind::Swarm(Place::Inside)
    } else if charter.headquarters.node == documents.node() {
        LinkKind::Client
    } else if charter.headquarters.node == peer {
        LinkKind::Swarm(Place::Origin)
    } else {
        LinkKind::Swarm(Place::Outside)
    })
}

/// The two addresses of a connection, own first.
pub(super) fn ends(stream: &TcpStream) -> std::io::Result<(SocketAddr, SocketAddr)> {
    Ok((stream.local_addr()?, stream.peer_addr()?))
}

/// What a writer has to do besides messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameOrder {
    pub pack: PackId,
    pub index: u32,
}

/// Counts a frame that is about to leave; `None` where nothing is metered.
pub(super) type Meter = Arc<dyn Fn(PackId, u64) + Send + Sync>;

/// Takes messages until the connection ends, and says why it ended.
pub(super) struct Reader<S> {
    pub link: u64,
    pub stream: S,
    /// Bytes of frames, of all connections, that may wait for the service.
    pub room: Arc<Semaphore>,
    pub inbox: mpsc::Sender<Inbound>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub async fn run(mut self) {
        let why = loop {
            match read_message_in_time(&mut self.stream).await {
                Ok(BulkMessage::Ping) => {}
                Ok(message) => {
                    let Some(_room) = self.room_for(&message).await else { return };
                    if self.inbox.send(Inbound::Message { link: self.link, message, _room }).await.is_err() {
                        return;
                    }
                }
                Err(error) => break error,
            }
        };
        let _ = self.inbox.send(Inbound::Closed { link: self.link, why }).await;
    }

    /// Room for a frame, once there is some; other messages are short. `None`: the service is gone.
    ///
    /// It is asked for after the frame has come, so that a slow peer holds one frame and nobody else's room.
    async fn room_for(&self, message: &BulkMessage) -> Option<Option<OwnedSemaphorePermit>> {
        let (BulkMessage::Frame { bytes, .. } | BulkMessage::Chunk { bytes, .. }) = message else { return Some(None) };
        let bytes = u32::try_from(bytes.len().min(BULK_INBOX_BYTES_MAX)).ok()?;
        Arc::clone(&self.room).acquire_many_owned(bytes).await.ok().map(Some)
    }
}

/// Sends messages, and frames only where no message waits: what steers the swarm never queues behind blocks. While some
/// frames are sent the next are read.
pub(super) struct Writer<S> {
    pub link: u64,
    pub stream: S,
    pub lane: Arc<Lane>,
    pub messages: mpsc::Receiver<BulkMessage>,
    pub frames: mpsc::Receiver<FrameOrder>,
    pub ahead: ReadAhead,
    pub meter: Option<Meter>,
    pub inbox: mpsc::Sender<Inbound>,
}

impl<S: AsyncWrite + Unpin> Writer<S> {
    pub async fn run(mut self) {
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        let why = loop {
            let off = self.lane.is_off();
            let done = tokio::select! {
                biased;
                count = self.messages.recv_many(&mut waiting, MESSAGES_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    let written = write_messages(&mut self.stream, &waiting).await;
                    waiting.clear();
                    written
                }
                // Messages and pings go on while the line is off; only frames wait.
                () = self.lane.rates_changed(), if off => Ok(()),
                Some((order, read)) = self.ahead.next(), if !self.ahead.is_empty() && !off => {
                    self.ahead.read(None, &mut self.frames);
                    self.serve(order, read).await
                }
                Some(order) = self.frames.recv(), if self.ahead.is_empty() && !off => {
                    self.ahead.read(Some(order), &mut self.frames);
                    Ok(())
                }
                _ = pings.tick() => write_message(&mut self.stream, &BulkMessage::Ping).await,
            };
            if let Err(error) = done {
                break error;
            }
        };
        let _ = self.inbox.send(Inbound::Closed { link: self.link, why }).await;
    }

    async fn serve(&mut self, order: FrameOrder, read: Read) -> Result<(), LinkError> {
        let FrameOrder { pack, index } = order;
        if self.lane.is_off_for(pack) {
            let busy = BulkMessage::Busy { pack, index, retry_after_milliseconds: ROLLOUT_OFF_MILLISECONDS };
            return write_message(&mut self.stream, &busy).await;
        }
        let outcome = match read {
            Ok(bytes) => {
                let length = bytes.len() as u64;
                if let Some(meter) = &self.meter {
                    meter(pack, length);
                }
                self.lane.set_pack(Some(pack));
                let sent = write_frame(&mut self.stream, pack, index, &bytes).await;
                self.lane.set_pack(None);
                sent?;
                Served::Sent(length)
            }
            Err(error) => {
                let refusal = Refusal::new(RefusalKind::NotFound, format!("frame {index} cannot be read here"));
                write_message(&mut self.stream, &BulkMessage::Refuse { pack, index: Some(index), refusal }).await?;
                Served::Lost(error)
            }
        };
        let _ = self.inbox.send(Inbound::Served { link: self.link, pack, index, outcome }).await;
        Ok(())
    }
}
