//! The arguments of every command that asks a running node.
use std::path::PathBuf;

/// Which node is asked, and how its answer is printed.
#[derive(Debug, clap::Args)]
pub struct NodeArguments {
    /// The node's home directory
    #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline", global = true)]
    pub home: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}
