//! When which checker looks.
use branchline_protocol::{
    ids::{PackId, PlanHash, SessionId},
    session::Directive,
};
use branchline_station_role::router::RouterOperation;

use super::SiteWorld;
use crate::checkers::{
    Violation, addresses::AddressWatch, approval, content, durability::Acknowledged, ensure, line, progress, slots,
};

/// What the checkers remember.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// The first property that was broken.
    pub broken: Option<Violation>,
    pub acknowledged: Acknowledged,
    pub addresses: AddressWatch,
    pub holders_lost: u64,
    pub crashes: u64,
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
        let check = ensure("a directive is for the host that gets it", directive.session.node == node, || {
            format!("host {number} got a directive for {}", directive.session)
        });
        self.watch.expect(check);
    }

    fn watch_approval(&mut self, what: &str, number: usize, plan: PlanHash) {
        let journal = self.headquarters.machine.disk().records();
        let check = approval::is_approved(what, self.hosts[number].node, plan, journal);
        self.watch.expect(check);
    }

    pub(super) fn watch_complete(&mut self, number: usize, session: SessionId, plan: PlanHash) {
        self.watch_approval("complete", number, plan);
        let has_plan = self.hosts[number].plan_is_installed(plan);
        let check = ensure("complete means installed", has_plan, || format!("{session} is complete without {plan}"));
        self.watch.expect(check);
    }

    pub(super) fn watch_mapping(&mut self, operation: RouterOperation) {
        let now = self.agenda.now().monotonic;
        let rest = self.address_rest();
        let table = self.router.mappings();
        let check = self.watch.addresses.look(now, &table, rest);
        self.watch.expect(check);
        if let RouterOperation::Map { inside, .. } = operation
            && let Some(number) = self.hosts.iter().position(|host| host.inside == inside)
        {
            let plan = self.plans[self.hosts[number].plan].plan;
            self.watch_approval("mapped", number, plan);
        }
    }

    pub(super) fn watch_targets(&mut self) {
        let numbers: Vec<usize> =
            self.headquarters.targets.iter().filter_map(|target| self.host_number(target.node)).collect();
        for number in numbers {
            let plan = self.plans[self.hosts[number].plan].plan;
            self.watch_approval("a target", number, plan);
        }
    }

    pub(super) fn watch_install(&mut self, number: usize, plan: PlanHash) {
        let expected = self.plans[self.hosts[number].plan].plan;
        let check = ensure("only the own plan is installed", plan == expected, || {
            format!("host {number} installs {plan}, its plan is {expected}")
        });
        self.watch.expect(check);
        let busy: Vec<usize> =
            self.hosts.iter().enumerate().filter(|(_, host)| host.installing.is_some()).map(|(n, _)| n).collect();
        let check = slots::slots_are_kept(&busy, self.scenario.sessions_max);
        self.watch.expect(check);
    }

    pub(super) fn watch_held_frames(&mut self, number: usize, pack: PackId) {
        let Some(payload) = self.payloads.iter().find(|payload| payload.id() == pack) else { return };
        let host = &self.hosts[number];
        let Some(have) = host.swarm.as_ref().and_then(|swarm| swarm.have(pack)) else { return };
        let check = content::held_frames_are_verified(number, pack, have, host.store.get(&pack), payload);
        self.watch.expect(check);
    }

    pub(super) fn watch_line(&mut self) {
        let (crossed, length) = (self.wan.crossed_in_all(), self.chosen_pack_bytes());
        let check = line::bytes_are_bounded(crossed, length, self.watch.holders_lost, self.scenario.leased_bytes_max);
        self.watch.expect(check);
    }

    fn outcomes(&self) -> Vec<progress::Outcome> {
        let table = self.router.mappings();
        let outcome = |(number, host): (usize, &super::host::HostNode)| progress::Outcome {
            denied: self.is_denied(number),
            stage: self.station.stage(host.node),
            mapped: table.values().any(|inside| *inside == host.inside),
            target: self.headquarters.targets.iter().any(|target| target.node == host.node),
        };
        self.hosts.iter().enumerate().map(outcome).collect()
    }

    pub(super) fn all_done(&self) -> bool {
        self.outcomes().into_iter().all(progress::Outcome::is_right)
    }

    pub(super) fn watch_at_the_end(&self) -> Result<(), Violation> {
        progress::everybody_is_done(&self.outcomes())?;
        self.watch.acknowledged.check_headquarters(self.headquarters.machine.disk().records())?;
        self.watch.acknowledged.check_station(&self.station.events_held())?;
        let (crossed, length) = (self.wan.crossed_in_all(), self.chosen_pack_bytes());
        line::bytes_are_bounded(crossed, length, self.watch.holders_lost, self.scenario.leased_bytes_max)?;
        let hosts = self.outcomes().iter().filter(|outcome| !outcome.denied).count();
        let rows = self.router.mappings().len();
        ensure("the router holds exactly the mapped hosts", rows == hosts, || format!("{rows} rows for {hosts} hosts"))
    }
}
