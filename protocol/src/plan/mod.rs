//! What is chosen for one host, and why (R60-R63).
//!
//! [`select::select`] is a pure function of four documents: the host's descriptor, the signed catalogue, the signed site
//! policy and the host's name. The station computes a plan to order it, the host computes it to agree (R62), and the
//! privileged installer computes it once more before it acts.

mod choose;
mod complete;
mod conflicts;
pub mod explain;
pub mod hash;
pub mod select;
mod template;
mod types;
mod undeclared;
mod version;

pub use explain::{Explanation, render};
pub use select::{Conflict, SelectionError, group_of, select};
pub(crate) use template::check_template;
pub use types::{
    ConfigurationFile, HealthCheck, HostGroup, Plan, PlannedModule, PlannedPackage, PlannedThreshold, PortDeclaration,
    Service, Step, StepUndo,
};
pub use undeclared::UndeclaredPorts;
