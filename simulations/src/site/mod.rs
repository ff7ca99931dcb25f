//! One site with headquarters, a station and hosts: the machines of the product, and a world that treats them badly.
//!
//! | module | holds |
//! | --- | --- |
//! | [`happening`] | what can happen, and to whom |
//! | `headquarters` | the runtime around headquarters' machine |
//! | `station` | the runtime around the site's machine |
//! | `host` | the runtime around a host's machine and its installer |
//! | `leases` | the runtime around the lease desk |
//! | `bulk` | connections between swarms and the origin |
//! | [`payload`] | payloads, and what a disk holds of them |
//! | [`trust`] | keys and documents |
//! | `hazards` | faults beyond bad weather, and the day on which they stop |
//! | `liar` | what a lying host says instead |
//! | `watch` | when which checker looks |
//! | `view` | what the stepper shows of each machine |
//! | `sabotage` | what is broken on purpose |
mod bulk;
pub mod happening;
mod hazards;
mod headquarters;
mod host;
mod leases;
mod liar;
mod messages;
pub mod payload;
mod sabotage;
mod station;
pub mod trust;
mod view;
mod watch;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use branchline_protocol::{
    ids::{Hash, NodeId},
    session::Stage,
    time::Monotonic,
};

use branchline_station_role::router::RowIndex;

use self::{
    bulk::{Connection, Origin},
    happening::{End, Happening, Who},
    hazards::Weather,
    headquarters::HeadquartersNode,
    host::HostNode,
    payload::{Payload, PlanScript},
    station::StationNode,
    trust::Trust,
    watch::Watch,
};
use crate::{
    checkers::{Kind, Violation, bounds::HAPPENINGS_PER_SECOND_MAX, ensure},
    recording::Recorder,
    replay::Trace,
    scenario::SiteScenario,
    world::{chance::Chance, clock::Agenda, driven::Process, lan::MessageCounts, router::Router, wan::Wan},
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
    /// How long that was after the faults had stopped, in seconds.
    pub healing_seconds: u64,
    /// Things that happened.
    pub happenings: u64,
    /// Frame bytes that crossed the line.
    pub wan_bytes: u64,
    /// Length of the packs that were chosen.
    pub pack_bytes: u64,
    /// How often a lease holder or its connection was lost: k of R70.
    pub holders_lost: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Control messages, and what happened to them.
    pub messages: MessageCounts,
    /// Hosts whose session ended complete.
    pub complete: usize,
    /// Hosts that headquarters denied, as the scenario wants it.
    pub denied: usize,
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
    weather: Weather,
    /// Whose each inside address is or was.
    owners: BTreeMap<Ipv4Addr, usize>,
    happenings: u64,
    /// The second that was looked at last, and what had happened before it.
    second: (u64, u64),
    recorder: Option<Recorder>,
    sabotaged: bool,
    sabotaged_row: Option<(RowIndex, Ipv4Addr, Ipv4Addr)>,
}

