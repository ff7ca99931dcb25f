//! The SNMP driver: NAT-MIB over SNMPv3 with authentication (SHA-256) and privacy (AES-128), R111.
//!
//! A row is made in one PDU with createAndGo; where a router does not take that, step by step with createAndWait.
//! Every write is read back before it counts. A refused creation whose row reads back as it should be is a success:
//! that is how a repetition after a lost answer looks.
use std::{net::Ipv4Addr, time::Duration};

use async_snmp::{
    Auth, AuthProtocol, Client, Error, Oid, PrivProtocol, Retry, UdpHandle, UsmConfig, Value, WalkOptions,
};
use branchline_protocol::limits::{NAT_TABLE_ROWS_MAX, ROUTER_OPERATION_SECONDS_MAX};
use branchline_station_role::router::{
    DriverProperties, NatRow, NatTable, RouterError, RouterOperation, RouterResult, RowIndex, RowKey, VendorProfile,
    mib::{self, MibValue, RowCommand, VariableBinding},
};
use tokio::{sync::Mutex, time::timeout};

use super::config::{RouterConfig, RouterConfigError};

/// The driver gives up this long before the machine would count the operation as unanswered.
const OPERATION_LONGEST: Duration = Duration::from_secs(ROUTER_OPERATION_SECONDS_MAX - 10);

/// Variable bindings asked for at once while the table is walked; about 900 bytes.
const WALK_REPETITIONS: u32 = 24;

/// A router that is programmed by SNMP.
pub struct SnmpRouter {
    config: RouterConfig,
    profile: VendorProfile,
    user: UsmConfig,
    /// One operation at a time; dropped after a failure, so that a router that was replaced is discovered anew.
    client: Mutex<Option<Client<UdpHandle>>>,
}

impl std::fmt::Debug for SnmpRouter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SnmpRouter").field("config", &self.config).finish_non_exhaustive()
    }
}

impl SnmpRouter {
    /// Prepares the driver and reads the credentials; nothing is sent yet.
    ///
    /// # Errors
    /// [`RouterConfigError`].
    pub fn new(config: RouterConfig) -> Result<Self, RouterConfigError> {
        config.check()?;
        let profile = config.vendor_profile()?;
        let credentials = config.credentials()?;
        let user = UsmConfig::new(config.user.clone())
            .auth_priv(
                AuthProtocol::Sha256,
                credentials.authentication_passphrase.as_bytes(),
                PrivProtocol::Aes128,
                credentials.privacy_passphrase.as_bytes(),
            )
            .map_err(|error| RouterConfigError::CredentialsRefused { reason: error.to_string() })?;
        Ok(Self { config, profile, user, client: Mutex::new(None) })
    }

    /// The same driver, which gives its rows this name (1 to 32 octets) instead of the profile's.
    #[must_use]
    pub fn with_map_name(mut self, map_name: &str) -> Self {
        map_name.clone_into(&mut self.profile.map_name);
        self
    }

