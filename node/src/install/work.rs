//! One piece of work under the journal: every act is announced with its undo, durably, before it is done.
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use branchline_protocol::{plan::PlannedPackage, report::EventBody};

use super::{
    acts::is_same,
    error::StepError,
    events::EventLog,
    files::{self, FileError, at},
    host::Host,
    journal::{Entry, Journal, Layer},
    plans,
    undo::{self, Undo},
    users,
};

/// What the steps of an installation act through.
pub struct Work<'a> {
    host: &'a Host,
    journal: &'a mut Journal,
    events: &'a EventLog,
    step: u32,
}

impl<'a> Work<'a> {
    /// Work on the unfinished layer of `journal`.
    pub fn new(host: &'a Host, journal: &'a mut Journal, events: &'a EventLog) -> Self {
        Self { host, journal, events, step: 0 }
    }

    /// The host.
    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// Turns to a step; what is announced from now on belongs to it.
    pub fn turn_to(&mut self, step: u32) {
        self.step = step;
    }

    /// One line of output of the present step.
    pub fn output(&self, line: &str) {
        self.events.push(EventBody::Output { step: self.step, text: line.to_owned() });
    }

    /// Announces an act by its undo.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn intend(&mut self, undo: Undo) -> Result<(), StepError> {
        self.intend_all(vec![undo])
    }

    /// Announces several acts by their undos, at once.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn intend_all(&mut self, undos: Vec<Undo>) -> Result<(), StepError> {
        let step = self.step;
        Ok(self.journal.append(undos.into_iter().map(|undo| Entry::Intent { step, undo }).collect())?)
    }

    /// Replaces the coarse undo of the present step by the one that knows what came.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn narrow(&mut self, undo: Undo) -> Result<(), StepError> {
        Ok(self.journal.append(vec![Entry::Narrowed { step: self.step, undo }])?)
    }

    /// The plans that are installed, oldest first, and the one under way, with what takes them back.
    pub fn layers(&self) -> Vec<Layer> {
        let state = self.journal.state();
        state.committed.iter().chain(&state.unfinished).cloned().collect()
    }

    /// The same package in the plan in force, if its image is kept.
    pub fn earlier(&self, package: &PlannedPackage) -> Option<PlannedPackage> {
        let plan = plans::load(self.host, self.journal.state().committed.last()?.plan).ok()?;
        let earlier = plan.packages.into_iter().find(|planned| is_same(planned, package))?;
        self.host.image(earlier.image).exists().then_some(earlier)
    }

    /// Directories above `path` that do not exist yet, outermost first, as paths from the root.
    fn missing_parents(&self, path: &Path) -> Result<Vec<PathBuf>, FileError> {
        let mut missing = Vec::new();
        for parent in path.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            if !self.host.root().resolve(parent)?.exists() {
                missing.push(parent.to_owned());
            }
        }
        missing.reverse();
        Ok(missing)
    }

    /// Makes the directories above `path`.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn make_parents(&mut self, path: &Path) -> Result<(), StepError> {
        for parent in self.missing_parents(path)? {
            let undo = undo::observe(self.host, &parent)?;
            self.intend(undo)?;
            let place = self.host.root().place(&parent)?;
            fs::create_dir(&place).map_err(at("make the directory", &place))?;
        }
        Ok(())
    }

    fn owner(&self, name: Option<&str>) -> Result<Option<(u32, u32)>, StepError> {
        let Some(name) = name.filter(|_| self.host.is_privileged()) else { return Ok(None) };
        let found = users::find(self.host, name)?;
        Ok(Some(found.ok_or_else(|| StepError::NoUser { name: name.to_owned() })?))
    }

    /// Makes a directory and those above it; one that exists stays as it is.
    ///
    /// # Errors
    /// It cannot be made, or its owner does not exist.
    pub fn make_directory(&mut self, path: &Path, mode: u32, owner: Option<&str>) -> Result<(), StepError> {
        if self.host.root().resolve(path)?.is_dir() {
            return Ok(());
        }
        let owner = self.owner(owner)?;
        self.make_parents(path)?;
        let undo = undo::observe(self.host, path)?;
        self.intend(undo)?;
        let place = self.host.root().place(path)?;
        fs::create_dir(&place).map_err(at("make the directory", &place))?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode & 0o7777))
            .map_err(at("set the mode of", &place))?;
        if let Some((uid, gid)) = owner {
            chown(&place, Some(uid), Some(gid)).map_err(at("give away", &place))?;
        }
        Ok(())
    }

    /// Writes a file at once and durably, with the directories above it.
    ///
    /// # Errors
    /// It cannot be written, the disk is full, or its owner does not exist.
    pub fn write_file(&mut self, path: &Path, bytes: &[u8], mode: u32, owner: Option<&str>) -> Result<(), StepError> {
        let owner = self.owner(owner)?;
        self.make_parents(path)?;
        let undo = undo::observe(self.host, path)?;
        self.intend(undo)?;
        let place = self.host.root().place(path)?;
        files::write_atomically(&place, bytes, mode & 0o7777)?;
        if let Some((uid, gid)) = owner {
            chown(&place, Some(uid), Some(gid)).map_err(at("give away", &place))?;
        }
        Ok(())
    }
}
