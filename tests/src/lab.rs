//! The site lab: headquarters, a thin line, a router, a station and hosts on this computer.
//!
//! A thin shell over `tests/lab/lab`, which does the work and can be used by hand. A [`Lab`] takes
//! its site down when it is dropped, also when a test panics; what a killed test leaves behind, the
//! next [`Lab::up`] removes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What a site is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Keeps labs on one computer apart: a short word of `a-z0-9`.
    pub id: String,
    /// Hosts beside the station.
    pub hosts: usize,
    /// Rate of the line to headquarters, each way, as `tc` writes it: `20mbit`.
    pub wan_rate: String,
    /// Rate of each machine's port in the site, each way.
    pub lan_rate: String,
    /// Whether the station and every host stand on a Debian root of their own.
    pub roots: bool,
    /// Rows that the router's table holds.
    pub table_rows: usize,
    /// Paths of this computer and where each root shows them, read-only.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Machines that boot systemd.
    pub systemd: Vec<String>,
}

impl Default for Options {
    /// The site of issue 2: six hosts with roots, 20 Mbit/s to headquarters, 100 Mbit/s inside.
    fn default() -> Self {
        Self {
            id: "bltest".to_owned(),
            hosts: 6,
            wan_rate: "20mbit".to_owned(),
            lan_rate: "100mbit".to_owned(),
            roots: true,
            table_rows: 64,
            binds: Vec::new(),
            systemd: Vec::new(),
        }
    }
}

/// What the kernel counted at one interface, headers included.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Traffic {
    /// Bytes towards the interface's owner.
    pub received_bytes: u64,
    /// Packets towards the interface's owner.
    pub received_packets: u64,
    /// Bytes away from it.
    pub sent_bytes: u64,
    /// Packets away from it.
    pub sent_packets: u64,
}

/// Counters of the line and of each machine's port.
#[derive(Clone, Debug, Deserialize)]
pub struct Counters {
    /// The router's end of the line: received is what came into the site.
    pub wan: Traffic,
    /// Each machine's port in the site (`router`, `station`, `host1`...), as the machine sees it.
    pub machines: BTreeMap<String, Traffic>,
}

/// One address outside and the one inside that it leads to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct Mapping {
    /// The address that headquarters uses.
    pub global: String,
    /// The host's own.
    pub local: String,
}

/// What the router does with packets.
#[derive(Clone, Debug, Deserialize)]
pub struct Forwarding {
    /// Destinations that are translated on the way in, ordered by global address.
    pub inbound: Vec<Mapping>,
    /// Sources that are translated on the way out, ordered by local address.
    pub outbound: Vec<Mapping>,
}

/// A row of `natAddrMapTable` as SNMP tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// ifIndex of the NAT interface.
    pub interface: u32,
    /// natAddrMapIndex.
    pub index: u32,
    /// natAddrMapName.
    pub name: String,
    /// First inside address, if the column is set.
    pub local: Option<String>,
    /// Last inside address.
    pub local_to: Option<String>,
    /// First outside address.
    pub global: Option<String>,
    /// Last outside address.
    pub global_to: Option<String>,
    /// `active`, `notInService` or `notReady`.
    pub status: String,
}

/// The router's table, seen twice.
#[derive(Clone, Debug, Deserialize)]
pub struct NatTable {
    /// From the forwarding plane.
    pub forwarding: Forwarding,
    /// By SNMP; `None` if the router did not answer.
    pub snmp: Option<Vec<Row>>,
    /// What the router said instead of its rows.
    pub snmp_error: Option<String>,
}

/// Addresses, credentials and directories of a lab.
#[derive(Clone, Debug, Deserialize)]
pub struct Facts {
    /// Directory that every machine sees under this very path, writable.
    pub shared: PathBuf,
    /// Headquarters on the line.
    pub headquarters_address: String,
    /// The router on the line.
    pub router_wan_address: String,
    /// The router's SNMP agent, `address:port`.
    pub router_address: String,
    /// The station in the site.
    pub station_address: String,
    /// The site's inside prefix.
    pub inside_prefix: String,
    /// The prefix of public addresses that the router maps.
    pub batch: String,
    /// ifIndex of the NAT interface.
    pub interface: u32,
    /// SNMPv3 user that may write.
    pub snmp_user: String,
    /// Its authentication passphrase (SHA-256).
    pub snmp_auth_passphrase: String,
    /// Its privacy passphrase (AES-128).
    pub snmp_privacy_passphrase: String,
    /// SNMPv3 user that may only read.
    pub snmp_reader: String,
    /// The reader's authentication passphrase.
    pub snmp_reader_auth_passphrase: String,
    /// The reader's privacy passphrase.
    pub snmp_reader_privacy_passphrase: String,
}

