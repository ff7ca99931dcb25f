//! What a driver promises, as data for a caller without IO.
//!
//! A driver performs one [`RouterOperation`] at a time and answers with a [`RouterResult`] or a
//! [`RouterError`]. It never decides: what is to be mapped, and when to try again, is decided by
//! [`crate::addresses`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::index::RowIndex;

/// What the caller wants of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RouterOperation {
    /// Read the whole table; changes nothing.
    ReadTable,
    /// Make one static row that maps `mapped` to `inside` for all ports and protocols (basic NAT).
    Map {
        /// The row to make; it must not exist.
        row: RowIndex,
        /// The host's address inside the site.
        inside: Ipv4Addr,
        /// The address, from a granted batch, under which headquarters reaches the host.
        mapped: Ipv4Addr,
    },
    /// Destroy one row. An absent row is no error, so this may be repeated.
    Unmap {
        /// The row to destroy.
        row: RowIndex,
    },
}

impl RouterOperation {
    /// The row that this operation writes; `None` for a read.
    #[must_use]
    pub fn row(&self) -> Option<RowIndex> {
        match self {
            Self::ReadTable => None,
            Self::Map { row, .. } | Self::Unmap { row } => Some(*row),
        }
    }
}

impl fmt::Display for RouterOperation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadTable => formatter.write_str("read the NAT table"),
            Self::Map { row, inside, mapped } => write!(formatter, "map {mapped} to {inside} in row {row}"),
            Self::Unmap { row } => write!(formatter, "remove row {row}"),
        }
    }
}

/// What a driver answers when the operation is done and read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouterResult {
    /// The whole table as the router told it.
    Table(NatTable),
    /// The row exists, is active, and says what was asked; this is what was read back.
    Mapped(NatRow),
    /// The row is gone; read back.
    Unmapped(RowIndex),
}

/// What differs between drivers and matters to decisions (R115).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverProperties {
    /// The router refuses a row whose index, inside or mapped address is in use. Then two hosts
    /// *never* have one address; otherwise a double is found and repaired within one reconciliation.
    pub conditional_create: bool,
    /// One operation is applied wholly or not at all.
    pub atomic_rows: bool,
    /// Rows survive a restart of the router.
    pub rows_survive_restart: bool,
    /// Every write is read back before the driver reports success.
    pub reads_back: bool,
}

impl DriverProperties {
    /// The promise of R115 in words, for status pages.
    #[must_use]
    pub fn promise(&self) -> &'static str {
        if self.conditional_create {
            "two hosts never get one address: the router itself refuses a double"
        } else {
            "a doubled address is found and repaired within one reconciliation"
        }
    }
}

/// Key of a row: `ifIndex` and `natAddrMapIndex`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowKey {
    /// Interface index of the public side.
    pub interface: u32,
    /// Row index on that interface, as read; not necessarily one of ours.
    pub index: u32,
}

/// RowStatus (RFC 2579), as far as it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RowStatus {
    /// In use.
    Active,
    /// Complete, not in use.
    NotInService,
    /// Incomplete.
    NotReady,
}

/// An inclusive range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressRange {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, not below the first.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// The range that holds one address.
    #[must_use]
    pub fn single(address: Ipv4Addr) -> Self {
        Self { first: address, last: address }
    }

    /// Whether the address lies in the range.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.first <= address && address <= self.last
    }

    /// Whether the two ranges share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Number of addresses.
    #[must_use]
    pub fn count(&self) -> u64 {
        (u64::from(u32::from(self.last)) + 1).saturating_sub(u64::from(u32::from(self.first)))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

/// An inclusive range of ports; 0 to 0 in basic NAT, which maps all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub first: u32,
    /// Last port.
    pub last: u32,
}

/// One row of the router's table, ours or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NatRow {
    /// Name of the map.
    pub name: String,
    /// Whether the row is a static one.
    pub is_static: bool,
    /// Addresses inside; `None` while the row is incomplete.
    pub inside: Option<AddressRange>,
    /// Addresses outside; `None` while the row is incomplete.
    pub mapped: Option<AddressRange>,
    /// Ports inside.
    pub inside_ports: PortRange,
    /// Ports outside.
    pub mapped_ports: PortRange,
    /// RowStatus.
    pub status: RowStatus,
}

