//! A scripted installer: some steps with progress, then success, or a failure that is rolled back.
use std::time::Duration;

use branchline_protocol::{
    ids::{ImageId, PlanHash},
    report::{EventBody, StepOutcome},
    session::InstallerEvent,
};

use super::chance::Chance;

/// How installations go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstallerScript {
    /// Installations that fail and are rolled back, in thousandths.
    pub fails_per_mille: u32,
    /// Steps of a plan.
    pub steps: u32,
    /// Shortest step.
    pub step_shortest: Duration,
    /// Longest step.
    pub step_longest: Duration,
}

/// The privileged process of one host: a process of its own with a journal of its own, so that what it finished
/// survives a crash of the host and is told again (it is idempotent by plan hash).
#[derive(Clone, Debug, Default)]
pub struct Installer {
    done: Option<(PlanHash, Vec<ImageId>)>,
}

impl Installer {
    /// What the installer says about a plan, and when, counted from now. `lucky` installations never fail.
    pub fn carry_out(
        &mut self,
        plan: PlanHash,
        images: &[ImageId],
        script: &InstallerScript,
        chance: &mut Chance,
        lucky: bool,
    ) -> Vec<(Duration, InstallerEvent)> {
        if let Some((done, images)) = &self.done
            && *done == plan
        {
            return vec![(Duration::from_millis(1), InstallerEvent::Done { plan, images: images.clone() })];
        }
        let mut at = Duration::ZERO;
        let mut said = Vec::new();
        let fails = !lucky && chance.happens(script.fails_per_mille);
        let last = if fails { 1 + chance.below(u64::from(script.steps)) } else { u64::from(script.steps) };
        let mut number = 0;
        for step in 1..=u32::try_from(last).unwrap_or(1) {
            number += 1;
            let title = format!("step {step}");
            let body = EventBody::StepStarted { step, steps: script.steps, title };
            said.push((at, InstallerEvent::Event { number, body }));
            at += chance.between(script.step_shortest, script.step_longest);
            number += 1;
            let failed = fails && u64::from(step) == last;
            let outcome = if failed { StepOutcome::Failed("exit status 1".into()) } else { StepOutcome::Done };
            said.push((at, InstallerEvent::Event { number, body: EventBody::StepEnded { step, outcome } }));
        }
        said.push((at, self.end(plan, images, fails)));
        said
    }

    fn end(&self, plan: PlanHash, images: &[ImageId], fails: bool) -> InstallerEvent {
        if fails {
            InstallerEvent::Failed { plan, reason: "dpkg ended with exit status 1".into(), rolled_back: true }
        } else {
            InstallerEvent::Done { plan, images: images.to_vec() }
        }
    }

    /// The installer's own journal takes the end of an installation before it is told.
    pub fn note(&mut self, event: &InstallerEvent) {
        if let InstallerEvent::Done { plan, images } = event {
            self.done = Some((*plan, images.clone()));
        }
    }

    /// Whether a plan is installed.
    pub fn holds(&self, plan: PlanHash) -> bool {
        self.done.as_ref().is_some_and(|(done, _)| *done == plan)
    }
}
