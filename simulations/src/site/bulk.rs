//! Connections between swarms and the origin: reliable and in order while they last, as TCP is.
use std::{collections::BTreeMap, time::Duration};

use branchline_protocol::{
    charter::{Lease, Signed},
    ids::{NodeId, PackId},
    machine::{Machine, Sequenced},
    refusal::Refusal,
    swarm::{Fence, NamedInput, NamedOutput, Place},
    time::Monotonic,
    wire::bulk::BulkMessage,
};

use super::{
    SiteWorld,
    happening::{End, Happening, Who},
    messages::Path,
    trust::site_name,
};
use crate::world::driven::Process;

/// A connection between two ends.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    number: u64,
    /// When the last message of each direction arrives; the next one comes after it.
    last_arrival: BTreeMap<End, Monotonic>,
    /// Frame bytes of the origin that are under way.
    wan_bytes: u64,
}

/// The origin: it serves against leases only.
#[derive(Debug, Default)]
pub(super) struct Origin {
    fence: Fence,
}

impl Origin {
    /// The fence's records are durable; what it knows of running leases is not.
    pub fn crash(&mut self) {
        self.fence = Fence::restore(self.fence.records());
    }
}

/// How long a connection takes to be made.
const CONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(3));

fn ordered(a: End, b: End) -> (End, End) {
    if a < b { (a, b) } else { (b, a) }
}

impl SiteWorld {
    fn end_node(&self, end: End) -> NodeId {
        match end {
            End::Origin => self.trust.headquarters_node(),
            End::Host(number) => self.hosts[number].node,
        }
    }

    fn end_of(&self, node: NodeId) -> Option<End> {
        if node == self.trust.headquarters_node() {
            return Some(End::Origin);
        }
        self.host_number(node).map(End::Host)
    }

    fn is_end_up(&self, end: End) -> bool {
        match end {
            End::Origin => self.headquarters.machine.is_up(),
            End::Host(number) => self.hosts[number].machine.is_up(),
        }
    }

    fn plan_connection(&mut self, a: End, b: End) {
        let takes = self.chance.between(CONNECT.0, CONNECT.1);
        let (a, b) = ordered(a, b);
        self.agenda.after(takes, Happening::Connect(a, b));
    }

    pub(super) fn connect_host(&mut self, number: usize) {
        self.plan_connection(End::Origin, End::Host(number));
        for other in (0..self.hosts.len()).filter(|other| *other != number) {
            self.plan_connection(End::Host(other), End::Host(number));
        }
    }

    pub(super) fn connect_origin(&mut self) {
        for number in 0..self.hosts.len() {
            self.plan_connection(End::Origin, End::Host(number));
        }
    }

    pub(super) fn connect(&mut self, a: End, b: End) {
        if self.connections.contains_key(&(a, b)) || !self.is_end_up(a) || !self.is_end_up(b) {
            return;
        }
        self.connections_made += 1;
        let connection = Connection { number: self.connections_made, last_arrival: BTreeMap::new(), wan_bytes: 0 };
        self.connections.insert((a, b), connection);
        for (end, other) in [(a, b), (b, a)] {
            if let End::Host(number) = end {
                let place = if other == End::Origin { Place::Origin } else { Place::Inside };
                let peer = self.end_node(other);
                self.swarm_input(number, NamedInput::PeerJoined { peer, place, version: 2 });
            }
        }
    }

    /// Takes every connection of an end down.
    pub(super) fn disconnect(&mut self, end: End) {
        let gone: Vec<(End, End)> = self.connections.keys().copied().filter(|(a, b)| *a == end || *b == end).collect();
        for (a, b) in gone {
            self.cut(a, b);
        }
    }

    fn cut(&mut self, a: End, b: End) {
        let (a, b) = ordered(a, b);
        let Some(gone) = self.connections.remove(&(a, b)) else { return };
        // What the origin had sent into this connection is lost with it: the holder begins anew.
        self.watch.holders_lost += u64::from(gone.wan_bytes > 0);
        for (end, other) in [(a, b), (b, a)] {
            if let End::Host(number) = end
                && self.hosts[number].machine.is_up()
            {
                let peer = self.end_node(other);
                self.swarm_input(number, NamedInput::PeerLeft { peer });
            }
        }
        self.plan_connection(a, b);
    }

    /// A host that dies with frames that came to it over the line is a lost lease holder, once for each pack.
    pub(super) fn count_lost_holders(&mut self, who: Who) {
        let Who::Host(number) = who else { return };
        let progress = self.hosts[number].swarm.iter().flat_map(|swarm| swarm.progress().collect::<Vec<_>>());
        self.watch.holders_lost += progress.filter(|progress| progress.wan_bytes > 0).count() as u64;
    }

