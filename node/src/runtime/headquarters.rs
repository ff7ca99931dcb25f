//! Headquarters' effects: answers, signatures, probes, targets.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use branchline_protocol::{
    charter::{PublicKey, Signed},
    ids::{SessionId, SiteName},
    refusal::{Refusal, RefusalKind},
    wire::{
        control::ControlAnswer,
        site::{HeadquartersDirective, SiteReport},
    },
};
use branchline_station_role::headquarters::{
    HeadquartersInput, HeadquartersMachine, HeadquartersOutput, Target, render_targets,
};
use ed25519_dalek::SigningKey;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    notices::{Cause, Notices},
    probe,
    pump::{Effects, PumpHandle},
};
use crate::mesh::{Admission, Documents};

/// What is asked of headquarters with somebody waiting for the answer.
pub enum HeadquartersCall {
    /// A station speaks.
    Site {
        /// What it says.
        report: Box<SiteReport>,
        /// Where the answer goes.
        answer: oneshot::Sender<ControlAnswer>,
    },
    /// An operator's command; the input carries the number that is given to it.
    Command {
        /// Makes the input from the command's number.
        input: Box<dyn FnOnce(u64) -> HeadquartersInput + Send>,
        /// Where the outcome goes.
        answer: oneshot::Sender<Result<Vec<(SiteName, SessionId)>, Refusal>>,
    },
}

/// Carries out what the headquarters machine wants.
pub struct HeadquartersEffects {
    handle: PumpHandle<HeadquartersMachine>,
    documents: Documents,
    approval_key: Option<SigningKey>,
    targets: watch::Sender<String>,
    calls: mpsc::Receiver<Registration>,
    exchanges: BTreeMap<u64, oneshot::Sender<ControlAnswer>>,
    commands: BTreeMap<u64, oneshot::Sender<Result<Vec<(SiteName, SessionId)>, Refusal>>>,
    notices: Notices,
    /// Sessions whose probe runs.
    probing: Arc<Mutex<BTreeSet<(SiteName, SessionId)>>>,
}

enum Registration {
    Exchange(u64, oneshot::Sender<ControlAnswer>),
    Command(u64, oneshot::Sender<Result<Vec<(SiteName, SessionId)>, Refusal>>),
}

/// The way to headquarters for those who wait for answers.
#[derive(Clone)]
pub struct HeadquartersDesk {
    calls: mpsc::Sender<HeadquartersCall>,
    /// The machine itself, for views.
    pub handle: PumpHandle<HeadquartersMachine>,
    /// The monitoring targets in Prometheus' form.
    pub targets: watch::Receiver<String>,
    notices: Notices,
}

impl HeadquartersDesk {
    /// Makes desk and effects for one machine.
    pub fn new(
        handle: PumpHandle<HeadquartersMachine>,
        documents: Documents,
        approval_key: Option<SigningKey>,
        notices: Notices,
    ) -> (Self, HeadquartersEffects) {
        let (targets_sender, targets) = watch::channel(render_targets(&[]));
        let (calls, call_receiver) = mpsc::channel(256);
        let (registrations, registered) = mpsc::channel(256);
        tokio::spawn(number_calls(call_receiver, registrations, handle.clone()));
        let effects = HeadquartersEffects {
            handle: handle.clone(),
            documents,
            approval_key,
            targets: targets_sender,
            calls: registered,
            exchanges: BTreeMap::new(),
            commands: BTreeMap::new(),
            notices: notices.clone(),
            probing: Arc::default(),
        };
        (Self { calls, handle, targets, notices }, effects)
    }

    /// A station's report; the answer goes back on its request.
    pub async fn site_report(
        &self,
        documents: &Documents,
        from: &Admission,
        report: Box<SiteReport>,
        answer: oneshot::Sender<ControlAnswer>,
    ) {
        if let Err(refusal) = check_site_report(documents, from, &report) {
            let text = format!("a report of {} for site {} is refused: {refusal}", from.node, report.site);
            self.notices.add_of(Cause::Refused(from.node), text);
            let _ = answer.send(ControlAnswer::Refused(refusal));
            return;
        }
        let _ = self.calls.send(HeadquartersCall::Site { report, answer }).await;
    }

    /// An operator's command.
    ///
    /// # Errors
    /// The machine refuses it, or the node is ending.
    pub async fn command(
        &self,
        input: impl FnOnce(u64) -> HeadquartersInput + Send + 'static,
    ) -> Result<Vec<(SiteName, SessionId)>> {
        let (answer, receiver) = oneshot::channel();
        let _ = self.calls.send(HeadquartersCall::Command { input: Box::new(input), answer }).await;
        Ok(receiver.await??)
    }
}