impl NatRow {
    /// The row that [`RouterOperation::Map`] asks for.
    #[must_use]
    pub fn one_to_one(name: &str, inside: Ipv4Addr, mapped: Ipv4Addr) -> Self {
        Self {
            name: name.to_owned(),
            is_static: true,
            inside: Some(AddressRange::single(inside)),
            mapped: Some(AddressRange::single(mapped)),
            inside_ports: PortRange::default(),
            mapped_ports: PortRange::default(),
            status: RowStatus::Active,
        }
    }

    /// Whether this row maps exactly `mapped` to `inside`, wholly and now.
    #[must_use]
    pub fn is_binding(&self, inside: Ipv4Addr, mapped: Ipv4Addr) -> bool {
        self.is_static
            && self.status == RowStatus::Active
            && self.inside == Some(AddressRange::single(inside))
            && self.mapped == Some(AddressRange::single(mapped))
            && self.inside_ports == PortRange::default()
            && self.mapped_ports == PortRange::default()
    }
}

/// The router's table, ordered by key. At most [`MAX_TABLE_ROWS`] rows are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatTable {
    /// The rows.
    pub rows: BTreeMap<RowKey, NatRow>,
}

/// Most rows that are read of one router; a router with more is refused, not half read.
pub const MAX_TABLE_ROWS: usize = branchline_protocol::limits::NAT_TABLE_ROWS_MAX;

/// Why an operation was not done, or is not known to be done.
///
/// Every variant answers two questions: [`RouterError::outcome_is_unknown`] (must the table be read
/// before anything else is believed?) and [`RouterError::next_step`] (what is a person to do?).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RouterError {
    /// No answer in time. With SNMPv3 a wrong privacy passphrase looks the same.
    #[error("the router at {router} did not answer within {waited_milliseconds} ms")]
    NoAnswer {
        /// Address of the router.
        router: String,
        /// How long was waited in all, in milliseconds.
        waited_milliseconds: u64,
    },
    /// The network stack refused to send, or reported the router as unreachable.
    #[error("the router at {router} cannot be reached: {reason}")]
    Unreachable {
        /// Address of the router.
        router: String,
        /// What the operating system said.
        reason: String,
    },
    /// User or authentication passphrase is wrong, as the router says. It says so unauthenticated (RFC 3414), so anyone
    /// may have said it: the outcome counts as unknown.
    #[error("the router at {router} does not accept the SNMPv3 user: {reason}")]
    Unauthorised {
        /// Address of the router.
        router: String,
        /// What the router reported.
        reason: String,
    },
    /// The user may not write there: outside the write view, or a read-only user.
    #[error("the SNMPv3 user may not write {object} on the router")]
    NoAccess {
        /// Name of the object.
        object: String,
    },
    /// The router implements the table read-only, or its NAT part is not running.
    #[error("the router does not let anyone write {object}")]
    NotWritable {
        /// Name of the object.
        object: String,
    },
    /// Row index, inside or mapped address is in use, or the address is not the router's to map.
    #[error("the router refuses row {row}: {object} is in use, or outside the addresses it may map")]
    InUse {
        /// Row that was to be made.
        row: u32,
        /// Object that the router named.
        object: String,
    },
    /// No room for one more row.
    #[error("the router's NAT table is full")]
    TableFull,
    /// The table took the row, the forwarding plane did not; nothing changed.
    #[error("the router could not put the change into force (commitFailed)")]
    CommitFailed,
    /// The router changed something and could not undo it.
    #[error("the router failed half way and could not undo it (undoFailed)")]
    HalfDone,
    /// The interface does not exist or does no NAT.
    #[error("the router has no NAT on interface {interface}")]
    UnknownInterface {
        /// The ifIndex that was used.
        interface: u32,
    },
    /// The router's own fault (genErr), often a part of it that hangs.
    #[error("the router failed by its own fault (genErr) at {object}")]
    RouterFault {
        /// Object that the router named.
        object: String,
    },
    /// A value or type is refused: another reading of the MIB than ours.
    #[error("the router refuses {object}: {status}")]
    Refused {
        /// Object that the router named.
        object: String,
        /// Name of the error status.
        status: String,
    },
    /// The request does not fit one message.
    #[error("the request is too big for the router's messages")]
    TooBig,
    /// Written without error, but the table says otherwise.
    #[error("row {row} reads back otherwise than written: {found}")]
    ReadBackDiffers {
        /// The row.
        row: u32,
        /// What was read.
        found: String,
    },
    /// What the router said cannot be understood.
    #[error("the router's answer cannot be understood: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}

