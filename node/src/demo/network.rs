//! The demo's addresses: a second octet of 127.0.0.0/8 that no other demo uses.
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Result, bail};
use branchline_protocol::charter::AddressBatch;

use crate::config::random_bytes;

/// Where the second octet is looked for; the low ones are what people use by hand.
const OCTETS: std::ops::Range<u8> = 64..250;
/// Port of headquarters' HTTP and, on another address, of nothing else.
const HTTP_PORT: u16 = 8080;
/// Port of the router's SNMP agent: above 1024, so that no privilege is needed.
const SNMP_PORT: u16 = 16_161;
/// Port of the control plane, as nodes have it by default.
const CONTROL_PORT: u16 = 7400;
/// Addresses that the router may map; the demo has at most 50 hosts.
const MAPPED_ADDRESSES: u8 = 64;

/// The addresses of one demo: headquarters in 127.X.0.0/24, the site in 127.X.1.0/24, mapped addresses in 127.X.2.0/24.
#[derive(Debug)]
pub struct Network {
    octet: u8,
    /// Held while the demo runs, so that another demo takes another octet.
    _lock: UdpSocket,
}

impl Network {
    /// Finds a free second octet, beginning anywhere.
    ///
    /// # Errors
    /// None is free, or this system has no other loopback addresses than 127.0.0.1.
    pub fn find() -> Result<Self> {
        let count = OCTETS.end - OCTETS.start;
        let begin = random_bytes()?[0] % count;
        let mut fault = String::new();
        for step in 0..count {
            let octet = OCTETS.start + (begin + step) % count;
            match claim(octet) {
                Ok(lock) => return Ok(Self { octet, _lock: lock }),
                Err(error) => fault = error.to_string(),
            }
        }
        bail!(
            "no block of loopback addresses is free for the demo ({fault}); it needs addresses such as 127.77.0.1, which \
             Linux has by itself"
        )
    }

    fn address(&self, net: u8, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.octet, net, last)
    }

    /// Headquarters.
    pub fn headquarters(&self) -> Ipv4Addr {
        self.address(0, 1)
    }

    /// Headquarters' HTTP: service discovery and reports.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from((self.headquarters(), HTTP_PORT))
    }

    /// The station.
    pub fn station(&self) -> Ipv4Addr {
        self.address(1, 2)
    }

    /// A host, by its number from 0 to 49.
    pub fn host(&self, number: u8) -> Ipv4Addr {
        self.address(1, 11 + number)
    }

    /// The router's SNMP agent.
    pub fn router(&self) -> SocketAddr {
        SocketAddr::from((self.address(1, 254), SNMP_PORT))
    }

    /// The site's own prefix.
    pub fn prefix(&self) -> String {
        format!("{}/24", self.address(1, 0))
    }

    /// The addresses that the router may map.
    pub fn mapped(&self) -> AddressBatch {
        AddressBatch { first: self.address(2, 1), last: self.address(2, MAPPED_ADDRESSES) }
    }
}

fn claim(octet: u8) -> std::io::Result<UdpSocket> {
    let lock = UdpSocket::bind((Ipv4Addr::new(127, octet, 255, 254), CONTROL_PORT))?;
    // Nodes of a demo that was kept running hold these.
    TcpListener::bind((Ipv4Addr::new(127, octet, 0, 1), CONTROL_PORT))?;
    TcpListener::bind((Ipv4Addr::new(127, octet, 1, 2), CONTROL_PORT))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_demos_have_different_addresses_and_all_of_one_differ() {
        let (first, second) = (Network::find().unwrap(), Network::find().unwrap());
        assert_ne!(first.octet, second.octet);
        assert!(claim(first.octet).is_err(), "held while the demo runs");
        let mut addresses: Vec<Ipv4Addr> = (0..50).map(|number| first.host(number)).collect();
        addresses.extend([
            first.headquarters(),
            first.station(),
            *match first.router() {
                SocketAddr::V4(router) => router,
                SocketAddr::V6(_) => unreachable!(),
            }
            .ip(),
        ]);
        addresses.extend(first.mapped().addresses());
        let count = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!((addresses.len(), count), (117, 117));
    }
}
