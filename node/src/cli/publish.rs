//! `branchline publish`: hand catalogue and site policy to headquarters.
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use branchline_protocol::{catalogue::SitePolicy, rates::BandwidthRules};
use serde_json::Value;

use crate::{
    config::Bundle,
    runtime::{self, DocumentKindName, NodeCommand},
};

/// Publish: sign site policy and bandwidth rules, and hand them, catalogue and release to headquarters, from where they spread
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Headquarters' home directory
    #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline")]
    home: PathBuf,
    /// A catalogue directory (catalogue.json and packs), as `branchline catalogue add` keeps it
    #[arg(long)]
    catalogue: Option<PathBuf>,
    /// A site policy: TOML to sign with the bundle's administrator key, or a signed JSON file (`init` makes an empty
    /// one, version 1, in the bundle)
    #[arg(long)]
    policy: Option<PathBuf>,
    /// Bandwidth rules: TOML to sign with the bundle's administrator key, or a signed JSON file
    #[arg(long)]
    bandwidth: Option<PathBuf>,
    /// A release, as `branchline init` and `branchline release` sign it: what public doors give away
    #[arg(long)]
    release: Option<PathBuf>,
    /// The offline bundle, where policy or rules are still to be signed
    #[arg(long)]
    bundle: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read, a rule is broken, or headquarters refuses.
pub fn run(args: Args) -> Result<ExitCode> {
    anyhow::ensure!(
        args.catalogue.is_some() || args.policy.is_some() || args.bandwidth.is_some() || args.release.is_some(),
        "say at least one of --catalogue DIR, --policy FILE, --bandwidth FILE and --release FILE"
    );
    let mut done = serde_json::Map::new();
    let mut say = |what: &str, published: Value, text: String| {
        if args.json {
            done.insert(what.to_owned(), published);
        } else {
            println!("{text}");
        }
    };
    if let Some(rules) = &args.bandwidth {
        let json = signed_form(rules, args.bundle.as_deref(), |text, bundle| {
            Ok(serde_json::to_string(&bundle.sign_bandwidth(&BandwidthRules::from_toml(text)?)?)?)
        })?;
        let command = NodeCommand::Document { kind: DocumentKindName::Bandwidth, json };
        let is_new = runtime::call(&args.home, &command)?;
        say("bandwidth_is_new", is_new, "the bandwidth rules are in force at headquarters and spread".to_owned());
    }
    if let Some(release) = &args.release {
        let json = std::fs::read_to_string(release).with_context(|| format!("reading {}", release.display()))?;
        let is_new = runtime::call(&args.home, &NodeCommand::Document { kind: DocumentKindName::Release, json })?;
        say("release_is_new", is_new, "the release spreads to the stations' public doors".to_owned());
    }
    if let Some(policy) = &args.policy {
        let json = signed_form(policy, args.bundle.as_deref(), |text, bundle| {
            Ok(serde_json::to_string(&bundle.sign_policy(&SitePolicy::from_toml(text)?)?)?)
        })?;
        let is_new = runtime::call(&args.home, &NodeCommand::Document { kind: DocumentKindName::Policy, json })?;
        say("policy_is_new", is_new, "the site policy is in force here and spreads".to_owned());
    }
    if let Some(directory) = &args.catalogue {
        let directory = directory.canonicalize().with_context(|| format!("reading {}", directory.display()))?;
        let published: Value = runtime::call(&args.home, &NodeCommand::Publish { directory })?;
        let text = format!("published: {}", super::printer::text(&published));
        say("catalogue", published, text);
    }
    if args.json {
        println!("{:#}", Value::Object(done));
    }
    Ok(ExitCode::SUCCESS)
}

/// The signed form of a document's file, which is JSON already or TOML that is signed now.
fn signed_form(
    path: &Path,
    bundle: Option<&Path>,
    sign: impl FnOnce(&str, &Bundle) -> Result<String>,
) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    if text.trim_start().starts_with('{') {
        return Ok(text);
    }
    let Some(bundle) = bundle else {
        bail!("{} is not signed yet: say --bundle DIR, whose administrator key signs it", path.display());
    };
    sign(&text, &Bundle::open(bundle)?).with_context(|| format!("signing {}", path.display()))
}
