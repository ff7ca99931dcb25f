//! Patches: what makes one image of another (R73).
//!
//! A patch is a file, travels as an image of its own in a pack of its own, and names the image that it needs (the
//! **base**) and the one that it makes (the **target**). It knows nothing of tar or ar: whatever the images are, the
//! target is written from its first byte to its last by records of four kinds of work, as in bsdiff (C. Percival,
//! "Naive Differences of Executable Code", 2003):
//!
//! | part of a record | what it writes | where it stands |
//! | --- | --- | --- |
//! | copy | bytes of the base as they are | number in `copies` |
//! | difference | bytes of the base plus a byte each of `differences`, modulo 256 | number in `difference_lengths` |
//! | extra | bytes of `extras` | number in `extra_lengths` |
//! | seek | nothing; moves the place in the base from which the next record reads | `seeks` |
//!
//! Each of the six columns is one stream, coded by itself, because each has its own statistics. `extras` may have a
//! **preset**: ranges of the base that its decoder is primed with, so that bytes which bsdiff found too little like the
//! base to copy are still coded as matches in it. A patch of one record with all of the target in `extras` is therefore
//! what other tools call a dictionary patch, and the maker chooses per file between the two.
//!
//! The decoder believes nothing: it refuses a header that promises more than its bounds, writes at most the promised
//! number of bytes, does work in proportion to that number, holds at most [`PATCH_MEMORY_BYTES_MAX`] of memory however
//! long the images are, and gives no target whose name was not computed from every byte written.
//!
//! [`PATCH_MEMORY_BYTES_MAX`]: crate::limits::PATCH_MEMORY_BYTES_MAX
//!
//! | file | holds |
//! | --- | --- |
//! | `header` | the first bytes, read and written |
//! | `stream` | one stream: coding, bounded decoding, numbers |
//! | `apply` | base and patch to target |
//! | `write` | records to a patch |
//! | `arrival` | whether a patch still comes |
//! | `error` | why not |
mod apply;
mod arrival;
mod error;
mod header;
mod stream;
mod write;

pub use apply::Patch;
pub use arrival::{Arrival, PATCH_LOOK, PATCH_STALL, Silence};
pub use error::PatchError;
pub use header::{PATCH_FORMAT, PatchHeader, PresetRange, StreamCoding, StreamEntry, StreamName};
pub use write::{EncodedPatch, PatchSubject, PatchWriter};

use std::io;

/// Bytes that can be read from any place, such as a file or a slice.
pub trait ReadAt {
    /// How many there are.
    fn length(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// The bytes are not all there, or cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
