//! How an event changes a host's session, and which work follows from it. Both are total and pure.
use std::collections::BTreeMap;

use super::{
    buffer::EventBuffer,
    dialogue::{HostState, Order},
    state::{HostEvent, HostSession, InstalledPlan, StandingOrder},
};
use crate::{
    ids::{PackId, PlanHash},
    report::EventBody,
    time::UnixSeconds,
};

/// What the host should be doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Survey.
    Survey,
    /// Compute the plan, to see whether it is this one.
    Plan(PlanHash),
    /// Fetch what is missing.
    Fetch(PlanHash),
    /// Begin the installation: the order is journaled, the beginning is not.
    Begin(PlanHash),
    /// Have the installer carry it out, or say how it went.
    Install(PlanHash),
    /// Check from inside.
    Verify(PlanHash),
    /// Keep the report of a complete session.
    Save(PlanHash),
    /// Keep the report of a session without success.
    Keep,
    /// Stop the agent.
    Stop,
    /// Stop it and remove the files.
    Uninstall,
    /// Take the plan back that this generation has installed.
    Revert(PlanHash),
    /// There is nothing of this generation to take back.
    Reverted,
    /// Refuse the order in force.
    Refuse(String),
}

impl HostSession {
    /// A host that has not surveyed itself.
    pub(super) fn new() -> Self {
        Self {
            generation: 1,
            revision: 1,
            state: HostState::Joined,
            survey: None,
            standing: None,
            packs: BTreeMap::new(),
            installed: None,
            answered: false,
            installer_seen: 0,
            moved_to: None,
            events: EventBuffer::default(),
        }
    }

    /// Folds one event.
    pub(super) fn apply(&mut self, event: &HostEvent) {
        match event {
            HostEvent::Directed { generation, epoch, revision, stage, order } => {
                if *generation > self.generation {
                    self.begin_generation(*generation);
                }
                let (epoch, revision, stage, order) = (*epoch, *revision, *stage, order.clone());
                self.standing = Some(StandingOrder { epoch, revision, stage, order });
                self.answered = false;
                self.reset_for_order();
                self.revision += 1;
            }
            HostEvent::Acknowledged { number } => self.events.acknowledge(*number),
            HostEvent::Surveyed { at, sealed, descriptor } => {
                self.survey = Some((*sealed, *descriptor));
                self.answered = true;
                self.enter(*at, HostState::Surveyed, EventBody::Surveyed);
            }
            HostEvent::Agreed { at, plan, packs } => {
                self.packs = packs.iter().map(|pack| (*pack, false)).collect();
                self.enter(*at, HostState::Accepted { plan: *plan }, EventBody::PlanAccepted(*plan));
                self.note_staged();
            }
            HostEvent::Refused { at, reason } => {
                self.answered = true;
                let changes_state = !self.is_installed_in_this_generation();
                if changes_state {
                    self.state = HostState::Refused { reason: reason.clone() };
                }
                self.report(*at, EventBody::Refused(reason.clone()));
            }
            HostEvent::Gathered { at, pack, wan_bytes, lan_bytes } => {
                self.packs.insert(*pack, true);
                let (pack, wan_bytes, lan_bytes) = (*pack, *wan_bytes, *lan_bytes);
                self.report(*at, EventBody::PackComplete { pack, wan_bytes, lan_bytes });
                self.note_staged();
            }
            HostEvent::Began { at, plan } => {
                self.installer_seen = 0;
                let note = EventBody::Note("The installation begins.".to_owned());
                self.enter(*at, HostState::Installing { plan: *plan }, note);
            }
            HostEvent::Noted { at, number, body } => {
                self.installer_seen = self.installer_seen.max(*number);
                self.report(*at, body.clone());
            }
            HostEvent::Cut { number, bytes } => {
                self.installer_seen = self.installer_seen.max(*number);
                self.events.cut(*bytes);
            }
            HostEvent::Installed { at, plan, images } => {
                let (plan, images) = (*plan, images.clone());
                self.installed = Some(InstalledPlan { generation: self.generation, plan, images: images.clone() });
                let body = EventBody::Installed { plan, images: images.clone() };
                self.enter(*at, HostState::Installed { plan, images }, body);
            }
            HostEvent::InstallFailed { at, reason, rolled_back } => {
                let (reason, rolled_back) = (reason.clone(), *rolled_back);
                let body = EventBody::InstallFailed { reason: reason.clone(), rolled_back };
                self.enter(*at, HostState::Failed { reason, rolled_back }, body);
            }
            HostEvent::Checked { at, plan, checks } => {
                let faults: Vec<String> = checks
                    .iter()
                    .filter_map(|(check, fault)| fault.as_ref().map(|fault| format!("{check}: {fault}")))
                    .collect();
                let passed = faults.is_empty() && !checks.is_empty();
                self.answered = true;
                let state = HostState::Checked { plan: *plan, passed, faults };
                self.enter(*at, state, EventBody::Checked { checks: checks.clone() });
            }
            HostEvent::Completed { at, plan } => {
                self.answered = true;
                let note = EventBody::Note("The report is kept on this host.".to_owned());
                self.enter(*at, HostState::Complete { plan: *plan }, note);
            }
            HostEvent::ReportKept { at } => {
                self.answered = true;
                self.report(*at, EventBody::Note("The report is kept on this host.".to_owned()));
            }
            HostEvent::Withdrawn { at, uninstalled } => {
                if *uninstalled {
                    self.installed = None;
                }
                self.answered = true;
                let uninstalled = *uninstalled;
                self.enter(*at, HostState::Withdrawn { uninstalled }, EventBody::Withdrawn { uninstalled });
            }
            HostEvent::Reverted { at, reason, installed, rolled_back } => {
                let generation = self.generation.saturating_sub(1);
                let earlier = installed.clone();
                self.installed = earlier.map(|(plan, images)| InstalledPlan { generation, plan, images });
                self.answered = true;
                let (reason, rolled_back) = (reason.clone(), *rolled_back);
                let body = EventBody::InstallFailed { reason: reason.clone(), rolled_back };
                self.enter(*at, HostState::Failed { reason, rolled_back }, body);
            }
            HostEvent::Moved { at, inside } => {
                self.moved_to = Some(*inside);
                self.report(*at, EventBody::Note(format!("The inside address is {inside} now.")));
            }
        }
    }

