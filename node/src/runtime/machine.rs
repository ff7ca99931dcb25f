//! The machine that this node runs on: its identifier and its name.
use std::{fs, path::Path};

use anyhow::Result;
use branchline_protocol::ids::Hash;

use crate::config::{Home, random_bytes, write_atomically};

/// `/etc/machine-id` of the host; where there is none, one that is made once and kept in the home directory.
///
/// # Errors
/// The kept one cannot be read or written.
pub fn machine_identifier(root: &Path, home: &Home) -> Result<String> {
    if let Ok(text) = fs::read_to_string(root.join("etc/machine-id"))
        && !text.trim().is_empty()
        && text.trim().len() <= 64
    {
        return Ok(text.trim().to_owned());
    }
    let path = home.path("machine-id");
    if !path.exists() {
        write_atomically(&path, &Hash(random_bytes()?).to_string().as_bytes()[..32], 0o644)?;
    }
    Ok(fs::read_to_string(&path)?.trim().to_owned())
}

/// The host's name, from its root or from the kernel.
pub fn machine_name(root: &Path) -> String {
    let from_root = fs::read_to_string(root.join("etc/hostname")).ok();
    let name = from_root.or_else(|| fs::read_to_string("/proc/sys/kernel/hostname").ok()).unwrap_or_default();
    let name: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(63).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}
