//! The way into the control plane.
use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use branchline_protocol::{
    ids::{NodeId, SiteName},
    limits::{CONTROL_NEIGHBOURS_MAX, MEMBERS_DEFAULT},
    refusal::Refusal,
    wire::control::{ControlAnswer, ControlRequest, PeerRecord},
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    behaviour,
    documents::{Admission, Documents},
    service::Service,
    translate,
};

/// How a node takes part in the control plane.
#[derive(Clone, Copy, Debug)]
pub struct MeshConfig {
    /// Whether nodes are looked for by multicast DNS.
    pub mdns: bool,
}

/// Why a request got no answer.
#[derive(Debug, Error, Clone)]
pub enum MeshError {
    /// The peer answered with a refusal.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The peer cannot be reached, or did not answer in time.
    #[error("{node} does not answer on the control plane: {reason}")]
    Unreachable {
        /// Who.
        node: NodeId,
        /// What the transport says.
        reason: String,
    },
    /// The answer is of another kind than the question asks for.
    #[error("{node} answered something else than was asked")]
    Unexpected {
        /// Who.
        node: NodeId,
    },
    /// This node is ending.
    #[error("this node is shutting down")]
    Ending,
}

/// What the mesh tells the runtime.
#[derive(Debug)]
pub enum MeshEvent {
    /// A peer's hello was accepted, or accepted anew after a change.
    Admitted(Admission),
    /// The last connection to an admitted peer is gone.
    Gone(NodeId),
    /// An admitted peer asks something that the mesh itself does not answer. A dropped sender is answered "busy".
    Request {
        /// Who asks.
        from: Admission,
        /// What.
        request: ControlRequest,
        /// Where the answer goes.
        answer: oneshot::Sender<ControlAnswer>,
    },
    /// A peer does not admit this node.
    RefusedBy {
        /// Who.
        node: NodeId,
        /// Why.
        refusal: Refusal,
    },
    /// A peer showed something that somebody should see: one identity on two machines, an old epoch, a document that
    /// does not hold, a request that is none.
    Suspicious {
        /// Who.
        node: NodeId,
        /// What.
        refusal: Refusal,
    },
}

/// Where the answer to a request goes.
pub(super) type Reply = oneshot::Sender<Result<ControlAnswer, MeshError>>;

/// What the handle asks of the task.
pub(super) enum Command {
    Request { node: NodeId, request: Box<ControlRequest>, reply: Reply },
    Learn { site: SiteName, record: PeerRecord },
    Disconnect(NodeId),
}

/// The way into the control plane; cheap to clone.
#[derive(Clone)]
pub struct Mesh {
    commands: mpsc::Sender<Command>,
    admitted: watch::Receiver<BTreeMap<NodeId, Admission>>,
    records: watch::Receiver<Vec<(SiteName, PeerRecord)>>,
}

impl Mesh {
    /// Starts listening and looking after connections.
    ///
    /// # Errors
    /// The address cannot be listened on, or the transport cannot be set up.
    pub fn start(documents: Documents, config: MeshConfig) -> Result<(Self, mpsc::Receiver<MeshEvent>)> {
        let established_max = CONTROL_NEIGHBOURS_MAX as u32 * 2 + MEMBERS_DEFAULT;
        let mut swarm = behaviour::build(documents.key(), established_max, config.mdns)?;
        let address = documents.addresses().control;
        swarm.listen_on(translate::multiaddr(address)).map_err(|error| {
            // The library's own text is empty; what the system said is behind it.
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            anyhow!(
                "listening at {address} on the control plane: {reason}; is this an address of this machine (`listen` in \
                 node.toml), and does no other `branchline run` use it?"
            )
        })?;
        let (commands, command_receiver) = mpsc::channel(1024);
        let (events, event_receiver) = mpsc::channel(1024);
        let (admitted_sender, admitted) = watch::channel(BTreeMap::new());
        let (records_sender, records) = watch::channel(Vec::new());
        let service = Service::new(documents, swarm, events, admitted_sender, records_sender);
        tokio::spawn(service.run(command_receiver));
        Ok((Self { commands, admitted, records }, event_receiver))
    }

    /// Asks a node; dials it first where it is known and not connected.
    ///
    /// # Errors
    /// See [`MeshError`]; a refusal is an error here.
    pub async fn request(&self, node: NodeId, request: ControlRequest) -> Result<ControlAnswer, MeshError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Request { node, request: Box::new(request), reply };
        self.commands.send(command).await.map_err(|_| MeshError::Ending)?;
        match answer.await.map_err(|_| MeshError::Ending)?? {
            ControlAnswer::Refused(refusal) => Err(refusal.into()),
            answer => Ok(answer),
        }
    }

    /// Tells the mesh where a node listens.
    pub async fn learn(&self, site: SiteName, record: PeerRecord) {
        let _ = self.commands.send(Command::Learn { site, record }).await;
    }

    /// Closes every connection to a node.
    pub async fn disconnect(&self, node: NodeId) {
        let _ = self.commands.send(Command::Disconnect(node)).await;
    }

    /// The peers that are admitted now.
    pub fn admitted(&self) -> watch::Receiver<BTreeMap<NodeId, Admission>> {
        self.admitted.clone()
    }

    /// Nodes that may be dialled, for the bulk plane.
    pub fn records(&self) -> watch::Receiver<Vec<(SiteName, PeerRecord)>> {
        self.records.clone()
    }
}
