//! Whether somebody waits for an update that does not cross: nothing else is said to people, and for nothing else is the
//! decision given up. A newcomer wishes once or twice before its neighbours have shown it that they hold the pack.
use std::time::Duration;

use branchline_protocol::{ids::NodeId, time::Monotonic};

/// For so long the wishes of a node come to nothing before it counts as waiting: it wishes every two seconds, and has met
/// its neighbours by then.
const WAITS_AFTER: Duration = Duration::from_secs(10);
/// The longest pause between two wishes of a node that waits: twice what a node leaves that gets on.
const PAUSE_MAX: Duration = Duration::from_secs(32);
/// How long after the last wish nobody waits any more. A search for a base, in which wishes are not answered, may end
/// later than that; it is not broken off.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// The wishes of one node for one update that came to nothing, without a long pause between two of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unmet {
    node: NodeId,
    since: Monotonic,
    last: Monotonic,
}

impl Unmet {
    /// One more such wish. Of several nodes that wish the first is followed, and the next one once it has stopped.
    pub(super) fn another(before: Option<Self>, now: Monotonic, node: NodeId) -> Self {
        match before {
            Some(run) if run.last.after(PAUSE_MAX) < now => Self { node, since: now, last: now },
            Some(run) if run.node == node => Self { last: now, ..run },
            Some(run) => run,
            None => Self { node, since: now, last: now },
        }
    }

    /// Whether that is more than a newcomer's first wishes, and still so.
    pub(super) fn waits(&self, now: Monotonic) -> bool {
        self.since.after(WAITS_AFTER) <= self.last && now <= self.last.after(PAUSE_MAX)
    }

    /// When nobody waits any more, if no wish comes.
    pub(super) fn gone_at(&self) -> Monotonic {
        self.last.after(GONE_AFTER)
    }
}
