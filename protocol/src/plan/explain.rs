//! Why a plan is as it is (R60).
use serde::{Deserialize, Serialize};

use super::types::{Plan, PlannedPackage, Step, StepUndo};
use crate::catalogue::StepAction;

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

/// The explanations as a list for people: `+` what is in the plan, `-` what is not.
pub(super) fn render_list(explanation: &[Explanation]) -> String {
    explanation.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(explanation: &Explanation) -> String {
    let sign = if explanation.chosen { '+' } else { '-' };
    let mut text = format!("{sign} {}: {}\n    rule: {}", explanation.subject, explanation.text, explanation.rule);
    if !explanation.fact.is_empty() {
        text.push_str(&format!("\n    fact: {}", explanation.fact));
    }
    text
}

/// The whole plan for people: what would be done, then why (R62).
pub fn render(plan: &Plan) -> String {
    let mut lines = vec![
        format!("Plan {}", plan.hash()),
        format!("for  {}", plan.node),
        format!(
            "from descriptor {}, catalogue {}, site policy {}",
            plan.descriptor.short(),
            plan.catalogue.0.short(),
            plan.policy.0.short()
        ),
    ];
    if let Some(group) = &plan.group {
        lines.push(format!("in   group {} ({}): one member at a time", group.name, group.members.join(", ")));
    }
    for package in &plan.packages {
        lines.push(String::new());
        lines.extend(package_lines(package));
    }
    lines.push("\nWhy\n".to_owned());
    lines.push(render_list(&plan.explanation));
    lines.join("\n") + "\n"
}

fn package_lines(package: &PlannedPackage) -> Vec<String> {
    let mut lines = vec![
        format!("{} {} ({})", package.name, package.version, package.file_name),
        format!("  payload    {} bytes over the line, {} unpacked", package.pack_bytes, package.raw_bytes),
    ];
    let modules: Vec<&str> = package.modules.iter().map(|module| module.name.as_str()).collect();
    lines.extend((!modules.is_empty()).then(|| format!("  modules    {}", modules.join(", "))));
    for threshold in &package.thresholds {
        lines.push(
            format!("  threshold  {} = {} {}", threshold.name, threshold.value, threshold.unit).trim_end().to_owned(),
        );
    }
    lines.extend(package.steps.iter().map(step_line));
    for file in &package.files {
        lines.push(format!("  file       {} (mode {:o}, {} bytes)", file.path, file.mode, file.content.len()));
    }
    if let Some(service) = &package.service {
        let command = [std::slice::from_ref(&service.program), &service.arguments[..]].concat().join(" ");
        lines.push(format!("  service    {}: {command}", service.name));
    }
    if let Some(health) = &package.health {
        let at = format!("http://{}:{}{}", health.address, health.port, health.http_path);
        lines.push(format!("  health     {at} within {} s", health.timeout_seconds));
    }
    for port in &package.ports {
        let scraped = if port.scrape { ", scraped" } else { "" };
        lines.push(format!("  port       {}{}{scraped}", port.port, port.http_path));
    }
    lines
}

fn step_line(step: &Step) -> String {
    let what = match &step.action {
        StepAction::Unpack { prefix } => format!("unpack to {prefix}"),
        StepAction::CreateUser { name, .. } => format!("create user {name}"),
        StepAction::CreateDirectory { path, .. } => format!("create directory {path}"),
        StepAction::WriteFile { path, .. } => format!("write {path}"),
        StepAction::RunCommand(command) => format!("run {} {}", command.program, command.arguments.join(" ")),
    };
    let undo = match &step.undo {
        StepUndo::RestorePaths => "undo: put paths back".to_owned(),
        StepUndo::RemoveUser => "undo: remove user".to_owned(),
        StepUndo::RunCommand(command) => format!("undo: run {} {}", command.program, command.arguments.join(" ")),
        StepUndo::Final => "FINAL: cannot be undone".to_owned(),
    };
    format!("  step       {} ({})", what.trim_end(), undo.trim_end())
}
