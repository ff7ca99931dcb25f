//! One site with headquarters, a station and hosts: the machines of the product, and a world that treats them badly.
//!
//! | module | holds |
//! | --- | --- |
//! | [`happening`] | what can happen, and to whom |
//! | `headquarters` | the runtime around headquarters' machine |
//! | `station` | the runtime around the site's machine |
//! | `host` | the runtime around a host's machine and its installer |
//! | `bulk` | connections between swarms and the origin |
//! | [`payload`] | payloads, and what a disk holds of them |
//! | [`trust`] | keys and documents |
//! | `watch` | when which checker looks |
mod bulk;
pub mod happening;
mod headquarters;
mod host;
pub mod payload;
mod station;
pub mod trust;
mod watch;

use std::{collections::BTreeMap, time::Duration};

use branchline_protocol::{
    ids::{Hash, NodeId},
    time::Monotonic,
};

use self::{
    bulk::{Connection, Origin},
    happening::{End, Happening, Who},
    headquarters::HeadquartersNode,
    host::HostNode,
    payload::{Payload, PlanScript},
    station::StationNode,
    trust::Trust,
    watch::Watch,
};
use crate::{
    checkers::Violation,
    replay::Trace,
    scenario::SiteScenario,
    world::{
        chance::Chance,
        clock::Agenda,
        driven::Process,
        lan::Link,
        router::{Router, SET_LIFETIME},
        wan::Wan,
    },
};

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Names everything that happened.
    pub trace: Hash,
    /// Lines of the trace.
    pub lines: u64,
    /// When everybody was done, in seconds of the world.
    pub seconds: u64,
    /// Frame bytes that crossed the line.
    pub wan_bytes: u64,
    /// Length of the packs that were chosen.
    pub pack_bytes: u64,
    /// How often a lease holder or its connection was lost: k of R70.
    pub holders_lost: u64,
    /// Processes that died.
    pub crashes: u64,
}

/// One site world.
pub struct SiteWorld {
    scenario: SiteScenario,
    chance: Chance,
    agenda: Agenda<Happening>,
    trace: Trace,
    trust: Trust,
    payloads: Vec<Payload>,
    plans: Vec<PlanScript>,
    headquarters: HeadquartersNode,
    station: StationNode,
    hosts: Vec<HostNode>,
    router: Router,
    wan: Wan,
    origin: Origin,
    connections: BTreeMap<(End, End), Connection>,
    connections_made: u64,
    planned_wakes: BTreeMap<Who, Monotonic>,
    planned_commits: BTreeMap<Who, u32>,
    watch: Watch,
}

impl SiteWorld {
    /// A world at its beginning.
    pub fn new(scenario: SiteScenario) -> Self {
        let mut chance = Chance::new(scenario.seed);
        let agenda = Agenda::default();
        let trust = Trust::new(&scenario);
        let mut payload = |name| Payload::random(name, scenario.payload_bytes, scenario.chunk_bytes, &mut chance);
        let payloads = vec![payload("agent.tar"), payload("cluster.tar")];
        let plans = vec![PlanScript::over(&[&payloads[0]]), PlanScript::over(&[&payloads[0], &payloads[1]])];
        let now = agenda.now();
        let mut world = Self {
            headquarters: HeadquartersNode::new(now),
            station: StationNode::new(&trust, now),
            hosts: (0..scenario.hosts).map(|number| HostNode::new(number, now, &mut chance, &scenario)).collect(),
            router: Router::default(),
            wan: Wan::new(scenario.wan_bytes_per_second),
            origin: Origin::default(),
            connections: BTreeMap::new(),
            connections_made: 0,
            planned_wakes: BTreeMap::new(),
            planned_commits: BTreeMap::new(),
            watch: Watch::default(),
            trace: Trace::default(),
            scenario,
            chance,
            agenda,
            trust,
            payloads,
            plans,
        };
        world.plan_everything();
        world
    }

