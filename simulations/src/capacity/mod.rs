//! Capacity: how long a rollout takes, what it costs the lines, and what binds (R125).
//!
//! A [`Scenario`] says what a planner knows. Sites meet only at headquarters' uplink, so that the shares of the uplink
//! are found first, for all sites together, and every site is then simulated for itself, in any order.
//!
//! | module | holds |
//! | --- | --- |
//! | [`scenario`] | what a planner writes |
//! | [`quantity`] | figures that are known roughly: ranges and distributions |
//! | `check` | whether every figure makes sense |
//! | `units` | integers for time, rates and bytes |
//! | `random` | random figures that are the same on every machine and in every order |
//! | [`outcome`] | what comes of it |
//! | [`options`] | what the caller supplies |
//! | `plan` | sites with figures: everything that is drawn once per site |
//! | [`tcp`] | what one connection gets through a line |
//! | `uplink`, `curve` | headquarters' uplink over time, max-min fair |
//! | [`maxmin`] | the exact shares, the oracle of `uplink` |
//! | [`local`] | one site's network and nodes |
//! | [`chunk`] | the spread inside a site frame by frame, decided by the swarm machines |
//! | [`flow`] | the same as a fluid |
//! | `calibrate` | the second fitted to the first on samples, and its error |
//! | `install` | slots, windows, installations |
//! | `site` | one site from begin to end |
//! | `engine` | waves, the uplink, all sites |
//! | `lift` | what lifting each term would gain |
//! | `combine`, `series` | from all sites to one answer |
//! | [`presets`] | scenarios to start from |
//!
//! Time is in nanoseconds and bytes are integers; where two things happen at once, the order is that of sites, hosts
//! and causes.
mod calibrate;
mod check;
pub mod chunk;
mod combine;
mod curve;
mod engine;
pub mod flow;
mod install;
mod lift;
pub mod local;
pub mod maxmin;
pub mod options;
pub mod outcome;
mod plan;
pub mod presets;
pub mod quantity;
mod random;
pub mod scenario;
#[cfg(test)]
mod scenario_tests;
mod series;
mod site;
pub mod tcp;
mod units;
mod uplink;
#[cfg(test)]
mod uplink_tests;

pub use engine::{calibrate_flow, resolution_of, simulate};
pub use options::{InTurn, Options, Phase, Progress, SimulateError, Workers};
pub use outcome::{
    AddressSummary, BindingTerm, Bytes, Calibration, Completion, HostResult, Lift, Outcome, Queue, Run, Series,
    Simulated, SiteResult, SiteSummary, Wave,
};
pub use presets::{PRESETS, Preset};
pub use quantity::{Arrivals, InstallTime, Neighbours, Quantity, Wifi};
pub use random::Draw;
pub use scenario::{
    Addresses, Churn, Headquarters, HostsFail, Offline, Payload, Resolution, Rollout, Scenario, ScenarioError, Site,
    Slots, Thresholds, WanTcp, Window,
};
