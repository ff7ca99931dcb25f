//! Files under the installation's root: paths that cannot leave it, and writing that survives a power cut.
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use thiserror::Error;

/// Symbolic links that one path may pass, as in the kernel.
const LINKS_MAX: usize = 40;

/// Why a file could not be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// The path is not one that may be named.
    #[error("{path}: {rule}")]
    BadPath {
        /// The path as it was given.
        path: PathBuf,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// The disk is full.
    #[error("the disk is full: {action} {path} failed; free some space and order the installation again")]
    Full {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes an error of the system one that names action and path.
pub fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FileError::Full { action, path: path.to_owned() },
        _ => FileError::Io { action, path: path.to_owned(), source },
    }
}

/// The directory that stands for `/` of the host: `/` itself in production, another one in a demo or a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The root at `directory`.
    ///
    /// # Errors
    /// It does not exist.
    pub fn new(directory: &Path) -> Result<Self, FileError> {
        Ok(Self(fs::canonicalize(directory).map_err(at("use the root directory", directory))?))
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Whether this is the running system's own root.
    pub fn is_system(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// The real place of the host's `path` (absolute or relative to the root): its parent directory is followed through
    /// symbolic links as the host would see them, and can never lead out of the root; the last part is not followed.
    ///
    /// # Errors
    /// The path has `..`, no last part, or passes too many links or a file.
    pub fn place(&self, path: &Path) -> Result<PathBuf, FileError> {
        let bad = |rule| FileError::BadPath { path: path.to_owned(), rule };
        let mut parts = plain_parts(path).ok_or(bad("a path must not contain .."))?;
        let last = parts.pop().ok_or(bad("a path must name something below the root"))?;
        Ok(self.follow(parts, path)?.join(last))
    }

    /// As [`Root::place`], with the last part followed too.
    ///
    /// # Errors
    /// As [`Root::place`].
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, FileError> {
        let parts = plain_parts(path)
            .ok_or(FileError::BadPath { path: path.to_owned(), rule: "a path must not contain .." })?;
        self.follow(parts, path)
    }

    fn follow(&self, parts: Vec<OsString>, path: &Path) -> Result<PathBuf, FileError> {
        let mut waiting: Vec<OsString> = parts.into_iter().rev().collect();
        let mut place = self.0.clone();
        let mut links = 0;
        while let Some(part) = waiting.pop() {
            if part == ".." {
                if place != self.0 {
                    place.pop();
                }
                continue;
            }
            let next = place.join(&part);
            let Ok(target) = fs::read_link(&next) else {
                place = next;
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(FileError::BadPath { path: path.to_owned(), rule: "it passes too many symbolic links" });
            }
            if target.is_absolute() {
                place.clone_from(&self.0);
            }
            let inner = target.components().filter_map(|component| match component {
                Component::Normal(part) => Some(part.to_owned()),
                Component::ParentDir => Some("..".into()),
                _ => None,
            });
            waiting.extend(inner.collect::<Vec<_>>().into_iter().rev());
        }
        Ok(place)
    }
}

/// The named parts of a path; `None` where it has `..`.
fn plain_parts(path: &Path) -> Option<Vec<OsString>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts)
}

/// Makes the names in the directory of `path` durable.
///
/// # Errors
/// The system refuses.
pub fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(at("make durable", parent))
}

/// Replaces `path` by `bytes` at once and durably: a reader sees the old or the new content, also after a power cut.
///
/// # Errors
/// The system refuses, or the disk is full; the old content stands.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let beside = beside(path);
    let written = (|| {
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(at("write", path)(error));
    }
    sync_parent(path)
}

/// The temporary name beside `path`; one that a crash leaves is overwritten by the next attempt.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".branchline-new.");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Copies a regular file with its mode, owner and time, durably.
///
/// # Errors
/// The system refuses, or the disk is full.
pub fn copy_durably(from: &Path, to: &Path) -> Result<(), FileError> {
    copy(from, to, true)?;
    sync_parent(to)
}

/// Copies a regular file with its mode, owner and time; where `durable` is false the caller syncs the file system.
///
/// # Errors
/// The system refuses, or the disk is full.
pub fn copy(from: &Path, to: &Path, durable: bool) -> Result<(), FileError> {
    let mut source = File::open(from).map_err(at("read", from))?;
    let metadata = source.metadata().map_err(at("read", from))?;
    let beside = beside(to);
    let copied = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        io::copy(&mut source, &mut file)?;
        // Only root may give files away; without it the copy keeps the one owner that there is.
        let _ = std::os::unix::fs::fchown(&file, Some(metadata.uid()), Some(metadata.gid()));
        file.set_permissions(metadata.permissions())?;
        file.set_times(fs::FileTimes::new().set_modified(metadata.modified()?))?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&beside, to)
    })();
    copied.map_err(|error| {
        let _ = fs::remove_file(&beside);
        at("write", to)(error)
    })
}

/// Removes a file or link; one that is absent is as good.
///
/// # Errors
/// The system refuses.
pub fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Bytes that an unprivileged writer may still put on the file system of `directory`.
///
/// # Errors
/// The system refuses.
pub fn free_bytes(directory: &Path) -> Result<u64, FileError> {
    let numbers = rustix::fs::statvfs(directory).map_err(|error| at("measure", directory)(error.into()))?;
    Ok(numbers.f_bavail.saturating_mul(numbers.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_path_leads_out_of_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path()).unwrap();
        let base = root.directory().to_owned();
        fs::create_dir_all(base.join("usr/bin")).unwrap();
        symlink("usr/bin", base.join("bin")).unwrap();
        symlink("/usr", base.join("absolute")).unwrap();
        symlink("../../../../..", base.join("up")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        assert_eq!(root.place(Path::new("/bin/x")).unwrap(), base.join("usr/bin/x"));
        assert_eq!(root.place(Path::new("/absolute/x")).unwrap(), base.join("usr/x"));
        assert_eq!(root.place(Path::new("/up/etc/x")).unwrap(), base.join("etc/x"));
        assert_eq!(root.place(Path::new("bin")).unwrap(), base.join("bin"), "the last part is not followed");
        assert_eq!(root.resolve(Path::new("bin")).unwrap(), base.join("usr/bin"));
        for bad in ["/a/../b", "..", "/", "", "/loop/x"] {
            assert!(matches!(root.place(Path::new(bad)), Err(FileError::BadPath { .. })), "{bad}");
        }
    }

    #[test]
    fn writing_replaces_at_once_and_leaves_nothing_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.conf");
        write_atomically(&path, b"one", 0o644).unwrap();
        write_atomically(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(free_bytes(directory.path()).unwrap() > 0);
    }
}
