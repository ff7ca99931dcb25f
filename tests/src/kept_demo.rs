//! `branchline demo --keep`: a running site on loopback addresses, for tests that attack or copy its machines.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary;

/// Whether a process that was killed holds nothing any more: it is gone, or only its parent has not looked yet. Its command
/// line is empty earlier, while it still has its locks and sockets, and its first thread may be dead while others are not.
fn has_let_go(process: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = state.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    after_name.is_none_or(|rest| rest.starts_with(['Z', 'X'])) && threads <= 1
}

/// A site whose hosts are complete and go on running. Everything ends when it is dropped.
#[derive(Debug)]
pub struct KeptDemo {
    program: PathBuf,
    directory: PathBuf,
    outcome: Value,
    /// Processes that the test added.
    children: Vec<Child>,
    _temporary: TempDir,
}

impl KeptDemo {
    /// Runs the demo until its hosts are complete.
    ///
    /// # Errors
    /// The demo fails; with what it said.
    pub fn start(hosts: u8) -> Result<Self> {
        let program = binary::branchline()?;
        // A short name: the demo's directory holds Unix sockets.
        let temporary = tempfile::Builder::new().prefix("bl-").tempdir_in("/tmp")?;
        let output = Command::new(&program)
            .args(["demo", "--json", "--keep", "--hosts", &hosts.to_string()])
            .env("TMPDIR", temporary.path())
            .output()
            .context("the demo cannot be run")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "the demo failed: {said}");
        let stop = said.lines().find_map(|line| line.strip_prefix("End it and remove it: "));
        let stop = PathBuf::from(stop.context("the demo does not say how it is ended")?);
        let directory = stop.parent().context("no directory")?.to_owned();
        let outcome = serde_json::from_slice(&output.stdout)?;
        Ok(Self { program, directory, outcome, children: Vec::new(), _temporary: temporary })
    }

    /// What the demo said when its hosts were complete.
    #[must_use]
    pub fn outcome(&self) -> &Value {
        &self.outcome
    }

    /// A path in the demo's directory: `station`, `headquarters`, `bundle`, `hosts/till-1/home`...
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Runs a command with a home directory, and gives what it printed.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub fn run(&self, home: &str, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program).args(arguments).arg("--home").arg(self.path(home)).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "branchline {}: {said}{errors}", arguments.join(" "));
        Ok(said)
    }

    /// Like [`KeptDemo::run`] with `--json`, parsed.
    ///
    /// # Errors
    /// It fails, or answers something else.
    pub fn json<T: DeserializeOwned>(&self, home: &str, arguments: &[&str]) -> Result<T> {
        let line: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let said = self.run(home, &line)?;
        serde_json::from_str(&said).with_context(|| format!("{home} answered {said}"))
    }

    /// The processes of the demo whose command line contains `words`.
    #[must_use]
    pub fn processes(&self, words: &str) -> Vec<u32> {
        let directory = self.directory.display().to_string();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut found: Vec<u32> = entries
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                let line = std::fs::read(entry.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                (line.contains(&directory) && line.contains(words)).then_some(number)
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Ends the node that lives in `home` without a word.
    ///
    /// # Errors
    /// There is not exactly one, or it does not end.
    pub fn kill_node(&self, home: &str) -> Result<()> {
        let line = format!("run --home {} ", self.path(home).display());
        let [process] = self.processes(&line)[..] else {
            bail!("{:?} processes run in {home}", self.processes(&line));
        };
        let status = Command::new("kill").args(["-KILL", &process.to_string()]).status()?;
        ensure!(status.success(), "process {process} cannot be killed");
        self.wait_until(30, "the node has ended", || Ok(has_let_go(process)))
    }

    /// Starts another node, with its log in `name.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_node(&mut self, name: &str, home: &str) -> Result<()> {
        let home = self.path(home).display().to_string();
        self.start_process(name, &["run", "--home", &home])
    }

    /// Starts a process that ends with the test, with its log in `name.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_process(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        let log = std::fs::File::create(self.path(&format!("logs/{name}.log")))?;
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push(command.spawn().with_context(|| format!("{name} cannot be started"))?);
        Ok(())
    }

    /// The built program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The log of a process of the demo, by its name: `station`, `till-1`...
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("logs/{name}.log"))).unwrap_or_default()
    }

    /// Waits until `wanted` holds; an error of it counts as no.
    ///
    /// # Errors
    /// It does not hold within `seconds`.
    pub fn wait_until(&self, seconds: u64, what: &str, wanted: impl Fn() -> Result<bool>) -> Result<()> {
        let limit = Instant::now() + Duration::from_secs(seconds);
        loop {
            let last = wanted();
            if let Ok(true) = last {
                return Ok(());
            }
            if Instant::now() >= limit {
                bail!("after {seconds} s not yet: {what} ({last:?})");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for KeptDemo {
    fn drop(&mut self) {
        // An installer ends its agents when it is told to end.
        let ids: Vec<String> = self.children.iter().map(|child| child.id().to_string()).collect();
        if !ids.is_empty() {
            let _ = Command::new("kill").arg("-TERM").args(ids).stderr(Stdio::null()).status();
        }
        let limit = Instant::now() + Duration::from_secs(5);
        for child in &mut self.children {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Err(error) = Command::new(self.path("stop")).status() {
            eprintln!("the demo in {} is still running: {error}", self.directory.display());
        }
    }
}

/// Every file below `root` with the hash of its content, every link with its target: what an installation changes.
///
/// # Errors
/// The disk fails.
pub fn tree(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_symlink() {
                found.push((path.clone(), format!("-> {}", std::fs::read_link(&path)?.display())));
            } else if kind.is_file() {
                match std::fs::read(&path) {
                    Ok(content) => found.push((path, branchline_protocol::ids::Hash::of(&content).to_string())),
                    // A file that is replaced at this moment had another name for a while.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
                }
            }
        }
    }
    found.sort();
    Ok(found)
}
