//! `branchline demo`: the whole path on this machine.
use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use crate::demo;

/// Show the whole path on this machine: headquarters, a router, a station and hosts as separate processes
///
/// Needs no privileges and nothing but this program. Every host gets a root directory of its own, surveys itself, and
/// is given a small monitoring agent with the modules and thresholds that fit it; the payload crosses from headquarters
/// to the site once and spreads from host to host; an automatic rule approves; a router of our own is programmed over
/// SNMPv3 and really forwards; every agent is checked through its mapped address. All addresses are in 127.0.0.0/8.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many hosts, 1 to 50; the second has an NFS mount, the third is in a cluster
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    hosts: u8,
    /// A file to bring to every host beside the agent, under /opt/demo-payload of its root: of any kind, and not empty
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// Tell the agent of one host to fail, to see what is said then: `till-2=start` ends at once, `till-2=health` runs and is
    /// not well
    #[arg(long, value_name = "HOST=MANNER")]
    fail_agent: Option<demo::FailingAgent>,
    /// Leave everything running, and say where to look and how to end it
    #[arg(long)]
    keep: bool,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

/// Runs the command; the exit code is 0 only if every host is complete.
///
/// # Errors
/// Something did not work: the message says which host hung in which stage, and where the logs are.
pub fn run(args: Args) -> Result<ExitCode> {
    let options = demo::Options {
        hosts: args.hosts,
        payload: args.payload,
        fail_agent: args.fail_agent,
        keep: args.keep,
        json: args.json,
    };
    Ok(if demo::run(&options)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
