//! Headquarters: approves hosts, grants addresses, mirrors the sites and names the monitoring targets (R30-R34).
//!
//! [`HeadquartersMachine`] holds no key and no socket. Whatever must be signed leaves as an output that names the
//! document ([`HeadquartersOutput::SignApproval`], [`HeadquartersOutput::SignGrant`]) and comes back as an input with
//! the signature, which is journaled: a site only ever sees documents that survive a crash of headquarters. A decision
//! whose signature was lost on the way is signed again after recovery.
//!
//! | module | holds |
//! | --- | --- |
//! | [`configuration`] | what an operator configures: pools, batch size, automatic rules |
//! | [`desk`] | requests and decisions; what a decision is bound to (R96) |
//! | [`authority`] | the address pool and every grant (R32, R110, R113) |
//! | [`mirror`] | the sites' profiles and reports, for good (R31, R75) |
//! | [`targets`] | monitoring targets and their Prometheus form (R34) |
//! | [`state`] | the events and their fold |
//! | [`words`] | inputs and outputs |
//! | [`machine`] | the machine |
//! | [`view`] | what the command line shows |
//! | [`invariants`] | what must hold after every input |
pub mod authority;
pub mod configuration;
pub mod desk;
mod hold;
pub mod invariants;
pub mod machine;
pub mod mirror;
pub mod state;
pub mod targets;
pub mod view;
pub mod words;

pub use configuration::{ApprovalRule, HeadquartersConfiguration, PoolEntry, RuleAction};
pub use machine::HeadquartersMachine;
pub use state::{HeadquartersEvent, HeadquartersState};
pub use targets::{Target, render_targets};
pub use words::{HeadquartersInput, HeadquartersOutput, HeadquartersSetup, Selector};
