//! What the demo says at its end: a table for people, one object for programs.
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use branchline_protocol::session::Stage;
use serde::Serialize;

use super::{
    observed::{Session, Traffic},
    progress::stage_name,
};
use crate::cli::table;

/// The demo's result; its JSON is what `branchline demo --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Every host.
    pub hosts: Vec<HostOutcome>,
    /// Length of the payloads as they travel (packs), bytes.
    pub payload_bytes: u64,
    /// What headquarters sent into the site of it, bytes.
    pub wan_bytes: u64,
    /// What the site's nodes got of it from each other, bytes.
    pub lan_bytes: u64,
    /// `wan_bytes` by `payload_bytes` (R70).
    pub wan_ratio: f64,
    /// What the station itself got over the WAN and from the site's other nodes, bytes; for the table.
    #[serde(skip)]
    pub station_bytes: (u64, u64),
    /// From the start to the last host's completion.
    pub seconds: f64,
}

/// One host's result.
#[derive(Clone, Debug, Serialize)]
pub struct HostOutcome {
    /// Its name.
    pub name: String,
    /// The stage of its session; `absent` where it has none.
    pub state: String,
    /// Packages with versions.
    pub payloads: Vec<String>,
    /// Modules that are switched on.
    pub modules: Vec<String>,
    /// Thresholds: value by name.
    pub thresholds: BTreeMap<String, String>,
    /// Its mapped address.
    pub mapped_address: Option<Ipv4Addr>,
    /// Whether it was checked from inside and through its mapped address.
    pub verified: bool,
    /// Its HTML report.
    pub report: Option<PathBuf>,
    /// Frame bytes over the WAN and from inside the site; for the table.
    #[serde(skip)]
    pub bytes: (u64, u64),
    /// Why it is not complete.
    #[serde(skip)]
    pub reason: String,
}

impl HostOutcome {
    /// The result of the host called `name`; `reports` is the directory of reports.
    pub fn of(name: &str, session: Option<&Session>, reports: &Path) -> Self {
        let report = Some(reports.join(format!("{name}.html"))).filter(|path| path.exists());
        let Some(session) = session else {
            return Self {
                name: name.to_owned(),
                state: "absent".to_owned(),
                payloads: Vec::new(),
                modules: Vec::new(),
                thresholds: BTreeMap::new(),
                mapped_address: None,
                verified: false,
                report,
                bytes: (0, 0),
                reason: "the station has no session of it".to_owned(),
            };
        };
        Self {
            name: name.to_owned(),
            state: stage_name(session.stage),
            payloads: session.packages.clone(),
            modules: session.modules.clone(),
            thresholds: session.thresholds.iter().cloned().collect(),
            mapped_address: session.mapped,
            verified: session.verified,
            report,
            bytes: (session.wan_bytes, session.lan_bytes),
            reason: session.reason.clone(),
        }
    }

    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.state == stage_name(Stage::Complete) && self.verified && self.report.is_some()
    }
}

impl Outcome {
    /// Puts hosts and traffic together.
    pub fn new(hosts: Vec<HostOutcome>, traffic: Traffic, seconds: f64) -> Self {
        let ratio =
            if traffic.payload_bytes == 0 { 0.0 } else { traffic.wan_bytes as f64 / traffic.payload_bytes as f64 };
        Self {
            hosts,
            payload_bytes: traffic.payload_bytes,
            wan_bytes: traffic.wan_bytes,
            lan_bytes: traffic.lan_bytes,
            station_bytes: traffic.station_bytes,
            wan_ratio: ratio,
            seconds: (seconds * 1000.0).round() / 1000.0,
        }
    }

    /// Whether every host is complete.
    pub fn is_complete(&self) -> bool {
        self.hosts.iter().all(HostOutcome::is_complete)
    }

    /// The table and the sums.
    pub fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self.hosts.iter().map(row).chain([self.station_row()]).collect();
        let header = ["HOST", "STATE", "PAYLOADS", "MODULES", "WAN", "LAN", "MAPPED", "VERIFIED"];
        let mut text = table(&header, &rows);
        text.push_str("\n\nThresholds\n");
        for (thresholds, names) in self.thresholds() {
            text.push_str(&format!("  {}\n    {}\n", names.join(", "), thresholds.join("\n    ")));
        }
        text.push_str("\nReports\n");
        for report in self.hosts.iter().filter_map(|host| host.report.as_ref()) {
            text.push_str(&format!("  {}\n", report.display()));
        }
        text.push_str(&format!(
            "\n{} of payload, {} over the WAN (ratio {:.2}), {} inside the site, {:.1} s\n",
            bytes(self.payload_bytes),
            bytes(self.wan_bytes),
            self.wan_ratio,
            bytes(self.lan_bytes),
            self.seconds
        ));
        text
    }

    /// By default the station is the one that brings a payload over the WAN, for all of the site.
    fn station_row(&self) -> Vec<String> {
        let (wan, lan) = self.station_bytes;
        ["(station)", "-", "-", "-", &bytes(wan), &bytes(lan), "-", "-"].map(str::to_owned).to_vec()
    }

    /// Hosts with the same thresholds stand together.
    fn thresholds(&self) -> Vec<(Vec<String>, Vec<&str>)> {
        let mut groups: Vec<(Vec<String>, Vec<&str>)> = Vec::new();
        for host in &self.hosts {
            let lines: Vec<String> = host.thresholds.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            match groups.iter_mut().find(|(known, _)| *known == lines) {
                Some((_, names)) => names.push(&host.name),
                None => groups.push((lines, vec![&host.name])),
            }
        }
        groups
    }
}

fn row(host: &HostOutcome) -> Vec<String> {
    let modules: Vec<&str> = host.modules.iter().map(|module| module.rsplit('/').next().unwrap_or(module)).collect();
    vec![
        host.name.clone(),
        host.state.clone(),
        host.payloads.join(", "),
        modules.join(" "),
        bytes(host.bytes.0),
        bytes(host.bytes.1),
        host.mapped_address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
        if host.verified { "yes" } else { "no" }.to_owned(),
    ]
}

/// Bytes as people read them.
fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=999_999 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str, modules: &[&str]) -> Session {
        Session {
            host_name: name.to_owned(),
            stage: Stage::Complete,
            reason: String::new(),
            mapped: Some(Ipv4Addr::new(127, 77, 2, 1)),
            packages: vec!["sample-agent 1.0.0".to_owned()],
            modules: modules.iter().map(|module| (*module).to_owned()).collect(),
            thresholds: vec![("sample-agent/disk_used_warning_percent".to_owned(), "85".to_owned())],
            verified: true,
            wan_bytes: 0,
            lan_bytes: 20_000_000,
        }
    }

    #[test]
    fn the_table_shows_every_host_and_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("till-1.html"), "x").unwrap();
        let complete = session("till-1", &["sample-agent/cpu", "sample-agent/nfs"]);
        let hosts = vec![
            HostOutcome::of("till-1", Some(&complete), directory.path()),
            HostOutcome::of("till-2", None, directory.path()),
        ];
        assert!(hosts[0].is_complete() && !hosts[1].is_complete());
        let traffic = Traffic {
            payload_bytes: 20_000_000,
            wan_bytes: 20_000_000,
            lan_bytes: 40_000_000,
            station_bytes: (20_000_000, 0),
        };
        let outcome = Outcome::new(hosts, traffic, 12.34);
        assert!(!outcome.is_complete());
        let text = outcome.text().replace(&directory.path().display().to_string(), "DIRECTORY");
        insta::assert_snapshot!(text);
    }
}
