//! `branchline publish`: hand catalogue and site policy to headquarters.
use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use branchline_protocol::catalogue::SitePolicy;
use serde_json::Value;

use crate::{
    config::Bundle,
    runtime::{self, DocumentKindName, NodeCommand},
};

/// Publish: sign a site policy, and hand catalogue and policy to headquarters, from where they spread
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Headquarters' home directory
    #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline")]
    home: PathBuf,
    /// A catalogue directory (catalogue.json and packs), as `branchline catalogue add` keeps it
    #[arg(long)]
    catalogue: Option<PathBuf>,
    /// A site policy: TOML to sign with the bundle's administrator key, or a signed JSON file
    #[arg(long)]
    policy: Option<PathBuf>,
    /// The offline bundle, where the policy is still to be signed
    #[arg(long)]
    bundle: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read, a rule is broken, or headquarters refuses.
pub fn run(args: Args) -> Result<ExitCode> {
    anyhow::ensure!(args.catalogue.is_some() || args.policy.is_some(), "say --catalogue DIR, --policy FILE, or both");
    if let Some(policy) = &args.policy {
        let text = std::fs::read_to_string(policy).with_context(|| format!("reading {}", policy.display()))?;
        let json = match &args.bundle {
            None => text,
            Some(bundle) => {
                let policy = SitePolicy::from_toml(&text).with_context(|| format!("reading {}", policy.display()))?;
                serde_json::to_string(&Bundle::open(bundle)?.sign_policy(&policy)?)?
            }
        };
        let _: Value = runtime::call(&args.home, &NodeCommand::Document { kind: DocumentKindName::Policy, json })?;
        println!("the site policy is in force at headquarters and spreads");
    }
    if let Some(directory) = args.catalogue {
        let directory = directory.canonicalize().with_context(|| format!("reading {}", directory.display()))?;
        let published: Value = runtime::call(&args.home, &NodeCommand::Publish { directory })?;
        println!("published: {}", super::printer::text(&published));
    }
    Ok(ExitCode::SUCCESS)
}
