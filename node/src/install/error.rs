//! Why a step of an installation was not done.
use std::path::PathBuf;

use thiserror::Error;

use super::{exec::ExecError, files::FileError, journal::JournalError, supervisor::SupervisorError, tar::TarError};

/// Why a step was not done. The text becomes part of the install report.
#[derive(Debug, Error)]
pub enum StepError {
    /// A file could not be used, or the disk is full.
    #[error(transparent)]
    File(#[from] FileError),
    /// A program failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The journal cannot be written: nothing more may be done.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A service could not be started or stopped.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// The payload is not a usable archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// Too little space, found before anything was touched.
    #[error(
        "{place} has {free} bytes free, but the plan needs {needed}; free some space and order the installation again"
    )]
    Space {
        /// Where.
        place: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// Another package manager works.
    #[error(
        "another package manager has held {path} for {seconds} s; wait until it is done and order the installation again"
    )]
    PackageManagerBusy {
        /// The lock.
        path: PathBuf,
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// The package is there in a form that could not be put back.
    #[error(
        "the package {name} is on this host already ({version}) and was not installed by Branchline, so that it could not be put back; remove it, or forbid the package in the site policy"
    )]
    NotOurs {
        /// The package.
        name: String,
        /// Its version or state.
        version: String,
    },
    /// What a newer plan leaves out does not go.
    #[error("{name} cannot be removed, which the plan leaves out: {fault}")]
    NotRemoved {
        /// The package.
        name: String,
        /// What failed.
        fault: String,
    },
    /// Maintainer scripts cannot run inside the root.
    #[error("the package {name} has maintainer scripts, but there is no /bin/sh under the root that could run them")]
    NoShell {
        /// The package.
        name: String,
    },
    /// The plan names a user that does not exist.
    #[error("the plan names the user {name}, who does not exist on this host")]
    NoUser {
        /// The user.
        name: String,
    },
    /// The offered files are not the pack of the plan.
    #[error("the payload {name} is refused: {reason}")]
    Payload {
        /// The package.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A payload format that this version does not install.
    #[error("the package {name} is an RPM, which this version of Branchline does not install yet")]
    Format {
        /// The package.
        name: String,
    },
    /// The agent does not work after its start.
    #[error("the agent {name} does not work: {fault}; its log ends: {log}")]
    Unhealthy {
        /// The service.
        name: String,
        /// What was seen.
        fault: String,
        /// Its last lines.
        log: String,
    },
}

impl StepError {
    /// Whether the process must end here without doing anything more, because nothing can be journaled.
    pub fn ends_the_process(&self) -> bool {
        matches!(self, Self::Journal(JournalError::Stopped(_)))
    }
}
