//! The file that says which frames of a pack survive a power cut.
use branchline_protocol::{content::Bitmap, ids::Hash};

/// The bitmap file: the wire form and its hash.
pub(super) fn encode_kept(kept: &Bitmap) -> Vec<u8> {
    let bytes = kept.to_bytes();
    [bytes.as_slice(), &Hash::in_domain("branchline kept 1", &bytes).0].concat()
}

/// Reads what [`encode_kept`] wrote for a pack of so many frames; `None` where it is damaged.
pub(super) fn decode_kept(bytes: &[u8], frames: u32) -> Option<Bitmap> {
    let (bitmap, hash) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    (Hash::in_domain("branchline kept 1", bitmap).0 == hash).then(|| Bitmap::from_bytes(bitmap, frames).ok())?
}
