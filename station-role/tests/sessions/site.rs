//! Sessions and addresses as one machine, killed after every step, with a router in memory.
use std::net::Ipv4Addr;

use branchline_protocol::{
    charter::{AddressBatch, AddressGrant, Approval, Decision},
    ids::{DocumentHash, Hash},
    machine::{Journaled, Machine, Record},
    session::{HostReport, HostState, Stage},
    time::Now,
};
use branchline_station_role::{
    addresses::{AddressInput, AddressOutput, AddressSetup},
    router::{DriverProperties, NatRow, NatTable, RouterOperation, RouterResult, RowKey},
    station::{
        HeadquartersWord, LinkAddress, SiteEvent, SiteInput, SiteMachine, SiteOutput, SiteReportDraft, SiteSetup,
        StationInput, StationOutput,
    },
};

use super::world::{Fate, World, images, node, packs, plan_of};

const INTERFACE: u32 = 2;

struct Site {
    machine: SiteMachine,
    setup: SiteSetup,
    journal: Vec<Record<SiteEvent>>,
    table: NatTable,
    draft: SiteReportDraft,
    now: Now,
    revision: u64,
    kill_always: bool,
}

impl Site {
    fn new(kill_always: bool) -> Self {
        let station = World::new(0, &[Fate::Completes], 10).setup;
        let properties = DriverProperties {
            conditional_create: true,
            atomic_rows: true,
            rows_survive_restart: true,
            reads_back: true,
        };
        let addresses = AddressSetup::new(station.epoch, INTERFACE, "branchline", properties).unwrap();
        let setup = SiteSetup { station, addresses };
        let now = Now::from_seconds(1000);
        let machine = SiteMachine::recover(setup.clone(), now, Vec::new());
        let (journal, table, draft) = (Vec::new(), NatTable::default(), SiteReportDraft::default());
        let mut site = Self { machine, setup, journal, table, draft, now, revision: 0, kill_always };
        site.settle();
        site
    }

    fn settle(&mut self) {
        loop {
            self.journal.extend(std::iter::from_fn(|| self.machine.poll_record()));
            let last = self.journal.last().map_or(0, |record| record.sequence.0);
            assert_eq!(last, self.journal.len() as u64, "the journal has no gaps");
            let Some(output) = self.machine.poll_output() else { break };
            assert!(output.after.0 <= last);
            match output.output {
                SiteOutput::Address(AddressOutput::Router { id, operation }) => {
                    let result = Ok(self.route(operation));
                    self.machine.handle(self.now, SiteInput::Address(AddressInput::RouterDone { id, result }));
                }
                SiteOutput::Station(StationOutput::SendSiteReport(draft)) => self.draft = *draft,
                SiteOutput::Station(
                    StationOutput::Bind { .. }
                    | StationOutput::Release { .. }
                    | StationOutput::InsideChanged { .. }
                    | StationOutput::InsideLost { .. },
                ) => panic!("this belongs inside"),
                _ => {}
            }
        }
        self.machine.check_invariants();
    }

    fn route(&mut self, operation: RouterOperation) -> RouterResult {
        match operation {
            RouterOperation::ReadTable => RouterResult::Table(self.table.clone()),
            RouterOperation::Map { row, inside, mapped } => {
                let made = NatRow::one_to_one("branchline", inside, mapped);
                self.table.rows.insert(RowKey { interface: INTERFACE, index: row.raw() }, made.clone());
                RouterResult::Mapped(made)
            }
            RouterOperation::Unmap { row } => {
                self.table.rows.remove(&RowKey { interface: INTERFACE, index: row.raw() });
                RouterResult::Unmapped(row)
            }
        }
    }

    fn tell(&mut self, input: StationInput) {
        self.machine.handle(self.now, SiteInput::Station(input));
        self.settle();
        if self.kill_always {
            self.crash();
        }
        for _ in 0..20 {
            self.now = Now::from_seconds(self.now.wall.0 + 1);
            self.machine.handle_timeout(self.now);
            self.settle();
        }
    }

