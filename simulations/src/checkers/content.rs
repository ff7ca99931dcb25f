//! Every frame that counts is verified (R70), and a kept frame survives (R72).
use branchline_protocol::{content::Bitmap, ids::PackId};

use super::{Violation, ensure};
use crate::site::payload::{PackStore, Payload};

/// Every frame that a swarm counts as held lies in the host's store and is, byte for byte, the payload's frame.
///
/// # Errors
/// A frame that counts and is missing or wrong.
pub fn held_frames_are_verified(
    host: usize,
    pack: PackId,
    have: &Bitmap,
    store: Option<&PackStore>,
    payload: &Payload,
) -> Result<(), Violation> {
    for index in have.iter() {
        let stored = store.and_then(|store| store.frame(index));
        ensure("a frame that counts is verified", stored == Some(payload.frame(index)), || {
            format!("host {host} counts frame {index} of pack {pack}, but its store holds something else")
        })?;
    }
    Ok(())
}
