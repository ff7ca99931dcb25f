//! Checks of frames and chunks. Nothing that has not passed here counts, is forwarded or reaches a disk (R70).
use std::io::{self, Write};

use thiserror::Error;

use super::{chunk::ChunkEntry, manifest::Pack};
use crate::{ids::Hash, limits::PACK_ZSTD_LEVEL};

/// Why a frame is not what the manifest says.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Another length than the manifest says.
    #[error("the frame has {found} bytes; the manifest says {expected}")]
    Length {
        /// Bytes found.
        found: usize,
        /// Bytes expected.
        expected: u32,
    },
    /// The frame's bytes have another hash.
    #[error("the frame's hash is {found}; the manifest says {expected}")]
    FrameHash {
        /// Hash found.
        found: Hash,
        /// Hash expected.
        expected: Hash,
    },
    /// The frame does not decompress into the promised number of bytes. It is never given more room than that.
    #[error("the frame does not decompress into {expected} bytes: {reason}")]
    Decompress {
        /// Bytes expected.
        expected: u32,
        /// What the decompressor said.
        reason: String,
    },
    /// The raw bytes have another hash.
    #[error("the chunk's hash is {found}; the manifest says {expected}")]
    RawHash {
        /// Hash found.
        found: Hash,
        /// Hash expected.
        expected: Hash,
    },
    /// A frame could not be fetched from where it is kept, or the image not be written.
    #[error("cannot assemble the image: {0}")]
    Io(#[from] io::Error),
}

/// Checks a frame as it travels, without decompressing it.
///
/// # Errors
/// Another length or hash.
pub fn verify_frame(entry: &ChunkEntry, frame: &[u8]) -> Result<(), FrameError> {
    if frame.len() != entry.frame_length as usize {
        return Err(FrameError::Length { found: frame.len(), expected: entry.frame_length });
    }
    let found = Hash::of(frame);
    if found != entry.frame_hash {
        return Err(FrameError::FrameHash { found, expected: entry.frame_hash });
    }
    Ok(())
}

/// Checks a frame, decompresses it into at most the promised number of bytes and checks those.
///
/// # Errors
/// As [`verify_frame`], or a frame that holds something else than the manifest says, for example a decompression bomb.
pub fn decode_frame(entry: &ChunkEntry, frame: &[u8]) -> Result<Vec<u8>, FrameError> {
    verify_frame(entry, frame)?;
    let expected = entry.raw_length;
    let raw = zstd::bulk::decompress(frame, expected as usize)
        .map_err(|error| FrameError::Decompress { expected, reason: error.to_string() })?;
    if raw.len() != expected as usize {
        let reason = format!("it holds {} bytes", raw.len());
        return Err(FrameError::Decompress { expected, reason });
    }
    let found = Hash::of(&raw);
    if found != entry.raw_hash {
        return Err(FrameError::RawHash { found, expected: entry.raw_hash });
    }
    Ok(raw)
}

/// Checks a raw chunk and makes its frame; `None` where this build's zstd makes another one than the manifest names,
/// which is no fault of whoever sent the chunk (R73).
///
/// # Errors
/// Another length or raw hash than the manifest says.
pub fn frame_of_chunk(entry: &ChunkEntry, raw: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
    if raw.len() != entry.raw_length as usize {
        return Err(FrameError::Length { found: raw.len(), expected: entry.raw_length });
    }
    let found = Hash::of(raw);
    if found != entry.raw_hash {
        return Err(FrameError::RawHash { found, expected: entry.raw_hash });
    }
    let frame = zstd::bulk::compress(raw, PACK_ZSTD_LEVEL)?;
    Ok(verify_frame(entry, &frame).is_ok().then_some(frame))
}

/// Writes the whole image of `pack` to `sink`; `frame` gives the frames by index, and each is checked.
///
/// # Errors
/// A frame that cannot be had or is not what the manifest says, or a sink that fails. What was written until then is
/// verified but incomplete.
pub fn assemble(
    pack: &Pack,
    mut frame: impl FnMut(u32) -> io::Result<Vec<u8>>,
    mut sink: impl Write,
) -> Result<(), FrameError> {
    for (index, entry) in (0..).zip(&pack.manifest().chunks) {
        sink.write_all(&decode_frame(entry, &frame(index)?)?)?;
    }
    Ok(sink.flush()?)
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
