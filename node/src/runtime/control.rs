//! The control socket: how commands reach the running node. One line of JSON asks, one line answers.
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream as BlockingUnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use branchline_protocol::{charter::Decision, ids::NodeId, wire::control::DocumentKind};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use super::{planning::PlanFilter, staging::PacksCommand};

/// Longest line in bytes; a catalogue is the longest.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Which host a command means: its name, its node identity, or the end of that.
pub type HostSelector = String;

/// What a command asks of the running node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NodeCommand {
    /// Who and where the node is, and how it is.
    Status,
    /// Make a join token (station).
    Token {
        /// How many machines may use it.
        uses: u32,
        /// How long, in seconds.
        life_seconds: u64,
    },
    /// The sessions of the site (station), of all sites (headquarters), or this host's own.
    Sessions,
    /// One session with its events (station, or a host its own).
    Session(HostSelector),
    /// The hosts that these selectors mean, or all that are not withdrawn (station).
    PlanHosts {
        /// Which; empty for all.
        hosts: Vec<HostSelector>,
    },
    /// What a host would get by its newest stored survey; changes nothing (station).
    Plan {
        /// The host.
        node: NodeId,
        /// What must hold of it.
        filter: PlanFilter,
    },
    /// Approval requests (headquarters).
    Approvals,
    /// Decide (headquarters).
    Decide {
        /// Which host; `all` for every open request.
        host: HostSelector,
        /// In which site, where the name is not enough.
        site: Option<String>,
        /// What.
        decision: Decision,
        /// Who.
        by: String,
    },
    /// Mappings and the router's table (station), or grants (headquarters).
    Nat,
    /// A host's HTML report.
    Report(HostSelector),
    /// Take a host out (station or headquarters).
    Withdraw {
        /// Which.
        host: HostSelector,
        /// Who.
        by: String,
    },
    /// End a session (station).
    Cancel {
        /// Which.
        host: HostSelector,
        /// Who.
        by: String,
    },
    /// Put a host before others in the queue (station).
    Prioritise {
        /// Which.
        host: HostSelector,
        /// Higher goes first; 0 is what every host has at first.
        priority: u32,
    },
    /// Go on after a person has dealt with it (station).
    Retry {
        /// Which.
        host: HostSelector,
        /// Who.
        by: String,
    },
    /// Update or reinstall a host (station).
    Update {
        /// Which.
        host: HostSelector,
        /// Who.
        by: String,
    },
    /// Take a newer signed document; it spreads from here.
    Document {
        /// Which kind.
        kind: DocumentKindName,
        /// Its signed form as JSON.
        json: String,
    },
    /// Serve the packs of a catalogue directory and spread its catalogue (headquarters).
    Publish {
        /// The directory.
        directory: PathBuf,
    },
    /// Who sent which bytes to whom, as this node counted.
    Transfers,
    /// About the packs of the node, or of the site where the node is station.
    Packs(PacksCommand),
    /// The account of each pack: why its bytes crossed the line, and who served whom.
    Account,
}

/// [`DocumentKind`] as commands name it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKindName {
    /// A charter.
    Charter,
    /// A catalogue.
    Catalogue,
    /// A site policy.
    Policy,
    /// Bandwidth rules.
    Bandwidth,
    /// A release of what the public door gives away.
    Release,
}

impl From<DocumentKindName> for DocumentKind {
    fn from(name: DocumentKindName) -> Self {
        match name {
            DocumentKindName::Charter => Self::Charter,
            DocumentKindName::Catalogue => Self::Catalogue,
            DocumentKindName::Policy => Self::Policy,
            DocumentKindName::Bandwidth => Self::Bandwidth,
            DocumentKindName::Release => Self::Release,
        }
    }
}

/// What the node answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NodeAnswer {
    Done(Value),
    Failed(String),
}

/// A command, and where its answer goes.
pub struct ControlCall {
    /// The command.
    pub command: NodeCommand,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Value>>,
}

/// Listens for commands.
///
/// # Errors
/// The socket cannot be made.
pub fn listen(path: &Path) -> Result<mpsc::Receiver<ControlCall>> {
    if path.exists() {
        std::fs::remove_file(path).with_context(|| format!("removing the old control socket {}", path.display()))?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o660);
    std::fs::set_permissions(path, mode).with_context(|| format!("setting the mode of {}", path.display()))?;
    let (calls, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, calls.clone()));
        }
    });
    Ok(receiver)
}

async fn serve(stream: UnixStream, calls: mpsc::Sender<ControlCall>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = tokio::io::BufReader::new(read.take(LINE_BYTES_MAX));
    if read.read_line(&mut line).await.is_err() {
        return;
    }
    let answer = match serde_json::from_str(&line) {
        Err(error) => NodeAnswer::Failed(format!("the node does not understand this command: {error}")),
        Ok(command) => {
            let (answer, receiver) = oneshot::channel();
            let _ = calls.send(ControlCall { command, answer }).await;
            match receiver.await {
                Ok(Ok(value)) => NodeAnswer::Done(value),
                Ok(Err(error)) => NodeAnswer::Failed(format!("{error:#}")),
                Err(_) => NodeAnswer::Failed("the node is shutting down".to_owned()),
            }
        }
    };
    if let Ok(mut text) = serde_json::to_vec(&answer) {
        text.push(b'\n');
        let _ = write.write_all(&text).await;
    }
}

/// Sends one command to the node that lives in a home directory, and waits for its answer.
///
/// # Errors
/// No node runs there, or it says that the command failed.
pub fn call<T: DeserializeOwned>(home: &Path, command: &NodeCommand) -> Result<T> {
    call_within(home, command, Some(Duration::from_secs(120)))
}

/// As [`call`], for commands that are answered when something has come to pass, however long that takes.
///
/// # Errors
/// As [`call`].
pub fn call_patiently<T: DeserializeOwned>(home: &Path, command: &NodeCommand) -> Result<T> {
    call_within(home, command, None)
}

fn call_within<T: DeserializeOwned>(home: &Path, command: &NodeCommand, patience: Option<Duration>) -> Result<T> {
    let path = home.join("control.sock");
    let mut stream = BlockingUnixStream::connect(&path).map_err(|error| {
        let (path, home) = (path.display(), home.display());
        let text = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!("this user may not talk to the node at {path}; give the command as root or as the node's user")
            }
            _ => format!("no node answers at {path}; start it with `branchline run --home {home}`"),
        };
        anyhow!(error).context(text)
    })?;
    stream.set_read_timeout(patience)?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("waiting for the node's answer")?;
    if answer.is_empty() {
        bail!("the node ended before it answered; see its log");
    }
    match serde_json::from_str(&answer).context("reading the node's answer")? {
        NodeAnswer::Done(value) => Ok(serde_json::from_value(value)?),
        NodeAnswer::Failed(reason) => Err(anyhow!(reason)),
    }
}
