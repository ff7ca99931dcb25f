//! A host's effects: survey, plan, packs, installer, reports.
use std::sync::Arc;

use anyhow::Result;
use branchline_protocol::{
    ids::{DocumentHash, Hash, NodeId, PlanHash, SiteName},
    plan::{self, Plan},
    refusal::RefusalKind,
    report::EventBody,
    session::{HostInput, HostMachine, HostOutput, HostReport, InstallerEvent},
    wire::control::{ControlAnswer, ControlRequest, DocumentKind},
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    node::Node,
    pump::{Effects, PumpHandle},
    wall_time,
};
use crate::{
    config::write_atomically,
    install::{
        InstallOrder, InstallerClient, InstallerEvent as Said, InstallerOutcome, InstallerRequest, OfferedPack,
        SocketError,
    },
    mesh::{MeshError, as_refusal},
};

/// Carries out what a host's session wants.
pub struct HostEffects {
    context: Arc<HostContext>,
    /// The one piece of work that is under way, besides reports (a newer one replaces it, except an installation).
    work: Option<JoinHandle<()>>,
}

struct HostContext {
    handle: PumpHandle<HostMachine>,
    node: Arc<Node>,
    site: SiteName,
    installer: InstallerClient,
}

impl HostEffects {
    /// The effects of the host that `node` is in `site`.
    pub fn new(handle: PumpHandle<HostMachine>, node: Arc<Node>, site: SiteName, installer: InstallerClient) -> Self {
        Self { context: Arc::new(HostContext { handle, node, site, installer }), work: None }
    }

    fn start(&mut self, work: impl Future<Output = HostInput> + Send + 'static) {
        if let Some(before) = self.work.take() {
            before.abort();
        }
        let handle = self.context.handle.clone();
        self.work = Some(tokio::spawn(async move { handle.input(work.await).await }));
    }
}

impl Effects<HostMachine> for HostEffects {
    fn perform(&mut self, output: HostOutput) {
        let context = Arc::clone(&self.context);
        match output {
            HostOutput::SendReport(report) => {
                tokio::spawn(async move { context.send_report(report).await });
            }
            HostOutput::RunSurvey => self.start(async move { context.run_survey().await }),
            HostOutput::ComputePlan { plan, catalogue, policy, descriptor } => {
                self.start(async move { context.compute_plan(plan, catalogue, policy, descriptor).await });
            }
            HostOutput::FetchPacks(packs) => {
                tokio::spawn(async move { context.node.packs.want(packs).await });
            }
            HostOutput::Install { plan } => self.start(async move { context.install(plan).await }),
            HostOutput::Verify { plan } => self.start(async move { context.verify(plan).await }),
            HostOutput::Stop => self.start(async move { context.withdraw(InstallerRequest::Stop).await }),
            HostOutput::Uninstall => self.start(async move { context.withdraw(InstallerRequest::Uninstall).await }),
            HostOutput::Revert { plan } => self.start(async move { context.revert(plan).await }),
            HostOutput::SaveReport { generation, html, mapped } => {
                let input = match context.save_report(generation, &html) {
                    Ok(()) => HostInput::ReportSaved,
                    Err(error) => HostInput::WorkFailed { reason: format!("{error:#}") },
                };
                match mapped {
                    Some(mapped) => tracing::info!(%mapped, "this host is complete; its report is kept"),
                    None => tracing::info!("the session ended without success; its report is kept"),
                }
                tokio::spawn(async move { context.handle.input(input).await });
            }
            HostOutput::ShowOperator(text) => tracing::info!("{text}"),
        }
    }
}

impl HostContext {
    fn station(&self) -> Option<NodeId> {
        Some(self.node.documents.authority(&self.site)?.charter().station.node)
    }

    async fn send_report(&self, report: Box<HostReport>) {
        let Some(station) = self.station() else { return };
        let answer = match (station == self.node.documents.node(), self.node.station()) {
            (false, _) => self.node.mesh.request(station, ControlRequest::Report(report)).await,
            (true, None) => return,
            (true, Some(own)) => {
                let (sender, receiver) = oneshot::channel();
                own.take_report(station, report, sender).await;
                receiver.await.map_err(|_| MeshError::Ending)
            }
        };
        match answer {
            Ok(ControlAnswer::Directive(directive)) => self.handle.input(HostInput::Directive(directive)).await,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the report did not reach the station; it is repeated"),
        }
    }

