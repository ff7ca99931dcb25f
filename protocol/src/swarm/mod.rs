//! Who fetches which frame from whom: one node's part in the swarm of its site (R70, R72, R74).
//!
//! [`Swarm`] is one machine for all packs of a node. Neighbours tell each other what they have; each pulls what it
//! lacks, rarest first, with little in flight per neighbour. Over the WAN a node fetches only under its own lease and
//! only what nobody in the site is known to have, and never runs further ahead of the site than B of R70.
//!
//! | file | holds |
//! | --- | --- |
//! | `state` | what the machine knows; inputs and outputs |
//! | `peers` | neighbours that come, go, speak and misbehave |
//! | `frames` | frames that arrive, are stored, are served |
//! | `picker` | which frame to ask of whom, inside the site and over the WAN |
//! | `lease` | the own lease |
//! | `machine` | dispatch and deadlines |
//! | `invariants` | what always holds |
//! | `fence` | the origin's side: who may fetch, and the meter of R70 |
mod fence;
mod frames;
mod invariants;
mod lease;
mod machine;
mod peers;
mod picker;
mod state;

pub use fence::{Admission, Fence, FenceRecord, OriginMeter};
pub use state::{Place, Progress, Swarm, SwarmInput, SwarmOutput, SwarmSetup};

#[cfg(test)]
mod network_tests;
