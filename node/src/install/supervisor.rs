//! Plain supervised processes, where no systemd runs: started, kept, and started again with growing pauses (R84).
//!
//! A process outlives the installer. Its number and start time are on disk, so that a new installer process finds it
//! again and never takes another process for it; only processes that the installer started are ever ended.
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{files, service::ServiceRecord, socket::ServiceStatus};

/// Restarts after which a service that ends again and again is left alone until it is started by order.
const RESTARTS_MAX: u32 = 8;
/// First and longest pause before a restart.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// A service that ran this long counts as sound, and its restarts are forgotten.
const SOUND_AFTER: Duration = Duration::from_secs(120);
/// How long a process may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Log length above which a start begins a new file, in bytes; one older file is kept.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// Lines of the log that an error message cites.
const LOG_TAIL_LINES: usize = 12;

/// Why a service is not as it should be.
#[derive(Debug, Error)]
pub enum SupervisorError {
    /// It could not be started.
    #[error("the service {name} cannot be started: {reason}")]
    Start {
        /// Which.
        name: String,
        /// What the system said.
        reason: String,
    },
    /// Its record could not be written.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// It does not end.
    #[error("the service {name} (process {process}) does not end")]
    Immortal {
        /// Which.
        name: String,
        /// Its process.
        process: u32,
    },
    /// There is no such service.
    #[error("there is no service {0}")]
    Unknown(String),
}

/// One process, named so that no later process can be mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessName {
    /// Its number.
    pub process: u32,
    /// When it started, in clock ticks since the system's start (`proc(5)`, field 22 of `stat`).
    pub start_ticks: u64,
}

impl ProcessName {
    fn of(process: u32) -> Option<Self> {
        let (state, start_ticks) = process_state(process)?;
        (state != 'Z').then_some(Self { process, start_ticks })
    }

    fn lives(self) -> bool {
        Self::of(self.process) == Some(self)
    }

