//! The lease desk: which node of the site may bring a pack over the WAN (R70).
//!
//! One inlet per pack at a time. By default that is the station, which keeps all payload files (R10); for a pack that
//! the station does not fetch, or does not get on with, it is the first host that asks. A lease is short and renewed
//! while its holder progresses. Before a lease changes hands, or is given again after a restart, the desk collects what
//! the site's nodes hold, so that nothing crosses the line twice. The origin lets only the highest (epoch, sequence)
//! through; the sequence is therefore journaled.
//!
//! What the nodes say that they hold is not proven. An inlet believes it and leaves those frames to the site, so that a
//! member that claims what it has not would keep the line idle for ever. The desk sees how many frames its inlets have:
//! where that does not grow for five minutes, whoever is the inlet, nothing more of the claims is passed on ([`Claims`]).
//!
//! The runtime signs each [`Lease`] with the station's key, sends `ControlRequest::Holdings` to the nodes of
//! [`DeskOutput::Collect`] and answers `ControlRequest::AskLease` with what comes of [`DeskInput::Ask`].
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use branchline_protocol::{
    charter::Lease,
    ids::{Epoch, NodeId, PackId, SiteName},
    limits::MANIFEST_CHUNKS_MAX,
    machine::{Deadline, Journaled, Machine, Record, Sequence, Sequenced},
    time::{Monotonic, Now},
};
use serde::{Deserialize, Serialize};

/// How long a lease lasts; the holder renews it at half of that.
pub const LEASE_LIFE: Duration = Duration::from_secs(10);
/// How long the nodes have to say what they hold.
const COLLECT_FOR: Duration = Duration::from_secs(2);
/// What the holder before may still receive before the desk collects.
const DRAIN_FOR: Duration = Duration::from_secs(2);
/// What the members get to come back after the station restarted or took over; before that nobody could be asked.
pub(super) const RETURN_FOR: Duration = Duration::from_secs(5);
/// A holder that gets no further for this long loses the lease to whoever else asks.
const STALL: Duration = Duration::from_secs(60);
/// How long what the site is said to hold keeps its inlets from the line while none of them gets on. Long enough that a node
/// to which its neighbours have nothing to give, and which then dials another member every two seconds, has met 150; a
/// holder that cannot be reached for as long is lost to the inlet's part of the site (R70).
const BELIEF: Duration = Duration::from_secs(300);
/// How much longer for each frame that an inlet gets meanwhile, from the site or over a line as slow as 64 KiB a minute. Who
/// gives frames one by one to be believed must give one a minute.
const BELIEF_PER_FRAME: Duration = Duration::from_secs(60);
/// Where nobody has asked for a pack's lease for this long, nobody waits for frames of it. What is claimed is new then.
const FORGET_CLAIMS_AFTER: Duration = Duration::from_secs(60);
/// How long hosts that ask wait for a station that wants the pack and does not take its lease: its disk may be full.
const STATION_ABSENT: Duration = Duration::from_secs(10);
/// Packs that one desk knows.
const PACKS_MAX: usize = 4096;

/// What a desk is built from besides its journal.
#[derive(Clone, Debug)]
pub struct DeskSetup {
    /// The station.
    pub station: NodeId,
    /// The site.
    pub site: SiteName,
    /// The station's epoch.
    pub epoch: Epoch,
    /// Whether another node was station before: then every pack is collected first.
    pub took_over: bool,
}

