//! Router drivers: how an operation of the addresses' machine reaches a real router (R110, R111).
//!
//! | module | holds |
//! | --- | --- |
//! | [`config`] | what a site's configuration says about its router |
//! | [`snmp`] | NAT-MIB over SNMPv3, the first driver |
//!
//! A driver performs one operation at a time and never decides; `branchline_station_role::addresses` does.
pub mod config;
pub mod snmp;

use std::net::SocketAddr;

use branchline_station_role::router::{DriverProperties, RouterError, RouterOperation, RouterResult};

pub use config::{RouterConfig, RouterConfigError, RouterCredentials};
pub use snmp::SnmpRouter;

/// A router behind one of the drivers.
#[derive(Debug)]
pub enum RouterDriver {
    /// NAT-MIB over SNMPv3.
    Snmp(SnmpRouter),
}

impl RouterDriver {
    /// The driver that the configuration names; nothing is sent yet.
    ///
    /// # Errors
    /// [`RouterConfigError`] where the configuration or the credentials cannot be used.
    pub fn from_config(config: RouterConfig, map_name: &str) -> Result<Self, RouterConfigError> {
        Ok(Self::Snmp(SnmpRouter::new(config)?.with_map_name(map_name)))
    }

    /// Performs one operation and reads back what it did. Ends within a minute in any case.
    ///
    /// # Errors
    /// [`RouterError`], which says whether the outcome is known and what to do next.
    pub async fn perform(&self, operation: &RouterOperation) -> Result<RouterResult, RouterError> {
        match self {
            Self::Snmp(router) => router.perform(operation).await,
        }
    }

    /// The router's address, as configured.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Snmp(router) => router.config().address,
        }
    }

    /// The driver and its profile, as in `snmp nat-mib`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Snmp(router) => format!("snmp {}", router.config().profile),
        }
    }

    /// What this driver promises (R115).
    #[must_use]
    pub fn properties(&self) -> DriverProperties {
        match self {
            Self::Snmp(router) => router.properties(),
        }
    }
}
