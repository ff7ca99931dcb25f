//! Sets the demo's site up: the same commands that an operator gives, and a few files that an operator would write.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use branchline_protocol::charter::PublicKey;
use branchline_station_role::headquarters::{ApprovalRule, HeadquartersConfiguration, PoolEntry, RuleAction};

use super::{
    Options,
    network::Network,
    payload,
    processes::{Pending, Processes},
    roots::{self, Kind},
    router::DemoRouterConfig,
    waiting::Watchdog,
};
use crate::{
    config::{
        Bundle, BundleKey, HeadquartersConfig, Home, InstallerConfig, NodeConfig, StationConfig, random_bytes,
        write_atomically,
    },
    router::{RouterConfig, RouterCredentials},
};

/// The site's name.
pub const SITE: &str = "demo";
/// The port of the agent, which the router lets through.
const AGENT_PORT: u16 = 9105;
/// The `ifIndex` of the router's public interface.
const INTERFACE: u32 = 2;
/// Longest path of a Unix socket in bytes, with its final zero (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 108;

/// What the site looks like, to show how a site changes what packages suggest.
const POLICY: &str = r#"site = "demo"
version = 2
# All addresses of the demo are this computer: what it offers to everybody answers at a mapped address as well.
undeclared_ports = "report"

[[thresholds]]
package = "sample-agent"
threshold = "disk_used_warning_percent"
value = "85"
reason = "disks of this site are small"
"#;

/// The name of the host with this number, from 1.
pub fn host_name(number: u8) -> String {
    format!("till-{number}")
}

/// The demo's files and addresses.
#[derive(Debug)]
pub struct Site {
    /// The directory that holds everything.
    pub directory: PathBuf,
    /// The addresses.
    pub network: Network,
    /// The hosts' names.
    pub hosts: Vec<String>,
}

