//! Nothing is mapped, complete or a target without an approval that is bound to it (R90, R96).
use std::collections::BTreeSet;

use branchline_protocol::{
    charter::Decision,
    ids::{ImageId, NodeId, PlanHash},
    machine::Record,
};
use branchline_station_role::headquarters::HeadquartersEvent;

use super::{Kind, Violation, ensure};

/// Headquarters' durable journal holds a signed approval of this host for one of these plans, with exactly the plan's
/// images.
///
/// # Errors
/// It does not.
pub fn is_approved(
    what: &str,
    node: NodeId,
    plans: &[(PlanHash, BTreeSet<ImageId>)],
    journal: &[Record<HeadquartersEvent>],
) -> Result<(), Violation> {
    let approves = |record: &Record<HeadquartersEvent>| match &record.event {
        HeadquartersEvent::ApprovalSigned { approval, .. } => {
            let for_host = approval.session.node == node && approval.decision == Decision::Approve;
            let images: BTreeSet<ImageId> = approval.images.iter().copied().collect();
            for_host && plans.iter().any(|(plan, wanted)| approval.plan == *plan && images == *wanted)
        }
        _ => false,
    };
    ensure(Kind::Approvals, "nothing passes without a bound approval", journal.iter().any(approves), || {
        let plans: Vec<_> = plans.iter().map(|(plan, _)| plan.0.short()).collect();
        format!("{node} is {what} with plan {}, which headquarters never approved", plans.join(" or "))
    })
}
