//! The pure part of Branchline: words, trust, content, swarm, the host's side of a session, wire format.

pub mod limits;
pub mod survey;
