//! The runtime around a host's machine: survey, plan, packs, installer, checks.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use branchline_protocol::{
    ids::{Hash, NodeId, PackId, PlanHash, SurveyHash},
    machine::Machine,
    session::{Directive, HostInput, HostMachine, HostOutput, HostSetup, InstallerEvent, Order},
    swarm::{NamedInput, NamedSwarm, SwarmSetup, Tuning},
    time::{Monotonic, Now},
};

use super::{
    SiteWorld,
    happening::{Happening, Who},
    messages::Path,
    payload::PackStore,
};
use crate::{
    checkers::bounds,
    scenario::SiteScenario,
    world::{
        chance::Chance,
        driven::{Driven, Process},
        installer::Installer,
    },
};

/// One host: its process, its swarm, its disk and its installer.
pub(super) struct HostNode {
    pub node: NodeId,
    pub inside: Ipv4Addr,
    /// Which of the world's plans its survey leads to now.
    pub plan: usize,
    /// Every plan that it ever led to.
    pub plans: BTreeSet<usize>,
    pub machine: Driven<HostMachine>,
    pub swarm: Option<NamedSwarm>,
    /// The frame that its swarm is being told of.
    pub arriving: Option<Vec<u8>>,
    pub swarm_wake: Option<Monotonic>,
    pub store: BTreeMap<PackId, PackStore>,
    /// Packs that are complete in this life, with their bytes over the line and inside the site.
    pub complete: BTreeMap<PackId, (u64, u64)>,
    /// Packs that the machine wants to hear of.
    pub wanted: BTreeSet<PackId>,
    installer: Installer,
    /// The plan that the installer carries out now.
    pub installing: Option<PlanHash>,
    /// People have ended the session, and with it its slot, whether or not the installer is at work still.
    pub excused: bool,
    /// The agent was told to stop, or was never started.
    stopped: bool,
    surveys: u64,
    setup: HostSetup,
    seed: u64,
}

impl HostNode {
    pub fn new(number: usize, now: Now, chance: &mut Chance, scenario: &SiteScenario) -> Self {
        let low = u8::try_from(number).unwrap_or(0);
        let node = NodeId([low + 1; 32]);
        let inside = Ipv4Addr::new(10, 1, 0, 10 + low);
        let (machine_identifier, host_name) = (format!("machine-{number}"), format!("till-{number}"));
        let setup = HostSetup { node, machine_identifier, host_name, inside };
        let mut machine = Driven::new(setup.clone(), now);
        // The host has not joined yet: it starts when it does.
        machine.crash(chance);
        let clustered = scenario.cluster && number < 2;
        let plan = usize::from(clustered || number % 2 == 1);
        Self {
            node,
            inside,
            plan,
            plans: [plan].into(),
            machine,
            swarm: None,
            arriving: None,
            swarm_wake: None,
            store: BTreeMap::new(),
            complete: BTreeMap::new(),
            wanted: BTreeSet::new(),
            installer: Installer::default(),
            installing: None,
            excused: false,
            stopped: true,
            surveys: 0,
            setup,
            seed: chance.below(u64::MAX),
        }
    }

    /// Whether the agent answers on its port.
    pub fn answers(&self) -> bool {
        !self.stopped && self.machine.is_up()
    }

    /// Whether the installer has carried a plan out.
    pub fn plan_is_installed(&self, plan: PlanHash) -> bool {
        self.installer.holds(plan)
    }

    /// The descriptor that this host's survey gives.
    pub fn descriptor(&self) -> Hash {
        Hash::in_domain("site world descriptor", &self.node.0)
    }

    pub fn crash(&mut self, now: Monotonic, chance: &mut Chance) {
        self.swarm = None;
        self.swarm_wake = None;
        self.complete.clear();
        self.wanted.clear();
        self.installing = None;
        for store in self.store.values_mut() {
            store.crash(now, chance);
        }
    }
}

impl SiteWorld {
    pub(super) fn start_host(&mut self, number: usize) {
        let now = self.agenda.now();
        let leased_bytes_max = self.scenario.leased_bytes_max;
        let host = &mut self.hosts[number];
        host.machine.start(host.setup.clone(), now);
        host.seed = host.seed.wrapping_add(1);
        host.swarm = Some(NamedSwarm::new(SwarmSetup { seed: host.seed, leased_bytes_max, tuning: Tuning::default() }));
        // What the disk holds is served again from the start (R75).
        let held: Vec<PackId> = host.store.keys().copied().collect();
        for pack in held {
            self.swarm_wants(number, pack);
        }
        self.connect_host(number);
        self.host_input(number, HostInput::Start);
    }

