//! `branchline run`: be a node.
use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use crate::{config::Home, observe, runtime};

/// Run a node with the roles that the charter gives it: host, station, headquarters, or several
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node's home directory
    #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline")]
    home: PathBuf,
    /// Write the log as JSON lines
    #[arg(long)]
    log_json: bool,
}

/// Runs the node until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// The home directory cannot be used, an address cannot be listened on, or the journal fails.
pub fn run(args: Args) -> Result<ExitCode> {
    observe::start_log(args.log_json);
    let home = Home::open(&args.home)?;
    super::block_on(runtime::run_node(home))??;
    Ok(ExitCode::SUCCESS)
}
