//! This machine's address inside the site, which may change while the node runs: DHCP gives another one (R116).
//!
//! Everything that a host says of itself carries its address, and both planes listen on it. A node whose address is gone
//! starts anew on the one that it has now: everything that it knows is in its journals, and to start from these is what it
//! does after every crash. Then it reports, and the station leads the mapping to the new address.
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use branchline_protocol::charter::Role;

use super::{node::Node, notices::Cause};
use crate::mesh::Documents;

/// Between two looks at the own address. Two looks must agree, so a new address is taken within a second, and one that is
/// taken away and given back at once costs nothing.
const LOOK: Duration = Duration::from_millis(500);

/// Why a node ended without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// This machine has another address inside the site: the node is to start anew.
    Moved(IpAddr),
}

/// Whether this machine has an address: a socket can be bound to its own addresses only. Nothing is sent.
fn is_here(address: IpAddr) -> bool {
    !UdpSocket::bind((address, 0)).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

/// The address that this machine's routes use towards `peer`; `None` where none leads there. Nothing is sent.
fn towards(peer: SocketAddr) -> Option<IpAddr> {
    let any = match peer {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Whether a charter names the address of this node: then another one takes another charter.
fn is_named(documents: &Documents) -> bool {
    let named = [Role::Station, Role::Headquarters];
    let roles = |site| documents.authority(&site).map(|authority| authority.roles(documents.node()));
    documents.sites().into_iter().filter_map(roles).flatten().any(|role| named.contains(&role))
}

/// Where a host is now whose address is not this machine's any more: at the address by which it reaches its station, if
/// that lies inside the site.
pub fn elsewhere(documents: &Documents) -> Option<IpAddr> {
    if is_here(documents.addresses().control.ip()) || is_named(documents) {
        return None;
    }
    let authorities = documents.sites().into_iter().filter_map(|site| documents.authority(&site));
    authorities.into_iter().find_map(|authority| {
        let charter = authority.charter();
        towards(charter.station.addresses.control).filter(|address| address.is_ipv4() && charter.is_inside(*address))
    })
}

/// Resolves once this machine has another address inside the site.
pub async fn moved(node: &Node) -> IpAddr {
    let own = node.documents.addresses().control.ip();
    let (mut before, mut missed) = (None, false);
    loop {
        tokio::time::sleep(LOOK).await;
        let found = elsewhere(&node.documents);
        match found.filter(|_| found == before) {
            Some(address) => return address,
            None if found.is_none() && missed == is_here(own) => {
                missed = !missed;
                tell_people(node, own, missed);
            }
            None => {}
        }
        before = found;
    }
}

fn tell_people(node: &Node, own: IpAddr, missed: bool) {
    if !missed {
        return node.notices.over(Cause::Address);
    }
    let remedy = match is_named(&node.documents) {
        true => "the charter names it: give it back, or sign a charter with another (`branchline charter move`)",
        false => "no other address inside the site is found; give this machine one",
    };
    node.notices.add_of(Cause::Address, format!("this machine no longer has its address {own}: {remedy}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_addresses_are_here() {
        assert!(is_here(Ipv4Addr::LOCALHOST.into()));
        // TEST-NET-1 (RFC 5737) is nobody's.
        assert!(!is_here(Ipv4Addr::new(192, 0, 2, 1).into()));
    }

    #[test]
    fn the_address_towards_a_peer_is_one_that_is_here() {
        let found = towards((Ipv4Addr::new(127, 9, 9, 9), 7400).into()).unwrap();
        assert!(found.is_loopback() && is_here(found), "{found}");
    }
}
