//! Rows of natAddrMapTable and their rules: types, RowStatus (RFC 2579), no address twice. No IO.
//!
//! A SET is judged as a whole, "as if simultaneous" (RFC 3416 section 4.2.5). The SNMP library shows the variable
//! bindings one after the other, so [`Rules::judge`] is asked after each of them, and answers [`Verdict::Incomplete`]
//! while only what may still come decides. A PDU with the RowStatus last is judged with the exact error status; where
//! columns follow the RowStatus, what is missing at the end shows as commitFailed.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use async_snmp::SetTestError;
use branchline_protocol::charter::AddressBatch;
use branchline_station_role::router::mib::MibValue;
use serde::{Deserialize, Serialize};

/// natMIBObjects.
pub(super) const NAT_MIB: [u32; 8] = [1, 3, 6, 1, 2, 1, 123, 1];
/// Column of the RowStatus.
const STATUS: u32 = 21;
const REQUIRED: [u32; 10] = [2, 3, 4, 5, 6, 7, 10, 11, 12, 15];
const PORTS: [u32; 4] = [8, 9, 13, 14];
/// Most addresses in one row.
const ADDRESSES_MAX: u32 = 256;

const ACTIVE: i32 = 1;
const NOT_IN_SERVICE: i32 = 2;
const NOT_READY: i32 = 3;
const CREATE_AND_GO: i32 = 4;
const CREATE_AND_WAIT: i32 = 5;
const DESTROY: i32 = 6;

/// `ifIndex` and `natAddrMapIndex`.
pub(super) type Key = (u32, u32);
/// Values by column; the status is in column 21.
pub(super) type Row = BTreeMap<u32, MibValue>;
/// The table.
pub(super) type Rows = BTreeMap<Key, Row>;

/// A row on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SavedRow {
    pub(super) key: Key,
    pub(super) columns: Vec<(u32, MibValue)>,
}

/// What this router allows.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) interface: u32,
    pub(super) mapped: Vec<AddressBatch>,
    pub(super) rows_max: usize,
    pub(super) read_only: bool,
    pub(super) only_in_steps: bool,
}

/// One variable binding of a SET, checked for itself.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    column: u32,
    key: Key,
    value: MibValue,
}

/// What is to be said of a SET so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The table would be this.
    Good(Rows),
    /// Good only if more follows.
    Incomplete,
}

/// Splits an object of the map table into column and key.
pub(super) fn split(object: &[u32]) -> Option<(u32, Key)> {
    match object.strip_prefix(&NAT_MIB)? {
        [4, 1, column, interface, index] => Some((*column, (*interface, *index))),
        _ => None,
    }
}

impl Rules {
    /// Checks one variable binding for itself: object, type, length, value, interface.
    pub(super) fn cell(&self, object: &[u32], value: Option<MibValue>) -> Result<Cell, SetTestError> {
        let Some((column, key)) = split(object).filter(|_| !self.read_only) else {
            return Err(SetTestError::NotWritable);
        };
        let value = value.ok_or(SetTestError::WrongType)?;
        check_value(column, &value)?;
        if key.0 != self.interface || key.1 == 0 {
            return Err(if column == STATUS { SetTestError::NoCreation } else { SetTestError::InconsistentName });
        }
        Ok(Cell { column, key, value })
    }

    /// Judges the cells of one SET against the table.
    pub(super) fn judge(&self, rows: &Rows, cells: &[Cell]) -> Result<Verdict, SetTestError> {
        let mut after = rows.clone();
        let mut is_complete = true;
        let keys: BTreeSet<Key> = cells.iter().map(|cell| cell.key).collect();
        for key in keys {
            let mut columns = Row::new();
            let mut status = None;
            for cell in cells.iter().filter(|cell| cell.key == key) {
                match (&cell.value, cell.column) {
                    (MibValue::Integer(number), STATUS) => status = Some(*number),
                    (value, column) => {
                        columns.insert(column, value.clone());
                    }
                }
            }
            is_complete &= self.judge_row(&mut after, key, columns, status)?;
        }
        Ok(if is_complete { Verdict::Good(after) } else { Verdict::Incomplete })
    }

