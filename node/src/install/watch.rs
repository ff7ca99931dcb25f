//! Sees what maintainer scripts do beside what their package lists: a listing of the directories where such scripts
//! write, before and after (R86).
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use branchline_protocol::ids::Hash;
use serde::{Deserialize, Serialize};

use super::{
    files::{self, FileError, at},
    host::Host,
    undo::{Changed, Undo, remove_empty},
    users,
};

/// What a rollback does not put back, as paths from the root: logs, caches, and the package manager's own records of
/// its runs. The book lists them too.
pub const EXCEPTIONS: [&str; 22] = [
    "/var/log",
    "/var/cache",
    "/var/backups",
    "/tmp",
    "/var/tmp",
    "/run",
    "/etc/ld.so.cache",
    "/etc/.pwd.lock",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/subuid-",
    "/etc/subgid-",
    "/var/lib/dpkg/status-old",
    "/var/lib/dpkg/diversions-old",
    "/var/lib/dpkg/statoverride-old",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/triggers",
    "/var/lib/dpkg/available",
    "/var/lib/dpkg/info/format",
];

/// Directories that are listed, with the depth below which nothing is looked at.
const WATCHED: [(&str, usize); 6] =
    [("/etc", 16), ("/var/lib", 3), ("/opt", 3), ("/srv", 3), ("/usr/local", 4), ("/var/lib/dpkg/alternatives", 2)];
/// Entries that one listing holds at most; what lies behind is not watched.
const ENTRIES_MAX: usize = 100_000;
/// Longest file whose content is kept, in bytes; configuration is smaller.
const CONTENT_BYTES_MAX: u64 = 1 << 20;

/// What stood in the watched directories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Listing {
    /// All paths from the root.
    paths: BTreeSet<PathBuf>,
    /// Regular files under `/etc`: number of the backup and hash of the content.
    contents: BTreeMap<PathBuf, (u64, Hash)>,
    /// Lines of the user databases.
    accounts: BTreeMap<String, Vec<String>>,
}

/// Whether a rollback leaves `path` alone.
pub fn is_exception(path: &Path) -> bool {
    EXCEPTIONS.iter().any(|exception| path.starts_with(exception))
}

fn walk(host: &Host, place: &Path, depth: usize, device: u64, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let place = entry.path();
        let Ok(below) = place.strip_prefix(host.root().directory()) else { continue };
        let path = Path::new("/").join(below);
        if found.len() >= ENTRIES_MAX || is_exception(&path) || place.starts_with(host.state()) {
            continue;
        }
        let enter = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.dev() == device);
        let of_dpkg = path == Path::new("/var/lib/dpkg");
        found.insert(path);
        if enter && depth > 1 && !of_dpkg {
            walk(host, &place, depth - 1, device, found);
        }
    }
}

fn paths_now(host: &Host) -> Result<BTreeSet<PathBuf>, FileError> {
    let mut found = BTreeSet::new();
    for (directory, depth) in WATCHED {
        let place = host.root().resolve(Path::new(directory))?;
        if let Ok(metadata) = fs::metadata(&place) {
            walk(host, &place, depth, metadata.dev(), &mut found);
        }
    }
    Ok(found)
}

/// The content of a watched configuration file; `None` for what is no regular file, too long, or a user database (those
/// are compared line by line).
fn content(host: &Host, path: &Path) -> Option<(PathBuf, Vec<u8>)> {
    if !path.starts_with("/etc") || users::DATABASES.iter().any(|database| path == Path::new(database)) {
        return None;
    }
    let place = host.root().place(path).ok()?;
    let metadata = fs::symlink_metadata(&place).ok()?;
    if !metadata.is_file() || metadata.len() > CONTENT_BYTES_MAX {
        return None;
    }
    fs::read(&place).ok().map(|bytes| (place, bytes))
}

