//! When which checker looks.
use branchline_protocol::{
    ids::{PackId, PlanHash, SessionId},
    machine::Sequence,
    session::{Directive, Stage},
};
use branchline_station_role::{
    addresses::AddressState,
    headquarters::HeadquartersState,
    router::RouterOperation,
    station::{SiteEvent, StationState},
};

use super::{SiteWorld, messages::Path};
use crate::{
    checkers::{
        Kind, Violation,
        addresses::{AddressWatch, table_is_as_planned},
        approval, bounds, content,
        durability::Acknowledged,
        ensure, line, progress,
        queue::{self, QueueWatch},
        slots,
    },
    world::{driven::Process, lan::MessageWatch, router::SET_LIFETIME},
};

/// What the checkers remember.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// The first property that was broken.
    pub broken: Option<Violation>,
    pub acknowledged: Acknowledged,
    pub addresses: AddressWatch,
    pub queue: QueueWatch,
    pub holders_lost: u64,
    /// Frame bytes that the part of the site which can be reached has lost besides.
    pub bytes_lost: u64,
    pub crashes: u64,
    pub messages: MessageWatch<Path>,
}

impl Watch {
    /// Notes the first violation.
    pub fn expect(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.broken.get_or_insert(violation);
        }
    }
}

impl SiteWorld {
    pub(super) fn watch_directive(&mut self, number: usize, directive: &Directive) {
        Acknowledged::note(&mut self.watch.acknowledged.events, directive.session, directive.events_durable);
        let node = self.hosts[number].node;
        let check =
            ensure(Kind::Sessions, "a directive is for the host that gets it", directive.session.node == node, || {
                format!("host {number} got a directive for {}", directive.session)
            });
        self.watch.expect(check);
    }

    fn watch_approval(&mut self, what: &str, number: usize, plans: &[usize]) {
        let bound = |plan: &usize| {
            let script = &self.plans[*plan];
            (script.plan, script.images.iter().copied().collect())
        };
        let plans: Vec<_> = plans.iter().map(bound).collect();
        let journal = self.headquarters.machine.disk().records();
        let check = approval::is_approved(what, self.hosts[number].node, &plans, journal);
        self.watch.expect(check);
    }

    /// With any plan that the host ever had: an update keeps mapping and target while it is under way (R97).
    fn watch_some_approval(&mut self, what: &str, number: usize) {
        let plans: Vec<usize> = self.hosts[number].plans.iter().copied().collect();
        self.watch_approval(what, number, &plans);
    }

    /// Which of a host's plans this is. With one payload two of the world's plans are the same.
    fn plan_number(&self, number: usize, plan: PlanHash) -> Option<usize> {
        self.hosts[number].plans.iter().copied().find(|known| self.plans[*known].plan == plan)
    }

    pub(super) fn watch_complete(&mut self, number: usize, session: SessionId, plan: PlanHash) {
        let plans: Vec<usize> = self.plan_number(number, plan).into_iter().collect();
        self.watch_approval("complete", number, &plans);
        let has_plan = self.hosts[number].plan_is_installed(plan);
        let check = ensure(Kind::Approvals, "complete means installed", has_plan, || {
            format!("{session} is complete without {plan}")
        });
        self.watch.expect(check);
    }

    /// Looks at the router's table after any change of it.
    pub(super) fn watch_table(&mut self) {
        let now = self.agenda.now().monotonic;
        let (rest, table, owners) = (SET_LIFETIME, self.router.own_mappings(), &self.owners);
        let owner = |inside| owners.get(&inside).copied().unwrap_or(usize::MAX);
        let check = self.watch.addresses.look(now, &table, owner, rest);
        self.watch.expect(check);
    }

    pub(super) fn watch_mapping(&mut self, operation: RouterOperation) {
        self.watch_table();
        if let RouterOperation::Map { row, inside, mapped } = operation {
            let check = self.watch.addresses.row_made(row.raw(), inside, mapped);
            self.watch.expect(check);
            if let Some(number) = self.owners.get(&inside).copied() {
                self.watch_some_approval("mapped", number);
            }
        }
    }

    pub(super) fn watch_targets(&mut self) {
        let numbers: Vec<usize> =
            self.headquarters.targets.iter().filter_map(|target| self.host_number(target.node)).collect();
        for number in numbers {
            self.watch_some_approval("a target", number);
        }
    }

