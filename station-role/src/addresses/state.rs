//! What is known about addresses, and the words of the machine: inputs, outputs, events.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use branchline_protocol::{
    charter::AddressBatch,
    ids::{Epoch, NodeId},
    limits::{
        ADDRESS_REST_SECONDS, ROUTER_OPERATION_SECONDS_MAX, ROUTER_READ_INTERVAL_SECONDS, ROUTER_RETRY_SECONDS_MAX,
    },
    refusal::Refusal,
    time::UnixSeconds,
};
use serde::{Deserialize, Serialize};

use super::{
    batch::{BatchLedger, GrantError},
    plan::{Conflict, DesiredRow, Ownership},
};
use crate::router::{
    DriverProperties, NatTable, RouterError, RouterOperation, RouterResult, RowGeneration, RowIndex, RowIndexError,
};

/// Names one operation given to the driver; never used twice, also not after a crash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub u64);

/// Waits and intervals; [`Timing::default`] takes them from `protocol::limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two reads of the table while nothing happens.
    pub read_interval: Duration,
    /// First wait after a failure; doubled with each further one.
    pub retry_first: Duration,
    /// Longest wait after failures.
    pub retry_longest: Duration,
    /// After this an operation counts as unanswered.
    pub operation_longest: Duration,
    /// How long an address rests.
    pub rest: Duration,
    /// Between two requests for a batch.
    pub batch_request_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            read_interval: Duration::from_secs(ROUTER_READ_INTERVAL_SECONDS),
            retry_first: Duration::from_secs(1),
            retry_longest: Duration::from_secs(ROUTER_RETRY_SECONDS_MAX),
            operation_longest: Duration::from_secs(ROUTER_OPERATION_SECONDS_MAX),
            rest: Duration::from_secs(ADDRESS_REST_SECONDS),
            batch_request_interval: Duration::from_secs(60),
        }
    }
}

/// What the machine is built from besides its journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressSetup {
    /// How our rows are recognised, and our epoch.
    pub ownership: Ownership,
    /// What the driver promises.
    pub properties: DriverProperties,
    /// Waits and intervals.
    pub timing: Timing,
}

impl AddressSetup {
    /// A setup for one router interface under one epoch, with default timing.
    ///
    /// # Errors
    /// [`RowIndexError`] where the epoch does not fit the row index.
    pub fn new(
        epoch: Epoch,
        interface: u32,
        map_name: &str,
        properties: DriverProperties,
    ) -> Result<Self, RowIndexError> {
        let generation = RowGeneration::new(epoch.charter_version, epoch.term)?;
        let ownership = Ownership { interface, map_name: map_name.to_owned(), generation };
        Ok(Self { ownership, properties, timing: Timing::default() })
    }
}

