//! What the demo sees of its site: the answers that `branchline sessions` and `branchline status` get.
use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use anyhow::Result;
use branchline_protocol::session::Stage;
use serde::Deserialize;
use serde_json::Value;

use super::site::Site;
use crate::runtime::{self, NodeCommand};

/// A session as the station shows it, as far as the demo needs it.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// The host.
    pub host_name: String,
    /// Where it stands.
    pub stage: Stage,
    /// Why it waits, or how it ended.
    pub reason: String,
    /// Its mapped address.
    pub mapped: Option<Ipv4Addr>,
    /// Packages with versions.
    pub packages: Vec<String>,
    /// Modules that are switched on.
    pub modules: Vec<String>,
    /// Thresholds: name and value.
    pub thresholds: Vec<(String, String)>,
    /// Whether the checks from inside and from outside were well.
    pub verified: bool,
    /// Frame bytes over the WAN.
    pub wan_bytes: u64,
    /// Frame bytes from inside the site.
    pub lan_bytes: u64,
}

/// The sessions at the station, by host; empty while the station does not answer.
pub fn sessions(site: &Site) -> BTreeMap<String, Session> {
    let sessions: Vec<Session> = runtime::call(&site.station(), &NodeCommand::Sessions).unwrap_or_default();
    sessions.into_iter().map(|session| (session.host_name.clone(), session)).collect()
}

/// How many hosts headquarters knows to be complete, and monitors.
pub fn targets(site: &Site) -> usize {
    #[derive(Deserialize)]
    struct Mirrored {
        stage: Stage,
        is_target: bool,
    }
    let hosts: Vec<Mirrored> = runtime::call(&site.headquarters(), &NodeCommand::Sessions).unwrap_or_default();
    hosts.iter().filter(|host| host.stage == Stage::Complete && host.is_target).count()
}

/// Bytes that moved, by the meters of those who moved them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sum of the lengths of the catalogue's packs.
    pub payload_bytes: u64,
    /// Frame bytes that headquarters' sockets sent (R70).
    pub wan_bytes: u64,
    /// Frame bytes that the station and the hosts got from each other.
    pub lan_bytes: u64,
    /// Frame bytes that the station itself got over the WAN, and from the site's other nodes.
    pub station_bytes: (u64, u64),
}

/// Asks every node for its meters.
///
/// # Errors
/// A node does not answer.
pub fn traffic(site: &Site) -> Result<Traffic> {
    let transfers = |home: &Path| runtime::call::<Value>(home, &NodeCommand::Transfers);
    let origin = transfers(&site.headquarters())?;
    let records = origin["origin"].as_array().map_or(&[][..], Vec::as_slice);
    let wan_bytes = records.iter().filter_map(|record| record["meter"]["bytes"].as_u64()).sum();
    let catalogue = crate::catalogue::CatalogueDirectory::new(site.path("bundle/catalogue"));
    let key = crate::config::Bundle::open(&site.path("bundle"))?.public_keys()?.catalogue;
    let payload_bytes = catalogue.verified(key)?.packages.iter().map(|package| package.payload.pack_bytes).sum();
    let received = |transfers: &Value, from: &str| transfers["transfers"][from]["bytes"].as_u64().unwrap_or(0);
    let station = transfers(&site.station())?;
    let station_bytes = (received(&station, "received_wan"), received(&station, "received_lan"));
    let mut lan_bytes = station_bytes.1;
    for home in site.hosts.iter().map(|name| site.host_home(name)) {
        lan_bytes += received(&transfers(&home)?, "received_lan");
    }
    Ok(Traffic { payload_bytes, wan_bytes, lan_bytes, station_bytes })
}
