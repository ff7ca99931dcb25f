//! Connections as the service sees them, and what their tasks tell it.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use branchline_protocol::{
    content::{Bitmap, Pack},
    ids::{NodeId, PackId, SiteName},
    limits::{BULK_INBOX_BYTES_MAX, BULK_QUEUE_MAX},
    time::UnixSeconds,
    wire::{bulk::BulkMessage, control::Hello},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
    time::Instant,
};

use super::{
    connection::{Established, FrameOrder, LinkError, LinkKind, Meter, Reader, Writer},
    pool::{FrameSource, StorePool},
    read_ahead::ReadAhead,
};
use crate::store::packs::PackStoreError;

/// Two connections of one pair that are this close in time were dialled from both ends at once.
const SAME_TIME: Duration = Duration::from_secs(2);

/// What came of a frame that was to be sent.
#[derive(Debug)]
pub(super) enum Served {
    Sent(u64),
    Lost(PackStoreError),
}

/// What tasks tell the service.
pub(super) enum Inbound {
    Established(Box<Established>),
    DialFailed {
        peer: NodeId,
        why: LinkError,
    },
    /// `_room`: what a frame takes of the inbox; given back when the message is taken.
    Message {
        link: u64,
        message: BulkMessage,
        _room: Option<OwnedSemaphorePermit>,
    },
    Closed {
        link: u64,
        why: LinkError,
    },
    Served {
        link: u64,
        pack: PackId,
        index: u32,
        outcome: Served,
    },
    Added {
        pack: Arc<Pack>,
        result: Result<Bitmap, PackStoreError>,
    },
    Stored {
        pack: PackId,
        index: u32,
        result: Result<(), PackStoreError>,
    },
    Synced {
        pack: PackId,
        result: Result<(), PackStoreError>,
    },
}

/// One connection. Dropping it ends its tasks and closes the socket.
pub(super) struct Link {
    pub peer: NodeId,
    pub site: SiteName,
    pub kind: LinkKind,
    pub hello: Box<Hello>,
    /// When the peer's membership ends, where it needs one.
    pub ends_at: Option<UnixSeconds>,
    pub frames: mpsc::Sender<FrameOrder>,
    messages: mpsc::Sender<BulkMessage>,
    pub dialled: bool,
    since: Instant,
    tasks: [AbortHandle; 2],
}

impl Link {
    /// Whether it has stood long enough for the other end to have said what it wants.
    pub fn is_settled(&self) -> bool {
        self.since.elapsed() > SAME_TIME
    }

    /// Whether the peer's membership has ended: connections outlive memberships (R50a).
    pub fn has_ended(&self, wall: UnixSeconds) -> bool {
        self.ends_at.is_some_and(|end| end <= wall)
    }

    /// Whether the other end, which this node dialled, closed it at once.
    pub fn was_short(&self) -> bool {
        self.dialled && self.since.elapsed() < SAME_TIME
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// All connections, one per peer.
pub(super) struct Links {
    by_number: BTreeMap<u64, Link>,
    by_peer: BTreeMap<NodeId, u64>,
    next: u64,
    room: Arc<Semaphore>,
    source: Arc<dyn FrameSource>,
    pool: StorePool,
    inbox: mpsc::Sender<Inbound>,
}

impl Links {
    /// No connections yet; those that come serve from `source` and tell `inbox`.
    pub fn new(source: Arc<dyn FrameSource>, pool: StorePool, inbox: mpsc::Sender<Inbound>) -> Self {
        let room = Arc::new(Semaphore::new(BULK_INBOX_BYTES_MAX));
        Self { by_number: BTreeMap::new(), by_peer: BTreeMap::new(), next: 0, room, source, pool, inbox }
    }

    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Link)> {
        self.by_number.iter().map(|(number, link)| (*number, link))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Link)> {
        self.by_number.iter_mut().map(|(number, link)| (*number, link))
    }

    pub fn get(&self, number: u64) -> Option<&Link> {
        self.by_number.get(&number)
    }

    pub fn of_peer(&self, peer: NodeId) -> Option<(u64, &Link)> {
        let number = *self.by_peer.get(&peer)?;
        Some((number, self.by_number.get(&number)?))
    }

    pub fn remove(&mut self, number: u64) -> Option<Link> {
        let link = self.by_number.remove(&number)?;
        if self.by_peer.get(&link.peer) == Some(&number) {
            self.by_peer.remove(&link.peer);
        }
        Some(link)
    }

    /// Queues a message. `false`: the peer takes nothing any more and is to be cut.
    pub fn send(&self, number: u64, message: BulkMessage) -> bool {
        self.get(number).is_none_or(|link| link.messages.try_send(message).is_ok())
    }

    /// Whether a new connection is kept beside the one that exists: of two that were dialled from both ends at once,
    /// both ends keep the one that the lower identity dialled.
    pub fn prefers(&self, own: NodeId, new: &Established) -> bool {
        let Some((_, old)) = self.of_peer(new.peer) else { return true };
        let right_way = |dialled: bool| dialled == (own < new.peer);
        old.since.elapsed() > SAME_TIME || !right_way(old.dialled) || right_way(new.dialled)
    }

    /// Starts the tasks of a connection, whose other end is a member until `ends_at`.
    pub fn start(&mut self, established: Established, ends_at: Option<UnixSeconds>, meter: Option<Meter>) -> u64 {
        let Established { peer, site, kind, dialled, hello, stream } = established;
        self.next += 1;
        let number = self.next;
        let (messages, message_queue) = mpsc::channel(BULK_QUEUE_MAX);
        let (frames, frame_queue) = mpsc::channel(BULK_QUEUE_MAX);
        let lane = Arc::clone(stream.get_ref().0.get_ref().lane());
        let (reading, writing) = tokio::io::split(stream);
        let writer = Writer {
            link: number,
            stream: writing,
            lane,
            messages: message_queue,
            frames: frame_queue,
            ahead: ReadAhead::new(Arc::clone(&self.source), self.pool.clone()),
            meter,
            inbox: self.inbox.clone(),
        };
        let reader = Reader { link: number, stream: reading, room: Arc::clone(&self.room), inbox: self.inbox.clone() };
        let tasks = [tokio::spawn(reader.run()).abort_handle(), tokio::spawn(writer.run()).abort_handle()];
        let since = Instant::now();
        let link = Link { peer, site, kind, hello, ends_at, frames, messages, dialled, since, tasks };
        self.by_number.insert(number, link);
        self.by_peer.insert(peer, number);
        number
    }
}
