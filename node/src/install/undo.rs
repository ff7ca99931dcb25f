//! What takes an act back. Every undo may be applied any number of times, also where its act never happened (R86).
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
};

use branchline_protocol::{catalogue::CommandLine, ids::Hash};
use serde::{Deserialize, Serialize};

use super::{
    deb,
    files::{self, FileError, at},
    host::Host,
    service::{self, ServiceRecord},
    users, watch,
};

/// What was at a path before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// Nothing.
    Absent,
    /// A regular file; its content is in the installer's backup of that number.
    File {
        /// Number of the backup.
        backup: u64,
    },
    /// A symbolic link.
    Link {
        /// Where it led.
        target: PathBuf,
    },
    /// A directory; only its owner and mode are put back.
    Directory {
        /// Permission bits.
        mode: u32,
        /// Owning user's number.
        uid: u32,
        /// Owning group's number.
        gid: u32,
    },
}

/// A file that a program changed while it was watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Path from the root.
    pub path: PathBuf,
    /// Number of the backup of its earlier content.
    pub backup: u64,
    /// Hash of what the program left; where it is another by now, somebody else wrote, and it stays.
    pub after: Hash,
}

/// What takes one act back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Put one path back as it was.
    Path {
        /// Path from the root.
        path: PathBuf,
        /// What was there.
        before: Before,
    },
    /// Remove a file, but only if it holds what the installer wrote.
    OwnFile {
        /// Path from the root.
        path: PathBuf,
        /// Hash of what was written.
        content: Hash,
    },
    /// Remove a Debian package with its configuration.
    PurgePackage {
        /// Its name.
        name: String,
    },
    /// Remove a Debian package and leave its configuration, as it was before.
    RemovePackage {
        /// Its name.
        name: String,
    },
    /// Install the earlier image of a Debian package again.
    ReinstallPackage {
        /// Its name.
        name: String,
        /// The kept image.
        image: branchline_protocol::ids::ImageId,
    },
    /// Compare the watched directories with the listing that was taken before; for a crash in the middle of the act.
    Watched {
        /// Number of the listing.
        listing: u64,
    },
    /// Put back what the watched directories showed after the act.
    Found {
        /// Paths that came, parents first.
        created: Vec<PathBuf>,
        /// Files that changed.
        changed: Vec<Changed>,
        /// Lines that came into the user databases: file, then lines.
        accounts: BTreeMap<String, Vec<String>>,
    },
    /// Remove a user and the group of the same name.
    User {
        /// The name.
        name: String,
        /// Whether the group was there before; then it stays.
        group_existed: bool,
    },
    /// Run a program of the payload.
    Command(CommandLine),
    /// Have systemd read its units again.
    SystemdReload,
    /// Put a systemd unit's state back.
    SystemdUnit {
        /// Name with its ending.
        unit: String,
        /// Whether it ran before.
        active: bool,
        /// Whether it started with the system before.
        enabled: bool,
    },
    /// Put a supervised process back.
    Supervised {
        /// The service's name.
        name: String,
        /// What ran under that name before.
        previous: Option<Box<ServiceRecord>>,
    },
    /// Nothing can take it back; the signed plan says so.
    Final {
        /// What was done.
        title: String,
    },
}

impl Undo {
    /// Whether it is the coarse undo that [`super::journal::Entry::Narrowed`] replaces.
    pub fn is_watch(&self) -> bool {
        matches!(self, Self::Watched { .. })
    }

    /// Whether taking the act back starts a service that ran before it; see [`Undo::start_anew`].
    pub fn starts_a_service(&self) -> bool {
        matches!(self, Self::Supervised { previous: Some(_), .. } | Self::SystemdUnit { active: true, .. })
    }

