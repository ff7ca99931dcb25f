//! Secret keys as files: 64 hexadecimal digits, readable by their owner only.
use std::{
    fs::OpenOptions,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result, bail};
use branchline_protocol::ids::Hash;
use ed25519_dalek::SigningKey;

/// 32 bytes from the operating system's random source.
///
/// # Errors
/// The source cannot be read.
pub fn random_bytes() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    let mut source = std::fs::File::open("/dev/urandom").context("opening the random source /dev/urandom")?;
    source.read_exact(&mut seed).context("reading the random source /dev/urandom")?;
    Ok(seed)
}

/// Makes a new key and writes it to `path`, which must not exist: a key is never overwritten.
///
/// # Errors
/// The file exists or cannot be written.
pub fn create_key(path: &Path) -> Result<SigningKey> {
    let seed = random_bytes()?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("creating the key file {} (a key is never overwritten)", path.display()))?;
    writeln!(file, "{}", Hash(seed))
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing the key file {}", path.display()))?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Reads a key that [`create_key`] wrote.
///
/// # Errors
/// The file is missing, unreadable or no key.
pub fn read_key(path: &Path) -> Result<SigningKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the key file {}", path.display()))?;
    match text.trim().parse::<Hash>() {
        Ok(seed) => Ok(SigningKey::from_bytes(&seed.0)),
        Err(_) => bail!("{} is not a key file: it must hold 64 hexadecimal digits", path.display()),
    }
}
