//! Why a patch is not usable, or does not make what it promises.
use std::io;

use thiserror::Error;

use super::header::{PATCH_FORMAT, StreamName};
use crate::ids::ImageId;

/// Why no target came of a patch. Whatever was written until then is to be thrown away.
#[derive(Debug, Error)]
pub enum PatchError {
    /// No patch at all.
    #[error("this is not a patch: it begins with other bytes than a patch does")]
    NotAPatch,
    /// A format of a later version.
    #[error("the patch has format {found}; this version reads format {PATCH_FORMAT}; update Branchline")]
    Format {
        /// Format found.
        found: u8,
    },
    /// Cut, or a promise beyond a bound.
    #[error("the patch's header is not usable: {0}")]
    Header(&'static str),
    /// Made for another base.
    #[error("the patch is for image {wanted}, but it was to be applied to image {found}")]
    WrongBase {
        /// The base that it is for.
        wanted: ImageId,
        /// The base that was offered.
        found: ImageId,
    },
    /// The base is not as long as it was when the patch was made.
    #[error("the patch is for a base of {wanted} bytes, but the one here has {found}")]
    BaseLength {
        /// Bytes that it needs.
        wanted: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A stream that ends early, goes on too long, or does not decode.
    #[error("the patch's {stream} are damaged: {reason}")]
    Stream {
        /// Which.
        stream: StreamName,
        /// What is wrong.
        reason: String,
    },
    /// A record that reads outside of the base, writes beyond the target, or does nothing.
    #[error("the patch is damaged at byte {at} of its target: {reason}")]
    Record {
        /// Bytes written until then.
        at: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The base or the patch cannot be read.
    #[error("the {what} cannot be read: {source}")]
    Read {
        /// Which of the two.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The target cannot be written.
    #[error("the target cannot be written: {0}")]
    Write(#[source] io::Error),
    /// Every record was carried out, but another image came of them.
    #[error("the patch promises image {promised}, but makes {made}")]
    Target {
        /// As promised.
        promised: ImageId,
        /// As computed from what was written.
        made: ImageId,
    },
}