    fn crash(&mut self) {
        self.machine = SiteMachine::recover(self.setup.clone(), self.now, self.journal.clone());
        self.settle();
    }

    fn report(&mut self, state: HostState) {
        self.report_from(1, Ipv4Addr::new(10, 1, 0, 1), state);
    }

    fn report_from(&mut self, number: u8, inside: Ipv4Addr, state: HostState) {
        self.revision += 1;
        let report = HostReport {
            session: branchline_protocol::ids::SessionId { node: node(number), generation: 1 },
            revision: self.revision,
            machine_identifier: format!("machine-{number}"),
            host_name: format!("host-{number}"),
            inside,
            state,
            survey: Some(branchline_protocol::ids::SurveyHash(Hash::of(b"sealed"))),
            directive_seen: u64::MAX,
            events: Vec::new(),
        };
        self.tell(StationInput::Report(node(number), Box::new(report)));
    }

    fn stage(&self) -> Stage {
        self.machine.station().sessions().next().unwrap().stage
    }
}

/// A site whose host 1 is mapped.
fn mapped(kill_always: bool) -> Site {
    let mut site = Site::new(kill_always);
    site.report(HostState::Surveyed);
    let world = World::new(0, &[Fate::Completes], 10);
    let session = branchline_protocol::ids::SessionId { node: node(1), generation: 1 };
    let survey = branchline_protocol::ids::SurveyHash(Hash::of(b"sealed"));
    let descriptor = Hash::of(b"descriptor");
    site.tell(StationInput::SurveyOpened { session, survey, descriptor, facts: Default::default() });
    site.tell(world.plan(session, descriptor));
    let plan = plan_of(session);
    assert_eq!(packs().len(), 2);
    site.report(HostState::Staged { plan });
    assert_eq!(site.stage(), Stage::Installing);
    site.report(HostState::Installed { plan, images: images() });
    assert_eq!(site.draft.approvals.len(), 1);
    let approval = Approval {
        site: site.setup.station.site.clone(),
        session,
        images: images(),
        plan,
        epoch: site.setup.station.epoch,
        decision: Decision::Approve,
        decided_by: "ada".into(),
        decided_at: site.now.wall,
    };
    let approvals = vec![(DocumentHash(Hash::of(b"approval")), approval)];
    site.tell(StationInput::Headquarters(Box::new(HeadquartersWord { approvals, ..Default::default() })));
    assert_eq!(site.stage(), Stage::Approved, "no address is granted yet");
    assert!(site.draft.wants_batch);
    let (first, last) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 16));
    let grant = AddressGrant { site: site.setup.station.site.clone(), serial: 1, batch: AddressBatch { first, last } };
    site.tell(StationInput::Headquarters(Box::new(HeadquartersWord { grants: vec![grant], ..Default::default() })));
    assert_eq!(site.stage(), Stage::Mapped);
    assert_eq!(site.table.rows.len(), 1);
    assert_eq!(site.draft.probes[0].mapped, first);
    assert_eq!((site.draft.addresses_used.as_slice(), site.draft.grant_seen), ([(node(1), first)].as_slice(), 1));
    site
}

fn runs_to_a_mapping_and_back(kill_always: bool) {
    let mut site = mapped(kill_always);
    let session = branchline_protocol::ids::SessionId { node: node(1), generation: 1 };
    site.tell(StationInput::Withdraw { session, by: "bea".into() });
    assert!(site.table.rows.is_empty());
    site.report(HostState::Withdrawn { uninstalled: true });
    assert!(site.machine.station().state().revoked.contains(&node(1)));
    assert_eq!(site.stage(), Stage::Withdrawn);
}

#[test]
fn an_approval_leads_to_a_row_and_a_withdrawal_takes_it_away() {
    runs_to_a_mapping_and_back(false);
}

#[test]
fn a_crash_after_every_step_changes_nothing() {
    runs_to_a_mapping_and_back(true);
}

