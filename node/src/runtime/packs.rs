//! Packs: what is wanted, where manifests come from, and the station's leases.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use branchline_protocol::{
    charter::Authority,
    content::Pack,
    ids::{Epoch, NodeId, PackId, SiteName},
    refusal::{Refusal, RefusalKind},
    swarm::{FenceRecord, Progress},
    wire::control::{ControlAnswer, ControlRequest},
};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::{
    clock::Clock,
    crossing::{Crossings, Wish},
    leasing::Leasing,
    notices::Notices,
};
use crate::{
    bulk::{self, Accounts, BulkConfig, BulkEvent, BulkHandle},
    config::{Home, random_bytes},
    mesh::{Documents, Mesh},
    store::{journal::JournalStore, packs::PackStore},
};

#[path = "manifests.rs"]
mod manifests;
#[path = "updates.rs"]
mod updates;

pub use manifests::Learning;

/// How often the accounts are written to disk.
const ACCOUNTS_INTERVAL: Duration = Duration::from_secs(5);

/// What the host's session is told.
#[derive(Clone, Debug)]
pub enum PackEvent {
    /// A pack is complete and kept.
    Complete {
        /// Which.
        pack: PackId,
        /// Frame bytes over the WAN.
        wan_bytes: u64,
        /// Frame bytes from inside the site.
        lan_bytes: u64,
    },
    /// A peer served what does not verify.
    Corrupt {
        /// Who.
        peer: NodeId,
        /// Of which pack.
        pack: PackId,
    },
}

/// What a station decides about its site's line; cheap to clone.
#[derive(Clone)]
struct Desks {
    crossings: Crossings,
    leasing: Leasing,
}

/// Packs that several tasks look at.
pub type PackSet = Arc<Mutex<BTreeSet<PackId>>>;

/// The packs of one node; cheap to clone.
#[derive(Clone)]
pub struct Packs {
    home: Home,
    documents: Documents,
    mesh: Mesh,
    store: PackStore,
    bulk: BulkHandle,
    events: mpsc::Sender<PackEvent>,
    complete: Arc<watch::Sender<BTreeMap<PackId, (u64, u64)>>>,
    notices: Notices,
    /// Where this node is station.
    desks: Arc<Mutex<Option<Desks>>>,
    /// What came over WAN and LAN for the packs that were made from patches.
    by_patch: Arc<Mutex<BTreeMap<PackId, (u64, u64)>>>,
    /// Packs that a task brings, so that no second one does.
    obtaining: PackSet,
    /// Packs of which rules let nothing cross the line now.
    rollouts_off: PackSet,
    /// Manifests that this node is learning, and how many of its tasks do.
    learning: Arc<watch::Sender<BTreeMap<PackId, u32>>>,
    clock: Clock,
}

impl Packs {
    /// Opens the store and starts the bulk plane.
    ///
    /// # Errors
    /// The store cannot be opened, or the bulk address cannot be listened on.
    pub async fn start(
        home: &Home,
        documents: &Documents,
        mesh: &Mesh,
        notices: &Notices,
        clock: Clock,
    ) -> Result<(Self, mpsc::Receiver<PackEvent>)> {
        let directory = home.directory("packs")?;
        let store = tokio::task::spawn_blocking(move || PackStore::open(&directory)).await??;
        let own = documents.node();
        let inside = |site: &SiteName| documents.authority(site).filter(|a| a.charter().headquarters.node != own);
        let site = documents.sites().into_iter().find(|site| inside(site).is_some());
        let mut seed = [0; 8];
        seed.copy_from_slice(&random_bytes()?[..8]);
        let config = BulkConfig {
            documents: documents.clone(),
            site,
            store: store.clone(),
            clock,
            seed: u64::from_le_bytes(seed),
            fence: home.read_json::<Vec<FenceRecord>>("fence.json")?.unwrap_or_default(),
            accounts: home.read_json::<Accounts>("accounts.json")?.unwrap_or_default(),
        };
        let (bulk, bulk_events) = bulk::start(config)?;
        let (events, receiver) = mpsc::channel(1024);
        let packs = Self {
            home: home.clone(),
            documents: documents.clone(),
            mesh: mesh.clone(),
            store,
            bulk,
            events,
            complete: Arc::new(watch::Sender::new(BTreeMap::new())),
            notices: notices.clone(),
            desks: Arc::default(),
            by_patch: Arc::default(),
            obtaining: Arc::default(),
            rollouts_off: Arc::default(),
            learning: Arc::new(watch::Sender::new(BTreeMap::new())),
            clock,
        };
        tokio::spawn(packs.clone().take_bulk_events(bulk_events));
        tokio::spawn(packs.clone().follow_peers());
        tokio::spawn(packs.clone().persist_accounts());
        Ok((packs, receiver))
    }

