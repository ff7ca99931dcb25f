//! Tar payloads: everything is looked at before the first path is touched, and nothing can leave the prefix (R80).
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Read},
    ops::Bound,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use tar::{Archive, Entry, EntryType};
use thiserror::Error;

use super::{
    error::StepError,
    files::{self, at},
    host::Host,
    undo,
    work::Work,
};

/// Most members of one archive.
const MEMBERS_MAX: usize = 100_000;
/// Longest path of a member, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// Why an archive is not unpacked.
#[derive(Debug, Error)]
pub enum TarError {
    /// Not a readable archive.
    #[error("the payload is not a usable tar archive: {0}")]
    Unreadable(#[source] io::Error),
    /// A member that must not be unpacked; nothing was touched.
    #[error("the payload's member {path:?} is refused: {rule}; nothing was unpacked")]
    Refused {
        /// The member.
        path: PathBuf,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// Too many members.
    #[error("the payload has more than {MEMBERS_MAX} members; nothing was unpacked")]
    TooMany,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link(PathBuf),
    HardLink(PathBuf),
}

#[derive(Clone, Debug)]
struct Member {
    /// Below the prefix, plain parts only; empty for the prefix itself.
    path: PathBuf,
    kind: Kind,
    mode: u32,
    seconds: u64,
}

/// A relative path of plain parts; `None` for an absolute one or one with `..`.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut parts = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(parts)
}

/// Whether a link at `path` with this target stays below the prefix.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() as i64 - 1;
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            _ => return false,
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

fn member<R: Read>(entry: &Entry<'_, R>) -> Result<Option<Member>, TarError> {
    let raw = entry.path().map_err(TarError::Unreadable)?.into_owned();
    let refuse = |rule| Err(TarError::Refused { path: raw.clone(), rule });
    let Some(path) = plain(&raw) else { return refuse("its path is absolute or has ..") };
    if path.as_os_str().len() > PATH_BYTES_MAX || path.as_os_str().as_encoded_bytes().contains(&0) {
        return refuse("its path is too long or has a zero byte");
    }
    let target = || entry.link_name().ok().flatten().map(|target| target.into_owned());
    let kind = match entry.header().entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Symlink => match target() {
            Some(target) if stays_inside(&path, &target) => Kind::Link(target),
            _ => return refuse("it is a symbolic link that leads out of the payload"),
        },
        EntryType::Link => match target().as_deref().and_then(plain) {
            Some(target) => Kind::HardLink(target),
            None => return refuse("it is a hard link that leads out of the payload"),
        },
        EntryType::XGlobalHeader => return Ok(None),
        EntryType::Char | EntryType::Block => return refuse("it is a device"),
        EntryType::Fifo => return refuse("it is a pipe"),
        _ => return refuse("it is of a kind that is not unpacked"),
    };
    if path.as_os_str().is_empty() && kind != Kind::Directory {
        return refuse("it has no name");
    }
    let mode = entry.header().mode().unwrap_or(0o644);
    if mode & 0o6000 != 0 && kind == Kind::File {
        return refuse("it would run with the rights of another user (set-user-id or set-group-id)");
    }
    Ok(Some(Member { path, kind, mode: mode & 0o777, seconds: entry.header().mtime().unwrap_or(0) }))
}

/// All members in order, each checked alone and against the others.
fn members(image: &Path) -> Result<Vec<Member>, StepError> {
    let file = File::open(image).map_err(at("read", image))?;
    let mut archive = Archive::new(io::BufReader::new(file));
    let mut all: Vec<Member> = Vec::new();
    for entry in archive.entries().map_err(TarError::Unreadable)? {
        all.extend(member(&entry.map_err(TarError::Unreadable)?)?);
        if all.len() > MEMBERS_MAX {
            return Err(TarError::TooMany.into());
        }
    }
    let mut kinds: BTreeMap<&Path, &Kind> = BTreeMap::new();
    for member in &all {
        if let Some(earlier) = kinds.insert(&member.path, &member.kind)
            && (*earlier != Kind::Directory || member.kind != Kind::Directory)
        {
            return Err(refused(member, "it comes twice").into());
        }
    }
    for member in &all {
        let through = member.path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        if through.into_iter().any(|above| kinds.get(above).is_some_and(|kind| **kind != Kind::Directory)) {
            return Err(refused(member, "its path passes something in the payload that is no directory").into());
        }
        if let Kind::HardLink(target) = &member.kind
            && kinds.get(target.as_path()) != Some(&&Kind::File)
        {
            return Err(refused(member, "it is a hard link to something that is no file of the payload").into());
        }
    }
    Ok(all)
}

fn refused(member: &Member, rule: &'static str) -> TarError {
    TarError::Refused { path: member.path.clone(), rule }
}

/// The paths from the root that unpacking will touch, parents first; refuses what passes a link that is there already.
fn touched(host: &Host, prefix: &Path, members: &[Member]) -> Result<Vec<PathBuf>, StepError> {
    let mut paths = Vec::new();
    let mut known = BTreeSet::new();
    for member in members {
        let path = prefix.join(&member.path);
        let below: Vec<&Path> = path.ancestors().take_while(|above| *above != prefix).collect();
        for above in below.into_iter().rev().filter(|above| known.insert(above.to_path_buf())) {
            let place = host.root().place(above)?;
            let found = fs::symlink_metadata(&place).ok();
            let is_member = *above == *path;
            let needs_directory = !is_member || member.kind == Kind::Directory;
            match found {
                Some(found) if needs_directory && !found.is_dir() => {
                    return Err(refused(member, "a file or link is in the way of a directory on this host").into());
                }
                Some(found) if !needs_directory && found.is_dir() => {
                    return Err(refused(member, "a directory is in its way on this host").into());
                }
                Some(found) if found.is_dir() => {}
                _ => paths.push(above.to_path_buf()),
            }
        }
    }
    Ok(paths)
}