    /// A new generation keeps what is installed and what the station has not got yet, and nothing else (R97).
    fn begin_generation(&mut self, generation: u32) {
        self.generation = generation;
        self.state = HostState::Joined;
        self.survey = None;
        self.packs.clear();
        self.events.renumber();
    }

    /// Some orders ask for something again: the state goes back to where it was before.
    fn reset_for_order(&mut self) {
        let Some(standing) = &self.standing else { return };
        match (&standing.order, &self.state) {
            (Order::Survey, state) if !is_past_staging(state) => {
                self.state = HostState::Joined;
                self.packs.clear();
            }
            (Order::Prepare { .. }, HostState::Refused { .. }) if self.survey.is_some() => {
                self.state = HostState::Surveyed;
            }
            (Order::Verify { plan }, HostState::Checked { .. } | HostState::Complete { .. }) => {
                if let Some(installed) = self.installed.as_ref().filter(|installed| installed.plan == *plan) {
                    self.state = HostState::Installed { plan: *plan, images: installed.images.clone() };
                }
            }
            _ => {}
        }
    }

    fn enter(&mut self, at: UnixSeconds, state: HostState, body: EventBody) {
        self.state = state;
        self.report(at, body);
    }

    fn report(&mut self, at: UnixSeconds, body: EventBody) {
        self.events.push(at, body);
        self.revision += 1;
    }

    fn note_staged(&mut self) {
        if let HostState::Accepted { plan } = self.state
            && self.packs.values().all(|complete| *complete)
        {
            self.state = HostState::Staged { plan };
        }
    }

    /// The packs of the accepted plan that are missing.
    pub(super) fn missing_packs(&self) -> Vec<PackId> {
        self.packs.iter().filter(|(_, complete)| !**complete).map(|(pack, _)| *pack).collect()
    }

    pub(super) fn is_installed_in_this_generation(&self) -> bool {
        self.installed.as_ref().is_some_and(|installed| installed.generation == self.generation)
    }

