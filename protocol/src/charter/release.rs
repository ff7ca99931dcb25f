//! What the public door gives away, signed by the owner (R50a).
use serde::{Deserialize, Serialize};

use super::{
    file_signature::{DoorFile, FileSignature, FileSignatureError},
    signed::{Document, PublicKey},
};
use crate::{
    ids::{Hash, SiteName},
    limits::{DOCUMENT_BYTES_MAX, RELEASED_FILES_MAX},
};

/// The install tools and survey scripts that the owner wants machines of this site to run. Signed by the owner.
///
/// The station, which serves them, holds no key that could sign another: a machine that knows the owner's key (its join
/// token names it) can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The site.
    pub site: SiteName,
    /// Grows with each release.
    pub version: u64,
    /// The files: a tool for each kind of machine, a script for each choice of signatures (R43).
    pub files: Vec<ReleasedFile>,
}

/// One file that the door may give away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasedFile {
    /// What it is.
    pub kind: DoorFile,
    /// Which one, for people.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: Hash,
    /// The owner's [`FileSignature`] over it, as a text.
    pub signature: String,
}

/// Why a release is not usable.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum ReleaseError {
    /// Too many files.
    #[error("it names {found} files, at most {RELEASED_FILES_MAX} are allowed")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// A file without a good signature.
    #[error("{name:?}: {reason}")]
    Signature {
        /// Its name.
        name: String,
        /// What does not fit.
        reason: FileSignatureError,
    },
    /// A file that somebody else signed.
    #[error("{name:?} is signed by {found}, not by the owner")]
    WrongSigner {
        /// Its name.
        name: String,
        /// Who signed.
        found: PublicKey,
    },
}

impl Document for Release {
    const CONTEXT: &'static str = "branchline release 1";
    const BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "release";
}

impl Release {
    /// Whether each file has a signature by `owner` that holds.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub fn check(&self, owner: PublicKey) -> Result<(), ReleaseError> {
        if self.files.len() > RELEASED_FILES_MAX {
            return Err(ReleaseError::TooMany { found: self.files.len() });
        }
        self.files.iter().try_for_each(|file| file.check(owner))
    }

    /// The owner's signature over the file with this SHA-256, where the release names it.
    pub fn signature_of(&self, kind: DoorFile, sha256: Hash) -> Option<&str> {
        self.files.iter().find(|file| file.kind == kind && file.sha256 == sha256).map(|file| file.signature.as_str())
    }
}

impl ReleasedFile {
    fn check(&self, owner: PublicKey) -> Result<(), ReleaseError> {
        let name = || self.name.chars().take(64).collect();
        let failed = |reason| ReleaseError::Signature { name: name(), reason };
        let signature: FileSignature = self.signature.parse().map_err(failed)?;
        if signature.signer() != owner {
            return Err(ReleaseError::WrongSigner { name: name(), found: signature.signer() });
        }
        signature.verify(self.kind, self.sha256).map_err(failed)
    }
}
