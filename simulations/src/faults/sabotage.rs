//! What can be broken on purpose: a checker that never fails proves nothing.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::checkers::Kind;

/// One thing that the world does wrong on purpose, once and as soon as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sabotage {
    /// A frame that counts as held changes on the disk.
    CorruptFrame,
    /// The station's disk loses what it had called durable.
    ForgottenEvents,
    /// Headquarters' disk loses what it had called durable.
    ForgottenProfiles,
    /// The router maps a second address to a host.
    DoubledMapping,
    /// The router makes a row under an index that was used for another host.
    ReusedRow,
    /// A row appears in the table at the very end, behind the station's back.
    StrayRow,
    /// Everybody who waits for a slot is told to install.
    SlotBeyondLimit,
    /// The station hears an approval that headquarters never gave.
    ForgedApproval,
    /// Every frame crosses the line twice.
    DoubledLine,
    /// Directives to one host of the core never arrive.
    DeafHost,
    /// A machine panics.
    Panic,
    /// The world keeps something from one run to the next, so that two runs of one seed differ.
    KeptState,
}

impl Sabotage {
    /// Every kind of sabotage.
    pub const ALL: [Self; 12] = [
        Self::CorruptFrame,
        Self::ForgottenEvents,
        Self::ForgottenProfiles,
        Self::DoubledMapping,
        Self::ReusedRow,
        Self::StrayRow,
        Self::SlotBeyondLimit,
        Self::ForgedApproval,
        Self::DoubledLine,
        Self::DeafHost,
        Self::Panic,
        Self::KeptState,
    ];

    /// Which kind of checker must find it.
    pub const fn is_found_by(self) -> Kind {
        match self {
            Self::CorruptFrame => Kind::Integrity,
            Self::ForgottenEvents | Self::ForgottenProfiles => Kind::Durability,
            Self::DoubledMapping | Self::ReusedRow | Self::StrayRow => Kind::Addresses,
            Self::SlotBeyondLimit => Kind::Sessions,
            Self::ForgedApproval => Kind::Approvals,
            Self::DoubledLine => Kind::Bounds,
            Self::DeafHost => Kind::Liveness,
            Self::Panic => Kind::Machine,
            Self::KeptState => Kind::Determinism,
        }
    }

    /// Its name on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::CorruptFrame => "corrupt-frame",
            Self::ForgottenEvents => "forgotten-events",
            Self::ForgottenProfiles => "forgotten-profiles",
            Self::DoubledMapping => "doubled-mapping",
            Self::ReusedRow => "reused-row",
            Self::StrayRow => "stray-row",
            Self::SlotBeyondLimit => "slot-beyond-limit",
            Self::ForgedApproval => "forged-approval",
            Self::DoubledLine => "doubled-line",
            Self::DeafHost => "deaf-host",
            Self::Panic => "panic",
            Self::KeptState => "kept-state",
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// There is no such sabotage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no sabotage {name:?}; there are {}", Sabotage::ALL.map(Sabotage::word).join(", "))]
pub struct UnknownSabotage {
    /// What was asked for.
    pub name: String,
}

impl FromStr for Sabotage {
    type Err = UnknownSabotage;

    fn from_str(text: &str) -> Result<Self, UnknownSabotage> {
        let found = Self::ALL.into_iter().find(|sabotage| sabotage.word() == text);
        found.ok_or_else(|| UnknownSabotage { name: text.to_owned() })
    }
}
