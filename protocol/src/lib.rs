//! The pure part of Branchline: what every node says, knows and decides.
//!
//! Nothing in this crate reads a clock, opens a socket or a file, starts a thread or draws a random number. Whatever
//! decides is a [`machine::Machine`]: inputs in, outputs out, time passed as an argument. The runtime in the `node`
//! crate and the worlds in `simulations` drive the same code.
//!
//! | module | holds |
//! | --- | --- |
//! | [`ids`] | node identities, hashes, sites, sessions, epochs |
//! | [`time`] | the two clocks as plain values |
//! | [`limits`] | every bound of every queue, table and message |
//! | [`machine`] | the contract of a machine |
//! | [`refusal`] | what a peer may be told when something is refused |
//! | [`charter`] | signed documents: charter, warrant, membership, token, approval, lease, probe, grant |
//! | [`content`] | images, packs, manifests, frames, bitmaps |
//! | [`catalogue`] | packages, modules, thresholds, conflicts, site policy: signed data |
//! | [`plan`] | what is chosen for a host, and why |
//! | [`rates`] | how fast bytes may flow: schedules, token buckets, background mode |
//! | [`survey`] | the descriptor that a host's survey makes |
//! | [`session`] | the host's side of a session and its dialogue with the station |
//! | [`report`] | what happened, as events |
//! | [`swarm`] | who fetches which frame from whom |
//! | [`wire`] | the messages between nodes and their encoding |
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod catalogue;
pub mod charter;
pub mod content;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod plan;
#[cfg(test)]
#[path = "../../tests/src/property_tests.rs"]
mod property_tests;
pub mod rates;
pub mod refusal;
pub mod report;
pub mod session;
pub mod survey;
pub mod swarm;
pub mod time;
pub mod wire;
