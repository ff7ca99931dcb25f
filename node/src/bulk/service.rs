//! The loop around the swarm machine: connections, disk and accounts.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use branchline_protocol::{
    content::Pack,
    ids::{NodeId, PackId, SiteName},
    limits::{BULK_CONNECTIONS_MAX, BULK_FAREWELLS_MAX, BULK_NEIGHBOURS_MAX, BULK_QUEUE_MAX, LEASED_BYTES_DEFAULT},
    machine::Machine,
    rates::Rate,
    swarm::{Fence, NamedInput, NamedOutput, NamedSwarm, Place, Progress, SwarmSetup, Tuning},
    wire::{
        bulk::{BULK_VERSIONS, BulkMessage},
        control::PeerRecord,
    },
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    accounts::{Accounts, Direction, TransferKey},
    certificate::TlsIdentity,
    connection::{Established, FrameOrder, LinkKind, judge},
    handle::{BulkConfig, BulkEvent, Command},
    links::{Inbound, Links, Served},
    neighbourhood::{Backoff, turn_away},
    pool::{Arrival, RecentFrames, StorePool},
    shaper::Shaper,
};
use crate::{
    mesh::Documents,
    runtime::Clock,
    store::packs::{PackStore, PackStoreError},
};

const TICK: Duration = Duration::from_secs(1);
/// Until a pack for which there was no room is tried again.
const ADD_AGAIN: Duration = Duration::from_secs(10);
/// What has come is taken together, so that a busy node does not go to sleep and wake up for each message.
const INBOUND_AT_ONCE: usize = 32;

pub(super) struct Service {
    pub documents: Documents,
    pub store: PackStore,
    recent: RecentFrames,
    pub clock: Clock,
    pub fence: Arc<Mutex<Fence>>,
    pub links: Links,
    pub site: Option<SiteName>,
    pub tls: TlsIdentity,
    accounts: Arc<Mutex<Accounts>>,
    pub shaper: Shaper,
    /// Since when nothing may cross the line.
    pub line_off_since: Option<Instant>,
    pub swarm: NamedSwarm,
    /// The frame that the machine is being told of, until it says what becomes of it.
    arriving: Option<Arrival>,
    /// A pack has become complete since progress was last told.
    completed: bool,
    /// Members that busy neighbours named as ones to ask.
    pub suggested: BTreeSet<NodeId>,
    /// For how many ticks no neighbour has had anything that is missing here.
    pub starving: u32,
    pub inbox: mpsc::Sender<Inbound>,
    pub records: Vec<PeerRecord>,
    pub dialling: BTreeSet<NodeId>,
    pub backoffs: BTreeMap<NodeId, Backoff>,
    /// Places for those that are told that there is no place for them.
    farewells: Arc<Semaphore>,
    pool: StorePool,
    /// Packs for which the store had no room.
    waiting: BTreeMap<PackId, (Arc<Pack>, Instant)>,
    events: VecDeque<BulkEvent>,
    /// Neighbours are kept also while nothing is missing.
    pub keeps_neighbours: bool,
    /// What the machine was told that this node may send and receive.
    pub rates: [Rate; 2],
}

