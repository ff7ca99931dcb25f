//! The runtime around the site's machine: messages, surveys, plans, the router's driver.
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use branchline_protocol::{
    ids::{NodeId, SessionId},
    plan::UndeclaredPorts,
    session::{Directive, HostReport, Stage},
    time::Now,
    wire::site::HeadquartersDirective,
};
use branchline_station_role::{
    addresses::{AddressInput, AddressOutput, AddressSetup, OperationId},
    router::{DriverProperties, RouterError, RouterOperation, RouterResult},
    station::{
        HeadquartersWord, PlanSummary, SiteInput, SiteMachine, SiteOutput, SiteSetup, StationInput, StationOutput,
        StationSetup, SurveyFacts,
    },
};

use super::{
    SiteWorld,
    happening::{Happening, Who},
    leases::Leasing,
    messages::Path,
    trust::{Trust, site_name},
};
use crate::{
    checkers::{bounds, durability::Acknowledged},
    scenario::SiteScenario,
    world::{
        driven::{Driven, Process},
        router::{INTERFACE, MAP_NAME, Router},
    },
};

/// The station's process.
pub(super) struct StationNode {
    pub machine: Driven<SiteMachine>,
    /// The directive in force for each host: the answer to its reports.
    directives: BTreeMap<NodeId, Box<Directive>>,
    pub leasing: Leasing,
}

fn setup(trust: &Trust, scenario: &SiteScenario) -> SiteSetup {
    let rows_survive_restart = scenario.hazards.router_wipes == 0;
    let properties =
        DriverProperties { conditional_create: true, atomic_rows: true, rows_survive_restart, reads_back: true };
    let charter = trust.authority.charter();
    let addresses = AddressSetup::new(charter.epoch(), INTERFACE, MAP_NAME, properties);
    SiteSetup { station: StationSetup::of(charter), addresses: addresses.expect("the first epoch fits a row index") }
}

impl StationNode {
    pub fn new(trust: &Trust, scenario: &SiteScenario, now: Now) -> Self {
        let machine = Driven::new(setup(trust, scenario), now);
        Self { machine, directives: BTreeMap::new(), leasing: Leasing::new(trust, now) }
    }

    /// What goes with the process.
    pub fn forget(&mut self) {
        self.directives.clear();
    }

    /// How a host's session ended, by the station's word; `None` while it goes on or a person is needed.
    pub fn end(&self, node: NodeId) -> Option<Stage> {
        let state = self.machine.machine()?.station().state();
        let (_, session) = state.current(node)?;
        let waits = session.attention.is_some() || state.hosts.get(&node).is_some_and(|host| host.suspect.is_some());
        let end = session.end.as_ref().map(|end| end.stage)?;
        (end != Stage::Complete || !waits).then_some(end)
    }

    /// What the router is to hold by the station's plan: mapped to inside address.
    pub fn planned_mappings(&self) -> Option<BTreeMap<Ipv4Addr, Ipv4Addr>> {
        let desired = self.machine.machine()?.addresses().state().desired();
        Some(desired.values().map(|row| (row.mapped, row.inside)).collect())
    }

    /// The highest event of each session that the station holds.
    pub fn events_held(&self) -> BTreeMap<SessionId, u64> {
        let sessions = self.machine.machine().map(|machine| &machine.station().state().sessions);
        sessions.into_iter().flatten().map(|(session, of)| (*session, of.events_taken)).collect()
    }
}

impl SiteWorld {
    pub(super) fn start_station(&mut self) {
        let now = self.agenda.now();
        self.station.machine.start(setup(&self.trust, &self.scenario), now);
        self.station.leasing.start(&self.trust, now);
        self.watch.queue.forget();
        let check = self.watch.acknowledged.check_station(&self.station.events_held());
        self.watch.expect(check);
    }

    pub(super) fn station_input(&mut self, input: SiteInput) {
        let now = self.agenda.now();
        self.station.machine.handle(now, input);
        self.settle(Who::Station);
        self.watch_station();
    }

    pub(super) fn station_did(&mut self, life: u32, input: SiteInput) {
        if self.station.machine.life() == life {
            self.station_input(input);
        }
    }

