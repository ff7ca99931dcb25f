//! Taking and leaving the station role, as the charter says (R4).
use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{Arc, PoisonError},
};

use anyhow::{Context, Result, ensure};
use branchline_protocol::{
    charter::{Authority, Charter, Signed},
    ids::{NodeId, SiteName},
    wire::control::DocumentKind,
};
use branchline_station_role::{
    addresses::{AddressInput, AddressSetup},
    router::DriverProperties,
    station::{SiteInput, SiteMachine, SiteSetup, StationInput, StationSetup},
};
use tokio::sync::mpsc;

use super::{
    clock::wall_time,
    handover::{self, SITE_JOURNAL},
    links,
    node::Node,
    pump::{self, Pump},
    station::StationContext,
};
use crate::{
    config::{DoorCertificate, Home, StationConfig},
    door::{BeginInquiry, Door, DoorFiles, InstallTool},
    router::{RouterConfig, RouterDriver},
    survey::{Script, assemble, read_signature_directory, required_signatures},
    web::ConnectionLimits,
};

/// What can be promised where no router is configured: nothing.
const NO_ROUTER: DriverProperties =
    DriverProperties { conditional_create: false, atomic_rows: false, rows_survive_restart: false, reads_back: false };

/// Follows the charters: takes the station role when one designates this node, leaves it when none does any more.
pub async fn keep(node: Arc<Node>) {
    let mut changes = node.documents.changes();
    let mut charter_version = 0;
    loop {
        let designated = designating(&node);
        let running = node.station();
        match (designated, running) {
            (Some(authority), None) => match take_over(&node, &authority).await {
                Ok(()) => {
                    charter_version = authority.charter().version;
                    tracing::info!(site = %authority.charter().site, epoch = %authority.charter().epoch(), "this node is station");
                    continue;
                }
                Err(error) => {
                    tracing::warn!("this node is designated as station, but cannot act yet: {error:#}; trying again");
                    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), changes.changed()).await;
                    continue;
                }
            },
            (Some(authority), Some(station)) if authority.charter().version != charter_version => {
                charter_version = authority.charter().version;
                let setup = Box::new(StationSetup::of(authority.charter()));
                station.handle.input(SiteInput::Station(StationInput::EpochChanged(setup))).await;
                node.packs.lease_epoch(authority.charter().epoch()).await;
            }
            (None, Some(station)) => stand_down(&node, &station).await,
            _ => {}
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn designating(node: &Node) -> Option<Arc<Authority>> {
    let own = node.documents.node();
    let sites = node.documents.sites();
    let authorities = sites.iter().filter_map(|site| node.documents.authority(site));
    authorities.into_iter().find(|authority| authority.charter().station.node == own)
}

async fn stand_down(node: &Node, station: &StationContext) {
    let reason = "a newer charter designates another station".to_owned();
    tracing::info!("{reason}; this node stands down");
    station.handle.input(SiteInput::Station(StationInput::StandDown { reason })).await;
    station.handle.end().await;
    station.stand_down();
    node.packs.stop_leasing().await;
    // The journals are whole from here on, so the next station may have them.
    *node.station.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

async fn take_over(node: &Arc<Node>, authority: &Arc<Authority>) -> Result<()> {
    let charter = authority.charter();
    if let Some(former) = charter.former_stations.last() {
        handover::fetch(node, *former).await?;
    }
    let router_config =
        node.config.station.router.as_ref().map(|path| read_router(&node.home.path(path))).transpose()?;
    let interface = router_config.as_ref().map_or(1, |config| config.interface_index);
    let router = router_config.map(|config| RouterDriver::from_config(config, &map_name(&charter.site))).transpose()?;
    let properties = router.as_ref().map_or(NO_ROUTER, RouterDriver::properties);
    let addresses = AddressSetup::new(charter.epoch(), interface, &map_name(&charter.site), properties)?;
    let setup = SiteSetup { station: StationSetup::of(charter), addresses: with_rest(addresses, charter) };
    let (handle, inputs) = pump::channel::<SiteMachine>();
    let context = StationContext::new(handle.clone(), charter.site.clone(), Arc::clone(node), router);
    let pump = Pump::recover(&node.journals, SITE_JOURNAL, setup, node.clock, inputs, context.effects())?;
    // The journal is this machine's now, and given to nobody; what a newer charter's station got before, it must not add to.
    let still = designating(node).is_some_and(|now| now.charter().version == charter.version);
    ensure!(still, "a newer charter came meanwhile");
    // Before it acts: a list that the machine makes must follow this one.
    take_over_revocations(node, &charter.site, &pump.machine().station().state().revoked)?;
    let begins = open_door(node, charter).await?;
    // The last thing that can fail: a site's machine that runs is not started again.
    node.packs.start_leasing(authority, &node.journals)?;
    tokio::spawn(take_begins(Arc::clone(&context), begins));
    tokio::spawn(async move {
        if let Err(error) = pump.run().await {
            tracing::error!(machine = "site", "{error:#}");
            std::process::exit(70);
        }
    });
    handle.input(SiteInput::Address(AddressInput::ReadNow)).await;
    *node.station.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&context));
    tokio::spawn(links::watch(Arc::clone(node), context));
    Ok(())
}

