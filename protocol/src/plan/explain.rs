//! Why a plan is as it is (R60).
use serde::{Deserialize, Serialize};

/// One decision: what it was about, how it went, which rule and which fact decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What it is about: `package sample-agent 1.0`, `module nfs of sample-agent`, `threshold ... of ...`.
    pub subject: String,
    /// Whether it is part of the plan.
    pub chosen: bool,
    /// The rule that decided: CEL text, or the name of a standing rule.
    pub rule: String,
    /// The facts that it read, with their values.
    pub fact: String,
    /// A sentence for people.
    pub text: String,
}
