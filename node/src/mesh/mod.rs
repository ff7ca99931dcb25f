//! The control plane: libp2p over TCP with TLS 1.3 and yamux, one request-response protocol, nothing else.
//!
//! A connection begins with a hello in each direction; until that is accepted the peer gets nothing and is cut after
//! [`ADMISSION_TIMEOUT`]. There is no identify and no gossip protocol: what they would tell, the hello and the
//! anti-entropy of document versions tell to members only.
mod behaviour;
mod codec;
mod documents;
mod handle;
mod neighbours;
mod service;
mod translate;

use std::time::Duration;

pub use documents::{Admission, Documents, SiteState, as_refusal};
pub use handle::{Mesh, MeshConfig, MeshError, MeshEvent};
pub use neighbours::Neighbours;
pub use translate::{multiaddr, node_id, peer_id, socket_address};

/// How long a connection may stay without an accepted hello.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest pause between two tries to reach a node that must be reached.
pub const REDIAL_MAX: Duration = Duration::from_secs(8);