    /// Tells a host's swarm that it wants, or has, a pack.
    fn swarm_wants(&mut self, number: usize, pack: PackId) {
        let Some(payload) = self.payloads.iter().find(|payload| payload.id() == pack) else { return };
        let pack = payload.pack.clone();
        let kept = self.hosts[number].store.entry(pack.id()).or_default().kept(pack.frames());
        self.swarm_input(number, NamedInput::Want { pack, kept, raw: None, source: false });
    }

    pub(super) fn host_input(&mut self, number: usize, input: HostInput) {
        let now = self.agenda.now();
        self.hosts[number].machine.handle(now, input);
        self.settle(Who::Host(number));
        self.watch_host(number);
    }

    pub(super) fn host_did(&mut self, number: usize, life: u32, input: HostInput) {
        if self.hosts[number].machine.life() != life {
            return;
        }
        if let HostInput::Withdrawn { .. } = &input {
            self.hosts[number].stopped = true;
        }
        self.host_input(number, input);
    }

    /// A host gets another address inside the site (R116); nobody had it before.
    pub(super) fn change_address(&mut self, number: usize) {
        let low = u8::try_from(100 + self.owners.len()).unwrap_or(u8::MAX);
        let inside = Ipv4Addr::new(10, 1, 0, low);
        self.note(format_args!("host {number} is at {inside} now"));
        self.owners.insert(inside, number);
        self.hosts[number].inside = inside;
        self.hosts[number].setup.inside = inside;
        self.host_input(number, HostInput::InsideChanged(inside));
    }

    /// From now on the survey of a host leads to a plan with one pack more, where there is one.
    pub(super) fn choose_update(&mut self, number: usize) {
        let plan = self.hosts[number].plan + 2;
        if plan < self.plans.len() {
            self.hosts[number].plan = plan;
            self.hosts[number].plans.insert(plan);
            self.connect_host(number);
        }
    }

    fn host_does(&mut self, number: usize, shortest: Duration, longest: Duration, input: HostInput) {
        let life = self.hosts[number].machine.life();
        let takes = self.chance.between(shortest, longest) * self.slowness(number);
        self.agenda.after(takes, Happening::HostDid(number, life, Box::new(input)));
    }

    pub(super) fn directive_arrives(&mut self, number: usize, directive: Box<Directive>) {
        if !self.hosts[number].machine.is_up() {
            return;
        }
        self.watch_directive(number, &directive);
        if let Order::Complete { plan, .. } = &directive.order {
            self.watch_complete(number, directive.session, *plan);
        }
        self.host_input(number, HostInput::Directive(directive));
    }

    pub(super) fn perform_host(&mut self, number: usize) {
        for output in self.hosts[number].machine.release() {
            match output {
                HostOutput::SendReport(report) => {
                    self.watch.expect(bounds::host_report(&report));
                    let slowness = self.slowness(number);
                    self.send_inside(Path::Report(number), slowness, &Happening::Report(number, report));
                }
                HostOutput::RunSurvey => {
                    let host = &mut self.hosts[number];
                    host.surveys += 1;
                    let name = [host.node.0.as_slice(), &host.surveys.to_le_bytes()].concat();
                    let sealed = SurveyHash(Hash::in_domain("site world survey", &name));
                    let descriptor = host.descriptor();
                    self.note(format_args!("host {number} surveys itself"));
                    let input = HostInput::Surveyed { sealed, descriptor, changes: None };
                    self.host_does(number, Duration::from_millis(500), Duration::from_secs(3), input);
                }
                HostOutput::ComputePlan { .. } => {
                    let script = &self.plans[self.hosts[number].plan];
                    let input = HostInput::PlanComputed { plan: script.plan, packs: script.packs.clone() };
                    self.host_does(number, Duration::from_millis(5), Duration::from_millis(50), input);
                }
                HostOutput::FetchPacks(packs) => self.fetch_packs(number, packs),
                HostOutput::Install { plan } => self.install(number, plan),
                HostOutput::Verify { plan } => {
                    let running = self.hosts[number].installer.holds(plan) && !self.hosts[number].stopped;
                    let fault = (!running).then(|| "the agent does not run".to_owned());
                    self.note(format_args!("host {number} checks itself: {fault:?}"));
                    let input = HostInput::CheckDone { plan, checks: vec![("service".to_owned(), fault)] };
                    self.host_does(number, Duration::from_millis(100), Duration::from_secs(2), input);
                }
                HostOutput::Stop => self.withdraw_agent(number, false),
                HostOutput::Uninstall => self.withdraw_agent(number, true),
                HostOutput::Revert { plan } => {
                    self.note(format_args!("host {number} takes plan {} back", plan.0.short()));
                    let input = HostInput::Reverted { installed: None, rolled_back: true };
                    self.host_does(number, Duration::from_millis(50), Duration::from_secs(1), input);
                }
                HostOutput::SaveReport { .. } => {
                    let (shortest, longest) = (Duration::from_millis(1), Duration::from_millis(20));
                    self.host_does(number, shortest, longest, HostInput::ReportSaved);
                }
                HostOutput::ShowOperator(text) => self.note(format_args!("host {number} shows: {text}")),
            }
        }
    }

