//! The mirror of the sites: the newest profile of every session, with its report, for good (R31, R75, R93).
use std::collections::BTreeMap;

use branchline_protocol::{ids::SessionId, session::Stage, wire::site::HostProfile};

/// The profiles of one site. Nothing is ever removed; a withdrawn host keeps its reports (R98).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    profiles: BTreeMap<SessionId, HostProfile>,
}

impl Mirror {
    /// Whether `profile` is newer than the one that is kept.
    pub fn is_newer(&self, profile: &HostProfile) -> bool {
        self.profiles.get(&profile.session).is_none_or(|kept| profile.revision > kept.revision)
    }

    /// The profile of a session.
    pub fn profile(&self, session: SessionId) -> Option<&HostProfile> {
        self.profiles.get(&session)
    }

    /// All profiles in order of host and generation.
    pub fn profiles(&self) -> impl Iterator<Item = &HostProfile> {
        self.profiles.values()
    }

    /// How many sessions are mirrored.
    pub fn len(&self) -> usize {
        self.profiles.len()
    }

    /// Whether nothing was mirrored yet.
    pub fn is_empty(&self) -> bool {
        self.profiles.is_empty()
    }

    /// Whether the site has carried out a withdrawal.
    pub fn is_withdrawn(&self, session: SessionId) -> bool {
        self.profiles.get(&session).is_some_and(|profile| profile.stage == Stage::Withdrawn && profile.mapped.is_none())
    }

    /// Keeps a profile. A report that a newer revision does not repeat stays.
    pub(super) fn keep(&mut self, mut profile: HostProfile) {
        if let Some(kept) = self.profiles.get_mut(&profile.session) {
            profile.report_html = profile.report_html.or_else(|| kept.report_html.take());
        }
        self.profiles.insert(profile.session, profile);
    }
}
