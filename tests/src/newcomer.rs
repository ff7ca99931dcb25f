//! Machines that a test adds to a running demo: each with a root and an address of its own, and whatever the test wants a
//! survey to find on it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use branchline::config::{Bundle, BundleKey, Home, InstallerConfig, NodeConfig, read_document, read_key};
use branchline::mesh::Documents;
use branchline::runtime::{DocumentKindName, NodeCommand, call, machine_identifier};
use branchline_protocol::catalogue::Catalogue;
use branchline_protocol::charter::{NodeAddresses, PublicKey, Signed};
use branchline_protocol::ids::{Hash, NodeId, SiteName};
use branchline_protocol::wire::control::Hello;
use ed25519_dalek::SigningKey;
use serde_json::Value;

use crate::kept_demo::KeptDemo;

/// The name of the demo's site.
pub const SITE: &str = "demo";

/// A seat as `branchline identity --json` tells it.
#[derive(Clone, Copy, Debug)]
pub struct SeatOf {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addresses: NodeAddresses,
}

/// The home directory of a newcomer, as [`KeptDemo`] takes it.
#[must_use]
pub fn home_of(name: &str) -> String {
    format!("hosts/{name}/home")
}

impl KeptDemo {
    /// Identity and addresses of the node that lives in `home`.
    ///
    /// # Errors
    /// There is none.
    pub fn seat(&self, home: &str) -> Result<SeatOf> {
        let seat: Value = self.json(home, &["identity"])?;
        let addresses = serde_json::from_value(seat["addresses"].clone())?;
        Ok(SeatOf { node: serde_json::from_value(seat["node"].clone())?, addresses })
    }

    /// An address of the demo's site, by its last number; the demo itself has 2, 11 and up, and 254.
    ///
    /// # Errors
    /// The station has no address.
    pub fn address(&self, last: u8) -> Result<Ipv4Addr> {
        match self.seat("station")?.addresses.control.ip() {
            std::net::IpAddr::V4(station) => {
                let [a, b, c, _] = station.octets();
                Ok(Ipv4Addr::new(a, b, c, last))
            }
            std::net::IpAddr::V6(_) => anyhow::bail!("the demo has IPv4 addresses"),
        }
    }

    /// A token of the running station.
    ///
    /// # Errors
    /// The station gives none.
    pub fn token(&self, uses: usize) -> Result<String> {
        Ok(self.run("station", &["token", "--uses", &uses.to_string()])?.trim().to_owned())
    }

    /// A machine that has not joined: a root with `files` besides what every root has, and an empty home directory.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub fn machine(&self, name: &str, last: u8, files: &[(&str, String)]) -> Result<PathBuf> {
        let (root, address) = (self.path(&format!("hosts/{name}/root")), self.address(last)?);
        let release = "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        let usual = [
            ("etc/hostname", format!("{name}\n")),
            ("etc/machine-id", format!("{}\n", &Hash::of(name.as_bytes()).to_string()[..32])),
            ("etc/os-release", release.to_owned()),
            ("proc/net/fib_trie", format!("Local:\n  |-- {address}\n     /32 host LOCAL\n")),
            ("opt/.keep", String::new()),
        ];
        for (path, text) in usual.iter().chain(files) {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().context("no parent")?)?;
            std::fs::write(path, text)?;
        }
        let config = NodeConfig {
            listen: Some(address.into()),
            mdns: false,
            root: root.clone(),
            installer: InstallerConfig { socket: PathBuf::from("../installer.sock") },
            ..NodeConfig::default()
        };
        Home::create(&self.path(&home_of(name)))?.save_config(&config)?;
        Ok(root)
    }

    /// Runs `branchline join` for a machine, and gives what it said.
    ///
    /// # Errors
    /// It is not let in; with what it said.
    pub fn join(&self, name: &str, token: &str) -> Result<String> {
        self.run(&home_of(name), &["join", token])
    }

    /// Makes a machine, lets it join, and starts its network process.
    ///
    /// # Errors
    /// One of these.
    pub fn newcomer(&mut self, name: &str, last: u8, token: &str, files: &[(&str, String)]) -> Result<PathBuf> {
        let root = self.machine(name, last, files)?;
        self.join(name, token)?;
        self.start_node(name, &home_of(name))?;
        Ok(root)
    }

    /// Starts the installer of a machine.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_installer(&mut self, name: &str) -> Result<()> {
        let part = |part: &str| self.path(&format!("hosts/{name}/{part}")).display().to_string();
        let owner = PublicKey::of(&Bundle::open(&self.path("bundle"))?.key(BundleKey::Owner)?).to_string();
        let (socket, state, root) = (part("installer.sock"), part("installer"), part("root"));
        let arguments = ["installer", "--socket", &socket, "--state", &state, "--root", &root, "--owner", &owner];
        let arguments: Vec<&str> = arguments.into_iter().chain(["--outside", "--end-agents"]).collect();
        self.start_process(&format!("{name}-installer"), &arguments)
    }

    /// What the node in `home` would say of itself, and its key: for an [`crate::attacker::Attacker`] in its place.
    ///
    /// # Errors
    /// It belongs to no site.
    pub fn papers(&self, home: &str) -> Result<(SigningKey, Hello)> {
        let directory = Home::open(&self.path(home))?;
        let key = read_key(&directory.path("identity.key"))?;
        let machine = machine_identifier(&directory.config_or_default()?.root, &directory)?;
        let documents = Documents::load(directory, key.clone(), self.seat(home)?.addresses, &machine)?;
        let hello = documents.hello(&SITE.parse::<SiteName>()?).context("no hello")?;
        Ok((key, hello))
    }

    /// Signs another catalogue and hands it to headquarters; gives its version and the one before.
    ///
    /// # Errors
    /// It breaks a rule, or headquarters does not take it.
    pub fn change_catalogue(&self, change: impl FnOnce(&mut Catalogue)) -> Result<(u64, Signed<Catalogue>)> {
        let before: Signed<Catalogue> = read_document(&self.path("bundle/catalogue/catalogue.json"))?;
        let bundle = Bundle::open(&self.path("bundle"))?;
        let mut catalogue = before.verify(PublicKey::of(&bundle.key(BundleKey::Catalogue)?))?;
        catalogue.version += 1;
        change(&mut catalogue);
        let json = serde_json::to_string(&bundle.sign_catalogue(&catalogue)?)?;
        let command = NodeCommand::Document { kind: DocumentKindName::Catalogue, json };
        let _: Value = call(&self.path("headquarters"), &command)?;
        Ok((catalogue.version, before))
    }

    /// Waits until the node in `home` holds this version of the catalogue.
    ///
    /// # Errors
    /// It does not come.
    pub fn wait_for_catalogue(&self, home: &str, version: u64) -> Result<()> {
        self.wait_until(20, &format!("{home} has the newer catalogue"), || {
            Ok(self.json::<Value>(home, &["status"])?["sites"][0]["catalogue_version"] == version)
        })
    }
}
