//! The loop around the swarm machine: connections, disk and accounts.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use branchline_protocol::{
    content::Pack,
    ids::{Hash, NodeId, PackId, SiteName},
    limits::{BULK_CONNECTIONS_MAX, BULK_NEIGHBOURS_MAX, BULK_QUEUE_MAX, LEASED_BYTES_DEFAULT},
    machine::Machine,
    swarm::{Fence, Place, Progress, Swarm, SwarmInput, SwarmOutput, SwarmSetup},
    wire::{bulk::BulkMessage, control::PeerRecord},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    accounts::{Accounts, Direction, TransferKey},
    certificate::TlsIdentity,
    connection::{Established, FrameOrder, LinkError, LinkKind, judge},
    dialer::dial,
    handle::{BulkConfig, BulkEvent, Command},
    links::{Inbound, Links, Served},
    pool::StorePool,
};
use crate::{
    mesh::Documents,
    runtime::Clock,
    store::packs::{PackStore, PackStoreError},
};

const TICK: Duration = Duration::from_secs(1);
/// Memberships expire; every so many ticks all connections are judged again.
const RECHECK_TICKS: u64 = 30;
const DIALS_AT_ONCE: usize = 8;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_LAST: Duration = Duration::from_secs(10);
/// Until a pack for which there was no room is tried again.
const ADD_AGAIN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
struct Backoff {
    failures: u32,
    until: Instant,
}

pub(super) struct Service {
    pub documents: Documents,
    pub store: PackStore,
    pub clock: Clock,
    pub fence: Arc<Mutex<Fence>>,
    pub links: Links,
    site: Option<SiteName>,
    tls: TlsIdentity,
    accounts: Arc<Mutex<Accounts>>,
    swarm: Swarm,
    inbox: mpsc::Sender<Inbound>,
    pool: StorePool,
    records: Vec<PeerRecord>,
    dialling: BTreeSet<NodeId>,
    backoffs: BTreeMap<NodeId, Backoff>,
    /// Packs for which the store had no room.
    waiting: BTreeMap<PackId, (Arc<Pack>, Instant)>,
    events: VecDeque<BulkEvent>,
    /// Neighbours are kept also while nothing is missing.
    keeps_neighbours: bool,
    ticks: u64,
}

