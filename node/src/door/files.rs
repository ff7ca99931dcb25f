//! What the door gives away, and the owner's signatures over it.
use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use branchline_protocol::{charter::DoorFile, ids::Hash};
use sha2::{Digest, Sha256};

/// Looks the owner's signature over the file with a SHA-256 up in the newest release.
pub type OwnerSignatures = dyn Fn(DoorFile, Hash) -> Option<String> + Send + Sync;

/// What the door gives away.
#[derive(Clone)]
pub struct DoorFiles {
    /// The survey script, whole.
    pub survey_script: Arc<str>,
    /// The script's signatures by file name (R43).
    pub signatures: Arc<[(String, String)]>,
    /// The install tool: this binary.
    pub install_tool: Arc<InstallTool>,
    /// The owner's signatures over script and tool (R50a).
    pub owner_signatures: Arc<OwnerSignatures>,
}

impl DoorFiles {
    /// The owner's signature over a file as it is now, where the newest release has one.
    ///
    /// # Errors
    /// The install tool cannot be read.
    pub(super) fn signature_of(&self, kind: DoorFile) -> io::Result<Option<String>> {
        let sha256 = match kind {
            DoorFile::InstallTool => self.install_tool.sha256()?,
            DoorFile::SurveyScript => sha256(self.survey_script.as_bytes()),
        };
        Ok((self.owner_signatures)(kind, sha256))
    }
}

/// The install tool's file. An upgrade may put another one in its place while the station runs.
pub struct InstallTool {
    path: PathBuf,
    known: Mutex<Option<(Version, Hash)>>,
}

/// What tells that a file is another one, without reading it: device, inode, length, and the time of its last change.
type Version = (u64, u64, u64, (i64, i64));

impl InstallTool {
    /// The tool at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::default() }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file. It is read again only where it has changed: whoever asks is a stranger, and must not make the
    /// station work.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn sha256(&self) -> io::Result<Hash> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let file = File::open(&self.path)?;
        let found = file.metadata()?;
        let version = (found.dev(), found.ino(), found.len(), (found.ctime(), found.ctime_nsec()));
        if let Some((of, hash)) = *known
            && of == version
        {
            return Ok(hash);
        }
        let hash = sha256_of_file(file)?;
        *known = Some((version, hash));
        Ok(hash)
    }
}

/// SHA-256 of what is in memory.
pub fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

/// SHA-256 of a file, which need not fit into memory.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_of_file(mut file: File) -> io::Result<Hash> {
    let mut digest = HashWriter(Sha256::new());
    io::copy(&mut file, &mut digest)?;
    Ok(Hash(digest.0.finalize().into()))
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
