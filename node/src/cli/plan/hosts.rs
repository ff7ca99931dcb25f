//! Plans of hosts that a running station knows.
use std::process::ExitCode;

use anyhow::{Result, bail};
use branchline_protocol::plan;
use serde_json::{Value, json};

use super::{Selector, summary::Summary};
use crate::{
    cli::node_arguments::NodeArguments,
    runtime::{self, HostPlan, KnownHost, NodeCommand, PlanFilter},
};

/// Asks the station for the plan of each host that `selector` means, and prints them.
///
/// # Errors
/// No station answers, a selector means no host, or a rule gives no answer.
pub fn run(node: &NodeArguments, selector: Selector, only_summary: bool) -> Result<ExitCode> {
    let (hosts, filter) = match selector {
        Selector::Hosts(hosts) => (hosts, PlanFilter::Every),
        Selector::All => (Vec::new(), PlanFilter::Every),
        Selector::Where(rule) => (Vec::new(), PlanFilter::Where(rule)),
        Selector::Group(name) => (Vec::new(), PlanFilter::Group(name)),
    };
    let single = hosts.len() == 1;
    let known: Vec<KnownHost> = runtime::call(&node.home, &NodeCommand::PlanHosts { hosts })?;
    let mut found = Vec::new();
    for host in known {
        let command = NodeCommand::Plan { node: host.node, filter: filter.clone() };
        let plan: HostPlan = match runtime::call::<HostPlan>(&node.home, &command) {
            Ok(plan) => plan,
            Err(error) => return Err(error.context(format!("planning for {}", host.host_name))),
        };
        if plan != HostPlan::LeftOut {
            found.push((host, plan));
        }
    }
    if found.is_empty() {
        bail!("no host is meant; `branchline sessions list` shows what the station knows");
    }
    let summary = Summary::of(&found);
    if node.json {
        let hosts: Vec<Value> =
            found.iter().filter(|_| !only_summary).map(|(host, plan)| as_json(host, plan)).collect();
        println!("{:#}", json!({ "hosts": hosts, "summary": summary }));
    } else if single {
        return show_one(found);
    } else {
        for (host, plan) in found.iter().filter(|_| !only_summary) {
            println!("== {}\n{}", host.host_name, as_text(plan));
        }
        print!("{summary}");
    }
    Ok(if summary.without.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One host is shown as its files would be.
fn show_one(found: Vec<(KnownHost, HostPlan)>) -> Result<ExitCode> {
    for (host, plan) in found {
        match plan {
            HostPlan::Refused { reason, .. } => bail!(reason),
            HostPlan::NotSurveyed { reason } => bail!("there is no plan for {}: {reason}", host.host_name),
            plan => print!("{}", as_text(&plan)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn as_text(found: &HostPlan) -> String {
    match found {
        HostPlan::Planned { plan, .. } => plan::render(plan),
        HostPlan::Refused { reason, .. } | HostPlan::NotSurveyed { reason } => format!("no plan: {reason}\n"),
        HostPlan::LeftOut => String::new(),
    }
}

fn as_json(host: &KnownHost, found: &HostPlan) -> Value {
    let mut value = match found {
        HostPlan::Planned { hash, plan } => json!({ "hash": hash, "plan": plan }),
        HostPlan::Refused { reason, conflicts, explanation } => {
            json!({ "refused": reason, "conflicts": conflicts, "explanation": explanation })
        }
        HostPlan::NotSurveyed { reason } => json!({ "refused": reason, "conflicts": [], "explanation": [] }),
        HostPlan::LeftOut => json!({}),
    };
    if let Some(fields) = value.as_object_mut() {
        fields.insert("host_name".to_owned(), json!(host.host_name));
        fields.insert("node".to_owned(), json!(host.node));
    }
    value
}