/// What is journaled. New variants are appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeskEvent {
    /// A lease was given or renewed.
    Given {
        /// The pack.
        pack: PackId,
        /// The inlet.
        holder: NodeId,
        /// The lease's sequence.
        sequence: u64,
    },
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum DeskInput {
    /// The station itself fetches this pack.
    StationWants {
        /// The pack.
        pack: PackId,
    },
    /// A node, perhaps the station, wants a lease or its renewal.
    Ask {
        /// Who.
        node: NodeId,
        /// The pack.
        pack: PackId,
        /// Frames that it has.
        held: u32,
    },
    /// A newer charter designates the same station: leases bear its epoch from now on. What was given before stays good
    /// until it is renewed, since the origin lets the highest (epoch, sequence) through.
    EpochChanged {
        /// The new epoch.
        epoch: Epoch,
    },
    /// These members are connected now, the station not counted.
    Living {
        /// The members.
        nodes: BTreeSet<NodeId>,
    },
    /// What a node holds, as a bitmap's bytes; empty where it holds nothing or did not answer.
    Holdings {
        /// Who.
        node: NodeId,
        /// The pack.
        pack: PackId,
        /// The bitmap.
        bitmap: Vec<u8>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeskOutput {
    /// Ask these nodes what they hold; answer with [`DeskInput::Holdings`] for each.
    Collect {
        /// The pack.
        pack: PackId,
        /// Whom to ask; the station itself may be among them.
        nodes: Vec<NodeId>,
    },
    /// Sign the lease and give it to its holder: the answer to its wish.
    Grant {
        /// The lease; its holder is to get it.
        lease: Lease,
        /// What the other nodes hold, as a bitmap's bytes; empty: nothing, or nothing that is believed.
        held: Vec<u8>,
    },
    /// The answer to a wish: another node is the inlet, or the site is being asked; ask again later.
    Deny {
        /// Who asked.
        node: NodeId,
        /// The pack.
        pack: PackId,
        /// Who is the inlet, or is about to be.
        inlet: NodeId,
    },
    /// Tell the holder that its lease is over.
    Revoke {
        /// Who.
        node: NodeId,
        /// The pack.
        pack: PackId,
    },
}

#[derive(Clone, Debug)]
struct Holder {
    node: NodeId,
    until: Monotonic,
    held: u32,
    progress_at: Monotonic,
}

#[derive(Clone, Debug)]
struct Collecting {
    node: NodeId,
    held: u32,
    /// Before this, what the holder before has under way may still come in.
    begins: Monotonic,
    /// `None` until the nodes were asked.
    asked: Option<(BTreeSet<NodeId>, Monotonic)>,
    bitmap: Vec<u8>,
}

/// How long what the nodes say that they hold of one pack is believed.
#[derive(Clone, Copy, Debug, Default)]
struct Claims {
    /// `None`: nothing was claimed.
    believed_until: Option<Monotonic>,
    /// The last wish for the lease.
    asked_at: Monotonic,
}

impl Claims {
    /// Somebody wants the lease.
    fn asked(&mut self, now: Monotonic) {
        if self.asked_at.after(FORGET_CLAIMS_AFTER) < now {
            self.believed_until = None;
        }
        self.asked_at = now;
    }

    /// An inlet has so many frames more. Once the claims are doubted that proves nothing: it may have them over the line.
    fn gained(&mut self, now: Monotonic, frames: u32) {
        if let Some(until) = self.believed_until.as_mut().filter(|until| **until > now) {
            *until = until.after(BELIEF_PER_FRAME.saturating_mul(frames)).min(now.after(BELIEF));
        }
    }

    /// What an inlet is told of what the site was found to hold.
    fn told(&mut self, now: Monotonic, bitmap: Vec<u8>) -> Vec<u8> {
        if bitmap.iter().all(|byte| *byte == 0) {
            self.believed_until = None;
            return bitmap;
        }
        let until = *self.believed_until.get_or_insert(now.after(BELIEF));
        if now < until { bitmap } else { Vec::new() }
    }
}

#[derive(Clone, Debug, Default)]
struct PackLease {
    claims: Claims,
    station_wants: bool,
    /// The holder of the last lease, also from before a restart.
    last: Option<NodeId>,
    holder: Option<Holder>,
    collecting: Option<Collecting>,
    /// Whether the last collection found anything; then a renewal collects again, for a holder may have died since.
    found: bool,
    /// Who did not get on; it is passed over until it asks and nobody else does.
    stalled: Option<NodeId>,
    /// Since when hosts that asked wait for the station to take the lease.
    awaits_station: Option<Monotonic>,
}

/// The lease desk of one station; see the module's description.
#[derive(Clone, Debug)]
pub struct LeaseDesk {
    setup: DeskSetup,
    living: BTreeSet<NodeId>,
    packs: BTreeMap<PackId, PackLease>,
    /// Before this nobody is asked what it holds.
    collects_from: Monotonic,
    lease_sequence: u64,
    journaled: Sequence,
    records: VecDeque<Record<DeskEvent>>,
    outputs: VecDeque<Sequenced<DeskOutput>>,
}

impl LeaseDesk {
    /// Who is the inlet of a pack now.
    pub fn inlet(&self, pack: PackId) -> Option<NodeId> {
        Some(self.packs.get(&pack)?.holder.as_ref()?.node)
    }

    fn say(&mut self, output: DeskOutput) {
        self.outputs.push_back(Sequenced { after: self.journaled, output });
    }

    fn ask(&mut self, now: Monotonic, node: NodeId, pack: PackId, held: u32) {
        if !self.packs.contains_key(&pack) && self.packs.len() >= PACKS_MAX {
            let inlet = self.setup.station;
            return self.say(DeskOutput::Deny { node, pack, inlet });
        }
        let station = self.setup.station;
        let state = self.packs.entry(pack).or_default();
        state.claims.asked(now);
        if let Some(collecting) = &mut state.collecting {
            if collecting.node == node {
                state.claims.gained(now, held.saturating_sub(collecting.held));
                collecting.held = held;
            }
            let inlet = collecting.node;
            return self.say(DeskOutput::Deny { node, pack, inlet });
        }
        if let Some(holder) = &mut state.holder {
            if holder.node == node {
                if holder.held != held {
                    state.claims.gained(now, held.saturating_sub(holder.held));
                    (holder.held, holder.progress_at) = (held, now);
                }
                let collect = state.found;
                return if collect {
                    self.collect(now, node, pack, held)
                } else {
                    self.grant(now, node, pack, held, vec![])
                };
            }
            if now < holder.progress_at.after(STALL) {
                let inlet = holder.node;
                return self.say(DeskOutput::Deny { node, pack, inlet });
            }
            let stalled = holder.node;
            state.stalled = Some(stalled);
            state.holder = None;
            self.say(DeskOutput::Revoke { node: stalled, pack });
        } else if state.station_wants && node != station && state.stalled != Some(station) {
            let since = *state.awaits_station.get_or_insert(now);
            if now < since.after(STATION_ABSENT) {
                return self.say(DeskOutput::Deny { node, pack, inlet: station });
            }
        }
        let Some(state) = self.packs.get(&pack) else { return };
        let first = state.last.is_none() && !self.setup.took_over;
        if first { self.grant(now, node, pack, held, vec![]) } else { self.collect(now, node, pack, held) }
    }

    /// Begins to ask the site what it holds; the one who asked is told to ask again unless the answer is at hand.
    fn collect(&mut self, now: Monotonic, node: NodeId, pack: PackId, held: u32) {
        let station = self.setup.station;
        let living = |other: NodeId| other == station || self.living.contains(&other);
        let Some(state) = self.packs.get_mut(&pack) else { return };
        let other_before = match state.last {
            Some(last) => last != node && living(last),
            None => self.setup.took_over,
        };
        let begins = if other_before { now.after(DRAIN_FOR) } else { now }.max(self.collects_from);
        state.collecting = Some(Collecting { node, held, begins, asked: None, bitmap: Vec::new() });
        self.advance(now);
    }

    fn grant(&mut self, now: Monotonic, node: NodeId, pack: PackId, held: u32, bitmap: Vec<u8>) {
        self.lease_sequence += 1;
        let sequence = self.lease_sequence;
        self.journaled = self.journaled.next();
        let event = DeskEvent::Given { pack, holder: node, sequence };
        self.records.push_back(Record { sequence: self.journaled, event });
        let Some(state) = self.packs.get_mut(&pack) else { return };
        let before = state.holder.take().filter(|holder| holder.node == node);
        let progress_at = before.filter(|holder| holder.held == held).map_or(now, |holder| holder.progress_at);
        state.holder = Some(Holder { node, until: now.after(LEASE_LIFE), held, progress_at });
        state.last = Some(node);
        if node == self.setup.station {
            state.awaits_station = None;
        }
        state.collecting = None;
        state.found = bitmap.iter().any(|byte| *byte != 0);
        let told = state.claims.told(now, bitmap);
        let life_milliseconds = u64::try_from(LEASE_LIFE.as_millis()).unwrap_or(u64::MAX);
        let (site, epoch) = (self.setup.site.clone(), self.setup.epoch);
        let lease = Lease { site, epoch, sequence, holder: node, pack, life_milliseconds };
        self.say(DeskOutput::Grant { lease, held: told });
    }

    fn living(&mut self, now: Monotonic, nodes: BTreeSet<NodeId>) {
        self.living = nodes;
        let station = self.setup.station;
        let gone = |node: NodeId| node != station && !self.living.contains(&node);
        for state in self.packs.values_mut() {
            // The origin's fence makes it safe to go on at once; a dead holder needs no word.
            if state.holder.as_ref().is_some_and(|holder| gone(holder.node)) {
                state.holder = None;
            }
            if state.collecting.as_ref().is_some_and(|collecting| gone(collecting.node)) {
                state.collecting = None;
            }
            if let Some((waiting, _)) = state.collecting.as_mut().and_then(|collecting| collecting.asked.as_mut()) {
                waiting.retain(|node| !gone(*node));
            }
        }
        self.advance(now);
    }

    fn holdings(&mut self, now: Monotonic, node: NodeId, pack: PackId, bitmap: &[u8]) {
        let Some(collecting) = self.packs.get_mut(&pack).and_then(|state| state.collecting.as_mut()) else { return };
        let Some((waiting, _)) = &mut collecting.asked else { return };
        if !waiting.remove(&node) {
            return;
        }
        let bitmap = if bitmap.len() <= MANIFEST_CHUNKS_MAX / 8 { bitmap } else { &[] };
        if collecting.bitmap.len() < bitmap.len() {
            collecting.bitmap.resize(bitmap.len(), 0);
        }
        for (all, one) in collecting.bitmap.iter_mut().zip(bitmap) {
            *all |= one;
        }
        self.advance(now);
    }

    /// Lets leases end, begins collections and closes them.
    fn advance(&mut self, now: Monotonic) {
        let (mut asks, mut grants) = (Vec::new(), Vec::new());
        for (pack, state) in &mut self.packs {
            if state.holder.as_ref().is_some_and(|holder| holder.until <= now) {
                state.holder = None;
            }
            let Some(collecting) = &mut state.collecting else { continue };
            if collecting.asked.is_none() && collecting.begins <= now {
                let everybody = self.living.iter().copied().chain([self.setup.station]);
                let nodes: BTreeSet<NodeId> = everybody.filter(|node| *node != collecting.node).collect();
                asks.push((*pack, nodes.iter().copied().collect::<Vec<_>>()));
                collecting.asked = Some((nodes, now.after(COLLECT_FOR)));
            }
            if collecting.asked.as_ref().is_some_and(|(waiting, until)| waiting.is_empty() || *until <= now) {
                grants.push((*pack, collecting.node, collecting.held, std::mem::take(&mut collecting.bitmap)));
            }
        }
        for (pack, nodes) in asks.into_iter().filter(|(_, nodes)| !nodes.is_empty()) {
            self.say(DeskOutput::Collect { pack, nodes });
        }
        for (pack, node, held, bitmap) in grants {
            self.grant(now, node, pack, held, bitmap);
        }
    }
}

impl Machine for LeaseDesk {
    type Input = DeskInput;
    type Output = DeskOutput;

    fn handle(&mut self, now: Now, input: DeskInput) {
        let now = now.monotonic;
        self.advance(now);
        match input {
            DeskInput::StationWants { pack } => {
                if self.packs.contains_key(&pack) || self.packs.len() < PACKS_MAX {
                    self.packs.entry(pack).or_default().station_wants = true;
                }
            }
            DeskInput::Ask { node, pack, held } => self.ask(now, node, pack, held),
            DeskInput::EpochChanged { epoch } => self.setup.epoch = self.setup.epoch.max(epoch),
            DeskInput::Living { nodes } => self.living(now, nodes),
            DeskInput::Holdings { node, pack, bitmap } => self.holdings(now, node, pack, &bitmap),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.advance(now.monotonic);
    }

    fn poll_output(&mut self) -> Option<Sequenced<DeskOutput>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let deadlines = self.packs.values().flat_map(|state| {
            let ends = state.holder.as_ref().map(|holder| Deadline { at: holder.until, reason: "a lease ends" });
            let collects = state.collecting.as_ref().map(|collecting| match &collecting.asked {
                None => Deadline { at: collecting.begins, reason: "ask the site what it holds" },
                Some((_, until)) => Deadline { at: *until, reason: "go on with what the site has answered" },
            });
            [ends, collects]
        });
        deadlines.fold(None, Deadline::earlier)
    }

    fn check_invariants(&self) {
        for (pack, state) in &self.packs {
            assert!(
                state.holder.is_none() || state.last == state.holder.as_ref().map(|holder| holder.node),
                "the last holder of {pack} is not the holder"
            );
            let asked = state.collecting.as_ref().and_then(|collecting| collecting.asked.as_ref());
            let stranger = asked.is_some_and(|(waiting, _)| {
                waiting.iter().any(|node| *node != self.setup.station && !self.living.contains(node))
            });
            assert!(!stranger, "the desk waits for the holdings of a node that is not there");
        }
        assert!(self.packs.len() <= PACKS_MAX, "packs of the lease desk");
    }
}

impl Journaled for LeaseDesk {
    type Event = DeskEvent;
    type Setup = DeskSetup;

    fn recover(setup: DeskSetup, now: Now, events: impl IntoIterator<Item = Record<DeskEvent>>) -> Self {
        let mut desk = Self {
            setup,
            living: BTreeSet::new(),
            packs: BTreeMap::new(),
            collects_from: Monotonic::default(),
            lease_sequence: 0,
            journaled: Sequence::default(),
            records: VecDeque::new(),
            outputs: VecDeque::new(),
        };
        for Record { sequence, event: DeskEvent::Given { pack, holder, sequence: lease } } in events {
            desk.journaled = sequence;
            desk.lease_sequence = desk.lease_sequence.max(lease);
            desk.packs.entry(pack).or_default().last = Some(holder);
        }
        if desk.setup.took_over || desk.lease_sequence > 0 {
            desk.collects_from = now.monotonic.after(RETURN_FOR);
        }
        desk
    }

    fn poll_record(&mut self) -> Option<Record<DeskEvent>> {
        self.records.pop_front()
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