/// What can happen to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressInput {
    /// Headquarters granted a batch; the signature was checked.
    Grant {
        /// Serial of the grant.
        serial: u64,
        /// The addresses.
        batch: AddressBatch,
    },
    /// An approved host is to have a mapping. Repeating it is harmless.
    Bind {
        /// The host.
        node: NodeId,
        /// Its machine identifier (R99, R116).
        machine_identifier: String,
        /// Its address inside the site.
        inside: Ipv4Addr,
    },
    /// The host is withdrawn, denied or failed verification (R94, R98). Repeating it is harmless.
    Release {
        /// The host.
        node: NodeId,
    },
    /// The host has another inside address now (R116); the mapped address stays.
    InsideChanged {
        /// The host.
        node: NodeId,
        /// The new address.
        inside: Ipv4Addr,
    },
    /// The inside address answers as someone else, or not known any more (R116): unmap, keep the mapped address.
    InsideLost {
        /// The host.
        node: NodeId,
    },
    /// The driver is done.
    RouterDone {
        /// The operation as given.
        id: OperationId,
        /// How it went.
        result: Result<RouterResult, RouterError>,
    },
    /// Read the table now, before its time.
    ReadNow,
    /// The station has proved its warrant anew under this epoch; ends a stand-down if the epoch is high enough.
    WarrantProved {
        /// The epoch.
        epoch: Epoch,
    },
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressOutput {
    /// Give this to the driver and answer with [`AddressInput::RouterDone`].
    Router {
        /// Its name.
        id: OperationId,
        /// The operation.
        operation: RouterOperation,
    },
    /// The host is mapped; read back. Repeated after a restart.
    Mapped {
        /// The host.
        node: NodeId,
        /// Its inside address.
        inside: Ipv4Addr,
        /// Its mapped address.
        mapped: Ipv4Addr,
    },
    /// No row of this host is known to be in the router: a mapping that was told of it earlier is over. Said when its
    /// last row is gone, and as the answer to `Bind` and `Release` wherever it is so.
    Unmapped {
        /// The host.
        node: NodeId,
    },
    /// The host gets no mapping as things are.
    BindRefused {
        /// The host.
        node: NodeId,
        /// Why, and what to do next.
        refusal: Refusal,
    },
    /// Ask the NAT authority for another batch (R113).
    NeedBatch {
        /// The highest serial that is held, so that a lost answer is sent again and not granted twice.
        highest_serial: u64,
        /// Addresses that are neither bound nor resting.
        free: u64,
        /// Addresses granted in all.
        total: u64,
        /// Hosts that wait.
        waiting: u64,
    },
    /// The table was read: keep it as XML (R112).
    TableRead {
        /// The table.
        table: NatTable,
        /// When.
        at: UnixSeconds,
    },
    /// People should see this.
    Attention(Attention),
}

/// What people should see. Each is said once until it changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Attention {
    /// An operation failed; it is tried again.
    RouterFailed {
        /// The row, where the failure concerns only one.
        row: Option<RowIndex>,
        /// What was tried, in words.
        operation: String,
        /// What happened, in words.
        error: String,
        /// What to do next.
        next_step: String,
        /// Whether it will not go away by itself.
        needs_a_person: bool,
    },
    /// The router works again.
    RouterWorks,
    /// A foreign row stands in the way.
    Conflict(Conflict),
    /// The table differed from the journal and is being repaired (R115).
    TableDiffered {
        /// Operations that repair it.
        operations: u64,
    },
    /// Rows of a later epoch are in the table: this station stands down.
    Superseded {
        /// The later generation.
        by: RowGeneration,
    },
    /// A grant was not taken, in words.
    GrantRefused(String),
    /// No row index can be made, in words.
    RowIndexes(String),
}

impl std::fmt::Display for Attention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RouterFailed { row, operation, error, next_step, .. } => {
                if let Some(row) = row {
                    write!(f, "row {}: ", row.raw())?;
                }
                write!(f, "{operation}: {error}; {next_step}")
            }
            Self::RouterWorks => f.write_str("the router works again"),
            Self::Conflict(conflict) => write!(f, "a row that is not ours stands in the way: {conflict:?}"),
            Self::TableDiffered { operations } => {
                write!(f, "the router's table differed from the journal; {operations} operations repair it")
            }
            Self::Superseded { by } => {
                write!(f, "the router holds rows of a later epoch ({by:?}); this station stands down")
            }
            Self::GrantRefused(reason) | Self::RowIndexes(reason) => f.write_str(reason),
        }
    }
}

impl From<GrantError> for Attention {
    fn from(error: GrantError) -> Self {
        Self::GrantRefused(error.to_string())
    }
}

impl From<RowIndexError> for Attention {
    fn from(error: RowIndexError) -> Self {
        Self::RowIndexes(error.to_string())
    }
}

