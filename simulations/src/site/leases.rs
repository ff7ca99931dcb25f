//! The station's lease desk under virtual time: which host may bring a pack over the line (R70).
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use branchline_protocol::{
    charter::Lease,
    content::Bitmap,
    ids::{NodeId, PackId},
    machine::Deadline,
    time::Now,
};
use branchline_station_role::station::leases::{DeskInput, DeskOutput, DeskSetup, LeaseDesk};

use super::{
    SiteWorld,
    happening::{Happening, Who},
    messages::Path,
    station::StationNode,
    trust::{Trust, site_name},
};
use crate::world::{
    chance::Chance,
    driven::{Driven, Process},
};

/// How long it takes until the station sees that a member came or went.
const NOTICE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3));

/// The desk of the station's process.
pub(super) struct Leasing {
    pub desk: Driven<LeaseDesk>,
    /// Whose journal the desk's is.
    of: NodeId,
    /// The members whose coming or going the station has seen, or is about to see.
    noticed: BTreeSet<usize>,
    /// For the count of lost holders only; it survives crashes.
    last_holder: BTreeMap<PackId, usize>,
}

fn setup(trust: &Trust) -> DeskSetup {
    let charter = trust.authority.charter();
    DeskSetup {
        station: charter.station.node,
        site: site_name(),
        epoch: charter.epoch(),
        took_over: !charter.former_stations.is_empty(),
    }
}

impl Leasing {
    pub fn new(trust: &Trust, now: Now) -> Self {
        let setup = setup(trust);
        let of = setup.station;
        Self { desk: Driven::new(setup, now), of, noticed: BTreeSet::new(), last_holder: BTreeMap::new() }
    }

    /// Starts the desk anew. The desk of a node that takes the role over has a journal of its own, as in the product:
    /// its epoch is higher, and it asks the site before it gives anything.
    pub fn start(&mut self, trust: &Trust, now: Now) {
        let setup = setup(trust);
        if setup.station == self.of {
            self.desk.start(setup, now);
        } else {
            self.of = setup.station;
            self.desk = Driven::new(setup, now);
        }
        self.noticed.clear();
    }
}

impl SiteWorld {
    fn desk_input(&mut self, input: DeskInput) {
        let now = self.agenda.now();
        if self.station.leasing.desk.handle(now, input) {
            self.settle(Who::Station);
        }
    }

    /// The hosts that the station is connected to.
    fn members(&self) -> BTreeSet<usize> {
        let is_member = |number: &usize| self.hosts[*number].machine.is_up() && self.reaches_station(*number);
        (0..self.hosts.len()).filter(is_member).collect()
    }

    /// The station sees a while later that a member came or went.
    pub(super) fn notice_members(&mut self) {
        if !self.station.machine.is_up() {
            return;
        }
        let members = self.members();
        if self.station.leasing.noticed != members {
            self.station.leasing.noticed = members;
            let takes = self.chance.between(NOTICE.0, NOTICE.1);
            self.agenda.after(takes, Happening::Members(self.station.machine.life()));
        }
    }

    pub(super) fn members_noticed(&mut self, life: u32) {
        if self.station.machine.life() == life {
            let nodes = self.members().into_iter().map(|number| self.hosts[number].node).collect();
            self.desk_input(DeskInput::Living { nodes });
        }
    }

    pub(super) fn lease_wish_arrives(&mut self, number: usize, pack: PackId, held: u32) {
        let node = self.hosts[number].node;
        self.desk_input(DeskInput::Ask { node, pack, held });
    }

    /// Carries out what the desk wants.
    pub(super) fn perform_desk(&mut self) {
        loop {
            let outputs = self.station.leasing.desk.release();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    DeskOutput::Collect { pack, nodes } => self.collect_holdings(pack, nodes),
                    DeskOutput::Grant { lease, held } => self.grant(lease, &held),
                    // Who is denied asks again by itself, and an earlier holder stops by its own clock.
                    DeskOutput::Deny { .. } | DeskOutput::Revoke { .. } => {}
                }
            }
        }
    }

    /// Requests and their answers travel on connections: late, but not lost while the connection lasts.
    fn collect_holdings(&mut self, pack: PackId, nodes: Vec<NodeId>) {
        for node in nodes {
            if let Some(number) = self.host_number(node) {
                let way = self.way_of_request(number);
                self.agenda.after(way, Happening::AskHoldings(number, pack));
            } else {
                // The world's station keeps no payloads.
                let now = self.agenda.now();
                self.station.leasing.desk.handle(now, DeskInput::Holdings { node, pack, bitmap: Vec::new() });
            }
        }
    }

    fn way_of_request(&mut self, number: usize) -> Duration {
        let link = self.lan();
        self.chance.between(link.shortest, link.longest) * self.slowness(number)
    }

    pub(super) fn holdings_asked(&mut self, number: usize, pack: PackId) {
        let swarm = self.hosts[number].swarm.as_ref();
        let bitmap = swarm.and_then(|swarm| swarm.have(pack)).map(Bitmap::to_bytes).unwrap_or_default();
        let bitmap = self.claimed_holdings(number, pack).unwrap_or(bitmap);
        let way = self.way_of_request(number);
        self.agenda.after(way, Happening::Holdings(number, pack, bitmap));
    }

    pub(super) fn holdings_arrive(&mut self, number: usize, pack: PackId, bitmap: Vec<u8>) {
        let node = self.hosts[number].node;
        self.desk_input(DeskInput::Holdings { node, pack, bitmap });
    }

    fn grant(&mut self, lease: Lease, held: &[u8]) {
        let Some(number) = self.host_number(lease.holder) else { return };
        let pack = lease.pack;
        // Another holder before the pack is complete: the one before is lost.
        let before = self.station.leasing.last_holder.insert(pack, number).filter(|before| *before != number);
        let lapsed = before.is_some_and(|before| !self.hosts[before].complete.contains_key(&pack));
        self.watch.holders_lost += u64::from(lapsed);
        self.send_inside(Path::Lease(number), 1, &Happening::Lease(number, Box::new(lease), held.to_vec()));
    }
}

impl Process for StationNode {
    fn is_up(&self) -> bool {
        self.machine.is_up()
    }

    fn life(&self) -> u32 {
        self.machine.life()
    }

    fn is_dirty(&self) -> bool {
        self.machine.is_dirty() || self.leasing.desk.is_dirty()
    }

    fn commit(&mut self) {
        self.machine.commit();
        self.leasing.desk.commit();
    }

    fn deadline(&self) -> Option<Deadline> {
        Deadline::earlier(self.machine.deadline(), self.leasing.desk.deadline())
    }

    fn handle_timeout(&mut self, now: Now) {
        self.machine.handle_timeout(now);
        self.leasing.desk.handle_timeout(now);
    }

    fn crash(&mut self, chance: &mut Chance) {
        self.machine.crash(chance);
        self.leasing.desk.crash(chance);
    }

    fn stop(&mut self) {
        self.machine.stop();
        self.leasing.desk.stop();
    }

    fn set_wall_offset(&mut self, seconds: i64) {
        self.machine.set_wall_offset(seconds);
        self.leasing.desk.set_wall_offset(seconds);
    }
}
