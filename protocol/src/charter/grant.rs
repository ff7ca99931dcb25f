//! What headquarters signs for a site's addresses: grants of batches, and what its probes saw.
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::signed::Document;
use crate::{
    ids::{PlanHash, SessionId, SiteName},
    limits::DOCUMENT_BYTES_MAX,
    time::UnixSeconds,
};

/// A run of mapped addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressBatch {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, not below the first.
    pub last: Ipv4Addr,
}

impl AddressBatch {
    /// The addresses, in order.
    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (u32::from(self.first)..=u32::from(self.last)).map(Ipv4Addr::from)
    }

    /// How many addresses.
    pub fn count(self) -> u64 {
        (u64::from(u32::from(self.last)) + 1).saturating_sub(u64::from(u32::from(self.first)))
    }

    /// Whether `address` lies in the batch.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

/// A batch given to a site by the NAT authority (R32, R110). Signed by headquarters' node key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressGrant {
    /// The site.
    pub site: SiteName,
    /// Grows with each grant to this site.
    pub serial: u64,
    /// The addresses.
    pub batch: AddressBatch,
}

impl Document for AddressGrant {
    const CONTEXT: &'static str = "branchline address grant 1";
    const BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "address grant";
}

/// What headquarters saw at a mapped address (R94). Signed by headquarters' node key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeResult {
    /// The site.
    pub site: SiteName,
    /// Host and generation.
    pub session: SessionId,
    /// The plan that the host carried out.
    pub plan: PlanHash,
    /// Where it looked.
    pub mapped: Ipv4Addr,
    /// The ports that it tried, each with what it saw: `None` where all was as declared, else what was not.
    pub ports: Vec<(u16, Option<String>)>,
    /// The ports that no package declares and that it tried as well; at most `PROBE_UNDECLARED_PORTS_MAX`. One that it
    /// could not try, for a reason of its own, is absent.
    // Never left out: results are journaled by position.
    #[serde(default)]
    pub undeclared: Vec<TriedPort>,
    /// When.
    pub probed_at: UnixSeconds,
}

/// A port that no package declares, and whether it answers at the mapped address all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriedPort {
    /// The TCP port.
    pub port: u16,
    /// Whether a connection was made.
    pub answers: bool,
}

impl ProbeResult {
    /// Whether every declared port answered as declared.
    pub fn passed(&self) -> bool {
        !self.ports.is_empty() && self.ports.iter().all(|(_, fault)| fault.is_none())
    }
}

impl Document for ProbeResult {
    const CONTEXT: &'static str = "branchline probe result 1";
    const BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "probe result";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{Hash, NodeId},
        wire::codec,
    };

    #[test]
    fn a_probe_result_comes_back_from_a_journal_and_from_json_with_and_without_undeclared_ports() {
        for undeclared in [Vec::new(), vec![TriedPort { port: 22, answers: true }]] {
            let result = ProbeResult {
                site: "store-17".parse().unwrap(),
                session: SessionId { node: NodeId([1; 32]), generation: 1 },
                plan: PlanHash(Hash::of(b"plan")),
                mapped: Ipv4Addr::LOCALHOST,
                ports: vec![(9100, None)],
                undeclared,
                probed_at: UnixSeconds(7),
            };
            let bytes = codec::encode(&result, DOCUMENT_BYTES_MAX).unwrap();
            assert_eq!(codec::decode::<ProbeResult>(&bytes, DOCUMENT_BYTES_MAX).unwrap(), result);
            let json = serde_json::to_string(&result).unwrap();
            assert_eq!(serde_json::from_str::<ProbeResult>(&json).unwrap(), result);
        }
    }
}