    /// One row of a SET; `Ok(false)` where something must follow.
    fn judge_row(&self, rows: &mut Rows, key: Key, columns: Row, status: Option<i32>) -> Result<bool, SetTestError> {
        let present = rows.get(&key).cloned();
        match (status, present) {
            (Some(DESTROY), _) => {
                rows.remove(&key);
                Ok(true)
            }
            (Some(CREATE_AND_GO | CREATE_AND_WAIT), Some(_)) => Err(SetTestError::InconsistentValue),
            (Some(CREATE_AND_GO), None) if self.only_in_steps => Err(SetTestError::WrongValue),
            (Some(create @ (CREATE_AND_GO | CREATE_AND_WAIT)), None) => self.create(rows, key, columns, create),
            (Some(NOT_READY), _) => Err(SetTestError::WrongValue),
            (Some(_), None) => Err(SetTestError::InconsistentValue),
            (None, None) => Ok(false),
            (status, Some(row)) => self.change(rows, key, row, columns, status),
        }
    }

    fn create(&self, rows: &mut Rows, key: Key, columns: Row, create: i32) -> Result<bool, SetTestError> {
        if rows.len() >= self.rows_max {
            return Err(SetTestError::ResourceUnavailable);
        }
        let mut row: Row = PORTS.map(|port| (port, MibValue::Unsigned(0))).into();
        row.insert(20, MibValue::Integer(3));
        row.extend(columns);
        let status = match (create, has_all_columns(&row)) {
            (CREATE_AND_GO, true) => {
                self.check_active(rows, key, &row)?;
                ACTIVE
            }
            (CREATE_AND_GO, false) => return Ok(false),
            (_, true) => NOT_IN_SERVICE,
            (_, false) => NOT_READY,
        };
        row.insert(STATUS, MibValue::Integer(status));
        rows.insert(key, row);
        Ok(true)
    }

    fn change(
        &self,
        rows: &mut Rows,
        key: Key,
        mut row: Row,
        columns: Row,
        status: Option<i32>,
    ) -> Result<bool, SetTestError> {
        if status_of(&row) == ACTIVE && !columns.is_empty() && status != Some(NOT_IN_SERVICE) {
            return Err(SetTestError::InconsistentValue);
        }
        row.extend(columns);
        let status = match (status, has_all_columns(&row)) {
            (Some(_), false) => return Err(SetTestError::InconsistentValue),
            (Some(status), true) => status,
            (None, true) => NOT_IN_SERVICE,
            (None, false) => NOT_READY,
        };
        if status == ACTIVE {
            self.check_active(rows, key, &row)?;
        }
        row.insert(STATUS, MibValue::Integer(status));
        rows.insert(key, row);
        Ok(true)
    }

    /// Whether a row with all columns may be active beside the others.
    fn check_active(&self, rows: &Rows, key: Key, row: &Row) -> Result<(), SetTestError> {
        let ports_are_zero = PORTS.iter().all(|port| row.get(port) == Some(&MibValue::Unsigned(0)));
        let Some(pairs) = pairs(row).filter(|_| ports_are_zero) else {
            return Err(SetTestError::InconsistentValue);
        };
        let others: BTreeSet<Ipv4Addr> = rows
            .iter()
            .filter(|(other, row)| **other != key && status_of(row) == ACTIVE)
            .filter_map(|(_, row)| self::pairs(row))
            .flatten()
            .flat_map(|(mapped, inside)| [mapped, inside])
            .collect();
        let may_map = |mapped: Ipv4Addr| self.mapped.iter().any(|batch| batch.contains(mapped));
        let is_good = |(mapped, inside): &(Ipv4Addr, Ipv4Addr)| {
            may_map(*mapped) && !others.contains(mapped) && !others.contains(inside)
        };
        if pairs.iter().all(is_good) { Ok(()) } else { Err(SetTestError::InconsistentValue) }
    }
}

