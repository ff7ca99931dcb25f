//! One event of a session, as a host reports it.
use serde::{Deserialize, Serialize};

use crate::{
    ids::{ImageId, NodeId, PackId, PlanHash},
    time::UnixSeconds,
};

/// How one installation step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Done.
    Done,
    /// Not done; the reason says what failed and what the system said.
    Failed(String),
    /// Undone in a rollback.
    Undone,
}

/// What happened. New variants are appended; a reader of an older version shows what it cannot name as `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventBody {
    /// A kind that this version does not know, with its text.
    Unknown(String),
    /// The host surveyed itself.
    Surveyed,
    /// The host computed the plan itself and agrees.
    PlanAccepted(PlanHash),
    /// The host refuses what the station ordered, and why (R62, R122).
    Refused(String),
    /// A pack is complete and verified on the host.
    PackComplete {
        /// Which.
        pack: PackId,
        /// Frame bytes that came over the WAN.
        wan_bytes: u64,
        /// Frame bytes that came from inside the site.
        lan_bytes: u64,
    },
    /// A step of the installation begins.
    StepStarted {
        /// From 1.
        step: u32,
        /// Steps in all.
        steps: u32,
        /// What it does, for people.
        title: String,
    },
    /// Output of an installer, verbatim (R85).
    Output {
        /// The step that wrote it.
        step: u32,
        /// At most `EVENT_TEXT_BYTES_MAX` bytes.
        text: String,
    },
    /// A step ended.
    StepEnded {
        /// Which.
        step: u32,
        /// How.
        outcome: StepOutcome,
    },
    /// All steps are done and the agent runs (R84).
    Installed {
        /// The plan.
        plan: PlanHash,
        /// The images that are now installed.
        images: Vec<ImageId>,
    },
    /// The installation failed; whether everything was put back (R86).
    InstallFailed {
        /// What failed, and what the system said.
        reason: String,
        /// Everything that was touched is as before.
        rolled_back: bool,
    },
    /// The post-install check from inside (R94).
    Checked {
        /// What was looked at, and `None` where all was well, else what was not.
        checks: Vec<(String, Option<String>)>,
    },
    /// The agent was stopped, or its files removed, on the station's order (R92, R98).
    Withdrawn {
        /// Whether the files were removed too.
        uninstalled: bool,
    },
    /// Something a person should know and that changes no state.
    Note(String),
    /// A peer served a frame that did not verify, and was penalised.
    CorruptFrame {
        /// Who.
        peer: NodeId,
        /// Of which pack.
        pack: PackId,
    },
}

impl EventBody {
    /// Terminal events are never dropped, whatever else is cut from a full buffer.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::PlanAccepted(_)
                | Self::PackComplete { .. }
                | Self::Installed { .. }
                | Self::InstallFailed { .. }
                | Self::Checked { .. }
                | Self::Withdrawn { .. }
        )
    }
}

/// An event with its place in the host's own numbering, from 1 without gaps, and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportEvent {
    /// Its number within the session's generation.
    pub number: u64,
    /// When, by the host's wall clock.
    pub at: UnixSeconds,
    /// What.
    pub body: EventBody,
}
