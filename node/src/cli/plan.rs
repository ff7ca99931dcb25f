//! `branchline plan`: what would be installed on a host, and why. Changes nothing (R62).
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use branchline_protocol::{
    catalogue::{Catalogue, DocumentMemory, SitePolicy},
    charter::{Authority, Charter, Signed},
    ids::NodeId,
    plan::{self, SelectionError},
    survey::Descriptor,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::runtime::wall_time;

/// Show what would be installed on a surveyed host, and why; changes nothing
///
/// The plan follows from the descriptor, the signed catalogue and the signed site policy alone. Exit code 1 where there is
/// no plan: a conflict, or nothing that suits.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host's descriptor, as `branchline survey` writes it
    #[arg(long, value_name = "FILE")]
    descriptor: PathBuf,
    /// The signed catalogue (catalogue.json)
    #[arg(long, value_name = "FILE")]
    catalogue: PathBuf,
    /// The signed site policy (policy.json)
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The signed charter, whose keys must have signed the two
    #[arg(long, value_name = "FILE")]
    charter: PathBuf,
    /// The host's node identity, which is part of the plan's hash; without it the hash is of no host's plan
    #[arg(long)]
    node: Option<NodeId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A file is missing or malformed, or a signature does not hold.
pub fn run(args: &Args) -> Result<ExitCode> {
    let xml = fs::read(&args.descriptor).with_context(|| format!("reading {}", args.descriptor.display()))?;
    let descriptor = Descriptor::parse(&xml).with_context(|| format!("reading {}", args.descriptor.display()))?;
    let charter: Signed<Charter> = read(&args.charter, "signed charter")?;
    let authority = Authority::establish(charter.signer(), charter)
        .with_context(|| format!("reading the charter {}", args.charter.display()))?;
    let catalogue: Signed<Catalogue> = read(&args.catalogue, "signed catalogue")?;
    let policy: Signed<SitePolicy> = read(&args.policy, "signed site policy")?;
    let (mut memory, now) = (DocumentMemory::default(), wall_time());
    let accepted_catalogue = memory.accept_catalogue(authority.charter(), &catalogue, now)?;
    let accepted_policy = memory.accept_policy(authority.charter(), &policy, now)?;
    let selected = plan::select(
        args.node.unwrap_or(NodeId([0; 32])),
        &descriptor,
        (&accepted_catalogue, catalogue.hash()),
        (&accepted_policy, policy.hash()),
    );
    match selected {
        Ok(plan) if args.json => println!("{:#}", json!({ "hash": plan.hash(), "plan": plan })),
        Ok(plan) => print!("{}", plan::render(&plan)),
        Err(error) if args.json => {
            println!("{:#}", refusal(&error));
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn refusal(error: &SelectionError) -> serde_json::Value {
    let (conflicts, explanation) = match error {
        SelectionError::Conflict(conflicts) => (json!(conflicts), json!([])),
        SelectionError::NothingChosen(explanation) => (json!([]), json!(explanation)),
        _ => (json!([]), json!([])),
    };
    json!({ "refused": error.to_string(), "conflicts": conflicts, "explanation": explanation })
}

fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("reading the {what} {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no {what}", path.display()))
}
