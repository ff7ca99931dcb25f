//! The station: one session per host, its queue, its approvals and its tokens (R20-R24, R50, R52, R90-R98).
//!
//! | module | holds |
//! | --- | --- |
//! | [`words`] | inputs and outputs of the machine, and what goes with them |
//! | [`state`] | what is known, as the fold of the journal |
//! | `event` | what is written to the journal |
//! | `transitions` | how an event changes what is known |
//! | `history` | what people read of an event later |
//! | `orders` | stage and order of a session as pure functions of its facts |
//! | `advance` | what follows from the facts: events, work, directives, deadlines |
//! | `intake` | what hosts report, surveys, plans, mappings |
//! | `links` | which machine is at a host's address while the host is off |
//! | [`slots`] | who gets the next slot: pure, also used by the capacity simulator |
//! | `queue` | what that means for sessions and groups |
//! | `approvals` | the dialogue with headquarters, and commands of people |
//! | `probing` | what headquarters' probe of a mapped address means |
//! | [`leases`] | which node of the site brings a pack over the WAN |
//! | [`crossings`] | which encoding of an update it brings |
//! | `members` | join tokens and memberships |
//! | `profile` | what others see: profiles, views, reports |
//! | `machine` | dispatch and journal |
//! | `site` | sessions and addresses as one machine |
//! | `timing` | waits and intervals |
//! | `invariants` | what always holds |
//!
//! # Facts first
//!
//! A session is a set of facts: surveyed, planned, accepted, staged, installed, approved, mapped, checked, probed,
//! verified. Each fact is an event in the journal. Stage and order are computed from the facts and are nowhere stored,
//! so a lost, doubled or late message, a crash or a move of the role cannot bring them out of step.
//!
//! # Revisions without a counter
//!
//! A directive's revision must grow across crashes although directives are not journaled. Every start journals one
//! event, and a revision is at least the journal's sequence times 65536: what an earlier run sent depended on a
//! lower sequence, since an output waits until the journal is durable up to it. The sequence goes along when the role
//! moves, so a successor's revisions are higher too.
mod advance;
mod approvals;
pub mod crossings;
mod event;
mod history;
mod intake;
mod invariants;
pub mod leases;
mod links;
mod machine;
mod members;
mod orders;
mod probing;
mod profile;
mod queue;
mod site;
pub mod slots;
pub mod state;
mod steering;
mod timing;
mod transitions;
pub mod words;

pub use approvals::check_binding;
pub use links::{LinkAddress, WatchedHost};
pub use machine::StationMachine;
pub use profile::{ApprovalView, SessionReport, SessionView};
pub use site::{SiteEvent, SiteInput, SiteMachine, SiteOutput, SiteSetup};
pub use state::{SignedProbe, StationEvent, StationState};
pub use steering::Steering;
pub use words::{
    HeadquartersWord, MembershipTicket, PlanSummary, SiteReportDraft, StationInput, StationOutput, StationSetup,
    StationTiming, SurveyFacts,
};
