//! `branchline installer`: the privileged half of a host.
use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use branchline_protocol::charter::PublicKey;

use crate::{
    install::{self, InstallerClient, InstallerOptions, InstallerOutcome, InstallerRequest},
    runtime,
};

/// How often, and how long apart, the agents are asked to stop when the installer ends with them.
const STOP_TRIES: u32 = 20;
const STOP_PAUSE: Duration = Duration::from_millis(250);

/// Install what signed documents say, for the network process of this host
///
/// The installer is root, has no network and listens on a Unix socket only. It verifies charter, catalogue, site policy
/// and plan for itself and refuses everything that does not follow from what the owner and the keys that the owner named
/// have signed. `branchline run`, which has the network and no privileges, talks to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The Unix socket to listen on
    #[arg(long, value_name = "PATH", default_value = "/run/branchline/installer.sock")]
    socket: PathBuf,
    /// The installer's own directory: journal, backups, kept images, what it has seen
    #[arg(long, value_name = "DIR", default_value = "/var/lib/branchline-installer")]
    state: PathBuf,
    /// The directory that stands for / of the host
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The key of the site's owner, who signs charters; nothing else is believed without proof
    #[arg(long, value_name = "KEY")]
    owner: PublicKey,
    /// A user, by number, who may connect beside root; the socket is given to the first
    #[arg(long = "allow-uid", value_name = "UID")]
    allowed_users: Vec<u32>,
    /// With another --root: run programs from it without chroot (for demos and tests; implied without privileges)
    #[arg(long)]
    outside: bool,
    /// End the agents too when the installer is told to end (for demos; a real host's agents go on)
    #[arg(long, hide = true)]
    end_agents: bool,
    /// End hard after that many entries of the journal, for tests of recovery
    #[arg(long, value_name = "COUNT", hide = true)]
    abort_after_entries: Option<u64>,
}

/// Runs until the process is ended.
///
/// # Errors
/// The state or the socket cannot be used.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.end_agents {
        end_agents_at_the_end(args.socket.clone())?;
    }
    let options = InstallerOptions {
        socket: args.socket,
        state: args.state,
        root: args.root,
        owner: args.owner,
        allowed_users: args.allowed_users,
        outside: args.outside,
        abort_after_entries: args.abort_after_entries,
    };
    install::run(&options)?;
    Ok(ExitCode::SUCCESS)
}

/// When this process is told to end, it first asks itself to stop the agents, and to keep them stopped.
fn end_agents_at_the_end(socket: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            runtime::shutdown_requested().await;
            let client = InstallerClient::new(socket);
            for _ in 0..STOP_TRIES {
                // While an installation is under way the answer is that it is busy.
                if let Ok(InstallerOutcome::Withdrawn { .. }) = client.outcome(&InstallerRequest::Stop).await {
                    break;
                }
                tokio::time::sleep(STOP_PAUSE).await;
            }
        });
        std::process::exit(0);
    })?;
    Ok(())
}
