//! What a host knows of its session, and the words of its machine: inputs, outputs, events.
use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{
    buffer::EventBuffer,
    dialogue::{Directive, HostReport, HostState, Order, Stage},
};
use crate::{
    ids::{DocumentHash, Epoch, Hash, ImageId, NodeId, PackId, PlanHash, SurveyHash},
    report::EventBody,
    time::UnixSeconds,
};

/// What a host's machine is built from besides its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSetup {
    /// The host.
    pub node: NodeId,
    /// The machine (`/etc/machine-id` or what stands for it).
    pub machine_identifier: String,
    /// Its name, for people.
    pub host_name: String,
    /// Its address inside the site at the start; [`HostInput::InsideChanged`] corrects it later.
    pub inside: Ipv4Addr,
}

/// What the privileged installer says while it carries out a plan (R83, R85).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallerEvent {
    /// Progress or output (steps, output, notes); other kinds of events are ignored here.
    Event {
        /// Its number among the events of this plan, from 1; a number that was seen already is ignored, so that the
        /// installer may tell all of it again after a restart.
        number: u64,
        /// What.
        body: EventBody,
    },
    /// All steps are done and the agent runs.
    Done {
        /// The plan that was carried out.
        plan: PlanHash,
        /// What is installed now.
        images: Vec<ImageId>,
    },
    /// The plan was not carried out.
    Failed {
        /// The plan.
        plan: PlanHash,
        /// What failed, and what the system said.
        reason: String,
        /// Everything is as before (R86).
        rolled_back: bool,
    },
    /// The installer refuses the plan or a document and has done nothing (R87).
    Refused {
        /// The plan.
        plan: PlanHash,
        /// Why.
        reason: String,
    },
}

/// What can happen to a host's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostInput {
    /// The station can be reached (again): report now.
    Start,
    /// The station's word. The runtime has checked that it comes from the station of this epoch.
    Directive(Box<Directive>),
    /// The survey was taken, sealed and stored in the mesh.
    Surveyed {
        /// Name of its sealed form.
        sealed: SurveyHash,
        /// Hash of the descriptor.
        descriptor: Hash,
        /// How it differs from the survey before, for people; where there was one and something has changed (R47).
        changes: Option<String>,
    },
    /// The plan that this host computes from the documents of [`HostOutput::ComputePlan`] (R62).
    PlanComputed {
        /// Its hash.
        plan: PlanHash,
        /// The packs that it needs.
        packs: Vec<PackId>,
    },
    /// No plan can be computed, or a document of it does not verify.
    PlanRefused {
        /// Why.
        reason: String,
    },
    /// A pack is complete, verified and kept.
    PackComplete {
        /// Which.
        pack: PackId,
        /// Frame bytes that came over the WAN.
        wan_bytes: u64,
        /// Frame bytes that came from inside the site.
        lan_bytes: u64,
    },
    /// The installer said something.
    Installer(InstallerEvent),
    /// The check that [`HostOutput::Verify`] asked for is done: what was looked at, and `None` where all was well.
    CheckDone {
        /// The plan that was checked.
        plan: PlanHash,
        /// Name of each check, and what was not as planned.
        checks: Vec<(String, Option<String>)>,
    },
    /// The report of [`HostOutput::SaveReport`] is kept.
    ReportSaved,
    /// The agent is stopped, or removed.
    Withdrawn {
        /// Whether the files were removed too.
        uninstalled: bool,
    },
    /// The plan of this generation is taken back.
    Reverted {
        /// What is installed now: the plan before, with its images.
        installed: Option<(PlanHash, Vec<ImageId>)>,
        /// Whether everything is as before.
        rolled_back: bool,
    },
    /// What the last output asked for could not be done now; it is asked again later.
    WorkFailed {
        /// Why.
        reason: String,
    },
    /// This host has another address inside the site (R116).
    InsideChanged(Ipv4Addr),
    /// A peer served a frame that did not verify.
    CorruptFrame {
        /// Who.
        peer: NodeId,
        /// Of which pack.
        pack: PackId,
    },
}

/// What a host's session wants done. At most one of the kinds of work is under way at any time; a newer one replaces
/// an older one, except that an installation is always finished first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostOutput {
    /// Send this to the station. Repeated until the station's directive shows that it is durable there.
    SendReport(Box<HostReport>),
    /// Survey this host, seal and spread the survey; answer with [`HostInput::Surveyed`].
    RunSurvey,
    /// Compute the plan; answer with [`HostInput::PlanComputed`] or [`HostInput::PlanRefused`].
    ComputePlan {
        /// The plan that the station selected.
        plan: PlanHash,
        /// The signed catalogue.
        catalogue: DocumentHash,
        /// The signed site policy.
        policy: DocumentHash,
        /// The host's own descriptor.
        descriptor: Hash,
    },
    /// These packs are wanted now, and no others; empty means none.
    FetchPacks(Vec<PackId>),
    /// Have the installer carry out this plan. It may have done so already: it is idempotent by plan hash.
    Install {
        /// The plan.
        plan: PlanHash,
    },
    /// Check configuration and operation from inside; answer with [`HostInput::CheckDone`].
    Verify {
        /// The plan.
        plan: PlanHash,
    },
    /// Stop the agent; answer with [`HostInput::Withdrawn`].
    Stop,
    /// Stop the agent and remove what was installed; answer with [`HostInput::Withdrawn`].
    Uninstall,
    /// Take this plan back, so that the one before it is in force again; answer with [`HostInput::Reverted`].
    Revert {
        /// The plan.
        plan: PlanHash,
    },
    /// Keep this report; answer with [`HostInput::ReportSaved`].
    SaveReport {
        /// The generation that it is about.
        generation: u32,
        /// The HTML text.
        html: String,
        /// The mapped address; `None` where the session ended without success.
        mapped: Option<Ipv4Addr>,
    },
    /// Show this to the host's operator (R83).
    ShowOperator(String),
}

