//! What the installer did, in a file that survives `kill -9` and power cuts: one JSON line per entry, durable before the
//! act that it announces.
//!
//! The installer's state is the fold of this file: a stack of committed layers (one per plan that was installed), and at
//! most one piece of work that is not finished. After a crash the unfinished work is carried on if the same plan is
//! ordered again, and undone otherwise.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use branchline_protocol::ids::{ImageId, PlanHash};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{files, undo::Undo};

/// A journal longer than this is rewritten at the next start, without what was rolled back, in bytes.
const COMPACT_ABOVE_BYTES: u64 = 4 << 20;

/// Why the journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The system refuses.
    #[error("the installer's journal {path} cannot be used: {source}; nothing is done without it")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line in the middle is not an entry.
    #[error("line {line} of the installer's journal {path} cannot be read: {reason}; restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// A test stops the process here.
    #[error("stopped after {0} entries of the journal, as the test asked")]
    Stopped(u64),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The work on a plan begins.
    Begun {
        /// The plan.
        plan: PlanHash,
        /// The images that it installs.
        images: Vec<ImageId>,
    },
    /// What will take back the act that follows; the act comes after this entry is durable.
    Intent {
        /// The step, from 1.
        step: u32,
        /// What takes it back.
        undo: Undo,
    },
    /// The last undo of this step that watched whole directories is replaced by one that knows what was found.
    Narrowed {
        /// The step.
        step: u32,
        /// The better undo.
        undo: Undo,
    },
    /// A step is done.
    StepDone {
        /// The step.
        step: u32,
    },
    /// The plan is installed; its undos are kept for the uninstallation.
    Committed,
    /// The work is being undone, and why.
    RollingBack {
        /// Why.
        reason: String,
    },
    /// The last undo that stood is applied.
    Undone,
    /// Everything of this piece of work is undone.
    RolledBack,
    /// The committed layers are being removed, last first.
    Removing,
}

/// A plan that is installed or being installed, with what takes it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The plan.
    pub plan: PlanHash,
    /// Its images.
    pub images: Vec<ImageId>,
    /// The undos that stand, in the order of the acts, with their steps.
    pub undos: Vec<(u32, Undo)>,
    /// The last step that is done; 0 before the first.
    pub steps_done: u32,
    /// Set while it is undone: why.
    pub rolling_back: Option<String>,
    /// Undos that are applied and have started a service, with their steps: its files came back after it, so that it is to be
    /// started anew at the end.
    pub start_anew: Vec<(u32, Undo)>,
}

/// The fold of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Installed, the newest last.
    pub committed: Vec<Layer>,
    /// Begun and neither committed nor rolled back.
    pub unfinished: Option<Layer>,
}

impl State {
    /// Takes one more entry.
    pub fn apply(&mut self, entry: Entry) {
        let layer = self.unfinished.as_mut();
        match (entry, layer) {
            (Entry::Begun { plan, images }, _) => {
                let (undos, start_anew) = (Vec::new(), Vec::new());
                let fresh = Layer { plan, images, undos, steps_done: 0, rolling_back: None, start_anew };
                self.unfinished = Some(fresh);
            }
            (Entry::Intent { step, undo }, Some(layer)) => layer.undos.push((step, undo)),
            (Entry::Narrowed { step, undo }, Some(layer)) => {
                let watched = layer.undos.iter_mut().rev().find(|(of, undo)| *of == step && undo.is_watch());
                if let Some(place) = watched {
                    place.1 = undo;
                }
            }
            (Entry::StepDone { step }, Some(layer)) => layer.steps_done = step,
            (Entry::Committed, _) => self.committed.extend(self.unfinished.take()),
            (Entry::RollingBack { reason }, Some(layer)) => layer.rolling_back = Some(reason),
            (Entry::Undone, Some(layer)) => {
                layer.start_anew.extend(layer.undos.pop().filter(|(_, undo)| undo.starts_a_service()));
            }
            (Entry::RolledBack, _) => self.unfinished = None,
            (Entry::Removing, _) => {
                self.unfinished = self
                    .committed
                    .pop()
                    .map(|layer| Layer { rolling_back: Some("the plan is taken back".to_owned()), ..layer });
            }
            (_, None) => {}
        }
    }

