//! Once the faults have stopped everybody in the healthy core gets there in time.
use branchline_protocol::session::Stage;

use super::{Kind, Violation, ensure};

/// How a host of the core ended, and how it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its number.
    pub host: usize,
    /// Complete, or the end that people ordered: denied or withdrawn.
    pub expected: Stage,
    /// Its last stage, by the station's word.
    pub stage: Option<Stage>,
    /// The router maps it.
    pub mapped: bool,
    /// Headquarters monitors it.
    pub target: bool,
}

impl Outcome {
    /// Whether this is where the host should end: only what is complete is mapped and monitored.
    pub fn is_right(self) -> bool {
        let complete = self.expected == Stage::Complete;
        self.stage == Some(self.expected) && self.mapped == complete && self.target == complete
    }
}

/// Every host ended as it should.
///
/// # Errors
/// Those that did not.
pub fn everybody_is_done(outcomes: &[Outcome]) -> Result<(), Violation> {
    let wrong: Vec<Outcome> = outcomes.iter().copied().filter(|outcome| !outcome.is_right()).collect();
    ensure(Kind::Liveness, "everybody in the core is done in the end", wrong.is_empty(), || format!("{wrong:?}"))
}
