//! Frame bytes over the line stay within P + k B (R70).
use super::{Kind, Violation, ensure};

/// `crossed` frame bytes were sent by the origin for packs of `length` bytes, `lost` times a lease holder or its
/// connection was lost, and at most `leased` bytes may be leased and held by no second node.
///
/// # Errors
/// More crossed than that.
pub fn bytes_are_bounded(crossed: u64, length: u64, lost: u64, leased: u64) -> Result<(), Violation> {
    let bound = length + lost * leased;
    ensure(Kind::Bounds, "WAN bytes <= P + k B", crossed <= bound, || {
        format!("{crossed} frame bytes crossed the line; P = {length}, k = {lost}, B = {leased} allow {bound}")
    })
}
