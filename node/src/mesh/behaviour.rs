//! What the control plane speaks, and its connection limits.
use std::{iter, time::Duration};

use anyhow::Result;
use ed25519_dalek::SigningKey;
use libp2p::{
    Swarm, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    identity::Keypair,
    mdns,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, tls, yamux,
};

use super::{
    REQUEST_TIMEOUT,
    codec::{CONTROL_PROTOCOL, ControlCodec},
};

/// Requests and answers, discovery where it is wanted, and limits.
#[derive(NetworkBehaviour)]
pub struct ControlBehaviour {
    limits: connection_limits::Behaviour,
    pub(super) requests: request_response::Behaviour<ControlCodec>,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// Streams that one connection may have open at once.
const STREAMS_PER_CONNECTION: usize = 64;
/// A short interval until the mesh is found; mDNS is never complete, and with libp2p's default of 300 s nearly nobody is
/// found in the first half minute (measured in the lab).
const MDNS_QUERY_INTERVAL: Duration = Duration::from_secs(10);

/// Builds the swarm of one node.
///
/// # Errors
/// The key, the transport or multicast DNS cannot be set up.
pub fn build(key: &SigningKey, established_max: u32, with_mdns: bool) -> Result<Swarm<ControlBehaviour>> {
    let keypair = Keypair::ed25519_from_bytes(key.to_bytes())?;
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), tls::Config::new, yamux::Config::default)?
        .with_behaviour(|keypair| {
            let limits = ConnectionLimits::default()
                .with_max_pending_incoming(Some(128))
                .with_max_pending_outgoing(Some(64))
                // Two for a host and its peer that dial each other at once, and two for a copy of the host (R99): it must
                // come as far as its hello, so that it is seen.
                .with_max_established_per_peer(Some(4))
                .with_max_established(Some(established_max));
            let config = request_response::Config::default()
                .with_request_timeout(REQUEST_TIMEOUT)
                .with_max_concurrent_streams(STREAMS_PER_CONNECTION);
            let mdns = with_mdns.then(|| {
                let config = mdns::Config { query_interval: MDNS_QUERY_INTERVAL, ..mdns::Config::default() };
                mdns::tokio::Behaviour::new(config, keypair.public().to_peer_id())
            });
            Ok(ControlBehaviour {
                limits: connection_limits::Behaviour::new(limits),
                requests: request_response::Behaviour::with_codec(
                    ControlCodec,
                    iter::once((CONTROL_PROTOCOL, ProtocolSupport::Full)),
                    config,
                ),
                mdns: Toggle::from(mdns.transpose()?),
            })
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(120)))
        .build();
    Ok(swarm)
}