impl RouterError {
    /// Whether the operation may have been applied nevertheless: read back before anything else.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(
            self,
            Self::NoAnswer { .. }
                | Self::Unreachable { .. }
                | Self::Unauthorised { .. }
                | Self::HalfDone
                | Self::RouterFault { .. }
                | Self::ReadBackDiffers { .. }
                | Self::Malformed { .. }
        )
    }

    /// Whether only this row is concerned, so that other rows need not wait.
    #[must_use]
    pub fn concerns_one_row(&self) -> bool {
        matches!(
            self,
            Self::InUse { .. }
                | Self::TableFull
                | Self::CommitFailed
                | Self::Refused { .. }
                | Self::ReadBackDiffers { .. }
        )
    }

    /// Whether waiting alone will not help: a person must change something.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        matches!(
            self,
            Self::Unauthorised { .. }
                | Self::NoAccess { .. }
                | Self::NotWritable { .. }
                | Self::TableFull
                | Self::UnknownInterface { .. }
                | Self::Refused { .. }
        )
    }

    /// What to do next, for the person who reads the error.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::NoAnswer { .. } => {
                "check address, port and firewall; if they are right, check the privacy passphrase, \
                 a wrong one is never answered; it is tried again by itself"
            }
            Self::Unreachable { .. } => "check the route to the router and its SNMP port; it is tried again by itself",
            Self::Unauthorised { .. } => {
                "check user name and authentication passphrase, and that the user has authPriv with \
                 SHA-256 and AES-128 on the router"
            }
            Self::NoAccess { .. } => {
                "give the user a write view of 1.3.6.1.2.1.123.1.4 (natAddrMapTable) on the router"
            }
            Self::NotWritable { .. } => {
                "the router offers the table for reading only, or its NAT agent is not running: start \
                 it, or choose another driver"
            }
            Self::InUse { .. } => {
                "the table is read and planned anew by itself; if it stays, remove the row that holds \
                 the address, or give the router the granted batch"
            }
            Self::TableFull => "remove rows that nobody needs, or raise the router's limit",
            Self::CommitFailed => "look at the router's own log; it is tried again by itself and nothing has changed",
            Self::HalfDone => "the table is read and repaired by itself; look at the router's log",
            Self::UnknownInterface { .. } => "set interface_index to the ifIndex of the router's public interface",
            Self::RouterFault { .. } => {
                "look at the router's own log and whether its NAT agent hangs; tried again by itself"
            }
            Self::Refused { .. } => "choose the vendor profile that fits this router",
            Self::TooBig => "raise the router's SNMP message size to 1472 bytes or more",
            Self::ReadBackDiffers { .. } => {
                "the row is removed and made anew by itself; if it stays, someone else writes the table"
            }
            Self::Malformed { .. } => "report it with the router's make and version",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_exact() {
        let inside = Ipv4Addr::new(10, 1, 0, 10);
        let mapped = Ipv4Addr::new(198, 51, 100, 65);
        let row = NatRow::one_to_one("branchline", inside, mapped);
        assert!(row.is_binding(inside, mapped));
        assert!(!row.is_binding(mapped, inside));
        let waiting = NatRow { status: RowStatus::NotInService, ..row.clone() };
        assert!(!waiting.is_binding(inside, mapped));
        let ports = NatRow { mapped_ports: PortRange { first: 80, last: 80 }, ..row };
        assert!(!ports.is_binding(inside, mapped));
    }

    #[test]
    fn ranges_overlap_at_their_ends() {
        let range = |first: u8, last: u8| AddressRange {
            first: Ipv4Addr::new(10, 0, 0, first),
            last: Ipv4Addr::new(10, 0, 0, last),
        };
        assert!(range(1, 4).overlaps(&range(4, 9)));
        assert!(!range(1, 3).overlaps(&range(4, 9)));
        assert_eq!(range(1, 4).count(), 4);
        assert_eq!(range(4, 1).count(), 0);
        assert!(range(1, 4).contains(Ipv4Addr::new(10, 0, 0, 4)));
    }
}
