//! The runtime around headquarters' machine: it signs, probes and serves, and its people decide.
use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use branchline_protocol::{
    charter::{ProbeResult, Signed, TriedPort},
    ids::SessionId,
    session::Stage,
    time::Now,
    wire::site::{ProbeRequest, SiteReport},
};
use branchline_station_role::headquarters::{
    HeadquartersConfiguration, HeadquartersInput, HeadquartersMachine, HeadquartersOutput, HeadquartersSetup,
    PoolEntry, Selector, Target,
};
use branchline_station_role::station::{SiteInput, StationInput};

use super::{
    SiteWorld,
    happening::{Happening, Who},
    messages::Path,
    trust::site_name,
};
use crate::{
    checkers::bounds,
    scenario::SiteScenario,
    world::{
        driven::{Driven, Process},
        operator::Approver,
    },
};

/// Headquarters' process.
pub(super) struct HeadquartersNode {
    pub machine: Driven<HeadquartersMachine>,
    /// What Prometheus was told.
    pub targets: Vec<Target>,
    approver: Approver,
}

fn setup(scenario: &SiteScenario) -> HeadquartersSetup {
    let pool = PoolEntry {
        site: Some(site_name()),
        first: Ipv4Addr::new(198, 51, 100, 64),
        last: Ipv4Addr::new(198, 51, 100, 127),
    };
    let batch_addresses = scenario.hazards.batch_addresses.max(1);
    let configuration =
        HeadquartersConfiguration { pools: vec![pool], batch_addresses, ..HeadquartersConfiguration::default() };
    HeadquartersSetup { configuration }
}

impl HeadquartersNode {
    pub fn new(scenario: &SiteScenario, now: Now) -> Self {
        Self { machine: Driven::new(setup(scenario), now), targets: Vec::new(), approver: Approver::default() }
    }
}

impl SiteWorld {
    pub(super) fn start_headquarters(&mut self) {
        let now = self.agenda.now();
        self.headquarters.machine.start(setup(&self.scenario), now);
        let check = self.watch.acknowledged.check_headquarters(self.headquarters.machine.disk().records());
        self.watch.expect(check);
        self.connect_origin();
    }

    pub(super) fn site_report_arrives(&mut self, report: Box<SiteReport>) {
        // What the runtime does before the machine hears of it: the warrant must be the station's.
        if let Err(refusal) = self.trust.authority.check_warrant(&report.warrant) {
            return self.note(format_args!("headquarters refuses a site report: {refusal}"));
        }
        self.watch.expect(bounds::site_report(&report));
        self.note(format_args!(
            "headquarters hears {} requests, {} probes, {} profiles, {} free addresses",
            report.approvals.len(),
            report.probes.len(),
            report.profiles.len(),
            report.addresses_free
        ));
        let input = HeadquartersInput::Site { exchange: 0, report };
        self.headquarters_input(input);
    }

    fn headquarters_input(&mut self, input: HeadquartersInput) {
        let now = self.agenda.now();
        self.headquarters.machine.handle(now, input);
        self.settle(Who::Headquarters);
    }

    pub(super) fn headquarters_did(&mut self, life: u32, input: HeadquartersInput) {
        if self.headquarters.machine.life() == life {
            self.headquarters_input(input);
        }
    }

    pub(super) fn perform_headquarters(&mut self) {
        for output in self.headquarters.machine.release() {
            match output {
                HeadquartersOutput::Answer { directive, .. } => {
                    self.send_over_the_line(Path::Answer, &Happening::Answer(directive));
                }
                HeadquartersOutput::SignApproval(approval) => {
                    self.note(format_args!("{} decides {:?}", approval.decided_by, approval.decision));
                    let signed = Signed::sign(&*approval, &self.trust.approver);
                    self.headquarters_does(HeadquartersInput::ApprovalSigned { approval: *approval, signed });
                }
                HeadquartersOutput::SignGrant(grant) => {
                    self.note(format_args!("headquarters grants {}-{}", grant.batch.first, grant.batch.last));
                    let signed = Signed::sign(&grant, &self.trust.headquarters);
                    self.headquarters_does(HeadquartersInput::GrantSigned { grant, signed });
                }
                HeadquartersOutput::Probe { request, .. } => self.probe(&request),
                HeadquartersOutput::TargetsChanged(targets) => {
                    self.note(format_args!("{} targets", targets.len()));
                    self.headquarters.targets = targets;
                    self.watch_targets();
                }
                HeadquartersOutput::CommandDone { result, .. } => {
                    if let Err(refusal) = result {
                        self.note(format_args!("the approver is told: {refusal}"));
                    }
                }
                HeadquartersOutput::Notice { text, .. } => self.note(format_args!("headquarters notes: {text}")),
            }
        }
    }

