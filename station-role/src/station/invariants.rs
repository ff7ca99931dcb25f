//! What always holds at a station.
use std::collections::BTreeMap;

use branchline_protocol::session::Stage;

use super::{
    machine::StationMachine,
    state::{ApprovalState, Binding, SlotUse},
};

impl StationMachine {
    pub(super) fn assert_invariants(&self) {
        self.assert_slots();
        self.assert_sessions();
        self.assert_groups();
        for (identifier, record) in &self.state.tokens {
            assert!(record.used <= record.token.uses, "token {identifier:?} was used too often");
        }
        let revoked_member = self.state.members.keys().find(|node| self.state.revoked.contains(node));
        assert_eq!(revoked_member, None, "a revoked node is a member");
    }

    fn assert_slots(&self) {
        let held = self.slots_held();
        // A charter with a lower limit takes effect as slots are given back.
        let latest = self.setup.limits.sessions_max.max(self.slots_allowed_before);
        assert!(held <= latest, "{held} slots are held, {latest} are allowed");
        for (id, session) in &self.state.sessions {
            match session.slot {
                Some(SlotUse::Install) => assert!(session.staged && !session.installed, "{id} holds a slot too early"),
                Some(SlotUse::Verify) => assert!(session.installed && !session.verified, "{id} holds a slot too long"),
                None => {}
            }
            assert!(session.slot.is_none() || session.end.is_none(), "{id} is over and holds a slot");
        }
    }

    fn assert_sessions(&self) {
        for (id, session) in &self.state.sessions {
            let approved = matches!(session.approval, ApprovalState::Approved { .. });
            assert!(!session.accepted || session.plan.is_some(), "{id} accepted no plan");
            assert!(session.plan.is_none() || session.descriptor.is_some(), "{id} has a plan without a survey");
            assert!(!session.begun || session.staged, "{id} installs what it does not hold");
            assert!(!session.verified || (approved && session.installed), "{id} is verified without an approval");
            let complete = session.end.as_ref().is_some_and(|end| end.stage == Stage::Complete);
            assert!(
                !complete || (session.verified && session.html.is_some()),
                "{id} is complete without being verified"
            );
            assert!(
                session.events.windows(2).all(|pair| pair[0].number < pair[1].number),
                "{id} has its events out of order"
            );
        }
        for (node, host) in &self.state.hosts {
            if host.binding == Binding::Bound {
                let approved = self
                    .state
                    .sessions
                    .iter()
                    .any(|(id, session)| id.node == *node && session.is_approved() && session.installed);
                assert!(approved, "{node} should be mapped without an approval");
            } else {
                assert_eq!(host.mapped, None, "{node} has a mapping that is not wanted");
            }
            assert!(host.taken_by.is_none() || host.mapped.is_none(), "{node} is mapped to where another member is");
        }
    }

    /// At most one member of a cluster is being changed (R5).
    fn assert_groups(&self) {
        let mut under_way: BTreeMap<&str, usize> = BTreeMap::new();
        for session in self.state.sessions.values() {
            let group = session.plan.as_ref().and_then(|plan| plan.group.as_deref());
            if session.slot == Some(SlotUse::Install) {
                *under_way.entry(group.unwrap_or_default()).or_default() += usize::from(group.is_some());
            }
        }
        assert!(
            under_way.values().all(|count| *count <= 1),
            "two members of one cluster install at once: {under_way:?}"
        );
    }
}
