//! The words between the network process and the privileged installer, and their framing on the Unix socket (R87).
//!
//! One connection carries one request: a frame from the client, then frames of [`InstallerEvent`] until the one that
//! says [`InstallerEvent::Ended`]. A frame is a length of four bytes, little-endian, and that many bytes of JSON, at
//! most [`INSTALLER_MESSAGE_BYTES_MAX`]. Work goes on when the client goes away: who asks again for the same plan
//! follows the work that is under way, from the event that it names.
use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use branchline_protocol::{
    catalogue::{Catalogue, SitePolicy},
    charter::{Charter, Revocations, Signed},
    ids::{ImageId, NodeId, PlanHash},
    limits::INSTALLER_MESSAGE_BYTES_MAX,
    refusal::Refusal,
    report::EventBody,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

/// One pack that the network process has gathered and offers as files. The installer opens them itself, follows no
/// symbolic link, and believes nothing in them before it has hashed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedPack {
    /// The image that the pack encodes.
    pub image: ImageId,
    /// The pack's manifest, as it travels (the codec's bytes).
    pub manifest: PathBuf,
    /// The concatenation of the pack's frames.
    pub frames: PathBuf,
}

/// Everything that the installer needs to reach the same plan by itself (R62, R87).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallOrder {
    /// The identity of this host; fixed by the first order that the installer carries out.
    pub node: NodeId,
    /// The owner-signed charter.
    pub charter: Signed<Charter>,
    /// The signed catalogue.
    pub catalogue: Signed<Catalogue>,
    /// The signed site policy.
    pub policy: Signed<SitePolicy>,
    /// The descriptor of this host's newest survey, as XML text, verbatim.
    pub descriptor_xml: String,
    /// The plan that was ordered. The installer refuses it if it computes another.
    pub plan: PlanHash,
    /// The packs of the plan.
    pub packs: Vec<OfferedPack>,
    /// The events of this attempt that the client already has; the ones after it are sent. 0 sends all. Numbers begin
    /// anew with every attempt, that is after every failed outcome and after an uninstallation.
    pub events_seen: u64,
}

/// What the network process may ask for. There is no general command on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallerRequest {
    /// What is installed and what runs.
    Status,
    /// Carry a plan out (R80, R81, R84). An installed plan is answered at once; a running one is followed.
    Install(Box<InstallOrder>),
    /// Check the configuration and the operation of what is installed (R94).
    Verify {
        /// The plan that should be installed.
        plan: PlanHash,
    },
    /// Stop the agents and keep them stopped, also over a restart (R92).
    Stop,
    /// Start the agents again.
    Start,
    /// Stop the agents and put everything back as it was before the first plan (R98).
    Uninstall,
    /// Take this plan back, if it is in force, so that the one before it is (R95, R97).
    Revert {
        /// The plan.
        plan: PlanHash,
    },
    /// Take a newer charter without any installation, so that an older one is refused from now on.
    TakeCharter {
        /// The owner-signed charter.
        charter: Box<Signed<Charter>>,
        /// The newest list of revoked members, where the client has one. The installer only keeps it.
        revocations: Option<Box<Signed<Revocations>>>,
    },
}

/// One agent, as the installer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The service's name in the plan.
    pub name: String,
    /// Whether it should run.
    pub wanted: bool,
    /// Whether it runs.
    pub running: bool,
    /// Its main process, where that is known.
    pub process: Option<u32>,
    /// How often the installer has started it again after it ended by itself.
    pub restarts: u32,
}

/// The plan that is in force on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledPlan {
    /// Its hash.
    pub plan: PlanHash,
    /// The images that it installed.
    pub images: Vec<ImageId>,
}

