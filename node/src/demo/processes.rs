//! The demo's processes: started from this program's own file, and ended by their own numbers whatever happens.
use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// Names the process whose end is this process's end too; [`end_with_parent`] reads it.
pub const PARENT_VARIABLE: &str = "BRANCHLINE_ENDS_WITH";
/// How long the processes may take to end before they are killed. An installer first ends its agents.
const END_LIMIT: Duration = Duration::from_secs(15);

/// Processes that run until they are told to end.
#[derive(Debug)]
pub struct Processes {
    program: PathBuf,
    logs: PathBuf,
    /// Whether they may outlive this process.
    outlive: bool,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    name: String,
    child: Child,
}

/// A command that runs beside the demo and comes to an end by itself.
#[derive(Debug)]
pub struct Pending {
    line: String,
    child: Child,
    log: PathBuf,
}

impl Processes {
    /// Processes of `program`, with their logs in `logs`.
    pub fn new(program: PathBuf, logs: PathBuf, outlive: bool) -> Self {
        Self { program, logs, outlive, running: Vec::new() }
    }

    /// The log of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn command(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        // In a group of its own a process is not reached by the terminal's Ctrl-C: the demo ends all of them in order.
        command.process_group(0).env_remove("BRANCHLINE_HOME");
        if !self.outlive {
            command.env(PARENT_VARIABLE, std::process::id().to_string());
        }
        command
    }

    /// Starts a process that runs until it is told to end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, name: &str, arguments: &[String]) -> Result<()> {
        let log = File::create(self.log(name)).with_context(|| format!("writing {}", self.log(name).display()))?;
        let errors = log.try_clone()?;
        let child = self.command(arguments).stdout(log).stderr(errors).spawn();
        let child = child.with_context(|| format!("starting {name}"))?;
        self.running.push(Running { name: name.to_owned(), child });
        Ok(())
    }

    /// Runs a command to its end; its line and its output are kept in `commands.log`, its output is given back.
    ///
    /// # Errors
    /// It fails; the message holds what it said.
    pub fn run(&self, arguments: &[String]) -> Result<String> {
        self.finish(self.begin(arguments)?)
    }

    /// Starts a command that comes to an end by itself.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn begin(&self, arguments: &[String]) -> Result<Pending> {
        let line = format!("branchline {}", arguments.join(" "));
        let child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.with_context(|| format!("running {line}"))?;
        Ok(Pending { line, child, log: self.log("commands") })
    }

    /// Waits for a command; see [`Processes::run`].
    ///
    /// # Errors
    /// It fails; the message holds what it said.
    pub fn finish(&self, pending: Pending) -> Result<String> {
        let output = pending.child.wait_with_output().with_context(|| format!("waiting for {}", pending.line))?;
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let mut log = OpenOptions::new().create(true).append(true).open(&pending.log)?;
        writeln!(log, "$ {}\n{said}{errors}", pending.line)?;
        if !output.status.success() {
            bail!("`{}` failed: {}", pending.line, errors.trim());
        }
        Ok(said.into_owned())
    }

    /// The first process that has ended, though nobody told it to: its name, and how it ended.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> Result<Option<(String, String)>> {
        for running in &mut self.running {
            if let Some(status) = running.child.try_wait()? {
                return Ok(Some((running.name.clone(), status.to_string())));
            }
        }
        Ok(None)
    }

    /// The processes' numbers, in the order in which they are to be ended.
    pub fn numbers(&self) -> Vec<u32> {
        self.running.iter().rev().map(|running| running.child.id()).collect()
    }

    /// Lets the processes run on when this value goes.
    pub fn release(&mut self) {
        self.running.clear();
    }

    /// Ends all processes: the last first, with time to do it themselves.
    pub fn end(&mut self) {
        for running in self.running.iter_mut().rev() {
            signal(&running.child, Signal::TERM);
        }
        let limit = Instant::now() + END_LIMIT;
        for running in self.running.iter_mut().rev() {
            while matches!(running.child.try_wait(), Ok(None)) && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(10));
            }
            if matches!(running.child.try_wait(), Ok(None)) {
                signal(&running.child, Signal::KILL);
                let _ = running.child.wait();
            }
        }
        self.running.clear();
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.end();
    }
}

fn signal(child: &Child, signal: Signal) {
    // The child has not been waited for, so its number is still its own.
    let _ = kill_process_group(Pid::from_child(child), signal);
}

/// Ties this process's life to its parent's where [`PARENT_VARIABLE`] asks for it: however the demo ends, even by SIGKILL,
/// its processes are told to end.
pub fn end_with_parent() {
    let parent = std::env::var(PARENT_VARIABLE).ok().and_then(|text| text.parse::<i32>().ok());
    let Some(parent) = parent.and_then(Pid::from_raw) else { return };
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    if rustix::process::getppid() != Some(parent) {
        std::process::exit(0);
    }
}

/// The last lines of a log that tell of trouble, or else simply its last lines.
pub fn log_tail(path: &Path, lines: usize) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let trouble: Vec<&str> = text.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).collect();
    let chosen = if trouble.is_empty() { text.lines().collect() } else { trouble };
    chosen.iter().skip(chosen.len().saturating_sub(lines)).map(|line| (*line).to_owned()).collect()
}
