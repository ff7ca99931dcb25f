//! What the machine knows.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    bits::{PeerSet, Rarity},
    interface::{PackKey, PeerKey, Place, Progress, SwarmOutput, SwarmSetup, Word},
    random::SplitMix,
    tuning::Tuning,
};
use crate::{
    charter::{Lease, Signed},
    content::{Bitmap, Pack},
    ids::{Epoch, NodeId},
    machine::{Deadline, Sequence, Sequenced},
    time::Monotonic,
};

/// A request under way, of one neighbour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub pack: PackKey,
    pub index: u32,
    pub length: u32,
}

/// A frame that is being served, or waits for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    pub peer: PeerKey,
    pub pack: PackKey,
    pub index: u32,
}

/// One neighbour.
#[derive(Clone, Debug)]
pub(super) struct PeerState {
    pub node: NodeId,
    pub place: Place,
    pub takes_turns: bool,
    pub flights: Vec<Flight>,
    pub in_flight_bytes: u64,
    pub budget_bytes: u64,
    pub last_progress: Monotonic,
    /// How often in a row nothing came in time; each time it is given twice as long.
    pub silences: u8,
    /// How often in a row it said that it is busy.
    pub busy_answers: u8,
    /// Busy, or silent for too long: nothing is asked of it until then.
    pub rests_until: Option<Monotonic>,
    pub last_word: Monotonic,
    /// The turn that was offered to it, and until when it may answer.
    pub turn: Option<(PackKey, Monotonic)>,
    pub turn_rests_until: Option<Monotonic>,
    /// How often in a row it let a turn go by.
    pub turn_failures: u8,
    /// Frames that wait for an upload slot for it.
    pub queued: u16,
    /// What is being pushed to it.
    pub push: Option<(PackKey, u32)>,
    /// The push under way takes so long that it no longer counts among the slots.
    pub push_overdue: bool,
    pub push_rests_until: Option<Monotonic>,
    /// How often in a row what was pushed to it was not heard of again.
    pub push_failures: u8,
    pub false_claims: u16,
    pub replays: u16,
}

impl PeerState {
    /// Whether it counts among the neighbours that send what was asked of them in their turns.
    pub fn is_source(&self) -> bool {
        self.place == Place::Inside && self.takes_turns && !self.flights.is_empty()
    }
}

/// A frame that was pushed, until a neighbour is known to have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Push {
    pub peer: PeerKey,
    pub index: u32,
    pub expires_at: Monotonic,
}

/// A frame at the store, and where it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storing {
    pub index: u32,
    pub peer: PeerKey,
    /// The node behind the key, which may have left since.
    pub node: NodeId,
    /// It crossed the WAN.
    pub wan: bool,
    /// Nobody had asked for it.
    pub pushed: bool,
    /// It came as a raw chunk.
    pub raw: bool,
}

/// How far making a pack durable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    Incomplete,
    Syncing,
    Complete,
}

/// The own lease of one pack.
#[derive(Clone, Debug)]
pub(super) struct OwnLease {
    pub signed: Signed<Lease>,
    pub rank: (Epoch, u64),
    pub expires_at: Monotonic,
    pub renew_at: Monotonic,
}

