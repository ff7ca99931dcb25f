//! What a peer may be told when something is refused.
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::REFUSAL_TEXT_BYTES_MAX;

/// Why, in a form that a program can act on. New kinds are appended, never inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The message could not be read, or breaks a rule of the protocol.
    Malformed,
    /// The message or document is longer than its bound.
    TooLarge,
    /// The peer has not shown that it is a member, or is one no longer.
    NotAMember,
    /// A member, but not in the role that this needs.
    NotAuthorised,
    /// A signature does not hold, or is by the wrong key.
    BadSignature,
    /// An older charter, epoch, catalogue or policy than one already seen.
    Stale,
    /// A token that is wrong, used up or expired.
    Token,
    /// The thing asked for is not here.
    NotFound,
    /// No capacity now; ask again later, or elsewhere.
    Busy,
    /// The plan is not the one that this node computes itself (R62).
    PlanDiffers,
    /// A conflict stops the session before any download (R61).
    Conflict,
    /// One identity from two machines or addresses (R99).
    DuplicateIdentity,
    /// The request does not fit the present state.
    WrongState,
    /// A fault of this node, not of the peer.
    Internal,
}

/// A refusal: a kind for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What class of refusal it is.
    pub kind: RefusalKind,
    /// What was refused, why, and what to do next; at most [`REFUSAL_TEXT_BYTES_MAX`] bytes.
    pub reason: String,
}

impl Refusal {
    /// A refusal whose reason is cut to its bound at a character's edge.
    pub fn new(kind: RefusalKind, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.len() > REFUSAL_TEXT_BYTES_MAX {
            let mut end = REFUSAL_TEXT_BYTES_MAX;
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            reason.truncate(end);
        }
        Self { kind, reason }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let refusal = Refusal::new(RefusalKind::Busy, "ü".repeat(REFUSAL_TEXT_BYTES_MAX));
        assert!(refusal.reason.len() <= REFUSAL_TEXT_BYTES_MAX);
        assert!(refusal.reason.chars().all(|c| c == 'ü'));
    }
}
