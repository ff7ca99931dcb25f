//! What commands may ask of the running node, and the answers.
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use branchline_protocol::{
    catalogue::Catalogue,
    charter::{JoinToken, Role, Signed},
    ids::{NodeId, PackId, SessionId, SiteName},
    wire::control::DocumentKind,
};
use branchline_station_role::{
    headquarters::{HeadquartersInput, Selector},
    station::{SiteInput, SiteMachine, StationInput, Steering},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    accounting,
    clock::wall_time,
    control::{ControlCall, NodeCommand},
    headquarters::HeadquartersDesk,
    machine::machine_name,
    node::Node,
    own_session, planning, staging,
    station::StationContext,
};
use crate::config::random_bytes;

/// Answers commands until the node ends.
pub async fn serve(node: Arc<Node>, mut calls: mpsc::Receiver<ControlCall>) {
    while let Some(call) = calls.recv().await {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let answer = answer(&node, call.command).await;
            let _ = call.answer.send(answer);
        });
    }
}

async fn answer(node: &Arc<Node>, command: NodeCommand) -> Result<Value> {
    match command {
        NodeCommand::Status => status(node).await,
        NodeCommand::Token { uses, life_seconds } => token(node, uses, life_seconds).await,
        NodeCommand::Sessions => sessions(node).await,
        NodeCommand::Session(host) => session(node, &host).await,
        NodeCommand::PlanHosts { hosts } => Ok(serde_json::to_value(planning::hosts(&*station(node)?, hosts).await?)?),
        NodeCommand::Plan { node: host, filter } => {
            Ok(serde_json::to_value(planning::plan(node, &*station(node)?, host, filter).await?)?)
        }
        NodeCommand::Approvals => {
            let views = desk(node)?.handle.query(|machine| machine.approvals()).await?;
            Ok(serde_json::to_value(views)?)
        }
        NodeCommand::Decide { host, site, decision, by } => {
            let desk = desk(node)?;
            let selector = selector(desk, &host, site).await?;
            let input = move |command| HeadquartersInput::Decide { command, selector, decision, by };
            changed(&desk.command(input).await?)
        }
        NodeCommand::Nat => nat(node).await,
        NodeCommand::Report(host) => report(node, &host).await,
        NodeCommand::Withdraw { host, by } => withdraw(node, &host, by).await,
        NodeCommand::Cancel { host, by } => {
            steer(node, &host, Steering::Cancel, |session| StationInput::Cancel { session, by }).await
        }
        NodeCommand::Retry { host, by } => {
            steer(node, &host, Steering::Retry, |session| StationInput::Retry { session, by }).await
        }
        NodeCommand::Prioritise { host, priority } => {
            steer(node, &host, Steering::Prioritise, |session| StationInput::Prioritise { session, priority }).await
        }
        NodeCommand::Update { host, by } => {
            let input = |session: SessionId| StationInput::NewGeneration { node: session.node, by };
            steer(node, &host, Steering::Update, input).await
        }
        NodeCommand::Document { kind, json } => take_document(node, kind.into(), &json),
        NodeCommand::Publish { directory } => {
            desk(node)?;
            let catalogue = std::fs::read_to_string(directory.join("catalogue.json"))
                .with_context(|| format!("reading {}", directory.join("catalogue.json").display()))?;
            // Nothing is stored for a catalogue that no site would take.
            check_document(node, DocumentKind::Catalogue, &catalogue)
                .with_context(|| format!("publishing {}", directory.join("catalogue.json").display()))?;
            has_all_packs(node, &directory, &catalogue)?;
            let packs = node.packs.publish(&directory).await?;
            let taken = take_document(node, DocumentKind::Catalogue, &catalogue)?;
            Ok(json!({ "packs": packs, "catalogue_is_new": taken }))
        }
        NodeCommand::Transfers => node.packs.transfers(),
        NodeCommand::Packs(command) => staging::answer(node, command).await,
        NodeCommand::Account => accounting::site_account(node).await,
    }
}