/// What is written to the journal. New variants are appended, never inserted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressEvent {
    /// A batch was granted.
    Granted {
        /// Its serial.
        serial: u64,
        /// The addresses.
        batch: AddressBatch,
    },
    /// A host waits, since no address is free.
    Waiting {
        /// The host.
        node: NodeId,
        /// Its machine identifier.
        machine_identifier: String,
        /// Its inside address.
        inside: Ipv4Addr,
    },
    /// A host was given an address and a row.
    Bound {
        /// The host.
        node: NodeId,
        /// Its machine identifier.
        machine_identifier: String,
        /// Its inside address.
        inside: Ipv4Addr,
        /// Its mapped address.
        mapped: Ipv4Addr,
        /// Its row.
        row: RowIndex,
    },
    /// A bound host gets another row; the old one is leaving.
    Rebound {
        /// The host.
        node: NodeId,
        /// Its inside address from now on.
        inside: Ipv4Addr,
        /// Its mapped address from now on.
        mapped: Ipv4Addr,
        /// Its row from now on.
        row: RowIndex,
    },
    /// A bound host's inside address is not known any more; its row is leaving, its mapped address stays.
    InsideLost {
        /// The host.
        node: NodeId,
    },
    /// A host gave its address back, or waits no more; its row is leaving.
    Released {
        /// The host.
        node: NodeId,
    },
    /// This is about to be given to the driver.
    Intended {
        /// Its name.
        id: OperationId,
        /// The operation.
        operation: RouterOperation,
    },
    /// The row was read back as it should be.
    Confirmed {
        /// The row.
        row: RowIndex,
    },
    /// A leaving row was read as gone; its address rests from now on, unless its host still has it.
    RowGone {
        /// The row.
        row: RowIndex,
    },
    /// An address has rested.
    Rested {
        /// The address.
        mapped: Ipv4Addr,
    },
}

/// A host and its mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Its machine identifier.
    pub machine_identifier: String,
    /// Its inside address and row; `None` while the inside address is not known.
    pub place: Option<(Ipv4Addr, RowIndex)>,
    /// Its mapped address.
    pub mapped: Ipv4Addr,
    /// Whether the present row was ever read back.
    pub confirmed: bool,
}

/// A row that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingRow {
    /// The host that had it.
    pub node: NodeId,
    /// Its mapped address.
    pub mapped: Ipv4Addr,
}

/// Everything that the journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressState {
    /// Granted batches.
    pub batches: BatchLedger,
    /// Hosts with a mapping.
    pub bindings: BTreeMap<NodeId, Binding>,
    /// Hosts that wait for an address: machine identifier and inside address.
    pub waiting: BTreeMap<NodeId, (String, Ipv4Addr)>,
    /// Rows that are to go.
    pub leaving: BTreeMap<RowIndex, LeavingRow>,
    /// Addresses that rest.
    pub resting: BTreeSet<Ipv4Addr>,
    /// The highest sequence used in each generation.
    pub last_sequence: BTreeMap<RowGeneration, u32>,
    /// The highest operation that was given to the driver.
    pub last_operation: OperationId,
    /// Who has an inside address: derived from `bindings`.
    pub(super) by_inside: BTreeMap<Ipv4Addr, NodeId>,
    /// Who has a mapped address: derived from `bindings`.
    pub(super) by_mapped: BTreeMap<Ipv4Addr, NodeId>,
    /// Whose row it is: derived from `bindings`.
    pub(super) by_row: BTreeMap<RowIndex, NodeId>,
}

impl AddressState {
    /// The rows that the router is to hold.
    #[must_use]
    pub fn desired(&self) -> BTreeMap<RowIndex, DesiredRow> {
        self.bindings
            .values()
            .filter_map(|binding| {
                let (inside, row) = binding.place?;
                Some((row, DesiredRow { inside, mapped: binding.mapped }))
            })
            .collect()
    }

    /// How many granted addresses are bound, leaving or resting.
    #[must_use]
    pub fn not_free(&self) -> u64 {
        let leaving = self.leaving.values().map(|row| row.mapped).filter(|mapped| !self.by_mapped.contains_key(mapped));
        let leaving: BTreeSet<Ipv4Addr> = leaving.collect();
        (self.bindings.len() + leaving.len() + self.resting.len()) as u64
    }
}

/// One line of `nat show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingView {
    /// The host.
    pub node: NodeId,
    /// Its machine identifier.
    pub machine_identifier: String,
    /// Its inside address; `None` while not known.
    pub inside: Option<Ipv4Addr>,
    /// Its mapped address.
    pub mapped: Ipv4Addr,
    /// Its row in the router; `None` while the inside address is not known.
    pub row: Option<u32>,
    /// Whether the row was read back as it should be.
    pub confirmed: bool,
}
