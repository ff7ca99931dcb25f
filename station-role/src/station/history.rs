//! What a session's history says of an event, in words.
use branchline_protocol::time::UnixSeconds;

use super::event::{SlotUse, StationEvent};

impl StationEvent {
    /// The line of the session's history, where people should read of it later.
    pub(super) fn history_line(&self) -> Option<(UnixSeconds, String)> {
        let by = |who: &str| if who.is_empty() { String::new() } else { format!(" by {who}") };
        let line = match self {
            Self::Opened { at, by: who, .. } => (at, format!("Opened{}.", by(who))),
            Self::SurveyOpened { at, descriptor, .. } => {
                (at, format!("Survey read: descriptor {}.", descriptor.short()))
            }
            Self::Planned { at, summary, .. } => {
                (at, format!("Plan {} selected: {}.", summary.plan.0.short(), summary.packages.join(", ")))
            }
            Self::Accepted { at, .. } => (at, "The host computed the same plan.".to_owned()),
            Self::Staged { at, .. } => (at, "The host holds all packs.".to_owned()),
            Self::SlotTaken { at, slot: SlotUse::Install, .. } => (at, "Told to install.".to_owned()),
            Self::SlotTaken { at, slot: SlotUse::Verify, .. } => (at, "Told to verify.".to_owned()),
            Self::Installed { at, .. } => (at, "Installed and started.".to_owned()),
            Self::ApprovalAsked { at, .. } => (at, "Headquarters asked for approval.".to_owned()),
            Self::Approved { at, by: who, .. } => (at, format!("Approved{}.", by(who))),
            Self::Delayed { at, by: who, reason, .. } => (at, format!("Delayed{}: {reason}", by(who))),
            Self::DelayExpired { at, .. } => (at, "The delay is over; headquarters is asked again.".to_owned()),
            Self::Moved { at, inside, .. } => (at, format!("Inside address is {inside} now.")),
            Self::InsideTaken { at, by, .. } => {
                (at, format!("{by} reports from its inside address: not mapped there."))
            }
            Self::InsideAnswered { at, link, .. } => {
                (at, format!("The machine with link address {link} answers at its inside address: not mapped there."))
            }
            Self::Mapped { at, mapped, .. } => (at, format!("Mapped to {mapped}.")),
            Self::Unmapped { at, .. } => (at, "Unmapped.".to_owned()),
            Self::Checked { at, faults, .. } => (at, found("Checked from inside", faults)),
            Self::Probed { at, faults, findings, .. } => {
                (at, found("Probed by headquarters", &[&faults[..], findings].concat()))
            }
            Self::Verified { at, .. } => (at, "Verified.".to_owned()),
            Self::VerificationFailed { at, reason, .. } => (at, format!("Verification failed: {reason}")),
            Self::ReportMade { at, .. } => (at, "Report made.".to_owned()),
            Self::AttentionRaised { at, reason, .. } | Self::Suspected { at, reason, .. } => {
                (at, format!("Attention: {reason}"))
            }
            Self::Warned { at, text, .. } => (at, format!("Warning: {text}")),
            Self::WarningsCleared { at, by: who, .. } => (at, format!("Warnings seen{}.", by(who))),
            Self::AttentionCleared { at, by: who, .. } => (at, format!("Continued{}.", by(who))),
            Self::Ended { at, stage, reason, by: who, .. } => (at, format!("{stage:?}{}: {reason}", by(who))),
            Self::Revoked { at, .. } => (at, "Membership revoked.".to_owned()),
            _ => return None,
        };
        Some((*line.0, line.1))
    }
}

fn found(what: &str, faults: &[String]) -> String {
    if faults.is_empty() { format!("{what}: as planned.") } else { format!("{what}: {}", faults.join("; ")) }
}