fn desk(node: &Node) -> Result<&HeadquartersDesk> {
    node.desk.as_ref().context("this node is not headquarters; give this command there")
}

fn station(node: &Node) -> Result<Arc<StationContext>> {
    node.station().context("this node is not station; give this command there")
}

fn changed(sessions: &[(SiteName, SessionId)]) -> Result<Value> {
    let list: Vec<Value> =
        sessions.iter().map(|(site, session)| json!({ "site": site, "session": session.to_string() })).collect();
    Ok(Value::Array(list))
}

/// A name, an identity, or the end of one, of at least four characters.
pub(super) fn is_meant(selector: &str, host_name: &str, node: NodeId) -> bool {
    let identity = node.to_string();
    selector == host_name || selector == identity || (selector.len() >= 4 && identity.ends_with(selector))
}

fn single(selector: &str, mut found: Vec<SessionId>) -> Result<SessionId> {
    found.sort_by_key(|session| session.generation);
    let nodes: std::collections::BTreeSet<NodeId> = found.iter().map(|session| session.node).collect();
    match (nodes.len(), found.pop()) {
        (1, Some(session)) => Ok(session),
        (0, _) => bail!("no host is called {selector:?}; `branchline sessions list` shows all"),
        _ => bail!("{selector:?} means several hosts; say the node identity"),
    }
}

async fn find_session(station: &StationContext, host: &str) -> Result<SessionId> {
    let selector = host.to_owned();
    let found = station
        .handle
        .query(move |machine| {
            let views = machine.station().sessions();
            let meant = views.filter(|view| is_meant(&selector, &view.host_name, view.session.node));
            meant.map(|view| view.session).collect::<Vec<_>>()
        })
        .await?;
    single(host, found)
}

async fn selector(desk: &HeadquartersDesk, host: &str, site: Option<String>) -> Result<Selector> {
    let site: Option<SiteName> = site.map(|site| site.parse()).transpose()?;
    match (host, site) {
        ("all", None) => Ok(Selector::All),
        ("all", Some(site)) => Ok(Selector::Site(site)),
        (name, site) => {
            let (text, of) = (name.to_owned(), site.clone());
            let identities = desk
                .handle
                .query(move |machine| {
                    let views = machine.approvals().into_iter();
                    let in_site = views.filter(|view| of.as_ref().is_none_or(|site| *site == view.site));
                    let meant = in_site
                        .filter(|view| view.host_name != text && is_meant(&text, &view.host_name, view.session.node));
                    meant.map(|view| view.session).collect::<Vec<_>>()
                })
                .await?;
            if identities.is_empty() {
                return Ok(Selector::Host { site, name: name.to_owned() });
            }
            single(name, identities).map(Selector::Session)
        }
    }
}

async fn status(node: &Node) -> Result<Value> {
    let own = node.documents.node();
    let sites: Vec<Value> = node
        .documents
        .sites()
        .iter()
        .filter_map(|name| {
            let site = node.documents.site(name)?;
            let charter = site.authority.charter();
            let roles: Vec<Role> = site.authority.roles(own);
            Some(json!({
                "site": name,
                "roles": roles,
                "member": site.membership.is_some(),
                "charter_version": charter.version,
                "station": charter.station.node,
                "headquarters": charter.headquarters.node,
                "catalogue_version": site.memory.catalogue().map(|(version, _)| version),
                "policy_version": site.memory.policy().map(|(version, _)| version),
                "release_version": site.memory.release().map(|(version, _)| version),
            }))
        })
        .collect();
    let neighbours: Vec<String> = node.mesh.admitted().borrow().keys().map(NodeId::to_string).collect();
    let (stages, findings) = match node.station() {
        None => (Value::Null, Vec::new()),
        Some(station) => station.handle.query(|machine| (json!(machine.stages()), findings(machine))).await?,
    };
    Ok(json!({
        "node": own,
        "version": env!("CARGO_PKG_VERSION"),
        "addresses": node.documents.addresses(),
        "sites": sites,
        "neighbours": neighbours,
        "packs": node.packs.progress(),
        "host": own_session::view(node).await?,
        "bandwidth": node.bandwidth.report(wall_time()),
        "stages": stages,
        "findings": findings,
        "notices": node.notices.list(),
    }))
}