/// A running site.
#[derive(Debug)]
pub struct Lab {
    id: String,
    facts: Facts,
}

impl Lab {
    /// Why no lab can run here, to be printed by a test that then passes without one. `tests/run`
    /// finds the reason and sets `BRANCHLINE_SKIP_LAB`; a run by hand without root is told as well.
    #[must_use]
    pub fn obstacle() -> Option<String> {
        if let Ok(reason) = std::env::var("BRANCHLINE_SKIP_LAB") {
            return Some(reason);
        }
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        (user.split_whitespace().nth(1) != Some("0"))
            .then(|| "not root: the lab makes network namespaces and mounts".to_owned())
    }

    /// Starts a site, after taking down what an earlier one of the same name left.
    ///
    /// # Errors
    /// With what the lab's script wrote, if it did not come up.
    pub fn up(options: &Options) -> Result<Self> {
        run(&options.id, ["down"])?;
        let mut arguments = vec![
            "up".to_owned(),
            format!("--hosts={}", options.hosts),
            format!("--wan={}", options.wan_rate),
            format!("--lan={}", options.lan_rate),
            format!("--table-rows={}", options.table_rows),
        ];
        if options.roots {
            arguments.push("--roots".to_owned());
        }
        for (source, target) in &options.binds {
            arguments.push(format!("--bind={}:{}", source.display(), target.display()));
        }
        arguments.extend(options.systemd.iter().map(|machine| format!("--systemd={machine}")));
        run(&options.id, &arguments)?;
        let facts = parse(&run(&options.id, ["facts"])?, "facts")?;
        Ok(Self { id: options.id.clone(), facts })
    }

    /// Addresses, credentials and directories.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Runs a command in a machine and waits for it; its exit status is the caller's to judge.
    ///
    /// # Errors
    /// If the lab's script cannot be run.
    pub fn exec(&self, machine: &str, command: &[&str]) -> Result<Output> {
        script(&self.id)
            .args(["exec", machine])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .context("the lab's script could not be run")
    }

    /// Runs a command in a machine and returns what it printed.
    ///
    /// # Errors
    /// If it fails, with what it wrote.
    pub fn check(&self, machine: &str, command: &[&str]) -> Result<String> {
        let output = self.exec(machine, command)?;
        succeeded(&format!("{machine}: {}", command.join(" ")), output)
    }

    /// Starts a daemon; `name` stands for it in the other calls.
    ///
    /// # Errors
    /// If it cannot be started, or one of that name runs.
    pub fn spawn(&self, machine: &str, name: &str, command: &[&str]) -> Result<()> {
        let head = ["spawn", machine, name];
        run(&self.id, head.iter().chain(command)).map(drop)
    }

    /// Sends a signal (`KILL`, `TERM`, `STOP`...) to a daemon's process; waits for its end if the
    /// signal ends it.
    ///
    /// # Errors
    /// If the daemon does not run.
    pub fn kill(&self, machine: &str, name: &str, signal: &str) -> Result<()> {
        run(&self.id, ["kill", machine, name, signal]).map(drop)
    }

    /// Waits for a daemon's end and returns its exit status (128 + signal if it was killed).
    ///
    /// # Errors
    /// If it does not end within `seconds`.
    pub fn wait(&self, machine: &str, name: &str, seconds: u32) -> Result<i32> {
        let seconds = seconds.to_string();
        let status = run(&self.id, ["wait", machine, name, &seconds])?;
        status.trim().parse().with_context(|| format!("no exit status: {status}"))
    }

    /// Whether a daemon runs.
    ///
    /// # Errors
    /// If the lab's script cannot be run.
    pub fn running(&self, machine: &str, name: &str) -> Result<bool> {
        let status = script(&self.id).args(["running", machine, name]).status()?;
        Ok(status.success())
    }

    /// Everything that a daemon has written, over all its starts.
    ///
    /// # Errors
    /// If there never was one.
    pub fn log(&self, machine: &str, name: &str) -> Result<String> {
        run(&self.id, ["log", machine, name])
    }

