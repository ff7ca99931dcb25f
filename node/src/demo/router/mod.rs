//! The demo's router: an SNMPv3 agent of our own with a writable NAT-MIB table that really forwards TCP.
//!
//! | module | holds |
//! | --- | --- |
//! | `table` | rows and their rules (RFC 4008, RFC 2579), no IO |
//! | `agent` | the table behind SNMP: GET, GETNEXT, SET of a whole PDU |
//! | `forward` | listeners on mapped addresses, copying to inside addresses |
//!
//! It needs no privileges: all addresses are in 127.0.0.0/8, the SNMP port is above 1024. Only the configured ports of
//! a mapped address lead inside (R94). When a row goes its listeners close and its flows are cut.
mod agent;
mod forward;
mod table;

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_snmp::{
    Agent, AgentBuilder, AuthProtocol, AuthoritativeEngine, Oid, PersistedAuthoritativeEngine, PrivProtocol,
    SecurityLevel, SecurityModel, VacmBuilder,
};
use branchline_protocol::charter::AddressBatch;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::forward::ForwardError;
use self::{
    agent::NatHandler,
    table::{NAT_MIB, Rules, SavedRow},
};
use crate::router::RouterCredentials;

/// What the demo's router is told; a TOML file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoRouterConfig {
    /// Where the SNMP agent listens; port 0 takes any free one.
    pub snmp_address: SocketAddr,
    /// The `ifIndex` of the interface that does NAT.
    pub interface_index: u32,
    /// TCP ports that are forwarded for each mapped address.
    pub forwarded_ports: Vec<u16>,
    /// The user that may read and write.
    pub user: String,
    /// A user with the same passphrases that may only read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_user: Option<String>,
    /// Most rows of the table.
    #[serde(default = "default_rows")]
    pub rows_max: usize,
    /// A router that implements the table read-only (RFC 4008, natMIBReadOnlyCompliance).
    #[serde(default)]
    pub read_only: bool,
    /// A router that takes no createAndGo, as some do.
    #[serde(default)]
    pub only_in_steps: bool,
    /// Where rows and the engine's boots survive a restart; without it everything is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_file: Option<PathBuf>,
    /// Addresses that may be mapped.
    pub mapped_addresses: Vec<AddressBatch>,
    /// The passphrases of both users.
    pub credentials: RouterCredentials,
}

fn default_rows() -> usize {
    1_000
}

/// Why the demo's router does not work.
#[derive(Debug, Error)]
pub enum DemoRouterError {
    /// The state file cannot be used.
    #[error("the demo router's state in {path} cannot be used: {source}; remove the file to begin anew")]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The agent cannot be made.
    #[error("the demo router's SNMP agent at {address} does not work: {source}")]
    Agent {
        /// Where it was to listen.
        address: SocketAddr,
        /// Why.
        source: Box<async_snmp::Error>,
    },
    /// The passphrases are refused.
    #[error("the demo router's passphrases cannot be used: {0}; both need at least 8 characters")]
    Credentials(#[from] async_snmp::CryptoError),
    /// A saved mapping cannot be put into force.
    #[error("the demo router cannot listen on a mapped address: {0}; another process may use it")]
    Forward(#[from] ForwardError),
}

/// What survives a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    engine_boots: u32,
    rows: Vec<SavedRow>,
}

/// A router that is bound; it serves while [`DemoRouter::run`] runs and stops when dropped.
pub struct DemoRouter {
    agent: Agent,
    handler: Arc<NatHandler>,
}

impl DemoRouter {
    /// Binds the agent and puts saved rows into force.
    ///
    /// # Errors
    /// [`DemoRouterError`].
    pub async fn bind(config: DemoRouterConfig) -> Result<Self, DemoRouterError> {
        let address = config.snmp_address;
        let failed = |source| DemoRouterError::Agent { address, source };
        let state = load(config.state_file.as_deref())?;
        let engine = engine(address, &state).map_err(failed)?;
        let saver = Saver { path: config.state_file.clone(), engine_boots: engine.engine_boots() };
        let rules = Rules {
            interface: config.interface_index,
            mapped: config.mapped_addresses.clone(),
            rows_max: config.rows_max,
            read_only: config.read_only,
            only_in_steps: config.only_in_steps,
        };
        let handler = NatHandler::start(rules, config.forwarded_ports.clone(), saver, state.rows).await?;
        let agent = agent(&config, engine, Arc::clone(&handler))?.build().await.map_err(failed)?;
        Ok(Self { agent, handler })
    }

