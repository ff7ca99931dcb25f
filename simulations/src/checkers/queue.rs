//! The queue is served in its order: priority first, then first come (R22).
use std::{cmp::Reverse, collections::BTreeMap};

use branchline_protocol::{ids::SessionId, session::WaitReason};
use branchline_station_role::station::StationMachine;

use super::{Kind, Violation, ensure};

/// The place that a session deserves: lower is earlier.
type Rank = (Reverse<u32>, u64);

/// One session as the queue sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its priority and when it came.
    pub rank: Rank,
    /// Its place in the queue, where it waits for nothing but a slot.
    pub waits_at: Option<u32>,
    /// Whether it holds a slot.
    pub holds: bool,
}

/// What the queue looked like at the last look.
#[derive(Clone, Debug, Default)]
pub struct QueueWatch {
    before: BTreeMap<SessionId, Place>,
}

/// The queue of a station as it is now.
pub fn places(station: &StationMachine) -> BTreeMap<SessionId, Place> {
    let state = station.state();
    let current = state.hosts.keys().filter_map(|node| state.current(*node));
    current
        .map(|(id, session)| {
            let waits_at = match station.wait_of(id.node) {
                Some(WaitReason::Slots { place, .. }) => Some(*place),
                _ => None,
            };
            let rank = (Reverse(session.priority), session.arrival.0);
            (id, Place { rank, waits_at, holds: session.slot.is_some() })
        })
        .collect()
}

impl QueueWatch {
    /// Begins anew: the station has restarted, or another one took over.
    pub fn forget(&mut self) {
        self.before.clear();
    }

    /// Looks at the queue after each input of the station.
    ///
    /// # Errors
    /// Somebody got a slot ahead of one who had waited for it longer, the places are not those of the order, or more
    /// slots are held than there are.
    pub fn look(&mut self, now: BTreeMap<SessionId, Place>, slots: usize) -> Result<(), Violation> {
        let before = std::mem::replace(&mut self.before, now);
        let now = &self.before;
        let had = |id: &SessionId| before.get(id).is_some_and(|place| place.holds);
        let waited = |id: &SessionId| before.get(id).is_some_and(|place| place.waits_at.is_some());
        let still: Vec<_> = now.iter().filter(|(id, place)| place.waits_at.is_some() && waited(id)).collect();
        for (id, taken) in now.iter().filter(|(id, place)| place.holds && !had(id)) {
            let passed = still.iter().find(|(_, place)| place.rank < taken.rank);
            ensure(Kind::Sessions, "the queue is served in its order", passed.is_none(), || {
                format!("{id} got a slot before {passed:?}")
            })?;
        }
        let mut waiting: Vec<_> = now.values().filter_map(|place| Some((place.rank, place.waits_at?))).collect();
        waiting.sort_unstable();
        let ordered = waiting.iter().zip(1..).all(|((_, place), right)| *place == right);
        ensure(Kind::Sessions, "a host sees its true place", ordered, || format!("{waiting:?}"))?;
        let held = now.values().filter(|place| place.holds).count();
        ensure(Kind::Sessions, "slots are never exceeded", held <= slots, || {
            format!("{held} sessions hold a slot, {slots} may")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use branchline_protocol::ids::NodeId;

    fn queue(places: &[(u8, u64, Option<u32>, bool)]) -> BTreeMap<SessionId, Place> {
        let place = |(node, arrival, waits_at, holds): &(u8, u64, Option<u32>, bool)| {
            let rank = (Reverse(0), *arrival);
            let session = SessionId { node: NodeId([*node; 32]), generation: 1 };
            (session, Place { rank, waits_at: *waits_at, holds: *holds })
        };
        places.iter().map(place).collect()
    }

    #[test]
    fn who_comes_later_and_is_served_first_is_seen() {
        let both_wait = || queue(&[(1, 5, Some(1), false), (2, 6, Some(2), false)]);
        let mut watch = QueueWatch::default();
        assert!(watch.look(both_wait(), 1).is_ok());
        assert!(watch.look(queue(&[(1, 5, None, true), (2, 6, Some(1), false)]), 1).is_ok());
        let mut watch = QueueWatch::default();
        assert!(watch.look(both_wait(), 1).is_ok());
        assert!(watch.look(queue(&[(1, 5, Some(1), false), (2, 6, None, true)]), 1).is_err());
        let mut watch = QueueWatch::default();
        assert!(watch.look(queue(&[(1, 5, Some(2), false), (2, 6, Some(1), false)]), 1).is_err(), "false places");
        assert!(watch.look(queue(&[(1, 5, None, true), (2, 6, None, true)]), 1).is_err(), "two slots of one");
    }
}
