//! Nothing is mapped, complete or a target without an approval that is bound to it (R90, R96).
use branchline_protocol::{
    charter::Decision,
    ids::{NodeId, PlanHash},
    machine::Record,
};
use branchline_station_role::headquarters::HeadquartersEvent;

use super::{Violation, ensure};

/// Headquarters' durable journal holds a signed approval of this host for this plan.
///
/// # Errors
/// It does not.
pub fn is_approved(
    what: &str,
    node: NodeId,
    plan: PlanHash,
    journal: &[Record<HeadquartersEvent>],
) -> Result<(), Violation> {
    let approves = |record: &Record<HeadquartersEvent>| match &record.event {
        HeadquartersEvent::ApprovalSigned { approval, .. } => {
            approval.session.node == node && approval.plan == plan && approval.decision == Decision::Approve
        }
        _ => false,
    };
    ensure("nothing passes without a bound approval", journal.iter().any(approves), || {
        format!("{node} is {what} with plan {plan}, which headquarters never approved")
    })
}
