//! `branchline status`: who a node is and how it is.
use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use super::{node_arguments::NodeArguments, printer};
use crate::runtime::{self, NodeCommand};

/// Show who a node is, its roles, its neighbours and its documents
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    node: NodeArguments,
    /// Show every transfer: who sent which bytes to whom, over the WAN or inside the site
    #[arg(long)]
    transfers: bool,
}

/// Runs the command.
///
/// # Errors
/// No node runs there.
pub fn run(args: Args) -> Result<ExitCode> {
    let command = if args.transfers { NodeCommand::Transfers } else { NodeCommand::Status };
    let answer: Value = runtime::call(&args.node.home, &command)?;
    if args.node.json {
        println!("{answer:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let empty = serde_json::Map::new();
    for (name, value) in answer.as_object().unwrap_or(&empty) {
        match value {
            Value::Array(items) if items.iter().any(Value::is_object) => {
                println!("{name}:");
                for item in items {
                    println!("  {}", printer::text(item));
                }
            }
            _ => println!("{name:<20} {}", printer::text(value)),
        }
    }
    Ok(ExitCode::SUCCESS)
}
