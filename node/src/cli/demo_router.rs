//! `branchline demo-router`: the demo's router as a process of its own (hidden).
use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::demo::router::{DemoRouter, DemoRouterConfig};

/// Run the demo's router: an SNMPv3 agent with a NAT table that forwards TCP on loopback addresses.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its configuration, in TOML
    #[arg(long)]
    config: PathBuf,
}

/// Runs the router until the process is ended. Prints one line once it serves.
///
/// # Errors
/// The configuration cannot be used, or the agent fails.
pub async fn run(args: Args) -> Result<ExitCode> {
    let path = args.config.display();
    let text = std::fs::read_to_string(&args.config).with_context(|| format!("reading the configuration {path}"))?;
    let config: DemoRouterConfig =
        toml::from_str(&text).with_context(|| format!("reading the configuration {path}"))?;
    let router = DemoRouter::bind(config).await?;
    let mut output = std::io::stdout();
    writeln!(output, "SNMP on {}", router.snmp_address())?;
    output.flush()?;
    router.run().await?;
    Ok(ExitCode::SUCCESS)
}