/// R116: a host that is off cannot say that its address is another's now. The other one's report says so.
fn loses_its_row_with_its_inside_address(kill_always: bool) {
    let mut site = mapped(kill_always);
    let (first, other) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 99));
    let plan = plan_of(branchline_protocol::ids::SessionId { node: node(1), generation: 1 });
    let installed = || HostState::Installed { plan, images: images() };
    let kept = site.machine.station().state().hosts[&node(1)].mapped;
    let mapped = |site: &Site| site.machine.station().state().hosts[&node(1)].mapped;
    let inside = |site: &Site| site.table.rows.values().map(|row| row.inside.unwrap().first).collect::<Vec<_>>();

    site.report_from(2, first, HostState::Joined);
    assert_eq!((mapped(&site), inside(&site)), (None, vec![]), "no row leads to the other machine");
    // The other one still reports from there, and the first is heard at its new address.
    site.report_from(2, first, HostState::Joined);
    site.report_from(1, other, installed());
    assert_eq!((mapped(&site), inside(&site)), (kept, vec![other]), "and the mapped address is the same");
    // The first comes back to an address that the other has left.
    site.report_from(2, other, HostState::Joined);
    assert_eq!((mapped(&site), inside(&site)), (None, vec![]));
    site.report_from(1, other, installed());
    assert_eq!((mapped(&site), inside(&site)), (kept, vec![other]), "heard again where it was");
}

#[test]
fn a_row_goes_when_another_member_reports_from_its_inside_address() {
    loses_its_row_with_its_inside_address(false);
}

#[test]
fn a_lost_inside_address_outlives_every_crash() {
    loses_its_row_with_its_inside_address(true);
}

/// R116: who takes the address of a host that is off need not be a member, nor say anything; it has another link address.
#[test]
fn a_row_goes_when_a_stranger_answers_at_the_inside_address_of_a_host_that_is_off() {
    let mut site = mapped(false);
    let inside = Ipv4Addr::new(10, 1, 0, 1);
    let (own, card, stranger) = (LinkAddress([2; 6]), LinkAddress([3; 6]), LinkAddress([4; 6]));
    let plan = plan_of(branchline_protocol::ids::SessionId { node: node(1), generation: 1 });
    let installed = || HostState::Installed { plan, images: images() };
    let seen = |link, is_connected| StationInput::LinkSeen { node: node(1), inside, link, is_connected };
    let rows = |site: &Site| site.table.rows.len();
    let known = |site: &Site| site.machine.station().state().hosts[&node(1)].link;

    site.tell(seen(stranger, false));
    site.tell(seen(stranger, false));
    assert_eq!((rows(&site), known(&site)), (1, None), "nothing is known of its link address yet");
    site.tell(seen(own, true));
    site.tell(seen(own, true));
    assert_eq!(known(&site), None, "a connection may outlive its host");
    site.report(installed());
    site.tell(seen(own, true));
    assert_eq!(known(&site), Some(own), "it has reported since");
    site.tell(seen(card, true));
    site.report(installed());
    site.tell(seen(card, true));
    assert_eq!((rows(&site), known(&site)), (1, Some(card)), "it has another card now");
    site.tell(seen(stranger, true));
    site.crash();
    assert_eq!((rows(&site), known(&site)), (1, Some(card)));

    site.tell(seen(card, false));
    assert_eq!(rows(&site), 1, "its machine is there, only its node is off");
    site.tell(seen(stranger, false));
    assert_eq!(rows(&site), 1, "it was seen only once");
    site.tell(seen(stranger, false));
    assert_eq!(rows(&site), 0, "no row leads to the stranger");
    let view = site.machine.station().sessions().next().unwrap();
    assert_eq!((view.mapped, view.verified), (None, false));
    assert!(view.history.last().unwrap().text.contains("link address 04:04:04:04:04:04 answers"), "{view:?}");
    site.crash();
    site.tell(seen(card, false));
    assert_eq!(rows(&site), 0, "before it has reported it is not known to be back");
    site.report(installed());
    assert_eq!(rows(&site), 1);
}
