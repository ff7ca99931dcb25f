//! One update at the crossing desk.
use branchline_protocol::{catalogue::UpdateTravel, ids::PackId, time::Monotonic};

use super::{
    waits::Unmet,
    words::{Crossing, CrossingNews, PatchFrom},
};

/// How far the search for a base is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nobody has wanted it yet.
    Open,
    /// The station's own store is asked.
    Looking { until: Monotonic },
    /// The members are asked for the base of the patch at this place; `None`: not before the members had time to come.
    Asking { index: usize, until: Option<Monotonic> },
    /// Decided. In `patch`, the whole pack must wait until then.
    Decided { crossing: Crossing, until: Monotonic },
    /// Nothing crosses; from then on a wish leads to another search.
    Nothing { again_at: Monotonic },
}

#[derive(Clone, Debug)]
pub(super) struct Update {
    pub(super) travel: UpdateTravel,
    /// The shortest first.
    pub(super) patches: Vec<PatchFrom>,
    pub(super) progress: Progress,
    /// The wishes that came to nothing.
    pub(super) unmet: Option<Unmet>,
    /// People were told that nothing moves.
    pub(super) told: bool,
}

impl Update {
    /// Whether a wish for this encoding comes to nothing or must wait, as things stand.
    pub(super) fn leaves_unmet(&self, target: PackId, asked: PackId) -> bool {
        match self.progress {
            Progress::Decided { crossing: Crossing::Whole, .. } => false,
            Progress::Decided { crossing: Crossing::Patch { .. }, .. } => asked == target,
            _ => true,
        }
    }

    pub(super) fn somebody_waits(&self, now: Monotonic) -> bool {
        self.unmet.is_some_and(|unmet| unmet.waits(now))
    }

    /// What people should know if somebody waits.
    pub(super) fn difficulty(&self, now: Monotonic) -> Option<CrossingNews> {
        match self.progress {
            Progress::Nothing { .. } => Some(CrossingNews::NoBase),
            Progress::Decided { crossing: Crossing::Patch { .. }, until } => {
                (self.travel == UpdateTravel::PatchOnly && until <= now).then_some(CrossingNews::Stuck)
            }
            _ => None,
        }
    }

    /// When what people were told is over, if no wish comes. While a base is looked for, wishes wait unanswered.
    pub(super) fn silent_at(&self) -> Option<Monotonic> {
        let looks = matches!(self.progress, Progress::Looking { .. } | Progress::Asking { .. });
        self.unmet.filter(|_| self.told && !looks).map(|unmet| unmet.gone_at())
    }
}
