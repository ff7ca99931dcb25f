//! `branchline run`: be a node.
use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::Result;
use branchline_resident::ProgramPages;

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

/// Runs the node until it is told to stop (SIGTERM, SIGINT). Where this machine's address changes, the same process starts
/// anew, so that whoever watches it sees no end.
///
/// # Errors
/// The home directory cannot be used, an address cannot be listened on, or the journal fails.
pub fn run(args: Args) -> Result<ExitCode> {
    // Before anything else is mapped.
    let pages = ProgramPages::find();
    observe::start_log(args.log_json);
    let home = Home::open(&args.home)?;
    match super::block_on(runtime::run_node(home, pages))?? {
        runtime::Ended::Told => Ok(ExitCode::SUCCESS),
        runtime::Ended::Moved(address) => Err(start_anew().context(format!(
            "this machine's address is {address} now, and the node cannot start anew by itself; start it again"
        ))),
    }
}

/// Comes back only with an error. The running program is started again, also where an update has replaced its file.
fn start_anew() -> anyhow::Error {
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).exec().into()
}