    fn withdraw_agent(&mut self, number: usize, uninstalled: bool) {
        self.note(format_args!("host {number} stops its agent"));
        let input = HostInput::Withdrawn { uninstalled };
        self.host_does(number, Duration::from_millis(50), Duration::from_secs(1), input);
    }

    fn fetch_packs(&mut self, number: usize, packs: Vec<PackId>) {
        self.note(format_args!("host {number} wants {} packs", packs.len()));
        self.hosts[number].wanted = packs.iter().copied().collect();
        for pack in packs {
            self.swarm_wants(number, pack);
            if let Some((wan_bytes, lan_bytes)) = self.hosts[number].complete.get(&pack).copied() {
                let input = HostInput::PackComplete { pack, wan_bytes, lan_bytes };
                self.host_does(number, Duration::ZERO, Duration::from_millis(1), input);
            }
        }
    }

    /// A pack is complete in the swarm; the machine hears of it where it wants it.
    pub(super) fn pack_complete(&mut self, number: usize, pack: PackId, wan_bytes: u64, lan_bytes: u64) {
        self.note(format_args!("host {number} has a whole pack: {wan_bytes} over the line, {lan_bytes} inside"));
        self.hosts[number].complete.insert(pack, (wan_bytes, lan_bytes));
        if self.hosts[number].wanted.contains(&pack) {
            let input = HostInput::PackComplete { pack, wan_bytes, lan_bytes };
            self.host_does(number, Duration::ZERO, Duration::from_millis(1), input);
        }
    }

    fn install(&mut self, number: usize, plan: PlanHash) {
        let script = self.plans.iter().find(|script| script.plan == plan);
        let images = script.map(|script| script.images.clone()).unwrap_or_default();
        let lucky = !self.stormy();
        let host = &mut self.hosts[number];
        if host.installing == Some(plan) {
            return;
        }
        host.installing = Some(plan);
        let life = host.machine.life();
        let said = host.installer.carry_out(plan, &images, &self.scenario.installer, &mut self.chance, lucky);
        for (at, event) in said {
            self.agenda.after(at, Happening::Installer(number, life, Box::new(event)));
        }
        self.watch_install(number, plan);
    }

    /// The installer is a process of its own with a journal of its own; a power cut stops it too.
    pub(super) fn installer_says(&mut self, number: usize, life: u32, event: InstallerEvent) {
        let host = &mut self.hosts[number];
        if host.machine.life() != life || !host.machine.is_up() {
            return;
        }
        host.installer.note(&event);
        match &event {
            InstallerEvent::Done { .. } => {
                host.stopped = false;
                host.installing = None;
            }
            InstallerEvent::Failed { .. } | InstallerEvent::Refused { .. } => host.installing = None,
            InstallerEvent::Event { .. } => {}
        }
        if !matches!(event, InstallerEvent::Event { .. }) {
            self.note(format_args!("host {number}'s installer ends: {event:?}"));
        }
        self.host_input(number, HostInput::Installer(event));
    }

    pub(super) fn wake_swarm(&mut self, number: usize, life: u32) {
        let now = self.agenda.now();
        let host = &mut self.hosts[number];
        if host.machine.life() != life {
            return;
        }
        if host.swarm_wake.is_some_and(|at| at <= now.monotonic) {
            host.swarm_wake = None;
        }
        if let Some(swarm) = &mut host.swarm {
            if swarm.poll_timeout().is_some_and(|deadline| deadline.at <= now.monotonic) {
                swarm.handle_timeout(now);
                swarm.check_invariants();
            }
            self.perform_swarm(number);
        }
    }
}