    fn send(&mut self, from: End, to: End, message: BulkMessage) {
        let now = self.agenda.now().monotonic;
        let frame_bytes = if let BulkMessage::Frame { bytes, .. } = &message { bytes.len() as u64 } else { 0 };
        let arrives = if let (End::Origin, BulkMessage::Frame { pack, .. }) = (from, &message) {
            self.wan.send_frame(now, *pack, frame_bytes).after(Duration::from_millis(20))
        } else if from == End::Origin || to == End::Origin {
            now.after(Duration::from_millis(20))
        } else {
            let takes = (frame_bytes + 100) * 1_000_000 / self.scenario.lan_bytes_per_second.max(1);
            now.after(Duration::from_micros(takes + 200))
        };
        let Some(connection) = self.connections.get_mut(&ordered(from, to)) else { return };
        if from == End::Origin {
            connection.wan_bytes += frame_bytes;
        }
        let last = connection.last_arrival.entry(to).or_insert(now);
        *last = (*last).max(arrives);
        let (at, connection) = (*last, connection.number);
        self.agenda.at(at, Happening::Bulk { connection, from, to, message: Box::new(message) });
    }

    pub(super) fn bulk_arrives(&mut self, number: u64, from: End, to: End, message: BulkMessage) {
        let Some(connection) = self.connections.get_mut(&ordered(from, to)).filter(|open| open.number == number) else {
            return;
        };
        if let (End::Origin, BulkMessage::Frame { bytes, .. }) = (from, &message) {
            connection.wan_bytes = connection.wan_bytes.saturating_sub(bytes.len() as u64);
        }
        let peer = self.end_node(from);
        match to {
            End::Host(host) => {
                let (input, frame) = NamedInput::of_message(peer, message);
                self.hosts[host].arriving = frame;
                self.swarm_input(host, input);
                self.hosts[host].arriving = None;
            }
            End::Origin => self.origin_hears(from, peer, message),
        }
    }

    fn origin_hears(&mut self, from: End, peer: NodeId, message: BulkMessage) {
        let now = self.agenda.now().monotonic;
        match message {
            BulkMessage::ShowLease(signed) => {
                let lease = self.trust.authority.check_lease(&signed);
                let admitted = lease.and_then(|lease| Ok((self.origin.fence.admit(now, peer, &lease)?, lease)));
                match admitted {
                    Ok((admission, lease)) => {
                        self.note(format_args!("the origin admits {from:?} with lease {}", lease.sequence));
                        if let Some(End::Host(cut)) = admission.cut.and_then(|node| self.end_of(node)) {
                            self.cut(End::Origin, End::Host(cut));
                        }
                    }
                    Err(refusal) => self.refuse(from, &signed, refusal),
                }
            }
            BulkMessage::Request { pack, index } => {
                let allowed = self.origin.fence.check(now, peer, &site_name(), pack);
                let payload = self.payloads.iter().find(|payload| payload.id() == pack);
                match (allowed, payload) {
                    (Ok(()), Some(payload)) => {
                        let bytes = payload.frame(index).to_vec();
                        self.count_fetched_for_liars(from, pack, index, bytes.len() as u64);
                        self.origin.fence.count(&site_name(), pack, bytes.len() as u64);
                        self.send(End::Origin, from, BulkMessage::Frame { pack, index, bytes });
                        self.watch_line();
                    }
                    (Err(refusal), _) => {
                        self.send(End::Origin, from, BulkMessage::Refuse { pack, index: Some(index), refusal });
                    }
                    (Ok(()), None) => {}
                }
            }
            _ => {}
        }
    }

    fn refuse(&mut self, to: End, signed: &Signed<Lease>, refusal: Refusal) {
        self.note(format_args!("the origin refuses {to:?}: {refusal}"));
        if let Ok(lease) = signed.verify(signed.signer()) {
            self.send(End::Origin, to, BulkMessage::Refuse { pack: lease.pack, index: None, refusal });
        }
    }

    pub(super) fn swarm_input(&mut self, number: usize, input: NamedInput) {
        let now = self.agenda.now();
        if let Some(swarm) = &mut self.hosts[number].swarm {
            swarm.handle(now, input);
            swarm.check_invariants();
            self.perform_swarm(number);
        }
    }

    pub(super) fn perform_swarm(&mut self, number: usize) {
        while let Some(Sequenced { output, .. }) = self.hosts[number].swarm.as_mut().and_then(Machine::poll_output) {
            self.perform_swarm_output(number, output);
        }
        let host = &mut self.hosts[number];
        let deadline = host.swarm.as_ref().and_then(Machine::poll_timeout);
        if let Some(deadline) = deadline
            && host.swarm_wake.is_none_or(|planned| planned > deadline.at)
        {
            // A deadline that has passed already is one that the machine only clears when it is called.
            let at = deadline.at.max(self.agenda.now().monotonic.after(Duration::from_micros(1)));
            host.swarm_wake = Some(at);
            let life = host.machine.life();
            self.agenda.at(at, Happening::WakeSwarm(number, life));
        }
    }

