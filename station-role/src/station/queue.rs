//! Slots: who may change itself now, and what the others wait for (R5, R22); `slots` decides.
use std::collections::{BTreeMap, BTreeSet};

use branchline_protocol::{
    ids::{NodeId, SessionId},
    session::WaitReason,
    time::Now,
};

use super::{
    machine::StationMachine,
    slots::{GroupMember, SlotQueue, SlotWait},
    state::{Host, Session, SlotUse, StationEvent},
};

/// A session that wants a slot.
struct Wish {
    session: SessionId,
    slot: SlotUse,
    priority: u32,
    arrival: u64,
    member: Option<GroupMember<String>>,
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
        let busy = self.groups_under_way().into_iter().map(|(group, session)| (group, session.node)).collect();
        let mut queue = SlotQueue::new(limit, self.slots_held(), busy);
        let wishes = self.wishes();
        for (node, wish) in &wishes {
            queue.request(*node, wish.priority, wish.arrival, wish.member.clone());
        }
        for wish in queue.grant().iter().filter_map(|node| wishes.get(node)) {
            self.journal(StationEvent::SlotTaken { at: now.wall, session: wish.session, slot: wish.slot });
        }
        let waits = queue.waits().map(|(node, wait)| (node, self.wait_reason(wait, limit))).collect();
        self.take_waits(waits);
    }

    fn wait_reason(&self, wait: SlotWait<NodeId>, limit: u32) -> WaitReason {
        match wait {
            SlotWait::Slots { place } => WaitReason::Slots { place, limit },
            SlotWait::Group { member } => {
                let member = self.state.hosts.get(&member).map_or_else(String::new, |host| host.host_name.clone());
                WaitReason::Group { member }
            }
        }
    }

    /// Who wants a slot now; a host has at most one session that does.
    fn wishes(&self) -> BTreeMap<NodeId, Wish> {
        let policies = &self.setup.policies;
        let wish = |(node, host): (&NodeId, &Host)| {
            let session = SessionId { node: *node, generation: host.generation };
            let found = self.state.sessions.get(&session)?;
            let slot = found.wants_slot(host, policies)?;
            let member = group_of(found).map(|group| GroupMember { group, yields: slot == SlotUse::Install });
            Some((*node, Wish { session, slot, priority: found.priority, arrival: found.arrival.0, member }))
        };
        self.state.hosts.iter().filter_map(wish).collect()
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
