//! Who gets the next slot: the pure part of the queue (R5, R22).
//!
//! The station's machine asks it after every event that may move its queue; the capacity simulator keeps one per site.
//! So a simulated rollout waits where a real one would.
use std::{cmp::Reverse, collections::BTreeMap};

/// What a request for a slot has to do with a group of hosts that act as one environment (R5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember<G> {
    /// The group.
    pub group: G,
    /// Whether it waits while another member is being changed; a verification does not.
    pub yields: bool,
}

/// Why a request is not served yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotWait<K> {
    /// Another member of its group is being changed.
    Group {
        /// That member.
        member: K,
    },
    /// All slots are held.
    Slots {
        /// Its place among those that wait for a slot, from 1.
        place: u32,
    },
}

/// The order of the queue: priority, then first come, then the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position<K> {
    priority: Reverse<u32>,
    arrival: u64,
    who: K,
}

/// Requests for slots and the slots that are free. Requests are queued, never refused.
#[derive(Clone, Debug)]
pub struct SlotQueue<K, G> {
    limit: u32,
    held: u32,
    waiting: BTreeMap<Position<K>, Option<GroupMember<G>>>,
    /// The groups of which a member is being changed, and which.
    busy: BTreeMap<G, K>,
}

impl<K: Copy + Ord, G: Clone + Ord> SlotQueue<K, G> {
    /// A queue without requests. `busy` names the groups of which a member is being changed.
    pub fn new(limit: u32, held: u32, busy: BTreeMap<G, K>) -> Self {
        Self { limit, held, waiting: BTreeMap::new(), busy }
    }

    /// A request for a slot; higher priorities and earlier arrivals come first.
    pub fn request(&mut self, who: K, priority: u32, arrival: u64, member: Option<GroupMember<G>>) {
        self.waiting.insert(Position { priority: Reverse(priority), arrival, who }, member);
    }

    /// A slot is free again; `group` is free too, where its holder belonged to one.
    pub fn give_back(&mut self, group: Option<&G>) {
        self.held = self.held.saturating_sub(1);
        group.and_then(|group| self.busy.remove(group));
    }

    /// Gives the free slots to those whose turn it is; says to whom, in order.
    pub fn grant(&mut self) -> Vec<K> {
        let mut granted = Vec::new();
        // Whoever is passed over here waits for its group, and a grant never frees a group: one pass is enough.
        for (position, member) in &self.waiting {
            if self.held >= self.limit {
                break;
            }
            if self.held_up_by(position.who, member.as_ref()).is_some() {
                continue;
            }
            self.held += 1;
            if let Some(member) = member {
                self.busy.insert(member.group.clone(), position.who);
            }
            granted.push(*position);
        }
        for position in &granted {
            self.waiting.remove(position);
        }
        granted.into_iter().map(|position| position.who).collect()
    }

    /// What everyone waits for who was not granted a slot, in the order of the queue.
    pub fn waits(&self) -> impl Iterator<Item = (K, SlotWait<K>)> + '_ {
        let mut place = 0;
        self.waiting.iter().map(move |(position, member)| {
            let wait = match self.held_up_by(position.who, member.as_ref()) {
                Some(member) => SlotWait::Group { member },
                None => {
                    place += 1;
                    SlotWait::Slots { place }
                }
            };
            (position.who, wait)
        })
    }

    /// Slots that are held.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// How many wait.
    pub fn length(&self) -> usize {
        self.waiting.len()
    }

    /// The other member of its group that is being changed, where that holds this request up.
    fn held_up_by(&self, who: K, member: Option<&GroupMember<G>>) -> Option<K> {
        let member = member.filter(|member| member.yields)?;
        self.busy.get(&member.group).copied().filter(|other| *other != who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(limit: u32) -> SlotQueue<u32, &'static str> {
        SlotQueue::new(limit, 0, BTreeMap::new())
    }

    fn member(group: &'static str) -> Option<GroupMember<&'static str>> {
        Some(GroupMember { group, yields: true })
    }

    #[test]
    fn priority_comes_before_first_come() {
        let mut queue = queue(2);
        for (who, priority, arrival) in [(1, 0, 10), (2, 0, 9), (3, 5, 30), (4, 0, 9)] {
            queue.request(who, priority, arrival, None);
        }
        assert_eq!(queue.grant(), [3, 2]);
        let waits: Vec<_> = queue.waits().collect();
        assert_eq!(waits, [(4, SlotWait::Slots { place: 1 }), (1, SlotWait::Slots { place: 2 })]);
        queue.give_back(None);
        assert_eq!(queue.grant(), [4]);
        assert_eq!((queue.grant(), queue.length()), (vec![], 1));
    }

    #[test]
    fn members_of_one_group_go_one_after_another_and_hold_nobody_else_up() {
        let mut queue = queue(3);
        queue.request(1, 0, 1, member("cluster"));
        queue.request(2, 0, 2, member("cluster"));
        queue.request(3, 0, 3, None);
        assert_eq!(queue.grant(), [1, 3]);
        assert_eq!(queue.waits().collect::<Vec<_>>(), [(2, SlotWait::Group { member: 1 })]);
        queue.give_back(Some(&"cluster"));
        assert_eq!(queue.grant(), [2]);
    }

    #[test]
    fn a_limit_below_what_is_held_grants_nothing() {
        let mut queue: SlotQueue<u32, ()> = SlotQueue::new(2, 5, BTreeMap::new());
        queue.request(1, 9, 0, None);
        for _ in 0..3 {
            queue.give_back(None);
            assert!(queue.grant().is_empty());
        }
        queue.give_back(None);
        assert_eq!(queue.grant(), [1]);
    }
}