    fn perform_swarm_output(&mut self, number: usize, output: NamedOutput) {
        match output {
            NamedOutput::Send { peer, message } => {
                if let Some(to) = self.end_of(peer) {
                    self.send(End::Host(number), to, message);
                }
            }
            NamedOutput::Store { pack, index, peer } => {
                if let Some(bytes) = self.hosts[number].arriving.take() {
                    self.store_frame(number, pack, index, bytes, peer);
                }
            }
            NamedOutput::ServeFrame { peer, pack, index } => self.serve_frame(number, peer, pack, index),
            NamedOutput::Sync { pack } => {
                let life = self.hosts[number].machine.life();
                let takes = self.chance.between(Duration::from_millis(2), Duration::from_millis(60));
                self.agenda.after(takes, Happening::Synced(number, life, pack));
            }
            NamedOutput::Penalise { peer, why, .. } => {
                self.note(format_args!("host {number} penalises {}: {why}", peer.short()));
                // For whoever banned it, a peer is lost, with all that only it has.
                self.watch.holders_lost += 1;
                self.cut_peer(number, peer);
            }
            NamedOutput::Disconnect { peer, why } => {
                self.note(format_args!("host {number} disconnects {}: {why}", peer.short()));
                self.cut_peer(number, peer);
            }
            NamedOutput::AskLease { pack, held } => {
                self.send_inside(Path::AskLease(number), 1, &Happening::AskLease(number, pack, held));
            }
            NamedOutput::Complete { pack, wan_bytes, lan_bytes } => {
                self.watch_held_frames(number, pack);
                self.pack_complete(number, pack, wan_bytes, lan_bytes);
            }
            NamedOutput::Meet { .. } => {}
        }
    }

    fn cut_peer(&mut self, number: usize, peer: NodeId) {
        if let Some(end) = self.end_of(peer) {
            self.cut(End::Host(number), end);
        }
    }

    fn store_frame(&mut self, number: usize, pack: PackId, index: u32, bytes: Vec<u8>, peer: NodeId) {
        let now = self.agenda.now().monotonic;
        let Some(payload) = self.payloads.iter().find(|payload| payload.id() == pack) else { return };
        let manifest = payload.pack.clone();
        let good = self.hosts[number].store.entry(pack).or_default().write(now, &manifest, index, bytes);
        let input = if good {
            NamedInput::FrameStored { pack, index }
        } else {
            self.note(format_args!("host {number} got a corrupt frame {index} from {}", peer.short()));
            NamedInput::FrameCorrupt { pack, index }
        };
        self.swarm_input(number, input);
        self.watch_held_frames(number, pack);
    }

    fn serve_frame(&mut self, number: usize, peer: NodeId, pack: PackId, index: u32) {
        let (life, frame) = {
            let host = &self.hosts[number];
            let frame = host.store.get(&pack).and_then(|store| store.frame(index)).map(<[u8]>::to_vec);
            (host.machine.life(), frame)
        };
        let Some(to) = self.end_of(peer) else { return };
        let Some(connection) = self.connections.get(&ordered(End::Host(number), to)).map(|open| open.number) else {
            return self.swarm_input(number, NamedInput::FrameServed { peer, pack, index });
        };
        let length = frame.as_ref().map_or(0, Vec::len) as u64;
        if let Some(mut bytes) = frame {
            if self.stormy() && self.chance.happens(self.scenario.corrupt_per_mille) {
                bytes[0] ^= 1;
            }
            self.send(End::Host(number), to, BulkMessage::Frame { pack, index, bytes });
        }
        let takes = Duration::from_micros(length * 1_000_000 / self.scenario.lan_bytes_per_second.max(1) + 100);
        self.agenda.after(takes, Happening::Served(number, life, connection, to, pack, index));
    }

    pub(super) fn frame_served(
        &mut self,
        number: usize,
        life: u32,
        connection: u64,
        to: End,
        pack: PackId,
        index: u32,
    ) {
        let same = self.connections.get(&ordered(End::Host(number), to)).is_some_and(|open| open.number == connection);
        if self.hosts[number].machine.life() == life && same {
            let peer = self.end_node(to);
            self.swarm_input(number, NamedInput::FrameServed { peer, pack, index });
        }
    }

    pub(super) fn pack_synced(&mut self, number: usize, life: u32, pack: PackId) {
        if self.hosts[number].machine.life() == life && self.hosts[number].machine.is_up() {
            self.hosts[number].store.entry(pack).or_default().sync();
            self.swarm_input(number, NamedInput::PackSynced { pack });
        }
    }

    pub(super) fn lease_arrives(&mut self, number: usize, lease: Lease, held: Vec<u8>) {
        let signed = Signed::sign(&lease, &self.trust.station);
        self.swarm_input(number, NamedInput::LeaseGranted { signed, lease, held });
    }
}
