//! Hosts of the lab that have booted systemd, set up as `docs/src/operate/host.md` says: with the product's own units.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::site::Site;

/// Where the units lie in the repository, and on a host.
const UNITS: &str = "../node/systemd";
/// The services of a host.
const SERVICES: [&str; 2] = ["branchline-installer", "branchline"];

/// Why no machine of the lab can boot systemd here: it needs control groups of version 2 in which groups can be made.
///
/// # Errors
/// `/proc` cannot be read.
pub fn obstacle() -> Result<Option<String>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let Some(top) = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|line| line[2] == "cgroup2")
    else {
        return Ok(Some("this computer has no control groups of version 2, which systemd needs".to_owned()));
    };
    let probe = Path::new(top[1]).join(format!("branchline-lab-probe-{}", std::process::id()));
    match std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe)) {
        Ok(()) => Ok(None),
        Err(error) => Ok(Some(format!("no control group can be made in {}: {error}", top[1]))),
    }
}

impl Site {
    /// Sets a host up by the book and lets systemd start its two processes.
    ///
    /// # Errors
    /// A step fails; with what systemd says of the services.
    pub fn start_host_by_units(&self, host: &str, token: &str) -> Result<()> {
        let (lab, units) = (self.lab(), Path::new(env!("CARGO_MANIFEST_DIR")).join(UNITS));
        let root = lab.root(host)?;
        for service in SERVICES {
            let unit = format!("{service}.service");
            std::fs::copy(units.join(&unit), root.join("etc/systemd/system").join(&unit))
                .with_context(|| format!("copying {unit}"))?;
        }
        lab.check(host, &["ln", "-s", "/usr/local/bin/branchline", "/usr/bin/branchline"])?;
        let user = ["useradd", "--system", "--home-dir", "/var/lib/branchline", "--shell", "/usr/sbin/nologin"];
        lab.check(host, &[&user[..], &["branchline"]].concat())?;
        let home = ["install", "-d", "-o", "branchline", "-g", "branchline", "-m", "700", "/var/lib/branchline"];
        lab.check(host, &home)?;
        lab.check(host, &["install", "-d", "/etc/branchline"])?;
        let number = lab.check(host, &["id", "-u", "branchline"])?;
        let environment = format!("OWNER={}\nALLOW=--allow-uid {}\n", self.owner(), number.trim());
        std::fs::write(root.join("etc/branchline/installer.env"), environment)?;
        let address = lab.address(host)?;
        let beside = root.join("etc/systemd/system/branchline-installer.service.d");
        std::fs::create_dir(&beside)?;
        let network = format!("[Service]\nIPAddressDeny=any\nIPAddressAllow=localhost {address}\n");
        std::fs::write(beside.join("network.conf"), network)?;
        let join = ["runuser", "-u", "branchline", "--", "branchline", "join", token, "--listen", &address];
        lab.check(host, &join)?;
        lab.check(host, &[&["systemctl", "enable", "--now"][..], &SERVICES].concat())
            .with_context(|| self.said_of(host, "branchline*"))?;
        for service in SERVICES {
            ensure!(self.systemctl_says(host, &["is-active", service])? == "active", self.said_of(host, service));
        }
        Ok(())
    }

    /// Whether a process among those of a service gets a connection to this address and port.
    ///
    /// # Errors
    /// The command cannot be run.
    pub fn reaches(&self, host: &str, service: &str, address: &str, port: u16) -> Result<bool> {
        let group = format!("/sys/fs/cgroup/system.slice/{service}.service/cgroup.procs");
        let script = format!("echo $$ >{group} || exit 99; timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
        let status = self.lab().exec(host, &["bash", "-c", &script])?.status;
        ensure!(status.code() != Some(99), "no process can be moved to {group}");
        Ok(status.success())
    }

    /// What `systemctl` prints in a machine, whatever its exit code is.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn systemctl_says(&self, host: &str, arguments: &[&str]) -> Result<String> {
        let output = self.lab().exec(host, &[&["systemctl", "--no-pager"][..], arguments].concat())?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Status and log of a unit, for a failure's message.
    #[must_use]
    pub fn said_of(&self, host: &str, unit: &str) -> String {
        let status = self.systemctl_says(host, &["status", "--full", unit]).unwrap_or_default();
        let log = self.lab().exec(host, &["journalctl", "--no-pager", "-n", "40", "-u", unit]);
        let log = log.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        format!("{unit} on {host}:\n{status}\n{log}")
    }
}