    fn station_does(&mut self, shortest: Duration, longest: Duration, input: StationInput) {
        let life = self.station.machine.life();
        let takes = self.chance.between(shortest, longest);
        self.agenda.after(takes, Happening::StationDid(life, Box::new(SiteInput::Station(input))));
    }

    pub(super) fn report_arrives(&mut self, number: usize, report: Box<HostReport>) {
        if !self.station.machine.is_up() {
            return;
        }
        let node = self.hosts[number].node;
        self.note(format_args!("the station hears host {number}: {} {:?}", report.revision, report.state));
        self.station_input(SiteInput::Station(StationInput::Report(node, report)));
        // A report is answered by the directive in force.
        if let Some(directive) = self.station.directives.get(&node).cloned() {
            self.send_directive(number, directive);
        }
    }

    fn send_directive(&mut self, number: usize, directive: Box<Directive>) {
        let slowness = self.slowness(number);
        self.send_inside(Path::Directive(number), slowness, &Happening::Directive(number, directive));
    }

    pub(super) fn answer_arrives(&mut self, directive: HeadquartersDirective) {
        if !self.station.machine.is_up() {
            return;
        }
        let (word, refusals) = HeadquartersWord::check(directive, &self.trust.authority);
        for refusal in refusals {
            self.note(format_args!("the station refuses a word of headquarters: {refusal}"));
        }
        for (session, revision) in &word.profiles_durable {
            Acknowledged::note(&mut self.watch.acknowledged.profiles, *session, *revision);
        }
        self.station_input(SiteInput::Station(StationInput::Headquarters(Box::new(word))));
    }

    pub(super) fn perform_station(&mut self) {
        for output in self.station.machine.release() {
            match output {
                SiteOutput::Station(output) => self.perform_station_output(output),
                SiteOutput::Address(AddressOutput::Router { id, operation }) => self.operate_router(id, operation),
                SiteOutput::Address(AddressOutput::TableRead { .. }) => {}
                SiteOutput::Address(other) => self.note(format_args!("the addresses say {other:?}")),
            }
        }
    }

    fn perform_station_output(&mut self, output: StationOutput) {
        match output {
            StationOutput::SendDirective(node, mut directive) => {
                let Some(number) = self.host_number(node) else { return };
                self.sabotage_directive(number, &mut directive);
                self.watch.expect(bounds::directive(&directive));
                self.note(format_args!(
                    "the station directs host {number}: {} {:?} {:.60}",
                    directive.revision,
                    directive.stage,
                    format!("{:?}", directive.order)
                ));
                self.station.directives.insert(node, directive.clone());
                self.send_directive(number, directive);
            }
            StationOutput::OpenSurvey { session, survey } => {
                let Some(number) = self.host_number(session.node) else { return };
                let descriptor = self.hosts[number].descriptor();
                let input = if self.stormy() && self.chance.happens(200) {
                    let why = "no holder of the sealed survey answers".to_owned();
                    StationInput::SurveyFailed { session, survey, why, passing: true }
                } else {
                    let facts = vec![("operating_system".to_owned(), "debian".to_owned())];
                    StationInput::SurveyOpened { session, survey, descriptor, facts: SurveyFacts { facts } }
                };
                self.station_does(Duration::from_millis(50), Duration::from_secs(2), input);
            }
            StationOutput::MakePlan { session, descriptor } => {
                let Some(number) = self.host_number(session.node) else { return };
                let summary = Box::new(self.plan_summary(number));
                let input = StationInput::PlanMade { session, descriptor, summary };
                self.station_does(Duration::from_millis(5), Duration::from_millis(100), input);
            }
            StationOutput::SendSiteReport(draft) => {
                self.sabotage_approvals(&draft);
                let report = Box::new(draft.complete(site_name(), self.trust.warrant.clone()));
                self.send_over_the_line(Path::SiteReport, &Happening::SiteReport(report));
            }
            StationOutput::MakeReport { session } => {
                let html = format!("<!doctype html><title>{session}</title>");
                let input = StationInput::ReportMade { session, html };
                self.station_does(Duration::from_millis(5), Duration::from_millis(50), input);
            }
            StationOutput::Attention { session, text } => {
                self.note(format_args!("the station wants attention for {session:?}: {text}"));
                self.weather.silent_slots.extend(session.filter(|_| text.contains("is silent for")));
            }
            other => self.note(format_args!("the station says {other:?}")),
        }
    }

