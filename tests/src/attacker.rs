//! A program that holds a station's keys and speaks the real control plane, without any of the product's own care: it
//! says what the test wants it to say, also what no honest station says.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use branchline::mesh::{multiaddr, node_id, peer_id};
use branchline_protocol::charter::{NodeAddresses, PublicKey};
use branchline_protocol::ids::{NodeId, SurveyHash};
use branchline_protocol::limits::CONTROL_MESSAGE_BYTES_MAX;
use branchline_protocol::refusal::{Refusal, RefusalKind};
use branchline_protocol::session::{Directive, HostReport};
use branchline_protocol::wire::codec;
use branchline_protocol::wire::control::{ControlAnswer, ControlRequest, DocumentKind, Hello};
use ed25519_dalek::SigningKey;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, Codec, Event, Message, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, identity::Keypair, tcp, tls, yamux};
use tokio::sync::{mpsc, oneshot, watch};

/// How long the attacker waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes behind a length, whatever they are.
#[derive(Clone, Copy, Debug, Default)]
struct RawCodec;

async fn read(io: &mut (impl futures::AsyncRead + Unpin + Send)) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let mut bytes = Vec::new();
    io.take(u64::from(u32::from_le_bytes(length))).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

async fn write(io: &mut (impl futures::AsyncWrite + Unpin + Send), bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    io.write_all(&length.to_le_bytes()).await?;
    io.write_all(bytes).await?;
    io.close().await
}

impl Codec for RawCodec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: futures::AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: futures::AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Vec<u8>) -> io::Result<()>
    where
        T: futures::AsyncWrite + Unpin + Send,
    {
        write(io, &request).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: Vec<u8>) -> io::Result<()>
    where
        T: futures::AsyncWrite + Unpin + Send,
    {
        write(io, &answer).await
    }
}

/// What the attacker says when it is asked.
struct Script {
    hello: Hello,
    documents: BTreeMap<DocumentKind, Vec<u8>>,
    directive: Option<Directive>,
    surveys: BTreeMap<SurveyHash, Vec<u8>>,
}

/// A running attacker.
pub struct Attacker {
    script: Arc<Mutex<Script>>,
    commands: mpsc::Sender<(Vec<u8>, oneshot::Sender<Result<Vec<u8>, String>>)>,
    reports: watch::Receiver<Option<HostReport>>,
    victim: NodeId,
}

impl Attacker {
    /// Listens where the station listened and connects to `victim` at `address` with the station's identity and `hello`.
    ///
    /// # Errors
    /// The address is taken, or the victim does not accept the station's honest hello.
    pub async fn start(key: &SigningKey, hello: Hello, victim: NodeId, address: NodeAddresses) -> Result<Self> {
        let attacker = Self::connect(key, hello, victim, address)?;
        match attacker.say_hello(&attacker.hello()).await? {
            ControlAnswer::Hello(_) => Ok(attacker),
            other => bail!("the station's own hello is not accepted: {other:?}"),
        }
    }

    /// Connects to `victim` at `address` as whoever `key` is, listens at the addresses of `hello`, and says nothing yet.
    ///
    /// # Errors
    /// The address is taken.
    pub fn connect(key: &SigningKey, hello: Hello, victim: NodeId, address: NodeAddresses) -> Result<Self> {
        let own = hello.addresses.control;
        let script = Script { hello, documents: BTreeMap::new(), directive: None, surveys: BTreeMap::new() };
        let script = Arc::new(Mutex::new(script));
        let mut swarm = swarm(key, own)?;
        let victim_peer = peer_id(victim).context("the victim has no identity")?;
        swarm.dial(
            DialOpts::peer_id(victim_peer).addresses(vec![multiaddr(address.control)]).allocate_new_port().build(),
        )?;
        let (commands, receiver) = mpsc::channel(16);
        let (report_sender, reports) = watch::channel(None);
        tokio::spawn(run(swarm, Arc::clone(&script), victim, receiver, report_sender));
        Ok(Self { script, commands, reports, victim })
    }