    pub(super) fn watch_install(&mut self, number: usize, plan: PlanHash) {
        let known = self.plan_number(number, plan);
        let check = ensure(Kind::Approvals, "only the own plan is installed", known.is_some(), || {
            format!("host {number} installs {plan}, its plans are {:?}", self.hosts[number].plans)
        });
        self.watch.expect(check);
        let packs = known.map(|plan| self.plans[plan].packs.clone()).unwrap_or_default();
        for payload in self.payloads.iter().filter(|payload| packs.contains(&payload.id())) {
            let store = self.hosts[number].store.get(&payload.id());
            let check = content::whole_packs_are_installed(number, store, payload);
            self.watch.expect(check);
        }
        if let Some(plan) = known.filter(|_| self.scenario.hazards.approve_first) {
            self.watch_approval("being installed", number, &[plan]);
        }
        let busy: Vec<usize> = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| host.installing.is_some() && !host.excused)
            .map(|(n, _)| n)
            .collect();
        let check = slots::slots_are_kept(&busy, self.scenario.sessions_max);
        self.watch.expect(check);
        let members = busy.iter().filter(|number| self.scenario.cluster && **number < 2).count();
        let check = ensure(Kind::Sessions, "members of a cluster are changed one at a time", members <= 1, || {
            format!("hosts {busy:?} install at the same time; 0 and 1 are one cluster")
        });
        self.watch.expect(check);
    }

    /// Looks at the station after each of its inputs.
    pub(super) fn watch_station(&mut self) {
        let Some(machine) = self.station.machine.machine() else { return };
        let state = machine.station().state();
        for host in &mut self.hosts {
            // A slot belongs to a session; one that people have ended has none, though its installation is finished, or
            // begins after that because the order for it was under way.
            let end = state.current(host.node).and_then(|(_, session)| session.end.as_ref());
            let ended = end.is_some_and(|end| matches!(end.stage, Stage::Cancelled | Stage::Withdrawn));
            host.excused = ended || host.excused && host.installing.is_some();
        }
        let places = queue::places(machine.station());
        let bounds = bounds::station(machine);
        if machine.station().standing_down().is_none() {
            let check = self.watch.queue.look(places, self.scenario.sessions_max as usize);
            self.watch.expect(check);
        }
        self.watch.expect(bounds);
    }

    pub(super) fn watch_host(&mut self, number: usize) {
        let check = self.hosts[number].machine.machine().map_or(Ok(()), bounds::host);
        self.watch.expect(check);
    }

    /// Every frame on a host's disk, whether it counts or not.
    pub(super) fn watch_store(&self, number: usize) -> Result<(), Violation> {
        for payload in &self.payloads {
            if let Some(store) = self.hosts[number].store.get(&payload.id()) {
                content::kept_frames_are_good(number, store, payload)?;
            }
        }
        Ok(())
    }

    pub(super) fn watch_held_frames(&mut self, number: usize, pack: PackId) {
        let Some(payload) = self.payloads.iter().find(|payload| payload.id() == pack) else { return };
        let host = &self.hosts[number];
        let Some(have) = host.swarm.as_ref().and_then(|swarm| swarm.have(pack)) else { return };
        let check = content::held_frames_are_verified(number, pack, have, host.store.get(&pack), payload);
        self.watch.expect(check);
    }

    pub(super) fn watch_line(&mut self) {
        let check = self.line_is_bounded();
        self.watch.expect(check);
    }

    fn line_is_bounded(&self) -> Result<(), Violation> {
        let (crossed, length) = (self.wan.crossed_in_all(), self.chosen_pack_bytes() + self.watch.bytes_lost);
        line::bytes_are_bounded(crossed, length, self.watch.holders_lost, self.scenario.leased_bytes_max)
    }

    fn outcomes(&self) -> Vec<progress::Outcome> {
        let table = self.router.own_mappings();
        let expected = |number: usize| {
            if self.weather.withdrawn.contains(&number) {
                Stage::Withdrawn
            } else if self.is_denied(number) {
                Stage::Denied
            } else {
                Stage::Complete
            }
        };
        let outcome = |(number, host): (usize, &super::host::HostNode)| progress::Outcome {
            host: number,
            expected: expected(number),
            stage: self.station.end(host.node),
            mapped: table.values().any(|inside| *inside == host.inside),
            target: self.headquarters.targets.iter().any(|target| target.node == host.node),
        };
        let core = self.hosts.iter().enumerate().filter(|(number, _)| self.weather.is_core(*number));
        core.map(outcome).collect()
    }

    /// Whether everybody in the core is where it belongs, and the router as planned.
    pub(super) fn all_done(&self) -> bool {
        self.outcomes().into_iter().all(progress::Outcome::is_right)
            && self.station.planned_mappings().is_some_and(|planned| planned == self.router.own_mappings())
    }

    pub(super) fn watch_at_the_end(&mut self) -> Result<(), Violation> {
        self.sabotage_the_end();
        progress::everybody_is_done(&self.outcomes())?;
        let planned = self.station.planned_mappings().unwrap_or_default();
        table_is_as_planned(&planned, &self.router.own_mappings())?;
        self.watch.acknowledged.check_headquarters(self.headquarters.machine.disk().records())?;
        self.watch.acknowledged.check_station(&self.station.events_held())?;
        self.watch_folds()?;
        for number in 0..self.hosts.len() {
            self.watch_store(number)?;
        }
        self.line_is_bounded()
    }

    /// What a machine knows is the fold of its journal.
    fn watch_folds(&mut self) -> Result<(), Violation> {
        let property = "the state is the fold of the journal";
        self.station.machine.commit();
        self.headquarters.machine.commit();
        if let Some(machine) = self.station.machine.machine() {
            let (mut sessions, mut addresses, mut sequence) = (StationState::default(), AddressState::default(), 0);
            for record in self.station.machine.disk().records() {
                match &record.event {
                    SiteEvent::Station(event) => {
                        sequence += 1;
                        sessions.apply(Sequence(sequence), event);
                    }
                    SiteEvent::Address(event) => addresses.apply(event),
                }
            }
            let same = *machine.station().state() == sessions && *machine.addresses().state() == addresses;
            ensure(Kind::Durability, property, same, || "the station recovers to another state".to_owned())?;
        }
        if let Some(machine) = self.headquarters.machine.machine() {
            let mut state = HeadquartersState::default();
            self.headquarters.machine.disk().records().iter().for_each(|record| state.apply(&record.event));
            let same = *machine.state() == state;
            ensure(Kind::Durability, property, same, || "headquarters recovers to another state".to_owned())?;
        }
        Ok(())
    }
}