/// What is written to a host's journal. New variants are appended, never inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostEvent {
    /// An order of the station is in force from now on.
    Directed {
        /// Generation of the session; a higher one begins anew.
        generation: u32,
        /// The station's epoch.
        epoch: Epoch,
        /// The directive's revision.
        revision: u64,
        /// Where the session stands.
        stage: Stage,
        /// What to do.
        order: Order,
    },
    /// The station holds the events up to this number.
    Acknowledged {
        /// The number.
        number: u64,
    },
    /// Surveyed.
    Surveyed {
        /// When.
        at: UnixSeconds,
        /// Name of the sealed survey.
        sealed: SurveyHash,
        /// Hash of the descriptor.
        descriptor: Hash,
    },
    /// The own plan is the station's plan.
    Agreed {
        /// When.
        at: UnixSeconds,
        /// The plan.
        plan: PlanHash,
        /// The packs that it needs.
        packs: Vec<PackId>,
    },
    /// The order in force is refused.
    Refused {
        /// When.
        at: UnixSeconds,
        /// Why.
        reason: String,
    },
    /// A pack is complete.
    Gathered {
        /// When.
        at: UnixSeconds,
        /// Which.
        pack: PackId,
        /// Frame bytes over the WAN.
        wan_bytes: u64,
        /// Frame bytes from inside the site.
        lan_bytes: u64,
    },
    /// The installation begins.
    Began {
        /// When.
        at: UnixSeconds,
        /// The plan.
        plan: PlanHash,
    },
    /// Something that changes no state: progress, output, notes.
    Noted {
        /// When.
        at: UnixSeconds,
        /// The installer's number of it; 0 where it is not the installer's.
        number: u64,
        /// What.
        body: EventBody,
    },
    /// So much output was not kept, since the buffer was full.
    Cut {
        /// The installer's number of the event; 0 where it is not the installer's.
        number: u64,
        /// Bytes of text.
        bytes: u64,
    },
    /// Installed and started.
    Installed {
        /// When.
        at: UnixSeconds,
        /// The plan.
        plan: PlanHash,
        /// What is installed now.
        images: Vec<ImageId>,
    },
    /// The installation failed.
    InstallFailed {
        /// When.
        at: UnixSeconds,
        /// What failed.
        reason: String,
        /// Everything is as before.
        rolled_back: bool,
    },
    /// Checked from inside.
    Checked {
        /// When.
        at: UnixSeconds,
        /// The plan.
        plan: PlanHash,
        /// Name of each check, and what was not as planned.
        checks: Vec<(String, Option<String>)>,
    },
    /// The report is kept.
    Completed {
        /// When.
        at: UnixSeconds,
        /// The plan.
        plan: PlanHash,
    },
    /// Stopped or uninstalled.
    Withdrawn {
        /// When.
        at: UnixSeconds,
        /// Whether the files were removed too.
        uninstalled: bool,
    },
    /// Another address inside the site.
    Moved {
        /// When.
        at: UnixSeconds,
        /// The address.
        inside: Ipv4Addr,
    },
    /// The report of a session without success is kept.
    ReportKept {
        /// When.
        at: UnixSeconds,
    },
    /// The installation of this generation is taken back.
    Reverted {
        /// When.
        at: UnixSeconds,
        /// Why it was ordered.
        reason: String,
        /// What is installed now.
        installed: Option<(PlanHash, Vec<ImageId>)>,
        /// Whether everything is as before.
        rolled_back: bool,
    },
}

/// What is installed on this host, over all generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledPlan {
    /// The generation that installed it.
    pub generation: u32,
    /// The plan.
    pub plan: PlanHash,
    /// The images.
    pub images: Vec<ImageId>,
}

/// The order in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingOrder {
    /// The epoch of the station that gave it.
    pub epoch: Epoch,
    /// The directive's revision.
    pub revision: u64,
    /// Where the session stands, by the station's word.
    pub stage: Stage,
    /// What to do.
    pub order: Order,
}

/// Everything that the journal says about the session of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSession {
    /// The generation, from 1.
    pub generation: u32,
    /// Grows with every change that a report shows.
    pub revision: u64,
    /// Where the host is.
    pub state: HostState,
    /// The newest survey of this generation: sealed form and descriptor.
    pub survey: Option<(SurveyHash, Hash)>,
    /// The order in force.
    pub standing: Option<StandingOrder>,
    /// The packs of the accepted plan, and whether each is complete.
    pub packs: BTreeMap<PackId, bool>,
    /// What is installed.
    pub installed: Option<InstalledPlan>,
    /// Whether the order in force has been carried out or refused, where the state alone does not show it.
    pub answered: bool,
    /// The highest number of the installer's events that was seen for the plan under way.
    pub installer_seen: u64,
    /// The address inside the site, once it has changed since the start.
    pub moved_to: Option<Ipv4Addr>,
    /// Events that the station does not hold yet.
    pub events: EventBuffer,
}
