//! The configuration file `node.toml`, as typed.
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Result, anyhow};
use branchline_protocol::rates::Schedule;
use branchline_station_role::headquarters::HeadquartersConfiguration;
use serde::{Deserialize, Serialize};

use super::Zone;
use crate::runtime::wall_time;

/// `node.toml`. Roles come from the charter, not from here; this file holds what only this machine can know.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// The address on which all planes listen.
    pub listen: Option<IpAddr>,
    /// Port of the control plane.
    pub control_port: u16,
    /// Port of the bulk plane.
    pub bulk_port: u16,
    /// Port of the public door, where this node is station.
    pub door_port: u16,
    /// Whether nodes are looked for by multicast DNS.
    pub mdns: bool,
    /// The directory that stands for `/` on this host; another one is for tests and the demo.
    pub root: PathBuf,
    /// What this machine may send and receive at most, beside what its site says.
    pub bandwidth: BandwidthConfig,
    /// Where the privileged installer listens.
    pub installer: InstallerConfig,
    /// Where this node is station.
    pub station: StationConfig,
    /// Where this node is headquarters.
    pub headquarters: HeadquartersConfig,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            listen: None,
            control_port: 7400,
            bulk_port: 7401,
            door_port: 7443,
            mdns: true,
            root: PathBuf::from("/"),
            bandwidth: BandwidthConfig::default(),
            installer: InstallerConfig::default(),
            station: StationConfig::default(),
            headquarters: HeadquartersConfig::default(),
        }
    }
}

/// What one machine may send and receive at most on the bulk plane (R71).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BandwidthConfig {
    /// Whose clocks the windows follow.
    pub time_zone: String,
    /// What it sends.
    pub upload: Schedule,
    /// What it receives.
    pub download: Schedule,
}

impl Default for BandwidthConfig {
    fn default() -> Self {
        Self { time_zone: "UTC".to_owned(), upload: Schedule::default(), download: Schedule::default() }
    }
}

impl BandwidthConfig {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// No such time zone, or a rate that cannot work; with the key.
    pub fn check(&self) -> Result<()> {
        Zone::named(&self.time_zone, wall_time())?;
        for (key, schedule) in [("upload", &self.upload), ("download", &self.download)] {
            schedule.check_for_host().map_err(|rule| anyhow!("{key}: {rule}"))?;
        }
        Ok(())
    }
}

/// How the network process reaches the privileged one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstallerConfig {
    /// Its Unix socket; a relative path is taken from the home directory.
    pub socket: PathBuf,
}

impl Default for InstallerConfig {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/branchline/installer.sock") }
    }
}

/// What only a station needs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StationConfig {
    /// The router's driver and credentials: a TOML file of its own, because it holds secrets.
    pub router: Option<PathBuf>,
    /// A directory of further signatures for the survey script that the public door gives away (R43). Hosts run the script of
    /// their own binary: a station can add nothing to that.
    pub signatures: Option<PathBuf>,
}

/// What only headquarters needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadquartersConfig {
    /// Where service discovery and reports are served (HTTP), to those who show the token.
    pub http: Option<SocketAddr>,
    /// The file of that token; a relative path is taken from the home directory, and one is made where there is none.
    pub http_token_file: PathBuf,
    /// The key that signs approvals, where headquarters' own rules or its operators' commands use it.
    pub approval_key: Option<PathBuf>,
    /// Address pools, batch size and automatic approval rules.
    pub desk: HeadquartersConfiguration,
}

impl Default for HeadquartersConfig {
    fn default() -> Self {
        Self {
            http: None,
            http_token_file: PathBuf::from("http.token"),
            approval_key: None,
            desk: HeadquartersConfiguration::default(),
        }
    }
}