    /// What the profile promises.
    #[must_use]
    pub fn properties(&self) -> DriverProperties {
        self.profile.properties
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &RouterConfig {
        &self.config
    }

    /// The vendor profile in use.
    #[must_use]
    pub fn profile(&self) -> &VendorProfile {
        &self.profile
    }

    /// Performs one operation and reads back what it did.
    ///
    /// # Errors
    /// [`RouterError`], which says whether the outcome is known and what to do next.
    pub async fn perform(&self, operation: &RouterOperation) -> Result<RouterResult, RouterError> {
        let mut slot = self.client.lock().await;
        let work = async {
            let client = match slot.take() {
                Some(client) => client,
                None => self.connect(self.config.retries, false).await?,
            };
            let session = Session { router: self, client };
            let result = session.perform(operation).await;
            // After an unknown outcome the engine's identity and clock are learned anew.
            if !result.as_ref().is_err_and(RouterError::outcome_is_unknown) {
                *slot = Some(session.client);
            }
            match result {
                Err(silence @ RouterError::NoAnswer { .. }) => Err(self.why_silent().await.unwrap_or(silence)),
                result => result,
            }
        };
        timeout(OPERATION_LONGEST, work).await.unwrap_or_else(|_| Err(self.no_answer(OPERATION_LONGEST)))
    }

    /// Why an operation stayed without an answer, if the router tells: it does not know the user or the passphrase.
    ///
    /// Such a Report cannot be authenticated and anyone can forge it, so the library drops it on an authenticated
    /// session, and a wrong passphrase looks like silence. Here one harmless GET is sent that takes such Reports. What
    /// it learns is a hint for people: [`RouterError::Unauthorised`] leaves the outcome unknown.
    async fn why_silent(&self) -> Option<RouterError> {
        let client = self.connect(0, true).await.ok()?;
        let object = mib::instance(&self.profile, self.profile.status_column, self.config.interface_index, 1);
        let error = client.get(&Oid::from_slice(&object)).await.err()?;
        let meaning = self.meaning(0, &error);
        matches!(meaning, RouterError::Unauthorised { .. }).then_some(meaning)
    }

    async fn connect(&self, retries: u32, takes_forgeable_reports: bool) -> Result<Client<UdpHandle>, RouterError> {
        let fixed = Retry::fixed(retries, Duration::ZERO)
            .map_err(|error| RouterError::Malformed { reason: error.to_string() })?;
        Client::builder(self.config.address, Auth::from(self.user.clone()))
            .allow_unauthenticated_v3_time_correction(takes_forgeable_reports)
            .request_timeout(Duration::from_millis(self.config.request_timeout_milliseconds))
            .retry(fixed)
            // A row is one PDU and must not be split.
            .max_oids_per_request(100)
            .walk_options(WalkOptions {
                max_repetitions: WALK_REPETITIONS,
                result_limit: Some(NAT_TABLE_ROWS_MAX * 32),
                ..WalkOptions::default()
            })
            .connect()
            .await
            .map_err(|error| self.meaning(0, &error))
    }

    fn router(&self) -> String {
        self.config.address.to_string()
    }

    fn no_answer(&self, waited: Duration) -> RouterError {
        let waited_milliseconds = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        RouterError::NoAnswer { router: self.router(), waited_milliseconds }
    }

    /// What an error of the library means for the operation on `row`.
    fn meaning(&self, row: u32, error: &Error) -> RouterError {
        let unauthorised = |reason: String| RouterError::Unauthorised { router: self.router(), reason };
        match error {
            Error::SharedOperation { source } => self.meaning(row, source),
            Error::Exchange { source, .. } => self.meaning(row, source),
            Error::Timeout { elapsed, .. } | Error::ConstructionTimeout { elapsed, .. } => self.no_answer(*elapsed),
            Error::Network { source, .. } => {
                RouterError::Unreachable { router: self.router(), reason: source.to_string() }
            }
            Error::Closed { .. } => {
                RouterError::Unreachable { router: self.router(), reason: "the socket is closed".to_owned() }
            }
            Error::Snmp { status, oid, .. } => {
                let column = oid.as_ref().and_then(|oid| mib::split_instance(&self.profile, oid.arcs()));
                let column = column.map(|(column, _)| column);
                match mib::meaning(&self.profile, self.config.interface_index, row, status.as_i32(), column) {
                    RouterError::Unauthorised { reason, .. } => unauthorised(reason),
                    other => other,
                }
            }
            Error::Auth { .. } => unauthorised("authentication failed".to_owned()),
            Error::Report { status, .. } => unauthorised(status.to_string()),
            Error::OutboundMessageTooLarge { .. } => RouterError::TooBig,
            other => RouterError::Malformed { reason: other.to_string() },
        }
    }
}

/// The driver with a connected client, for one operation.
struct Session<'a> {
    router: &'a SnmpRouter,
    client: Client<UdpHandle>,
}

