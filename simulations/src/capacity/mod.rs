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
//! | `random` | random figures that are the same on every machine and in every order |
//! | [`outcome`] | what comes of it |
//! | [`options`] | what the caller supplies |
//!
//! Time is in nanoseconds and bytes are integers; where two things happen at once, the order is that of sites, hosts
//! and causes.
mod check;
pub mod options;
pub mod outcome;
pub mod quantity;
mod random;
pub mod scenario;
#[cfg(test)]
mod scenario_tests;

pub use options::{InTurn, Options, Phase, Progress, SimulateError, Workers};
pub use outcome::{
    AddressSummary, BindingTerm, Bytes, Calibration, Completion, HostResult, Lift, Outcome, Queue, Run, Series,
    Simulated, SiteResult, SiteSummary, Wave,
};
pub use quantity::{Arrivals, InstallTime, Neighbours, Quantity, Wifi};
pub use random::Draw;
pub use scenario::{
    Addresses, Churn, Headquarters, Offline, Payload, Resolution, Rollout, Scenario, ScenarioError, Site, Thresholds,
    WanTcp, Window,
};
