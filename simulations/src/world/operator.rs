//! People: they decide after a while, and try again what failed.
use std::{collections::BTreeSet, time::Duration};

use branchline_protocol::{charter::Decision, ids::SessionId, time::Now};
use branchline_station_role::headquarters::view::ApprovalView;

use super::chance::Chance;

/// How people behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorHabits {
    /// Between two looks at what waits.
    pub looks_every: Duration,
    /// Requests that are delayed at first, in thousandths.
    pub delays_per_mille: u32,
    /// How long such a delay lasts, in seconds.
    pub delay_seconds: u64,
    /// Requests that are decided at one look, in thousandths.
    pub decides_per_mille: u32,
}

/// An approver at headquarters.
#[derive(Clone, Debug, Default)]
pub struct Approver {
    delayed: BTreeSet<SessionId>,
}

impl Approver {
    /// What the approver decides at one look. Hosts in `denied` are denied, everyone else approved in the end.
    pub fn look(
        &mut self,
        now: Now,
        pending: &[ApprovalView],
        denied: &BTreeSet<SessionId>,
        habits: &OperatorHabits,
        chance: &mut Chance,
    ) -> Vec<(SessionId, Decision)> {
        let mut decisions = Vec::new();
        for view in pending {
            if !chance.happens(habits.decides_per_mille) {
                continue;
            }
            let session = view.session;
            let decision = if denied.contains(&session) {
                Decision::Deny { reason: "not ours".into() }
            } else if !self.delayed.contains(&session) && chance.happens(habits.delays_per_mille) {
                self.delayed.insert(session);
                Decision::Delay { reason: "after the shift".into(), until: Some(now.wall.after(habits.delay_seconds)) }
            } else {
                Decision::Approve
            };
            decisions.push((session, decision));
        }
        decisions
    }
}
