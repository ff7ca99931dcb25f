//! The charter: the signed, versioned document that makes a site.
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::signed::{Document, PublicKey};
use crate::{
    ids::{Epoch, Hash, NodeId, ParseIdError, SiteName},
    limits,
    time::UnixSeconds,
};

/// An address prefix such as `10.1.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// An address in the prefix, host bits zero.
    pub address: IpAddr,
    /// Leading bits that count: 0 to 32, or 0 to 128.
    pub length: u8,
}

impl Prefix {
    /// Whether `address` lies in the prefix.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.length);
                u32::from(own).checked_shr(shift) == u32::from(other).checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.length);
                u128::from(own).checked_shr(shift) == u128::from(other).checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl FromStr for Prefix {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = || ParseIdError {
            text: text.chars().take(80).collect(),
            expected: "an address prefix such as 10.1.0.0/24",
        };
        let (address, length) = text.split_once('/').ok_or_else(error)?;
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let length: u8 = length.parse().map_err(|_| error())?;
        let prefix = Self { address, length };
        let (bits, host_bits_clear) = match address {
            IpAddr::V4(a) => (32, u32::from(a).checked_shl(u32::from(length)).unwrap_or(0) == 0),
            IpAddr::V6(a) => (128, u128::from(a).checked_shl(u32::from(length)).unwrap_or(0) == 0),
        };
        if length > bits || !host_bits_clear { Err(error()) } else { Ok(prefix) }
    }
}

impl TryFrom<String> for Prefix {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Where a node listens on the two planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// Control plane (libp2p over TCP).
    pub control: SocketAddr,
    /// Bulk plane (TCP with TLS 1.3).
    pub bulk: SocketAddr,
}

/// The designated station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationSeat {
    /// Its identity.
    pub node: NodeId,
    /// Where it listens.
    pub addresses: NodeAddresses,
    /// The public door (R50a): where it listens, HTTPS.
    pub door: SocketAddr,
    /// SHA-256 of the door's certificate (DER), as `Hash` for its text form.
    pub door_fingerprint: Hash,
}

/// Headquarters as the site knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadquartersSeat {
    /// Its identity.
    pub node: NodeId,
    /// Where sites dial it.
    pub addresses: NodeAddresses,
}

/// The keys that sign what a station must not be able to sign. None of them is kept on a station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Signs catalogues.
    pub catalogue: PublicKey,
    /// Signs site policies (an administrator).
    pub administrator: PublicKey,
    /// Sign approvals.
    pub approvers: Vec<PublicKey>,
}

/// Bounds of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteLimits {
    /// Most members; also the bound of the session queue (R22).
    pub members_max: u32,
    /// Most simultaneous sessions (R22).
    pub sessions_max: u32,
    /// B of R70 in bytes.
    pub leased_bytes_max: u64,
}

impl Default for SiteLimits {
    fn default() -> Self {
        Self {
            members_max: limits::MEMBERS_DEFAULT,
            sessions_max: limits::SESSIONS_DEFAULT,
            leased_bytes_max: limits::LEASED_BYTES_DEFAULT,
        }
    }
}

/// What happens to an installed agent whose host is denied (R92).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeniedAction {
    /// The agent goes on.
    Leave,
    /// The agent is stopped and its files stay.
    #[default]
    Stop,
    /// The agent is stopped and its files go.
    Uninstall,
}

/// What happens to an agent that was installed and could not be verified (R95).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnverifiedAction {
    /// The agent stays as it is, unmapped, and a person decides.
    #[default]
    Hold,
    /// The agent is removed and the session ends. An update is held all the same: what it replaced is gone.
    RollBack,
}

/// Standing rules of the site that its owner signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SitePolicies {
    /// How long a membership lasts, in seconds; it is renewed at half of that.
    pub membership_life_seconds: u64,
    /// Whether approval is asked before the installation instead of after it (R90a).
    pub approve_before_installation: bool,
    /// What a denial does to an installed agent.
    pub on_denied: DeniedAction,
    /// What a failed verification does to an installed agent (R95).
    pub on_unverified: UnverifiedAction,
    /// How long a released address rests before it may be mapped again, in seconds (R98).
    pub address_rest_seconds: u64,
    /// Whether sealed surveys may leave the site for headquarters (R8).
    pub surveys_leave_site: bool,
}

impl Default for SitePolicies {
    fn default() -> Self {
        Self {
            membership_life_seconds: 24 * 3600,
            approve_before_installation: false,
            on_denied: DeniedAction::Stop,
            on_unverified: UnverifiedAction::Hold,
            address_rest_seconds: 3600,
            surveys_leave_site: false,
        }
    }
}

