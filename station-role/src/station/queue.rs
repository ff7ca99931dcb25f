//! Slots: who may change itself now, and what the others wait for (R5, R22).
use std::collections::{BTreeMap, BTreeSet};

use branchline_protocol::{
    ids::{NodeId, SessionId},
    session::WaitReason,
    time::Now,
};

use super::{
    machine::StationMachine,
    state::{Session, SlotUse, StationEvent},
};

/// One session that waits for a slot. The order of the fields is the order of the queue: priority, then first come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    priority: std::cmp::Reverse<u32>,
    arrival: u64,
    session: SessionId,
}

impl StationMachine {
    /// How many slots are held.
    pub fn slots_held(&self) -> u32 {
        let held = self.state.sessions.values().filter(|session| session.slot.is_some()).count();
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    /// Gives out free slots and says to everyone else why it waits.
    pub(super) fn serve_queue(&mut self, now: Now) {
        let limit = self.setup.limits.sessions_max;
        let mut free = limit.saturating_sub(self.slots_held());
        let mut groups = self.groups_under_way();
        let mut waits = BTreeMap::new();
        let mut place = 0;
        for (waiting, slot) in self.waiting() {
            let session = waiting.session;
            let group = self.state.sessions.get(&session).and_then(group_of);
            let other = group
                .as_ref()
                .filter(|_| slot == SlotUse::Install)
                .and_then(|group| groups.get(group))
                .filter(|member| member.node != session.node);
            if let Some(other) = other {
                let member = self.state.hosts.get(&other.node).map_or_else(String::new, |host| host.host_name.clone());
                waits.insert(session.node, WaitReason::Group { member });
            } else if free > 0 {
                free -= 1;
                groups.extend(group.map(|group| (group, session)));
                self.journal(StationEvent::SlotTaken { at: now.wall, session, slot });
            } else {
                place += 1;
                waits.insert(session.node, WaitReason::Slots { place, limit });
            }
        }
        self.take_waits(waits);
    }

    fn waiting(&self) -> BTreeMap<Waiting, SlotUse> {
        let policies = &self.setup.policies;
        self.state
            .hosts
            .iter()
            .filter_map(|(node, host)| {
                let session = SessionId { node: *node, generation: host.generation };
                let found = self.state.sessions.get(&session)?;
                let slot = found.wants_slot(host, policies)?;
                let (priority, arrival) = (std::cmp::Reverse(found.priority), found.arrival.0);
                Some((Waiting { priority, arrival, session }, slot))
            })
            .collect()
    }

    /// The groups of which a member is being changed, and which member that is.
    pub(super) fn groups_under_way(&self) -> BTreeMap<String, SessionId> {
        // A generation that could not be put back is made good by a later one that is verified.
        let mended = |id: &SessionId| self.state.current(id.node).is_some_and(|(_, current)| current.verified);
        let busy = self.state.sessions.iter().filter(|(id, session)| session.occupies_group() && !mended(id));
        busy.filter_map(|(id, session)| Some((group_of(session)?, *id))).collect()
    }

    fn take_waits(&mut self, waits: BTreeMap<NodeId, WaitReason>) {
        let nodes: BTreeSet<NodeId> = waits.keys().chain(self.waits.keys()).copied().collect();
        let changed = nodes.into_iter().filter(|node| waits.get(node) != self.waits.get(node));
        self.reissue.extend(changed);
        self.waits = waits;
    }
}

fn group_of(session: &Session) -> Option<String> {
    session.plan.as_ref()?.group.clone()
}
