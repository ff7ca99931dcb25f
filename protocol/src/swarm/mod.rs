//! Who fetches which frame from whom: one node's part in the swarm of its site (R70, R72, R74).
//!
//! [`Swarm`] is one machine for all packs of a node. Neighbours tell each other what they have; each pulls what it
//! lacks, rarest first, with little in flight per neighbour. The first holder of a frame pushes it once. Over the WAN a
//! node fetches only under its own lease and only what nobody in the site is known to have, and never runs further
//! ahead of the site than B of R70.
//!
//! The machine is small and quick, because a simulator runs a million of them: peers and packs go by the caller's own
//! small keys, sets are words of 64 bits, only what something happened to is looked at again, deadlines are a lower
//! bound that is made exact when it comes, and the bytes of frames never pass through it. [`NamedSwarm`] puts names and
//! wire messages around it for runtimes with sockets.
//!
//! # A frame, seen by one node
//!
//! | state | in | until |
//! | --- | --- | --- |
//! | missing | `missing` | it is asked of a neighbour that has it, or of the origin |
//! | in flight | `flights` of a peer | it arrives, or the peer is busy, refuses, is silent or leaves: missing again |
//! | at the store | `storing` | stored, corrupt (missing again, the sender is banned) or not written (missing again) |
//! | withheld | `have` without `shown` | pushed to a neighbour, or heard of from one; then shown with the rest |
//! | shown | `have` and `shown` | it cannot be read any more: missing again |
//!
//! What came from inside the site, or is kept from before, is shown at once. Withheld is what came over the WAN and
//! what a source has and nobody else.
//!
//! # A withheld frame
//!
//! | state | in | until |
//! | --- | --- | --- |
//! | to be pushed | `to_push` | the next neighbour in turn whose socket is free gets it; or some neighbour has it |
//! | under way | `push` of a peer, `pushes` | the socket took it |
//! | unheard of | `pushes` | a neighbour announces it; or its time is over, or the neighbour left: to be pushed again |
//!
//! Once nothing is to be pushed or under way, everything is shown: at once where the pack is whole, else (an inlet)
//! when nothing more came for 50 ms.
//!
//! | file | holds |
//! | --- | --- |
//! | `interface` | keys, words, inputs, outputs |
//! | `tuning` | how much at a time, and the rule for a link |
//! | `state` | what the machine knows |
//! | `bits`, `random` | sets of peers, counters of holders, choices |
//! | `packs` | packs that are wanted and forgotten, frames that arrive and are stored |
//! | `peers` | neighbours that come, go, speak and misbehave |
//! | `picker` | which frame to ask of whom, inside the site and over the WAN |
//! | `serve` | frames that are served, pushed and announced |
//! | `turns` | who is served next, and which frame |
//! | `lease` | the own lease |
//! | `machine` | dispatch and deadlines |
//! | `invariants` | what always holds |
//! | `named`, `names` | names and messages at the edge |
//! | `neighbours` | who is whose neighbour |
//! | `fence` | the origin's side: who may fetch, and the meter of R70 |
mod bits;
mod fence;
mod interface;
mod invariants;
mod lease;
mod machine;
mod named;
mod names;
mod neighbours;
mod paced;
mod packs;
mod peers;
mod picker;
mod random;
mod serve;
mod state;
mod tuning;
mod turns;

pub use fence::{Admission, Fence, FenceRecord, LeaseSpan, OriginMeter};
pub use interface::{
    GrantedLease, Offence, PackKey, PeerKey, Place, Progress, SwarmInput, SwarmOutput, SwarmSetup, WantedPack, Word,
};
pub use named::NamedSwarm;
pub use names::{NamedInput, NamedOutput};
pub use neighbours::{neighbours, neighbours_of};
pub use state::Swarm;
pub use tuning::{LinkFigures, Tuning};

#[cfg(test)]
mod admission_tests;
#[cfg(test)]
mod bad_input_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod network_tests;