/// The document that makes a site: who owns and operates it, which addresses are its own, who holds which role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charter {
    /// The site.
    pub site: SiteName,
    /// Grows with every change; a verifier refuses a lower one than it has seen.
    pub version: u64,
    /// When it was signed.
    pub issued_at: UnixSeconds,
    /// Who owns the hosts (R8).
    pub owner: String,
    /// Who operates headquarters and station (R8).
    pub operator: String,
    /// Prefixes of the site: a transfer is LAN only if both addresses lie in them (R70).
    pub prefixes: Vec<Prefix>,
    /// The designated station.
    pub station: StationSeat,
    /// Headquarters.
    pub headquarters: HeadquartersSeat,
    /// Keys for catalogue, site policy and approvals.
    pub keys: Keys,
    /// Who may open sealed surveys besides the station, and may sign later warrants.
    #[serde(default)]
    pub electors: Vec<NodeId>,
    /// Stations of earlier versions, with the last epoch of each: what they signed then still counts (R4).
    #[serde(default)]
    pub former_stations: Vec<(NodeId, Epoch)>,
    /// Bounds.
    #[serde(default)]
    pub limits: SiteLimits,
    /// Standing rules.
    #[serde(default)]
    pub policies: SitePolicies,
}

impl Document for Charter {
    const CONTEXT: &'static str = "branchline charter 1";
    const BYTES_MAX: usize = limits::DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "charter";
}

/// A rule that a charter breaks.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("the charter of {site}, version {version}, is not usable: {rule}")]
pub struct CharterError {
    /// The site.
    pub site: SiteName,
    /// Its version.
    pub version: u64,
    /// What is wrong and what to change.
    pub rule: String,
}

impl Charter {
    /// The epoch of the station that this charter designates.
    pub fn epoch(&self) -> Epoch {
        Epoch { charter_version: self.version, term: 0 }
    }

    /// Whether `address` lies in the site.
    pub fn is_inside(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(address))
    }

    /// Who may open a survey that is sealed today: the station and the electors (R49).
    pub fn survey_readers(&self) -> Vec<NodeId> {
        let mut readers = vec![self.station.node];
        readers.extend(self.electors.iter().copied().filter(|node| *node != self.station.node));
        readers
    }

    /// Checks the rules that a signature does not show.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), CharterError> {
        let rules = [
            (self.version > 0, "its version must be at least 1"),
            ((1..=limits::PREFIXES_MAX).contains(&self.prefixes.len()), "it must list 1 to 64 address prefixes"),
            ((1..=limits::KEYS_MAX).contains(&self.keys.approvers.len()), "it must name 1 to 16 approval keys"),
            (self.electors.len() <= limits::ELECTORS_MAX, "it may name at most 15 electors"),
            (self.former_stations.len() <= limits::FORMER_STATIONS_MAX, "it may remember at most 16 former stations"),
            ((1..=limits::MEMBERS_MAX).contains(&self.limits.members_max), "members_max must be 1 to 100000"),
            (self.limits.sessions_max >= 1, "sessions_max must be at least 1"),
            (self.policies.membership_life_seconds >= 10, "membership_life_seconds must be at least 10"),
            (
                self.is_inside(self.station.addresses.control.ip()),
                "the station's address must lie in the site's prefixes",
            ),
            (
                self.station.node != self.headquarters.node || self.station.addresses == self.headquarters.addresses,
                "one node that is station and headquarters must have one pair of addresses",
            ),
            (self.owner.len() <= 256 && self.operator.len() <= 256, "owner and operator have at most 256 bytes"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => {
                Err(CharterError { site: self.site.clone(), version: self.version, rule: rule.to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_contain_what_they_should() {
        let prefix: Prefix = "10.1.0.0/24".parse().unwrap();
        assert!(prefix.contains("10.1.0.255".parse().unwrap()));
        assert!(!prefix.contains("10.1.1.0".parse().unwrap()));
        assert!(prefix.contains("::ffff:10.1.0.7".parse().unwrap()), "mapped IPv4 is the same address");
        assert!("0.0.0.0/0".parse::<Prefix>().unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!("fd00::/8".parse::<Prefix>().unwrap().contains("fd12::1".parse().unwrap()));
        for bad in ["10.1.0.1/24", "10.1.0.0", "10.1.0.0/33", "x/3", "10.1.0.0/-1"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }
}