    /// What follows from the order in force and from where the host is; `None` where there is nothing to do.
    pub(super) fn work(&self) -> Option<Work> {
        // An installation is finished whatever else is ordered meanwhile: half of it would be neither old nor new.
        if let HostState::Installing { plan } = self.state {
            return Some(Work::Install(plan));
        }
        let order = &self.standing.as_ref()?.order;
        let refuse = |reason: String| (!self.answered).then_some(Work::Refuse(reason));
        match (order, &self.state) {
            (Order::Wait(_), HostState::Accepted { plan }) => Some(Work::Fetch(*plan)),
            (Order::Wait(_) | Order::End { .. }, _) => None,
            (Order::Survey, HostState::Joined) => Some(Work::Survey),
            (Order::Survey, HostState::Surveyed) => None,
            (Order::Survey, state) => refuse(format!("a survey is ordered, but this host {}", words(state))),
            (Order::Prepare { plan, .. }, state) => match plan_of(state) {
                Some(own) if own == *plan => match state {
                    HostState::Accepted { .. } => Some(Work::Fetch(own)),
                    _ => None,
                },
                _ if is_past_staging(state) || self.survey.is_none() => {
                    refuse(format!("plan {} is ordered, but this host {}", plan.0.short(), words(state)))
                }
                _ if self.answered => None,
                _ => Some(Work::Plan(*plan)),
            },
            (Order::Install { plan }, state) => match state {
                HostState::Staged { plan: own } if own == plan => Some(Work::Begin(*plan)),
                HostState::Accepted { plan: own } if own == plan => Some(Work::Fetch(*plan)),
                state if plan_of(state) == Some(*plan) => None,
                HostState::Failed { .. } => None,
                state => refuse(format!(
                    "the installation of plan {} is ordered, but this host {}",
                    plan.0.short(),
                    words(state)
                )),
            },
            (Order::Verify { plan }, HostState::Installed { plan: own, .. }) if own == plan => {
                Some(Work::Verify(*plan))
            }
            (Order::Verify { plan }, HostState::Checked { plan: own, .. }) if own == plan => None,
            (Order::Verify { plan }, state) => {
                refuse(format!("a check of plan {} is ordered, but this host {}", plan.0.short(), words(state)))
            }
            (
                Order::Complete { plan, .. },
                HostState::Installed { plan: own, .. } | HostState::Checked { plan: own, .. },
            ) if own == plan => Some(Work::Save(*plan)),
            (Order::Complete { plan, .. }, HostState::Complete { plan: own }) if own == plan => {
                (!self.answered).then_some(Work::Save(*plan))
            }
            (Order::Complete { plan, .. }, state) => {
                refuse(format!("plan {} is called complete, but this host {}", plan.0.short(), words(state)))
            }
            (Order::Keep { .. }, _) => (!self.answered).then_some(Work::Keep),
            (Order::Stop { .. }, HostState::Withdrawn { .. }) => None,
            (Order::Stop { .. }, _) => Some(Work::Stop),
            (Order::Revert { .. }, HostState::Failed { .. }) => None,
            (Order::Revert { .. }, _) => match &self.installed {
                Some(installed) if installed.generation == self.generation => Some(Work::Revert(installed.plan)),
                _ => Some(Work::Reverted),
            },
            (Order::Uninstall { .. }, HostState::Withdrawn { uninstalled: true }) => None,
            (Order::Uninstall { .. }, _) => Some(Work::Uninstall),
        }
    }
}

/// The plan that the host carries out or has carried out.
pub(super) fn plan_of(state: &HostState) -> Option<PlanHash> {
    match state {
        HostState::Accepted { plan }
        | HostState::Staged { plan }
        | HostState::Installing { plan }
        | HostState::Installed { plan, .. }
        | HostState::Checked { plan, .. }
        | HostState::Complete { plan } => Some(*plan),
        HostState::Joined
        | HostState::Surveyed
        | HostState::Refused { .. }
        | HostState::Failed { .. }
        | HostState::Withdrawn { .. } => None,
    }
}

/// Whether the host has begun to change itself in this generation.
fn is_past_staging(state: &HostState) -> bool {
    matches!(
        state,
        HostState::Installing { .. }
            | HostState::Installed { .. }
            | HostState::Checked { .. }
            | HostState::Complete { .. }
            | HostState::Failed { .. }
            | HostState::Withdrawn { .. }
    )
}

/// Where the host is, as the end of a sentence.
pub(super) fn words(state: &HostState) -> String {
    match state {
        HostState::Joined => "has not surveyed itself yet".to_owned(),
        HostState::Surveyed => "has only surveyed itself".to_owned(),
        HostState::Accepted { plan } => format!("gathers the packs of plan {}", plan.0.short()),
        HostState::Staged { plan } => format!("holds the packs of plan {}", plan.0.short()),
        HostState::Installing { plan } => format!("installs plan {}", plan.0.short()),
        HostState::Installed { plan, .. } => format!("has installed plan {}", plan.0.short()),
        HostState::Checked { plan, .. } => format!("has checked plan {}", plan.0.short()),
        HostState::Complete { plan } => format!("has completed plan {}", plan.0.short()),
        HostState::Refused { reason } => format!("has refused: {reason}"),
        HostState::Failed { reason, .. } => format!("has failed: {reason}"),
        HostState::Withdrawn { .. } => "is withdrawn".to_owned(),
    }
}
