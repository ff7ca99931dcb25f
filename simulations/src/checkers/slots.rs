//! Session slots are never exceeded (R22).
use super::{Kind, Violation, ensure};

/// `busy` hosts install or check themselves at this moment.
///
/// # Errors
/// More than the charter allows.
pub fn slots_are_kept(busy: &[usize], sessions_max: u32) -> Result<(), Violation> {
    ensure(Kind::Sessions, "slots are never exceeded", busy.len() <= sessions_max as usize, || {
        format!("hosts {busy:?} install at the same time; {sessions_max} may")
    })
}
