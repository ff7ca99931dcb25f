//! What follows from the facts of a session: its stage, the order to its host, and the next event. Pure.
use std::net::Ipv4Addr;

use branchline_protocol::{
    charter::{DeniedAction, SitePolicies},
    ids::PlanHash,
    session::{HostState, Order, Stage, WaitReason},
};

use super::{
    state::{ApprovalState, Host, Session, SlotUse},
    words::PlanSummary,
};

/// What a session's order depends on besides its own facts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    /// The site's standing rules.
    pub policies: &'a SitePolicies,
    /// Why it gets no slot, where it waits for one.
    pub wait: Option<&'a WaitReason>,
    /// What keeps the router from being programmed.
    pub router_trouble: Option<&'a str>,
    /// Whether hosts wait because no address is free.
    pub addresses_short: bool,
}

impl Session {
    /// The plan's hash, once there is a plan.
    pub fn plan_hash(&self) -> Option<PlanHash> {
        self.plan.as_ref().map(|plan| plan.plan)
    }

    /// Whether headquarters has approved.
    pub fn is_approved(&self) -> bool {
        matches!(self.approval, ApprovalState::Approved { .. })
    }

    /// Whether the approval comes before the installation: by policy (R90a), and for every update, so that a refused
    /// one leaves the old version running (R97).
    pub fn asks_first(&self, policies: &SitePolicies) -> bool {
        policies.approve_before_installation || self.is_update
    }

    /// Whether headquarters must decide before anything else can happen.
    pub fn wants_approval(&self, host: &Host, policies: &SitePolicies) -> bool {
        self.is_live(host)
            && self.staged
            && !self.is_approved()
            && (self.installed || (self.asks_first(policies) && !self.begun))
    }

    /// Whether nothing stands in the way but the session's own course.
    pub fn is_live(&self, host: &Host) -> bool {
        self.end.is_none() && self.attention.is_none() && host.suspect.is_none()
    }

    /// What it could use a slot for now (R22).
    pub(super) fn wants_slot(&self, host: &Host, policies: &SitePolicies) -> Option<SlotUse> {
        if !self.is_live(host) || self.slot.is_some() || !self.staged {
            return None;
        }
        if !self.installed {
            let may = !self.begun && (self.is_approved() || !self.asks_first(policies));
            return may.then_some(SlotUse::Install);
        }
        let mapped = host.mapped.is_some() && self.is_approved();
        (mapped && !self.verified && self.checked.is_none()).then_some(SlotUse::Verify)
    }

    /// Whether its agent is being changed: other members of its group wait meanwhile (R5).
    pub(super) fn occupies_group(&self) -> bool {
        let over = match self.end.as_ref().map(|end| end.stage) {
            None => false,
            // What could not be put back needs a person before the next member is touched.
            Some(Stage::Failed) => false,
            Some(Stage::RolledBack) if self.is_half_reverted() => false,
            Some(_) => true,
        };
        self.begun && !self.verified && !over
    }

    /// Whether an update was taken back on order, and not everything could be put back.
    pub(super) fn is_half_reverted(&self) -> bool {
        let is_rolled_back = self.end.as_ref().is_some_and(|end| end.stage == Stage::RolledBack);
        is_rolled_back && self.installed && matches!(self.host_state, HostState::Failed { rolled_back: false, .. })
    }

    /// Whether the host of a session that is over has yet to put the version before back.
    pub(super) fn owes_revert(&self, host: &Host, policies: &SitePolicies) -> bool {
        self.end.is_some() && matches!(self.last_order(host, policies), Order::Revert { .. })
    }

    /// Whether headquarters should probe the mapped address.
    pub fn wants_probe(&self, host: &Host) -> bool {
        let trying = self.slot == Some(SlotUse::Verify) || self.checked.as_ref().is_some_and(Vec::is_empty);
        self.is_live(host) && trying && self.probed.is_none() && !self.verified && host.mapped.is_some()
    }

    /// Where the session stands.
    pub(super) fn stage(&self, host: &Host, policies: &SitePolicies) -> Stage {
        match &self.end {
            Some(end) if end.stage != Stage::Complete => return end.stage,
            _ if self.attention.is_some() || host.suspect.is_some() => return Stage::Attention,
            Some(end) => return end.stage,
            None => {}
        }
        if self.descriptor.is_none() {
            return Stage::Open;
        }
        match (&self.plan, self.accepted, self.staged) {
            (None, _, _) => return Stage::Surveyed,
            (Some(_), false, _) => return Stage::Selected,
            (Some(_), true, false) => return Stage::Spreading,
            (Some(_), true, true) => {}
        }
        if self.slot == Some(SlotUse::Install) {
            return Stage::Installing;
        }
        if self.wants_approval(host, policies) {
            return match (&self.approval, self.asked_at) {
                (ApprovalState::Delayed { .. }, _) => Stage::Delayed,
                (_, None) if self.installed => Stage::Installed,
                _ => Stage::AwaitingApproval,
            };
        }
        if !self.installed {
            return Stage::Queued;
        }
        if self.verified {
            return Stage::Verified;
        }
        match (host.mapped, self.wants_slot(host, policies)) {
            (None, _) => Stage::Approved,
            (Some(_), Some(_)) => Stage::Queued,
            (Some(_), None) => Stage::Mapped,
        }
    }