    /// Runs until everybody is done.
    ///
    /// # Errors
    /// The first property that was broken, which may be that somebody is not done in time.
    pub fn run(&mut self) -> Result<Summary, Violation> {
        let faults_until = Monotonic(0).after(self.scenario.faults_until);
        let deadline = faults_until.after(self.scenario.patience);
        while let Some(happening) = self.agenda.pop() {
            let now = self.agenda.now().monotonic;
            self.happen(happening);
            if let Some(violation) = self.watch.broken.take() {
                return Err(violation);
            }
            if now >= faults_until && self.all_done() {
                self.watch_at_the_end()?;
                return Ok(self.summary());
            }
            if now > deadline {
                break;
            }
        }
        self.watch_at_the_end()?;
        Ok(self.summary())
    }

    /// What happened.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    fn summary(&self) -> Summary {
        Summary {
            trace: self.trace.hash(),
            lines: self.trace.lines(),
            seconds: self.agenda.now().monotonic.0 / 1_000_000,
            wan_bytes: self.wan.crossed_in_all(),
            pack_bytes: self.chosen_pack_bytes(),
            holders_lost: self.watch.holders_lost,
            crashes: self.watch.crashes,
        }
    }

    /// Total length of the packs that some host's plan names: P of R70.
    fn chosen_pack_bytes(&self) -> u64 {
        let chosen =
            |payload: &&Payload| self.hosts.iter().any(|host| self.plans[host.plan].packs.contains(&payload.id()));
        self.payloads.iter().filter(chosen).map(|payload| payload.pack.length()).sum()
    }

    fn plan_everything(&mut self) {
        self.agenda.after(self.scenario.approver.looks_every, Happening::ApproverLooks);
        self.agenda.after(Duration::from_secs(30), Happening::TechnicianLooks);
        for who in [Who::Headquarters, Who::Station] {
            self.settle(who);
        }
        for number in 0..self.hosts.len() {
            let joins = self.chance.between(Duration::from_secs(1), Duration::from_secs(20));
            self.agenda.after(joins, Happening::Restart(Who::Host(number)));
        }
        let until = self.scenario.faults_until;
        for _ in 0..self.scenario.crashes {
            let at = self.chance.between(Duration::ZERO, until);
            let who = match self.chance.below(self.hosts.len() as u64 + 4) {
                0 | 1 => Who::Station,
                2 | 3 => Who::Headquarters,
                number => Who::Host(usize::try_from(number - 4).unwrap_or(0)),
            };
            self.agenda.after(at, Happening::Crash(who));
        }
        for _ in 0..self.scenario.outages {
            let at = self.chance.between(Duration::ZERO, until);
            self.agenda.after(at, Happening::Outage);
        }
    }

    /// Whether the weather is still bad.
    fn stormy(&self) -> bool {
        self.agenda.now().monotonic < Monotonic(0).after(self.scenario.faults_until)
    }

    fn lan(&self) -> Link {
        if self.stormy() { self.scenario.lan } else { Link::perfect(Duration::from_millis(1)) }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake(who) => self.wake(who),
            Happening::WakeSwarm(host, life) => self.wake_swarm(host, life),
            Happening::Commit(who, life) => {
                self.planned_commits.remove(&who);
                if self.process(who).life() == life {
                    self.process(who).commit();
                    self.settle(who);
                }
            }
            Happening::Crash(who) => self.crash(who),
            Happening::Restart(who) => self.restart(who),
            Happening::Outage => {
                let lasts = self.chance.between(Duration::from_secs(5), Duration::from_secs(120));
                self.note(format_args!("the line is down for {lasts:?}"));
                self.wan.cut(self.agenda.now().monotonic.after(lasts));
            }
            Happening::Report(host, report) => self.report_arrives(host, report),
            Happening::Directive(host, directive) => self.directive_arrives(host, directive),
            Happening::SiteReport(report) => self.site_report_arrives(report),
            Happening::Answer(directive) => self.answer_arrives(*directive),
            Happening::StationDid(life, input) => self.station_did(life, *input),
            Happening::HeadquartersDid(life, input) => self.headquarters_did(life, *input),
            Happening::HostDid(host, life, input) => self.host_did(host, life, *input),
            Happening::Installer(host, life, event) => self.installer_says(host, life, *event),
            Happening::RouterApplies(operation, answer) => self.router_applies(operation, answer),
            Happening::RouterAnswers(life, id, result) => self.router_answers(life, id, *result),
            Happening::Connect(a, b) => self.connect(a, b),
            Happening::Bulk { connection, from, to, message } => self.bulk_arrives(connection, from, to, *message),
            Happening::Served(host, life, connection, to, pack, index) => {
                self.frame_served(host, life, connection, to, pack, index);
            }
            Happening::Synced(host, life, pack) => self.pack_synced(host, life, pack),
            Happening::AskLease(host, pack, held) => self.lease_wish_arrives(host, pack, held),
            Happening::Lease(host, lease, held) => self.lease_arrives(host, *lease, held),
            Happening::ApproverLooks => self.approver_looks(),
            Happening::TechnicianLooks => self.technician_looks(),
        }
    }

    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        self.trace.line(self.agenda.now().monotonic, text);
    }

    fn process(&mut self, who: Who) -> &mut dyn Process {
        match who {
            Who::Headquarters => &mut self.headquarters.machine,
            Who::Station => &mut self.station.machine,
            Who::Host(number) => &mut self.hosts[number].machine,
        }
    }

    fn wake(&mut self, who: Who) {
        let now = self.agenda.now();
        if self.planned_wakes.get(&who).is_some_and(|at| *at <= now.monotonic) {
            self.planned_wakes.remove(&who);
        }
        self.process(who).handle_timeout(now);
        self.settle(who);
    }

    /// Carries out what a machine wants, and plans its next commit and deadline.
    fn settle(&mut self, who: Who) {
        match who {
            Who::Headquarters => self.perform_headquarters(),
            Who::Station => self.perform_station(),
            Who::Host(number) => self.perform_host(number),
        }
        let process = self.process(who);
        let (dirty, deadline, life) = (process.is_dirty(), process.deadline(), process.life());
        if dirty && self.planned_commits.get(&who) != Some(&life) {
            let slow = if self.stormy() && self.chance.happens(50) { 400 } else { 12 };
            let takes = self.chance.between(Duration::from_millis(1), Duration::from_millis(slow));
            self.planned_commits.insert(who, life);
            self.agenda.after(takes, Happening::Commit(who, life));
        }
        if let Some(deadline) = deadline
            && self.planned_wakes.get(&who).is_none_or(|planned| *planned > deadline.at)
        {
            self.planned_wakes.insert(who, deadline.at);
            self.agenda.at(deadline.at, Happening::Wake(who));
        }
    }

    fn crash(&mut self, who: Who) {
        if !self.process(who).is_up() {
            return;
        }
        self.note(format_args!("{who:?} dies"));
        self.watch.crashes += 1;
        self.count_lost_holders(who);
        let mut chance = self.chance.clone();
        self.process(who).crash(&mut chance);
        self.chance = chance;
        self.planned_wakes.remove(&who);
        self.planned_commits.remove(&who);
        match who {
            Who::Headquarters => {
                self.origin.crash();
                self.disconnect(End::Origin);
            }
            Who::Station => self.station.crash(),
            Who::Host(number) => {
                let now = self.agenda.now().monotonic;
                self.hosts[number].crash(now, &mut self.chance);
                self.disconnect(End::Host(number));
            }
        }
        let back = self.chance.between(Duration::from_millis(200), Duration::from_secs(90));
        self.agenda.after(back, Happening::Restart(who));
    }

    fn restart(&mut self, who: Who) {
        if self.process(who).is_up() {
            return;
        }
        self.note(format_args!("{who:?} starts"));
        match who {
            Who::Headquarters => self.start_headquarters(),
            Who::Station => self.start_station(),
            Who::Host(number) => self.start_host(number),
        }
        self.settle(who);
    }

    fn host_number(&self, node: NodeId) -> Option<usize> {
        self.hosts.iter().position(|host| host.node == node)
    }

    fn address_rest(&self) -> Duration {
        SET_LIFETIME
    }
}