/// Type, length and range of a column's value.
fn check_value(column: u32, value: &MibValue) -> Result<(), SetTestError> {
    let octets = |lengths: std::ops::RangeInclusive<usize>| match value {
        MibValue::Octets(octets) if lengths.contains(&octets.len()) => Ok(()),
        MibValue::Octets(_) => Err(SetTestError::WrongLength),
        _ => Err(SetTestError::WrongType),
    };
    let integer = |values: std::ops::RangeInclusive<i32>| match value {
        MibValue::Integer(number) if values.contains(number) => Ok(()),
        MibValue::Integer(_) => Err(SetTestError::WrongValue),
        _ => Err(SetTestError::WrongType),
    };
    match column {
        2 => octets(1..=32),
        // Static rows and IPv4 only.
        3 | 5 | 10 => integer(1..=1),
        4 => octets(1..=1).and_then(|()| match value {
            MibValue::Octets(bits) if bits[0] & 0x30 != 0 && bits[0] & !0x30 == 0 => Ok(()),
            _ => Err(SetTestError::WrongValue),
        }),
        6 | 7 | 11 | 12 => octets(4..=4),
        8 | 9 | 13 | 14 => match value {
            MibValue::Unsigned(0..=65_535) => Ok(()),
            MibValue::Unsigned(_) => Err(SetTestError::WrongValue),
            _ => Err(SetTestError::WrongType),
        },
        15 => octets(1..=1),
        20 => integer(2..=4),
        STATUS => integer(1..=6),
        _ => Err(SetTestError::NotWritable),
    }
}

fn status_of(row: &Row) -> i32 {
    match row.get(&STATUS) {
        Some(MibValue::Integer(status)) => *status,
        _ => NOT_READY,
    }
}

fn has_all_columns(row: &Row) -> bool {
    REQUIRED.iter().all(|column| row.contains_key(column))
}

fn address(row: &Row, column: u32) -> Option<u32> {
    match row.get(&column) {
        Some(MibValue::Octets(octets)) => <[u8; 4]>::try_from(octets.as_slice()).ok().map(u32::from_be_bytes),
        _ => None,
    }
}

/// The row's pairs of mapped and inside address; `None` where its ranges do not fit together.
fn pairs(row: &Row) -> Option<Vec<(Ipv4Addr, Ipv4Addr)>> {
    let (inside, inside_last) = (address(row, 6)?, address(row, 7)?);
    let (mapped, mapped_last) = (address(row, 11)?, address(row, 12)?);
    let count = inside_last.checked_sub(inside)?;
    if mapped_last.checked_sub(mapped)? != count || count >= ADDRESSES_MAX {
        return None;
    }
    Some((0..=count).map(|offset| (Ipv4Addr::from(mapped + offset), Ipv4Addr::from(inside + offset))).collect())
}

/// The mappings in force: mapped to inside.
pub(super) fn mappings(rows: &Rows) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
    rows.values().filter(|row| status_of(row) == ACTIVE).filter_map(pairs).flatten().collect()
}

/// The rows that survive a restart: all but those with volatile storage.
pub(super) fn to_save(rows: &Rows) -> Vec<SavedRow> {
    rows.iter()
        .filter(|(_, row)| row.get(&20) != Some(&MibValue::Integer(2)))
        .map(|(key, row)| SavedRow { key: *key, columns: row.clone().into_iter().collect() })
        .collect()
}

/// All objects that a reader sees, in lexicographic order: the map table with its counters, and current bindings.
pub(super) fn view(rows: &Rows) -> BTreeMap<Vec<u32>, MibValue> {
    let object = |table: u32, column: u32, suffix: &[u32]| {
        let mut object = NAT_MIB.to_vec();
        object.extend([table, 1, column]);
        object.extend(suffix);
        object
    };
    let mut view = BTreeMap::new();
    let mut count = 0_u32;
    for ((interface, index), row) in rows {
        let key = [*interface, *index];
        for (column, value) in row {
            view.insert(object(4, *column, &key), value.clone());
        }
        for column in [16, 17, 18] {
            view.insert(object(4, column, &key), MibValue::Counter(0));
        }
        let bound = if status_of(row) == ACTIVE { pairs(row).unwrap_or_default() } else { Vec::new() };
        view.insert(object(4, 19, &key), MibValue::Unsigned(u32::try_from(bound.len()).unwrap_or(u32::MAX)));
        for (mapped, inside) in bound {
            count += 1;
            let mut suffix = vec![*interface, 1, 4];
            suffix.extend(inside.octets().map(u32::from));
            view.insert(object(6, 3, &suffix), MibValue::Integer(1));
            view.insert(object(6, 4, &suffix), MibValue::Octets(mapped.octets().to_vec()));
            view.insert(object(6, 5, &suffix), MibValue::Unsigned(count));
            view.insert(object(6, 8, &suffix), MibValue::Unsigned(*index));
        }
    }
    let mut entries = NAT_MIB.to_vec();
    entries.extend([5, 0]);
    view.insert(entries, MibValue::Unsigned(count));
    view
}

#[cfg(test)]
mod tests;