/// Members that were put out stay out; from now on only this station puts members out.
fn take_over_revocations(node: &Node, site: &SiteName, journaled: &BTreeSet<NodeId>) -> Result<()> {
    // As it is now: the former station's list may have come while its journal was fetched.
    let authority = node.documents.authority(site).context("the site is known no longer")?;
    let Some(list) = authority.revocations_to_take_over(journaled) else { return Ok(()) };
    let json = serde_json::to_vec(&Signed::sign(&list, node.documents.key()))?;
    node.documents.take(site, DocumentKind::Revocations, &json, wall_time()).map(drop)
}

/// NAT-MIB names have at most 32 octets.
fn map_name(site: &SiteName) -> String {
    format!("bl-{site}").chars().take(32).collect()
}

fn with_rest(mut setup: AddressSetup, charter: &Charter) -> AddressSetup {
    setup.timing.rest = std::time::Duration::from_secs(charter.policies.address_rest_seconds);
    setup
}

fn read_router(path: &std::path::Path) -> Result<RouterConfig> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading the router's configuration {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("reading the router's configuration {}", path.display()))
}

/// The survey script that the door gives away, and its signatures by file name: the required ones, and those of the
/// station's own directory (R43).
///
/// # Errors
/// The directory cannot be read, or a file in it is no signature.
pub fn public_script(home: &Home, config: &StationConfig) -> Result<(Script, Vec<(String, String)>)> {
    let directory = config.signatures.as_ref().map(|path| home.path(path));
    let further = directory.as_deref().map(read_signature_directory).transpose();
    let further = further.context("reading `signatures` in [station] of node.toml")?.unwrap_or_default();
    let script =
        assemble(&further).context("assembling the survey script with `signatures` in [station] of node.toml")?;
    let required = required_signatures().map(|(name, text)| (name.to_owned(), text.to_owned()));
    let further = further.into_iter().map(|file| (file.file_name, file.text));
    Ok((script, required.into_iter().chain(further).collect()))
}

async fn open_door(node: &Arc<Node>, charter: &Charter) -> Result<mpsc::Receiver<BeginInquiry>> {
    let certificate = DoorCertificate::load_or_create(&node.home)?;
    let (script, signatures) = public_script(&node.home, &node.config.station)?;
    let tool = std::env::current_exe().context("finding this program's own file")?;
    let (documents, site) = (node.documents.clone(), charter.site.clone());
    let files = DoorFiles {
        survey_script: script.text.into(),
        signatures: signatures.into(),
        install_tool: Arc::new(InstallTool::new(tool)),
        owner_signatures: Arc::new(move |kind, sha256| documents.signature_of(&site, kind, sha256)),
    };
    Door::open(charter.station.door, &certificate, files, ConnectionLimits::default()).await
}

/// Until the station stands down; that closes the door.
async fn take_begins(context: Arc<StationContext>, mut inquiries: mpsc::Receiver<BeginInquiry>) {
    let stands_down = context.stands_down();
    let mut stands_down = pin!(stands_down);
    loop {
        let inquiry = tokio::select! {
            inquiry = inquiries.recv() => inquiry,
            () = &mut stands_down => return,
        };
        let Some(inquiry) = inquiry else { return };
        tracing::info!(from = %inquiry.from, "a machine asks to join");
        context.begin(&inquiry.request, inquiry.answer).await;
    }
}
