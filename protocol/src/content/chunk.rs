//! One chunk of an image and the frame that carries it.
use serde::{Deserialize, Serialize};

use crate::{
    ids::Hash,
    limits::{CHUNK_BYTES_LARGE, CHUNK_BYTES_MAX, CHUNK_BYTES_MEDIUM, CHUNK_BYTES_SMALL, MANIFEST_CHUNKS_MAX},
};

/// What a manifest says of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkEntry {
    /// BLAKE3 of the raw bytes.
    pub raw_hash: Hash,
    /// Raw bytes: 1 to [`CHUNK_BYTES_MAX`].
    pub raw_length: u32,
    /// BLAKE3 of the zstd frame.
    pub frame_hash: Hash,
    /// Bytes of the zstd frame: 1 to [`crate::limits::FRAME_BYTES_MAX`].
    pub frame_length: u32,
}

/// The chunk length for an image of `raw_length` bytes, in bytes.
///
/// Short chunks spread faster, long ones cost less bookkeeping: 64 KiB below 512 MiB, 256 KiB from 1 GiB on
/// (`docs/src/decisions/spread-tuning.md`), doubled until the manifest stays within its bound.
pub fn chunk_bytes_for(raw_length: u64) -> usize {
    let mut length = match raw_length {
        0..0x2000_0000 => CHUNK_BYTES_SMALL,
        0x2000_0000..0x4000_0000 => CHUNK_BYTES_MEDIUM,
        _ => CHUNK_BYTES_LARGE,
    };
    while length < CHUNK_BYTES_MAX && raw_length.div_ceil(length as u64) > MANIFEST_CHUNKS_MAX as u64 {
        length *= 2;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_with_the_image_until_the_manifest_fits() {
        assert_eq!(chunk_bytes_for(1), 64 << 10);
        assert_eq!(chunk_bytes_for((512 << 20) - 1), 64 << 10);
        assert_eq!(chunk_bytes_for(512 << 20), 128 << 10);
        assert_eq!(chunk_bytes_for(1 << 30), 256 << 10);
        assert_eq!(chunk_bytes_for(17 << 30), 512 << 10);
        assert_eq!(chunk_bytes_for(u64::MAX), CHUNK_BYTES_MAX);
    }
}
