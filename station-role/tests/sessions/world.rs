//! A small world: one station, several hosts, a scripted headquarters, and lines that lose, double and reorder.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use branchline_protocol::{
    catalogue::UndeclaredRule,
    charter::{Approval, Decision, ProbeResult, SiteLimits, SitePolicies, TriedPort},
    ids::{DocumentHash, Epoch, Hash, ImageId, NodeId, PackId, PlanHash, SessionId, SurveyHash},
    machine::Machine,
    plan::UndeclaredPorts,
    report::{EventBody, StepOutcome},
    session::{Directive, HostInput, HostMachine, HostOutput, HostSetup, InstallerEvent},
    time::{Monotonic, Now, UnixSeconds},
};
use branchline_station_role::station::{
    HeadquartersWord, PlanSummary, SiteReportDraft, StationInput, StationMachine, StationOutput, StationSetup,
    StationTiming, SurveyFacts,
};

use super::{
    process::Process,
    random::Random,
    words::{REVERTED, descriptor_of},
};

pub fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// What is scripted for one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Completes,
    IsDenied,
    /// Delayed for this many seconds, then approved.
    IsDelayed(u64),
    FailsToInstall,
    FailsItsCheck,
    Conflicts,
}

enum Happening {
    ToStation { incarnation: Option<u32>, input: StationInput },
    ToHost { host: u8, incarnation: Option<u32>, input: HostInput },
    ToHeadquarters(SiteReportDraft),
    Sync,
}

pub struct World {
    pub now: Now,
    pub random: Random,
    /// Chance of loss and of doubling of one message, in percent.
    pub loss_percent: u64,
    pub station: Process<StationMachine>,
    pub hosts: BTreeMap<u8, Process<HostMachine>>,
    pub fates: BTreeMap<u8, Fate>,
    pub setup: StationSetup,
    pub inside: BTreeMap<u8, Ipv4Addr>,
    pub groups: BTreeMap<u8, String>,
    /// What an installer has done survives its host's crashes, as its own journal does.
    pub installed: BTreeMap<u8, PlanHash>,
    pub installing: BTreeSet<u8>,
    pub most_installing: usize,
    pub approvals: BTreeMap<SessionId, Approval>,
    pub delayed_until: BTreeMap<SessionId, UnixSeconds>,
    pub mended: BTreeSet<u8>,
    /// Hosts of which port 22 answers through the mapping.
    pub open: BTreeSet<u8>,
    pub undeclared_rule: UndeclaredRule,
    pub attentions: Vec<String>,
    pub refusals: Vec<(NodeId, String)>,
    pub revoked: BTreeSet<NodeId>,
    pub memberships: Vec<(NodeId, u64)>,
    pub kept_reports: BTreeMap<u8, String>,
    pub mirrored_reports: BTreeSet<SessionId>,
    pub last_draft: SiteReportDraft,
    pub directives: BTreeMap<u8, Directive>,
    pub profiles: BTreeMap<(SessionId, u64), branchline_protocol::session::Stage>,
    queue: BTreeMap<(Monotonic, u64), Happening>,
    counter: u64,
    addresses: BTreeMap<NodeId, Ipv4Addr>,
    pub router_off: bool,
}

pub fn plan_of(session: SessionId) -> PlanHash {
    PlanHash(Hash::of(session.to_string().as_bytes()))
}

pub fn images() -> Vec<ImageId> {
    vec![ImageId(Hash::of(b"agent"))]
}

pub fn packs() -> Vec<PackId> {
    vec![PackId(Hash::of(b"pack one")), PackId(Hash::of(b"pack two"))]
}

impl World {
    pub fn new(seed: u64, fates: &[Fate], slots: u32) -> Self {
        let now = Now::from_seconds(1000);
        let setup = StationSetup {
            site: "store-17".parse().unwrap(),
            node: node(255),
            epoch: Epoch { charter_version: 1, term: 0 },
            limits: SiteLimits { sessions_max: slots, ..SiteLimits::default() },
            policies: SitePolicies::default(),
            timing: StationTiming::default(),
        };
        Self::with_setup(seed, fates, setup, now)
    }

