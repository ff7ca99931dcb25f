//! The privileged half of a host: a process of its own that installs what signed documents say, and nothing else (R87).
//!
//! | module | holds |
//! | --- | --- |
//! | [`socket`] | requests, events and their framing |
//! | [`client`] | the network process's side |
//! | [`server`] | the installer's process |
//! | [`verify`] | its own judgement of charter, catalogue, policy and plan |
//! | [`acts`], [`engine`] | the steps of a plan, forward and back |
//! | [`removal`] | what a newer plan leaves out |
//! | [`journal`], [`undo`], [`work`] | every act is announced with its undo before it is done |
//! | [`deb`], [`tar`], [`images`] | payloads |
//! | [`service`], [`supervisor`], [`health`] | agents: started, kept running, asked |
//! | [`watch`], [`users`], [`files`], [`host`], [`exec`] | the host under its root |
//!
//! What this module does not do, on purpose: it takes no command from the network process that is not in a signed plan,
//! it opens no connection but to this host's own addresses, and it ends no process that it did not start.
mod acts;
mod client;
mod deb;
mod engine;
mod error;
mod events;
mod exec;
mod files;
mod health;
mod host;
mod images;
mod journal;
mod plans;
mod removal;
mod server;
mod service;
mod socket;
mod supervisor;
mod tar;
mod undo;
mod users;
mod verify;
mod watch;
mod work;

pub use client::{InstallerClient, InstallerEvents};
pub use server::{Installer, InstallerError, InstallerOptions, answers, run};
pub use socket::{
    InstallOrder, InstalledPlan, InstallerEvent, InstallerOutcome, InstallerRequest, InstallerStatus, OfferedPack,
    ServiceStatus, SocketError,
};
pub use watch::{EXCEPTIONS, is_exception};
