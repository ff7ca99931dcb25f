//! What people on a host read of orders and waits.
use super::dialogue::{Order, WaitReason};

/// What the host's operator reads when an order arrives (R22, R83).
pub(super) fn order_text(order: &Order) -> String {
    match order {
        Order::Wait(reason) => wait_text(reason),
        Order::Survey => "The station asks for a survey.".to_owned(),
        Order::Prepare { plan, packs, .. } => {
            format!("The station selected plan {} with {} packs.", plan.0.short(), packs.len())
        }
        Order::Install { plan } => format!("The station says: install plan {}.", plan.0.short()),
        Order::Verify { plan } => format!("The station says: check plan {}.", plan.0.short()),
        Order::Complete { mapped, .. } => format!("Complete: monitored at {mapped}."),
        Order::Stop { reason } => format!("The agent is stopped: {reason}"),
        Order::Uninstall { reason } => format!("The agent is removed: {reason}"),
        Order::Revert { reason } => format!("The version before is put back: {reason}"),
        Order::End { reason } | Order::Keep { reason, .. } => format!("The session is over: {reason}"),
    }
}

/// Why a host waits, in words.
pub fn wait_text(reason: &WaitReason) -> String {
    match reason {
        WaitReason::Slots { place, limit } => {
            format!("Waiting: place {place} in the queue; {limit} sessions may run at once.")
        }
        WaitReason::Survey => "Waiting: the station reads the survey.".to_owned(),
        WaitReason::Approval => "Waiting: headquarters has not decided yet.".to_owned(),
        WaitReason::Delayed { reason, until: None } => format!("Waiting: headquarters delays ({reason})."),
        WaitReason::Delayed { reason, until: Some(until) } => {
            format!("Waiting: headquarters delays until {} s after 1970 ({reason}).", until.0)
        }
        WaitReason::Address => "Waiting: no mapped address is free; more were asked for.".to_owned(),
        WaitReason::Router(text) => format!("Waiting: the router is being programmed. {text}"),
        WaitReason::Probe => "Waiting: headquarters probes the mapped address.".to_owned(),
        WaitReason::Attention(text) => format!("Waiting for a person: {text}"),
        WaitReason::Group { member } => {
            format!("Waiting: {member} of the same cluster is under way; one member is changed at a time.")
        }
    }
}