    async fn take_bulk_events(self, mut events: mpsc::Receiver<BulkEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                BulkEvent::Complete { pack, wan_bytes, lan_bytes } => {
                    let by_patch = self.by_patch.lock().unwrap_or_else(PoisonError::into_inner).get(&pack).copied();
                    let (wan_bytes, lan_bytes) = by_patch.unwrap_or((wan_bytes, lan_bytes));
                    self.complete.send_modify(|complete| {
                        complete.insert(pack, (wan_bytes, lan_bytes));
                    });
                    let _ = self.events.send(PackEvent::Complete { pack, wan_bytes, lan_bytes }).await;
                }
                BulkEvent::Corrupt { peer, pack, why } => {
                    tracing::warn!(%peer, %pack, "a peer is cut off for a while: {why}");
                    let _ = self.events.send(PackEvent::Corrupt { peer, pack }).await;
                }
                BulkEvent::LeaseWanted { pack, held } => {
                    let packs = self.clone();
                    tokio::spawn(async move { packs.get_lease(pack, held).await });
                }
                BulkEvent::StoreTrouble { pack, why } => tracing::warn!(%pack, "{why}; it is tried again"),
                BulkEvent::FenceMoved => self.persist_fence(),
            }
        }
    }

    fn persist_fence(&self) {
        if let Err(error) = self.home.write_json("fence.json", &self.bulk.fence_records()) {
            tracing::error!("the fence cannot be kept: {error:#}; the process ends, because an old lease could pass");
            std::process::exit(74);
        }
    }

    async fn persist_accounts(self) {
        let mut before = Accounts::default();
        loop {
            tokio::time::sleep(ACCOUNTS_INTERVAL).await;
            let accounts = self.bulk.accounts();
            if accounts != before {
                if let Err(error) = self.home.write_json("accounts.json", &accounts) {
                    tracing::warn!("the accounts cannot be kept: {error:#}");
                }
                self.persist_fence();
                before = accounts;
            }
        }
    }

    /// The bulk plane hears of every node that the control plane knows.
    async fn follow_peers(self) {
        let mut records = self.mesh.records();
        loop {
            let known = records.borrow_and_update().iter().map(|(_, record)| record.clone()).collect();
            if self.bulk.set_peers(known).await.is_err() || records.changed().await.is_err() {
                return;
            }
        }
    }

    /// Wants these packs; each reports when it is complete, also where it is complete already.
    pub async fn want(&self, packs: Vec<PackId>) {
        for pack in packs {
            let done = self.complete.borrow().get(&pack).copied();
            if let Some((wan_bytes, lan_bytes)) = done {
                let _ = self.events.send(PackEvent::Complete { pack, wan_bytes, lan_bytes }).await;
                continue;
            }
            if !self.obtaining.lock().unwrap_or_else(PoisonError::into_inner).insert(pack) {
                continue;
            }
            let (packs, learning) = (self.clone(), self.learn(pack));
            tokio::spawn(async move {
                packs.obtain(pack, learning).await;
                packs.obtaining.lock().unwrap_or_else(PoisonError::into_inner).remove(&pack);
            });
        }
    }

    /// Makes ready for a pack without fetching frames: its manifest, room on the disk, neighbours.
    ///
    /// # Errors
    /// No room, or the disk fails; the error names the file.
    pub async fn prepare(&self, pack: PackId) -> Result<()> {
        let _learning = self.learn(pack);
        let Some(known) = self.learn_manifest(pack).await else { return Ok(()) };
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.add(&known)).await??;
        Ok(self.bulk.keep_neighbours().await?)
    }

    /// Waits until a pack is complete and kept, and gives the frame bytes that came over WAN and LAN for it.
    pub async fn completed(&self, pack: PackId) -> (u64, u64) {
        let mut changes = self.complete.subscribe();
        // The sender lives as long as this value: waiting cannot fail.
        let complete = changes.wait_for(|complete| complete.contains_key(&pack)).await;
        complete.ok().and_then(|complete| complete.get(&pack).copied()).unwrap_or_default()
    }

    /// The packs in the store, complete or not.
    pub fn stored(&self) -> Vec<Arc<Pack>> {
        self.store.packs()
    }

    /// The frames that are here, as a bitmap's bytes.
    pub fn holdings(&self, pack: PackId) -> Vec<u8> {
        self.bulk.holdings(pack).unwrap_or_default()
    }

    /// Where the store keeps the manifest.
    pub fn manifest_path(&self, pack: PackId) -> PathBuf {
        self.home.path(format!("packs/{pack}.manifest"))
    }

    /// Where the store keeps the frames.
    pub fn frames_path(&self, pack: PackId) -> PathBuf {
        self.home.path(format!("packs/{pack}.pack"))
    }

    /// The bulk plane.
    pub fn bulk(&self) -> &BulkHandle {
        &self.bulk
    }

    /// Where it is written of which packs rules let nothing cross the line.
    pub fn rollouts_off(&self) -> &PackSet {
        &self.rollouts_off
    }

    /// How far every pack is.
    pub fn progress(&self) -> Vec<Progress> {
        self.bulk.progress().borrow().clone()
    }

    /// Every transfer of this node.
    pub fn accounts(&self) -> Accounts {
        self.bulk.accounts()
    }

    /// Every transfer of this node, and at headquarters the frame bytes that it sent per site and pack.
    ///
    /// # Errors
    /// Never in practice.
    pub fn transfers(&self) -> Result<Value> {
        Ok(serde_json::json!({ "transfers": self.bulk.accounts(), "origin": self.bulk.fence_records() }))
    }

    /// Whether this node keeps all of a pack.
    pub fn keeps(&self, pack: PackId) -> bool {
        self.store.kept(pack).is_some_and(|kept| kept.is_full())
    }

    /// Copies the packs of a catalogue directory into the store and serves them.
    ///
    /// # Errors
    /// A pack is damaged, or the disk fails.
    pub async fn publish(&self, directory: &Path) -> Result<usize> {
        let directory = directory.join("packs");
        let mut published = 0;
        if !directory.is_dir() {
            return Ok(0);
        }
        for entry in std::fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some(pack) = name.strip_suffix(".manifest").and_then(|stem| stem.parse::<PackId>().ok()) else {
                continue;
            };
            let (store, from) = (self.store.clone(), directory.clone());
            let known = tokio::task::spawn_blocking(move || copy_pack(&store, &from, pack)).await??;
            self.bulk.want(known).await?;
            published += 1;
        }
        Ok(published)
    }

    /// Begins to decide what crosses the line and to give out leases, as station.
    ///
    /// # Errors
    /// A journal cannot be read.
    pub fn start_leasing(&self, authority: &Authority, journals: &JournalStore) -> Result<()> {
        let key = self.documents.key().clone();
        let leasing = Leasing::start(authority, key, self.mesh.clone(), self.clone(), journals, self.clock)?;
        let crossings = Crossings::start(&self.documents, self.clone(), self.notices.clone(), journals, self.clock)?;
        *self.desks.lock().unwrap_or_else(PoisonError::into_inner) = Some(Desks { crossings, leasing });
        Ok(())
    }

    /// Leases bear a newer epoch of this station from now on.
    pub async fn lease_epoch(&self, epoch: Epoch) {
        if let Some(Desks { leasing, .. }) = self.desks() {
            leasing.epoch_changed(epoch).await;
        }
    }

    /// Gives out no more leases. Once this resolves the desks' journals are durable, and are written no more.
    pub async fn stop_leasing(&self) {
        let desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Desks { crossings, leasing }) = desks {
            crossings.end().await;
            leasing.end().await;
        }
    }

    fn desks(&self) -> Option<Desks> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the own lease of a pack.
    pub async fn revoke_lease(&self, pack: PackId) {
        let _ = self.bulk.revoke_lease(pack).await;
    }

    /// The station keeps every payload that it selects (R10), and is by default the one that brings it over the WAN.
    pub async fn keep(&self, packs: Vec<PackId>) {
        if let Some(Desks { crossings, leasing }) = self.desks() {
            for pack in &packs {
                crossings.keep(*pack).await;
                leasing.station_wants(*pack).await;
            }
        }
        self.want(packs).await;
    }

    /// A member of the site asks for the lease of a pack.
    pub async fn ask_lease(&self, node: NodeId, pack: PackId, held: u32) -> ControlAnswer {
        let Some(Desks { crossings, leasing }) = self.desks() else {
            return ControlAnswer::Refused(Refusal::new(RefusalKind::WrongState, "this node gives out no leases"));
        };
        match crossings.wish(node, pack).await {
            Wish::Withheld => ControlAnswer::Refused(Refusal::new(
                RefusalKind::Busy,
                "the update crosses the line in another form, or not at all; ask your neighbours for frames",
            )),
            Wish::Crosses { by_station } => {
                if by_station {
                    leasing.station_wants(pack).await;
                }
                leasing.ask(node, pack, held).await
            }
        }
    }

    async fn get_lease(&self, pack: PackId, held: u32) {
        let own = self.documents.node();
        let sites = self.documents.sites();
        let Some(authority) = sites.iter().find_map(|site| self.documents.authority(site)) else { return };
        let station = authority.charter().station.node;
        let answer = if station == own {
            Ok(self.ask_lease(own, pack, held).await)
        } else {
            self.mesh.request(station, ControlRequest::AskLease { pack, held }).await
        };
        match answer {
            Ok(ControlAnswer::Lease { lease, held }) => {
                let _ = self.bulk.give_lease(lease, held).await;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%pack, %error, "no lease now"),
        }
    }
}

/// Takes one pack over frame by frame, each verified.
fn copy_pack(store: &PackStore, directory: &Path, id: PackId) -> Result<Arc<Pack>> {
    let manifest_path = directory.join(format!("{id}.manifest"));
    let bytes = std::fs::read(&manifest_path).with_context(|| format!("reading {}", manifest_path.display()))?;
    let pack =
        Arc::new(Pack::decode_as(id, &bytes).with_context(|| format!("{} is damaged", manifest_path.display()))?);
    let kept = store.add(&pack)?;
    let frames_path = directory.join(format!("{id}.pack"));
    let mut frames = std::fs::File::open(&frames_path).with_context(|| format!("opening {}", frames_path.display()))?;
    let mut index = 0;
    while let Some(entry) = pack.chunk(index) {
        let mut frame = vec![0; entry.frame_length as usize];
        std::io::Read::read_exact(&mut frames, &mut frame)
            .with_context(|| format!("{} is cut", frames_path.display()))?;
        if !kept.contains(index) {
            store.write_frame(id, index, &frame)?;
        }
        index += 1;
    }
    store.commit(id)?;
    Ok(pack)
}
