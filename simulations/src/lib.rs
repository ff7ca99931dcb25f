//! Worlds that drive the product's own machines under virtual time.
//!
//! Nothing here is a model of a machine: the machines are those of `protocol` and `station-role`, as the binary runs
//! them. What is modelled is the rest of the world: links, disks, a router, an installer, people, crashes. A world is
//! deterministic: the same seed gives the same trace, byte for byte.
//!
//! | module | holds |
//! | --- | --- |
//! | [`capacity`] | how long a rollout takes and what binds: many sites that meet at headquarters' uplink |
//! | [`world`] | the parts, each with one kind of fault |
//! | [`scenario`] | how large a world is and how bad its weather |
//! | [`star`] | one pack on one switch: the swarm machine against theory |
//! | [`site`] | one site with headquarters, a station and hosts |
//! | [`checkers`] | what must always hold, one property each |
//! | [`faults`] | fault simulation: what a seed turns on, one run and its report |
//! | [`recording`] | everything that happened in a run, to be stepped through |
//! | [`replay`] | the trace of a run |
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod capacity;
pub mod checkers;
pub mod faults;
pub mod recording;
pub mod replay;
pub mod scenario;
pub mod site;
pub mod star;
pub mod world;
