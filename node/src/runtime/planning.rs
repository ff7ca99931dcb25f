//! Dry runs: what hosts would get by the newest survey that the station keeps of each (R62).
//!
//! Nothing is fetched, kept, journaled or sent: the station's machine is asked, and files are read.
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use branchline_protocol::{
    catalogue::{Rule, rule::Facts},
    ids::{Hash, NodeId, PlanHash, SurveyHash},
    plan::{self, Conflict, Explanation, Plan, SelectionError},
    session::Stage,
    survey::Descriptor,
};
use branchline_station_role::station::SiteMachine;
use serde::{Deserialize, Serialize};

use super::{commands::is_meant, control::HostSelector, node::Node, station::StationContext};

/// Names in one error.
const NAMES_MAX: usize = 20;

/// A host that the station knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownHost {
    /// Its name.
    pub host_name: String,
    /// Its identity.
    pub node: NodeId,
}

/// Which of the named hosts are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanFilter {
    /// Every one.
    #[default]
    Every,
    /// Those of whose facts this holds.
    Where(Rule),
    /// The members of this cluster or high-availability pair (R5).
    Group(String),
}

/// What a dry run finds for one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPlan {
    /// What would be installed.
    Planned {
        /// The plan's hash; the session's would be the same.
        hash: PlanHash,
        /// The plan.
        plan: Box<Plan>,
    },
    /// Nothing would be installed.
    Refused {
        /// Why, in words.
        reason: String,
        /// What it conflicts with.
        conflicts: Vec<Conflict>,
        /// Why each package does not suit.
        explanation: Vec<Explanation>,
    },
    /// There is no survey to plan from.
    NotSurveyed {
        /// Why.
        reason: String,
    },
    /// The filter leaves it out.
    LeftOut,
}

/// The hosts that `selectors` mean, or all that are not withdrawn; sorted by name.
///
/// # Errors
/// A selector means none, or several.
pub async fn hosts(station: &StationContext, selectors: Vec<HostSelector>) -> Result<Vec<KnownHost>> {
    let known = station.handle.query(known).await?;
    let mut chosen = BTreeMap::new();
    for (host, stage) in &known {
        if selectors.is_empty() && *stage != Stage::Withdrawn {
            chosen.insert((host.host_name.clone(), host.node), host.clone());
        }
    }
    for selector in &selectors {
        let mut meant = known.iter().filter(|(host, _)| is_meant(selector, &host.host_name, host.node));
        match (meant.next(), meant.next()) {
            (Some((host, _)), None) => chosen.insert((host.host_name.clone(), host.node), host.clone()),
            (None, _) => bail!("no host is called {selector:?}; {}", names(&known)),
            (Some(_), Some(_)) => bail!("{selector:?} means several hosts; say the node identity"),
        };
    }
    Ok(chosen.into_values().collect())
}

fn known(machine: &SiteMachine) -> Vec<(KnownHost, Stage)> {
    let views = machine.station().sessions().filter(|view| view.is_current);
    views.map(|view| (KnownHost { host_name: view.host_name, node: view.session.node }, view.stage)).collect()
}

fn names(known: &[(KnownHost, Stage)]) -> String {
    if known.is_empty() {
        return "no host has reported to this station yet".to_owned();
    }
    let mut names: Vec<&str> = known.iter().map(|(host, _)| host.host_name.as_str()).collect();
    names.sort_unstable();
    let more = match names.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more; `branchline sessions list` shows all"),
    };
    names.truncate(NAMES_MAX);
    format!("this station knows {}{more}", names.join(", "))
}

/// What `host` would get.
///
/// # Errors
/// No catalogue or policy is here, or the filter's rule gives no answer for this host.
pub async fn plan(node: &Node, station: &StationContext, host: NodeId, filter: PlanFilter) -> Result<HostPlan> {
    let descriptor = match newest_survey(node, station, host).await {
        Ok(descriptor) => descriptor,
        Err(error) => return Ok(HostPlan::NotSurveyed { reason: format!("{error:#}") }),
    };
    let is_meant = match filter {
        PlanFilter::Every => true,
        PlanFilter::Where(rule) => rule.compile()?.holds(&Facts::new(descriptor.facts()))?,
        PlanFilter::Group(name) => plan::group_of(&descriptor).is_some_and(|group| group.name == name),
    };
    if !is_meant {
        return Ok(HostPlan::LeftOut);
    }
    let site = node.documents.site(&station.site).context("the site is not known")?;
    let documents = site.selection_documents();
    let ((catalogue, catalogue_hash), (policy, policy_hash)) =
        documents.context("nothing can be planned; publish it at headquarters")?;
    Ok(match plan::select(host, &descriptor, (&catalogue, catalogue_hash), (&policy, policy_hash)) {
        Ok(plan) => HostPlan::Planned { hash: plan.hash(), plan: Box::new(plan) },
        Err(error) => refused(&error),
    })
}

fn refused(error: &SelectionError) -> HostPlan {
    let reason = error.to_string();
    let (conflicts, explanation) = match error.clone() {
        SelectionError::Conflict(conflicts) => (conflicts, Vec::new()),
        SelectionError::NothingChosen(explanation) => (Vec::new(), explanation),
        _ => (Vec::new(), Vec::new()),
    };
    HostPlan::Refused { reason, conflicts, explanation }
}

/// The survey that a host's newest report names, or the last one that was read.
async fn newest_survey(node: &Node, station: &StationContext, host: NodeId) -> Result<Descriptor> {
    let (survey, descriptor): (Option<SurveyHash>, Option<Hash>) = station
        .handle
        .query(move |machine| {
            let session = machine.station().state().current(host).map(|(_, session)| session);
            session.map_or((None, None), |session| (session.survey, session.descriptor))
        })
        .await?;
    let Some(survey) = survey else {
        bail!("no survey of it has been reported yet; it is taken when its session opens")
    };
    if let Some(opened) = node.surveys.open_kept(survey) {
        return Ok(opened?);
    }
    let Some(descriptor) = descriptor else {
        bail!("its newest survey has not reached this station yet; it is fetched as the session goes on");
    };
    station.descriptor(descriptor)
}