/// One pack. A frame that is not in `have` is `missing` exactly where it is neither at the store nor in flight.
#[derive(Clone, Debug)]
pub(super) struct PackState {
    pub manifest: Arc<Pack>,
    pub longest_frame_bytes: u64,
    pub have: Bitmap,
    pub missing: Bitmap,
    /// What neighbours may know of `have`. The rest is withheld until it was pushed.
    pub shown: Bitmap,
    /// Withheld frames that no neighbour is known to have and that are still to be pushed.
    pub to_push: Bitmap,
    /// Frames that are here as raw chunks only; `None`: there are none.
    pub raw: Option<Box<Bitmap>>,
    /// Words of one bitmap.
    pub words: usize,
    /// What each neighbour has: a row of `words` for each key.
    pub rows: Vec<u64>,
    /// How many frames each neighbour has: the members of its row.
    pub held: Vec<u32>,
    /// How many turns each neighbour has taken: frames that it does not announce here, since they came from here.
    pub given: Vec<u32>,
    pub rarity: Rarity,
    /// Neighbours that said what they have.
    pub known: PeerSet,
    /// Neighbours that want to hear what is here.
    pub interested: PeerSet,
    /// Neighbours that have nothing which is missing here.
    pub spent: PeerSet,
    /// Neighbours that may lack what is shown here, and take turns; not those that a turn was offered to since.
    pub hungry: PeerSet,
    /// Neighbours whose turns were passed.
    pub passed: PeerSet,
    /// Those of them whose turns were passed because enough others were sending.
    pub declined: PeerSet,
    pub storing: Vec<Storing>,
    pub pushes: VecDeque<Push>,
    /// Pushes that no socket took yet.
    pub pushing: u16,
    pub push_cursor: u32,
    /// When what is withheld is shown, if nothing more comes to be pushed.
    pub quiet_at: Option<Monotonic>,
    /// New frames that are shown and not announced yet, each once.
    pub announce: Vec<u32>,
    /// Frames whose sender is to hear that they have arrived.
    pub confirm: Vec<(PeerKey, u32)>,
    /// So many are new that all of `shown` is announced.
    pub announce_all: bool,
    pub have_bytes: u64,
    /// Bytes of frames that this node has and no neighbour has.
    pub sole_bytes: u64,
    /// Bytes that were asked of the origin and are not stored yet.
    pub wan_pending_bytes: u64,
    pub lease: Option<Box<OwnLease>>,
    pub ask_lease_at: Monotonic,
    /// Frames that were here when the lease was last asked for, and how long to wait after that.
    pub asked_with: u32,
    pub ask_interval: u64,
    /// Frames that some node of the site holds, by the station's word; `None`: no news.
    pub site_held: Option<Box<Bitmap>>,
    pub stalled_until: Option<Monotonic>,
    /// Until then the origin sends nothing of it.
    pub origin_busy_until: Option<Monotonic>,
    /// It said so last: it is asked for one frame, to see whether it still is.
    pub origin_was_busy: bool,
    /// When neighbours that claim what is missing here, and offer no turn, are asked all the same.
    pub probe_at: Option<Monotonic>,
    pub arrived_at: Monotonic,
    pub durability: Durability,
    pub wan_bytes: u64,
    pub lan_bytes: u64,
}

impl PackState {
    #[inline]
    pub fn length_of(&self, index: u32) -> u64 {
        self.manifest.frame_length(index)
    }

    /// What a neighbour has; empty where it never said so.
    #[inline]
    pub fn row(&self, peer: PeerKey) -> &[u64] {
        let start = usize::from(peer.0) * self.words;
        self.rows.get(start..start + self.words).unwrap_or(&[])
    }

    /// How many frames a neighbour is known to have.
    #[inline]
    pub fn held_by(&self, peer: PeerKey) -> u32 {
        self.held.get(usize::from(peer.0)).copied().unwrap_or(0)
    }

    /// How many frames a neighbour has, as far as this node can tell: those that it announced and those that it was given.
    #[inline]
    pub fn likely_has(&self, peer: PeerKey) -> u32 {
        self.held_by(peer).saturating_add(self.given.get(usize::from(peer.0)).copied().unwrap_or(0))
    }

    pub fn was_given(&mut self, peer: PeerKey) {
        let slot = usize::from(peer.0);
        if self.given.len() <= slot {
            self.given.resize(slot + 1, 0);
        }
        self.given[slot] = self.given[slot].saturating_add(1);
    }

    /// Whether a neighbour has something that is missing here.
    #[inline]
    pub fn lacks_of(&self, peer: PeerKey) -> bool {
        let missing = self.missing.words();
        for (number, has) in self.row(peer).iter().enumerate() {
            if has & missing[number] != 0 {
                return true;
            }
        }
        false
    }

    /// Whether a neighbour lacks any of these frames, as far as it announced what it has. One that announced nothing yet
    /// may have no row at all.
    pub fn lacks_any(&self, peer: PeerKey, frames: &Bitmap) -> bool {
        let row = self.row(peer).iter().copied().chain(std::iter::repeat(0));
        frames.words().iter().zip(row).any(|(frames, has)| frames & !has != 0)
    }