    fn signal_group(self, signal: Signal) {
        let group = i32::try_from(self.process).ok().and_then(Pid::from_raw);
        if let Some(group) = group.filter(|_| self.lives()) {
            // It may have ended in between; that is what is wanted.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

/// State letter and start time of a process.
fn process_state(process: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    record: ServiceRecord,
    wanted: bool,
    process: Option<ProcessName>,
    restarts: u32,
    #[serde(skip)]
    child: Option<Child>,
    #[serde(skip)]
    started: Option<Instant>,
    #[serde(skip)]
    restart_at: Option<Instant>,
}

/// All plain supervised processes of one installer.
#[derive(Debug)]
pub struct Supervisor {
    directory: PathBuf,
    logs: PathBuf,
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Supervisor {
    /// Reads the records under `state`; starts nothing yet.
    pub fn open(state: &Path) -> Self {
        let directory = state.join("services");
        let files = fs::read_dir(&directory).into_iter().flatten().flatten();
        let read = |path: PathBuf| serde_json::from_slice::<Entry>(&fs::read(path).ok()?).ok();
        let json = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
        let entries = json.filter_map(read).map(|entry| (entry.record.name.clone(), entry)).collect();
        Self { directory, logs: state.join("logs"), entries: Mutex::new(entries) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // A panic elsewhere leaves entries that each stand for themselves.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, entry: &Entry) -> Result<(), SupervisorError> {
        let text = serde_json::to_vec(entry)
            .map_err(|error| SupervisorError::Start { name: entry.record.name.clone(), reason: error.to_string() })?;
        Ok(files::write_atomically(&self.record_file(&entry.record.name), &text, 0o600)?)
    }

    fn record_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    /// Where the output of a service goes.
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The record under that name, where there is one.
    pub fn record(&self, name: &str) -> Option<ServiceRecord> {
        self.lock().get(name).map(|entry| entry.record.clone())
    }

    /// Sets a service up under its name, in place of what ran there, and starts it.
    ///
    /// # Errors
    /// It cannot be started, or what ran before does not end.
    pub fn set(&self, record: ServiceRecord) -> Result<(), SupervisorError> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(&record.name) {
            self.end(entry)?;
        }
        let name = record.name.clone();
        let mut fresh =
            Entry { record, wanted: true, process: None, restarts: 0, child: None, started: None, restart_at: None };
        let started = self.start(&mut fresh);
        entries.insert(name, fresh);
        started
    }

    /// Ends what runs under `name` and forgets it, or puts `previous` in its place.
    ///
    /// # Errors
    /// It does not end, or `previous` cannot be started.
    pub fn put_back(&self, name: &str, previous: Option<ServiceRecord>) -> Result<(), SupervisorError> {
        if let Some(previous) = previous {
            if self.record(name).as_ref() == Some(&previous) && self.status(name).is_some_and(|s| s.running) {
                return Ok(());
            }
            return self.set(previous);
        }
        let mut entries = self.lock();
        if let Some(mut entry) = entries.remove(name) {
            let ended = self.end(&mut entry);
            if ended.is_err() {
                entries.insert(name.to_owned(), entry);
                return ended;
            }
        }
        self.end_strays(name);
        Ok(files::remove_if_there(&self.record_file(name))?)
    }

    /// Stops or starts all services, and remembers that over restarts (R92).
    ///
    /// # Errors
    /// One does not end or start; the others are done.
    pub fn want_all(&self, wanted: bool) -> Result<(), SupervisorError> {
        let mut result = Ok(());
        for entry in self.lock().values_mut() {
            entry.wanted = wanted;
            entry.restarts = 0;
            entry.restart_at = None;
            let done = match (wanted, self.is_running(entry)) {
                (true, false) => self.start(entry),
                (false, _) => self.end(entry),
                (true, true) => Ok(()),
            };
            let saved = self.save(entry);
            result = result.and(done).and(saved);
        }
        result
    }

    /// Looks after all services once: notices ends, and starts again what is due.
    pub fn tend(&self) {
        for entry in self.lock().values_mut() {
            if self.is_running(entry) {
                if entry.restarts > 0 && entry.started.is_some_and(|started| started.elapsed() > SOUND_AFTER) {
                    entry.restarts = 0;
                }
                continue;
            }
            if !entry.wanted || entry.restarts >= RESTARTS_MAX {
                continue;
            }
            let pause = PAUSES.0.saturating_mul(1 << entry.restarts.min(16)).min(PAUSES.1);
            let due = *entry.restart_at.get_or_insert_with(|| Instant::now() + pause);
            if Instant::now() >= due {
                entry.restart_at = None;
                entry.restarts += 1;
                if let Err(error) = self.start(entry) {
                    tracing::warn!(service = entry.record.name, %error, "the service could not be started again");
                }
            }
        }
    }

    /// One service.
    pub fn status(&self, name: &str) -> Option<ServiceStatus> {
        let mut entries = self.lock();
        entries.get_mut(name).map(|entry| self.status_of(entry))
    }

    /// All services, by name.
    pub fn statuses(&self) -> Vec<ServiceStatus> {
        self.lock().values_mut().map(|entry| self.status_of(entry)).collect()
    }

    fn status_of(&self, entry: &mut Entry) -> ServiceStatus {
        let running = self.is_running(entry);
        ServiceStatus {
            name: entry.record.name.clone(),
            wanted: entry.wanted,
            running,
            process: entry.process.filter(|_| running).map(|name| name.process),
            restarts: entry.restarts,
        }
    }

    /// The last lines that a service wrote, for error messages.
    pub fn log_tail(&self, name: &str) -> Vec<String> {
        let text = fs::read(self.log_file(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(8192)..]).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].iter().map(|line| (*line).to_owned()).collect()
    }

    fn is_running(&self, entry: &mut Entry) -> bool {
        if let Some(child) = &mut entry.child
            && !matches!(child.try_wait(), Ok(None))
        {
            entry.child = None;
        }
        entry.process.is_some_and(ProcessName::lives)
    }

    fn start(&self, entry: &mut Entry) -> Result<(), SupervisorError> {
        let name = entry.record.name.clone();
        let fault = |reason: String| SupervisorError::Start { name: name.clone(), reason };
        // Durable before the process is there, so that a crash in between leaves a service that is started again.
        entry.process = None;
        self.save(entry)?;
        self.end_strays(&name);
        let mut command = entry.record.command();
        let log = self.open_log(&name).map_err(|error| fault(error.to_string()))?;
        let errors = log.try_clone().map_err(|error| fault(error.to_string()))?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        command.env(STRAY_MARK, self.mark(&name));
        let child = command.spawn().map_err(|error| fault(format!("{}: {error}", entry.record.program.display())))?;
        entry.process = ProcessName::of(child.id());
        entry.child = Some(child);
        entry.started = Some(Instant::now());
        self.save(entry)
    }

    fn open_log(&self, name: &str) -> io::Result<File> {
        let path = self.log_file(name);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            fs::rename(&path, path.with_extension("log.1"))?;
        }
        OpenOptions::new().append(true).create(true).open(path)
    }

    fn end(&self, entry: &mut Entry) -> Result<(), SupervisorError> {
        let Some(process) = entry.process else { return Ok(()) };
        process.signal_group(Signal::TERM);
        let started = Instant::now();
        while self.is_running(entry) {
            if started.elapsed() > END_LIMIT + END_LIMIT {
                return Err(SupervisorError::Immortal { name: entry.record.name.clone(), process: process.process });
            }
            if started.elapsed() > END_LIMIT {
                process.signal_group(Signal::KILL);
            }
            thread::sleep(Duration::from_millis(10));
        }
        entry.process = None;
        Ok(())
    }

    /// The mark by which a process that was started just before a crash is known as this service's.
    fn mark(&self, name: &str) -> String {
        self.record_file(name).display().to_string()
    }

    /// Ends processes of this service that a killed installer started and could not write down any more.
    fn end_strays(&self, name: &str) {
        let mark = format!("{STRAY_MARK}={}", self.mark(name));
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for process in numbers.filter(|process| *process != std::process::id()) {
            let Ok(environment) = fs::read(format!("/proc/{process}/environ")) else { continue };
            if !environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
                continue;
            }
            let (Some(stray), Some(pid)) =
                (ProcessName::of(process), i32::try_from(process).ok().and_then(Pid::from_raw))
            else {
                continue;
            };
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let started = Instant::now();
            while stray.lives() && started.elapsed() < END_LIMIT {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Environment variable that carries the mark.
const STRAY_MARK: &str = "BRANCHLINE_SERVICE";

impl ServiceRecord {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(&self.environment).current_dir(&self.directory);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}