    /// Where the SNMP agent listens.
    #[must_use]
    pub fn snmp_address(&self) -> SocketAddr {
        self.agent.local_addr()
    }

    /// The active mappings: mapped and inside address.
    #[must_use]
    pub fn mappings(&self) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        self.handler.mappings()
    }

    /// Serves until the process ends or the future is dropped.
    ///
    /// # Errors
    /// [`DemoRouterError::Agent`] when the agent fails.
    pub async fn run(&self) -> Result<(), DemoRouterError> {
        let address = self.snmp_address();
        self.agent.run().await.map_err(|source| DemoRouterError::Agent { address, source })
    }
}

fn agent(
    config: &DemoRouterConfig,
    engine: AuthoritativeEngine,
    handler: Arc<NatHandler>,
) -> Result<AgentBuilder, DemoRouterError> {
    let credentials = config.credentials.clone();
    let mut builder = Agent::builder().bind(config.snmp_address.to_string()).authoritative_engine(engine);
    let names: Vec<String> = [Some(config.user.clone()), config.read_only_user.clone()].into_iter().flatten().collect();
    for name in &names {
        builder = builder.usm_user(name.clone(), |user| {
            user.auth_priv(
                AuthProtocol::Sha256,
                credentials.authentication_passphrase.as_bytes(),
                PrivProtocol::Aes128,
                credentials.privacy_passphrase.as_bytes(),
            )
        })?;
    }
    // Only authPriv has access; the write view is the one table (as the book tells operators to set it).
    let mut map_table = NAT_MIB.to_vec();
    map_table.push(4);
    let views = move |mut vacm: VacmBuilder| {
        for (name, group) in names.iter().zip(["writers", "readers"]) {
            vacm = vacm.group(name.clone(), SecurityModel::Usm, group);
        }
        vacm.access("writers", SecurityModel::Usm, SecurityLevel::AuthPriv, |access| {
            access.read_view("all").write_view("map-table")
        })
        // With an empty write view a reader's SET is answered as by net-snmp: noAccess, not authorizationError.
        .access("readers", SecurityModel::Usm, SecurityLevel::AuthPriv, |access| {
            access.read_view("all").write_view("nothing")
        })
        .view("nothing", |view| view.exclude(Oid::from_slice(&[1])))
        .view("all", |view| view.include(Oid::from_slice(&[1, 3, 6, 1])))
        .view("map-table", move |view| view.include(Oid::from_slice(&map_table)))
    };
    Ok(builder.vacm(views).handler(Oid::from_slice(&NAT_MIB), handler))
}

/// The engine's identity follows from the address, so that it stays the same; its boots grow with each start.
fn engine(address: SocketAddr, state: &State) -> async_snmp::Result<AuthoritativeEngine> {
    // RFC 3411: format 5, octets assigned by the administrator; 32473 is the enterprise number for documentation.
    let mut identity = vec![0x80, 0x00, 0x7e, 0xd9, 0x05];
    identity.extend(address.to_string().bytes().take(27));
    // `Saver` keeps the boots together with the rows.
    let persist = |_: &PersistedAuthoritativeEngine| Ok::<(), std::io::Error>(());
    if state.engine_boots == 0 {
        return AuthoritativeEngine::install(identity, persist);
    }
    AuthoritativeEngine::restart(PersistedAuthoritativeEngine::new(identity, state.engine_boots)?, persist)
}

fn load(path: Option<&Path>) -> Result<State, DemoRouterError> {
    let Some(path) = path else { return Ok(State::default()) };
    let failed = |source| DemoRouterError::State { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
        Err(error) => Err(failed(error)),
    }
}

/// Writes the state so that a crash leaves the old or the new.
struct Saver {
    path: Option<PathBuf>,
    engine_boots: u32,
}

impl Saver {
    fn save(&self, rows: Vec<SavedRow>) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let state = State { engine_boots: self.engine_boots, rows };
        let temporary = path.with_extension("new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&state)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    }
}