    /// What the host should do.
    pub(super) fn order(&self, host: &Host, around: Surroundings<'_>) -> Order {
        if let Some(end) = &self.end
            && (end.stage != Stage::Complete || host.suspect.is_none() && self.attention.is_none())
        {
            return self.last_order(host, around.policies);
        }
        if let Some(reason) = host.suspect.as_ref().or(self.attention.as_ref()) {
            return Order::Wait(WaitReason::Attention(reason.clone()));
        }
        let wait_slot = || Order::Wait(around.wait.cloned().unwrap_or(WaitReason::Slots { place: 1, limit: 1 }));
        match (self.stage(host, around.policies), &self.plan) {
            (Stage::Open, _) if self.survey.is_some() && !self.survey_again => Order::Wait(WaitReason::Survey),
            (Stage::Open, _) => Order::Survey,
            (Stage::Selected | Stage::Spreading, Some(plan)) => self.preparation(plan),
            (Stage::Installing, Some(plan)) => Order::Install { plan: plan.plan },
            (Stage::Queued, _) => wait_slot(),
            (Stage::Installed | Stage::AwaitingApproval, _) => Order::Wait(WaitReason::Approval),
            (Stage::Delayed, _) => Order::Wait(self.delay()),
            (Stage::Approved, _) if around.addresses_short => Order::Wait(WaitReason::Address),
            (Stage::Approved, _) => {
                Order::Wait(WaitReason::Router(around.router_trouble.unwrap_or_default().to_owned()))
            }
            (Stage::Mapped, Some(plan)) if self.slot == Some(SlotUse::Verify) => Order::Verify { plan: plan.plan },
            (Stage::Mapped | Stage::Verified, _) => Order::Wait(WaitReason::Probe),
            _ => Order::Wait(WaitReason::Survey),
        }
    }

    fn preparation(&self, plan: &PlanSummary) -> Order {
        let Some(descriptor) = self.descriptor else { return Order::Wait(WaitReason::Survey) };
        let PlanSummary { plan, catalogue, policy, packs, .. } = plan;
        Order::Prepare { plan: *plan, catalogue: *catalogue, policy: *policy, descriptor, packs: packs.clone() }
    }

    fn delay(&self) -> WaitReason {
        match &self.approval {
            ApprovalState::Delayed { reason, until, .. } => {
                WaitReason::Delayed { reason: reason.clone(), until: *until }
            }
            _ => WaitReason::Approval,
        }
    }

    /// Whether it ended in a way that has a report of its own (R85, R92): any end but success, and withdrawal, which
    /// leaves the report of the success.
    pub(super) fn is_without_success(&self) -> bool {
        use Stage::{Cancelled, Denied, Failed, Refused, RolledBack};
        self.end.as_ref().is_some_and(|end| matches!(end.stage, Denied | Refused | RolledBack | Failed | Cancelled))
    }

    /// Whether the host of a session that is over still has to confirm something.
    pub(super) fn owes_confirmation(&self, host: &Host, policies: &SitePolicies) -> bool {
        let owed = |order: Order| matches!(order, Order::Stop { .. } | Order::Uninstall { .. } | Order::Revert { .. });
        self.end.is_some() && owed(self.last_order(host, policies))
    }

    /// What is left to do for the host of a session that is over.
    fn last_order(&self, host: &Host, policies: &SitePolicies) -> Order {
        let Some(end) = &self.end else { return Order::Wait(WaitReason::Survey) };
        let reason = if end.by.is_empty() { end.reason.clone() } else { format!("{} ({})", end.reason, end.by) };
        let touched = self.begun && !self.is_update;
        let stopped = matches!(self.host_state, HostState::Withdrawn { .. });
        let uninstalled = matches!(self.host_state, HostState::Withdrawn { uninstalled: true });
        let reverted = matches!(self.host_state, HostState::Failed { .. });
        match (end.stage, policies.on_denied) {
            (Stage::Complete, _) => self.completion(host).unwrap_or(Order::End { reason }),
            (Stage::Withdrawn, _) if !uninstalled => Order::Uninstall { reason },
            (Stage::Denied, DeniedAction::Uninstall) if touched && !uninstalled => Order::Uninstall { reason },
            // What failed while it was installed has been put back already; this one was installed and not verified.
            (Stage::RolledBack, _) if self.installed && touched && !uninstalled => Order::Uninstall { reason },
            (Stage::RolledBack, _) if self.installed && self.is_update && !reverted => Order::Revert { reason },
            (Stage::Denied, DeniedAction::Stop) | (Stage::Cancelled, _) if touched && !stopped => {
                Order::Stop { reason }
            }
            _ => match self.html.clone().filter(|_| self.is_without_success()) {
                Some(report_html) => Order::Keep { reason, report_html },
                None => Order::End { reason },
            },
        }
    }

    /// The report goes to the host until the host says that it keeps it.
    fn completion(&self, host: &Host) -> Option<Order> {
        if matches!(self.host_state, HostState::Complete { .. }) {
            return None;
        }
        let (plan, mapped): (PlanHash, Ipv4Addr) = (self.plan_hash()?, host.mapped?);
        Some(Order::Complete { plan, mapped, report_html: self.html.clone()? })
    }
}
