//! Building a pack from raw bytes, in one pass and with one chunk in memory.
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    chunk::ChunkEntry,
    manifest::{Manifest, ManifestError, OriginalFile, PACK_FORMAT, Pack},
};
use crate::{
    ids::Hash,
    limits::{CHUNK_BYTES_MAX, MANIFEST_CHUNKS_MAX, PACK_ZSTD_LEVEL},
};

/// Why no pack was built.
#[derive(Debug, Error)]
pub enum PackError {
    /// The raw bytes could not be read.
    #[error("cannot read the payload {name}: {source}")]
    Read {
        /// Name of the original file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The frames could not be written.
    #[error("cannot write the pack of {name}: {source}")]
    Write {
        /// Name of the original file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing to pack.
    #[error("the payload {name} is empty; there is nothing to distribute")]
    Empty {
        /// Name of the original file.
        name: String,
    },
    /// More chunks than a manifest holds.
    #[error(
        "the payload {name} has more than {MANIFEST_CHUNKS_MAX} chunks of {chunk_bytes} bytes; choose longer chunks"
    )]
    TooLong {
        /// Name of the original file.
        name: String,
        /// Bytes of one chunk.
        chunk_bytes: usize,
    },
    /// The result breaks a rule of manifests, such as an unusable file name.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Packs `raw`, which is the original file itself, and writes the frames to `sink` in order.
///
/// `chunk_bytes` is what [`super::chunk_bytes_for`] gives for the length; at most [`CHUNK_BYTES_MAX`].
///
/// # Errors
/// Reading, writing, an empty or too long payload, or an unusable name.
pub fn build_pack(name: &str, raw: impl Read, chunk_bytes: usize, sink: impl Write) -> Result<Pack, PackError> {
    build(name, None, raw, chunk_bytes, sink)
}

/// Packs `raw`, a normal form of another file that `original` describes (such as a .deb with its members
/// decompressed), and writes the frames to `sink` in order.
///
/// # Errors
/// As [`build_pack`].
pub fn build_pack_of(
    original: OriginalFile,
    raw: impl Read,
    chunk_bytes: usize,
    sink: impl Write,
) -> Result<Pack, PackError> {
    build(&original.name.clone(), Some(original), raw, chunk_bytes, sink)
}

fn build(
    name: &str,
    original: Option<OriginalFile>,
    mut raw: impl Read,
    chunk_bytes: usize,
    mut sink: impl Write,
) -> Result<Pack, PackError> {
    let name = name.to_owned();
    let chunk_bytes = chunk_bytes.clamp(1, CHUNK_BYTES_MAX);
    let mut chunks = Vec::new();
    let mut digest = Sha256::new();
    let mut length = 0;
    let mut buffer = Vec::with_capacity(chunk_bytes);
    loop {
        buffer.clear();
        let taken = (&mut raw).take(chunk_bytes as u64).read_to_end(&mut buffer);
        if taken.map_err(|source| PackError::Read { name: name.clone(), source })? == 0 {
            break;
        }
        if chunks.len() == MANIFEST_CHUNKS_MAX {
            return Err(PackError::TooLong { name, chunk_bytes });
        }
        digest.update(&buffer);
        length += buffer.len() as u64;
        let frame = zstd::bulk::compress(&buffer, PACK_ZSTD_LEVEL)
            .map_err(|source| PackError::Write { name: name.clone(), source })?;
        sink.write_all(&frame).map_err(|source| PackError::Write { name: name.clone(), source })?;
        chunks.push(ChunkEntry {
            raw_hash: Hash::of(&buffer),
            raw_length: buffer.len() as u32,
            frame_hash: Hash::of(&frame),
            frame_length: frame.len() as u32,
        });
    }
    if chunks.is_empty() {
        return Err(PackError::Empty { name });
    }
    sink.flush().map_err(|source| PackError::Write { name: name.clone(), source })?;
    let itself = OriginalFile { name, sha256: Hash(digest.finalize().into()), length };
    let original = original.unwrap_or(itself);
    Ok(Pack::new(Manifest { format: PACK_FORMAT, image: Manifest::image_of(&chunks), original, chunks })?)
}