impl SiteWorld {
    /// A world at its beginning.
    pub fn new(scenario: SiteScenario) -> Self {
        let mut chance = Chance::new(sabotage::seed_of(&scenario));
        let agenda = Agenda::default();
        let trust = Trust::new(&scenario);
        let mut payload =
            |name: String| Payload::random(&name, scenario.payload_bytes, scenario.chunk_bytes, &mut chance);
        let mut payloads: Vec<Payload> =
            (0..scenario.packs.clamp(1, 8)).map(|number| payload(format!("payload-{number}.tar"))).collect();
        let every: Vec<&Payload> = payloads.iter().collect();
        let mut plans = vec![PlanScript::over(&every[..1]), PlanScript::over(&every)];
        if scenario.hazards.updates > 0 {
            payloads.push(payload("update.tar".to_owned()));
            let update = payloads.len() - 1;
            let of = |first: usize| payloads[..first].iter().chain([&payloads[update]]).collect::<Vec<_>>();
            plans.extend([PlanScript::over(&of(1)), PlanScript::over(&of(update))]);
        }
        let now = agenda.now();
        let mut world = Self {
            headquarters: HeadquartersNode::new(&scenario, now),
            station: StationNode::new(&trust, &scenario, now),
            hosts: (0..scenario.hosts).map(|number| HostNode::new(number, now, &mut chance, &scenario)).collect(),
            weather: Weather::new(&scenario),
            owners: BTreeMap::new(),
            happenings: 0,
            second: (0, 0),
            recorder: None,
            sabotaged: false,
            sabotaged_row: None,
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
        world.owners = world.hosts.iter().enumerate().map(|(number, host)| (host.inside, number)).collect();
        world.plan_everything();
        world
    }

    /// The same world, which records everything that happens.
    pub fn recorded(mut self) -> Self {
        self.recorder = Some(Recorder::default());
        self
    }

    /// What was recorded so far.
    pub fn take_recorder(&mut self) -> Option<Recorder> {
        self.recorder.take()
    }

    /// Runs until everybody is done.
    ///
    /// # Errors
    /// The first property that was broken, which may be that somebody is not done in time.
    pub fn run(&mut self) -> Result<Summary, Violation> {
        loop {
            if let Some(ended) = self.step()? {
                return Ok(ended);
            }
        }
    }

    /// Lets the next thing happen; gives the summary where everybody is done.
    ///
    /// # Errors
    /// The first property that was broken.
    pub fn step(&mut self) -> Result<Option<Summary>, Violation> {
        let faults_until = Monotonic(0).after(self.scenario.faults_until);
        let Some(happening) = self.agenda.pop() else { return self.finish().map(Some) };
        let now = self.agenda.now().monotonic;
        self.begin_step(&happening);
        if let Some(happening) = self.intercept(happening) {
            self.happen(happening);
        }
        self.notice_members();
        self.sabotage();
        self.end_step();
        self.watch_pace(now)?;
        if let Some(violation) = self.watch.broken.take() {
            return Err(violation);
        }
        if (now >= faults_until && self.all_done()) || now > faults_until.after(self.scenario.patience) {
            return self.finish().map(Some);
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<Summary, Violation> {
        self.watch_at_the_end()?;
        Ok(self.summary())
    }

    /// Nobody spins: only so much happens in one second of the world.
    fn watch_pace(&mut self, now: Monotonic) -> Result<(), Violation> {
        self.happenings += 1;
        let second = now.0 / 1_000_000;
        if self.second.0 != second {
            self.second = (second, self.happenings);
        }
        let count = self.happenings - self.second.1;
        ensure(Kind::Bounds, "nobody spins", count < HAPPENINGS_PER_SECOND_MAX, || {
            format!("{count} things happened within second {second}")
        })
    }

    /// What happened.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// How the run went so far.
    pub fn summary(&self) -> Summary {
        Summary {
            trace: self.trace.hash(),
            lines: self.trace.lines(),
            seconds: self.agenda.now().monotonic.0 / 1_000_000,
            healing_seconds: self
                .agenda
                .now()
                .monotonic
                .since(Monotonic(0).after(self.scenario.faults_until))
                .as_secs(),
            happenings: self.happenings,
            wan_bytes: self.wan.crossed_in_all(),
            pack_bytes: self.chosen_pack_bytes(),
            holders_lost: self.watch.holders_lost,
            crashes: self.watch.crashes,
            messages: self.watch.messages.counts(),
            complete: self.hosts_that_ended(Stage::Complete),
            denied: self.hosts_that_ended(Stage::Denied),
        }
    }

    fn hosts_that_ended(&self, stage: Stage) -> usize {
        self.hosts.iter().filter(|host| self.station.end(host.node) == Some(stage)).count()
    }

    /// Total length of the packs that some host's plan names: P of R70.
    fn chosen_pack_bytes(&self) -> u64 {
        let wants = |plans: &std::collections::BTreeSet<usize>, payload: &Payload| {
            plans.iter().any(|plan| self.plans[*plan].packs.contains(&payload.id()))
        };
        let chosen = |payload: &&Payload| self.hosts.iter().any(|host| wants(&host.plans, payload));
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
        self.plan_hazards();
    }

    /// Whether the weather is still bad.
    fn stormy(&self) -> bool {
        self.agenda.now().monotonic < Monotonic(0).after(self.scenario.faults_until)
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
            Happening::AskHoldings(host, pack) => self.holdings_asked(host, pack),
            Happening::Holdings(host, pack, bitmap) => self.holdings_arrive(host, pack, bitmap),
            Happening::Members(life) => self.members_noticed(life),
            Happening::Lease(host, lease, held) => self.lease_arrives(host, *lease, held),
            Happening::ApproverLooks => self.approver_looks(),
            Happening::TechnicianLooks => self.technician_looks(),
            Happening::Hazard(hazard) => self.hazard(hazard),
        }
    }

    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.note(text);
        }
        self.trace.line(self.agenda.now().monotonic, text);
    }

