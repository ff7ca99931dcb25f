//! How the rest of the node speaks with the bulk plane.
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use branchline_protocol::{
    charter::{Lease, Signed},
    content::Pack,
    ids::{NodeId, PackId, SiteName},
    limits::BULK_QUEUE_MAX,
    swarm::{Fence, FenceRecord, Progress},
    wire::control::PeerRecord,
};
use thiserror::Error;
use tokio::{
    net::TcpSocket,
    sync::{mpsc, watch},
};

use super::{
    accounts::Accounts, certificate::TlsIdentity, listener::listen, pool::StorePool, service::Service, shaper::Shaper,
};
use crate::{mesh::Documents, runtime::Clock, store::packs::PackStore};

/// What the bulk plane is started with.
pub struct BulkConfig {
    /// The documents that admit peers; they also say which key and addresses are this node's own. The bulk address is
    /// listened on, and everything is dialled from its IP address.
    pub documents: Documents,
    /// The site whose swarm this node is part of; `None` for a headquarters that is in no site.
    pub site: Option<SiteName>,
    /// Where packs are kept. Whatever is in it is served, and what is incomplete in it is fetched further.
    pub store: PackStore,
    /// The process's clock.
    pub clock: Clock,
    /// Seeds the choice among equally rare frames.
    pub seed: u64,
    /// What [`BulkHandle::fence_records`] gave before the last end of the process.
    pub fence: Vec<FenceRecord>,
    /// What [`BulkHandle::accounts`] gave before the last end of the process.
    pub accounts: Accounts,
}

/// What the rest of the node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkEvent {
    /// A pack is here, verified and synced. Said once per process and pack, also for what was here from the start.
    Complete {
        /// The pack.
        pack: PackId,
        /// Frame bytes that came over the WAN in this process.
        wan_bytes: u64,
        /// Frame bytes that came from inside the site in this process.
        lan_bytes: u64,
    },
    /// A peer served what the manifest does not allow; it is cut off for a while.
    Corrupt {
        /// Who.
        peer: NodeId,
        /// The pack.
        pack: PackId,
        /// What it did.
        why: String,
    },
    /// Ask the station for the pack's lease, or renew it (`ControlRequest::AskLease`), and answer with
    /// [`BulkHandle::give_lease`].
    LeaseWanted {
        /// The pack.
        pack: PackId,
        /// Frames that this node has.
        held: u32,
    },
    /// The disk refuses; the text names the file. The pack waits and is tried again by itself.
    StoreTrouble {
        /// The pack.
        pack: PackId,
        /// What happened to which file.
        why: String,
    },
    /// Headquarters let a newer lease through: persist [`BulkHandle::fence_records`].
    FenceMoved,
}

/// The service has ended, because every handle was dropped or the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the bulk plane has stopped")]
pub struct BulkStopped;

#[derive(Debug)]
pub(super) enum Command {
    Want(Arc<Pack>),
    Forget(PackId),
    KeepNeighbours,
    SetPeers(Vec<PeerRecord>),
    GiveLease(Box<Signed<Lease>>, Vec<u8>),
    RevokeLease(PackId),
}

/// Steers the bulk plane; cheap to clone. When the last one is dropped the plane stops.
#[derive(Clone)]
pub struct BulkHandle {
    commands: mpsc::Sender<Command>,
    progress: watch::Receiver<Vec<Progress>>,
    fence: Arc<Mutex<Fence>>,
    accounts: Arc<Mutex<Accounts>>,
    store: PackStore,
    shaper: Shaper,
    address: SocketAddr,
}