/// What people should know of hosts although it is no fault (R94), each with the host's name.
fn findings(machine: &SiteMachine) -> Vec<String> {
    let views = machine.station().sessions().filter(|view| view.is_current);
    let lines = views.flat_map(|view| {
        let name = view.host_name;
        view.findings.into_iter().map(move |finding| format!("{name}: {finding}"))
    });
    lines.collect()
}

async fn token(node: &Node, uses: u32, life_seconds: u64) -> Result<Value> {
    let station = station(node)?;
    let authority = node.documents.authority(&station.site).context("the site is not known")?;
    let charter = authority.charter();
    let random = random_bytes()?;
    let mut identifier = [0; 16];
    identifier.copy_from_slice(&random[..16]);
    let token = JoinToken {
        site: charter.site.clone(),
        root: authority.root().root_hash(),
        station: charter.station.node,
        door: charter.station.door,
        door_fingerprint: charter.station.door_fingerprint,
        identifier,
        uses,
        expires_at: wall_time().after(life_seconds),
    };
    Ok(Value::String(station.make_token(token).await?))
}

async fn sessions(node: &Node) -> Result<Value> {
    if let Some(station) = node.station() {
        let views = station.handle.query(|machine| machine.station().sessions().collect::<Vec<_>>()).await?;
        return Ok(serde_json::to_value(views)?);
    }
    if let Some(desk) = &node.desk {
        return Ok(serde_json::to_value(desk.handle.query(|machine| machine.hosts()).await?)?);
    }
    match own_session::view(node).await? {
        Some(own) => Ok(json!([own])),
        None => bail!("sessions are at the station, at headquarters and at each host; this node is none of them"),
    }
}

async fn session(node: &Node, host: &str) -> Result<Value> {
    let Some(station) = node.station() else { return own_session::with_events(node, host).await };
    let session = find_session(&station, host).await?;
    let (view, events) = station
        .handle
        .query(move |machine| {
            let station = machine.station();
            (station.session(session), station.session_events(session).to_vec())
        })
        .await?;
    let mut value = serde_json::to_value(view)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("events".to_owned(), serde_json::to_value(events)?);
    }
    Ok(value)
}

async fn nat(node: &Node) -> Result<Value> {
    if let Some(station) = node.station() {
        let mappings = station.handle.query(|machine| machine.addresses().mappings().collect::<Vec<_>>()).await?;
        let promise = station.router_properties().map(|properties| properties.promise());
        return Ok(json!({
            "mappings": mappings, "table_file": node.home.path("nat-table.xml"), "router_promise": promise,
        }));
    }
    let grants = desk(node)?.handle.query(|machine| machine.grants()).await?;
    Ok(json!({ "grants": grants }))
}

async fn report(node: &Node, host: &str) -> Result<Value> {
    let none = || format!("there is no report of {host:?} yet; a report is made when its session ends");
    if let Some(station) = node.station() {
        let session = find_session(&station, host).await?;
        let html =
            station.handle.query(move |machine| machine.station().session_html(session).map(str::to_owned)).await?;
        return html.map(Value::String).with_context(none);
    }
    if let Some(desk) = &node.desk {
        let hosts = desk.handle.query(|machine| machine.hosts()).await?;
        let found = hosts.iter().filter(|view| is_meant(host, &view.host_name, view.session.node));
        let session = single(host, found.map(|view| view.session).collect())?;
        let html = desk.handle.query(move |machine| machine.report_html(session).map(str::to_owned)).await?;
        return html.map(Value::String).with_context(none);
    }
    let own = node.documents.node();
    let name = machine_name(&node.config.root);
    if !is_meant(host, &name, own) {
        bail!("this node has the report of its own host only ({name}); ask the station or headquarters for {host:?}");
    }
    let path = node.home.path("reports/report.html");
    std::fs::read_to_string(&path).map(Value::String).with_context(none)
}

