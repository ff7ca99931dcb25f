//! `branchline report`: a host's HTML report.
use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

use crate::runtime::{self, HostSelector, NodeCommand};

/// Print or save the HTML report of a host, at the station, at headquarters or on the host
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host: a name, a node identity, or the end of one
    host: HostSelector,
    /// The node's home directory
    #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline")]
    home: PathBuf,
    /// Write to this file instead of standard output
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// There is no report yet, or the file cannot be written.
pub fn run(args: Args) -> Result<ExitCode> {
    let html: String = runtime::call(&args.home, &NodeCommand::Report(args.host))?;
    match args.out {
        None => print!("{html}"),
        Some(path) => std::fs::write(&path, html).with_context(|| format!("writing {}", path.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}
