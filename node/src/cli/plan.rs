//! `branchline plan`: what would be installed on a host, and why. Changes nothing (R62).
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use branchline_protocol::{
    catalogue::{Catalogue, DocumentMemory, Rule, SitePolicy},
    charter::{Authority, Charter, Signed},
    ids::NodeId,
    plan::{self, SelectionError},
    survey::Descriptor,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::node_arguments::NodeArguments;
use crate::runtime::{HostSelector, wall_time};

mod hosts;
mod summary;

/// Show what would be installed on hosts, and why; changes nothing
///
/// Of hosts that the running station knows: by name, all, those of whose survey a rule holds, or a cluster. Each is planned by
/// the newest survey that the station keeps of it, with the catalogue and the site policy that the station holds. Or of a
/// descriptor in a file, with signed documents in files and no node. Exit code 1 where a host has no plan: a conflict,
/// nothing that suits, or no survey yet.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["hosts", "all", "rule", "group", "descriptor"]))]
pub struct Args {
    /// Hosts that the station knows: a name, a node identity, or the end of one
    hosts: Vec<HostSelector>,
    /// Every host of the site that is not withdrawn
    #[arg(long)]
    all: bool,
    /// The hosts of whose facts this rule (CEL) holds: 'os.id == "debian"'
    #[arg(long = "where", value_name = "RULE")]
    rule: Option<String>,
    /// The members of a cluster or high-availability pair, by its name
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Print what all plans come to, and not each of them
    #[arg(long, conflicts_with = "descriptor")]
    summary: bool,
    /// A descriptor in a file, as `branchline survey` writes it
    #[arg(long, value_name = "FILE", requires_all = ["catalogue", "policy", "charter"])]
    descriptor: Option<PathBuf>,
    #[command(flatten)]
    documents: DocumentFiles,
    #[command(flatten)]
    asked: NodeArguments,
}

/// Arguments that mean hosts of the station. They exclude the files' arguments one by one: clap asks for no argument that
/// conflicts with another.
const KNOWN_HOSTS: [&str; 4] = ["hosts", "all", "rule", "group"];

/// What a plan of a descriptor in a file follows from besides.
#[derive(Debug, clap::Args)]
struct DocumentFiles {
    /// The signed catalogue (catalogue.json)
    #[arg(long, value_name = "FILE", requires = "descriptor", conflicts_with_all = KNOWN_HOSTS)]
    catalogue: Option<PathBuf>,
    /// The signed site policy (policy.json)
    #[arg(long, value_name = "FILE", requires = "descriptor", conflicts_with_all = KNOWN_HOSTS)]
    policy: Option<PathBuf>,
    /// The signed charter, whose keys must have signed the two
    #[arg(long, value_name = "FILE", requires = "descriptor", conflicts_with_all = KNOWN_HOSTS)]
    charter: Option<PathBuf>,
    /// The host's node identity, which is part of the plan's hash; without it the hash is of no host's plan
    #[arg(long, requires = "descriptor", conflicts_with_all = KNOWN_HOSTS)]
    node: Option<NodeId>,
}

/// Which hosts of the station are meant.
enum Selector {
    Hosts(Vec<HostSelector>),
    All,
    Where(Rule),
    Group(String),
}

/// Runs the command.
///
/// # Errors
/// A file is missing or malformed, a signature does not hold, no station answers, or no host is meant.
pub fn run(args: Args) -> Result<ExitCode> {
    let Args { hosts, all, rule, group, summary, descriptor, documents, asked } = args;
    let selector = match (descriptor, rule, group) {
        (Some(descriptor), ..) => return plan_of_files(&descriptor, &documents, asked.json),
        (None, Some(rule), _) => {
            let rule = Rule::try_from(rule).context("--where")?;
            rule.compile().context("--where")?;
            Selector::Where(rule)
        }
        (None, None, Some(group)) => Selector::Group(group),
        (None, None, None) if all => Selector::All,
        (None, None, None) => Selector::Hosts(hosts),
    };
    hosts::run(&asked, selector, summary)
}

fn plan_of_files(descriptor_file: &Path, files: &DocumentFiles, json: bool) -> Result<ExitCode> {
    let xml = fs::read(descriptor_file).with_context(|| format!("reading {}", descriptor_file.display()))?;
    let descriptor = Descriptor::parse(&xml).with_context(|| format!("reading {}", descriptor_file.display()))?;
    let charter: Signed<Charter> = read(files.charter.as_deref(), "signed charter")?;
    let authority = Authority::establish(charter.signer(), charter).context("reading the charter")?;
    let catalogue: Signed<Catalogue> = read(files.catalogue.as_deref(), "signed catalogue")?;
    let policy: Signed<SitePolicy> = read(files.policy.as_deref(), "signed site policy")?;
    let (mut memory, now) = (DocumentMemory::default(), wall_time());
    let accepted_catalogue = memory.accept_catalogue(authority.charter(), &catalogue, now)?;
    let accepted_policy = memory.accept_policy(authority.charter(), &policy, now)?;
    let selected = plan::select(
        files.node.unwrap_or(NodeId([0; 32])),
        &descriptor,
        (&accepted_catalogue, catalogue.hash()),
        (&accepted_policy, policy.hash()),
    );
    match selected {
        Ok(plan) if json => println!("{:#}", json!({ "hash": plan.hash(), "plan": plan })),
        Ok(plan) => print!("{}", plan::render(&plan)),
        Err(error) if json => {
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

fn read<T: DeserializeOwned>(path: Option<&Path>, what: &str) -> Result<T> {
    let path = path.with_context(|| format!("the {what} is missing"))?;
    let text = fs::read(path).with_context(|| format!("reading the {what} {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "plan", max_term_width = 100)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parses(line: &str) -> bool {
        Line::try_parse_from(std::iter::once("plan").chain(line.split_whitespace())).is_ok()
    }

    #[test]
    fn hosts_a_rule_or_files_are_named_and_never_two_of_them() {
        let files = "--catalogue c.json --policy p.json --charter h.json";
        assert!(parses("till-1") && parses("till-1 till-2 --json") && parses("--all --summary"));
        assert!(parses("--where os.id=='debian'") && parses("--group till-pair"));
        assert!(parses(&format!("--descriptor host.xml {files}")));
        assert!(!parses("") && !parses("--summary") && !parses("till-1 --all") && !parses("--all --group a"));
        assert!(!parses("--descriptor host.xml --catalogue c.json") && !parses(&format!("till-1 {files}")));
        assert!(!parses(&format!("--descriptor host.xml {files} till-1")) && !parses(&format!("--all {files}")));
    }

    #[test]
    fn the_help_says_everything() {
        let mut command = Line::command().mut_arg("home", |home| home.hide_env_values(true));
        insta::assert_snapshot!(command.render_long_help().to_string());
    }
}