    #[inline]
    pub fn peer_has(&self, peer: PeerKey, index: u32) -> bool {
        let at = usize::from(peer.0) * self.words + (index / 64) as usize;
        self.rows.get(at).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Notes that a neighbour has a frame. `false`: it was known.
    #[inline]
    pub fn peer_gains(&mut self, peer: PeerKey, index: u32) -> bool {
        let slot = usize::from(peer.0);
        if self.held.len() <= slot {
            self.held.resize(slot + 1, 0);
            self.rows.resize((slot + 1) * self.words, 0);
        }
        let (word, bit) = (&mut self.rows[slot * self.words + (index / 64) as usize], 1 << (index % 64));
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.held[slot] += 1;
        if self.rarity.add(index) {
            if self.have.contains(index) {
                self.sole_bytes -= self.length_of(index);
            }
            self.to_push.remove(index);
        }
        true
    }

    /// Notes that a neighbour does not have a frame. `false`: that was known.
    pub fn peer_loses(&mut self, peer: PeerKey, index: u32) -> bool {
        if !self.peer_has(peer, index) {
            return false;
        }
        let slot = usize::from(peer.0);
        self.rows[slot * self.words + (index / 64) as usize] &= !(1 << (index % 64));
        self.held[slot] -= 1;
        if self.rarity.remove(index) && self.have.contains(index) {
            self.sole_bytes += self.length_of(index);
        }
        true
    }

    /// Whether something is still to be pushed before what is withheld may be shown.
    pub fn is_pushing(&self) -> bool {
        self.pushing > 0 || !self.to_push.is_empty()
    }

    pub fn has_raw(&self, index: u32) -> bool {
        self.raw.as_ref().is_some_and(|raw| raw.contains(index))
    }
}

/// A node that sent what it should not have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ban {
    pub until: Monotonic,
    pub times: u32,
}

/// One node's part in the swarm; see the module's description.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub(super) leased_bytes_max: u64,
    pub(super) tuning: Tuning,
    /// What a rule lets this node send.
    pub(super) send_bytes_per_second: Option<u64>,
    /// And receive.
    pub(super) receive_bytes_per_second: Option<u64>,
    pub(super) random: SplitMix,
    pub(super) packs: Vec<Option<Box<PackState>>>,
    /// Packs that lack frames, in the order in which they were wanted.
    pub(super) lacking: Vec<PackKey>,
    /// Packs with something to push or withheld.
    pub(super) pushing: Vec<PackKey>,
    /// Packs of which some neighbour may lack something, the shortest first.
    pub(super) feeding: Vec<PackKey>,
    /// Packs with something to announce.
    pub(super) announcing: Vec<PackKey>,
    pub(super) peers: Vec<Option<Box<PeerState>>>,
    pub(super) bans: BTreeMap<NodeId, Ban>,
    pub(super) inside: PeerSet,
    pub(super) origins: PeerSet,
    /// Neighbours of which something might be asked now.
    pub(super) ready: PeerSet,
    /// Neighbours of which nothing is asked because the store has no room.
    pub(super) no_room: PeerSet,
    /// Those that sent nothing of what they were asked for: what they claim keeps nobody from the line.
    pub(super) doubted: PeerSet,
    /// Neighbours to which nothing is pushed now: a push is under way, or they rest.
    pub(super) push_busy: PeerSet,
    pub(super) push_cursor: PeerKey,
    /// Pushes under way that count among the slots.
    pub(super) push_active: u16,
    pub(super) uploads: Vec<(Upload, Monotonic)>,
    /// Turns that were offered and not answered yet; each holds a slot.
    pub(super) turns: u16,
    /// Neighbours to which no turn is offered now: one is, a frame is under way, or they rest.
    pub(super) upload_busy: PeerSet,
    /// Uploads under way that take so long that they no longer count among the slots.
    pub(super) uploads_overdue: Vec<Upload>,
    pub(super) upload_queue: VecDeque<Upload>,
    /// Leases that are held.
    pub(super) leases: u16,
    pub(super) announced_at: Option<Monotonic>,
    pub(super) announce_at: Option<Monotonic>,
    pub(super) storing_bytes: u64,
    pub(super) flying_bytes: u64,
    /// Neighbours that give turns and of which something was asked.
    pub(super) sources: u16,
    /// A lower bound of the next deadline but `announce_at`, which comes with almost every frame.
    pub(super) wake: Option<Deadline>,
    /// The latest time that the machine was told.
    pub(super) latest: Monotonic,
    pub(super) scratch: Vec<u64>,
    pub(super) outputs: VecDeque<Sequenced<SwarmOutput>>,
}

