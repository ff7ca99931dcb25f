//! What people may do to a session now. The machine ignores a word that changes nothing; who gave it is told so.
use branchline_protocol::{
    ids::{NodeId, SessionId},
    session::Stage,
};

use super::StationMachine;

/// A person's word to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// End it.
    Cancel,
    /// Clear what needs a person, or begin anew what failed.
    Retry,
    /// Install what the newest documents say.
    Update,
    /// Put it before others in the queue, or behind them.
    Prioritise,
    /// Take the host out.
    Withdraw,
}

impl StationMachine {
    /// Why such a word would change nothing now, and what to do instead; `None` where it takes effect.
    pub fn objection(&self, session: SessionId, steering: Steering) -> Option<String> {
        let state = self.state();
        let (Some(host), Some((current, found))) = (state.hosts.get(&session.node), state.current(session.node)) else {
            return Some("no session of that host is known".to_owned());
        };
        let end = found.end.as_ref().map(|end| end.stage);
        if end == Some(Stage::Withdrawn) {
            return Some(format!("{} is withdrawn; it comes back by joining anew", host.host_name));
        }
        if current != session && matches!(steering, Steering::Cancel | Steering::Retry | Steering::Prioritise) {
            return Some(format!("generation {} is over; the host is at {}", session.generation, current.generation));
        }
        let needs_person = found.attention.is_some() || host.suspect.is_some() || !host.warnings.is_empty();
        match (steering, end) {
            (Steering::Withdraw, _) | (Steering::Cancel | Steering::Prioritise, None) => None,
            (Steering::Cancel, Some(Stage::Complete)) => {
                Some("its session is complete; `branchline sessions withdraw` takes the host out".to_owned())
            }
            (Steering::Cancel | Steering::Prioritise, Some(end)) => {
                Some(format!("its session has ended already: {end:?}"))
            }
            (Steering::Retry, _) if needs_person => None,
            (Steering::Retry, Some(Stage::Complete)) => Some(
                "its session is complete; `branchline sessions update` installs what the catalogue says now".into(),
            ),
            (Steering::Retry, None) => {
                Some("its session goes on by itself; nothing of it waits for a person".to_owned())
            }
            (Steering::Update, None) => Some(
                "its session is not over yet; a new generation begins after it (`branchline sessions cancel` ends it)"
                    .to_owned(),
            ),
            (Steering::Retry | Steering::Update, Some(_)) => self.reverting(session.node),
        }
    }

    /// What to say while a host has yet to put the version before back, as long as that is waited for: a new generation
    /// would take the order's place.
    pub(super) fn reverting(&self, node: NodeId) -> Option<String> {
        let host = self.state().hosts.get(&node)?;
        let (_, session) = self.state().current(node)?;
        let is_waited_for = self.withdrawing.get(&node).is_some_and(Option::is_some);
        let name = &host.host_name;
        (is_waited_for && session.owes_revert(host, &self.setup().policies))
            .then(|| format!("{name} has yet to put the version before back; a new generation begins after that"))
    }
}
