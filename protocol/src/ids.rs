//! Names of things: nodes, content, sites, sessions, epochs.
use std::{fmt, str::FromStr};

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// Why a text is not the name it should be.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{text:?} is not {expected}")]
pub struct ParseIdError {
    /// What was read, shortened.
    pub text: String,
    /// What it should have been.
    pub expected: &'static str,
}

impl ParseIdError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

/// A node's identity: its ed25519 public key, shown as the libp2p `PeerId` (`12D3KooW...`).
///
/// The PeerId of an ed25519 key is the identity multihash of its protobuf form, so the two convert without loss
/// (libp2p specifications, peer-ids).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

/// Identity multihash, 36 bytes, of the protobuf `PublicKey { Type: Ed25519, Data: 32 bytes }`.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl NodeId {
    /// The 38 bytes of the libp2p `PeerId`.
    pub fn to_peer_id_bytes(self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// The identity in a libp2p `PeerId`'s bytes, where that is an ed25519 identity.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX)?;
        Some(Self(key.try_into().ok()?))
    }

    /// The key that checks this node's signatures, where the bytes are a point of the curve.
    pub fn verifying_key(self) -> Option<VerifyingKey> {
        VerifyingKey::from_bytes(&self.0).ok()
    }

    /// The last eight characters, for tables that people read.
    pub fn short(self) -> String {
        let text = self.to_string();
        text[text.len().saturating_sub(8)..].to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId(..{})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = || ParseIdError::new(text, "a node identity such as 12D3KooW...");
        if text.len() > 64 {
            return Err(error());
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| error())?;
        Self::from_peer_id_bytes(&bytes).ok_or_else(error)
    }
}

/// A BLAKE3 hash, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The hash of `bytes` in a domain of its own, so that two kinds of things never share a name.
    pub fn in_domain(domain: &str, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(domain.len() as u64).to_le_bytes());
        hasher.update(domain.as_bytes());
        hasher.update(bytes);
        Self(*hasher.finalize().as_bytes())
    }

    /// The first eight digits, for tables that people read.
    pub fn short(self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({}..)", self.short())
    }
}

impl FromStr for Hash {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = || ParseIdError::new(text, "a hash of 64 hexadecimal digits");
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| error())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        Ok(Self(bytes))
    }
}

/// Texts in formats for people (JSON, TOML), raw bytes in the binary format.
macro_rules! serde_as_text_or_bytes {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    Ok(Self(Deserialize::deserialize(deserializer)?))
                }
            }
        }
    };
}
serde_as_text_or_bytes!(NodeId);
serde_as_text_or_bytes!(Hash);

/// A hash that names one kind of thing.
macro_rules! named_hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub crate::ids::Hash);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse().map(Self)
            }
        }
    };
}

named_hash!(
    /// Names an image: the raw bytes of a payload in their normal form.
    ImageId
);
named_hash!(
    /// Names a pack: one encoding of an image, by the hash of its manifest.
    PackId
);
named_hash!(
    /// Names a plan: everything that one host will install, configure and run (R62).
    PlanHash
);
named_hash!(
    /// Names a sealed survey, by the hash of its sealed form (R49).
    SurveyHash
);
named_hash!(
    /// Names a signed document, by the hash of its signed body.
    DocumentHash
);

/// The name of a site: 1 to 63 characters of `a-z 0-9 -`, not at the ends a hyphen (a DNS label, RFC 1123).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteName(String);

impl SiteName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SiteName {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, ParseIdError> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = (1..=63).contains(&text.len()) && text.chars().all(good);
        if fits && !text.starts_with('-') && !text.ends_with('-') {
            Ok(Self(text))
        } else {
            Err(ParseIdError::new(&text, "a site name (1 to 63 of a-z, 0-9 and inner hyphens)"))
        }
    }
}

impl FromStr for SiteName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.to_owned().try_into()
    }
}

impl From<SiteName> for String {
    fn from(name: SiteName) -> Self {
        name.0
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One installation dialogue with one host; an update is a new generation (R97).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId {
    /// The host.
    pub node: NodeId,
    /// 1 for the first installation, one more for each later one.
    pub generation: u32,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.generation)
    }
}

/// Who may act as station: the charter's version, then the term within it. Higher wins, everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Version of the charter that designates the station.
    pub charter_version: u64,
    /// Term within that version; 0 where the charter itself designates.
    pub term: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.charter_version, self.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn node_identities_and_hashes_survive_their_text(bytes: [u8; 32]) {
            prop_assert_eq!(NodeId(bytes).to_string().parse::<NodeId>(), Ok(NodeId(bytes)));
            prop_assert_eq!(Hash(bytes).to_string().parse::<Hash>(), Ok(Hash(bytes)));
            let json = serde_json::to_string(&NodeId(bytes)).unwrap();
            prop_assert_eq!(serde_json::from_str::<NodeId>(&json).unwrap(), NodeId(bytes));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".*") {
            let _ = text.parse::<NodeId>();
            let _ = text.parse::<Hash>();
            let _ = text.parse::<SiteName>();
        }
    }

    #[test]
    fn a_known_peer_id_is_an_ed25519_identity() {
        let text = "12D3KooWHq9M5qC2sXzhmCcYoTn2CT4sF1PQ3bXKLFXLyGVYSrpV";
        if let Ok(id) = text.parse::<NodeId>() {
            assert_eq!(id.to_string(), text);
        }
        assert!(NodeId([7; 32]).to_string().starts_with("12D3KooW"));
        assert!("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse::<NodeId>().is_err());
    }

    #[test]
    fn site_names_are_dns_labels() {
        assert!("store-17".parse::<SiteName>().is_ok());
        for bad in ["", "-a", "a-", "A", "a b", "../x", &"a".repeat(64)] {
            assert!(bad.parse::<SiteName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn epochs_order_by_charter_then_term() {
        let epoch = |charter_version, term| Epoch { charter_version, term };
        assert!(epoch(1, 9) < epoch(2, 0) && epoch(2, 0) < epoch(2, 1));
    }
}