    pub fn with_setup(seed: u64, fates: &[Fate], setup: StationSetup, now: Now) -> Self {
        let mut world = Self {
            now,
            random: Random(seed),
            loss_percent: 0,
            station: Process::start(setup.clone(), now),
            hosts: BTreeMap::new(),
            fates: (1..).zip(fates.iter().copied()).collect(),
            setup,
            inside: BTreeMap::new(),
            groups: BTreeMap::new(),
            installed: BTreeMap::new(),
            installing: BTreeSet::new(),
            most_installing: 0,
            approvals: BTreeMap::new(),
            delayed_until: BTreeMap::new(),
            mended: BTreeSet::new(),
            open: BTreeSet::new(),
            undeclared_rule: UndeclaredRule::Refuse,
            attentions: Vec::new(),
            refusals: Vec::new(),
            revoked: BTreeSet::new(),
            memberships: Vec::new(),
            kept_reports: BTreeMap::new(),
            mirrored_reports: BTreeSet::new(),
            last_draft: SiteReportDraft::default(),
            directives: BTreeMap::new(),
            profiles: BTreeMap::new(),
            queue: BTreeMap::new(),
            counter: 0,
            addresses: BTreeMap::new(),
            router_off: false,
        };
        for host in world.fates.keys().copied().collect::<Vec<_>>() {
            world.inside.insert(host, Ipv4Addr::new(10, 1, 0, host));
            world.hosts.insert(host, Process::start(world.host_setup(host), now));
        }
        world
    }

    pub fn host_setup(&self, host: u8) -> HostSetup {
        HostSetup {
            node: node(host),
            machine_identifier: format!("machine-{host}"),
            host_name: format!("host-{host}"),
            inside: self.inside[&host],
        }
    }

    pub fn current(&self, host: u8) -> SessionId {
        self.station.machine.state().current(node(host)).map(|(id, _)| id).expect("the host has a session")
    }

    pub fn stage(&self, host: u8) -> branchline_protocol::session::Stage {
        self.station.machine.session(self.current(host)).unwrap().stage
    }

    pub fn crash_station(&mut self) {
        let setup = self.setup.clone();
        self.station.crash(setup, self.now);
    }

    pub fn crash_host(&mut self, host: u8) {
        let setup = self.host_setup(host);
        self.hosts.get_mut(&host).unwrap().crash(setup, self.now);
    }

    pub fn tell_station(&mut self, input: StationInput) {
        self.station.machine.handle(self.now, input);
        self.settle();
    }

    fn after(&mut self, seconds: u64, happening: Happening) {
        self.counter += 1;
        let jitter = std::time::Duration::from_millis(1 + self.random.below(400));
        let at = self.now.monotonic.after(std::time::Duration::from_secs(seconds) + jitter);
        self.queue.insert((at, self.counter), happening);
    }

    /// A message over a line that may lose or double it.
    fn message(&mut self, make: impl Fn() -> Happening) {
        if self.random.percent(self.loss_percent) {
            return;
        }
        let far = if self.random.percent(self.loss_percent) { 5 } else { 0 };
        self.after(far, make());
        if self.random.percent(self.loss_percent) {
            self.after(self.now.monotonic.0 % 7, make());
        }
    }

