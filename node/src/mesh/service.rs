//! The task that owns the swarm: connections, admission, anti-entropy of documents, requests and answers.
mod connections;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use branchline_protocol::{
    charter::Role,
    ids::{NodeId, SiteName},
    limits::CONTROL_NEIGHBOURS_MAX,
    refusal::{Refusal, RefusalKind},
    wire::control::{ControlAnswer, ControlRequest, DocumentKind, Hello, PeerRecord},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    PeerId, Swarm, mdns,
    request_response::{self, InboundRequestId, OutboundRequestId, ResponseChannel},
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    ADMISSION_TIMEOUT,
    behaviour::{ControlBehaviour, ControlBehaviourEvent},
    codec::Received,
    documents::{Admission, Documents, as_refusal, newer},
    handle::{Command, MeshError, MeshEvent, Reply},
    neighbours::Neighbours,
    translate,
};
use crate::runtime::wall_time;

/// Requests that may wait for one peer.
const WAITING_MAX: usize = 64;
/// How often connections are looked after.
const TICK: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Peer {
    admission: Option<Admission>,
    cut_at: Option<Instant>,
    waiting: VecDeque<(ControlRequest, Reply)>,
    /// Whether this node dialled it.
    dialled: bool,
    /// When a question over it was last answered, either way.
    used_at: Option<Instant>,
}

enum Asked {
    Hello,
    Document(SiteName, DocumentKind),
    Peers(SiteName),
    Forward(Reply),
}

type PendingAnswer = BoxFuture<'static, (ResponseChannel<ControlAnswer>, ControlAnswer)>;

/// See the module's description.
pub(super) struct Service {
    documents: Documents,
    changes: watch::Receiver<u64>,
    swarm: Swarm<ControlBehaviour>,
    events: mpsc::Sender<MeshEvent>,
    admitted_sender: watch::Sender<BTreeMap<NodeId, Admission>>,
    records_sender: watch::Sender<Vec<(SiteName, PeerRecord)>>,
    neighbours: Neighbours,
    peers: BTreeMap<NodeId, Peer>,
    asked: BTreeMap<OutboundRequestId, (NodeId, Asked)>,
    /// Who asked what this node answers now; hellos are answered at once.
    answering: BTreeMap<InboundRequestId, NodeId>,
    answers: FuturesUnordered<PendingAnswer>,
    redial: BTreeMap<NodeId, (Instant, Duration)>,
    refused: Vec<(ConnectionId, Instant)>,
    /// Whose each connection is, and from where.
    remotes: BTreeMap<ConnectionId, (NodeId, IpAddr)>,
    next_exchange: Instant,
}

impl Service {
    /// The task of a node that listens already.
    pub(super) fn new(
        documents: Documents,
        swarm: Swarm<ControlBehaviour>,
        events: mpsc::Sender<MeshEvent>,
        admitted_sender: watch::Sender<BTreeMap<NodeId, Admission>>,
        records_sender: watch::Sender<Vec<(SiteName, PeerRecord)>>,
    ) -> Self {
        Self {
            changes: documents.changes(),
            documents,
            swarm,
            events,
            admitted_sender,
            records_sender,
            neighbours: Neighbours::default(),
            peers: BTreeMap::new(),
            asked: BTreeMap::new(),
            answering: BTreeMap::new(),
            answers: FuturesUnordered::new(),
            redial: BTreeMap::new(),
            refused: Vec::new(),
            remotes: BTreeMap::new(),
            next_exchange: Instant::now(),
        }
    }