impl Site {
    /// Plans a site of `hosts` hosts in `directory`.
    ///
    /// # Errors
    /// No addresses are free, or the directory's path is too long for Unix sockets.
    pub fn plan(directory: &Path, hosts: u8) -> Result<Self> {
        let hosts = (1..=hosts).map(host_name).collect();
        let site = Self { directory: directory.to_owned(), network: Network::find()?, hosts };
        let longest = site.host("till-50").join("home/installer.sock");
        ensure!(
            longest.as_os_str().len() < SOCKET_PATH_BYTES_MAX,
            "the path {} is too long for a Unix socket; set TMPDIR to a directory with a shorter name, such as /tmp",
            longest.display()
        );
        for part in ["headquarters", "station", "router", "logs", "reports", "payload"] {
            let path = site.path(part);
            std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(site)
    }

    /// A path in the demo's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory of a host: its root, the home of its network process, the state of its installer.
    pub fn host(&self, name: &str) -> PathBuf {
        self.path("hosts").join(name)
    }

    /// The home directory of a host.
    pub fn host_home(&self, name: &str) -> PathBuf {
        self.host(name).join("home")
    }

    /// Headquarters' home directory.
    pub fn headquarters(&self) -> PathBuf {
        self.path("headquarters")
    }

    /// The station's home directory.
    pub fn station(&self) -> PathBuf {
        self.path("station")
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Makes keys, charter, configurations, and begins to pack the payloads.
    ///
    /// # Errors
    /// A file cannot be written, or a command fails.
    pub fn found(&self, processes: &Processes, options: &Options, program: &Path) -> Result<Pending> {
        self.write_headquarters()?;
        self.write_station()?;
        self.write_router()?;
        for seat in ["headquarters", "station"] {
            let (home, out) = (self.text(seat), self.text(&format!("{seat}/seat.json")));
            processes.run(&arguments(&["identity", "--home", &home, "--out", &out]))?;
        }
        let (bundle, prefix) = (self.text("bundle"), self.network.prefix());
        let (station, headquarters) = (self.text("station"), self.text("headquarters"));
        processes.run(&arguments(&[
            "init",
            "--bundle",
            &bundle,
            "--site",
            SITE,
            "--owner",
            "demo",
            "--operator",
            "demo",
            "--prefix",
            &prefix,
            "--station",
            &format!("{station}/seat.json"),
            "--headquarters",
            &format!("{headquarters}/seat.json"),
            "--adopt",
            &headquarters,
            "--adopt",
            &station,
        ]))?;
        // A real site keeps this key on its approvers' machines; the demo has an automatic rule, which needs it here.
        let approval = Bundle::open(&self.path("bundle"))?.path(BundleKey::Approval.file_name());
        std::fs::copy(&approval, self.path("headquarters/approval.key")).context("copying the approval key")?;
        if let Some(file) = &options.payload {
            let prepared = payload::of_file(&self.path("payload"), file)?;
            processes.run(&self.catalogue_add(&prepared))?;
        }
        let agent = payload::sample_agent(&self.path("payload"), program, options.fail_agent.as_ref())?;
        processes.begin(&self.catalogue_add(&agent))
    }

    fn catalogue_add(&self, prepared: &payload::Prepared) -> Vec<String> {
        let (package, payload) = (prepared.definition.display().to_string(), prepared.payload.display().to_string());
        arguments(&["catalogue", "add", "--bundle", &self.text("bundle"), "--package", &package, "--payload", &payload])
    }

    /// Starts router, headquarters and station, and waits until both answer.
    ///
    /// # Errors
    /// One of them ends, or does not answer.
    pub fn start_center(&self, processes: &mut Processes, watchdog: &Watchdog) -> Result<()> {
        processes.start("router", &arguments(&["demo-router", "--config", &self.text("router/router.toml")]))?;
        processes.start("headquarters", &arguments(&["run", "--home", &self.text("headquarters")]))?;
        processes.start("station", &arguments(&["run", "--home", &self.text("station")]))?;
        for home in [self.headquarters(), self.station()] {
            watchdog.wait(processes, || home.join("control.sock").exists().then_some(()), "the node to listen")?;
        }
        Ok(())
    }

    /// A join token for all hosts, and the key of the owner, in which installers believe.
    ///
    /// # Errors
    /// The station does not give one.
    pub fn token(&self, processes: &mut Processes, watchdog: &Watchdog) -> Result<(String, PublicKey)> {
        let uses = self.hosts.len().to_string();
        let command = arguments(&["token", "--home", &self.text("station"), "--uses", &uses, "--hours", "1"]);
        // A station that has just started first reads its journal; until then it says that it is none.
        let mut said = Ok(String::new());
        let token = watchdog.wait(
            processes,
            || {
                said = self.one_shot(&command);
                said.as_ref().ok().filter(|text| !text.trim().is_empty()).cloned()
            },
            "the station's token",
        );
        let token = match (token, said) {
            (Ok(token), _) => token,
            (Err(timeout), Err(error)) => return Err(error.context(timeout.to_string())),
            (Err(timeout), Ok(_)) => return Err(timeout),
        };
        let owner = PublicKey::of(&Bundle::open(&self.path("bundle"))?.key(BundleKey::Owner)?);
        Ok((token.trim().to_owned(), owner))
    }

    /// Like [`Processes::run`], for what is asked again until it works.
    fn one_shot(&self, command: &[String]) -> Result<String> {
        Processes::new(std::env::current_exe()?, self.path("logs"), false).run(command)
    }

    /// Makes a host, lets it join, and starts its two processes.
    ///
    /// # Errors
    /// It cannot join, or a process cannot be started.
    pub fn start_host(&self, processes: &mut Processes, number: u8, token: &str, owner: &PublicKey) -> Result<()> {
        let name = &self.hosts[usize::from(number)];
        let directory = self.host(name);
        let part = |part: &str| directory.join(part).display().to_string();
        let address = self.network.host(number);
        roots::write(&directory.join("root"), Kind::of(number), name, address)?;
        let config = NodeConfig {
            listen: Some(address.into()),
            mdns: false,
            installer: InstallerConfig { socket: PathBuf::from("../installer.sock") },
            ..NodeConfig::default()
        };
        Home::create(&directory.join("home"))?.save_config(&config)?;
        processes.run(&arguments(&["join", token, "--home", &part("home"), "--root", &part("root")]))?;
        let (socket, owner) = (part("installer.sock"), owner.to_string());
        processes.start(
            &format!("{name}-installer"),
            &arguments(&[
                "installer",
                "--socket",
                &socket,
                "--state",
                &part("installer"),
                "--root",
                &part("root"),
                "--owner",
                &owner,
                "--outside",
                "--end-agents",
            ]),
        )?;
        processes.start(name, &arguments(&["run", "--home", &part("home")]))
    }

    /// Hands policy and catalogue to headquarters.
    ///
    /// # Errors
    /// Headquarters refuses them.
    pub fn publish(&self, processes: &Processes) -> Result<()> {
        write_atomically(&self.path("policy.toml"), POLICY.as_bytes(), 0o644)?;
        processes.run(&arguments(&[
            "publish",
            "--home",
            &self.text("headquarters"),
            "--policy",
            &self.text("policy.toml"),
            "--bundle",
            &self.text("bundle"),
            "--catalogue",
            &self.text("bundle/catalogue"),
            "--release",
            &self.text("bundle/release.json"),
        ]))?;
        Ok(())
    }

    fn write_headquarters(&self) -> Result<()> {
        let pool = self.network.mapped();
        let rule = ApprovalRule {
            name: "demo".to_owned(),
            sites: vec![SITE.parse()?],
            packages: Vec::new(),
            facts: Default::default(),
            when: None,
            action: RuleAction::Approve,
        };
        let desk = HeadquartersConfiguration {
            pools: vec![PoolEntry { site: Some(SITE.parse()?), first: pool.first, last: pool.last }],
            batch_addresses: pool.addresses().count() as u32,
            rules: vec![rule],
            ..HeadquartersConfiguration::default()
        };
        let config = NodeConfig {
            listen: Some(self.network.headquarters().into()),
            mdns: false,
            headquarters: HeadquartersConfig {
                http: Some(self.network.http()),
                approval_key: Some(PathBuf::from("approval.key")),
                desk,
                ..HeadquartersConfig::default()
            },
            ..NodeConfig::default()
        };
        Home::create(&self.headquarters())?.save_config(&config)
    }

    fn write_station(&self) -> Result<()> {
        let config = NodeConfig {
            listen: Some(self.network.station().into()),
            mdns: false,
            station: StationConfig { router: Some(PathBuf::from("router.toml")), ..StationConfig::default() },
            ..NodeConfig::default()
        };
        let router = RouterConfig {
            address: self.network.router(),
            interface_index: INTERFACE,
            user: "station".to_owned(),
            credentials_file: self.path("station/router-credentials.toml"),
            profile: "nat-mib".to_owned(),
            request_timeout_milliseconds: 2_000,
            retries: 1,
        };
        let home = Home::create(&self.station())?;
        write_atomically(&home.path("router.toml"), toml::to_string_pretty(&router)?.as_bytes(), 0o600)?;
        home.save_config(&config)
    }

    fn write_router(&self) -> Result<()> {
        let secret = |seed: [u8; 32]| seed[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let credentials = RouterCredentials {
            authentication_passphrase: secret(random_bytes()?),
            privacy_passphrase: secret(random_bytes()?),
        };
        let text = toml::to_string_pretty(&credentials)?;
        write_atomically(&self.path("station/router-credentials.toml"), text.as_bytes(), 0o600)?;
        let config = DemoRouterConfig {
            snmp_address: self.network.router(),
            interface_index: INTERFACE,
            forwarded_ports: vec![AGENT_PORT],
            user: "station".to_owned(),
            read_only_user: None,
            rows_max: 1_000,
            read_only: false,
            only_in_steps: false,
            state_file: Some(self.path("router/state.json")),
            mapped_addresses: vec![self.network.mapped()],
            credentials,
        };
        write_atomically(&self.path("router/router.toml"), toml::to_string_pretty(&config)?.as_bytes(), 0o600)
    }
}

fn arguments(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
