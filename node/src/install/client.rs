//! The network process's half of the installer's socket.
use std::{path::PathBuf, time::Duration};

use branchline_protocol::report::EventBody;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use super::socket::{
    InstallerEvent, InstallerOutcome, InstallerRequest, InstallerStatus, SocketError, encode_frame, frame_length,
};

/// How long the installer may take to accept a connection and a request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Talks to `branchline installer`. Cheap to clone; every request is a connection of its own.
#[derive(Clone, Debug)]
pub struct InstallerClient {
    path: PathBuf,
}

/// The answer to one request, as it comes.
#[derive(Debug)]
pub struct InstallerEvents {
    stream: UnixStream,
    ended: bool,
}

impl InstallerClient {
    /// A client of the socket at `path`; nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Sends `request` and gives the stream of what the installer says.
    ///
    /// # Errors
    /// Nothing listens, or the request is too long.
    pub async fn request(&self, request: &InstallerRequest) -> Result<InstallerEvents, SocketError> {
        let frame = encode_frame(request)?;
        let connect = |source| SocketError::Connect { path: self.path.clone(), source };
        let late = |_| connect(std::io::ErrorKind::TimedOut.into());
        let mut stream =
            timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.path)).await.map_err(late)?.map_err(connect)?;
        timeout(CONNECT_TIMEOUT, stream.write_all(&frame)).await.map_err(late)?.map_err(connect)?;
        Ok(InstallerEvents { stream, ended: false })
    }

    /// Sends `request`, drops its events and gives its outcome.
    ///
    /// # Errors
    /// As [`InstallerClient::request`], or the connection breaks before the outcome.
    pub async fn outcome(&self, request: &InstallerRequest) -> Result<InstallerOutcome, SocketError> {
        self.request(request).await?.outcome(|_, _| ()).await
    }

    /// What the installer holds.
    ///
    /// # Errors
    /// As [`InstallerClient::outcome`].
    pub async fn status(&self) -> Result<InstallerStatus, SocketError> {
        match self.outcome(&InstallerRequest::Status).await? {
            InstallerOutcome::Status(status) => Ok(status),
            _ => Err(SocketError::Cut),
        }
    }
}

impl InstallerEvents {
    /// The next event; `None` after [`InstallerEvent::Ended`]. Not cancel-safe: give it a task of its own.
    ///
    /// # Errors
    /// The connection broke, or the other side does not speak this protocol.
    pub async fn next(&mut self) -> Result<Option<InstallerEvent>, SocketError> {
        if self.ended {
            return Ok(None);
        }
        let mut header = [0; 4];
        let cut = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => SocketError::Cut,
            _ => SocketError::Io(error),
        };
        self.stream.read_exact(&mut header).await.map_err(cut)?;
        let mut body = vec![0; frame_length(header)?];
        self.stream.read_exact(&mut body).await.map_err(cut)?;
        let event: InstallerEvent = serde_json::from_slice(&body)?;
        self.ended = matches!(event, InstallerEvent::Ended(_));
        Ok(Some(event))
    }

    /// Reads to the end: each event with its number goes to `take`, the outcome is returned.
    ///
    /// # Errors
    /// As [`InstallerEvents::next`]; [`SocketError::Cut`] where the connection ends before the outcome.
    pub async fn outcome(mut self, mut take: impl FnMut(u64, EventBody)) -> Result<InstallerOutcome, SocketError> {
        while let Some(event) = self.next().await? {
            match event {
                InstallerEvent::Event { number, body } => take(number, body),
                InstallerEvent::Ended(outcome) => return Ok(outcome),
            }
        }
        Err(SocketError::Cut)
    }
}