    /// The entries that lead to this state.
    fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let finished = self.committed.iter().map(|layer| (layer, true));
        for (layer, committed) in finished.chain(self.unfinished.iter().map(|layer| (layer, false))) {
            entries.push(Entry::Begun { plan: layer.plan, images: layer.images.clone() });
            let undos = layer.undos.iter().chain(layer.start_anew.iter().rev());
            entries.extend(undos.map(|(step, undo)| Entry::Intent { step: *step, undo: undo.clone() }));
            entries.push(Entry::StepDone { step: layer.steps_done });
            entries.extend(layer.rolling_back.clone().map(|reason| Entry::RollingBack { reason }));
            entries.extend(layer.start_anew.iter().map(|_| Entry::Undone));
            entries.extend(committed.then_some(Entry::Committed));
        }
        entries
    }
}

/// The journal, open for appending, and its fold.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    state: State,
    appended: u64,
    stop_after: Option<u64>,
}

impl Journal {
    /// Opens or begins the journal at `path` and folds it. A last line that a crash cut off is dropped.
    ///
    /// # Errors
    /// The system refuses, or a line in the middle is damaged.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(io)?,
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut state = State::default();
        for (index, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
            let damaged = |error: serde_json::Error| JournalError::Damaged {
                path: path.to_owned(),
                line: index + 1,
                reason: error.to_string(),
            };
            state.apply(serde_json::from_slice(line).map_err(damaged)?);
        }
        if whole as u64 > COMPACT_ABOVE_BYTES {
            let text = lines(&state.entries()).map_err(|error| io(error.into()))?;
            files::write_atomically(path, &text, 0o600).map_err(|error| io(io::Error::other(error)))?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(io)?;
        if whole as u64 <= COMPACT_ABOVE_BYTES && whole < bytes.len() {
            file.set_len(whole as u64).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        Ok(Self { path: path.to_owned(), file, state, appended: 0, stop_after: None })
    }

    /// Makes the journal fail once `entries` more are durable, as if the process ended there; for tests.
    pub fn stop_after(&mut self, entries: u64) {
        self.stop_after = Some(self.appended + entries);
    }

    /// The fold.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Appends `entries` as one and makes them durable.
    ///
    /// # Errors
    /// The system refuses, or the disk is full. What was written in part is cut off again.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        if self.stop_after.is_some_and(|limit| self.appended >= limit) {
            return Err(JournalError::Stopped(self.appended));
        }
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        let text = lines(&entries).map_err(|error| io(error.into()))?;
        let before = self.file.metadata().map_err(io)?.len();
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            let _ = self.file.set_len(before);
            return Err(io(error));
        }
        self.appended += entries.len() as u64;
        entries.into_iter().for_each(|entry| self.state.apply(entry));
        Ok(())
    }
}

fn lines(entries: &[Entry]) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)?;
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use branchline_protocol::ids::Hash;
    use proptest::prelude::*;

    use super::*;

    fn plan(number: u8) -> PlanHash {
        PlanHash(Hash([number; 32]))
    }

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            (0..3_u8).prop_map(|number| Entry::Begun { plan: plan(number), images: vec![] }),
            (1..4_u32).prop_map(|step| Entry::Intent { step, undo: Undo::SystemdReload }),
            (1..4_u32, any::<bool>()).prop_map(|(step, active)| {
                Entry::Intent { step, undo: Undo::SystemdUnit { unit: "a.service".into(), active, enabled: false } }
            }),
            (1..4_u32).prop_map(|step| Entry::StepDone { step }),
            Just(Entry::Committed),
            Just(Entry::RollingBack { reason: "r".into() }),
            Just(Entry::Undone),
            Just(Entry::RolledBack),
            Just(Entry::Removing),
        ]
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_what_was_held(entries in proptest::collection::vec(entry(), 0..40), cut in 0..30_usize) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("journal");
            let mut journal = Journal::open(&path).unwrap();
            for entry in entries {
                journal.append(vec![entry]).unwrap();
            }
            let held = journal.state().clone();
            // A crash leaves part of a line.
            let torn = &lines(&[Entry::RollingBack { reason: "never durable".into() }]).unwrap()[..cut];
            OpenOptions::new().append(true).open(&path).unwrap().write_all(torn).unwrap();
            for _ in 0..2 {
                let opened = Journal::open(&path).unwrap();
                prop_assert_eq!(opened.state(), &held);
            }
        }

        #[test]
        fn compaction_changes_nothing(entries in proptest::collection::vec(entry(), 0..40)) {
            let mut state = State::default();
            entries.into_iter().for_each(|entry| state.apply(entry));
            let mut again = State::default();
            state.entries().into_iter().for_each(|entry| again.apply(entry));
            // A committed layer keeps no reason of a rollback that never came to it.
            prop_assert_eq!(again, state);
        }
    }

    #[test]
    fn damage_in_the_middle_is_not_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, "{\"begun\n\"committed\"\n").unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Damaged { line: 1, .. })));
    }
}