    fn headquarters_does(&mut self, input: HeadquartersInput) {
        let life = self.headquarters.machine.life();
        let takes = self.chance.between(Duration::from_millis(1), Duration::from_millis(30));
        self.agenda.after(takes, Happening::HeadquartersDid(life, Box::new(input)));
    }

    /// Looks through the mapped address at whatever is behind it now.
    fn probe(&mut self, request: &ProbeRequest) {
        let inside = self.router.mappings().get(&request.mapped).copied();
        let host = inside.and_then(|inside| self.hosts.iter().find(|host| host.inside == inside));
        let answers = self.wan.is_up(self.agenda.now().monotonic) && host.is_some_and(super::host::HostNode::answers);
        let fault = (!answers).then(|| "connection refused".to_owned());
        self.note(format_args!("headquarters probes {}: {fault:?}", request.mapped));
        let ports = request.ports.iter().map(|(port, _)| (*port, fault.clone())).collect();
        let result = ProbeResult {
            site: site_name(),
            session: request.session,
            plan: request.plan,
            mapped: request.mapped,
            ports,
            // The simulated router's filter passes declared ports only.
            undeclared: request.undeclared.iter().map(|port| TriedPort { port: *port, answers: false }).collect(),
            probed_at: self.agenda.now().wall,
        };
        let signed = Signed::sign(&result, &self.trust.headquarters);
        self.headquarters_does(HeadquartersInput::ProbeDone { attempt: request.attempt, result, signed });
    }

    /// The hosts that headquarters' people deny.
    pub(super) fn is_denied(&self, number: usize) -> bool {
        number + self.scenario.denied >= self.hosts.len()
    }

    pub(super) fn approver_looks(&mut self) {
        self.agenda.after(self.scenario.approver.looks_every, Happening::ApproverLooks);
        let Some(machine) = self.headquarters.machine.machine() else { return };
        let pending = machine.pending_approvals();
        let denied: BTreeSet<SessionId> = pending.iter().map(|view| view.session).collect();
        let denied: BTreeSet<SessionId> = denied
            .into_iter()
            .filter(|session| self.host_number(session.node).is_some_and(|number| self.is_denied(number)))
            .collect();
        let now = self.agenda.now();
        let habits = self.scenario.approver;
        let decisions = self.headquarters.approver.look(now, &pending, &denied, &habits, &mut self.chance);
        for (session, decision) in decisions {
            let selector = Selector::Session(session);
            let by = "maria".to_owned();
            self.headquarters_input(HeadquartersInput::Decide { command: 1, selector, decision, by });
        }
        self.withdraw_what_is_to_go();
    }

    /// People withdraw a host again and again until the station says that it is withdrawn.
    fn withdraw_what_is_to_go(&mut self) {
        for number in self.weather.withdrawn.clone() {
            let node = self.hosts[number].node;
            let Some(station) = self.station.machine.machine().map(|machine| machine.station().state()) else { return };
            let Some((session, found)) = station.current(node) else { continue };
            if found.end.as_ref().is_some_and(|end| end.stage == Stage::Withdrawn) {
                continue;
            }
            let by = "maria".to_owned();
            if self.chance.happens(500) {
                self.headquarters_input(HeadquartersInput::Withdraw { command: 2, session, by });
            } else {
                self.station_input(SiteInput::Station(StationInput::Withdraw { session, by }));
            }
        }
    }
}
