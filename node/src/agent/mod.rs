//! The sample agent: a small monitoring agent that demos and tests install. A real program with modules, thresholds and
//! metrics in Prometheus' text format, which can be told to fail.
//!
//! Every value is read when it is asked for, from `/proc`, from the file systems, and from the host's configuration
//! under its root (`BRANCHLINE_ROOT`, where the agent is not confined to it).
mod config;
mod measure;
mod serve;

pub use config::{AgentConfig, AgentConfigError, Failure};
pub use serve::{AgentError, run};
