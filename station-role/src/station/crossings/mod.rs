//! The crossing desk: which encoding of an update crosses the line into the site, a patch or the whole pack (R70, R73).
//!
//! It stands before the lease desk: a wish for a lease of what does not cross is refused there. An update is a pack that
//! patches of the catalogue make; every other pack crosses without a question. Each update is decided once, on the first
//! wish for one of its encodings, and the decision is journaled: a restarted station goes on with the same encoding.
//!
//! | state of an update | on | next |
//! | --- | --- | --- |
//! | open | a wish for the pack or a patch to it, or the station keeps the pack; policy `whole` | whole |
//! | open | the same; another policy | looking |
//! | looking | the station holds bases | patch: the shortest from one of them |
//! | looking | it holds none | asking for the base of the shortest patch, not before five seconds after the start |
//! | asking | a member holds that base | patch: the one from it |
//! | asking | nobody does, or no answer for twelve seconds | asking for the next one's base |
//! | asking | that was the last; policy `patch` | whole |
//! | asking | that was the last; policy `patch_only` | nothing |
//! | patch | a wish for that patch | patch, and patience begins anew |
//! | patch | somebody waits for the pack, ten minutes after the last wish for the patch; policy `patch` | whole |
//! | patch | the station has that patch and could not make the pack of it; policy `patch` | whole |
//! | nothing | a wish, a minute after the last question | looking |
//! | any | a catalogue with other patches to the pack, or a policy with another `updates` | open |
//!
//! A wish is granted in `whole` for the pack alone, in `patch` for that one patch alone, in `nothing` for none; in the
//! other states it waits. A document that changes neither the patches nor `updates` changes no decision.
//!
//! Somebody waits whose wishes have come to nothing for ten seconds: not a newcomer that has not met its neighbours yet,
//! which may all have the pack. Under `patch_only` people are told where somebody waits in `nothing`, or in `patch` ten
//! minutes after the last wish for that. It is over once something crosses, another document comes, or no wish has come
//! for a minute.
mod machine;
mod update;
mod waits;
mod words;

pub use machine::{CrossingDesk, PATCH_PATIENCE};
pub use words::{
    Crossing, CrossingEvent, CrossingInput, CrossingNews, CrossingOutput, CrossingSetup, PatchFrom, UpdateOffer,
};

#[cfg(test)]
mod tests;