/// Starts listening and dialling. Must be called within a tokio runtime.
///
/// # Errors
/// The node's key is damaged, or its bulk address cannot be listened on.
pub fn start(config: BulkConfig) -> Result<(BulkHandle, mpsc::Receiver<BulkEvent>)> {
    let tls = TlsIdentity::new(config.documents.key())?;
    let listen_on = config.documents.addresses().bulk;
    let bind = || -> std::io::Result<_> {
        let socket = if listen_on.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(listen_on)?;
        socket.listen(1024)
    };
    let listener = bind().with_context(|| format!("listening at {listen_on} for the bulk plane"))?;
    let address = listener.local_addr()?;

    let (command_sender, commands) = mpsc::channel(BULK_QUEUE_MAX);
    let (event_sender, events) = mpsc::channel(BULK_QUEUE_MAX);
    let (progress_sender, progress) = watch::channel(Vec::new());
    let (inbox_sender, inbox) = mpsc::channel(BULK_QUEUE_MAX);
    let fence = Arc::new(Mutex::new(Fence::restore(config.fence.iter().cloned())));
    let accounts = Arc::new(Mutex::new(config.accounts.clone()));
    let store = config.store.clone();
    let shaper = Shaper::new(config.clock);
    let listening = tokio::spawn(listen(listener, config.documents.clone(), tls.clone(), inbox_sender.clone()));
    let pool = StorePool::start().context("starting the threads of the store")?;
    let kept = (Arc::clone(&fence), Arc::clone(&accounts));
    let service = Service::new(config, tls, kept, inbox_sender, pool, shaper.clone());
    tokio::spawn(async move {
        service.run(commands, inbox, event_sender, progress_sender).await;
        listening.abort();
    });
    Ok((BulkHandle { commands: command_sender, progress, fence, accounts, store, shaper, address }, events))
}

impl BulkHandle {
    async fn command(&self, command: Command) -> Result<(), BulkStopped> {
        self.commands.send(command).await.map_err(|_| BulkStopped)
    }

    /// Fetches the pack, or serves it if it is here. May be repeated.
    ///
    /// # Errors
    /// The plane has stopped.
    pub async fn want(&self, pack: Arc<Pack>) -> Result<(), BulkStopped> {
        self.command(Command::Want(pack)).await
    }

    /// Neither fetches nor serves the pack any more; the store keeps what it has.
    ///
    /// # Errors
    /// The plane has stopped.
    pub async fn forget(&self, pack: PackId) -> Result<(), BulkStopped> {
        self.command(Command::Forget(pack)).await
    }

    /// Connects with neighbours also while nothing is missing, until the process ends: what is wanted next then starts
    /// without handshakes.
    ///
    /// # Errors
    /// The plane has stopped.
    pub async fn keep_neighbours(&self) -> Result<(), BulkStopped> {
        self.command(Command::KeepNeighbours).await
    }

    /// Whom this node may dial inside its site. At most `BULK_NEIGHBOURS_MAX` of them become neighbours.
    ///
    /// # Errors
    /// The plane has stopped.
    pub async fn set_peers(&self, peers: Vec<PeerRecord>) -> Result<(), BulkStopped> {
        self.command(Command::SetPeers(peers)).await
    }

    /// Makes this node the pack's inlet; `held` is what other nodes of the site hold, as a bitmap's bytes (empty: no
    /// news). A lease that does not hold or is another's is ignored with a warning.
    ///
    /// # Errors
    /// The plane has stopped.
    pub async fn give_lease(&self, lease: Signed<Lease>, held: Vec<u8>) -> Result<(), BulkStopped> {
        self.command(Command::GiveLease(Box::new(lease), held)).await
    }

    /// Ends the own lease of a pack before its time.
    ///
    /// # Errors
    /// The plane has stopped.
    pub async fn revoke_lease(&self, pack: PackId) -> Result<(), BulkStopped> {
        self.command(Command::RevokeLease(pack)).await
    }

    /// The frames of a pack that this node can serve, as a bitmap's bytes: the answer to `ControlRequest::Holdings`.
    pub fn holdings(&self, pack: PackId) -> Option<Vec<u8>> {
        self.store.have(pack).map(|have| have.to_bytes())
    }

    /// How far every pack is; changes at most once a second and at completions.
    pub fn progress(&self) -> watch::Receiver<Vec<Progress>> {
        self.progress.clone()
    }

    /// At headquarters: the highest leases and the bytes sent per site and pack (R70). To be persisted at
    /// [`BulkEvent::FenceMoved`], now and then, and at the end.
    pub fn fence_records(&self) -> Vec<FenceRecord> {
        self.fence.lock().unwrap_or_else(PoisonError::into_inner).records()
    }

    /// Every transfer of this node, to be persisted now and then, and at the end.
    pub fn accounts(&self) -> Accounts {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rates of the plane (R71).
    pub fn shaper(&self) -> &Shaper {
        &self.shaper
    }

    /// Where the plane listens; tells the port where the configured one is 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
