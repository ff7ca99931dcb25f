//! The plans that the installer has computed and accepted, kept so that they can be verified and resumed.
use std::{fs, path::PathBuf};

use branchline_protocol::{ids::PlanHash, plan::Plan};

use super::{
    files::{self, FileError, at},
    host::Host,
};

fn place(host: &Host, plan: PlanHash) -> PathBuf {
    host.state().join("plans").join(format!("{plan}.json"))
}

/// Keeps a plan, durably.
///
/// # Errors
/// The disk is full, or the system refuses.
pub fn store(host: &Host, plan: &Plan) -> Result<(), FileError> {
    let place = place(host, plan.hash());
    let text = serde_json::to_vec(plan).map_err(|error| at("write", &place)(error.into()))?;
    files::write_atomically(&place, &text, 0o600)
}

/// Reads a kept plan.
///
/// # Errors
/// It was never kept, or is damaged.
pub fn load(host: &Host, plan: PlanHash) -> Result<Plan, FileError> {
    let place = place(host, plan);
    let text = fs::read(&place).map_err(at("read the plan", &place))?;
    let found: Plan = serde_json::from_slice(&text).map_err(|error| at("read the plan", &place)(error.into()))?;
    if found.hash() == plan {
        Ok(found)
    } else {
        Err(FileError::BadPath { path: place, rule: "the kept plan is damaged; order the installation again" })
    }
}