impl Service {
    pub fn new(
        config: BulkConfig,
        tls: TlsIdentity,
        fence: Arc<Mutex<Fence>>,
        accounts: Arc<Mutex<Accounts>>,
        inbox: mpsc::Sender<Inbound>,
        pool: StorePool,
    ) -> Self {
        let authority = config.site.as_ref().and_then(|site| config.documents.authority(site));
        let leased_bytes_max =
            authority.map_or(LEASED_BYTES_DEFAULT, |authority| authority.charter().limits.leased_bytes_max);
        Self {
            swarm: Swarm::new(SwarmSetup { seed: config.seed, leased_bytes_max }),
            documents: config.documents,
            store: config.store.clone(),
            clock: config.clock,
            fence,
            links: Links::new(Arc::new(config.store), pool.clone(), inbox.clone()),
            pool,
            site: config.site,
            tls,
            accounts,
            inbox,
            records: Vec::new(),
            dialling: BTreeSet::new(),
            backoffs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            events: VecDeque::new(),
            keeps_neighbours: false,
            ticks: 0,
        }
    }

    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut inbox: mpsc::Receiver<Inbound>,
        events: mpsc::Sender<BulkEvent>,
        progress: watch::Sender<Vec<Progress>>,
    ) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.documents.changes();
        self.store.packs().into_iter().for_each(|pack| self.add(pack));
        loop {
            let deadline = self.swarm.poll_timeout().map(|due| self.clock.instant(due.at));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                Some(inbound) = inbox.recv() => self.inbound(inbound),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.swarm.handle_timeout(self.clock.now());
                }
                _ = ticks.tick() => self.tick(&progress),
                Ok(()) = changes.changed() => self.judge_again(),
                Ok(permit) = events.reserve(), if !self.events.is_empty() => {
                    if let Some(event) = self.events.pop_front() {
                        permit.send(event);
                    }
                    continue;
                }
            }
            if self.drain() {
                progress.send_replace(self.swarm.progress().collect());
            }
        }
    }

    fn input(&mut self, input: SwarmInput) {
        self.swarm.handle(self.clock.now(), input);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Want(pack) => self.add(pack),
            Command::Forget(pack) => {
                self.waiting.remove(&pack);
                self.input(SwarmInput::Forget { pack });
            }
            Command::KeepNeighbours => {
                self.keeps_neighbours = true;
                self.dial_due();
            }
            Command::SetPeers(peers) => {
                self.records = peers;
                self.dial_due();
            }
            Command::GiveLease(signed, held) => {
                let authority = self.site.as_ref().and_then(|site| self.documents.authority(site));
                match authority.map(|authority| authority.check_lease(&signed)) {
                    Some(Ok(lease)) if lease.holder == self.documents.node() => {
                        self.input(SwarmInput::LeaseGranted { signed: *signed, lease, held });
                        self.dial_due();
                    }
                    refused => tracing::warn!(?refused, "a lease that does not hold here is ignored"),
                }
            }
            Command::RevokeLease(pack) => self.input(SwarmInput::LeaseRevoked { pack }),
        }
    }

    /// Makes room for a pack, off the loop; `Inbound::Added` goes on from there.
    fn add(&mut self, pack: Arc<Pack>) {
        self.waiting.remove(&pack.id());
        let (store, inbox) = (self.store.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let wanted = Arc::clone(&pack);
            let added = tokio::task::spawn_blocking(move || store.add(&wanted)).await;
            if let Ok(result) = added {
                let _ = inbox.send(Inbound::Added { pack, result }).await;
            }
        });
    }

    fn inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Established(established) => self.established(*established),
            Inbound::DialFailed { peer, why } => self.dial_failed(peer, &why),
            Inbound::Message { link, message, .. } => self.message(link, message),
            Inbound::Closed { link, why } => {
                if let Some(peer) = self.links.get(link).map(|link| link.peer) {
                    tracing::debug!(%peer, %why, "a bulk connection ended");
                    self.cut(link);
                }
            }
            Inbound::Served { link, pack, index, outcome } => self.served(link, pack, index, outcome),
            Inbound::Added { pack, result: Ok(kept) } => {
                self.input(SwarmInput::Want { pack, kept });
                self.dial_due();
            }
            Inbound::Added { pack, result: Err(error) } => {
                self.trouble(pack.id(), &error);
                self.waiting.insert(pack.id(), (pack, Instant::now() + ADD_AGAIN));
            }
            Inbound::Stored { pack, index, peer, result } => match result {
                Ok(()) => self.input(SwarmInput::FrameStored { pack, index }),
                Err(PackStoreError::Corrupt(_)) => self.input(SwarmInput::FrameCorrupt { pack, index, peer }),
                Err(error) => {
                    self.trouble(pack, &error);
                    self.input(SwarmInput::StoreFailed { pack, index });
                }
            },
            Inbound::Synced { pack, result: Ok(()) } => self.input(SwarmInput::PackSynced { pack }),
            Inbound::Synced { pack, result: Err(error) } => {
                self.trouble(pack, &error);
                self.input(SwarmInput::StoreFailed { pack, index: u32::MAX });
            }
        }
    }

    fn established(&mut self, new: Established) {
        self.dialling.remove(&new.peer);
        // A ban outlasts the peer's own dialling.
        self.backoffs.retain(|peer, backoff| *peer != new.peer || backoff.until > Instant::now());
        let ours = new.kind == LinkKind::Client || self.site.as_ref() == Some(&new.site);
        if !ours || !self.links.prefers(self.documents.node(), &new) {
            return;
        }
        if let Some((old, _)) = self.links.of_peer(new.peer) {
            self.cut(old);
        }
        if self.links.len() >= BULK_CONNECTIONS_MAX {
            tracing::warn!(peer = %new.peer, "too many bulk connections; this one is closed");
            return;
        }
        let (peer, kind) = (new.peer, new.kind);
        let meter = (kind == LinkKind::Client).then(|| self.meter(&new.site));
        tracing::debug!(%peer, ?kind, dialled = new.dialled, "bulk connection");
        self.links.start(new, meter);
        if let LinkKind::Swarm(place) = kind {
            self.input(SwarmInput::PeerJoined { peer, place });
        }
    }

    fn message(&mut self, number: u64, message: BulkMessage) {
        let Some(link) = self.links.get(number) else { return };
        match link.kind {
            LinkKind::Client => self.client_message(number, message),
            LinkKind::Swarm(_) => {
                let peer = link.peer;
                self.input(SwarmInput::Message { peer, message });
            }
        }
    }

    fn served(&mut self, number: u64, pack: PackId, index: u32, outcome: Served) {
        let Some((peer, kind)) = self.links.get(number).map(|link| (link.peer, link.kind)) else { return };
        let place = if kind == LinkKind::Swarm(Place::Inside) { Place::Inside } else { Place::Outside };
        match outcome {
            Served::Sent(bytes) => self.account(peer, pack, Direction::Sent, place, bytes, true),
            Served::Lost(error) => {
                self.trouble(pack, &error);
                self.input(SwarmInput::FrameLost { pack, index });
            }
        }
        self.input(SwarmInput::FrameServed { peer, pack, index });
    }

    fn account(&self, peer: NodeId, pack: PackId, direction: Direction, place: Place, bytes: u64, useful: bool) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.add(TransferKey { peer, pack, direction, place }, bytes, useful);
    }

    /// Carries out what the machine wants. `true`: a pack became complete.
    fn drain(&mut self) -> bool {
        let mut completed = false;
        while let Some(output) = self.swarm.poll_output() {
            completed |= matches!(output.output, SwarmOutput::Complete { .. });
            self.output(output.output);
        }
        completed
    }

    fn output(&mut self, output: SwarmOutput) {
        match output {
            SwarmOutput::Send { peer, message } => {
                if let Some((number, _)) = self.links.of_peer(peer) {
                    self.tell(number, message);
                }
            }
            SwarmOutput::Store { pack, index, bytes, peer } => {
                let store = self.store.clone();
                self.off_loop(
                    move || store.write_frame(pack, index, &bytes),
                    move |result| Inbound::Stored { pack, index, peer, result },
                );
            }
            SwarmOutput::Sync { pack } => {
                let store = self.store.clone();
                self.off_loop(move || store.commit(pack), move |result| Inbound::Synced { pack, result });
            }
            SwarmOutput::ServeFrame { peer, pack, index } => {
                let order = FrameOrder { pack, index };
                let queued = self.links.of_peer(peer).is_some_and(|(_, link)| link.frames.try_send(order).is_ok());
                if !queued {
                    self.input(SwarmInput::FrameServed { peer, pack, index });
                }
            }
            SwarmOutput::Penalise { peer, pack, until, why } => {
                tracing::warn!(%peer, %pack, %why, "a peer is cut off");
                self.backoffs.insert(peer, Backoff { failures: 0, until: self.clock.instant(until) });
                self.tell_node(BulkEvent::Corrupt { peer, pack, why });
                self.cut_peer(peer);
            }
            SwarmOutput::Disconnect { peer, why } => {
                tracing::info!(%peer, why, "a peer is disconnected");
                self.cut_peer(peer);
            }
            SwarmOutput::AskLease { pack, held } => self.tell_node(BulkEvent::LeaseWanted { pack, held }),
            SwarmOutput::Complete { pack, wan_bytes, lan_bytes } => {
                self.tell_node(BulkEvent::Complete { pack, wan_bytes, lan_bytes });
            }
            SwarmOutput::Account { peer, pack, bytes, place, useful } => {
                self.account(peer, pack, Direction::Received, place, bytes, useful);
            }
        }
    }

    fn off_loop(
        &self,
        work: impl FnOnce() -> Result<(), PackStoreError> + Send + 'static,
        answer: impl FnOnce(Result<(), PackStoreError>) -> Inbound + Send + 'static,
    ) {
        let inbox = self.inbox.clone();
        self.pool.run(move || drop(inbox.blocking_send(answer(work()))));
    }

    pub fn tell(&mut self, number: u64, message: BulkMessage) {
        if !self.links.send(number, message) {
            tracing::info!(number, "a peer that takes nothing any more is cut");
            self.cut(number);
        }
    }

    /// Queues an event. Wishes for a lease repeat themselves and are not queued twice.
    pub fn tell_node(&mut self, event: BulkEvent) {
        let same = |other: &BulkEvent| match (&event, other) {
            (BulkEvent::LeaseWanted { pack, .. }, BulkEvent::LeaseWanted { pack: other, .. }) => pack == other,
            (BulkEvent::FenceMoved, BulkEvent::FenceMoved) => true,
            _ => false,
        };
        let repeats = self.events.iter().any(same);
        let droppable = !matches!(event, BulkEvent::Complete { .. });
        if !repeats && (self.events.len() < BULK_QUEUE_MAX || !droppable) {
            self.events.push_back(event);
        }
    }

    fn trouble(&mut self, pack: PackId, error: &PackStoreError) {
        tracing::warn!(%pack, %error, "the store refuses");
        self.tell_node(BulkEvent::StoreTrouble { pack, why: error.to_string() });
    }

    pub fn cut(&mut self, number: u64) {
        let Some(link) = self.links.remove(number) else { return };
        if matches!(link.kind, LinkKind::Swarm(_)) {
            let peer = link.peer;
            self.input(SwarmInput::PeerLeft { peer });
        }
    }

    fn cut_peer(&mut self, peer: NodeId) {
        if let Some((number, _)) = self.links.of_peer(peer) {
            self.cut(number);
        }
    }

    /// Cuts whoever is no member any more: revoked, expired, or of a site whose charter changed.
    fn judge_again(&mut self) {
        let judged = |link: &super::links::Link| judge(&self.documents, link.peer, &link.hello);
        let out: Vec<_> =
            self.links.iter().filter(|(_, link)| judged(link).is_err()).map(|(number, _)| number).collect();
        for number in out {
            tracing::info!(number, "a peer is no member any more");
            self.cut(number);
        }
    }

    fn tick(&mut self, progress: &watch::Sender<Vec<Progress>>) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(RECHECK_TICKS) {
            self.judge_again();
        }
        let now = Instant::now();
        let due: Vec<_> =
            self.waiting.values().filter(|(_, at)| *at <= now).map(|(pack, _)| Arc::clone(pack)).collect();
        due.into_iter().for_each(|pack| self.add(pack));
        self.dial_due();
        let current: Vec<Progress> = self.swarm.progress().collect();
        progress.send_if_modified(|last| {
            let changed = *last != current;
            *last = current;
            changed
        });
    }

    /// Whom this node wants to be connected with: some neighbours while frames are missing, the origin under a lease.
    fn wanted_peers(&self) -> Vec<PeerRecord> {
        let Some(authority) = self.site.as_ref().and_then(|site| self.documents.authority(site)) else {
            return Vec::new();
        };
        let (own, charter) = (self.documents.node(), authority.charter());
        let mut wanted = Vec::new();
        if self.swarm.wants_frames() || self.keeps_neighbours {
            let inside = |record: &&PeerRecord| record.node != own && charter.is_inside(record.addresses.bulk.ip());
            wanted.extend(self.records.iter().filter(inside).cloned());
            // The station first, then an order of its own for every node, so that the graph is random.
            let place =
                |record: &PeerRecord| (record.node != charter.station.node, Hash::of(&[own.0, record.node.0].concat()));
            wanted.sort_by_cached_key(place);
            wanted.dedup_by_key(|record| record.node);
            wanted.truncate(BULK_NEIGHBOURS_MAX);
        }
        if self.swarm.needs_origin() && charter.headquarters.node != own {
            let seat = &charter.headquarters;
            wanted.push(PeerRecord { node: seat.node, addresses: seat.addresses });
        }
        wanted
    }

    fn dial_due(&mut self) {
        let now = Instant::now();
        let Some(site) = self.site.clone() else { return };
        for record in self.wanted_peers() {
            let node = record.node;
            let waits = self.backoffs.get(&node).is_some_and(|backoff| backoff.until > now);
            if waits || self.dialling.contains(&node) || self.links.of_peer(node).is_some() {
                continue;
            }
            if self.dialling.len() >= DIALS_AT_ONCE {
                return;
            }
            self.dialling.insert(node);
            let (documents, tls, inbox) = (self.documents.clone(), self.tls.clone(), self.inbox.clone());
            let site = site.clone();
            tokio::spawn(async move {
                let inbound = match dial(&documents, &tls, &site, node, record.addresses.bulk).await {
                    Ok(established) => Inbound::Established(Box::new(established)),
                    Err(why) => Inbound::DialFailed { peer: node, why },
                };
                let _ = inbox.send(inbound).await;
            });
        }
    }

    fn dial_failed(&mut self, peer: NodeId, why: &LinkError) {
        tracing::debug!(%peer, %why, "dialling failed");
        self.dialling.remove(&peer);
        if self.backoffs.len() > BULK_CONNECTIONS_MAX {
            self.backoffs.clear();
        }
        let backoff = self.backoffs.entry(peer).or_insert(Backoff { failures: 0, until: Instant::now() });
        let wait = (BACKOFF_FIRST * (1 << backoff.failures.min(6))).min(BACKOFF_LAST);
        *backoff = Backoff { failures: backoff.failures.saturating_add(1), until: Instant::now() + wait };
    }
}
