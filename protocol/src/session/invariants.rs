//! What always holds in a host's session.
use super::{dialogue::HostState, machine::HostMachine};

impl HostMachine {
    pub(super) fn assert_invariants(&self) {
        let session = &self.session;
        assert!(session.generation == 1 || session.standing.is_some(), "a generation began without an order");
        let numbers: Vec<u64> = session.events.numbers().collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "events have gaps: {numbers:?}");
        assert_eq!(
            numbers.last().copied().unwrap_or(session.events.last_number()),
            session.events.last_number(),
            "the last event is lost"
        );
        match &session.state {
            HostState::Joined => {}
            HostState::Surveyed => assert!(session.survey.is_some(), "surveyed without a survey"),
            HostState::Staged { .. } | HostState::Installing { .. } => {
                assert!(session.missing_packs().is_empty(), "staged or installing while packs are missing");
            }
            HostState::Installed { plan, .. } | HostState::Checked { plan, .. } | HostState::Complete { plan } => {
                let installed = session.installed.as_ref();
                assert_eq!(installed.map(|installed| installed.plan), Some(*plan), "another plan is installed");
            }
            HostState::Accepted { .. }
            | HostState::Refused { .. }
            | HostState::Failed { .. }
            | HostState::Withdrawn { .. } => {}
        }
    }
}