impl Session<'_> {
    fn profile(&self) -> &VendorProfile {
        &self.router.profile
    }

    fn interface(&self) -> u32 {
        self.router.config.interface_index
    }

    async fn perform(&self, operation: &RouterOperation) -> Result<RouterResult, RouterError> {
        match *operation {
            RouterOperation::ReadTable => self.read_table().await.map(RouterResult::Table),
            RouterOperation::Map { row, inside, mapped } => {
                self.map(row, inside, mapped).await.map(RouterResult::Mapped)
            }
            RouterOperation::Unmap { row } => self.unmap(row).await.map(|()| RouterResult::Unmapped(row)),
        }
    }

    async fn read_table(&self) -> Result<NatTable, RouterError> {
        let entry = Oid::from_slice(&self.profile().entry);
        let walk = self.client.walk(entry).map_err(|error| self.router.meaning(0, &error))?;
        let found = walk.collect().await.map_err(|error| self.router.meaning(0, &error))?;
        let bindings =
            found.into_iter().filter_map(|found| Some((found.oid.arcs().to_vec(), from_wire(&found.value)?)));
        mib::table(self.profile(), bindings)
    }

    async fn map(&self, row: RowIndex, inside: Ipv4Addr, mapped: Ipv4Addr) -> Result<NatRow, RouterError> {
        let bindings = mib::create_and_go(self.profile(), self.interface(), row, inside, mapped);
        let Err(error) = self.set(&bindings).await else {
            return self.read_back(row, inside, mapped).await;
        };
        let refused = self.router.meaning(row.raw(), &error);
        if status(&error).is_none() {
            // The router did not say no: reading the row now would only hide why.
            return Err(refused);
        }
        match self.read_row(row).await? {
            // The answer to an earlier attempt was lost.
            Some(found) if found.is_binding(inside, mapped) => self.read_back(row, inside, mapped).await,
            Some(_) => Err(refused),
            None if status(&error).is_some_and(mib::may_succeed_in_steps) => {
                self.map_in_steps(row, inside, mapped).await
            }
            None => Err(refused),
        }
    }

    /// createAndWait, the columns, then active, for routers that take no whole row at once.
    async fn map_in_steps(&self, row: RowIndex, inside: Ipv4Addr, mapped: Ipv4Addr) -> Result<NatRow, RouterError> {
        let command = |command| mib::command(self.profile(), self.interface(), row, command);
        let failed = |error: &Error| self.router.meaning(row.raw(), error);
        self.set(&[command(RowCommand::CreateAndWait)]).await.map_err(|error| failed(&error))?;
        let columns = mib::columns(self.profile(), self.interface(), row, inside, mapped);
        let filled = async {
            self.set(&columns).await?;
            self.set(&[command(RowCommand::Active)]).await
        };
        if let Err(error) = filled.await {
            // Nothing half made stays behind; if that fails the next read of the table shows it.
            self.set(&[command(RowCommand::Destroy)]).await.map_err(|error| failed(&error))?;
            return Err(failed(&error));
        }
        self.read_back(row, inside, mapped).await
    }

    async fn unmap(&self, row: RowIndex) -> Result<(), RouterError> {
        let destroy = mib::command(self.profile(), self.interface(), row, RowCommand::Destroy);
        let result = self.set(&[destroy]).await;
        if let Err(error) = &result
            && status(error).is_none()
        {
            return Err(self.router.meaning(row.raw(), error));
        }
        match (self.read_row(row).await?, result) {
            // Some routers call it an error to destroy what is not there.
            (None, _) => Ok(()),
            (Some(_), Err(error)) => Err(self.router.meaning(row.raw(), &error)),
            (Some(found), Ok(())) => {
                Err(RouterError::ReadBackDiffers { row: row.raw(), found: format!("still there, {:?}", found.status) })
            }
        }
    }

    /// The row as it is, after checking that it and the router's current bindings say what was written.
    async fn read_back(&self, row: RowIndex, inside: Ipv4Addr, mapped: Ipv4Addr) -> Result<NatRow, RouterError> {
        let differs = |found: String| RouterError::ReadBackDiffers { row: row.raw(), found };
        let found = self.read_row(row).await?.ok_or_else(|| differs("no such row".to_owned()))?;
        if !found.is_binding(inside, mapped) {
            return Err(differs(format!("{found:?}")));
        }
        // Not every router shows static bindings before the first packet; one that is shown must be right.
        if let Some(object) = mib::binding_object(self.profile(), self.interface(), inside)
            && let Some(MibValue::Octets(octets)) = self.get(&[object]).await?.pop().map(|(_, value)| value)
            && octets != mapped.octets()
        {
            return Err(differs(format!("the router binds {inside} to {octets:?}")));
        }
        Ok(found)
    }

    async fn read_row(&self, row: RowIndex) -> Result<Option<NatRow>, RouterError> {
        let objects = mib::row_objects(self.profile(), self.interface(), row.raw());
        let mut table = mib::table(self.profile(), self.get(&objects).await?)?;
        Ok(table.rows.remove(&RowKey { interface: self.interface(), index: row.raw() }))
    }

    /// The values of those objects that exist.
    async fn get(&self, objects: &[Vec<u32>]) -> Result<Vec<VariableBinding>, RouterError> {
        let identifiers: Vec<Oid> = objects.iter().map(|object| Oid::from_slice(object)).collect();
        let response = self.client.get_many(&identifiers).await.map_err(|error| self.router.meaning(0, &error))?;
        let values = response.varbinds.into_iter();
        Ok(values.filter_map(|found| Some((found.oid.arcs().to_vec(), from_wire(&found.value)?))).collect())
    }

    async fn set(&self, bindings: &[VariableBinding]) -> Result<(), Box<Error>> {
        let bindings: Vec<(Oid, Value)> =
            bindings.iter().map(|(object, value)| (Oid::from_slice(object), to_wire(value))).collect();
        self.client.set_many(&bindings).await.map(|_| ())
    }
}

/// The SNMP error status, where the router answered with one.
fn status(error: &Error) -> Option<i32> {
    match error {
        Error::SharedOperation { source } => status(source),
        Error::Exchange { source, .. } => status(source),
        Error::Snmp { status, .. } => Some(status.as_i32()),
        _ => None,
    }
}

/// A value in the library's words.
#[must_use]
pub fn to_wire(value: &MibValue) -> Value {
    match value {
        MibValue::Integer(value) => Value::Integer(*value),
        MibValue::Octets(octets) => Value::OctetString(octets.clone().into()),
        MibValue::Unsigned(value) => Value::Gauge32(*value),
        MibValue::Counter(value) => Value::Counter64(*value),
    }
}

/// A value in our words; `None` for exceptions (no such object or instance) and types that these tables do not use.
#[must_use]
pub fn from_wire(value: &Value) -> Option<MibValue> {
    match value {
        Value::Integer(value) => Some(MibValue::Integer(*value)),
        Value::OctetString(octets) => Some(MibValue::Octets(octets.to_vec())),
        Value::IpAddress(octets) => Some(MibValue::Octets(octets.to_vec())),
        Value::Gauge32(value) | Value::UInteger32(value) => Some(MibValue::Unsigned(*value)),
        Value::Counter64(value) => Some(MibValue::Counter(*value)),
        _ => None,
    }
}
