//! `branchline sample-agent`: the agent that demos and tests install.
use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use super::block_on;
use crate::agent::{self, AgentConfig};

/// Run the small monitoring agent that demos and tests install
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its configuration: listen, modules, thresholds (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Serves until SIGTERM.
///
/// # Errors
/// The configuration is not usable, the address cannot be used, or the configuration asks for a failure.
pub fn run(args: Args) -> Result<ExitCode> {
    let config = AgentConfig::read(&args.config)?;
    block_on(agent::run(config))??;
    Ok(ExitCode::SUCCESS)
}
