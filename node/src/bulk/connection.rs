//! One connection: length-delimited messages, the hellos, a reader and a writer.
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use branchline_protocol::{
    ids::{NodeId, PackId, SiteName},
    limits::BULK_MESSAGE_BYTES_MAX,
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
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsStream;

use super::links::{Inbound, Served};
use crate::{mesh::Documents, runtime::wall_time, store::packs::PackStore};

/// Handshake and hellos together, per step.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence on a connection; pings keep idle ones alive.
const READ_TIMEOUT: Duration = Duration::from_secs(45);
/// Longest time that the other end may leave our bytes unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(45);
const PING_EVERY: Duration = Duration::from_secs(15);

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
    /// To be judged again when documents change.
    pub hello: Box<Hello>,
    pub stream: TlsStream<TcpStream>,
}

pub(super) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Result<BulkMessage, LinkError> {
    let length = stream.read_u32_le().await? as usize;
    if length > BULK_MESSAGE_BYTES_MAX {
        return Err(LinkError::TooLong(length));
    }
    // The buffer grows with what really comes, not with what is announced.
    let mut bytes = Vec::with_capacity(length.min(512 << 10));
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(LinkError::Io(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(BulkMessage::decode(bytes)?)
}

pub(super) async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &BulkMessage,
) -> Result<(), LinkError> {
    let body = message.encode()?;
    let length = u32::try_from(body.len()).map_err(|_| LinkError::TooLong(body.len()))?;
    let write = async {
        stream.write_all(&length.to_le_bytes()).await?;
        stream.write_all(&body).await?;
        stream.flush().await
    };
    Ok(timeout(WRITE_TIMEOUT, write).await.map_err(|_| LinkError::Timeout("writing"))??)
}

/// This node's hello in a site, with the bulk plane's versions.
pub(super) fn own_hello(documents: &Documents, site: &SiteName) -> Option<Box<Hello>> {
    documents.hello(site).map(|hello| Box::new(Hello { versions: BULK_VERSIONS, ..hello }))
}

/// Judges a peer's hello; gives its site.
pub(super) fn judge(documents: &Documents, peer: NodeId, hello: &Hello) -> Result<SiteName, Refusal> {
    if hello.versions.0.max(BULK_VERSIONS.0) > hello.versions.1.min(BULK_VERSIONS.1) {
        let reason = format!(
            "this node speaks versions {} to {} of the bulk protocol, the peer {} to {}; upgrade the older one",
            BULK_VERSIONS.0, BULK_VERSIONS.1, hello.versions.0, hello.versions.1
        );
        return Err(Refusal::new(RefusalKind::Malformed, reason));
    }
    let hello = Hello { versions: CONTROL_VERSIONS, ..hello.clone() };
    Ok(documents.admit(peer, &hello, wall_time())?.site)
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
pub(super) async fn run_reader(link: u64, mut stream: ReadHalf<TlsStream<TcpStream>>, inbox: mpsc::Sender<Inbound>) {
    let why = loop {
        match timeout(READ_TIMEOUT, read_message(&mut stream)).await {
            Ok(Ok(BulkMessage::Ping)) => {}
            Ok(Ok(message)) => {
                if inbox.send(Inbound::Message { link, message }).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => break error,
            Err(_) => break LinkError::Timeout("reading"),
        }
    };
    let _ = inbox.send(Inbound::Closed { link, why }).await;
}

/// Sends messages, and frames only where no message waits: what steers the swarm never queues behind blocks.
pub(super) struct Writer {
    pub link: u64,
    pub stream: WriteHalf<TlsStream<TcpStream>>,
    pub messages: mpsc::Receiver<BulkMessage>,
    pub frames: mpsc::Receiver<FrameOrder>,
    pub store: PackStore,
    pub meter: Option<Meter>,
    pub inbox: mpsc::Sender<Inbound>,
}

impl Writer {
    pub async fn run(mut self) {
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let why = loop {
            let done = tokio::select! {
                biased;
                message = self.messages.recv() => match message {
                    Some(message) => write_message(&mut self.stream, &message).await,
                    None => return,
                },
                Some(order) = self.frames.recv() => self.serve(order).await,
                _ = pings.tick() => write_message(&mut self.stream, &BulkMessage::Ping).await,
            };
            if let Err(error) = done {
                break error;
            }
        };
        let _ = self.inbox.send(Inbound::Closed { link: self.link, why }).await;
    }

    async fn serve(&mut self, order: FrameOrder) -> Result<(), LinkError> {
        let FrameOrder { pack, index } = order;
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || store.read_frame(pack, index)).await;
        let outcome = match read {
            Ok(Ok(bytes)) => {
                let length = bytes.len() as u64;
                if let Some(meter) = &self.meter {
                    meter(pack, length);
                }
                write_message(&mut self.stream, &BulkMessage::Frame { pack, index, bytes }).await?;
                Served::Sent(length)
            }
            Ok(Err(error)) => {
                let refusal = Refusal::new(RefusalKind::NotFound, format!("frame {index} cannot be read here"));
                write_message(&mut self.stream, &BulkMessage::Refuse { pack, index: Some(index), refusal }).await?;
                Served::Lost(error)
            }
            Err(error) => return Err(LinkError::Io(std::io::Error::other(error))),
        };
        let _ = self.inbox.send(Inbound::Served { link: self.link, pack, index, outcome }).await;
        Ok(())
    }
}
