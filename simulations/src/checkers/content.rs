//! Every frame that counts is verified (R70), and a kept frame survives (R72).
use branchline_protocol::{content::Bitmap, ids::PackId};

use super::{Kind, Violation, ensure};
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
        ensure(Kind::Integrity, "a frame that counts is verified", stored == Some(payload.frame(index)), || {
            format!("host {host} counts frame {index} of pack {pack}, but its store holds something else")
        })?;
    }
    Ok(())
}

/// No frame that a store keeps differs from the payload's frame, whether it counts or not.
///
/// # Errors
/// A corrupt frame is kept.
pub fn kept_frames_are_good(host: usize, store: &PackStore, payload: &Payload) -> Result<(), Violation> {
    let corrupt = store.frames().find(|(index, bytes)| payload.frame(*index) != *bytes).map(|(index, _)| index);
    ensure(Kind::Integrity, "no corrupt byte is kept", corrupt.is_none(), || {
        format!("host {host} keeps a corrupt frame {corrupt:?} of pack {}", payload.id())
    })
}

/// Whoever installs a plan holds all frames of its packs.
///
/// # Errors
/// One is missing.
pub fn whole_packs_are_installed(host: usize, store: Option<&PackStore>, payload: &Payload) -> Result<(), Violation> {
    let missing = (0..payload.pack.frames()).find(|index| store.and_then(|store| store.frame(*index)).is_none());
    ensure(Kind::Integrity, "only whole packs are installed", missing.is_none(), || {
        format!("host {host} installs pack {} without frame {missing:?}", payload.id())
    })
}
