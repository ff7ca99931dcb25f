//! Runs the survey script on this machine and reads what it wrote.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use branchline_protocol::limits;
use branchline_protocol::survey::redact::redact_descriptor;
use branchline_protocol::survey::{Descriptor, DescriptorError};
use thiserror::Error;

/// How long a survey in discovery mode may take before it is ended; it needs seconds.
pub const DISCOVERY_TIME_LIMIT: Duration = Duration::from_secs(120);

/// Most bytes of the script's messages that are kept.
const MAX_MESSAGE_BYTES: u64 = 64 * 1024;

/// What to survey.
#[derive(Debug, Clone)]
pub struct SurveyRequest {
    /// The root directory of the system to survey: `/` for this machine.
    pub root: PathBuf,
    /// How long it may take.
    pub time_limit: Duration,
}

impl SurveyRequest {
    /// A survey of the system whose root directory is given, with the usual time limit.
    #[must_use]
    pub fn of_root(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), time_limit: DISCOVERY_TIME_LIMIT }
    }
}

/// A survey that was taken.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The descriptor, secrets redacted twice (R49).
    pub descriptor: Descriptor,
    /// What the script said on standard error.
    pub messages: String,
}

/// Why there is no survey.
#[derive(Debug, Error)]
pub enum SurveyError {
    /// The root is not a directory.
    #[error("there is no directory {} to survey; name the root directory of a system", root.display())]
    NoRoot {
        /// The root asked for.
        root: PathBuf,
    },
    /// The script could not be written or started.
    #[error("cannot run the survey script with /bin/sh: {step} failed")]
    Run {
        /// What was tried.
        step: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The script failed and said why.
    #[error("the survey script ended with {status}: {messages}")]
    Failed {
        /// Its exit status.
        status: ExitStatus,
        /// What it said on standard error.
        messages: String,
    },
    /// The script took too long.
    #[error("the survey took longer than {} s and was ended; is a disk or a mounted file system hanging?", limit.as_secs())]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// The script wrote something that is not a descriptor.
    #[error("the survey script wrote no valid descriptor; if a signature was added, look there first")]
    Invalid {
        /// What is wrong with it.
        source: DescriptorError,
    },
}

/// Runs the script over a root and reads its descriptor strictly; secrets are redacted once more before anyone sees it (R49).
///
/// Blocks for the seconds that the script takes. The script runs in a process group of its own, which is ended whole when the time is
/// over; it reads from `/dev/null`, so that nothing in it can wait for a person.
///
/// # Errors
/// See [`SurveyError`].
pub fn take(script: &str, request: &SurveyRequest) -> Result<Survey, SurveyError> {
    if !request.root.is_dir() {
        return Err(SurveyError::NoRoot { root: request.root.clone() });
    }
    let run_error = |step| move |source| SurveyError::Run { step, source };
    let mut file = tempfile::Builder::new()
        .prefix("branchline-survey-")
        .suffix(".sh")
        .tempfile()
        .map_err(run_error("making a temporary file for it"))?;
    file.write_all(script.as_bytes())
        .and_then(|()| file.flush())
        .map_err(run_error("writing it to a temporary file"))?;
    let mut child = Command::new("/bin/sh")
        .arg(file.path())
        .arg("--root")
        .arg(&request.root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(run_error("starting the shell"))?;
    let output = collect(child.stdout.take(), limits::DESCRIPTOR_BYTES_MAX as u64 + 1);
    let messages = collect(child.stderr.take(), MAX_MESSAGE_BYTES);
    let status = wait(&mut child, request.time_limit)?;
    let output = join(output).map_err(run_error("reading its output"))?;
    let messages = join(messages).map_err(run_error("reading its messages"))?;
    let messages = String::from_utf8_lossy(&messages).trim_end().to_owned();
    if !status.success() {
        return Err(SurveyError::Failed { status, messages });
    }
    let mut descriptor = Descriptor::parse(&output).map_err(|source| SurveyError::Invalid { source })?;
    redact_descriptor(&mut descriptor);
    Ok(Survey { descriptor, messages })
}

type Collector = thread::JoinHandle<io::Result<Vec<u8>>>;

/// Reads a pipe to its end on a thread of its own, keeping a bounded part; the rest is read and dropped so that the writer goes on.
fn collect(pipe: Option<impl Read + Send + 'static>, limit: u64) -> Option<Collector> {
    let mut pipe = pipe?;
    Some(thread::spawn(move || {
        let mut kept = Vec::new();
        (&mut pipe).take(limit).read_to_end(&mut kept)?;
        io::copy(&mut pipe, &mut io::sink())?;
        Ok(kept)
    }))
}

fn join(collector: Option<Collector>) -> io::Result<Vec<u8>> {
    match collector.map(thread::JoinHandle::join) {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(io::Error::other("the reading thread panicked")),
        None => Ok(Vec::new()),
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus, SurveyError> {
    let wait_error = |source| SurveyError::Run { step: "waiting for it", source };
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(wait_error)? {
            return Ok(status);
        }
        if started.elapsed() >= limit {
            end_process_group(child);
            child.wait().map_err(wait_error)?;
            return Err(SurveyError::TooSlow { limit });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the script and everything that it started; a group that is gone already is no error.
fn end_process_group(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}
