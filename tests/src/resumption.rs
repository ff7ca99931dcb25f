//! What a host kept of a pack when its network process ended without a word, and what its next one fetched (R72).

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use branchline::bulk::{Accounts, Direction};
use branchline_protocol::limits::{BULK_NEIGHBOURS_MAX, LAN_IN_FLIGHT_BYTES};
use serde_json::Value;

use crate::observed::PackTraffic;
use crate::site::Site;

/// A power cut loses at most one group commit, which is a second's work; a busy disk is a little later.
const COMMIT_SECONDS: f64 = 1.5;
/// Frames that several neighbours may have sent at the same time.
const IN_FLIGHT_BYTES: u64 = LAN_IN_FLIGHT_BYTES * BULK_NEIGHBOURS_MAX as u64;

/// A host whose network process has ended in the middle of a pack.
#[derive(Clone, Debug)]
pub struct Interrupted {
    host: String,
    pack: PackTraffic,
    /// Frame bytes that it had shortly before its end.
    had_bytes: u64,
    /// Frame bytes that its account told of when it ended: its next process goes on counting from there.
    counted_bytes: u64,
    /// Its log's length by then, in bytes.
    log_bytes: usize,
}

impl Interrupted {
    /// The host's machine has power again, and its next network process is yet to start.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn read(site: &Site, host: &str, pack: &PackTraffic, had_bytes: u64) -> Result<Self> {
        let account = site.written_account(host)?;
        Ok(Self {
            host: host.to_owned(),
            had_bytes,
            counted_bytes: received(&account).get(&pack.pack).copied().unwrap_or(0),
            log_bytes: site.lab().log(host, "run")?.len(),
            pack: pack.clone(),
        })
    }

    /// The host has the whole pack now: what it had kept and what it fetched since are the pack, and at most one group
    /// commit was lost, at so many bytes per second.
    ///
    /// # Errors
    /// It is not so.
    pub fn went_on(&self, site: &Site, rate_bytes_per_second: f64) -> Result<()> {
        let (host, length) = (&self.host, self.pack.length_bytes);
        let log = site.lab().log(host, "run")?;
        let kept = *kept_bytes(&log[self.log_bytes..])?.get(&self.pack.pack).unwrap_or(&0);
        let counted = received(&site.account(host)?).get(&self.pack.pack).copied().unwrap_or(0);
        let fetched = counted - self.counted_bytes;
        println!("{host} had {} of {length} bytes, kept {kept} and fetched {fetched} after that", self.had_bytes);
        let lost_most = (rate_bytes_per_second * COMMIT_SECONDS) as u64;
        ensure!(kept + lost_most >= self.had_bytes, "{host} lost more than one group commit of {lost_most} bytes");
        ensure!(kept + fetched >= length, "{host} has not got what it lacked, or does not count it");
        ensure!(kept + fetched <= length + IN_FLIGHT_BYTES, "{host} fetched again what it had kept");
        Ok(())
    }
}

impl Site {
    /// The account that a host's network process has written, and that its next one goes on from; an empty one where it
    /// has written none yet.
    ///
    /// # Errors
    /// The machine does not run, or the file cannot be read.
    pub fn written_account(&self, machine: &str) -> Result<Accounts> {
        let file = self.home(machine)?.join("accounts.json");
        if !file.exists() {
            return Ok(Accounts::default());
        }
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("parsing {}", file.display()))
    }

    /// The account of a host as its network process tells it.
    ///
    /// # Errors
    /// It does not answer.
    pub fn account(&self, machine: &str) -> Result<Accounts> {
        let mut answer: Value = self.node_json(machine, &["status", "--transfers"])?;
        Ok(serde_json::from_value(answer["transfers"].take())?)
    }

    /// Verified frame bytes of a pack at a node.
    ///
    /// # Errors
    /// The node does not answer, or does not know the pack.
    pub fn bytes_here(&self, machine: &str, pack: &str) -> Result<u64> {
        let row: Value = self.node_json(machine, &["packs", "show", pack])?;
        row["bytes_here"].as_u64().with_context(|| format!("{machine} says of {pack}: {row}"))
    }
}

/// Frame bytes that came in, by pack, over the line and from inside the site, those that came twice included.
#[must_use]
pub fn received(accounts: &Accounts) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (key, transfer) in accounts.transfers.iter().filter(|(key, _)| key.direction == Direction::Received) {
        *sums.entry(key.pack.to_string()).or_default() += transfer.bytes;
    }
    sums
}

/// Frame bytes of each pack that a network process goes on from, by what its log says.
///
/// # Errors
/// The log says it in other words.
pub fn kept_bytes(log: &str) -> Result<BTreeMap<String, u64>> {
    let told = |line: &str, name: &str| {
        let value = line.split_once(&format!(" {name}="))?.1.split_whitespace().next()?;
        Some(value.to_owned())
    };
    let mut kept = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("a pack goes on from what is kept")) {
        let (pack, bytes) = told(line, "pack").zip(told(line, "kept_bytes")).with_context(|| line.to_owned())?;
        kept.insert(pack, bytes.parse()?);
    }
    Ok(kept)
}