impl Service {
    pub fn new(
        config: BulkConfig,
        tls: TlsIdentity,
        (fence, accounts): (Arc<Mutex<Fence>>, Arc<Mutex<Accounts>>),
        inbox: mpsc::Sender<Inbound>,
        pool: StorePool,
        shaper: Shaper,
    ) -> Self {
        let authority = config.site.as_ref().and_then(|site| config.documents.authority(site));
        let recent = RecentFrames::new(config.store.clone());
        let leased_bytes_max =
            authority.map_or(LEASED_BYTES_DEFAULT, |authority| authority.charter().limits.leased_bytes_max);
        Self {
            swarm: NamedSwarm::new(SwarmSetup { seed: config.seed, leased_bytes_max, tuning: Tuning::default() }),
            arriving: None,
            completed: false,
            suggested: BTreeSet::new(),
            starving: 0,
            documents: config.documents,
            store: config.store,
            clock: config.clock,
            fence,
            links: Links::new(Arc::new(recent.clone()), pool.clone(), inbox.clone()),
            recent,
            pool,
            site: config.site,
            tls,
            accounts,
            shaper,
            line_off_since: None,
            inbox,
            records: Vec::new(),
            dialling: BTreeSet::new(),
            backoffs: BTreeMap::new(),
            farewells: Arc::new(Semaphore::new(BULK_FAREWELLS_MAX)),
            waiting: BTreeMap::new(),
            events: VecDeque::new(),
            keeps_neighbours: false,
            rates: [Rate::Unlimited; 2],
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
        let mut batch = Vec::with_capacity(INBOUND_AT_ONCE);
        let mut alarm = pin!(sleep_until(Instant::now()));
        let mut armed = None;
        loop {
            let deadline = self.swarm.poll_timeout().map(|due| self.clock.instant(due.at));
            if armed != deadline {
                armed = deadline;
                // A later time costs next to nothing, a new timer at each message does.
                deadline.into_iter().for_each(|at| alarm.as_mut().reset(at));
            }
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                _ = inbox.recv_many(&mut batch, INBOUND_AT_ONCE) => {
                    for inbound in batch.drain(..) {
                        self.inbound(inbound);
                        self.drain();
                    }
                }
                () = &mut alarm, if armed.is_some() => {
                    armed = None;
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
            self.drain();
            if std::mem::take(&mut self.completed) {
                progress.send_replace(self.swarm.progress().collect());
            }
        }
    }

    pub fn input(&mut self, input: NamedInput) {
        self.swarm.handle(self.clock.now(), input);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Want(pack) => self.add(pack),
            Command::Forget(pack) => {
                self.waiting.remove(&pack);
                self.input(NamedInput::Forget { pack });
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
                        self.input(NamedInput::LeaseGranted { signed: *signed, lease, held });
                        self.dial_due();
                    }
                    refused => tracing::warn!(?refused, "a lease that does not hold here is ignored"),
                }
            }
            Command::RevokeLease(pack) => self.input(NamedInput::LeaseRevoked { pack }),
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
            Inbound::Established(established) => {
                let peer = established.peer;
                self.established(*established);
                self.dialled(peer);
            }
            Inbound::DialFailed { peer, why } => self.dial_failed(peer, &why),
            Inbound::Message { link, message, .. } => self.message(link, message),
            Inbound::Closed { link, why } => self.closed(link, &why),
            Inbound::Served { link, pack, index, outcome } => self.served(link, pack, index, outcome),
            Inbound::Added { pack, result: Ok(kept) } => {
                // Packs enter the site at the station: what nobody else has is pushed from there.
                let source = self.is_station();
                self.input(NamedInput::Want { pack, kept, raw: None, source });
                self.dial_due();
            }
            Inbound::Added { pack, result: Err(error) } => {
                self.trouble(pack.id(), &error);
                self.waiting.insert(pack.id(), (pack, Instant::now() + ADD_AGAIN));
            }
            Inbound::Stored { pack, index, result } => match result {
                Ok(()) => self.input(NamedInput::FrameStored { pack, index }),
                Err(PackStoreError::Corrupt(_)) => self.input(NamedInput::FrameCorrupt { pack, index }),
                Err(error) => {
                    self.trouble(pack, &error);
                    self.input(NamedInput::StoreFailed { pack, index: Some(index) });
                }
            },
            Inbound::Synced { pack, result: Ok(()) } => self.input(NamedInput::PackSynced { pack }),
            Inbound::Synced { pack, result: Err(PackStoreError::Missing { index, .. }) } => {
                self.input(NamedInput::FrameLost { pack, index });
            }
            Inbound::Synced { pack, result: Err(error) } => {
                self.trouble(pack, &error);
                self.input(NamedInput::StoreFailed { pack, index: None });
            }
        }
    }

    fn established(&mut self, new: Established) {
        self.suggested.remove(&new.peer);
        // Documents may have changed while it waited here.
        let admission = match judge(&self.documents, new.peer, &new.hello) {
            Ok(admission) => admission,
            Err(refusal) => {
                tracing::info!(peer = %new.peer, why = refusal.reason, "a peer is no member any more");
                if new.dialled {
                    self.back_off(new.peer);
                }
                return;
            }
        };
        if !new.dialled {
            self.forget_failures_of(new.peer);
        }
        let ours = new.kind == LinkKind::Client || self.site.as_ref() == Some(&new.site);
        if !ours || !self.links.prefers(self.documents.node(), &new) {
            return;
        }
        if let Some((old, _)) = self.links.of_peer(new.peer) {
            self.cut(old);
        }
        if self.links.len() >= BULK_CONNECTIONS_MAX {
            tracing::warn!(peer = %new.peer, "too many bulk connections; this one is closed");
            return turn_away(new, &self.farewells);
        }
        if new.kind == LinkKind::Swarm(Place::Inside) && !new.dialled && !self.takes_neighbour(new.peer) {
            let Some(spare) = self.spare_neighbour() else {
                tracing::info!(peer = %new.peer, "as many neighbours as this node serves; another asks elsewhere");
                return turn_away(new, &self.farewells);
            };
            self.cut(spare);
        }
        let (peer, kind) = (new.peer, new.kind);
        let version = new.hello.versions.1.min(BULK_VERSIONS.1);
        let meter = (kind == LinkKind::Client).then(|| self.meter(&new.site));
        tracing::debug!(%peer, ?kind, dialled = new.dialled, "bulk connection");
        self.attach_lane(&new);
        self.links.start(new, admission.membership_ends_at, meter);
        if let LinkKind::Swarm(place) = kind {
            self.input(NamedInput::PeerJoined { peer, place, version });
        }
    }

    fn message(&mut self, number: u64, message: BulkMessage) {
        let Some(link) = self.links.get(number) else { return };
        if let BulkMessage::Refused(refusal) = &message {
            return self.turned_away(number, refusal);
        }
        match link.kind {
            LinkKind::Client => self.client_message(number, message),
            LinkKind::Swarm(place) => {
                let peer = link.peer;
                let (input, bytes) = NamedInput::of_message(peer, message);
                match (&input, bytes) {
                    (NamedInput::FrameArrived { pack, raw, .. }, Some(bytes)) => {
                        let (pack, length) = (*pack, bytes.len() as u64);
                        self.arriving = Some(Arrival { raw: *raw, bytes });
                        self.input(input);
                        self.drain();
                        // The machine has it stored at once, or never wants it.
                        let useful = self.arriving.take().is_none();
                        self.account(peer, pack, Direction::Received, place, length, useful);
                    }
                    _ => self.input(input),
                }
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
                self.input(NamedInput::FrameLost { pack, index });
            }
        }
        self.input(NamedInput::FrameServed { peer, pack, index });
    }

    fn account(&self, peer: NodeId, pack: PackId, direction: Direction, place: Place, bytes: u64, useful: bool) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.add(TransferKey { peer, pack, direction, place }, bytes, useful);
    }

    /// Carries out what the machine wants.
    fn drain(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            self.output(output.output);
        }
    }

    fn output(&mut self, output: NamedOutput) {
        match output {
            NamedOutput::Send { peer, message } => {
                if let Some((number, _)) = self.links.of_peer(peer) {
                    self.tell(number, message);
                }
            }
            NamedOutput::Store { pack, index, .. } => {
                let Some(arrival) = self.arriving.take() else { return };
                let (store, recent) = (self.store.clone(), self.recent.clone());
                self.off_loop(
                    move || arrival.write(&store, &recent, pack, index),
                    move |result| Inbound::Stored { pack, index, result },
                );
            }
            NamedOutput::Sync { pack } => {
                let store = self.store.clone();
                self.off_loop(move || store.commit_whole(pack), move |result| Inbound::Synced { pack, result });
            }
            NamedOutput::ServeFrame { peer, pack, index } => {
                let order = FrameOrder { pack, index };
                let queued = self.links.of_peer(peer).is_some_and(|(_, link)| link.frames.try_send(order).is_ok());
                if !queued {
                    self.input(NamedInput::FrameServed { peer, pack, index });
                }
            }
            NamedOutput::Penalise { peer, pack, until, why } => {
                tracing::warn!(%peer, %pack, %why, "a peer is cut off");
                self.backoffs.insert(peer, Backoff { failures: 0, until: self.clock.instant(until) });
                self.tell_node(BulkEvent::Corrupt { peer, pack, why });
                self.cut_peer(peer);
            }
            NamedOutput::Disconnect { peer, why } => {
                tracing::info!(%peer, why, "a peer is disconnected");
                self.cut_peer(peer);
            }
            NamedOutput::AskLease { pack, held } => self.tell_node(BulkEvent::LeaseWanted { pack, held }),
            NamedOutput::Complete { pack, wan_bytes, lan_bytes } => {
                self.completed = true;
                self.tell_node(BulkEvent::Complete { pack, wan_bytes, lan_bytes });
            }
            NamedOutput::Meet { node } => {
                // A neighbour may name anybody; only members whose address is known can be met.
                let is_known = self.records.iter().any(|record| record.node == node);
                if is_known && self.suggested.len() < BULK_NEIGHBOURS_MAX {
                    self.suggested.insert(node);
                    self.dial_due();
                }
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
            self.input(NamedInput::PeerLeft { peer });
        }
    }

    fn cut_peer(&mut self, peer: NodeId) {
        if let Some((number, _)) = self.links.of_peer(peer) {
            self.cut(number);
        }
    }

    fn tick(&mut self, progress: &watch::Sender<Vec<Progress>>) {
        self.mind_the_line();
        self.mind_the_rates();
        self.recent.tidy();
        self.forget_failures();
        self.cut_ended();
        let now = Instant::now();
        let due: Vec<_> =
            self.waiting.values().filter(|(_, at)| *at <= now).map(|(pack, _)| Arc::clone(pack)).collect();
        due.into_iter().for_each(|pack| self.add(pack));
        self.starving = if self.swarm.is_starving() { self.starving.saturating_add(1) } else { 0 };
        self.dial_due();
        self.drop_strangers();
        let current: Vec<Progress> = self.swarm.progress().collect();
        progress.send_if_modified(|last| {
            let changed = *last != current;
            *last = current;
            changed
        });
    }
}
