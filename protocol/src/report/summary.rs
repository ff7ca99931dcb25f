//! The install report: a fold of a host's events (R85, R95).
use serde::Serialize;

use super::event::{EventBody, ReportEvent, StepOutcome};
use crate::{
    ids::{ImageId, PackId, PlanHash},
    time::UnixSeconds,
};

/// One step of the installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepSummary {
    /// From 1.
    pub step: u32,
    /// What it does.
    pub title: String,
    /// When it began.
    pub began_at: UnixSeconds,
    /// When it ended, and how; `None` while it runs.
    pub ended: Option<(UnixSeconds, StepOutcome)>,
    /// What it wrote, verbatim.
    pub output: String,
}

/// One pack that the host received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackSummary {
    /// Which.
    pub pack: PackId,
    /// When it was complete.
    pub at: UnixSeconds,
    /// Frame bytes over the WAN.
    pub wan_bytes: u64,
    /// Frame bytes from inside the site.
    pub lan_bytes: u64,
}

/// How the host's part went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not over.
    #[default]
    UnderWay,
    /// Installed and started.
    Installed,
    /// Refused, and why.
    Refused(String),
    /// Failed, why, and whether all is as before.
    Failed {
        /// What failed.
        reason: String,
        /// Everything is as before.
        rolled_back: bool,
    },
    /// Stopped or removed.
    Withdrawn {
        /// Whether the files were removed too.
        uninstalled: bool,
    },
}

/// What happened on one host in one generation: what, when, how it ended, and what the installers wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InstallReport {
    /// When the first event happened.
    pub began_at: Option<UnixSeconds>,
    /// When the last one did.
    pub last_at: Option<UnixSeconds>,
    /// The plan that the host accepted.
    pub plan: Option<PlanHash>,
    /// What is installed.
    pub images: Vec<ImageId>,
    /// Packs in the order of their completion.
    pub packs: Vec<PackSummary>,
    /// Steps in the order of their beginning; a plan that was carried out twice has them twice.
    pub steps: Vec<StepSummary>,
    /// The last check from inside: what was looked at, and what was not as planned.
    pub checks: Vec<(String, Option<String>)>,
    /// Notes and difficulties (R83).
    pub notes: Vec<(UnixSeconds, String)>,
    /// How it went.
    pub outcome: Outcome,
}

impl InstallReport {
    /// The report that these events make.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a ReportEvent>) -> Self {
        let mut report = Self::default();
        for event in events {
            report.add(event);
        }
        report
    }

    /// Adds the next event.
    pub fn add(&mut self, event: &ReportEvent) {
        let at = event.at;
        self.began_at = self.began_at.or(Some(at));
        self.last_at = Some(at);
        match &event.body {
            EventBody::Surveyed => self.note(at, "Surveyed."),
            EventBody::PlanAccepted(plan) => self.plan = Some(*plan),
            EventBody::Refused(reason) => self.outcome = Outcome::Refused(reason.clone()),
            EventBody::PackComplete { pack, wan_bytes, lan_bytes } => {
                let (pack, wan_bytes, lan_bytes) = (*pack, *wan_bytes, *lan_bytes);
                self.packs.push(PackSummary { pack, at, wan_bytes, lan_bytes });
            }
            EventBody::StepStarted { step, title, .. } => {
                let (step, title) = (*step, title.clone());
                self.steps.push(StepSummary { step, title, began_at: at, ended: None, output: String::new() });
            }
            EventBody::Output { step, text } => match self.step(*step) {
                Some(found) => found.output.push_str(text),
                None => self.note(at, text),
            },
            EventBody::StepEnded { step, outcome } => {
                if let Some(found) = self.step(*step) {
                    found.ended = Some((at, outcome.clone()));
                }
            }
            EventBody::Installed { plan, images } => {
                self.plan = Some(*plan);
                self.images.clone_from(images);
                self.outcome = Outcome::Installed;
            }
            EventBody::InstallFailed { reason, rolled_back } => {
                self.outcome = Outcome::Failed { reason: reason.clone(), rolled_back: *rolled_back };
            }
            EventBody::Checked { checks } => self.checks.clone_from(checks),
            EventBody::Withdrawn { uninstalled } => {
                self.outcome = Outcome::Withdrawn { uninstalled: *uninstalled };
            }
            EventBody::Note(text) | EventBody::Unknown(text) => self.note(at, text),
            EventBody::CorruptFrame { peer, pack } => {
                self.note(at, &format!("{peer} served a corrupt frame of pack {pack}; it was dropped."));
            }
        }
    }

    /// Frame bytes over the WAN and from inside the site.
    pub fn bytes(&self) -> (u64, u64) {
        self.packs
            .iter()
            .fold((0, 0), |(wan, lan), pack| (wan.saturating_add(pack.wan_bytes), lan.saturating_add(pack.lan_bytes)))
    }

    /// The latest step with this number.
    fn step(&mut self, step: u32) -> Option<&mut StepSummary> {
        self.steps.iter_mut().rev().find(|found| found.step == step)
    }

    fn note(&mut self, at: UnixSeconds, text: &str) {
        self.notes.push((at, text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Hash;

    #[test]
    fn a_report_tells_steps_output_and_outcome() {
        let plan = PlanHash(Hash::of(b"plan"));
        let bodies = [
            EventBody::Surveyed,
            EventBody::PlanAccepted(plan),
            EventBody::PackComplete { pack: PackId(Hash::of(b"pack")), wan_bytes: 7, lan_bytes: 5 },
            EventBody::StepStarted { step: 1, steps: 2, title: "unpack".into() },
            EventBody::Output { step: 1, text: "Unpacking agent ...\n".into() },
            EventBody::Output { step: 1, text: "done\n".into() },
            EventBody::StepEnded { step: 1, outcome: StepOutcome::Done },
            EventBody::StepStarted { step: 2, steps: 2, title: "start".into() },
            EventBody::StepEnded { step: 2, outcome: StepOutcome::Failed("exit status 3".into()) },
            EventBody::InstallFailed { reason: "step 2: exit status 3".into(), rolled_back: true },
        ];
        let events: Vec<_> = bodies
            .into_iter()
            .zip(1..)
            .map(|(body, number)| ReportEvent { number, at: UnixSeconds(100 + number), body })
            .collect();
        let report = InstallReport::of(&events);
        assert_eq!(report.bytes(), (7, 5));
        assert_eq!(report.steps[0].output, "Unpacking agent ...\ndone\n");
        insta::assert_json_snapshot!(report);
    }
}
