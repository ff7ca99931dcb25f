//! A node's seat: what a charter says of a station or of headquarters.
use std::{fs, net::SocketAddr};

use anyhow::{Context, Result, bail};
use branchline_protocol::{
    charter::{NodeAddresses, PublicKey},
    ids::{Hash, NodeId},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Home, NodeConfig, write_atomically};

/// Identity and addresses of a node; `branchline identity --out` writes one, `branchline init` reads them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// Who.
    pub node: NodeId,
    /// Where on the two planes.
    pub addresses: NodeAddresses,
    /// Where its public door is, should it be station.
    pub door: SocketAddr,
    /// SHA-256 of the door's certificate.
    pub door_fingerprint: Hash,
}

impl Seat {
    /// The seat of the node that lives in `home`.
    ///
    /// # Errors
    /// No listening address is configured, or a key cannot be read or made.
    pub fn of(home: &Home, config: &NodeConfig) -> Result<Self> {
        let Some(listen) = config.listen else {
            bail!("no address is set; say `--listen ADDRESS` once, it is kept in {}", home.path("node.toml").display());
        };
        let at = |port| SocketAddr::new(listen, port);
        Ok(Self {
            node: PublicKey::of(&home.identity()?).0,
            addresses: NodeAddresses { control: at(config.control_port), bulk: at(config.bulk_port) },
            door: at(config.door_port),
            door_fingerprint: DoorCertificate::load_or_create(home)?.fingerprint(),
        })
    }

    /// Reads a seat file.
    ///
    /// # Errors
    /// The file is missing or no seat.
    pub fn read(path: &std::path::Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("reading the seat {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is no seat; `branchline identity --out` writes one", path.display()))
    }
}

/// Key and self-signed certificate of the public door. Clients pin the certificate's fingerprint, so its names and dates
/// carry no meaning.
pub struct DoorCertificate {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The private key, PKCS #8 DER.
    pub key: Vec<u8>,
}

impl DoorCertificate {
    /// Reads the pair from the home directory; makes it at the first call.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn load_or_create(home: &Home) -> Result<Self> {
        let (certificate_path, key_path) = (home.path("door.crt"), home.path("door.key"));
        if certificate_path.exists() && key_path.exists() {
            let read = |path| fs::read(path).context("reading the public door's certificate and key");
            return Ok(Self { certificate: read(&certificate_path)?, key: read(&key_path)? });
        }
        let made = rcgen::generate_simple_self_signed(vec!["branchline-door".to_owned()])
            .context("making the public door's certificate")?;
        let pair = Self { certificate: made.cert.der().to_vec(), key: made.key_pair.serialize_der() };
        write_atomically(&key_path, &pair.key, 0o600)?;
        write_atomically(&certificate_path, &pair.certificate, 0o644)?;
        Ok(pair)
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Hash {
        Hash(Sha256::digest(&self.certificate).into())
    }
}