/// Lists the watched directories, keeps the contents of configuration files, and gives the undo for a crash in the
/// middle of what follows.
///
/// # Errors
/// The disk is full, or a directory cannot be read.
pub fn begin(host: &Host) -> Result<Undo, FileError> {
    let mut listing = Listing { paths: paths_now(host)?, accounts: users::lines(host)?, ..Listing::default() };
    for path in &listing.paths {
        if let Some((place, bytes)) = content(host, path) {
            let backup = host.new_backup();
            files::copy(&place, &host.backup(backup), false)?;
            listing.contents.insert(path.clone(), (backup, Hash::of(&bytes)));
        }
    }
    let state = fs::File::open(host.state()).map_err(at("open", host.state()))?;
    rustix::fs::syncfs(&state).map_err(|error| at("make durable", host.state())(error.into()))?;
    let number = host.new_backup();
    let text = serde_json::to_vec(&listing).map_err(|error| at("write the listing in", host.state())(error.into()))?;
    files::write_atomically(&host.backup(number), &text, 0o600)?;
    Ok(Undo::Watched { listing: number })
}

fn read_listing(host: &Host, number: u64) -> Result<Listing, FileError> {
    let place = host.backup(number);
    let text = fs::read(&place).map_err(at("read", &place))?;
    serde_json::from_slice(&text).map_err(|error| at("read", &place)(error.into()))
}

/// What differs now from the listing, as the narrower undo; the contents that did not change are thrown away.
///
/// # Errors
/// The listing or a directory cannot be read.
pub fn end(host: &Host, undo: &Undo) -> Result<Option<Undo>, FileError> {
    let Undo::Watched { listing: number } = undo else { return Ok(None) };
    let listing = read_listing(host, *number)?;
    let found = difference(host, &listing)?;
    if let Undo::Found { changed, .. } = &found {
        let kept: BTreeSet<u64> = changed.iter().map(|changed| changed.backup).collect();
        for (backup, _) in listing.contents.values().filter(|(backup, _)| !kept.contains(backup)) {
            files::remove_if_there(&host.backup(*backup))?;
        }
    }
    Ok(Some(found))
}

fn difference(host: &Host, listing: &Listing) -> Result<Undo, FileError> {
    let created = paths_now(host)?.difference(&listing.paths).cloned().collect();
    let mut changed = Vec::new();
    for (path, (backup, before)) in &listing.contents {
        let after = content(host, path).map_or(Hash([0; 32]), |(_, bytes)| Hash::of(&bytes));
        if after != *before {
            changed.push(Changed { path: path.clone(), backup: *backup, after });
        }
    }
    let mut accounts = BTreeMap::new();
    for (database, lines) in users::lines(host)? {
        let before = listing.accounts.get(&database);
        let new = lines.into_iter().filter(|line| !before.is_some_and(|before| before.contains(line)));
        let new: Vec<String> = new.collect();
        if !new.is_empty() {
            accounts.insert(database, new);
        }
    }
    Ok(Undo::Found { created, changed, accounts })
}

/// Puts back what differs from the listing, after a crash in the middle of the act.
///
/// # Errors
/// Something cannot be put back.
pub fn restore_listing(host: &Host, number: u64, note: &mut dyn FnMut(&str)) -> Result<(), FileError> {
    match difference(host, &read_listing(host, number)?)? {
        Undo::Found { created, changed, accounts } => restore_found(host, &created, &changed, &accounts, note),
        _ => Ok(()),
    }
}

/// Puts back what was found to have come or changed with the act; what others wrote since stays and is noted.
///
/// # Errors
/// Something cannot be put back.
pub fn restore_found(
    host: &Host,
    created: &[PathBuf],
    changed: &[Changed],
    accounts: &BTreeMap<String, Vec<String>>,
    note: &mut dyn FnMut(&str),
) -> Result<(), FileError> {
    for (database, lines) in accounts {
        users::remove_lines(host, database, lines)?;
    }
    for change in changed {
        let place = host.root().place(&change.path)?;
        let now = match fs::read(&place) {
            Ok(bytes) => Hash::of(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Hash([0; 32]),
            Err(error) => return Err(at("read", &place)(error)),
        };
        let before = fs::read(host.backup(change.backup)).map(|bytes| Hash::of(&bytes));
        if now == change.after {
            files::copy_durably(&host.backup(change.backup), &place)?;
        } else if before.is_ok_and(|before| before != now) {
            note(&format!("{} stays, because it was changed after the installation", change.path.display()));
        }
    }
    // Children come after their parents in the order of paths, and must go before them.
    for path in created.iter().rev() {
        let place = host.root().place(path)?;
        match fs::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_dir() => remove_empty(&place, note)?,
            Ok(_) => files::remove_if_there(&place)?,
            Err(_) => {}
        }
    }
    Ok(())
}