async fn withdraw(node: &Node, host: &str, by: String) -> Result<Value> {
    if node.station().is_some() {
        return steer(node, host, Steering::Withdraw, |session| StationInput::Withdraw { session, by }).await;
    }
    let desk = desk(node)?;
    let hosts = desk.handle.query(|machine| machine.hosts()).await?;
    let found = hosts.iter().filter(|view| is_meant(host, &view.host_name, view.session.node));
    let session = single(host, found.map(|view| view.session).collect())?;
    changed(&desk.command(move |command| HeadquartersInput::Withdraw { command, session, by }).await?)
}

async fn steer(
    node: &Node,
    host: &str,
    steering: Steering,
    input: impl FnOnce(SessionId) -> StationInput,
) -> Result<Value> {
    let station = station(node)?;
    let session = find_session(&station, host).await?;
    if let Some(objection) = station.handle.query(move |machine| machine.station().objection(session, steering)).await?
    {
        bail!("{host}: {objection}");
    }
    let done = match steering {
        Steering::Cancel => "cancelled",
        Steering::Retry => "tried again",
        Steering::Update => "updated",
        Steering::Prioritise => "has its place in the queue by that",
        Steering::Withdraw => "is being withdrawn",
    };
    station.handle.input(SiteInput::Station(input(session))).await;
    let stage = station.handle.query(move |machine| machine.station().session(session).map(|view| view.stage)).await?;
    Ok(json!({ "session": session.to_string(), "command": done, "stage": stage }))
}

/// Takes a document for every site that it fits: a catalogue for all, charter and policy for their own.
fn take_document(node: &Node, kind: DocumentKind, json: &str) -> Result<Value> {
    of_any_site(node, |site| node.documents.take(site, kind, json.as_bytes(), wall_time())).map(Value::Bool)
}

/// Whether a site would take the document; changes nothing.
fn check_document(node: &Node, kind: DocumentKind, json: &str) -> Result<()> {
    let check = |site: &SiteName| Ok(node.documents.would_take(site, kind, json.as_bytes(), wall_time())?);
    of_any_site(node, check).map(drop)
}

/// Hosts would wait for ever for a pack that headquarters has not.
fn has_all_packs(node: &Node, directory: &std::path::Path, json: &str) -> Result<()> {
    let signed: Signed<Catalogue> = serde_json::from_str(json)?;
    let catalogue = signed.verify(signed.signer())?;
    let payloads = catalogue.packages.iter().map(|package| (package.payload.pack, package.definition.name.as_str()));
    let patches = catalogue.patches.iter().map(|patch| (patch.pack, "a patch"));
    let place = |pack| directory.join(format!("packs/{pack}.pack"));
    let is_nowhere = |(pack, _): &(PackId, &str)| !node.packs.keeps(*pack) && !place(*pack).is_file();
    if let Some((pack, whose)) = payloads.chain(patches).find(is_nowhere) {
        let place = place(pack);
        bail!("the pack of {whose} is neither in {} nor kept here: nothing is published", place.display());
    }
    Ok(())
}

/// Whether any site took something newer. What one refuses is an error only where none did.
fn of_any_site(node: &Node, take: impl Fn(&SiteName) -> Result<bool>) -> Result<bool> {
    let mut taken = false;
    let mut refused = None;
    for site in node.documents.sites() {
        match take(&site) {
            Ok(newer) => taken |= newer,
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        Some(error) if !taken => Err(error),
        _ => Ok(taken),
    }
}