/// Unpacks `image` under `prefix`. Every path that comes or is replaced is announced first, in one durable entry.
///
/// # Errors
/// A member is refused (then nothing was touched), or the disk is full.
pub fn unpack(work: &mut Work<'_>, image: &Path, prefix: &Path) -> Result<(), StepError> {
    let members = members(image)?;
    let host = work.host();
    work.make_directory(prefix, 0o755, None)?;
    let paths = touched(host, prefix, &members)?;
    let undos = paths.iter().map(|path| undo::observe(host, path)).collect::<Result<Vec<_>, _>>()?;
    work.intend_all(undos)?;
    let file = File::open(image).map_err(at("read", image))?;
    let mut archive = Archive::new(io::BufReader::new(file));
    for entry in archive.entries().map_err(TarError::Unreadable)? {
        let mut entry = entry.map_err(TarError::Unreadable)?;
        if let Some(member) = member(&entry)? {
            write(host, prefix, &member, &mut entry)?;
        }
    }
    sync(host, prefix)?;
    work.output(&format!("{} members unpacked under {}", members.len(), prefix.display()));
    Ok(())
}

/// Where the members of `old` that `new` has not were unpacked under `prefix`, what lies inside a directory before it.
///
/// # Errors
/// An image cannot be read.
pub fn leftovers(old: &Path, new: &Path, prefix: &Path) -> Result<Vec<PathBuf>, StepError> {
    let kept: BTreeSet<PathBuf> = members(new)?.into_iter().map(|member| member.path).collect();
    // A directory is kept with what lies in it, which follows it in the order of paths.
    let is_kept = |path: &Path| {
        let mut from = kept.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
        from.next().is_some_and(|next| next.starts_with(path))
    };
    let mut left: Vec<PathBuf> = members(old)?.into_iter().map(|member| member.path).collect();
    left.retain(|path| !is_kept(path));
    left.sort();
    Ok(left.into_iter().rev().map(|path| prefix.join(path)).collect())
}

/// One member, beside its place first, so that a program that runs from there is not disturbed.
fn write(host: &Host, prefix: &Path, member: &Member, content: &mut impl Read) -> Result<(), StepError> {
    let place = host.root().place(&prefix.join(&member.path))?;
    if member.path.as_os_str().is_empty() {
        return Ok(());
    }
    let parent = place.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(at("make the directory", parent))?;
    let beside = files::beside(&place);
    files::remove_if_there(&beside)?;
    let written = (|| match &member.kind {
        Kind::Directory => match fs::create_dir(&place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => fs::set_permissions(&place, fs::Permissions::from_mode(member.mode | 0o700)),
        },
        Kind::File => {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            io::copy(content, &mut file)?;
            file.set_permissions(fs::Permissions::from_mode(member.mode))?;
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(member.seconds);
            file.set_times(fs::FileTimes::new().set_modified(time))?;
            fs::rename(&beside, &place)
        }
        Kind::Link(target) => symlink(target, &beside).and_then(|()| fs::rename(&beside, &place)),
        Kind::HardLink(target) => {
            let target = host.root().place(&prefix.join(target)).map_err(io::Error::other)?;
            fs::hard_link(target, &beside).and_then(|()| fs::rename(&beside, &place))
        }
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(at("unpack", &place)(error).into());
    }
    Ok(())
}

fn sync(host: &Host, prefix: &Path) -> Result<(), StepError> {
    let place = host.root().resolve(prefix)?;
    let directory = File::open(&place).map_err(at("open", &place))?;
    Ok(rustix::fs::syncfs(&directory).map_err(|error| at("make durable", &place)(error.into()))?)
}

/// Faults of the unpacked files: what is missing, or has another content than the payload (R94).
///
/// # Errors
/// The payload cannot be read.
pub fn faults(host: &Host, image: &Path, prefix: &Path) -> Result<Vec<String>, StepError> {
    let file = File::open(image).map_err(at("read", image))?;
    let mut archive = Archive::new(io::BufReader::new(file));
    let mut faults = Vec::new();
    for entry in archive.entries().map_err(TarError::Unreadable)? {
        let mut entry = entry.map_err(TarError::Unreadable)?;
        let Some(member) = member(&entry)? else { continue };
        let path = prefix.join(&member.path);
        let place = host.root().resolve(&path)?;
        let same = match &member.kind {
            Kind::File => File::open(&place).is_ok_and(|file| hash(file) == hash(&mut entry)),
            Kind::Directory => place.is_dir(),
            Kind::Link(_) | Kind::HardLink(_) => fs::symlink_metadata(host.root().place(&path)?).is_ok(),
        };
        if !same {
            faults.push(format!("{} is missing or was changed", path.display()));
        }
    }
    Ok(faults)
}

fn hash(mut source: impl Read) -> Option<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut source, &mut hasher).ok()?;
    Some(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_by_their_depth() {
        for (path, target, inside) in [
            ("bin/a", "b", true),
            ("bin/a", "../lib/b", true),
            ("bin/a", "../../b", false),
            ("a", "..", false),
            ("a", "/etc/passwd", false),
            ("a/b/c", "../../x/../y", true),
            ("a/b", "x/../../../y", false),
        ] {
            assert_eq!(stays_inside(Path::new(path), Path::new(target)), inside, "{path} -> {target}");
        }
    }
}