    /// Takes the act back. `note` gets what a person should know; a fault comes back as a sentence.
    ///
    /// # Errors
    /// Something is not as before.
    pub fn apply(&self, host: &Host, note: &mut dyn FnMut(&str)) -> Result<(), String> {
        let text = |error: FileError| error.to_string();
        match self {
            Self::Path { path, before } => put_back(host, path, before, note).map_err(text),
            Self::OwnFile { path, content } => {
                let place = host.root().place(path).map_err(text)?;
                match fs::read(&place) {
                    Ok(bytes) if Hash::of(&bytes) == *content => files::remove_if_there(&place).map_err(text),
                    _ => Ok(()),
                }
            }
            Self::PurgePackage { name } => deb::purge(host, name, note).map_err(|error| error.to_string()),
            Self::RemovePackage { name } => deb::take_away(host, name, note).map_err(|error| error.to_string()),
            Self::ReinstallPackage { name, image } => {
                deb::reinstall(host, name, *image, note).map_err(|error| error.to_string())
            }
            Self::Watched { listing } => watch::restore_listing(host, *listing, note).map_err(text),
            Self::Found { created, changed, accounts } => {
                watch::restore_found(host, created, changed, accounts, note).map_err(text)
            }
            Self::User { name, group_existed } => users::remove(host, name, *group_existed).map_err(text),
            Self::Command(command) => host.run_payload_command(command, note).map_err(|error| error.to_string()),
            Self::SystemdReload => service::systemd_reload(note).map_err(|error| error.to_string()),
            Self::SystemdUnit { unit, active, enabled } => {
                service::systemd_restore(unit, *active, *enabled, note).map_err(|error| error.to_string())
            }
            Self::Supervised { name, previous } => {
                host.supervisor().put_back(name, previous.as_deref().cloned()).map_err(|error| error.to_string())
            }
            Self::Final { title } => {
                note(&format!("{title}: the plan marks this as final; it stays"));
                Ok(())
            }
        }
    }

    /// Starts anew what [`Undo::apply`] has started again: it ran before this act, and came back before its files did.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_anew(&self, host: &Host, note: &mut dyn FnMut(&str)) -> Result<(), String> {
        match self {
            Self::Supervised { previous: Some(previous), .. } => {
                host.supervisor().set(ServiceRecord::clone(previous)).map_err(|error| error.to_string())
            }
            Self::SystemdUnit { unit, active: true, .. } => {
                service::systemd_restart(unit, note).map_err(|error| error.to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Records what is at `path` (from the root), with a backup where it is a file, so that [`Undo::Path`] can put it back.
///
/// # Errors
/// The path is bad, the disk is full, or something is there that cannot be put back (a device, a socket).
pub fn observe(host: &Host, path: &Path) -> Result<Undo, FileError> {
    let place = host.root().place(path)?;
    let before = match fs::symlink_metadata(&place) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Before::Absent,
        Err(error) => return Err(at("look at", &place)(error)),
        Ok(metadata) if metadata.is_dir() => {
            Before::Directory { mode: metadata.permissions().mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() }
        }
        Ok(metadata) if metadata.is_symlink() => {
            Before::Link { target: fs::read_link(&place).map_err(at("read the link", &place))? }
        }
        Ok(metadata) if metadata.is_file() => Before::File { backup: host.back_up(&place)? },
        Ok(_) => {
            let rule = "a device, pipe or socket is there, which could not be put back";
            return Err(FileError::BadPath { path: path.to_owned(), rule });
        }
    };
    Ok(Undo::Path { path: path.to_owned(), before })
}

fn put_back(host: &Host, path: &Path, before: &Before, note: &mut dyn FnMut(&str)) -> Result<(), FileError> {
    let place = host.root().place(path)?;
    let found = fs::symlink_metadata(&place).ok();
    let is_directory = found.as_ref().is_some_and(fs::Metadata::is_dir);
    match before {
        Before::Absent if is_directory => remove_empty(&place, note),
        Before::Absent => {
            files::remove_if_there(&files::beside(&place))?;
            files::remove_if_there(&place)
        }
        Before::File { backup } => {
            if is_directory {
                fs::remove_dir(&place).map_err(at("remove the directory", &place))?;
            }
            make_parents(&place)?;
            files::copy_durably(&host.backup(*backup), &place)
        }
        Before::Link { target } => {
            if fs::read_link(&place).is_ok_and(|current| current == *target) {
                return Ok(());
            }
            files::remove_if_there(&place)?;
            make_parents(&place)?;
            symlink(target, &place).map_err(at("put the link back", &place))
        }
        Before::Directory { mode, uid, gid } => {
            if !is_directory {
                files::remove_if_there(&place)?;
                fs::create_dir_all(&place).map_err(at("put the directory back", &place))?;
            }
            // Without privileges the owner never changed either.
            let _ = lchown(&place, Some(*uid), Some(*gid));
            fs::set_permissions(&place, fs::Permissions::from_mode(*mode)).map_err(at("set the mode of", &place))
        }
    }
}

/// Removes a directory that came with the act. One that others put files into stays, and so do those files.
pub fn remove_empty(place: &Path, note: &mut dyn FnMut(&str)) -> Result<(), FileError> {
    match fs::remove_dir(place) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            note(&format!("{} stays, because it holds files that the installation did not write", place.display()));
            Ok(())
        }
        Err(error) => Err(at("remove the directory", place)(error)),
    }
}

fn make_parents(place: &Path) -> Result<(), FileError> {
    match place.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(at("make the directory", parent)),
        None => Ok(()),
    }
}