    /// Runs until every handle is gone.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event).await,
                command = commands.recv() => match command {
                    None => return,
                    Some(command) => self.on_command(command),
                },
                Some((channel, answer)) = self.answers.next() => {
                    let _ = self.swarm.behaviour_mut().requests.send_response(channel, answer);
                }
                Ok(()) = self.changes.changed() => self.on_documents_changed(),
                _ = tick.tick() => self.look_after_connections(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Learn { site, record } => self.learn(&site, record),
            Command::Disconnect(node) => self.disconnect(node),
            Command::Request { node, request, reply } => {
                if self.peers.get(&node).is_some_and(|peer| peer.admission.is_some()) {
                    self.ask(node, *request, Asked::Forward(reply));
                } else if self.dial(node) {
                    let waiting = &mut self.peers.entry(node).or_default().waiting;
                    if waiting.len() < WAITING_MAX {
                        waiting.push_back((*request, reply));
                    }
                } else {
                    let reason = "its address is not known here".to_owned();
                    let _ = reply.send(Err(MeshError::Unreachable { node, reason }));
                }
            }
        }
    }

    fn ask(&mut self, node: NodeId, request: ControlRequest, asked: Asked) {
        if let Some(peer) = translate::peer_id(node) {
            let id = self.swarm.behaviour_mut().requests.send_request(&peer, Ok(request));
            self.asked.insert(id, (node, asked));
        }
    }

    fn is_used(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.used_at = Some(Instant::now());
        }
    }

    /// Starts a dial where the node is known and not connected; `false` where nothing is known.
    fn dial(&mut self, node: NodeId) -> bool {
        let Some(peer) = translate::peer_id(node) else { return false };
        if self.swarm.is_connected(&peer) {
            return true;
        }
        let Some(address) = self.address_of(node) else { return false };
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(vec![translate::multiaddr(address)])
            .allocate_new_port()
            .build();
        let _ = self.swarm.dial(options);
        true
    }

    fn address_of(&self, node: NodeId) -> Option<std::net::SocketAddr> {
        let seats = self.documents.sites().into_iter().filter_map(|site| self.documents.authority(&site));
        let mut seats = seats.filter_map(|authority| {
            let charter = authority.charter();
            let station = (charter.station.node == node).then_some(charter.station.addresses);
            station.or((charter.headquarters.node == node).then_some(charter.headquarters.addresses))
        });
        seats.next().or_else(|| self.neighbours.addresses(node)).map(|addresses| addresses.control)
    }

    async fn on_swarm(&mut self, event: SwarmEvent<ControlBehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, connection_id, .. } => {
                let Some(node) = translate::node_id(&peer_id) else {
                    let _ = self.swarm.disconnect_peer_id(peer_id);
                    return;
                };
                if let Some(remote) = translate::socket_address(endpoint.get_remote_address()) {
                    self.remotes.insert(connection_id, (node, remote.ip()));
                }
                let peer = self.peers.entry(node).or_default();
                if peer.admission.is_none() {
                    peer.cut_at = Some(Instant::now() + ADMISSION_TIMEOUT);
                }
                if endpoint.is_dialer() {
                    peer.dialled = true;
                    self.say_hello(node);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.remotes.remove(&connection_id);
                if num_established == 0 {
                    self.gone(&peer_id, "the connection was closed").await;
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer_id), error, .. }
                if !self.swarm.is_connected(&peer_id) =>
            {
                self.gone(&peer_id, &error.to_string()).await;
            }
            SwarmEvent::Behaviour(ControlBehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    self.on_discovered(peer, &address);
                }
            }
            SwarmEvent::Behaviour(ControlBehaviourEvent::Requests(event)) => self.on_requests(event).await,
            _ => {}
        }
    }

    /// A found node is dialled only where its address lies in one of the sites and more neighbours are wanted.
    fn on_discovered(&mut self, peer: PeerId, address: &libp2p::Multiaddr) {
        let Some(socket) = translate::socket_address(address) else { return };
        let inside = |site: &SiteName| {
            self.documents.authority(site).is_some_and(|authority| authority.charter().is_inside(socket.ip()))
        };
        let connected = self.peers.values().filter(|peer| peer.admission.is_some()).count();
        if !self.documents.sites().iter().any(inside) || connected >= CONTROL_NEIGHBOURS_MAX / 2 {
            return;
        }
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(vec![address.clone()])
            .allocate_new_port()
            .build();
        let _ = self.swarm.dial(options);
    }

    async fn on_requests(&mut self, event: request_response::Event<Received, ControlAnswer>) {
        use request_response::{Event, Message};
        match event {
            Event::Message { peer, connection_id, message: Message::Request { request_id, request, channel } } => {
                let Some(node) = translate::node_id(&peer) else { return };
                if !matches!(request, Ok(ControlRequest::Hello(_))) {
                    self.answering.insert(request_id, node);
                }
                self.on_request(node, connection_id, request, channel).await;
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some((node, asked)) = self.asked.remove(&request_id) {
                    self.on_answer(node, asked, response).await;
                }
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                let Some(node) = translate::node_id(&peer) else { return };
                match self.asked.remove(&request_id) {
                    Some((_, Asked::Forward(reply))) => {
                        let _ = reply.send(Err(MeshError::Unreachable { node, reason: error.to_string() }));
                    }
                    Some((_, Asked::Hello)) => self.disconnect(node),
                    _ => {}
                }
                if matches!(error, request_response::OutboundFailure::Timeout) {
                    self.disconnect(node);
                }
            }
            Event::InboundFailure { request_id, .. } | Event::ResponseSent { request_id, .. } => {
                if let Some(node) = self.answering.remove(&request_id) {
                    self.is_used(node);
                }
            }
        }
    }

    async fn on_request(
        &mut self,
        node: NodeId,
        connection: ConnectionId,
        request: Received,
        channel: ResponseChannel<ControlAnswer>,
    ) {
        if let Ok(ControlRequest::Hello(hello)) = request {
            let answer = self.on_hello(node, &hello).await;
            let refused = matches!(answer, ControlAnswer::Refused(_));
            let _ = self.swarm.behaviour_mut().requests.send_response(channel, answer);
            if refused {
                // Only this connection: the identity may have an honest connection besides, and a copy must not cut it.
                self.refused.push((connection, Instant::now() + TICK));
            }
            return;
        }
        let admission = self.peers.get(&node).and_then(|peer| peer.admission.clone());
        let Some(admission) = admission.filter(|from| from.holds_for(request.as_ref().ok(), wall_time())) else {
            let refusal = Refusal::new(RefusalKind::NotAMember, "say hello first: nothing here is for non-members");
            let _ = self.swarm.behaviour_mut().requests.send_response(channel, ControlAnswer::Refused(refusal));
            return;
        };
        let request = match request {
            Ok(request) => request,
            Err(refusal) => {
                let _ = self.events.send(MeshEvent::Suspicious { node, refusal: refusal.clone() }).await;
                let _ = self.swarm.behaviour_mut().requests.send_response(channel, ControlAnswer::Refused(refusal));
                return;
            }
        };
        let answer = match &request {
            ControlRequest::Document(kind) => match self.documents.give(&admission.site, *kind) {
                Some(json) => ControlAnswer::Document(*kind, json),
                None => ControlAnswer::Refused(Refusal::new(RefusalKind::NotFound, "this node does not hold it yet")),
            },
            ControlRequest::Peers => ControlAnswer::Peers(self.neighbours.exchange(&admission.site, node)),
            _ => {
                self.forward(admission, request, channel);
                return;
            }
        };
        let _ = self.swarm.behaviour_mut().requests.send_response(channel, answer);
    }

    fn forward(&mut self, from: Admission, request: ControlRequest, channel: ResponseChannel<ControlAnswer>) {
        let busy = || ControlAnswer::Refused(Refusal::new(RefusalKind::Busy, "this node is busy; ask again shortly"));
        let (answer, receiver) = oneshot::channel();
        let sent = self.events.try_send(MeshEvent::Request { from, request, answer });
        let answered = receiver.map(move |answer| (channel, answer.unwrap_or_else(|_| busy())));
        if let Err(error) = sent {
            tracing::warn!(%error, "a request is refused because this node is behind");
        }
        self.answers.push(answered.boxed());
    }

    async fn on_answer(&mut self, node: NodeId, asked: Asked, answer: ControlAnswer) {
        if !matches!(asked, Asked::Hello) {
            self.is_used(node);
        }
        match (asked, answer) {
            (Asked::Forward(reply), answer) => {
                let _ = reply.send(Ok(answer));
            }
            (Asked::Hello, ControlAnswer::Hello(hello)) => {
                if let ControlAnswer::Refused(refusal) = self.on_hello(node, &hello).await {
                    tracing::warn!(%node, %refusal, "the peer's hello is not accepted");
                    self.disconnect(node);
                }
            }
            (Asked::Hello, ControlAnswer::Refused(refusal)) => {
                let _ = self.events.send(MeshEvent::RefusedBy { node, refusal }).await;
                self.disconnect(node);
            }
            (Asked::Document(site, kind), ControlAnswer::Document(given, json)) if given == kind => {
                if let Err(error) = self.documents.take(&site, kind, &json, wall_time()) {
                    let refusal = as_refusal(&error);
                    let _ = self.events.send(MeshEvent::Suspicious { node, refusal }).await;
                }
            }
            (Asked::Peers(site), ControlAnswer::Peers(records)) => {
                for record in records {
                    self.learn(&site, record);
                }
            }
            _ => {}
        }
    }

    async fn on_hello(&mut self, node: NodeId, hello: &Hello) -> ControlAnswer {
        let admission = match self.documents.admit(node, hello, wall_time()) {
            Ok(admission) => admission,
            Err(refusal) => {
                let event = MeshEvent::Suspicious { node, refusal: refusal.clone() };
                let _ = self.events.send(event).await;
                return ControlAnswer::Refused(refusal);
            }
        };
        if let Some(warrant) = &hello.warrant
            && let Some(authority) = self.documents.authority(&admission.site)
            && let Err(refusal) = authority.check_warrant(warrant)
        {
            // The peer stays a member; it only is not the station. It sees the newer charter in the answer.
            let _ = self.events.send(MeshEvent::Suspicious { node, refusal }).await;
        }
        let site = admission.site.clone();
        self.learn(&site, PeerRecord { node, addresses: admission.addresses });
        self.redial.remove(&node);
        let peer = self.peers.entry(node).or_default();
        peer.cut_at = None;
        let former = peer.admission.replace(admission.clone()).map(|known| known.addresses.control.ip());
        let waiting = std::mem::take(&mut peer.waiting);
        if let Some(former) = former.filter(|former| *former != admission.addresses.control.ip()) {
            self.close_from(node, former);
        }
        for (request, reply) in waiting {
            self.ask(node, request, Asked::Forward(reply));
        }
        self.publish_admitted();
        self.fetch_newer(node, &admission);
        let _ = self.events.send(MeshEvent::Admitted(admission)).await;
        match self.documents.hello(&site) {
            Some(hello) => ControlAnswer::Hello(Box::new(hello)),
            None => ControlAnswer::Refused(Refusal::new(RefusalKind::NotFound, "the site is not known here")),
        }
    }

    /// Asks for every document of which the peer holds a newer version.
    fn fetch_newer(&mut self, node: NodeId, admission: &Admission) {
        let Some(own) = self.documents.site(&admission.site).map(|site| site.versions()) else { return };
        for kind in newer(&own, &admission.documents) {
            self.ask(node, ControlRequest::Document(kind), Asked::Document(admission.site.clone(), kind));
        }
    }

    fn say_hello(&mut self, node: NodeId) {
        let known = self.peers.get(&node).and_then(|peer| peer.admission.as_ref()).map(|known| known.site.clone());
        let site = known.or_else(|| self.documents.sites().into_iter().next());
        if let Some(hello) = site.and_then(|site| self.documents.hello(&site)) {
            self.ask(node, ControlRequest::Hello(Box::new(hello)), Asked::Hello);
        }
    }

    /// Everybody who is connected hears of a change by a new hello; who is a member no longer is cut.
    fn on_documents_changed(&mut self) {
        let admitted: Vec<Admission> = self.peers.values().filter_map(|peer| peer.admission.clone()).collect();
        for admission in admitted {
            let Some(authority) = self.documents.authority(&admission.site) else { continue };
            if authority.is_revoked(admission.node) {
                self.disconnect(admission.node);
                self.neighbours.forget(admission.node);
                continue;
            }
            let roles: Vec<Role> = authority.roles(admission.node);
            if let Some(known) = self.peers.get_mut(&admission.node).and_then(|peer| peer.admission.as_mut()) {
                known.roles = roles;
            }
            self.say_hello(admission.node);
        }
        self.publish_admitted();
    }

    fn learn(&mut self, site: &SiteName, record: PeerRecord) {
        let Some(authority) = self.documents.authority(site) else { return };
        let inside = authority.charter().is_inside(record.addresses.control.ip())
            && authority.charter().is_inside(record.addresses.bulk.ip());
        let known = self.neighbours.addresses(record.node) == Some(record.addresses);
        if inside && !known && record.node != self.documents.node() && !authority.is_revoked(record.node) {
            self.neighbours.learn(site, record);
            self.publish_records();
        }
    }

    fn publish_records(&self) {
        let mut records = Vec::new();
        for site in self.documents.sites() {
            let found = self.neighbours.all(&site, self.documents.node());
            records.extend(found.into_iter().map(|record| (site.clone(), record)));
        }
        self.records_sender.send_replace(records);
    }

    fn publish_admitted(&self) {
        let admitted = self.peers.iter().filter_map(|(node, peer)| Some((*node, peer.admission.clone()?))).collect();
        self.admitted_sender.send_replace(admitted);
    }

    fn disconnect(&mut self, node: NodeId) {
        if let Some(peer) = translate::peer_id(node) {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    async fn gone(&mut self, peer_id: &PeerId, reason: &str) {
        let Some(node) = translate::node_id(peer_id) else { return };
        let Some(peer) = self.peers.remove(&node) else { return };
        for (_, reply) in peer.waiting {
            let _ = reply.send(Err(MeshError::Unreachable { node, reason: reason.to_owned() }));
        }
        if peer.admission.is_some() {
            self.publish_admitted();
            let _ = self.events.send(MeshEvent::Gone(node)).await;
        }
    }
}
