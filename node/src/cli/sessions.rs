//! `branchline sessions`: list, show, watch, and act on sessions.
use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use serde_json::Value;

use super::{node_arguments::NodeArguments, printer};
use crate::runtime::{self, HostSelector, NodeCommand};

/// List, show, watch or steer the sessions of a station (headquarters lists those of all sites)
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    node: NodeArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// One line for each session
    List,
    /// One session with its events; HOST is a name, a node identity, or the end of one
    Show {
        /// The host
        host: HostSelector,
    },
    /// Print the list again whenever it changes, until every session has ended or a key interrupts
    Watch,
    /// End a session
    Cancel {
        /// The host
        host: HostSelector,
    },
    /// Put a host before others that wait for a slot, or behind them
    Prioritise {
        /// The host
        host: HostSelector,
        /// Higher goes first; every host has 0 at first, and those of one priority go in the order in which they came
        priority: u32,
    },
    /// Go on with a session that waits for a person, or start an ended one again
    Retry {
        /// The host
        host: HostSelector,
    },
    /// Start an update or a reinstallation
    Update {
        /// The host
        host: HostSelector,
    },
    /// Take a host out of monitoring and out of the site
    Withdraw {
        /// The host
        host: HostSelector,
    },
}

const COLUMNS: [(&str, &str); 6] = [
    ("HOST", "host_name"),
    ("STAGE", "stage"),
    ("INSIDE", "inside"),
    ("MAPPED", "mapped"),
    ("PACKAGES", "packages"),
    ("WHY", "reason"),
];

/// Runs the command.
///
/// # Errors
/// No such node, no such host, or the machine refuses.
pub fn run(args: Args) -> Result<ExitCode> {
    let by = operator();
    let command = match args.command {
        Command::List => NodeCommand::Sessions,
        Command::Watch => return watch(&args.node.home, args.node.json),
        Command::Show { host } => NodeCommand::Session(host),
        Command::Cancel { host } => NodeCommand::Cancel { host, by },
        Command::Prioritise { host, priority } => NodeCommand::Prioritise { host, priority },
        Command::Retry { host } => NodeCommand::Retry { host, by },
        Command::Update { host } => NodeCommand::Update { host, by },
        Command::Withdraw { host } => NodeCommand::Withdraw { host, by },
    };
    let answer: Value = runtime::call(&args.node.home, &command)?;
    match command {
        NodeCommand::Sessions => printer::print_list(&answer, args.node.json, &COLUMNS, "no session yet"),
        NodeCommand::Session(_) if !args.node.json => show(&answer),
        _ if args.node.json => println!("{answer:#}"),
        _ => println!("{}", printer::text(&answer)),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(session: &Value) {
    let empty = serde_json::Map::new();
    for (name, value) in session.as_object().unwrap_or(&empty) {
        if name != "events" {
            println!("{name:<20} {}", printer::text(value));
        }
    }
    println!();
    for event in session.get("events").and_then(Value::as_array).into_iter().flatten() {
        println!(
            "{:>5}  {}  {}",
            printer::field(event, "number"),
            printer::field(event, "at"),
            printer::field(event, "body")
        );
    }
}

fn watch(home: &std::path::Path, json: bool) -> Result<ExitCode> {
    let mut before = Value::Null;
    loop {
        let sessions: Value = runtime::call(home, &NodeCommand::Sessions)?;
        if sessions != before {
            printer::print_list(&sessions, json, &COLUMNS, "no session yet");
            println!();
        }
        let items = sessions.as_array().map_or(&[][..], Vec::as_slice);
        let ended = |item: &Value| {
            let stage = item.get("stage").cloned().and_then(|stage| serde_json::from_value(stage).ok());
            stage.is_some_and(branchline_protocol::session::Stage::is_end)
        };
        if !items.is_empty() && items.iter().all(ended) {
            return Ok(ExitCode::SUCCESS);
        }
        before = sessions;
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Who gives a command, for the record: the login name, as far as the system knows it.
pub fn operator() -> String {
    ["SUDO_USER", "LOGNAME", "USER"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "operator".to_owned())
}
