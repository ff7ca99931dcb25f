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

    /// The table, what its letters mean, and the sums.
    pub fn text(&self) -> String {
        let groups = self.thresholds();
        let rows: Vec<Vec<String>> =
            self.hosts.iter().map(|host| row(host, &groups)).chain([self.station_row()]).collect();
        let header =
            ["HOST", "STATE", "PAYLOADS", "MODULES", "THRESHOLDS", "WAN", "LAN", "MAPPED", "VERIFIED", "REPORT"];
        let mut text = table(&header, &rows);
        text.push_str("\n\nThresholds\n");
        for (number, thresholds) in groups.iter().enumerate() {
            text.push_str(&format!("  {}  {}\n", letter(number), thresholds.join("\n     ")));
        }
        if let Some(directory) = self.hosts.iter().find_map(|host| host.report.as_ref()?.parent()) {
            text.push_str(&format!("\nThe reports are in {}\n", directory.display()));
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
        ["(station)", "-", "-", "-", "-", &bytes(wan), &bytes(lan), "-", "-", "-"].map(str::to_owned).to_vec()
    }

    /// The different sets of thresholds that hosts have, so that a set is written once and not in every row.
    fn thresholds(&self) -> Vec<Vec<String>> {
        let mut groups: Vec<Vec<String>> = Vec::new();
        for lines in self.hosts.iter().map(threshold_lines).filter(|lines| !lines.is_empty()) {
            if !groups.contains(&lines) {
                groups.push(lines);
            }
        }
        groups
    }
}

fn threshold_lines(host: &HostOutcome) -> Vec<String> {
    host.thresholds.iter().map(|(name, value)| format!("{name} = {value}")).collect()
}

/// `a` to `z`, then `a1`, `b1`, and so on: fifty hosts may have fifty sets.
fn letter(number: usize) -> String {
    let letter = char::from(b'a' + (number % 26) as u8);
    if number < 26 { letter.to_string() } else { format!("{letter}{}", number / 26) }
}

fn row(host: &HostOutcome, groups: &[Vec<String>]) -> Vec<String> {
    let modules: Vec<&str> = host.modules.iter().map(|module| module.rsplit('/').next().unwrap_or(module)).collect();
    let lines = threshold_lines(host);
    let thresholds =
        groups.iter().position(|group| *group == lines).map(|at| format!("{} ({})", lines.len(), letter(at)));
    let report = host.report.as_ref().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    vec![
        host.name.clone(),
        host.state.clone(),
        or_dash(host.payloads.join(", ")),
        or_dash(modules.join(" ")),
        or_dash(thresholds.unwrap_or_default()),
        bytes(host.bytes.0),
        bytes(host.bytes.1),
        host.mapped_address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
        if host.verified { "yes" } else { "no" }.to_owned(),
        or_dash(report.unwrap_or_default()),
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
