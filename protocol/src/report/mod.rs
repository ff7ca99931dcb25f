//! What happened, as events: the source of progress displays, install reports and audits (R83, R85).
mod event;
mod summary;

pub use event::{EventBody, ReportEvent, StepOutcome};
pub use summary::{InstallReport, Outcome, PackSummary, StepSummary};
