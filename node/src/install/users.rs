//! System users in the host's own databases, written directly: the same on every distribution, under every root, and
//! exactly what the undo takes back.
use std::{collections::BTreeSet, fs, io, os::unix::fs::PermissionsExt, path::Path};

use super::{
    files::{self, FileError, at},
    host::Host,
};

/// The databases that name users and groups.
pub const DATABASES: [&str; 6] =
    ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid"];

/// Numbers of system users, highest first (Debian policy 9.2.2, `adduser --system`).
const SYSTEM_NUMBERS: std::ops::RangeInclusive<u32> = 100..=999;

fn read(host: &Host, database: &str) -> Result<Option<String>, FileError> {
    let place = host.root().resolve(Path::new(database))?;
    match fs::read_to_string(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(at("read", &place)),
    }
}

fn write(host: &Host, database: &str, text: &str) -> Result<(), FileError> {
    let place = host.root().resolve(Path::new(database))?;
    let found = fs::metadata(&place).map_err(at("look at", &place))?;
    let owner = (std::os::unix::fs::MetadataExt::uid(&found), std::os::unix::fs::MetadataExt::gid(&found));
    files::write_atomically(&place, text.as_bytes(), found.permissions().mode() & 0o7777)?;
    if host.is_privileged() {
        std::os::unix::fs::chown(&place, Some(owner.0), Some(owner.1)).map_err(at("give away", &place))?;
    }
    Ok(())
}

fn field<'a>(text: &'a str, name: &str, index: usize) -> Option<&'a str> {
    text.lines().map(|line| line.split(':')).find_map(
        |mut fields| {
            if fields.next()? == name { fields.nth(index - 1) } else { None }
        },
    )
}

/// Numbers of the host's user `name` and of its group.
///
/// # Errors
/// The database cannot be read.
pub fn find(host: &Host, name: &str) -> Result<Option<(u32, u32)>, FileError> {
    let Some(text) = read(host, "/etc/passwd")? else {
        return Ok((name == "root").then_some((0, 0)));
    };
    let number = |index| field(&text, name, index).and_then(|text| text.parse().ok());
    Ok(number(2).zip(number(3)).or((name == "root").then_some((0, 0))))
}

/// Creates a system user with a group of the same name, a locked password and no shell. One that exists stays as it is.
///
/// # Errors
/// No user database, no free number, or it cannot be written.
pub fn create(host: &Host, name: &str, home: &str) -> Result<(), FileError> {
    if find(host, name)?.is_some() {
        return Ok(());
    }
    let bad = |rule| FileError::BadPath { path: "/etc/passwd".into(), rule };
    let passwd = read(host, "/etc/passwd")?.ok_or(bad("there is no user database under this root"))?;
    let group = read(host, "/etc/group")?.ok_or(bad("there is no group database under this root"))?;
    let numbers = |text: &str| -> BTreeSet<u32> {
        text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
    };
    let existing = field(&group, name, 2).and_then(|number| number.parse().ok());
    let taken = &numbers(&passwd) | &numbers(&group);
    let free = SYSTEM_NUMBERS.rev().find(|number| !taken.contains(number));
    let number = free.ok_or(bad("no number for a system user is free"))?;
    let group_number: u32 = existing.unwrap_or(number);
    if existing.is_none() {
        write(host, "/etc/group", &added(&group, &format!("{name}:x:{group_number}:")))?;
        if let Some(gshadow) = read(host, "/etc/gshadow")? {
            write(host, "/etc/gshadow", &added(&gshadow, &format!("{name}:!::")))?;
        }
    }
    if let Some(shadow) = read(host, "/etc/shadow")? {
        write(host, "/etc/shadow", &added(&shadow, &format!("{name}:!:1::::::")))?;
    }
    write(host, "/etc/passwd", &added(&passwd, &format!("{name}:x:{number}:{group_number}::{home}:/usr/sbin/nologin")))
}

fn added(text: &str, line: &str) -> String {
    let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{separator}{line}\n")
}

/// Whether the host has a group of that name.
///
/// # Errors
/// The database cannot be read.
pub fn group_exists(host: &Host, name: &str) -> Result<bool, FileError> {
    Ok(read(host, "/etc/group")?.is_some_and(|text| field(&text, name, 2).is_some()))
}

/// Removes a user, and the group of the same name unless `keep_group`, from all databases; absent ones are as good.
///
/// # Errors
/// A database cannot be read or written.
pub fn remove(host: &Host, name: &str, keep_group: bool) -> Result<(), FileError> {
    for database in DATABASES {
        if keep_group && database.starts_with("/etc/g") {
            continue;
        }
        // A crash may have left the next content beside its place.
        files::remove_if_there(&files::beside(&host.root().resolve(Path::new(database))?))?;
        let Some(text) = read(host, database)? else { continue };
        let kept: String = text.split_inclusive('\n').filter(|line| line.split(':').next() != Some(name)).collect();
        if kept != text {
            write(host, database, &kept)?;
        }
    }
    Ok(())
}

/// Removes whole lines from a database, where they still stand.
///
/// # Errors
/// The database cannot be read or written.
pub fn remove_lines(host: &Host, database: &str, lines: &[String]) -> Result<(), FileError> {
    let Some(text) = read(host, database)? else { return Ok(()) };
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| !lines.iter().any(|gone| gone == line.trim_end_matches('\n')))
        .collect();
    if kept == text { Ok(()) } else { write(host, database, &kept) }
}

/// The lines of all databases that exist.
///
/// # Errors
/// A database cannot be read.
pub fn lines(host: &Host) -> Result<std::collections::BTreeMap<String, Vec<String>>, FileError> {
    let mut all = std::collections::BTreeMap::new();
    for database in DATABASES {
        if let Some(text) = read(host, database)? {
            all.insert(database.to_owned(), text.lines().map(str::to_owned).collect());
        }
    }
    Ok(all)
}
