//! How a scenario is simulated: what the caller supplies, and what may go wrong.
use branchline_protocol::content::ManifestError;
use thiserror::Error;

use super::scenario::ScenarioError;

/// How a scenario is simulated. Nothing here changes the outcome of a given scenario but what is left out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Sites that the flow resolution simulates in chunk resolution too: half of them fit it, half measure its error.
    /// 0: the flow stays as theory has it.
    pub calibration_sites: u32,
    /// Whether to simulate what lifting each term would gain; without it the binding term is judged by the parts of
    /// the makespan alone.
    pub lifts: bool,
    /// Whether to keep one [`HostResult`](super::HostResult) per host.
    pub hosts: bool,
    /// Moments of the [`Series`](super::Series), at least 2.
    pub series_moments: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { calibration_sites: 16, lifts: true, hosts: true, series_moments: 241 }
    }
}

/// Who carries out work that falls into independent parts. This crate has no threads; a caller that has them gives
/// every part to one of them. The outcome does not depend on it.
pub trait Workers {
    /// Calls `part` once with every number below `count`, in any order, at the same time where it likes, and returns
    /// when all calls have returned.
    fn carry_out(&self, count: usize, part: &(dyn Fn(usize) + Sync));
}

/// Carries out one part after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct InTurn;

impl Workers for InTurn {
    fn carry_out(&self, count: usize, part: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(part);
    }
}

/// How far a simulation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Sites that are done in this phase. Calls from several threads may come out of order.
    pub done: u64,
    /// Sites of this phase.
    pub total: u64,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The flow is fitted to the chunk resolution, and its error is measured.
    Calibrate,
    /// Sites are simulated.
    Simulate,
    /// The same with one term lifted after the other.
    Lift,
}

/// Why there is no outcome.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum SimulateError {
    /// The scenario makes no sense.
    #[error("the scenario cannot be simulated: {0}")]
    Scenario(#[from] ScenarioError),
    /// No manifest can name the payload's frames.
    #[error("the payload cannot be packed: {0}; choose longer frames")]
    Payload(#[from] ManifestError),
    /// The drawn sites have too many hosts in all.
    #[error("the sites of this seed have {hosts} hosts; at most {most} fit, so make the sites smaller or fewer")]
    TooManyHosts {
        /// Hosts that were drawn.
        hosts: u64,
        /// Hosts that fit.
        most: u64,
    },
}
