//! The bulk plane: frames over TCP with TLS 1.3, both ends identified by their node keys (DESIGN.md, two planes).
//!
//! | file | holds |
//! | --- | --- |
//! | `certificate` | TLS configurations from the node key; who is at the other end |
//! | `framing` | messages on a TLS stream: lengths, bounds, timeouts, settings of the socket |
//! | `connection` | hellos, one reader and one writer per connection |
//! | `dialer`, `listener` | both ways to a connection |
//! | `accounts` | who sent what, over WAN or LAN |
//! | `service` | the loop around the swarm machine |
//! | `origin` | headquarters' side: the fence and the meter of R70 |
//! | `links` | connections as the service sees them |
//! | `pool` | the threads that read, hash and write frames |
//! | `loopback` | what `tests/bench bulk` measures |
//! | `neighbourhood` | whom this node is connected with |
//! | `line` | a line that is off, and which rates a connection keeps to |
//! | `shaper` | sockets that keep to the rates of R71 |
//!
//! Beyond its hello a peer gets nothing: who is no member is closed without a word.
mod accounts;
mod certificate;
mod connection;
mod dialer;
mod framing;
mod handle;
mod line;
mod links;
mod listener;
pub mod loopback;
mod neighbourhood;
mod origin;
mod pool;
mod read_ahead;
mod service;
mod shaper;

pub use accounts::{Accounts, Direction, Transfer, TransferKey};
pub use certificate::{CertificateError, TlsIdentity};
pub use connection::LinkError;
pub use handle::{BulkConfig, BulkEvent, BulkHandle, BulkStopped, start};
pub use shaper::{Bucket, Shaper};

#[cfg(test)]
mod tests;
