//! A router's NAT table behind a driver that fails in every way a driver may.
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use branchline_station_role::router::{NatRow, NatTable, RouterError, RouterOperation, RouterResult, RowIndex, RowKey};

use super::chance::Chance;

/// Name that the site's rows carry.
pub const MAP_NAME: &str = "branchline";
/// Interface of the public side.
pub const INTERFACE: u32 = 2;

/// How often the router and the way to it fail, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterFaults {
    /// The request never arrives.
    pub request_lost_per_mille: u32,
    /// The request is carried out, its answer never arrives.
    pub answer_lost_per_mille: u32,
    /// The request arrives late, after the driver has given it up.
    pub late_per_mille: u32,
    /// The router refuses by a fault of its own and changes nothing.
    pub refused_per_mille: u32,
}

/// How one operation goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterFate {
    /// When the router carries it out; never, where it is absent.
    pub applied_after: Option<Duration>,
    /// When the driver answers, and with a failure where it does not answer with what the router says.
    pub answered_after: Duration,
    /// The failure.
    pub failure: Option<RouterError>,
}

/// How long the driver waits for an answer.
const DRIVER_PATIENCE: Duration = Duration::from_secs(4);
/// The longest that a SET may be under way; addresses rest longer than this.
pub const SET_LIFETIME: Duration = Duration::from_secs(20);

/// The table. It survives everything; creation is conditional, as R115's strongest promise wants it.
#[derive(Clone, Debug, Default)]
pub struct Router {
    table: NatTable,
}

impl Router {
    /// Draws how an operation goes.
    pub fn fate(faults: &RouterFaults, chance: &mut Chance) -> RouterFate {
        let way = chance.between(Duration::from_millis(5), Duration::from_millis(80));
        let silent = RouterError::NoAnswer { router: "192.0.2.1:161".into(), waited_milliseconds: 4000 };
        let fate = |applied_after, answered_after, failure| RouterFate { applied_after, answered_after, failure };
        if chance.happens(faults.request_lost_per_mille) {
            fate(None, DRIVER_PATIENCE, Some(silent))
        } else if chance.happens(faults.answer_lost_per_mille) {
            fate(Some(way), DRIVER_PATIENCE, Some(silent))
        } else if chance.happens(faults.late_per_mille) {
            fate(Some(chance.between(DRIVER_PATIENCE, SET_LIFETIME)), DRIVER_PATIENCE, Some(silent))
        } else if chance.happens(faults.refused_per_mille) {
            fate(None, way, Some(RouterError::CommitFailed))
        } else {
            fate(Some(way), way * 2, None)
        }
    }

    /// Carries an operation out.
    ///
    /// # Errors
    /// The row, the inside or the mapped address is in use.
    pub fn apply(&mut self, operation: RouterOperation) -> Result<RouterResult, RouterError> {
        let key = |row: RowIndex| RowKey { interface: INTERFACE, index: row.raw() };
        match operation {
            RouterOperation::ReadTable => Ok(RouterResult::Table(self.table.clone())),
            RouterOperation::Map { row, inside, mapped } => {
                let made = NatRow::one_to_one(MAP_NAME, inside, mapped);
                let overlaps = |other: &NatRow| {
                    other.inside.is_some_and(|range| range.contains(inside))
                        || other.mapped.is_some_and(|range| range.contains(mapped))
                };
                if self.table.rows.contains_key(&key(row)) || self.table.rows.values().any(overlaps) {
                    return Err(RouterError::InUse { row: row.raw(), object: "natAddrMapEntryStatus".into() });
                }
                self.table.rows.insert(key(row), made.clone());
                Ok(RouterResult::Mapped(made))
            }
            RouterOperation::Unmap { row } => {
                self.table.rows.remove(&key(row));
                Ok(RouterResult::Unmapped(row))
            }
        }
    }

    /// Somebody maps an address by hand, under an index that is not ours; says whether the router took it.
    pub fn add_by_hand(&mut self, mapped: Ipv4Addr, inside: Ipv4Addr) -> bool {
        self.add("by hand", u32::from(mapped.octets()[3]), mapped, inside)
    }

    /// Adds a row that no machine asked for, past the rule that no address is mapped twice.
    pub(crate) fn add(&mut self, name: &str, index: u32, mapped: Ipv4Addr, inside: Ipv4Addr) -> bool {
        let key = RowKey { interface: INTERFACE, index };
        let taken = |row: &NatRow| row.mapped.is_some_and(|range| range.contains(mapped));
        let free = !self.table.rows.contains_key(&key) && !self.table.rows.values().any(taken);
        if free {
            self.table.rows.insert(key, NatRow::one_to_one(name, inside, mapped));
        }
        free
    }

    /// Forgets the whole table.
    pub fn wipe(&mut self) {
        self.table.rows.clear();
    }

    /// Removes the row of one mapped address.
    pub(crate) fn lose(&mut self, mapped: Ipv4Addr) {
        self.table.rows.retain(|_, row| row.mapped.is_none_or(|range| !range.contains(mapped)));
    }

    /// What is mapped now: mapped address to inside address.
    pub fn mappings(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        self.mappings_where(|_| true)
    }

    /// What the site's station has mapped; rows that people made are left out.
    pub fn own_mappings(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        self.mappings_where(|row| row.name == MAP_NAME)
    }

    /// # Panics
    /// Where two rows share a mapped address: the model itself would be wrong.
    fn mappings_where(&self, wanted: impl Fn(&NatRow) -> bool) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let mut mappings = BTreeMap::new();
        for row in self.table.rows.values().filter(|row| wanted(row)) {
            if let (Some(mapped), Some(inside)) = (row.mapped, row.inside) {
                assert!(mappings.insert(mapped.first, inside.first).is_none(), "two rows share {}", mapped.first);
            }
        }
        mappings
    }
}