    fn process(&mut self, who: Who) -> &mut dyn Process {
        match who {
            Who::Headquarters => &mut self.headquarters.machine,
            Who::Station => &mut self.station,
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
        if who == Who::Station {
            self.watch_station();
        }
    }

    /// Carries out what a machine wants, and plans its next commit and deadline.
    fn settle(&mut self, who: Who) {
        if let Some(recorder) = &mut self.recorder {
            recorder.touch(who);
        }
        match who {
            Who::Headquarters => self.perform_headquarters(),
            Who::Station => {
                self.perform_station();
                self.perform_desk();
            }
            Who::Host(number) => self.perform_host(number),
        }
        let process = self.process(who);
        let (dirty, deadline, life) = (process.is_dirty(), process.deadline(), process.life());
        if dirty && self.planned_commits.get(&who) != Some(&life) {
            let slow = if self.stormy() && self.chance.happens(50) { 400 } else { 12 };
            let slower = if let Who::Host(number) = who { self.slowness(number) } else { 1 };
            let takes = self.chance.between(Duration::from_millis(1), Duration::from_millis(slow)) * slower;
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
        self.note(format_args!("{who} dies"));
        self.watch.crashes += 1;
        self.count_lost_holders(who);
        if let Who::Host(number) = who {
            self.count_lost_host(number);
        }
        let mut chance = self.chance.clone();
        self.process(who).crash(&mut chance);
        self.chance = chance;
        self.bury(who);
        let back = self.chance.between(Duration::from_millis(200), Duration::from_secs(90));
        self.agenda.after(back, Happening::Restart(who));
    }

    /// A process ends in good order.
    fn stop(&mut self, who: Who) {
        self.note(format_args!("{who} stops"));
        self.process(who).stop();
        self.bury(who);
    }

    /// What goes with a process that has ended.
    fn bury(&mut self, who: Who) {
        self.drop_frozen(who);
        self.planned_wakes.remove(&who);
        self.planned_commits.remove(&who);
        match who {
            Who::Headquarters => {
                self.origin.crash();
                self.disconnect(End::Origin);
            }
            Who::Station => self.station.forget(),
            Who::Host(number) => {
                let now = self.agenda.now().monotonic;
                self.hosts[number].crash(now, &mut self.chance);
                self.disconnect(End::Host(number));
            }
        }
    }

    fn restart(&mut self, who: Who) {
        if self.process(who).is_up() || !self.may_start(who) {
            return;
        }
        self.note(format_args!("{who} starts"));
        match who {
            Who::Headquarters => self.start_headquarters(),
            Who::Station => self.start_station(),
            Who::Host(number) => self.start_host(number),
        }
        self.settle(who);
    }

    /// Everybody dials everybody again.
    fn connect_everybody(&mut self) {
        for number in (0..self.hosts.len()).filter(|number| self.hosts[*number].machine.is_up()).collect::<Vec<_>>() {
            self.connect_host(number);
        }
    }

    fn host_number(&self, node: NodeId) -> Option<usize> {
        self.hosts.iter().position(|host| host.node == node)
    }
}