    /// Takes a machine's power away: all its processes end at once, its disk stays.
    ///
    /// # Errors
    /// If the machine does not end.
    pub fn power_off(&self, machine: &str) -> Result<()> {
        run(&self.id, ["power", machine, "off"]).map(drop)
    }

    /// Starts a machine that has no power; its daemons are to be spawned again.
    ///
    /// # Errors
    /// If it does not start.
    pub fn power_on(&self, machine: &str) -> Result<()> {
        run(&self.id, ["power", machine, "on"]).map(drop)
    }

    /// A running machine's root, as a path of this computer; good until its power goes.
    ///
    /// # Errors
    /// If the machine does not run.
    pub fn root(&self, machine: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(run(&self.id, ["root", machine])?.trim()))
    }

    /// A machine's address on its own network.
    ///
    /// # Errors
    /// If there is no such machine.
    pub fn address(&self, machine: &str) -> Result<String> {
        Ok(run(&self.id, ["address", machine])?.trim().to_owned())
    }

    /// What the kernel has counted since the lab is up.
    ///
    /// # Errors
    /// If the lab is not up.
    pub fn counters(&self) -> Result<Counters> {
        parse(&run(&self.id, ["counters"])?, "counters")
    }

    /// The router's table.
    ///
    /// # Errors
    /// If the lab is not up; a router that does not answer is in the value.
    pub fn nat_table(&self) -> Result<NatTable> {
        parse(&run(&self.id, ["nat-table"])?, "nat-table")
    }

    /// Breaks something (`on`, or a number where the fault takes one) or mends it (`off`);
    /// `docs/src/lab.md` lists the faults. `clear` mends all.
    ///
    /// # Errors
    /// If there is no such fault.
    pub fn fault(&self, name: &str, value: &str) -> Result<()> {
        run(&self.id, ["fault", name, value]).map(drop)
    }

    /// What the router's filter lets through to mapped addresses: TCP ports such as `9100,9200` (a lab begins with `9100`),
    /// or `all`.
    ///
    /// # Errors
    /// If the ports cannot be read.
    pub fn pass(&self, ports: &str) -> Result<()> {
        run(&self.id, ["pass", ports]).map(drop)
    }

    /// Starts Debian's Prometheus at headquarters, scraping the targets that `url` lists to who shows the token of `token_file`.
    ///
    /// # Errors
    /// If it cannot be fetched or does not start.
    pub fn prometheus(&self, url: &str, token_file: &Path) -> Result<()> {
        run(&self.id, [OsStr::new("prometheus"), url.as_ref(), token_file.as_ref()]).map(drop)
    }

    /// The `result` of a PromQL expression: for a vector, a list of `{metric, value: [time, text]}`.
    ///
    /// # Errors
    /// If Prometheus does not answer or refuses the expression.
    pub fn prometheus_query(&self, expression: &str) -> Result<serde_json::Value> {
        let text = run(&self.id, ["prometheus-query", expression])?;
        let mut answer: serde_json::Value = parse(&text, "prometheus-query")?;
        ensure!(answer["status"] == "success", "{expression}: {answer}");
        Ok(answer["data"]["result"].take())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = run(&self.id, ["down"]) {
            eprintln!("the lab {} is still up: {error:#}", self.id);
        }
    }
}

fn script(id: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/lab");
    let mut command = Command::new(path);
    command.env("BRANCHLINE_LAB_ID", id).stdin(Stdio::null());
    command
}

fn run<I, S>(id: &str, arguments: I) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = script(id);
    command.args(arguments);
    let shown = format!("{command:?}");
    let output = command.output().context("the lab's script could not be run")?;
    succeeded(&shown, output)
}

fn succeeded(what: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{what}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{what}: the answer is not UTF-8"))
}

fn parse<T: DeserializeOwned>(text: &str, what: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("lab {what} answered {text}"))
}

/// Where no lab can run and none is required, prints why and returns the value from the function.
#[macro_export]
macro_rules! return_without_lab {
    ($value:expr) => {
        if let Some(reason) = $crate::lab::Lab::obstacle() {
            $crate::required::skip("a test in the site lab", &reason);
            return $value;
        }
    };
}

/// Starts a lab, or prints why there is none and returns from the test.
#[macro_export]
macro_rules! lab_or_return {
    ($options:expr) => {{
        $crate::return_without_lab!(Ok(()));
        $crate::lab::Lab::up($options)?
    }};
}
