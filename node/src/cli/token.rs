//! `branchline token`: make a join token.
use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use serde_json::Value;

use crate::runtime::{self, NodeCommand};

/// Make a join token, at the station
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The station's home directory
    #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline")]
    home: PathBuf,
    /// How many machines may join with it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    uses: u32,
    /// How many hours it is good for
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8760))]
    hours: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// No station runs there, or it refuses.
pub fn run(args: Args) -> Result<ExitCode> {
    let command = NodeCommand::Token { uses: args.uses, life_seconds: args.hours * 3600 };
    let token: Value = runtime::call(&args.home, &command)?;
    if args.json {
        println!("{}", serde_json::json!({ "token": token, "uses": args.uses }));
    } else {
        println!("{}", super::printer::text(&token));
    }
    Ok(ExitCode::SUCCESS)
}
