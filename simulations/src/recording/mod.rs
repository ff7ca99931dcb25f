//! Everything that happened in a run: event by event, with what changed in each machine.
//!
//! A recording is complete in itself. It can be read by a later build, in which the fault is mended and the seed does
//! something else; whoever wants the same seed again runs it again.
mod recorder;
mod stepper;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkers::Kind;

pub use recorder::Recorder;
pub use stepper::{Filter, Stepper};

/// The form of a recording; a reader refuses a higher one.
pub const RECORDING_FORMAT: u32 = 1;

/// What stands at the head of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`RECORDING_FORMAT`].
    pub format: u32,
    /// The seed.
    pub seed: u64,
    /// What was broken on purpose, by its name.
    pub sabotage: Option<String>,
    /// What the seed turned on, for people.
    pub options: String,
    /// How it ended.
    pub failure: Option<Failure>,
    /// How many steps follow.
    pub steps: u64,
}

/// A property that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of promise.
    pub kind: Kind,
    /// Which property.
    pub property: String,
    /// What was seen.
    pub what: String,
}

/// What one machine looks like: names and values, for people.
pub type View = BTreeMap<String, String>;

/// One thing that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its number, from 1.
    pub number: u64,
    /// When, in microseconds of the world.
    pub at_microseconds: u64,
    /// What, in one word.
    pub event: String,
    /// To whom; empty where it happened to the world.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub who: String,
    /// Its content, cut to a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What followed, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What changed in which machine: new values; an empty value says that there is none any more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub changes: BTreeMap<String, View>,
}

impl Step {
    /// The step in one line, its notes in lines below.
    pub fn text(&self) -> String {
        let seconds = self.at_microseconds as f64 / 1e6;
        let mut text =
            format!("{:>7} {seconds:>12.6}  {:<16} {:<12} {}", self.number, self.event, self.who, self.detail);
        text.truncate(text.trim_end().len());
        for note in &self.notes {
            text.push_str("\n                        - ");
            text.push_str(note);
        }
        text
    }
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Its head.
    pub header: Header,
    /// What happened.
    pub steps: Vec<Step>,
}