    /// Every generation has a report of its own; `report.html` is the newest.
    fn save_report(&self, generation: u32, html: &str) -> Result<()> {
        let directory = self.node.home.directory("reports")?;
        for name in [format!("generation-{generation}.html"), "report.html".to_owned()] {
            write_atomically(&directory.join(name), html.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    async fn run_survey(&self) -> HostInput {
        match self.node.surveys.survey(&self.site).await {
            Ok(own) => HostInput::Surveyed { sealed: own.sealed, descriptor: own.descriptor, changes: own.changes },
            Err(error) => HostInput::WorkFailed { reason: format!("the survey failed: {error:#}") },
        }
    }

    /// The host computes the plan itself from documents that it verified itself (R62).
    async fn compute_plan(
        &self,
        ordered: PlanHash,
        catalogue: DocumentHash,
        policy: DocumentHash,
        descriptor: Hash,
    ) -> HostInput {
        for (kind, wanted) in [(DocumentKind::Catalogue, catalogue), (DocumentKind::Policy, policy)] {
            match self.have_document(kind, wanted).await {
                Ok(()) => {}
                Err(input) => return input,
            }
        }
        match self.own_plan(descriptor) {
            Ok(plan) if plan.hash() == ordered => HostInput::PlanComputed { plan: plan.hash(), packs: plan.packs() },
            Ok(plan) => HostInput::PlanRefused {
                reason: format!(
                    "the station ordered plan {ordered}, but the signed catalogue, the signed site policy and this \
                     host's own descriptor give plan {}; nothing is installed",
                    plan.hash()
                ),
            },
            Err(error) => HostInput::PlanRefused { reason: format!("{error:#}") },
        }
    }

    /// Makes sure that the newest accepted document of a kind is the ordered one; asks the station for it if not.
    async fn have_document(&self, kind: DocumentKind, wanted: DocumentHash) -> Result<(), HostInput> {
        let held = || {
            let site = self.node.documents.site(&self.site)?;
            let held = match kind {
                DocumentKind::Catalogue => site.memory.catalogue(),
                _ => site.memory.policy(),
            };
            held.map(|(_, hash)| hash)
        };
        if held() == Some(wanted) {
            return Ok(());
        }
        let Some(station) = self.station() else {
            return Err(HostInput::WorkFailed { reason: "the site is not known".to_owned() });
        };
        match self.node.mesh.request(station, ControlRequest::Document(kind)).await {
            Ok(ControlAnswer::Document(_, json)) => {
                if let Err(error) = self.node.documents.take(&self.site, kind, &json, wall_time()) {
                    let refusal = as_refusal(&error);
                    let reason = format!("the station offers a {kind:?} that is not accepted: {refusal}");
                    return Err(match refusal.kind {
                        RefusalKind::Internal => HostInput::WorkFailed { reason },
                        _ => HostInput::PlanRefused { reason },
                    });
                }
            }
            Ok(_) => {}
            Err(error) => return Err(HostInput::WorkFailed { reason: error.to_string() }),
        }
        if held() == Some(wanted) {
            return Ok(());
        }
        let reason = format!("the station orders {kind:?} {wanted}, but the one in force here is another");
        Err(HostInput::PlanRefused { reason })
    }

    fn own_plan(&self, ordered_descriptor: Hash) -> Result<Plan> {
        let (descriptor, _) = self.node.surveys.own_descriptor()?;
        let own = Hash(*descriptor.content_hash().as_bytes());
        anyhow::ensure!(
            own == ordered_descriptor,
            "the station planned from descriptor {ordered_descriptor}, but this host's own is {own}"
        );
        let site = self.node.documents.site(&self.site).ok_or_else(|| anyhow::anyhow!("the site is not known"))?;
        let ((catalogue, catalogue_hash), (policy, policy_hash)) = site.selection_documents()?;
        let node = self.node.documents.node();
        Ok(plan::select(node, &descriptor, (&catalogue, catalogue_hash), (&policy, policy_hash))?)
    }

    fn order(&self, ordered: PlanHash) -> Result<InstallOrder> {
        let (descriptor, descriptor_xml) = self.node.surveys.own_descriptor()?;
        let plan = self.own_plan(Hash(*descriptor.content_hash().as_bytes()))?;
        let missing = |what| anyhow::anyhow!("{what} is not known here yet");
        let site = self.node.documents.site(&self.site).ok_or_else(|| missing("the site"))?;
        let packs = plan.packages.iter().map(|package| OfferedPack {
            image: package.image,
            manifest: self.node.packs.manifest_path(package.pack),
            frames: self.node.packs.frames_path(package.pack),
        });
        Ok(InstallOrder {
            node: self.node.documents.node(),
            charter: site.authority.signed_charter().clone(),
            catalogue: site.catalogue.ok_or_else(|| missing("the catalogue"))?,
            policy: site.policy.ok_or_else(|| missing("the site policy"))?,
            descriptor_xml,
            plan: ordered,
            packs: packs.collect(),
            events_seen: 0,
        })
    }

    async fn install(&self, plan: PlanHash) -> HostInput {
        let order = match self.order(plan) {
            Ok(order) => order,
            Err(error) => return HostInput::WorkFailed { reason: format!("{error:#}") },
        };
        let failed = |reason: String| HostInput::WorkFailed { reason };
        let mut events = match self.installer.request(&InstallerRequest::Install(Box::new(order))).await {
            Ok(events) => events,
            Err(error) => return failed(error.to_string()),
        };
        loop {
            match events.next().await {
                Ok(Some(Said::Event { number, body })) => self.pass_on(number, body).await,
                Ok(Some(Said::Ended(outcome))) => return installer_outcome(plan, outcome),
                Ok(None) => return failed("the installer ended before it answered".to_owned()),
                Err(error) => return failed(error.to_string()),
            }
        }
    }

    async fn pass_on(&self, number: u64, body: EventBody) {
        match &body {
            EventBody::StepStarted { step, steps, title } => tracing::info!("step {step} of {steps}: {title}"),
            EventBody::StepEnded { step, outcome } => tracing::info!("step {step} ended: {outcome:?}"),
            EventBody::Output { text, .. } | EventBody::Note(text) => tracing::info!("{}", text.trim_end()),
            _ => {}
        }
        self.handle.input(HostInput::Installer(InstallerEvent::Event { number, body })).await;
    }

    async fn verify(&self, plan: PlanHash) -> HostInput {
        match self.installer.outcome(&InstallerRequest::Verify { plan }).await {
            Ok(InstallerOutcome::Checked { checks }) => HostInput::CheckDone { plan, checks },
            Ok(InstallerOutcome::Refused(refusal)) => {
                HostInput::CheckDone { plan, checks: vec![("installer".to_owned(), Some(refusal.reason))] }
            }
            Ok(_) => HostInput::WorkFailed { reason: "the installer answered something else".to_owned() },
            Err(error) => HostInput::WorkFailed { reason: error.to_string() },
        }
    }

    async fn withdraw(&self, request: InstallerRequest) -> HostInput {
        match self.installer.outcome(&request).await {
            Ok(InstallerOutcome::Withdrawn { uninstalled }) => HostInput::Withdrawn { uninstalled },
            other => work_failed(other),
        }
    }

    async fn revert(&self, plan: PlanHash) -> HostInput {
        match self.installer.outcome(&InstallerRequest::Revert { plan }).await {
            Ok(InstallerOutcome::Reverted { installed, rolled_back }) => {
                let installed = installed.map(|installed| (installed.plan, installed.images));
                HostInput::Reverted { installed, rolled_back }
            }
            other => work_failed(other),
        }
    }
}

fn work_failed(answer: Result<InstallerOutcome, SocketError>) -> HostInput {
    let reason = match answer {
        Ok(InstallerOutcome::Refused(refusal)) => refusal.reason,
        Ok(other) => format!("the installer answered {other:?}"),
        Err(error) => error.to_string(),
    };
    HostInput::WorkFailed { reason }
}

fn installer_outcome(plan: PlanHash, outcome: InstallerOutcome) -> HostInput {
    match outcome {
        InstallerOutcome::Installed(installed) => {
            HostInput::Installer(InstallerEvent::Done { plan: installed.plan, images: installed.images })
        }
        InstallerOutcome::Failed { reason, rolled_back } => {
            HostInput::Installer(InstallerEvent::Failed { plan, reason, rolled_back })
        }
        InstallerOutcome::Refused(refusal) if refusal.kind == RefusalKind::Busy => {
            HostInput::WorkFailed { reason: refusal.reason }
        }
        InstallerOutcome::Refused(refusal) => {
            HostInput::Installer(InstallerEvent::Refused { plan, reason: refusal.reason })
        }
        other => HostInput::WorkFailed { reason: format!("the installer answered {other:?}") },
    }
}
