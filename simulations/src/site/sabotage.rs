//! Things that the world does wrong on purpose, so that a test sees the right checker find them.
use std::sync::atomic::{AtomicU64, Ordering};

use branchline_protocol::{
    charter::{Approval, Decision},
    ids::{DocumentHash, Hash},
    session::{Directive, Order, WaitReason},
};
use branchline_station_role::{
    router::RouterOperation,
    station::{HeadquartersWord, SiteInput, SiteReportDraft, StationInput},
};

use super::{SiteWorld, happening::Who, trust::site_name};
use crate::{faults::Sabotage, scenario::SiteScenario, world::router::MAP_NAME};

/// When a sabotage that needs no occasion happens, in seconds.
const SABOTAGE_SECONDS: u64 = 10;

/// How many worlds this process has made: what no world may know.
static WORLDS: AtomicU64 = AtomicU64::new(0);

/// The seed of a scenario, unless what another world left behind is to show in this one.
pub(super) fn seed_of(scenario: &SiteScenario) -> u64 {
    match scenario.sabotage {
        Some(Sabotage::KeptState) => scenario.seed ^ (WORLDS.fetch_add(1, Ordering::Relaxed) << 32),
        _ => scenario.seed,
    }
}

impl SiteWorld {
    fn is_sabotaged(&self, sabotage: Sabotage) -> bool {
        self.scenario.sabotage == Some(sabotage) && !self.sabotaged
    }

    /// Looks for an occasion after everything that happens.
    pub(super) fn sabotage(&mut self) {
        let Some(sabotage) = self.scenario.sabotage.filter(|_| !self.sabotaged) else { return };
        match sabotage {
            Sabotage::CorruptFrame => self.spoil_a_frame(),
            Sabotage::ForgottenEvents if self.watch.acknowledged.events.values().any(|number| *number > 0) => {
                self.lose_journal(Who::Station);
            }
            Sabotage::ForgottenProfiles if !self.watch.acknowledged.profiles.is_empty() => {
                self.lose_journal(Who::Headquarters);
            }
            Sabotage::DoubledMapping => {
                let inside = self.router.own_mappings().into_values().next();
                if let Some(inside) = inside {
                    self.sabotaged = self.router.add(MAP_NAME, u32::MAX, [198, 51, 100, 200].into(), inside);
                    self.watch_table();
                }
            }
            Sabotage::DoubledLine => self.wan.doubled = true,
            Sabotage::Panic if self.agenda.now().monotonic.0 > SABOTAGE_SECONDS * 1_000_000 => {
                panic!("a machine panics: this is sabotage");
            }
            _ => {}
        }
    }

    fn spoil_a_frame(&mut self) {
        for number in 0..self.hosts.len() {
            let counts = self.hosts[number].swarm.as_ref();
            let pack = self
                .payloads
                .iter()
                .map(super::payload::Payload::id)
                .find(|pack| counts.and_then(|swarm| swarm.have(*pack)).is_some_and(|have| have.count() > 0));
            if let Some(pack) = pack
                && self.hosts[number].store.get_mut(&pack).is_some_and(super::payload::PackStore::spoil)
            {
                self.note(format_args!("sabotage: a frame of host {number} changes on its disk"));
                self.sabotaged = true;
                return;
            }
        }
    }

    fn lose_journal(&mut self, who: Who) {
        if !self.process(who).is_up() {
            return;
        }
        self.note(format_args!("sabotage: {who} loses its journal"));
        self.crash(who);
        match who {
            Who::Station => self.station.machine.lose_everything(),
            _ => self.headquarters.machine.lose_everything(),
        }
        self.sabotaged = true;
    }

    /// A row is made under an index that another host's row had.
    pub(super) fn sabotage_operation(&mut self, operation: RouterOperation) -> RouterOperation {
        let RouterOperation::Map { row, inside, mapped } = operation else { return operation };
        if !self.is_sabotaged(Sabotage::ReusedRow) {
            return operation;
        }
        match self.sabotaged_row {
            None => {
                self.sabotaged_row = Some((row, inside, mapped));
                operation
            }
            Some((first, of, at)) if of != inside => {
                self.note(format_args!("sabotage: the router makes row {} again", first.raw()));
                self.sabotaged = true;
                self.router.lose(at);
                RouterOperation::Map { row: first, inside, mapped }
            }
            Some(_) => operation,
        }
    }

    /// Everybody who waits for a slot is told to install.
    pub(super) fn sabotage_directive(&mut self, number: usize, directive: &mut Directive) {
        if self.is_sabotaged(Sabotage::SlotBeyondLimit)
            && matches!(directive.order, Order::Wait(WaitReason::Slots { .. }))
        {
            self.note(format_args!("sabotage: host {number} is told to install without a slot"));
            directive.order = Order::Install { plan: self.plans[self.hosts[number].plan].plan };
        }
    }

    /// The station hears an approval of which headquarters does not know.
    pub(super) fn sabotage_approvals(&mut self, draft: &SiteReportDraft) {
        if !self.is_sabotaged(Sabotage::ForgedApproval) || draft.approvals.is_empty() {
            return;
        }
        let forged = draft.approvals.iter().map(|request| {
            let approval = Approval {
                site: site_name(),
                session: request.session,
                images: request.images.clone(),
                plan: request.plan,
                epoch: request.epoch,
                decision: Decision::Approve,
                decided_by: "nobody".to_owned(),
                decided_at: request.asked_at,
            };
            (DocumentHash(Hash::of(b"forged")), approval)
        });
        let word = HeadquartersWord { approvals: forged.collect(), ..HeadquartersWord::default() };
        self.note(format_args!("sabotage: {} forged approvals", word.approvals.len()));
        self.sabotaged = true;
        self.station_input(SiteInput::Station(StationInput::Headquarters(Box::new(word))));
    }

    /// Whether a host never hears its station.
    pub(super) fn is_deaf(&self, number: usize) -> bool {
        let first = (0..self.hosts.len()).find(|number| self.weather.is_core(*number));
        self.scenario.sabotage == Some(Sabotage::DeafHost) && first == Some(number)
    }

    /// A row appears when nobody looks any more.
    pub(super) fn sabotage_the_end(&mut self) {
        if self.is_sabotaged(Sabotage::StrayRow) {
            self.router.add(MAP_NAME, u32::MAX, [198, 51, 100, 200].into(), [10, 9, 9, 1].into());
        }
    }
}
