//! What the machines of this world are told.
use branchline_protocol::{
    ids::{Hash, SurveyHash},
    session::HostInput,
};

/// Of a host that has put the version before back; this world has no installer that keeps one.
pub const REVERTED: HostInput = HostInput::Reverted { installed: None, rolled_back: true };

/// The descriptor of a sealed survey.
pub fn descriptor_of(survey: SurveyHash) -> Hash {
    Hash::of(&survey.0.0)
}
