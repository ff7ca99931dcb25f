//! A node: the parts that every node has, and the roles that the charters give it.
use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use branchline_protocol::{
    charter::Role,
    ids::SiteName,
    limits::LINE_RATE_BITS_PER_SECOND_MIN,
    rates::Rate,
    refusal::{Refusal, RefusalKind},
    session::{Directive, HostInput, HostMachine, HostSetup},
    wire::control::{ControlAnswer, ControlRequest},
};
use branchline_resident::ProgramPages;
use branchline_station_role::headquarters::{HeadquartersMachine, HeadquartersSetup};
use tokio::sync::{mpsc, oneshot};

use super::{
    accounting,
    bandwidth::Bandwidth,
    clock::Clock,
    commands, control,
    handover::{self, CROSSINGS_JOURNAL, SITE_JOURNAL},
    headquarters::HeadquartersDesk,
    host::HostEffects,
    line::Line,
    machine::{machine_identifier, machine_name},
    moving::{self, Ended},
    notices::{Cause, Notices},
    packs::{PackEvent, Packs},
    pump::{self, Pump, PumpHandle},
    renewals, resident, shutdown, staging,
    station::StationContext,
    stationing,
    surveys::Surveys,
};
use crate::{
    bulk::Bucket,
    config::{Home, NodeConfig, Seat, read_key},
    install::InstallerClient,
    mesh::{Admission, Documents, Mesh, MeshConfig, MeshEvent},
    store::journal::JournalStore,
    web::{self, HttpToken},
};

/// The parts of one node; every task holds it.
pub struct Node {
    /// Its home directory.
    pub home: Home,
    /// Its configuration.
    pub config: NodeConfig,
    /// The only clock.
    pub clock: Clock,
    /// Signed documents.
    pub documents: Documents,
    /// The control plane.
    pub mesh: Mesh,
    /// Surveys.
    pub surveys: Surveys,
    /// Packs and the bulk plane.
    pub packs: Packs,
    /// The rates in force.
    pub bandwidth: Bandwidth,
    /// Journals.
    pub journals: JournalStore,
    /// The machine it runs on.
    pub machine_identifier: String,
    /// What people should see.
    pub notices: Notices,
    /// Where this node is headquarters.
    pub desk: Option<HeadquartersDesk>,
    /// Where this node is a host.
    pub host: Mutex<Option<PumpHandle<HostMachine>>>,
    /// Where this node is station.
    pub station: Mutex<Option<Arc<StationContext>>>,
}

