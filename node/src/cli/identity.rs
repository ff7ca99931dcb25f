//! `branchline identity`: who this machine is, and the seat by which a charter names it.
use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

use crate::config::{Home, Seat};

/// Show or make this machine's identity.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node's home directory; made where it is missing
    #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline")]
    home: PathBuf,
    /// The address on which this node will listen; needed once, kept in the home directory
    #[arg(long)]
    listen: Option<IpAddr>,
    /// Write the seat to this file, for `branchline init` and `branchline charter move`
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The home directory or the output file cannot be written, or no address is known.
pub fn run(args: Args) -> Result<ExitCode> {
    let home = Home::create(&args.home)?;
    let mut config = home.config_or_default()?;
    if let Some(listen) = args.listen {
        config.listen = Some(listen);
        home.save_config(&config)?;
    }
    let seat = Seat::of(&home, &config)?;
    let json = serde_json::to_string_pretty(&seat)?;
    if let Some(out) = &args.out {
        std::fs::write(out, format!("{json}\n")).with_context(|| format!("writing the seat to {}", out.display()))?;
    }
    if args.json {
        println!("{json}");
    } else {
        println!("node      {}", seat.node);
        println!("control   {}", seat.addresses.control);
        println!("bulk      {}", seat.addresses.bulk);
        println!("door      {}  (certificate SHA-256 {})", seat.door, seat.door_fingerprint);
    }
    Ok(ExitCode::SUCCESS)
}
