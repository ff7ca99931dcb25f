//! What a site's configuration says about its router.
//!
//! ```toml
//! address = "192.0.2.1:161"
//! interface_index = 2
//! user = "station"
//! credentials_file = "/etc/branchline/router-credentials.toml"
//! ```
//!
//! The credentials are in a file of their own, so that the configuration can be shown to anyone:
//!
//! ```toml
//! authentication_passphrase = "at least eight characters"
//! privacy_passphrase = "at least eight characters"
//! ```
use std::{fmt, fs, net::SocketAddr, path::PathBuf};

use branchline_station_role::router::VendorProfile;
use serde::{Deserialize, Serialize};

/// A router and how to speak with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterConfig {
    /// Address and port of the router's SNMP agent.
    pub address: SocketAddr,
    /// `ifIndex` of the router's public interface.
    pub interface_index: u32,
    /// SNMPv3 user.
    pub user: String,
    /// File with the user's passphrases, in TOML.
    pub credentials_file: PathBuf,
    /// Vendor profile by name; `nat-mib` is RFC 4008 to the letter.
    #[serde(default = "default_profile")]
    pub profile: String,
    /// How long one request waits for its answer, in milliseconds.
    #[serde(default = "default_request_timeout_milliseconds")]
    pub request_timeout_milliseconds: u64,
    /// How often an unanswered request is sent again.
    #[serde(default = "default_retries")]
    pub retries: u32,
}

fn default_profile() -> String {
    "nat-mib".to_owned()
}

fn default_request_timeout_milliseconds() -> u64 {
    2_000
}

fn default_retries() -> u32 {
    1
}

/// The secrets of an SNMPv3 user: authentication by SHA-256, privacy by AES-128.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterCredentials {
    /// At least eight characters (RFC 3414).
    pub authentication_passphrase: String,
    /// At least eight characters (RFC 3414).
    pub privacy_passphrase: String,
}

impl fmt::Debug for RouterCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RouterCredentials(..)")
    }
}

/// Why a router's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RouterConfigError {
    /// The credentials cannot be read.
    #[error(
        "the router's credentials in {path} cannot be read: {source}; write the file, readable for the service only"
    )]
    CredentialsUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The credentials are no such TOML.
    #[error(
        "the router's credentials in {path} are not valid: {source}; it needs authentication_passphrase and \
         privacy_passphrase"
    )]
    CredentialsMalformed {
        /// The file.
        path: PathBuf,
        /// Why; without the text, which holds secrets.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The passphrases cannot be used.
    #[error("the router's passphrases cannot be used: {reason}; both need at least 8 characters")]
    CredentialsRefused {
        /// Why.
        reason: String,
    },
    /// There is no such profile.
    #[error("there is no router profile {name:?}; known is \"nat-mib\"")]
    UnknownProfile {
        /// As configured.
        name: String,
    },
    /// A number is out of range.
    #[error("the router's {field} must be {range}, not {value}")]
    OutOfRange {
        /// Field of the configuration.
        field: &'static str,
        /// What is allowed.
        range: &'static str,
        /// As configured.
        value: u64,
    },
}

impl RouterConfig {
    /// The profile that the configuration names.
    ///
    /// # Errors
    /// [`RouterConfigError::UnknownProfile`].
    pub fn vendor_profile(&self) -> Result<VendorProfile, RouterConfigError> {
        VendorProfile::by_name(&self.profile)
            .ok_or_else(|| RouterConfigError::UnknownProfile { name: self.profile.clone() })
    }

    /// Checks the numbers: with the longest of them an operation still ends in time.
    ///
    /// # Errors
    /// [`RouterConfigError::OutOfRange`].
    pub fn check(&self) -> Result<(), RouterConfigError> {
        let check = |good: bool, field, range, value| {
            if good { Ok(()) } else { Err(RouterConfigError::OutOfRange { field, range, value }) }
        };
        let milliseconds = self.request_timeout_milliseconds;
        check((50..=5_000).contains(&milliseconds), "request_timeout_milliseconds", "50 to 5000", milliseconds)?;
        check(self.retries <= 3, "retries", "0 to 3", u64::from(self.retries))?;
        check(self.interface_index > 0, "interface_index", "1 or more", 0)
    }

    /// Reads the credentials.
    ///
    /// # Errors
    /// [`RouterConfigError`] where the file cannot be read or is not as it should be.
    pub fn credentials(&self) -> Result<RouterCredentials, RouterConfigError> {
        let path = self.credentials_file.clone();
        let text = fs::read_to_string(&path)
            .map_err(|source| RouterConfigError::CredentialsUnreadable { path: path.clone(), source })?;
        warn_if_others_can_read(&path);
        toml::from_str(&text).map_err(|error| RouterConfigError::CredentialsMalformed {
            path,
            source: error.message().to_owned().into(),
        })
    }
}

fn warn_if_others_can_read(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
        tracing::warn!(path = %path.display(), "everyone on this machine can read the router's credentials: chmod 600");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> Result<RouterConfig, toml::de::Error> {
        toml::from_str(&format!(
            "address = '192.0.2.1:161'\ninterface_index = 2\nuser = 'station'\ncredentials_file = 'c.toml'\n{extra}"
        ))
    }

    #[test]
    fn defaults_and_refusals() {
        let plain = config("").unwrap();
        assert_eq!((plain.profile.as_str(), plain.retries), ("nat-mib", 1));
        assert!(plain.check().is_ok());
        assert!(config("speed = 1").is_err(), "unknown fields are refused");
        let error = config("profile = 'acme'").unwrap().vendor_profile().unwrap_err();
        assert!(error.to_string().contains("nat-mib"), "{error}");
        let error = config("request_timeout_milliseconds = 1").unwrap().check().unwrap_err();
        assert!(error.to_string().contains("50 to 5000"), "{error}");
        let error = plain.credentials().unwrap_err();
        assert!(error.to_string().contains("c.toml"), "{error}");
    }

    #[test]
    fn secrets_do_not_appear_in_errors_or_debug_output() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials.toml");
        fs::write(&path, "authentication_passphrase = 'very secret'\nprivacy_passphrase = 7\n").unwrap();
        let config = RouterConfig { credentials_file: path.clone(), ..config("").unwrap() };
        let error = config.credentials().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("very secret"), "{error:?}");
        fs::write(&path, "authentication_passphrase = 'very secret'\nprivacy_passphrase = 'too'\n").unwrap();
        assert_eq!(format!("{:?}", config.credentials().unwrap()), "RouterCredentials(..)");
    }
}
