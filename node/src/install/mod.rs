//! The privileged half of a host: a process of its own that installs what signed documents say, and nothing else (R87).
//!
//! | module | holds |
//! | --- | --- |
//! | [`socket`] | requests, events and their framing |
//! | [`client`] | the network process's side |
mod client;
mod socket;

pub use client::{InstallerClient, InstallerEvents};
pub use socket::{
    InstallOrder, InstalledPlan, InstallerEvent, InstallerOutcome, InstallerRequest, InstallerStatus, OfferedPack,
    ServiceStatus, SocketError,
};
