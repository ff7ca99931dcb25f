//! What station and headquarters say of a site, as far as the lab's tests look at it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use branchline_protocol::survey::Descriptor;
use serde::Deserialize;

use crate::site::{HOME, PROGRAM, Site};

/// A session as the station tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// The host's name.
    pub host_name: String,
    /// Whether it is the host's present generation.
    pub is_current: bool,
    /// Where it stands, in the words of the protocol: `complete`, `denied`...
    pub stage: String,
    /// Why it waits or ended.
    pub reason: String,
    /// What people should look at.
    pub warnings: Vec<String>,
    /// Its place in the queue, from 1.
    pub place: Option<usize>,
    /// The slot that it holds: `install` or `verify`.
    pub slot: Option<String>,
    /// The address inside the site.
    pub inside: String,
    /// The mapped address.
    pub mapped: Option<String>,
    /// The modules that are on.
    pub modules: Vec<String>,
    /// Whether both verifications were well.
    pub verified: bool,
    /// Whether a report exists.
    pub has_report: bool,
    /// Frame bytes over the WAN.
    pub wan_bytes: u64,
    /// Frame bytes from inside the site.
    pub lan_bytes: u64,
}

/// A host as headquarters' mirror tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct MirroredHost {
    /// The host's name.
    pub host_name: String,
    /// Where its session stands.
    pub stage: String,
    /// Whether it is a monitoring target.
    pub is_target: bool,
    /// Whether headquarters keeps its report.
    pub has_report: bool,
}

/// The account of a pack, from `branchline transfers`.
#[derive(Clone, Debug, Deserialize)]
pub struct PackAccount {
    /// The pack.
    pub pack: String,
    /// Frame bytes that crossed the line.
    pub wan_bytes: u64,
    /// The same divided by the pack's length.
    pub wan_ratio: Option<f64>,
    /// Why it is not 1.
    pub remark: Option<String>,
    /// Over the line: to whom, and why.
    pub line: Vec<LineEntry>,
    /// Inside the site: who served whom.
    pub inside: Vec<InsideEntry>,
    /// Who did not answer.
    pub unanswered: Vec<String>,
}

/// What one inlet got over the line.
#[derive(Clone, Debug, Deserialize)]
pub struct LineEntry {
    /// The inlet.
    pub to: String,
    /// Frame bytes.
    pub bytes: u64,
    /// Why it was this node.
    pub why: String,
}

/// What one node got from another.
#[derive(Clone, Debug, Deserialize)]
pub struct InsideEntry {
    /// Who served.
    pub from: String,
    /// Whom.
    pub to: String,
    /// Frame bytes.
    pub bytes: u64,
    /// Bytes of frames that were there already.
    pub duplicate_bytes: u64,
}

#[derive(Deserialize)]
pub(crate) struct Transfers {
    pub(crate) origin: Vec<OriginRecord>,
}

#[derive(Deserialize)]
pub(crate) struct OriginRecord {
    pub(crate) pack: String,
    pub(crate) meter: OriginMeter,
}

#[derive(Deserialize)]
pub(crate) struct OriginMeter {
    pub(crate) bytes: u64,
}

#[derive(Deserialize)]
pub(crate) struct Catalogue {
    pub(crate) packages: Vec<CataloguePackage>,
}

#[derive(Deserialize)]
pub(crate) struct CataloguePackage {
    pub(crate) payload: CataloguePayload,
}

#[derive(Deserialize)]
pub(crate) struct CataloguePayload {
    pub(crate) pack: String,
    pub(crate) pack_bytes: u64,
}

/// A pack, and what headquarters sent of it over the WAN.
#[derive(Clone, Debug)]
pub struct PackTraffic {
    /// The pack.
    pub pack: String,
    /// Its length: P of R70.
    pub length_bytes: u64,
    /// Frame bytes that left headquarters for the site.
    pub sent_bytes: u64,
}

impl PackTraffic {
    /// `wan_ratio` (R70).
    #[must_use]
    pub fn wan_ratio(&self) -> f64 {
        self.sent_bytes as f64 / self.length_bytes as f64
    }
}

/// How many sessions stand at a stage.
#[must_use]
pub fn count_at(sessions: &[Session], stage: &str) -> usize {
    sessions.iter().filter(|session| session.stage == stage).count()
}

/// A group of targets as Prometheus' HTTP service discovery has it.
#[derive(Deserialize)]
struct TargetGroup {
    targets: Vec<String>,
    labels: BTreeMap<String, String>,
}

impl Site {
    /// What headquarters' own `/targets` lists: `address:port` by the host's name.
    ///
    /// # Errors
    /// Headquarters does not answer, or lists something else.
    pub fn targets(&self) -> Result<BTreeMap<String, String>> {
        let address = &self.lab().facts().headquarters_address;
        let token = std::fs::read_to_string(self.path("headquarters/http.token")).context("no token")?;
        let script = format!(
            "exec 3<>/dev/tcp/{address}/8080; printf 'GET /targets HTTP/1.0\\r\\nHost: {address}\\r\\nAuthorization: Bearer \
             {}\\r\\n\\r\\n' >&3; cat <&3",
            token.trim()
        );
        let answer = self.lab().check("headquarters", &["bash", "-c", &script])?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        anyhow::ensure!(head.lines().next().is_some_and(|line| line.ends_with("200 OK")), "{answer}");
        let groups: Vec<TargetGroup> = serde_json::from_str(body).with_context(|| answer.clone())?;
        let one = |mut group: TargetGroup| Some((group.labels.remove("host")?, group.targets.pop()?));
        groups.into_iter().map(|group| one(group).context("a group without host or target")).collect()
    }

    /// What a host found out about itself.
    ///
    /// # Errors
    /// It has no survey yet.
    pub fn descriptor(&self, host: &str) -> Result<Descriptor> {
        let file = self.lab().root(host)?.join("var/lib/branchline/surveys/descriptor.xml");
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Descriptor::parse(&bytes)?)
    }

    /// The command lines of a host's processes whose program is at this path, each as its words.
    ///
    /// # Errors
    /// The host cannot be asked.
    pub fn command_lines(&self, host: &str, program: &str) -> Result<Vec<Vec<String>>> {
        let script = "for file in /proc/[0-9]*/cmdline; do tr '\\0' '\\n' <$file 2>/dev/null; echo --; done";
        let said = self.lab().check(host, &["sh", "-c", script])?;
        let lines = said.split("\n--\n").map(|lines| lines.lines().map(str::to_owned).collect::<Vec<_>>());
        Ok(lines.filter(|words| words.first().is_some_and(|first| first == program)).collect())
    }

    /// A node's home, as a path of this computer; good until its machine's power goes.
    ///
    /// # Errors
    /// The machine does not run.
    pub fn home(&self, machine: &str) -> Result<PathBuf> {
        Ok(self.lab().root(machine)?.join(HOME.trim_start_matches('/')))
    }

    /// The network process of the station or a host, by its number on this computer.
    ///
    /// # Errors
    /// None runs there.
    pub fn network_process(&self, machine: &str) -> Result<u32> {
        let root = self.lab().root(machine)?;
        let is_same = |other: &Path| -> Result<bool> {
            let (a, b) = (std::fs::metadata(root.join("."))?, std::fs::metadata(other)?);
            Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
        };
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(process) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
            let line = std::fs::read_to_string(path.join("cmdline")).unwrap_or_default();
            let runs = line.starts_with(&format!("{PROGRAM}\0run"));
            if runs && is_same(&path.join("root/.")).unwrap_or(false) {
                return Ok(process);
            }
        }
        bail!("no network process runs in {}", root.display())
    }
}