    fn plan_summary(&self, number: usize) -> PlanSummary {
        let script = &self.plans[self.hosts[number].plan];
        let group = (self.scenario.cluster && number < 2).then(|| "ha-pair".to_owned());
        let document = branchline_protocol::ids::DocumentHash(branchline_protocol::ids::Hash::of(b"document"));
        PlanSummary {
            plan: script.plan,
            group,
            catalogue: document,
            policy: document,
            packs: script.packs.clone(),
            images: script.images.clone(),
            packages: vec!["agent 1.0".into()],
            modules: vec!["cpu".into()],
            thresholds: vec![("load".into(), "4".into())],
            probes: vec![(9100, "/metrics".into())],
            undeclared: UndeclaredPorts { ports: vec![22, 7400], left_out: 0 },
            scrape: vec![(9100, "/metrics".into())],
        }
    }

    fn operate_router(&mut self, id: OperationId, operation: RouterOperation) {
        let life = self.station.machine.life();
        let faults = if self.stormy() { self.scenario.router } else { Default::default() };
        let fate = Router::fate(&faults, &mut self.chance);
        self.note(format_args!("router: {operation}, {}", fate.failure.as_ref().map_or("good", |_| "bad")));
        let answer = fate.failure.is_none().then_some((life, id));
        if let Some(after) = fate.applied_after {
            self.agenda.after(after, Happening::RouterApplies(operation, answer));
        }
        if let Some(failure) = fate.failure {
            self.agenda.after(fate.answered_after, Happening::RouterAnswers(life, id, Box::new(Err(failure))));
        }
    }

    pub(super) fn router_applies(&mut self, operation: RouterOperation, answer: Option<(u32, OperationId)>) {
        let operation = self.sabotage_operation(operation);
        let result = self.router.apply(operation);
        if result.is_ok() {
            self.watch_mapping(operation);
        }
        if let Some((life, id)) = answer {
            let way = Duration::from_millis(10);
            self.agenda.after(way, Happening::RouterAnswers(life, id, Box::new(result)));
        }
    }

    pub(super) fn router_answers(&mut self, life: u32, id: OperationId, result: Result<RouterResult, RouterError>) {
        if self.station.machine.life() == life {
            self.station_input(SiteInput::Address(AddressInput::RouterDone { id, result }));
        }
    }

    /// The site's own operator: tries again whatever failed.
    pub(super) fn technician_looks(&mut self) {
        self.agenda.after(Duration::from_secs(30), Happening::TechnicianLooks);
        let Some(machine) = self.station.machine.machine() else { return };
        let state = machine.station().state();
        let failed = state.sessions.iter().filter(|(session, of)| {
            let ended = of.end.as_ref().map(|end| end.stage);
            let again = matches!(ended, Some(Stage::RolledBack | Stage::Failed | Stage::Refused | Stage::Cancelled));
            let suspect = state.hosts.get(&session.node).is_some_and(|host| host.suspect.is_some());
            state.is_current(**session) && (of.attention.is_some() || suspect || again)
        });
        let failed: Vec<SessionId> = failed.map(|(session, _)| *session).collect();
        let silent = state.sessions.iter().filter(|(_, of)| of.slot.is_some()).map(|(session, _)| *session);
        let silent: Vec<SessionId> = silent.filter(|session| self.weather.silent_slots.contains(session)).collect();
        // Who holds a slot and does not come back gives it up, as the station's notice says.
        for session in silent {
            let outside = self.host_number(session.node).is_some_and(|number| !self.weather.is_core(number));
            if outside && !self.stormy() {
                self.note(format_args!("the technician cancels {session}, which is silent"));
                let by = "tom".to_owned();
                self.station_input(SiteInput::Station(StationInput::Cancel { session, by }));
            }
        }
        for session in failed {
            if self.chance.happens(700) {
                self.note(format_args!("the technician tries {} again", session.node.short()));
                let by = "tom".to_owned();
                self.station_input(SiteInput::Station(StationInput::Retry { session, by }));
            }
        }
    }
}
