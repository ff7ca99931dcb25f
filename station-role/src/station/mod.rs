//! The station: one session per host, its queue, its approvals and its tokens (R20-R24, R50, R52, R90-R98).
pub mod state;
pub mod words;

pub use state::{StationEvent, StationState};
pub use words::{
    HeadquartersWord, MembershipTicket, PlanSummary, SiteReportDraft, StationInput, StationOutput, StationSetup,
    StationTiming, SurveyFacts,
};
