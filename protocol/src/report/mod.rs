//! What happened, as events: the source of progress displays, install reports and audits (R83, R85).
mod event;

pub use event::{EventBody, ReportEvent, StepOutcome};