impl Swarm {
    /// A swarm without packs and neighbours.
    pub fn new(setup: SwarmSetup) -> Self {
        Self {
            leased_bytes_max: setup.leased_bytes_max,
            tuning: setup.tuning,
            send_bytes_per_second: None,
            receive_bytes_per_second: None,
            random: SplitMix::new(setup.seed),
            packs: Vec::new(),
            lacking: Vec::new(),
            pushing: Vec::new(),
            feeding: Vec::new(),
            announcing: Vec::new(),
            peers: Vec::new(),
            bans: BTreeMap::new(),
            inside: PeerSet::default(),
            origins: PeerSet::default(),
            ready: PeerSet::default(),
            no_room: PeerSet::default(),
            doubted: PeerSet::default(),
            push_busy: PeerSet::default(),
            push_cursor: PeerKey(0),
            push_active: 0,
            uploads: Vec::new(),
            turns: 0,
            upload_busy: PeerSet::default(),
            uploads_overdue: Vec::new(),
            upload_queue: VecDeque::new(),
            leases: 0,
            announced_at: None,
            announce_at: None,
            storing_bytes: 0,
            flying_bytes: 0,
            sources: 0,
            wake: None,
            latest: Monotonic::default(),
            scratch: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Frames of a pack that are stored here; `None` where the pack is not known.
    pub fn have(&self, pack: PackKey) -> Option<&Bitmap> {
        self.pack(pack).map(|state| &state.have)
    }

    /// How far every pack is.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        self.packs.iter().flatten().map(|state| Progress {
            pack: state.manifest.id(),
            frames: state.have.count(),
            frames_total: state.have.length(),
            bytes: state.have_bytes,
            bytes_total: state.manifest.length(),
            wan_bytes: state.wan_bytes,
            lan_bytes: state.lan_bytes,
            inlet: state.lease.is_some(),
            complete: state.durability == Durability::Complete,
        })
    }

    /// Whether any pack still lacks frames.
    pub fn wants_frames(&self) -> bool {
        !self.lacking.is_empty()
    }

    /// Whether frames are missing and nobody has been asked for any: no neighbour has one, or nobody may be asked.
    pub fn is_starving(&self) -> bool {
        self.wants_frames() && self.flying_bytes == 0 && self.storing_bytes == 0
    }

    /// Whether this node holds a lease and needs the origin.
    pub fn needs_origin(&self) -> bool {
        self.lacking.iter().filter_map(|pack| self.pack(*pack)).any(|state| state.lease.is_some())
    }

    #[inline]
    pub(super) fn pack(&self, pack: PackKey) -> Option<&PackState> {
        self.packs.get(usize::from(pack.0))?.as_deref()
    }

    #[inline]
    pub(super) fn pack_mut(&mut self, pack: PackKey) -> Option<&mut PackState> {
        self.packs.get_mut(usize::from(pack.0))?.as_deref_mut()
    }

    #[inline]
    pub(super) fn peer(&self, peer: PeerKey) -> Option<&PeerState> {
        self.peers.get(usize::from(peer.0))?.as_deref()
    }

    #[inline]
    pub(super) fn peer_mut(&mut self, peer: PeerKey) -> Option<&mut PeerState> {
        self.peers.get_mut(usize::from(peer.0))?.as_deref_mut()
    }

    pub(super) fn pack_keys(&self) -> Vec<PackKey> {
        let known = (0..).zip(&self.packs).filter(|(_, state)| state.is_some());
        known.map(|(key, _)| PackKey(key)).collect()
    }

    pub(super) fn out(&mut self, output: SwarmOutput) {
        self.outputs.push_back(Sequenced { after: Sequence::default(), output });
    }

    pub(super) fn say(&mut self, peer: PeerKey, pack: PackKey, word: Word) {
        self.out(SwarmOutput::Say { peer, pack, word });
    }

    /// The machine is to be called at this time or earlier.
    pub(super) fn wake_at(&mut self, at: Monotonic, reason: &'static str) {
        if self.wake.is_none_or(|wake| at < wake.at) {
            self.wake = Some(Deadline { at, reason });
        }
    }
}

/// A time later by `microseconds`.
pub(super) fn later(at: Monotonic, microseconds: u64) -> Monotonic {
    Monotonic(at.0.saturating_add(microseconds))
}

/// Puts `key` into a list that holds it at most once.
pub(super) fn enlist(list: &mut Vec<PackKey>, key: PackKey) {
    if !list.contains(&key) {
        list.push(key);
    }
}