/// What the installer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallerStatus {
    /// The version of the installer's program.
    pub version: String,
    /// The host's identity, once it is fixed.
    pub node: Option<NodeId>,
    /// The version of the charter in force; 0 before the first.
    pub charter_version: u64,
    /// The plan in force.
    pub installed: Option<InstalledPlan>,
    /// The plan that is being carried out.
    pub running: Option<PlanHash>,
    /// The agents.
    pub services: Vec<ServiceStatus>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallerOutcome {
    /// The answer to [`InstallerRequest::Status`].
    Status(InstallerStatus),
    /// The plan is installed and its agents run (R84).
    Installed(InstalledPlan),
    /// The installation failed (R86).
    Failed {
        /// What failed, and what the system said.
        reason: String,
        /// Everything that was touched is as before.
        rolled_back: bool,
    },
    /// The check is done.
    Checked {
        /// What was looked at, and `None` where all was well, else what was not.
        checks: Vec<(String, Option<String>)>,
    },
    /// The agents are stopped; with their files where `uninstalled` is false.
    Withdrawn {
        /// Whether the files were removed too.
        uninstalled: bool,
    },
    /// The plan is not in force any more.
    Reverted {
        /// The plan in force now.
        installed: Option<InstalledPlan>,
        /// Whether everything is as before the plan.
        rolled_back: bool,
    },
    /// The agents run.
    Started,
    /// The charter is taken; its version is in force.
    CharterTaken {
        /// The version in force.
        version: u64,
    },
    /// Nothing was done, and why.
    Refused(Refusal),
}

/// What the installer sends while it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallerEvent {
    /// Something happened; it belongs into the install report (R85).
    Event {
        /// Its number among the events of this plan on this host, from 1.
        number: u64,
        /// What.
        body: EventBody,
    },
    /// The last word of the connection.
    Ended(InstallerOutcome),
}

/// Why a frame could not be sent or read.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Nothing listens there, or the system refuses.
    #[error(
        "cannot reach the installer at {path}: {source}; is `branchline installer` running, and is this user in its group?"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the other process broke: {0}; ask again, work that is under way goes on")]
    Io(#[from] io::Error),
    /// Longer than its bound.
    #[error("a message of {length} bytes is over the bound of {INSTALLER_MESSAGE_BYTES_MAX}")]
    TooLarge {
        /// Bytes found.
        length: usize,
    },
    /// Not such a message.
    #[error("a message cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The connection ended before the last word.
    #[error("the installer ended before it answered; ask again, it carries on from its journal")]
    Cut,
}

/// The bytes of one frame.
///
/// # Errors
/// Too long.
pub fn encode_frame<T: Serialize>(message: &T) -> Result<Vec<u8>, SocketError> {
    let body = serde_json::to_vec(message)?;
    if body.len() > INSTALLER_MESSAGE_BYTES_MAX {
        return Err(SocketError::TooLarge { length: body.len() });
    }
    let length = u32::try_from(body.len()).map_err(|_| SocketError::TooLarge { length: body.len() })?;
    Ok([length.to_le_bytes().as_slice(), &body].concat())
}

/// The length that a frame's first four bytes state, in bytes.
///
/// # Errors
/// Over the bound; nothing is reserved for it.
pub fn frame_length(header: [u8; 4]) -> Result<usize, SocketError> {
    let length = u32::from_le_bytes(header) as usize;
    if length > INSTALLER_MESSAGE_BYTES_MAX { Err(SocketError::TooLarge { length }) } else { Ok(length) }
}

/// Writes one frame.
///
/// # Errors
/// Too long, or the connection broke.
pub fn write_frame<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), SocketError> {
    stream.write_all(&encode_frame(message)?)?;
    Ok(stream.flush()?)
}

/// Reads one frame. The buffer grows with what arrives, not with what the header promises.
///
/// # Errors
/// Too long, cut, or not such a message.
pub fn read_frame<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, SocketError> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let length = frame_length(header)?;
    let mut body = Vec::new();
    stream.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(SocketError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_survive_the_way() {
        let event =
            InstallerEvent::Event { number: 3, body: EventBody::Output { step: 1, text: "Setting up\n".into() } };
        let mut wire = Vec::new();
        write_frame(&mut wire, &event).unwrap();
        write_frame(&mut wire, &InstallerEvent::Ended(InstallerOutcome::Started)).unwrap();
        let mut reader = wire.as_slice();
        assert_eq!(read_frame::<InstallerEvent>(&mut reader).unwrap(), event);
        assert_eq!(
            read_frame::<InstallerEvent>(&mut reader).unwrap(),
            InstallerEvent::Ended(InstallerOutcome::Started)
        );
        assert!(matches!(read_frame::<InstallerEvent>(&mut reader), Err(SocketError::Io(_))));
    }

    #[test]
    fn a_promise_over_the_bound_is_refused_unread() {
        let wire = [0xff, 0xff, 0xff, 0xff, 1];
        assert!(matches!(read_frame::<InstallerRequest>(&mut wire.as_slice()), Err(SocketError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = read_frame::<InstallerRequest>(&mut bytes.as_slice());
        }
    }
}