impl Node {
    /// The station's context, where this node is station now.
    pub fn station(&self) -> Option<Arc<StationContext>> {
        self.station.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The host's machine, where this node is a host.
    pub fn host(&self) -> Option<PumpHandle<HostMachine>> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs the node that lives in `home` until the process is told to end, or to start anew at another address. It gives back
/// `pages` of the program that only its start needed.
///
/// # Errors
/// A part cannot be started: the message says which, and what to do.
pub async fn run_node(home: Home, pages: std::io::Result<ProgramPages>) -> Result<Ended> {
    let config = home.config_or_default()?;
    let seat = Seat::of(&home, &config)?;
    let identifier = machine_identifier(&config.root, &home)?;
    let documents = Documents::load(home.clone(), home.identity()?, seat.addresses, &identifier)?;
    if documents.sites().is_empty() {
        bail!(
            "this node belongs to no site yet: join one with a token (`branchline join`), or adopt a charter \
             (`branchline charter adopt`) where it is station or headquarters"
        );
    }
    let documents = at_present_address(documents);
    let journals = JournalStore::open(&home.path("journal.redb"))?;
    let (mesh, mesh_events) = Mesh::start(documents.clone(), MeshConfig { mdns: config.mdns })?;
    let surveys = Surveys::new(&home, config.root.clone(), documents.clone(), mesh.clone())?;
    let clock = Clock::start();
    let notices = Notices::new(clock);
    let (packs, pack_events) = Packs::start(&home, &documents, &mesh, &notices, clock).await?;
    let bandwidth = Bandwidth::start(&documents, &config.bandwidth, &packs)?;
    // A directory that holds no signatures is said now, and not when this node becomes station.
    stationing::public_script(&home, &config.station)?;
    let desk = start_headquarters(&home, &config, &documents, &journals, clock, &notices).await?;
    let node = Arc::new(Node {
        home,
        config,
        clock,
        documents,
        mesh,
        surveys,
        packs,
        bandwidth,
        journals,
        machine_identifier: identifier,
        notices,
        desk,
        host: Mutex::new(None),
        station: Mutex::new(None),
    });
    start_host(&node)?;
    start_line(&node);
    tokio::spawn(stationing::keep(Arc::clone(&node)));
    tokio::spawn(take_mesh_events(Arc::clone(&node), mesh_events));
    tokio::spawn(take_pack_events(Arc::clone(&node), pack_events));
    tokio::spawn(renewals::renew_memberships(Arc::clone(&node)));
    tokio::spawn(resident::keep_small(pages));
    let calls = control::listen(&node.home.path("control.sock"))?;
    tokio::spawn(commands::serve(Arc::clone(&node), calls));
    let addresses = node.documents.addresses();
    tracing::info!(node = %node.documents.node(), control = %addresses.control, bulk = %addresses.bulk, "running");
    tokio::select! {
        () = shutdown::requested() => {
            tracing::info!("told to end");
            Ok(Ended::Told)
        }
        address = moving::moved(&node) => {
            tracing::warn!(former = %addresses.control.ip(), now = %address, "this machine has another address; starting anew");
            Ok(Ended::Moved(address))
        }
    }
}

/// A host need not be where `listen` says: DHCP may have given it another address since (R116).
fn at_present_address(documents: Documents) -> Documents {
    match moving::elsewhere(&documents) {
        Some(address) => {
            tracing::warn!(listen = %documents.addresses().control.ip(), now = %address, "not at the configured address");
            documents.listening_at(address)
        }
        None => documents,
    }
}

fn is_role(documents: &Documents, role: Role) -> bool {
    let node = documents.node();
    let has =
        |site: &SiteName| documents.authority(site).is_some_and(|authority| authority.roles(node).contains(&role));
    documents.sites().iter().any(has)
}

/// A pump whose machine cannot go on ends the process: what it would acknowledge could be lost.
fn run_pump<M, E>(pump: Pump<M, E>, name: &'static str)
where
    M: branchline_protocol::machine::Journaled + Send + 'static,
    M::Input: Send,
    M::Output: Send,
    M::Event: Send + Sync,
    E: pump::Effects<M>,
{
    tokio::spawn(async move {
        if let Err(error) = pump.run().await {
            tracing::error!(machine = name, "{error:#}");
            std::process::exit(70);
        }
    });
}

async fn start_headquarters(
    home: &Home,
    config: &NodeConfig,
    documents: &Documents,
    journals: &JournalStore,
    clock: Clock,
    notices: &Notices,
) -> Result<Option<HeadquartersDesk>> {
    if !is_role(documents, Role::Headquarters) {
        return Ok(None);
    }
    let configuration = config.headquarters.desk.clone();
    configuration.check().context("reading [headquarters.desk] of node.toml")?;
    let key = config.headquarters.approval_key.as_ref().map(|path| read_key(&home.path(path))).transpose()?;
    let (handle, inputs) = pump::channel::<HeadquartersMachine>();
    let (desk, effects) = HeadquartersDesk::new(handle, documents.clone(), key, notices.clone());
    let setup = HeadquartersSetup { configuration };
    run_pump(Pump::recover(journals, "headquarters", setup, clock, inputs, effects)?, "headquarters");
    if let Some(listen) = config.headquarters.http {
        let token = HttpToken::read_or_make(&home.path(&config.headquarters.http_token_file))?;
        web::serve_headquarters(listen, token, desk.clone()).await?;
    }
    Ok(Some(desk))
}

/// In a site, this node looks after the line while it is the inlet.
fn start_line(node: &Node) {
    let own = node.documents.node();
    let charters = node.documents.sites().into_iter().filter_map(|site| node.documents.authority(&site));
    let outside = charters.map(|authority| authority.charter().headquarters.node).find(|node| *node != own);
    if let Some(headquarters) = outside {
        let (mesh, bulk) = (node.mesh.clone(), node.packs.bulk().clone());
        let line = Line { mesh, bulk, bandwidth: node.bandwidth.clone(), clock: node.clock, headquarters };
        tokio::spawn(line.run());
    }
}

/// A member of one site is a host there; the node that a charter names as station or headquarters installs nothing on
/// itself unless it has joined as a host too.
fn start_host(node: &Arc<Node>) -> Result<()> {
    let sites = node.documents.sites();
    let joined = |site: &&SiteName| node.documents.site(site).is_some_and(|state| state.membership.is_some());
    let Some(site) = sites.iter().find(joined) else { return Ok(()) };
    let std::net::IpAddr::V4(inside) = node.documents.addresses().control.ip() else {
        bail!("a host's address inside the site must be IPv4: mapped addresses are (RFC 4008)");
    };
    let (handle, inputs) = pump::channel::<HostMachine>();
    let installer = InstallerClient::new(node.home.path(&node.config.installer.socket));
    let effects = HostEffects::new(handle.clone(), Arc::clone(node), site.clone(), installer);
    let setup = host_setup(node, inside);
    run_pump(Pump::recover(&node.journals, "host", setup, node.clock, inputs, effects)?, "host");
    *node.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
    tokio::spawn(node.surveys.clone().keep_spread(site.clone()));
    Ok(())
}

fn host_setup(node: &Node, inside: Ipv4Addr) -> HostSetup {
    HostSetup {
        node: node.documents.node(),
        machine_identifier: node.machine_identifier.clone(),
        host_name: machine_name(&node.config.root),
        inside,
    }
}

async fn take_mesh_events(node: Arc<Node>, mut events: mpsc::Receiver<MeshEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            MeshEvent::Admitted(admission) => {
                node.notices.over(Cause::RefusedBy(admission.node));
                let is_station = admission.roles.contains(&Role::Station);
                if let (true, Some(host)) = (is_station, node.host()) {
                    host.input(HostInput::Start).await;
                }
                tokio::spawn(staging::tell_newcomer(Arc::clone(&node), admission));
            }
            MeshEvent::Gone(peer) => tracing::debug!(%peer, "a peer is gone"),
            MeshEvent::Suspicious { node: peer, refusal } => {
                node.notices.add(format!("{peer}: {refusal}"));
                if let (RefusalKind::DuplicateIdentity, Some(station)) = (refusal.kind, node.station()) {
                    station.copy_seen(peer, refusal.reason).await;
                }
            }
            MeshEvent::RefusedBy { node: peer, refusal } => {
                node.notices.add_of(Cause::RefusedBy(peer), format!("{peer} refuses this node: {refusal}"));
            }
            MeshEvent::Request { from, request, answer } => {
                tokio::spawn(answer_request(Arc::clone(&node), from, request, answer));
            }
        }
    }
}

/// An answer that refuses, with its reason.
pub(super) fn refused(kind: RefusalKind, reason: impl Into<String>) -> ControlAnswer {
    ControlAnswer::Refused(Refusal::new(kind, reason))
}

async fn answer_request(
    node: Arc<Node>,
    from: Admission,
    request: ControlRequest,
    answer: oneshot::Sender<ControlAnswer>,
) {
    let not_station = || refused(RefusalKind::WrongState, "this node is not the station of the site");
    let made = match request {
        ControlRequest::Report(report) => match node.station() {
            Some(station) => return station.take_report(from.node, report, answer).await,
            None => not_station(),
        },
        ControlRequest::RenewMembership => match node.station() {
            Some(station) => return station.renew(from.node, answer).await,
            None => not_station(),
        },
        ControlRequest::Site(report) => match &node.desk {
            Some(desk) => return desk.site_report(&node.documents, &from, report, answer).await,
            None => refused(RefusalKind::WrongState, "this node is not headquarters"),
        },
        ControlRequest::Directive(directive) => take_directive(&node, &from, directive).await,
        ControlRequest::StoreSurvey { hash, sealed } => match node.surveys.store(hash, &sealed) {
            Ok(()) => ControlAnswer::Done,
            Err(error) => ControlAnswer::Refused(crate::mesh::as_refusal(&error)),
        },
        ControlRequest::Survey(hash) => match node.surveys.sealed(hash) {
            Some(sealed) => ControlAnswer::Survey(sealed),
            None => refused(RefusalKind::NotFound, "this node does not hold that survey"),
        },
        ControlRequest::Manifest(pack) => match node.packs.manifest(pack).await {
            Some(manifest) => ControlAnswer::Manifest(manifest),
            None => refused(RefusalKind::NotFound, "this node does not hold that manifest"),
        },
        ControlRequest::Holdings(pack) => ControlAnswer::Holdings(node.packs.holdings(pack)),
        ControlRequest::AskLease { pack, held } => match node.station() {
            Some(_) => node.packs.ask_lease(from.node, pack, held).await,
            None => not_station(),
        },
        ControlRequest::Handover { from: first } => handover::give(&node, &from, SITE_JOURNAL, first),
        ControlRequest::HandoverCrossings { from: first } => handover::give(&node, &from, CROSSINGS_JOURNAL, first),
        ControlRequest::Stage { pack, staging } => staging::take(&node, &from, pack, staging).await,
        ControlRequest::LineRate(rate) => set_line_rate(&node, &from, rate),
        ControlRequest::Account(pack) if from.roles.contains(&Role::Station) => {
            ControlAnswer::Account(accounting::own_lines(&node.packs.bulk().accounts(), pack))
        }
        ControlRequest::Account(_) => refused(RefusalKind::NotAuthorised, "only the station gathers accounts"),
        ControlRequest::Hello(_) | ControlRequest::Document(_) | ControlRequest::Peers => {
            refused(RefusalKind::WrongState, "the mesh answers this itself")
        }
    };
    let _ = answer.send(made);
}

/// Directives come from the station in force, under its epoch; a former station is told what has changed since.
async fn take_directive(node: &Node, from: &Admission, directive: Box<Directive>) -> ControlAnswer {
    let Some(authority) = node.documents.authority(&from.site) else {
        return refused(RefusalKind::NotFound, "the site is not known here");
    };
    let (charter, epoch) = (authority.charter(), authority.charter().epoch());
    if directive.epoch < epoch || !from.roles.contains(&Role::Station) {
        let kind = if directive.epoch < epoch { RefusalKind::Stale } else { RefusalKind::NotAuthorised };
        let reason = format!(
            "the directive of {} is of epoch {}, but epoch {epoch} is the newest here, in which {} is station of site {}",
            from.node, directive.epoch, charter.station.node, charter.site
        );
        node.notices.add_of(Cause::Refused(from.node), reason.clone());
        return refused(kind, reason);
    }
    match node.host() {
        Some(host) => {
            host.input(HostInput::Directive(directive)).await;
            ControlAnswer::Done
        }
        None => refused(RefusalKind::WrongState, "this node is no host"),
    }
}

/// An inlet may ask to be sent less than its line would carry; never for more (R71).
fn set_line_rate(node: &Node, from: &Admission, bytes_per_second: Option<u64>) -> ControlAnswer {
    let is_own = |site: &SiteName| {
        node.documents.authority(site).is_some_and(|a| a.charter().headquarters.node == node.documents.node())
    };
    if !is_own(&from.site) {
        return refused(RefusalKind::WrongState, "this node is not headquarters");
    }
    let rate = bytes_per_second.map_or(Rate::Unlimited, |bytes| {
        Rate::from_bytes_per_second(bytes).max(Rate::Bits(LINE_RATE_BITS_PER_SECOND_MIN))
    });
    node.packs.bulk().shaper().set_rate(&Bucket::Paced(from.node), rate);
    ControlAnswer::Done
}

async fn take_pack_events(node: Arc<Node>, mut events: mpsc::Receiver<PackEvent>) {
    while let Some(event) = events.recv().await {
        let Some(host) = node.host() else { continue };
        match event {
            PackEvent::Complete { pack, wan_bytes, lan_bytes } => {
                host.input(HostInput::PackComplete { pack, wan_bytes, lan_bytes }).await;
            }
            PackEvent::Corrupt { peer, pack } => host.input(HostInput::CorruptFrame { peer, pack }).await,
        }
    }
}
