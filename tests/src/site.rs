//! A whole site in the lab, built and steered with the commands that an operator gives.
//!
//! Headquarters stands on this computer's root with its home and the offline bundle in a temporary
//! directory that no other machine sees. Station and hosts stand on Debian roots of their own: the
//! network process runs there as `nobody`, the installer as root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::binary;
use crate::lab::{Lab, Options};
use crate::observed::{Catalogue, Transfers};
pub use crate::observed::{MirroredHost, PackTraffic, Session, count_at};
use crate::{payload, return_without_lab};

/// A rule of headquarters that approves every host.
const APPROVE_ALL: &str = "[[headquarters.desk.rules]]\nname = \"all\"\naction = \"approve\"\n";
/// The name of the site.
pub const SITE: &str = "lab";
/// Where the binary lies in every root.
pub(crate) const PROGRAM: &str = "/usr/local/bin/branchline";
/// Home of a node that stands on a root of its own.
pub(crate) const HOME: &str = "/var/lib/branchline";
/// What the nodes log: the product's own default, said here because tests read these logs.
const LOG: &str = "BRANCHLINE_LOG=info,libp2p=warn";
/// The user of the network process: `nobody` of Debian.
const USER: &str = "65534";

/// What a site is made of, beside its lab.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// The lab.
    pub lab: Options,
    /// Package definitions (TOML) and their payloads, in the order in which they are added.
    pub packages: Vec<(PathBuf, PathBuf)>,
    /// The tables `[[headquarters.desk.rules]]` of headquarters' configuration.
    pub rules: String,
    /// The file of `branchline init --options`: limits and policies of the charter.
    pub charter: String,
}

impl SiteOptions {
    /// A lab of that name with so many hosts, all that it can have of defaults, and a headquarters that approves every host.
    #[must_use]
    pub fn new(id: &str, hosts: usize, packages: Vec<(PathBuf, PathBuf)>) -> Self {
        let lab = Options { id: id.to_owned(), hosts, ..Options::default() };
        Self { lab, packages, rules: APPROVE_ALL.to_owned(), charter: String::new() }
    }
}

/// A running site: headquarters and station run, hosts are added by [`Site::start_host`].
#[derive(Debug)]
pub struct Site {
    lab: Lab,
    program: PathBuf,
    directory: TempDir,
    owner: String,
}

impl Site {
    /// Brings a lab up and founds a site in it; nothing is published yet.
    ///
    /// # Errors
    /// A command fails; the error holds what it said.
    pub fn up(options: &SiteOptions) -> Result<Self> {
        let program = binary::branchline()?;
        let mut lab = options.lab.clone();
        lab.binds.push((program.clone(), PathBuf::from(PROGRAM)));
        let lab = Lab::up(&lab)?;
        let directory = tempfile::tempdir()?;
        let mut site = Self { lab, program, directory, owner: String::new() };
        site.found(options)?;
        site.start_headquarters()?;
        site.start_node("station")?;
        Ok(site)
    }

    /// A site that a test disturbs while its line is busy: the node exporter and a package `ballast` of so many megabytes,
    /// whose maintainer script runs `after`. Every host of `hosts` has joined and waits, since nothing is published yet.
    /// `None`, and a word about it, where no lab can run.
    ///
    /// # Errors
    /// A command fails.
    pub fn with_ballast(id: &str, hosts: &[&str], megabytes: u32, after: &str) -> Result<Option<Self>> {
        return_without_lab!(Ok(None));
        let made = tempfile::tempdir()?;
        let ballast = payload::generated(made.path(), "ballast", megabytes, after, "true")?;
        let packages = vec![payload::node_exporter(made.path())?, ballast];
        let site = Self::up(&SiteOptions::new(id, hosts.len(), packages))?;
        let token = site.token("station", hosts.len())?;
        for host in hosts {
            site.start_host(host, &token)?;
        }
        Ok(Some(site))
    }

    /// Hands catalogue and site policy to headquarters; before that the hosts wait.
    ///
    /// # Errors
    /// Headquarters refuses them.
    pub fn publish(&self) -> Result<()> {
        let [catalogue, policy, release] =
            ["catalogue", "policy.json", "release.json"].map(|name| text(&self.path("bundle").join(name)));
        self.headquarters(&["publish", "--catalogue", &catalogue, "--policy", &policy, "--release", &release]).map(drop)
    }

