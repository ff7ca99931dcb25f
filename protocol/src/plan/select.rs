//! Selection: from four documents to one plan, or to the reasons why there is none (R60-R63).
//!
//! 1. For every package name the highest version is chosen that the site policy allows, whose `select` rule holds (or that
//!    the policy wants) and that runs on the host.
//! 2. Conflicts of what was chosen are collected; one is enough to stop here, before any download (R61).
//! 3. Modules, thresholds and templates are filled in.
//!
//! Nothing but the arguments counts, and the order of entries in the catalogue does not: the plan is the same wherever it
//! is computed.
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{
    choose,
    complete::complete,
    conflicts,
    explain::Explanation,
    types::{HostGroup, Plan},
};
use crate::{
    catalogue::{Catalogue, Rule, RuleError, SitePolicy, rule::Facts},
    ids::{DocumentHash, Hash, NodeId},
    limits,
    survey::Descriptor,
};

/// Something that stops an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The package that cannot be installed.
    pub package: String,
    /// The rule that found it: CEL text, or the name of a standing rule.
    pub rule: String,
    /// The fact that decided.
    pub fact: String,
    /// Why, and what to do about it.
    pub text: String,
}

/// Why there is no plan.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SelectionError {
    /// The host conflicts with what was chosen for it.
    #[error("conflicts stop the installation before any download:\n{}", list(.0))]
    Conflict(Vec<Conflict>),
    /// Nothing in the catalogue suits the host.
    #[error("no package of the catalogue suits this host:\n{}", super::explain::render_list(.0))]
    NothingChosen(Vec<Explanation>),
    /// A rule gives no answer.
    #[error("{subject}: {error}")]
    Rule {
        /// Where the rule stands.
        subject: String,
        /// What went wrong.
        error: RuleError,
    },
    /// A rule or template gives something that cannot be used.
    #[error("{subject}: {reason}")]
    Value {
        /// Where it stands.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn list(conflicts: &[Conflict]) -> String {
    let line = |conflict: &Conflict| {
        format!("- {}: {} (rule: {}; fact: {})", conflict.package, conflict.text, conflict.rule, conflict.fact)
    };
    conflicts.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What the parts of selection share.
pub(super) struct Scope<'a> {
    pub(super) descriptor: &'a Descriptor,
    pub(super) facts: Facts,
    pub(super) policy: &'a SitePolicy,
    pub(super) explanation: Vec<Explanation>,
}

impl Scope<'_> {
    /// Evaluates a rule and says what it read.
    pub(super) fn evaluate(&self, rule: &Rule, subject: &str) -> Result<(Value, String), SelectionError> {
        let wrong = |error| SelectionError::Rule { subject: subject.to_owned(), error };
        let compiled = rule.compile().map_err(wrong)?;
        Ok((compiled.evaluate(&self.facts).map_err(wrong)?, compiled.facts_read(&self.facts)))
    }

    /// Evaluates a rule that must be true or false.
    pub(super) fn holds(&self, rule: &Rule, subject: &str) -> Result<(bool, String), SelectionError> {
        match self.evaluate(rule, subject)? {
            (Value::Bool(holds), fact) => Ok((holds, fact)),
            (other, _) => {
                let reason = format!("the rule `{rule}` must be true or false, but gives {other}");
                Err(SelectionError::Value { subject: subject.to_owned(), reason })
            }
        }
    }

    /// Whether a wish of the site applies to this host.
    pub(super) fn applies(&self, when: Option<&Rule>, subject: &str) -> Result<bool, SelectionError> {
        when.map_or(Ok(true), |rule| Ok(self.holds(rule, subject)?.0))
    }

    pub(super) fn explain(&mut self, chosen: bool, subject: String, rule: &str, fact: String, text: String) {
        if self.explanation.len() < limits::EXPLANATIONS_MAX {
            self.explanation.push(Explanation { subject, chosen, rule: rule.to_owned(), fact, text });
        }
    }
}

/// Computes the plan of one host.
///
/// Each document comes with the hash of its signed form, which becomes part of the plan. Whether the documents are signed,
/// and new enough, is [`crate::catalogue::DocumentMemory`]'s matter.
///
/// # Errors
/// Conflicts, nothing that suits, or a rule that gives no usable answer for this host; see [`SelectionError`].
pub fn select(
    node: NodeId,
    descriptor: &Descriptor,
    catalogue: (&Catalogue, DocumentHash),
    policy: (&SitePolicy, DocumentHash),
) -> Result<Plan, SelectionError> {
    let facts = Facts::new(descriptor.facts());
    let mut scope = Scope { descriptor, facts, policy: policy.0, explanation: Vec::new() };
    let (chosen, mut conflicts) = choose::choose(&mut scope, catalogue.0)?;
    conflicts.extend(conflicts::find(&mut scope, &chosen)?);
    if !conflicts.is_empty() {
        return Err(SelectionError::Conflict(conflicts));
    }
    if chosen.is_empty() {
        return Err(SelectionError::NothingChosen(scope.explanation));
    }
    let packages = chosen.iter().map(|package| complete(&mut scope, package)).collect::<Result<Vec<_>, _>>()?;
    let conflicts = conflicts::between(&packages);
    if !conflicts.is_empty() {
        return Err(SelectionError::Conflict(conflicts));
    }
    let plan = Plan {
        node,
        descriptor: Hash(*descriptor.content_hash().as_bytes()),
        catalogue: catalogue.1,
        policy: policy.1,
        group: group(&scope.facts),
        packages,
        explanation: scope.explanation,
    };
    check_length(plan)
}

fn check_length(plan: Plan) -> Result<Plan, SelectionError> {
    let length = serde_json::to_vec(&plan).map_or(usize::MAX, |bytes| bytes.len());
    if length <= limits::PLAN_BYTES_MAX {
        return Ok(plan);
    }
    let reason = format!("it has {length} bytes; at most {} are allowed", limits::PLAN_BYTES_MAX);
    Err(SelectionError::Value { subject: "the plan".to_owned(), reason })
}

/// The cluster or high-availability pair that a survey found, where it can be told from others (R5).
pub fn group_of(descriptor: &Descriptor) -> Option<HostGroup> {
    group(&Facts::new(descriptor.facts()))
}

/// The cluster or pair that the survey found, where it can be told from others (R5).
fn group(facts: &Facts) -> Option<HostGroup> {
    let texts = |field: &str| -> Vec<String> {
        let lists = ["cluster", "high_availability"].map(|part| facts.at(&[part, field]).and_then(Value::as_array));
        let texts = lists.into_iter().flatten().flatten().filter_map(|entry| entry.as_str().map(str::to_owned));
        texts.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    };
    let (names, members) = (texts("names"), texts("members"));
    let name = names.into_iter().next().unwrap_or_else(|| members.join("+"));
    (!name.is_empty()).then_some(HostGroup { name, members })
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
