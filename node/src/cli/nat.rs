//! `branchline nat`: mappings, grants and the router's table.
use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use super::{node_arguments::NodeArguments, printer};
use crate::runtime::{self, NodeCommand};

/// Show mapped addresses: at a station its mappings and the router's table, at headquarters the grants
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    node: NodeArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show them
    Show,
}

/// Runs the command.
///
/// # Errors
/// No node runs there.
pub fn run(args: Args) -> Result<ExitCode> {
    let Command::Show = args.command;
    let nat: Value = runtime::call(&args.node.home, &NodeCommand::Nat)?;
    if args.node.json {
        println!("{nat:#}");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(mappings) = nat.get("mappings") {
        let columns = [("NODE", "node"), ("INSIDE", "inside"), ("MAPPED", "mapped"), ("CONFIRMED", "confirmed")];
        printer::print_list(mappings, false, &columns, "no mapping");
        println!("\nThe router's table as last read: {}", printer::field(&nat, "table_file"));
        match &nat["router_promise"] {
            Value::Null => println!("No router is configured (station.router in node.toml)."),
            promise => println!("Of this router: {}.", printer::text(promise)),
        }
    }
    if let Some(grants) = nat.get("grants") {
        let columns = [("SITE", "site"), ("SERIAL", "serial"), ("BATCH", "batch"), ("SEEN", "seen"), ("USED", "used")];
        printer::print_list(grants, false, &columns, "no grant");
    }
    Ok(ExitCode::SUCCESS)
}
