//! Content: images, packs and frames, and how a byte proves what it is (R70, R72).
//!
//! A payload is an **image**: raw bytes in a normal form, cut into chunks. A **pack** is one encoding of an image: the
//! concatenation of zstd frames, one per chunk. The [`Manifest`] says for each chunk the hash and length of both forms;
//! the hash of the encoded manifest is the [`crate::ids::PackId`]. A frame is verified without decompression and
//! forwarded as it came; it is decompressed once, at installation, into at most as many bytes as the manifest promises.
//!
//! | file | holds |
//! | --- | --- |
//! | `chunk` | one chunk's entry; how long chunks are |
//! | `manifest` | the manifest, its strict check, and [`Pack`]: a checked manifest with offsets |
//! | `pack` | building a pack from raw bytes, streaming |
//! | `verify` | frame and chunk checks with bounded output |
//! | `bitmap` | which frames somebody has |
//! | `image` | the name of an image that is being written |
//! | [`patch`] | what makes one image of another |
mod bitmap;
mod chunk;
mod image;
mod manifest;
mod pack;
pub mod patch;
mod verify;

pub(crate) use bitmap::bits;
pub use bitmap::{Bitmap, BitmapError};
pub use chunk::{ChunkEntry, chunk_bytes_for};
pub use image::ImageHasher;
pub use manifest::{Manifest, ManifestError, OriginalFile, PACK_FORMAT, Pack};
pub use pack::{PackError, build_pack, build_pack_of};
pub use verify::{FrameError, assemble, decode_frame, frame_of_chunk, verify_frame};