/// Only the station of a site, with its present warrant, speaks for it.
fn check_site_report(documents: &Documents, from: &Admission, report: &SiteReport) -> Result<(), Refusal> {
    let authority = documents
        .authority(&report.site)
        .ok_or_else(|| Refusal::new(RefusalKind::NotFound, format!("site {} is not served here", report.site)))?;
    let warrant = authority.check_warrant(&report.warrant)?;
    if from.site != report.site || warrant.holder != from.node {
        let reason = format!("{} shows the warrant of {} for site {}", from.node, warrant.holder, report.site);
        return Err(Refusal::new(RefusalKind::NotAuthorised, reason));
    }
    Ok(())
}

/// Gives every call its number and tells the effects of it before the machine hears of it.
async fn number_calls(
    mut calls: mpsc::Receiver<HeadquartersCall>,
    registrations: mpsc::Sender<Registration>,
    handle: PumpHandle<HeadquartersMachine>,
) {
    let mut number = 0;
    while let Some(call) = calls.recv().await {
        number += 1;
        let (registration, input) = match call {
            HeadquartersCall::Site { report, answer } => {
                (Registration::Exchange(number, answer), HeadquartersInput::Site { exchange: number, report })
            }
            HeadquartersCall::Command { input, answer } => (Registration::Command(number, answer), input(number)),
        };
        if registrations.send(registration).await.is_err() {
            return;
        }
        handle.input(input).await;
    }
}

impl HeadquartersEffects {
    fn register(&mut self) {
        while let Ok(registration) = self.calls.try_recv() {
            match registration {
                Registration::Exchange(number, answer) => self.exchanges.insert(number, answer).map(drop),
                Registration::Command(number, answer) => self.commands.insert(number, answer).map(drop),
            };
        }
    }

    fn answer(&mut self, exchange: u64, directive: HeadquartersDirective) {
        if let Some(answer) = self.exchanges.remove(&exchange) {
            let _ = answer.send(ControlAnswer::Headquarters(Box::new(directive)));
        }
    }

    fn give_back(&self, input: HeadquartersInput) {
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.input(input).await });
    }
}

impl Effects<HeadquartersMachine> for HeadquartersEffects {
    fn perform(&mut self, output: HeadquartersOutput) {
        self.register();
        match output {
            HeadquartersOutput::Answer { exchange, directive, .. } => self.answer(exchange, *directive),
            HeadquartersOutput::SignApproval(approval) => {
                let Some(key) = &self.approval_key else {
                    let text = "is decided, but no approval key is configured here; set headquarters.approval_key in node.toml";
                    self.notices.add(format!("{} {text}", approval.session));
                    return;
                };
                let authority = self.documents.authority(&approval.site);
                let usable = authority.is_some_and(|a| a.charter().keys.approvers.contains(&PublicKey::of(key)));
                if !usable {
                    let text = "the configured approval key is not one of the charter's; nothing is approved with it";
                    self.notices.add(format!("site {}: {text}", approval.site));
                    return;
                }
                let signed = Signed::sign(&*approval, key);
                self.give_back(HeadquartersInput::ApprovalSigned { approval: *approval, signed });
            }
            HeadquartersOutput::SignGrant(grant) => {
                let signed = Signed::sign(&grant, self.documents.key());
                self.give_back(HeadquartersInput::GrantSigned { grant, signed });
            }
            HeadquartersOutput::Probe { site, request } => {
                // The wish is repeated while a probe waits for its turn; one of a session at a time is enough.
                let probed = (site.clone(), request.session);
                if !self.probing.lock().unwrap_or_else(PoisonError::into_inner).insert(probed.clone()) {
                    return;
                }
                let (handle, key, probing) =
                    (self.handle.clone(), self.documents.key().clone(), Arc::clone(&self.probing));
                tokio::spawn(async move {
                    let result = probe::probe(site, &request).await;
                    probing.lock().unwrap_or_else(PoisonError::into_inner).remove(&probed);
                    let signed = Signed::sign(&result, &key);
                    handle.input(HeadquartersInput::ProbeDone { attempt: request.attempt, result, signed }).await;
                });
            }
            HeadquartersOutput::TargetsChanged(targets) => self.publish(&targets),
            HeadquartersOutput::CommandDone { command, result } => {
                if let Some(answer) = self.commands.remove(&command) {
                    let _ = answer.send(result);
                }
            }
            HeadquartersOutput::Notice { site, text } => self.notices.add(format!("site {site}: {text}")),
        }
    }
}

impl HeadquartersEffects {
    fn publish(&self, targets: &[Target]) {
        self.targets.send_replace(render_targets(targets));
    }
}