    /// The lab.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The owner's public key.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// A path in headquarters' directory, which the site does not see.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn found(&mut self, options: &SiteOptions) -> Result<()> {
        let (station, headquarters) = (self.path("station.seat"), self.path("headquarters.seat"));
        let address = self.lab.facts().headquarters_address.clone();
        self.headquarters(&["identity", "--listen", &address, "--out", &text(&headquarters)])?;
        std::fs::write(&station, self.make_seat("station")?)?;
        std::fs::write(self.path("charter.toml"), &options.charter)?;
        let (bundle, charter) = (text(&self.path("bundle")), self.path("bundle/charter.json"));
        let said = self.command(&[
            "init",
            "--bundle",
            &bundle,
            "--site",
            SITE,
            "--prefix",
            &self.lab.facts().inside_prefix,
            "--station",
            &text(&station),
            "--headquarters",
            &text(&headquarters),
            "--options",
            &text(&self.path("charter.toml")),
            "--json",
        ])?;
        let made: serde_json::Value = serde_json::from_str(&said)?;
        self.owner = made["owner"].as_str().with_context(|| format!("init names no owner: {said}"))?.to_owned();
        self.headquarters(&["charter", "adopt", "--owner", &self.owner, &text(&charter)])?;
        self.adopt("station", &charter)?;
        self.configure_router("station")?;
        self.configure_headquarters(&options.rules)?;
        for (definition, payload) in &options.packages {
            self.add_package(definition, payload)?;
        }
        Ok(())
    }

    /// Signs a package into the bundle's catalogue; [`Site::publish`] hands that to headquarters.
    ///
    /// # Errors
    /// The definition or the payload is refused.
    pub fn add_package(&self, definition: &Path, payload: &Path) -> Result<()> {
        let [bundle, definition, payload] = [&self.path("bundle"), definition, payload].map(text);
        self.command(&["catalogue", "add", "--bundle", &bundle, "--package", &definition, "--payload", &payload])
            .map(drop)
    }

    /// Makes the identity of a machine with a root of its own, and gives its seat.
    ///
    /// # Errors
    /// The command fails.
    pub fn make_seat(&self, machine: &str) -> Result<String> {
        self.lab.check(machine, &["install", "-d", "-o", USER, "-g", USER, "-m", "750", HOME])?;
        let address = self.lab.address(machine)?;
        self.node(machine, &["identity", "--listen", &address, "--json"])
    }

    /// Gives a machine the charter, as its station-to-be.
    ///
    /// # Errors
    /// The machine refuses it.
    pub fn adopt(&self, machine: &str, charter: &Path) -> Result<()> {
        let inside = "/tmp/charter.json";
        self.write(machine, inside, &std::fs::read_to_string(charter)?, 0o644)?;
        self.node(machine, &["charter", "adopt", "--owner", &self.owner, inside]).map(drop)
    }

    /// Tells a machine where the router is, for when it is station.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn configure_router(&self, machine: &str) -> Result<()> {
        let facts = self.lab.facts();
        let router = format!(
            "address = \"{}\"\ninterface_index = {}\nuser = \"{}\"\ncredentials_file = \"{HOME}/credentials.toml\"\n",
            facts.router_address, facts.interface, facts.snmp_user
        );
        let credentials = format!(
            "authentication_passphrase = \"{}\"\nprivacy_passphrase = \"{}\"\n",
            facts.snmp_auth_passphrase, facts.snmp_privacy_passphrase
        );
        self.write(machine, &format!("{HOME}/router.toml"), &router, 0o600)?;
        self.write(machine, &format!("{HOME}/credentials.toml"), &credentials, 0o600)?;
        let installer = "[installer]\nsocket = \"/run/branchline/installer.sock\"\n";
        let config =
            format!("listen = \"{}\"\n{installer}[station]\nrouter = \"router.toml\"\n", self.lab.address(machine)?);
        self.write(machine, &format!("{HOME}/node.toml"), &config, 0o640)
    }

    fn configure_headquarters(&self, rules: &str) -> Result<()> {
        let address = &self.lab.facts().headquarters_address;
        let key = text(&self.path("bundle/approval.key"));
        let (first, last) = ("198.51.100.65", "198.51.100.78");
        let config = format!(
            "listen = \"{address}\"\n[headquarters]\nhttp = \"{address}:8080\"\napproval_key = \"{key}\"\n\
             [[headquarters.desk.pools]]\nsite = \"{SITE}\"\nfirst = \"{first}\"\nlast = \"{last}\"\n{rules}"
        );
        std::fs::write(self.path("headquarters/node.toml"), config).context("writing headquarters' node.toml")
    }

    /// Writes a file in a machine's root, owned by the network process's user.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, machine: &str, path: &str, content: &str, mode: u32) -> Result<()> {
        let outside = self.lab.root(machine)?.join(path.trim_start_matches('/'));
        std::fs::write(&outside, content).with_context(|| format!("writing {path} of {machine}"))?;
        self.lab.check(machine, &["chmod", &format!("{mode:o}"), path])?;
        self.lab.check(machine, &["chown", &format!("{USER}:{USER}"), path]).map(drop)
    }

    /// Runs a command of the binary on this computer that needs no node.
    ///
    /// # Errors
    /// It fails.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program).args(arguments).output().context("the binary cannot be run")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "branchline {}: {}\n{said}{errors}", arguments.join(" "), output.status);
        Ok(said)
    }

    /// Runs a command at headquarters.
    ///
    /// # Errors
    /// It fails.
    pub fn headquarters(&self, arguments: &[&str]) -> Result<String> {
        let home = format!("BRANCHLINE_HOME={}", text(&self.path("headquarters")));
        let program = text(&self.program);
        let line: Vec<&str> = ["env", &home, &program].into_iter().chain(arguments.iter().copied()).collect();
        self.lab.check("headquarters", &line)
    }

    /// Runs a command in a machine of the site, as the network process's user.
    ///
    /// # Errors
    /// It fails.
    pub fn node(&self, machine: &str, arguments: &[&str]) -> Result<String> {
        let line: Vec<&str> = unprivileged().into_iter().chain([PROGRAM]).chain(arguments.iter().copied()).collect();
        self.lab.check(machine, &line)
    }

    /// Like [`Site::headquarters`] with `--json`, parsed.
    ///
    /// # Errors
    /// It fails, or answers something else.
    pub fn headquarters_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let line: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let said = self.headquarters(&line)?;
        serde_json::from_str(&said).with_context(|| format!("headquarters answered {said}"))
    }

    /// Like [`Site::node`] with `--json`, parsed.
    ///
    /// # Errors
    /// It fails, or answers something else.
    pub fn node_json<T: DeserializeOwned>(&self, machine: &str, arguments: &[&str]) -> Result<T> {
        let line: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let said = self.node(machine, &line)?;
        serde_json::from_str(&said).with_context(|| format!("{machine} answered {said}"))
    }

    /// Starts headquarters and waits until it answers.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start_headquarters(&self) -> Result<()> {
        let (home, program) = (text(&self.path("headquarters")), text(&self.program));
        self.lab.spawn("headquarters", "run", &["env", LOG, &program, "run", "--home", &home])?;
        poll(Duration::from_secs(20), || self.headquarters(&["status"]).map(drop))
            .context("headquarters does not answer")
    }

    /// Starts the node of a machine of the site and waits until it answers.
    ///
    /// # Errors
    /// It does not answer; with its log.
    pub fn start_node(&self, machine: &str) -> Result<()> {
        let line: Vec<&str> = unprivileged().into_iter().chain(["env", LOG, PROGRAM, "run"]).collect();
        self.lab.spawn(machine, "run", &line)?;
        poll(Duration::from_secs(20), || self.node(machine, &["status"]).map(drop))
            .with_context(|| format!("the node of {machine} does not answer; {}", self.log_end(machine, "run")))
    }

    /// Starts the installer of a host.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_installer(&self, host: &str) -> Result<()> {
        self.lab.check(host, &["install", "-d", "/run/branchline"])?;
        self.lab.spawn(host, "installer", &[PROGRAM, "installer", "--owner", &self.owner, "--allow-uid", USER])
    }

    /// A join token, once the station gives one.
    ///
    /// # Errors
    /// The station gives none.
    pub fn token(&self, station: &str, uses: usize) -> Result<String> {
        let uses = uses.to_string();
        let token = poll(Duration::from_secs(20), || self.node(station, &["token", "--uses", &uses]));
        Ok(token.with_context(|| self.log_end(station, "run"))?.trim().to_owned())
    }

    /// Lets a host join and starts its two processes.
    ///
    /// # Errors
    /// It cannot join, or a process does not start.
    pub fn start_host(&self, host: &str, token: &str) -> Result<()> {
        self.join(host, token)?;
        self.start_installer(host)?;
        self.start_node(host)
    }

    /// Lets a host join.
    ///
    /// # Errors
    /// The station refuses it.
    pub fn join(&self, host: &str, token: &str) -> Result<()> {
        self.make_seat(host)?;
        self.configure_router(host)?;
        self.node(host, &["join", token]).map(drop)
    }

    /// The present sessions, in order of the hosts' names.
    ///
    /// # Errors
    /// The station does not answer.
    pub fn sessions(&self, station: &str) -> Result<Vec<Session>> {
        let mut sessions: Vec<Session> = self.node_json(station, &["sessions", "list"])?;
        sessions.retain(|session| session.is_current);
        sessions.sort_by(|a, b| a.host_name.cmp(&b.host_name));
        Ok(sessions)
    }

    /// The hosts of headquarters' mirror, in order of their names.
    ///
    /// # Errors
    /// Headquarters does not answer.
    pub fn mirror(&self) -> Result<Vec<MirroredHost>> {
        let mut hosts: Vec<MirroredHost> = self.headquarters_json(&["sessions", "list"])?;
        hosts.sort_by(|a, b| a.host_name.cmp(&b.host_name));
        Ok(hosts)
    }

    /// Waits until the station's sessions are as wanted.
    ///
    /// # Errors
    /// They are not within `seconds`; with how they are, and the end of the station's log.
    pub fn wait_for(
        &self,
        station: &str,
        seconds: u64,
        what: &str,
        wanted: impl Fn(&[Session]) -> bool,
    ) -> Result<Vec<Session>> {
        let limit = Instant::now() + Duration::from_secs(seconds);
        loop {
            let sessions = self.sessions(station);
            if let Ok(sessions) = &sessions
                && wanted(sessions)
            {
                return Ok(sessions.clone());
            }
            if Instant::now() >= limit {
                bail!("after {seconds} s not yet: {what}\n{sessions:#?}\n{}", self.log_end(station, "run"));
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Waits until the present session of a host is at a stage, and gives it.
    ///
    /// # Errors
    /// As [`Site::wait_for`].
    pub fn wait_for_stage(&self, station: &str, seconds: u64, host: &str, stage: &str) -> Result<Session> {
        let of_host = |session: &&Session| session.host_name == host && session.stage == stage;
        let what = format!("the session of {host} is {stage}");
        let sessions = self.wait_for(station, seconds, &what, |sessions| sessions.iter().any(|one| of_host(&one)))?;
        sessions.iter().find(of_host).cloned().context(what)
    }

    /// Waits until `wanted` holds; an error of it counts as no.
    ///
    /// # Errors
    /// It does not hold within `seconds`.
    pub fn wait_until(&self, seconds: u64, what: &str, wanted: impl Fn() -> Result<bool>) -> Result<()> {
        poll(Duration::from_secs(seconds), || {
            ensure!(wanted()?, "it is not so");
            Ok(())
        })
        .with_context(|| format!("after {seconds} s not yet: {what}"))
    }

    /// What headquarters sent of every pack of the catalogue, by its own meter (R70).
    ///
    /// # Errors
    /// Headquarters does not answer.
    pub fn traffic(&self) -> Result<Vec<PackTraffic>> {
        let transfers: Transfers = self.headquarters_json(&["status", "--transfers"])?;
        let listed = self.command(&["catalogue", "list", "--bundle", &text(&self.path("bundle")), "--json"])?;
        let catalogue: Catalogue = serde_json::from_str(&listed)?;
        let sent = |pack: &str| transfers.origin.iter().filter(|o| o.pack == pack).map(|o| o.meter.bytes).sum();
        let packs = catalogue.packages.into_iter().map(|package| PackTraffic {
            sent_bytes: sent(&package.payload.pack),
            pack: package.payload.pack,
            length_bytes: package.payload.pack_bytes,
        });
        Ok(packs.collect())
    }

    /// The last lines of a daemon's log.
    #[must_use]
    pub fn log_end(&self, machine: &str, name: &str) -> String {
        let log = self.lab.log(machine, name).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("{machine} {name}:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"))
    }

    /// The charter's file in the bundle.
    #[must_use]
    pub fn charter(&self) -> PathBuf {
        self.path("bundle/charter.json")
    }
}

/// Runs a command without privileges, with the home that every root has.
fn unprivileged() -> [&'static str; 6] {
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "BRANCHLINE_HOME=/var/lib/branchline"]
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Tries until it works.
fn poll<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let limit = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= limit => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
