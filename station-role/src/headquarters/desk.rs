//! The desk: which requests wait, and what was decided about them (R30, R90-R92, R96).
use std::collections::BTreeMap;

use branchline_protocol::{
    charter::{Approval, Decision, Signed},
    ids::{Epoch, ImageId, PlanHash, SessionId, SiteName},
    time::UnixSeconds,
    wire::site::ApprovalRequest,
};
use serde::{Deserialize, Serialize};

use super::configuration::{ApprovalRule, RuleAction};

/// What a decision holds for, besides site and session (R96). Another binding needs another decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The images that were installed.
    pub images: Vec<ImageId>,
    /// The plan that was carried out.
    pub plan: PlanHash,
    /// The epoch of the station that asked.
    pub epoch: Epoch,
}

impl Binding {
    /// What a request asks to approve.
    pub fn of_request(request: &ApprovalRequest) -> Self {
        Self { images: request.images.clone(), plan: request.plan, epoch: request.epoch }
    }

    /// What an approval approves.
    pub fn of_approval(approval: &Approval) -> Self {
        Self { images: approval.images.clone(), plan: approval.plan, epoch: approval.epoch }
    }
}

/// A decision and, once the runtime has signed it, the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is signed.
    pub approval: Approval,
    /// The signed form.
    pub signed: Option<Signed<Approval>>,
}

/// The newest request of a session and what was decided about exactly this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docket {
    /// What was asked.
    pub request: ApprovalRequest,
    /// What was decided; `None` while it waits for a person.
    pub verdict: Option<Verdict>,
    /// A delay ran out: only a person decides from now on (R91).
    pub delay_expired: bool,
}

impl Docket {
    /// Whether the host is approved in this binding.
    pub fn is_approved(&self) -> bool {
        matches!(&self.verdict, Some(verdict) if verdict.approval.decision == Decision::Approve)
    }

    /// The time at which a delay asks again, where there is one.
    pub fn asks_again_at(&self) -> Option<UnixSeconds> {
        match &self.verdict.as_ref()?.approval.decision {
            Decision::Delay { until, .. } => *until,
            _ => None,
        }
    }

    /// Whether a person may still decide: nothing decided yet, or only delayed.
    pub fn is_open(&self) -> bool {
        self.verdict.as_ref().is_none_or(|verdict| matches!(verdict.approval.decision, Decision::Delay { .. }))
    }
}

/// What a repeated or new request means for a docket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filing {
    /// The very request that is on file.
    Known,
    /// Another binding: file it, whatever was decided about the older one does not hold for it.
    New,
    /// Older than the one on file: a message that was late.
    Late,
}

/// All requests of one site, one docket per session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desk {
    dockets: BTreeMap<SessionId, Docket>,
}

impl Desk {
    /// The docket of a session.
    pub fn docket(&self, session: SessionId) -> Option<&Docket> {
        self.dockets.get(&session)
    }

    /// The docket of a session, to change it in the fold.
    pub(super) fn docket_mut(&mut self, session: SessionId) -> Option<&mut Docket> {
        self.dockets.get_mut(&session)
    }

    /// All dockets in order of session.
    pub fn dockets(&self) -> impl Iterator<Item = (SessionId, &Docket)> {
        self.dockets.iter().map(|(session, docket)| (*session, docket))
    }

    /// How many sessions have a docket.
    pub fn len(&self) -> usize {
        self.dockets.len()
    }

    /// Whether nothing was ever asked.
    pub fn is_empty(&self) -> bool {
        self.dockets.is_empty()
    }

    /// What `request` means for what is on file.
    pub fn filing(&self, request: &ApprovalRequest) -> Filing {
        let Some(docket) = self.dockets.get(&request.session) else { return Filing::New };
        let known = &docket.request;
        if Binding::of_request(known) == Binding::of_request(request) {
            return Filing::Known;
        }
        if (request.epoch, request.asked_at) < (known.epoch, known.asked_at) { Filing::Late } else { Filing::New }
    }

    /// Puts a request on file; an older request of the session and its decision are dropped.
    pub(super) fn file(&mut self, request: ApprovalRequest) {
        let docket = Docket { request, verdict: None, delay_expired: false };
        self.dockets.insert(docket.request.session, docket);
    }

    /// The signed decision about exactly this request, if there is one.
    pub fn answer(&self, request: &ApprovalRequest) -> Option<&Signed<Approval>> {
        let verdict = self.dockets.get(&request.session)?.verdict.as_ref()?;
        let same = Binding::of_approval(&verdict.approval) == Binding::of_request(request);
        verdict.signed.as_ref().filter(|_| same)
    }
}

/// The document that decides a request.
pub fn approval_of(
    site: &SiteName,
    request: &ApprovalRequest,
    decision: Decision,
    decided_by: String,
    decided_at: UnixSeconds,
) -> Approval {
    Approval {
        site: site.clone(),
        session: request.session,
        images: request.images.clone(),
        plan: request.plan,
        epoch: request.epoch,
        decision,
        decided_by,
        decided_at,
    }
}

/// The decision of the first rule that matches, and who it is by.
pub fn decide_by_rule(
    rules: &[ApprovalRule],
    site: &SiteName,
    request: &ApprovalRequest,
    wall: UnixSeconds,
) -> Option<(Decision, String)> {
    let rule = rules.iter().find(|rule| rule.matches(site, request))?;
    let decision = match &rule.action {
        RuleAction::Approve => Decision::Approve,
        RuleAction::Deny { reason } => Decision::Deny { reason: reason.clone() },
        RuleAction::Delay { reason, seconds } => {
            Decision::Delay { reason: reason.clone(), until: seconds.map(|seconds| wall.after(seconds)) }
        }
    };
    Some((decision, format!("rule:{}", rule.name)))
}
