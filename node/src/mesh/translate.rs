//! Between libp2p's names and ours.
use std::net::SocketAddr;

use branchline_protocol::ids::NodeId;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Our name of a libp2p peer, where it is an ed25519 identity.
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

/// libp2p's name of a node.
pub fn peer_id(node: NodeId) -> Option<PeerId> {
    PeerId::from_bytes(&node.to_peer_id_bytes()).ok()
}

/// A TCP address as libp2p writes it.
pub fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// The TCP address in a multiaddress, where it begins with one.
pub fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_and_addresses_translate_both_ways() {
        let keys = libp2p::identity::Keypair::generate_ed25519();
        let peer = keys.public().to_peer_id();
        let node = node_id(&peer).unwrap();
        assert_eq!(peer_id(node), Some(peer));
        assert_eq!(node.to_string(), peer.to_string());
        let address: SocketAddr = "10.1.0.2:7400".parse().unwrap();
        assert_eq!(socket_address(&multiaddr(address)), Some(address));
    }
}
