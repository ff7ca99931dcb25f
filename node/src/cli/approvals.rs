//! `branchline approvals`: list and decide, at headquarters.
use std::process::ExitCode;

use anyhow::Result;
use branchline_protocol::charter::Decision;
use serde_json::Value;

use super::{node_arguments::NodeArguments, printer, sessions::operator};
use crate::runtime::{self, HostSelector, NodeCommand, wall_time};

/// List approval requests and decide on them, at headquarters
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    node: NodeArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// A host's name, its node identity, or `all`
    host: HostSelector,
    /// The site, where the name is not enough
    #[arg(long)]
    site: Option<String>,
    /// Who decides, for the record; the login name where it is left out
    #[arg(long)]
    by: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Every request, decided or not
    List,
    /// Let the host become a monitoring target
    Approve {
        #[command(flatten)]
        which: Which,
    },
    /// Deny it: the session ends, the agent is stopped unless the charter says otherwise
    Deny {
        #[command(flatten)]
        which: Which,
        /// Why, for the host's operator
        #[arg(long)]
        reason: String,
    },
    /// Hold it
    Delay {
        #[command(flatten)]
        which: Which,
        /// Why, for the host's operator
        #[arg(long)]
        reason: String,
        /// Ask again after so many minutes; without it, never by itself
        #[arg(long)]
        minutes: Option<u64>,
    },
}

/// Runs the command.
///
/// # Errors
/// No headquarters runs there, nothing fits, or the decision is refused.
pub fn run(args: Args) -> Result<ExitCode> {
    let (which, decision) = match args.command {
        Command::List => {
            let list: Value = runtime::call(&args.node.home, &NodeCommand::Approvals)?;
            let columns = [
                ("SITE", "site"),
                ("HOST", "host_name"),
                ("STANDING", "standing"),
                ("PACKAGES", "packages"),
                ("PLAN", "plan"),
            ];
            printer::print_list(&list, args.node.json, &columns, "no request yet");
            return Ok(ExitCode::SUCCESS);
        }
        Command::Approve { which } => (which, Decision::Approve),
        Command::Deny { which, reason } => (which, Decision::Deny { reason }),
        Command::Delay { which, reason, minutes } => {
            let until = minutes.map(|minutes| wall_time().after(minutes.saturating_mul(60)));
            (which, Decision::Delay { reason, until })
        }
    };
    let by = which.by.unwrap_or_else(operator);
    let command = NodeCommand::Decide { host: which.host, site: which.site, decision, by };
    let decided: Value = runtime::call(&args.node.home, &command)?;
    let columns = [("SITE", "site"), ("SESSION", "session")];
    printer::print_list(&decided, args.node.json, &columns, "nothing was open");
    Ok(ExitCode::SUCCESS)
}
