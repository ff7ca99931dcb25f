//! Once the faults have stopped everybody gets there in time.
use branchline_protocol::session::Stage;

use super::{Violation, ensure};

/// How a host ended: whether headquarters denied it, its last stage by the station's word, whether its mapped address
/// is in the router and among the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Headquarters denies it.
    pub denied: bool,
    /// By the station's word.
    pub stage: Option<Stage>,
    /// The router maps it.
    pub mapped: bool,
    /// Headquarters monitors it.
    pub target: bool,
}

impl Outcome {
    /// Whether this is where the host should end.
    pub fn is_right(self) -> bool {
        if self.denied {
            self.stage == Some(Stage::Denied) && !self.mapped && !self.target
        } else {
            self.stage == Some(Stage::Complete) && self.mapped && self.target
        }
    }
}

/// Every host ended as it should.
///
/// # Errors
/// The first that did not.
pub fn everybody_is_done(outcomes: &[Outcome]) -> Result<(), Violation> {
    let wrong = outcomes.iter().enumerate().find(|(_, outcome)| !outcome.is_right());
    ensure("everybody is done in the end", wrong.is_none(), || format!("{wrong:?} in {outcomes:?}"))
}