    fn look<T>(&self, look: impl FnOnce(&mut Script) -> T) -> T {
        look(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The victim.
    #[must_use]
    pub fn victim(&self) -> NodeId {
        self.victim
    }

    /// Sends bytes as a request.
    ///
    /// # Errors
    /// The victim gives no answer: it dropped the stream, or is not there.
    pub async fn send(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let (answer, receiver) = oneshot::channel();
        self.commands.send((bytes, answer)).await.ok().context("the attacker has ended")?;
        let answered = tokio::time::timeout(PATIENCE, receiver).await.context("no answer in time")?;
        answered?.map_err(|reason| anyhow!(reason))
    }

    /// Asks the victim.
    ///
    /// # Errors
    /// It gives no answer, or one that is none.
    pub async fn ask(&self, request: &ControlRequest) -> Result<ControlAnswer> {
        let answer = self.send(codec::encode(request, CONTROL_MESSAGE_BYTES_MAX)?).await?;
        Ok(codec::decode(&answer, CONTROL_MESSAGE_BYTES_MAX)?)
    }

    /// Says hello in words of its own.
    ///
    /// # Errors
    /// As [`Attacker::ask`].
    pub async fn say_hello(&self, hello: &Hello) -> Result<ControlAnswer> {
        self.ask(&ControlRequest::Hello(Box::new(hello.clone()))).await
    }

    /// What the hello of the station's own documents says.
    #[must_use]
    pub fn hello(&self) -> Hello {
        self.look(|script| script.hello.clone())
    }

    /// Offers this text when the victim asks for that document.
    pub fn offer(&self, kind: DocumentKind, json: Vec<u8>) {
        self.look(|script| script.documents.insert(kind, json));
    }

    /// A sealed survey that the victim has handed out.
    #[must_use]
    pub fn survey(&self, hash: SurveyHash) -> Option<Vec<u8>> {
        self.look(|script| script.surveys.get(&hash).cloned())
    }

    /// Gives a directive and waits for a report of the victim that has seen it and that `answers`.
    ///
    /// # Errors
    /// No such report comes; with the last one.
    pub async fn direct(&self, directive: Directive, answers: impl Fn(&HostReport) -> bool) -> Result<HostReport> {
        let revision = directive.revision;
        self.look(|script| script.directive = Some(directive.clone()));
        match self.ask(&ControlRequest::Directive(Box::new(directive))).await? {
            ControlAnswer::Done => {}
            other => bail!("the directive is answered by {other:?}"),
        }
        let mut reports = self.reports.clone();
        let wanted = |report: &Option<HostReport>| {
            report.as_ref().is_some_and(|report| report.directive_seen >= revision && answers(report))
        };
        let found = tokio::time::timeout(PATIENCE, reports.wait_for(wanted)).await;
        match found {
            Ok(Ok(report)) => report.clone().context("no report"),
            _ => bail!("no report answers the directive; the last one: {:#?}", *self.reports.borrow()),
        }
    }

    /// The victim's newest report, once there is one.
    ///
    /// # Errors
    /// None comes.
    pub async fn report(&self) -> Result<HostReport> {
        let mut reports = self.reports.clone();
        let found = tokio::time::timeout(PATIENCE, reports.wait_for(Option::is_some)).await;
        found.context("the victim reports nothing")??.clone().context("no report")
    }
}

fn swarm(key: &SigningKey, listen: SocketAddr) -> Result<Swarm<request_response::Behaviour<RawCodec>>> {
    let keypair = Keypair::ed25519_from_bytes(key.to_bytes())?;
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), tls::Config::new, yamux::Config::default)?
        .with_behaviour(|_| {
            request_response::Behaviour::with_codec(
                RawCodec,
                [(StreamProtocol::new("/branchline/control/1"), ProtocolSupport::Full)],
                request_response::Config::default().with_request_timeout(PATIENCE),
            )
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    swarm.listen_on(multiaddr(listen))?;
    Ok(swarm)
}

async fn run(
    mut swarm: Swarm<request_response::Behaviour<RawCodec>>,
    script: Arc<Mutex<Script>>,
    victim: NodeId,
    mut commands: mpsc::Receiver<(Vec<u8>, oneshot::Sender<Result<Vec<u8>, String>>)>,
    reports: watch::Sender<Option<HostReport>>,
) {
    let Some(peer) = peer_id(victim) else { return };
    let mut asked: BTreeMap<OutboundRequestId, oneshot::Sender<Result<Vec<u8>, String>>> = BTreeMap::new();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some((bytes, answer)) => {
                    asked.insert(swarm.behaviour_mut().send_request(&peer, bytes), answer);
                }
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(Event::Message { peer: from, message: Message::Request { request, channel, .. }, .. })
                    if node_id(&from) == Some(victim) =>
                {
                    let answer = answer(&script, &request, &reports);
                    let bytes = codec::encode(&answer, CONTROL_MESSAGE_BYTES_MAX).unwrap_or_default();
                    let _ = swarm.behaviour_mut().send_response(channel, bytes);
                }
                SwarmEvent::Behaviour(Event::Message { message: Message::Response { request_id, response }, .. }) => {
                    if let Some(answer) = asked.remove(&request_id) {
                        let _ = answer.send(Ok(response));
                    }
                }
                SwarmEvent::Behaviour(Event::OutboundFailure { request_id, error, .. }) => {
                    if let Some(answer) = asked.remove(&request_id) {
                        let _ = answer.send(Err(error.to_string()));
                    }
                }
                _ => {}
            },
        }
    }
}

fn answer(script: &Mutex<Script>, request: &[u8], reports: &watch::Sender<Option<HostReport>>) -> ControlAnswer {
    let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
    let busy = || ControlAnswer::Refused(Refusal::new(RefusalKind::Busy, "later"));
    match codec::decode(request, CONTROL_MESSAGE_BYTES_MAX) {
        Ok(ControlRequest::Hello(_)) => ControlAnswer::Hello(Box::new(script.hello.clone())),
        Ok(ControlRequest::Document(kind)) => match script.documents.get(&kind) {
            Some(json) => ControlAnswer::Document(kind, json.clone()),
            None => busy(),
        },
        Ok(ControlRequest::Report(report)) => {
            reports.send_replace(Some(*report));
            script.directive.clone().map_or_else(busy, |directive| ControlAnswer::Directive(Box::new(directive)))
        }
        Ok(ControlRequest::StoreSurvey { hash, sealed }) => {
            script.surveys.insert(hash, sealed);
            ControlAnswer::Done
        }
        _ => busy(),
    }
}

/// The identity that a key stands for.
#[must_use]
pub fn identity(key: &SigningKey) -> NodeId {
    PublicKey::of(key).0
}
