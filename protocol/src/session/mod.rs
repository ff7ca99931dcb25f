//! The host's side of a session, and the words of its dialogue with the station.
//!
//! The dialogue is level-triggered: a host states where it is ([`HostReport`]), a station states what it wants
//! ([`Directive`]), and either may repeat itself at any time. A lost, doubled or reordered message therefore costs time
//! and never correctness: the higher revision counts, the lower is ignored.
mod buffer;
mod dialogue;
mod invariants;
mod machine;
mod state;
#[cfg(test)]
mod tests;
mod text;
mod transitions;

pub use buffer::EventBuffer;
pub use dialogue::{Directive, HostReport, HostState, Order, Stage, WaitReason};
pub use machine::HostMachine;
pub use state::{
    HostEvent, HostInput, HostOutput, HostSession, HostSetup, InstalledPlan, InstallerEvent, StandingOrder,
};
pub use text::wait_text;