    /// Lets time pass to the next thing that happens; false where nothing ever does.
    pub fn step(&mut self) -> bool {
        self.settle();
        let next_message = self.queue.keys().next().map(|(at, _)| *at);
        let timeouts = self.hosts.values().filter_map(|host| host.machine.poll_timeout());
        let timeouts = timeouts.chain(self.station.machine.poll_timeout()).map(|deadline| deadline.at);
        let Some(at) = timeouts.chain(next_message).min() else { return false };
        let at = at.max(self.now.monotonic.after(std::time::Duration::from_micros(1)));
        self.now = Now { monotonic: at, wall: UnixSeconds(at.0 / 1_000_000) };
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= at) {
            let happening = entry.remove();
            self.happen(happening);
        }
        let now = self.now;
        if self.station.machine.poll_timeout().is_some_and(|deadline| deadline.at <= at) {
            self.station.machine.handle_timeout(now);
            self.station.machine.check_invariants();
        }
        for host in self.hosts.values_mut() {
            if host.machine.poll_timeout().is_some_and(|deadline| deadline.at <= at) {
                host.machine.handle_timeout(now);
            }
        }
        self.settle();
        true
    }

    pub fn run_until(&mut self, seconds: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now.monotonic.after(std::time::Duration::from_secs(seconds));
        while self.now.monotonic < end {
            if done(self) {
                return true;
            }
            if !self.step() {
                break;
            }
        }
        done(self)
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::ToStation { incarnation, input } => {
                if incarnation.is_none_or(|incarnation| incarnation == self.station.incarnation) {
                    self.station.machine.handle(now, input);
                    self.station.machine.check_invariants();
                }
            }
            Happening::ToHost { host, incarnation, input } => {
                let Some(process) = self.hosts.get_mut(&host) else { return };
                if incarnation.is_none_or(|incarnation| incarnation == process.incarnation) {
                    process.machine.handle(now, input);
                    process.machine.check_invariants();
                }
            }
            Happening::ToHeadquarters(draft) => self.headquarters(draft),
            Happening::Sync => {}
        }
    }

    /// Lets outputs go. Journals are written at once or, under faults, a little later.
    fn settle(&mut self) {
        loop {
            let sync = self.loss_percent == 0 || self.random.percent(70);
            let outputs = self.station.drain(sync);
            let mut quiet = outputs.is_empty();
            for output in outputs {
                self.on_station_output(output);
            }
            for host in self.hosts.keys().copied().collect::<Vec<_>>() {
                let sync = self.loss_percent == 0 || self.random.percent(70);
                let outputs = self.hosts.get_mut(&host).map(|process| process.drain(sync)).unwrap_or_default();
                quiet &= outputs.is_empty();
                for output in outputs {
                    self.on_host_output(host, output);
                }
            }
            if quiet {
                break;
            }
        }
        let unsynced = self.hosts.values().any(|host| !host.waiting.is_empty()) || !self.station.waiting.is_empty();
        if unsynced {
            self.after(0, Happening::Sync);
        }
    }

    fn on_host_output(&mut self, host: u8, output: HostOutput) {
        let incarnation = Some(self.hosts[&host].incarnation);
        let session = self.hosts[&host].machine.session_id();
        let reply = |input| Happening::ToHost { host, incarnation, input };
        match output {
            HostOutput::SendReport(report) => {
                self.message(|| Happening::ToStation {
                    incarnation: None,
                    input: StationInput::Report(node(host), report.clone()),
                });
            }
            HostOutput::RunSurvey => {
                let sealed = SurveyHash(Hash::of(format!("sealed {session} {}", self.counter).as_bytes()));
                let descriptor = descriptor_of(sealed);
                self.after(3, reply(HostInput::Surveyed { sealed, descriptor, changes: None }));
            }
            HostOutput::ComputePlan { .. } => {
                let plan = plan_of(session);
                self.after(0, reply(HostInput::PlanComputed { plan, packs: packs() }));
            }
            HostOutput::FetchPacks(packs) => {
                for pack in packs {
                    let delay = 1 + self.random.below(20);
                    self.after(delay, reply(HostInput::PackComplete { pack, wan_bytes: 10, lan_bytes: 5 }));
                }
            }
            HostOutput::Install { plan } => self.install(host, plan),
            HostOutput::Verify { plan } => {
                let fault = (self.fates[&host] == Fate::FailsItsCheck && !self.mended.contains(&host))
                    .then(|| "no answer at port 9100".to_owned());
                let checks = vec![("operation".to_owned(), fault)];
                self.after(2, reply(HostInput::CheckDone { plan, checks }));
            }
            HostOutput::Stop => self.after(1, reply(HostInput::Withdrawn { uninstalled: false })),
            HostOutput::Uninstall => {
                self.installed.remove(&host);
                self.after(1, reply(HostInput::Withdrawn { uninstalled: true }));
            }
            HostOutput::Revert { .. } => self.after(1, reply(REVERTED)),
            HostOutput::SaveReport { html, .. } => {
                self.kept_reports.insert(host, html);
                self.after(0, reply(HostInput::ReportSaved));
            }
            HostOutput::ShowOperator(_) => {}
        }
    }

    /// The privileged installer: it goes on while its client crashes, and an installed plan is answered at once.
    fn install(&mut self, host: u8, plan: PlanHash) {
        let incarnation = Some(self.hosts[&host].incarnation);
        let tell = |event| Happening::ToHost { host, incarnation, input: HostInput::Installer(event) };
        self.installing.insert(host);
        let physical = self.installing.iter().filter(|host| !self.installed.contains_key(host)).count();
        self.most_installing = self.most_installing.max(physical);
        let bodies = [
            EventBody::StepStarted { step: 1, steps: 1, title: "unpack".into() },
            EventBody::Output { step: 1, text: "Setting up agent ...\n".into() },
            EventBody::StepEnded { step: 1, outcome: StepOutcome::Done },
        ];
        for (body, number) in bodies.into_iter().zip(1..) {
            self.after(number, tell(InstallerEvent::Event { number, body }));
        }
        let last = if self.fates[&host] == Fate::FailsToInstall {
            InstallerEvent::Failed { plan, reason: "dpkg ended with status 1".into(), rolled_back: true }
        } else {
            self.installed.insert(host, plan);
            InstallerEvent::Done { plan, images: images() }
        };
        self.after(5, tell(last));
    }

    fn on_station_output(&mut self, output: StationOutput) {
        let incarnation = Some(self.station.incarnation);
        let reply = |input| Happening::ToStation { incarnation, input };
        match output {
            StationOutput::SendDirective(to, directive) => {
                let host = to.0[0];
                let directive: Directive = *directive;
                if let Some(before) = self.directives.insert(host, directive.clone()) {
                    let (before, after) = ((before.epoch, before.revision), (directive.epoch, directive.revision));
                    assert!(after >= before, "a directive's revision went back");
                }
                self.message(|| Happening::ToHost {
                    host,
                    incarnation: None,
                    input: HostInput::Directive(Box::new(directive.clone())),
                });
            }
            StationOutput::RefuseReport(who, refusal) => self.refusals.push((who, refusal.reason)),
            StationOutput::OpenSurvey { session, survey } => {
                let (descriptor, facts) = (descriptor_of(survey), SurveyFacts::default());
                self.after(1, reply(StationInput::SurveyOpened { session, survey, descriptor, facts }));
            }
            StationOutput::MakePlan { session, descriptor } => {
                let input = self.plan(session, descriptor);
                self.after(0, reply(input));
            }
            StationOutput::SendSiteReport(draft) => {
                let draft: SiteReportDraft = *draft;
                self.last_draft = draft.clone();
                self.message(|| Happening::ToHeadquarters(draft.clone()));
            }
            StationOutput::Bind { node, inside, .. } | StationOutput::InsideChanged { node, inside } => {
                let next = Ipv4Addr::new(192, 0, 2, 1 + u8::try_from(self.addresses.len()).unwrap());
                let mapped = *self.addresses.entry(node).or_insert(next);
                self.after(1, reply(StationInput::Mapped { node, inside, mapped }));
            }
            StationOutput::Release { .. } if self.router_off => {}
            StationOutput::Release { node } => self.after(1, reply(StationInput::Unmapped { node })),
            StationOutput::ReleaseMembership(ticket) => self.memberships.push((ticket.node, ticket.serial)),
            StationOutput::RefuseMembership(who, refusal) => self.refusals.push((who, refusal.reason)),
            StationOutput::Revoke(who) => {
                self.revoked.insert(who);
            }
            StationOutput::MakeReport { session } => {
                let html = format!("<html>{session}</html>");
                self.after(0, reply(StationInput::ReportMade { session, html }));
            }
            StationOutput::Attention { text, .. } => self.attentions.push(text),
            StationOutput::ReleaseToken(_) | StationOutput::AttentionOver(_) | StationOutput::InsideLost { .. } => {}
        }
    }

    pub fn plan(&self, session: SessionId, descriptor: Hash) -> StationInput {
        let host = session.node.0[0];
        if self.fates[&host] == Fate::Conflicts {
            let explanation = "rule `port-free`: port 9100 is in use by otherd".to_owned();
            return StationInput::PlanConflict { session, descriptor, explanation };
        }
        let summary = PlanSummary {
            plan: plan_of(session),
            catalogue: DocumentHash(Hash::of(b"catalogue")),
            policy: DocumentHash(Hash::of(b"policy")),
            packs: packs(),
            images: images(),
            group: self.groups.get(&host).cloned(),
            packages: vec!["agent 1.0".into()],
            modules: vec![],
            thresholds: vec![],
            probes: vec![(9100, "/metrics".into())],
            undeclared: UndeclaredPorts { ports: vec![22, 7400], left_out: 0 },
            scrape: vec![(9100, "/metrics".into())],
        };
        StationInput::PlanMade { session, descriptor, summary: Box::new(summary) }
    }

    fn headquarters(&mut self, draft: SiteReportDraft) {
        let mut word = HeadquartersWord { undeclared_ports: self.undeclared_rule, ..HeadquartersWord::default() };
        let site = self.setup.site.clone();
        for request in &draft.approvals {
            let host = request.session.node.0[0];
            let decision = match self.fates[&host] {
                Fate::IsDenied => Decision::Deny { reason: "not ours".into() },
                Fate::IsDelayed(seconds) => {
                    let until = *self.delayed_until.entry(request.session).or_insert(self.now.wall.after(seconds));
                    if until <= self.now.wall {
                        Decision::Approve
                    } else {
                        Decision::Delay { reason: "change freeze".into(), until: Some(until) }
                    }
                }
                _ => Decision::Approve,
            };
            let approval = Approval {
                site: site.clone(),
                session: request.session,
                images: request.images.clone(),
                plan: request.plan,
                epoch: request.epoch,
                decision,
                decided_by: "ada".into(),
                decided_at: self.now.wall,
            };
            if approval.decision == Decision::Approve {
                self.approvals.insert(request.session, approval.clone());
            }
            word.approvals.push((DocumentHash(Hash::of(format!("{approval:?}").as_bytes())), approval));
        }
        for request in &draft.probes {
            let open = self.open.contains(&request.session.node.0[0]);
            let tried = |port| TriedPort { port, answers: open && port == 22 };
            let probe = ProbeResult {
                site: site.clone(),
                session: request.session,
                plan: request.plan,
                mapped: request.mapped,
                ports: request.ports.iter().map(|(port, _)| (*port, None)).collect(),
                undeclared: request.undeclared.iter().map(|port| tried(*port)).collect(),
                probed_at: self.now.wall,
            };
            let document = DocumentHash(Hash::of(format!("{probe:?}").as_bytes()));
            word.probes.push((request.attempt, document, probe));
        }
        for profile in &draft.profiles {
            let before = self.profiles.insert((profile.session, profile.revision), profile.stage);
            if profile.report_html.is_some() {
                self.mirrored_reports.insert(profile.session);
            } else {
                assert_ne!(before, Some(branchline_protocol::session::Stage::Complete), "one revision, two profiles");
            }
            word.profiles_durable.push((profile.session, profile.revision));
        }
        self.message(|| Happening::ToStation {
            incarnation: None,
            input: StationInput::Headquarters(Box::new(word.clone())),
        });
    }
}
