//! Operations as variable bindings, and variable bindings as rows (RFC 4008, RFC 2579).
//!
//! Pure: a variable binding is an object identifier as numbers with a [`MibValue`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::driver::{AddressRange, MAX_TABLE_ROWS, NatRow, NatTable, PortRange, RouterError, RowKey, RowStatus};
use super::index::RowIndex;
use super::profile::{ColumnContent, VendorProfile};

/// The value of one object, in the types that these tables use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MibValue {
    /// INTEGER.
    Integer(i32),
    /// OCTET STRING, also BITS and addresses.
    Octets(Vec<u8>),
    /// Unsigned32 or Gauge32 (tag 0x42).
    Unsigned(u32),
    /// Counter64.
    Counter(u64),
}

/// One variable binding: object identifier and value.
pub type VariableBinding = (Vec<u32>, MibValue);

/// RowStatus values that are written (RFC 2579).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowCommand {
    /// active(1)
    Active,
    /// createAndGo(4)
    CreateAndGo,
    /// createAndWait(5)
    CreateAndWait,
    /// destroy(6)
    Destroy,
}

impl RowCommand {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Active => 1,
            Self::CreateAndGo => 4,
            Self::CreateAndWait => 5,
            Self::Destroy => 6,
        }
    }
}

/// The object identifier of one instance.
#[must_use]
pub fn instance(profile: &VendorProfile, column: u32, interface: u32, row: u32) -> Vec<u32> {
    let mut identifier = profile.entry.clone();
    identifier.extend([column, interface, row]);
    identifier
}

/// The columns of a new row, without its status.
#[must_use]
pub fn columns(
    profile: &VendorProfile,
    interface: u32,
    row: RowIndex,
    inside: Ipv4Addr,
    mapped: Ipv4Addr,
) -> Vec<VariableBinding> {
    profile
        .written
        .iter()
        .map(|written| {
            let value = match &written.content {
                ColumnContent::Constant(value) => value.clone(),
                ColumnContent::MapName => MibValue::Octets(profile.map_name.as_bytes().to_vec()),
                ColumnContent::InsideAddress => MibValue::Octets(inside.octets().to_vec()),
                ColumnContent::MappedAddress => MibValue::Octets(mapped.octets().to_vec()),
            };
            (instance(profile, written.column, interface, row.raw()), value)
        })
        .collect()
}

/// The status of a row, to be written.
#[must_use]
pub fn command(profile: &VendorProfile, interface: u32, row: RowIndex, command: RowCommand) -> VariableBinding {
    (instance(profile, profile.status_column, interface, row.raw()), MibValue::Integer(command.number()))
}

/// The whole row in one PDU with createAndGo, the status last.
#[must_use]
pub fn create_and_go(
    profile: &VendorProfile,
    interface: u32,
    row: RowIndex,
    inside: Ipv4Addr,
    mapped: Ipv4Addr,
) -> Vec<VariableBinding> {
    let mut bindings = columns(profile, interface, row, inside, mapped);
    bindings.push(command(profile, interface, row, RowCommand::CreateAndGo));
    bindings
}

/// The objects that tell all about one row: every read column, then the status.
#[must_use]
pub fn row_objects(profile: &VendorProfile, interface: u32, row: u32) -> Vec<Vec<u32>> {
    profile
        .read
        .all()
        .into_iter()
        .chain([profile.status_column])
        .map(|column| instance(profile, column, interface, row))
        .collect()
}

/// The object that shows the current binding of an inside address, if the make has one.
#[must_use]
pub fn binding_object(profile: &VendorProfile, interface: u32, inside: Ipv4Addr) -> Option<Vec<u32>> {
    let (entry, column) = profile.binding.as_ref()?;
    let mut identifier = entry.clone();
    identifier.extend([*column, interface, 1, 4]);
    identifier.extend(inside.octets().map(u32::from));
    Some(identifier)
}

/// Splits an instance of the profile's table into column and key; `None` for any other object.
#[must_use]
pub fn split_instance(profile: &VendorProfile, identifier: &[u32]) -> Option<(u32, RowKey)> {
    match identifier.strip_prefix(profile.entry.as_slice())? {
        [column, interface, index] => Some((*column, RowKey { interface: *interface, index: *index })),
        _ => None,
    }
}

/// Puts the table together from the variable bindings of a walk, in any order.
///
/// Objects outside the table are ignored. Rows without a status are incomplete reads (the row came
/// or went while the table was walked) and are left out: the next read shows them.
///
/// # Errors
/// [`RouterError::Malformed`] for a value of a wrong type or length, or more than
/// [`MAX_TABLE_ROWS`] rows.
pub fn table(
    profile: &VendorProfile,
    bindings: impl IntoIterator<Item = VariableBinding>,
) -> Result<NatTable, RouterError> {
    let mut cells: BTreeMap<RowKey, BTreeMap<u32, MibValue>> = BTreeMap::new();
    for (identifier, value) in bindings {
        if let Some((column, key)) = split_instance(profile, &identifier) {
            cells.entry(key).or_default().insert(column, value);
        }
        if cells.len() > MAX_TABLE_ROWS {
            return Err(RouterError::Malformed { reason: format!("more than {MAX_TABLE_ROWS} rows") });
        }
    }
    let mut table = NatTable::default();
    for (key, cells) in cells {
        if let Some(row) = row(profile, key, &cells)? {
            table.rows.insert(key, row);
        }
    }
    Ok(table)
}

fn row(profile: &VendorProfile, key: RowKey, cells: &BTreeMap<u32, MibValue>) -> Result<Option<NatRow>, RouterError> {
    let cells = Cells { key, cells };
    let Some(status) = cells.integer(profile.status_column)? else {
        return Ok(None);
    };
    let status = match status {
        1 => RowStatus::Active,
        2 => RowStatus::NotInService,
        3 => RowStatus::NotReady,
        other => return Err(cells.malformed(profile.status_column, &format!("status {other}"))),
    };
    let read = &profile.read;
    let name = match read.name {
        Some(column) => cells.octets(column)?.map(printable).unwrap_or_default(),
        None => profile.map_name.clone(),
    };
    let is_static = match read.entry_type {
        Some(column) => cells.integer(column)? == Some(1),
        None => true,
    };
    Ok(Some(NatRow {
        name,
        is_static,
        inside: cells.addresses(read.inside)?,
        mapped: cells.addresses(read.mapped)?,
        inside_ports: cells.ports(read.inside_ports)?,
        mapped_ports: cells.ports(read.mapped_ports)?,
        status,
    }))
}

/// Names of foreign rows may hold anything; what XML 1.0 cannot carry becomes U+FFFD.
fn printable(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets)
        .chars()
        .map(|character| match character {
            '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
            other if other.is_control() => char::REPLACEMENT_CHARACTER,
            other => other,
        })
        .collect()
}

struct Cells<'a> {
    key: RowKey,
    cells: &'a BTreeMap<u32, MibValue>,
}

impl Cells<'_> {
    fn malformed(&self, column: u32, what: &str) -> RouterError {
        RouterError::Malformed {
            reason: format!("column {column} of row {} on interface {}: {what}", self.key.index, self.key.interface),
        }
    }

    fn integer(&self, column: u32) -> Result<Option<i32>, RouterError> {
        match self.cells.get(&column) {
            None => Ok(None),
            Some(MibValue::Integer(value)) => Ok(Some(*value)),
            Some(other) => Err(self.malformed(column, &format!("expected INTEGER, got {other:?}"))),
        }
    }

    fn octets(&self, column: u32) -> Result<Option<&[u8]>, RouterError> {
        match self.cells.get(&column) {
            None => Ok(None),
            Some(MibValue::Octets(octets)) => Ok(Some(octets)),
            Some(other) => Err(self.malformed(column, &format!("expected OCTET STRING, got {other:?}"))),
        }
    }

    fn address(&self, column: u32) -> Result<Option<Ipv4Addr>, RouterError> {
        match self.octets(column)? {
            // An IPv6 or empty address belongs to a row that is not ours; it reads as unset.
            Some(octets) => Ok(<[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)),
            None => Ok(None),
        }
    }

    fn addresses(&self, columns: (u32, u32)) -> Result<Option<AddressRange>, RouterError> {
        let (first, last) = (self.address(columns.0)?, self.address(columns.1)?);
        Ok(match (first, last) {
            (Some(first), Some(last)) if first <= last => Some(AddressRange { first, last }),
            (Some(first), None) => Some(AddressRange::single(first)),
            _ => None,
        })
    }

    fn ports(&self, columns: Option<(u32, u32)>) -> Result<PortRange, RouterError> {
        let Some((first, last)) = columns else {
            return Ok(PortRange::default());
        };
        let port = |column| match self.cells.get(&column) {
            None => Ok(0),
            Some(MibValue::Unsigned(value)) => Ok(*value),
            Some(MibValue::Integer(value)) => Ok(u32::try_from(*value).unwrap_or(0)),
            Some(other) => Err(self.malformed(column, &format!("expected a port, got {other:?}"))),
        };
        Ok(PortRange { first: port(first)?, last: port(last)? })
    }
}

/// What an SNMP error status means here (RFC 3416), for the operation on `row`.
///
/// `column` is the column of the variable binding that the error index named, if it named one.
#[must_use]
pub fn meaning(profile: &VendorProfile, interface: u32, row: u32, status: i32, column: Option<u32>) -> RouterError {
    let object = || column.map_or_else(|| "the row".to_owned(), |column| profile.column_name(column));
    match status {
        1 => RouterError::TooBig,
        5 => RouterError::RouterFault { object: object() },
        6 => RouterError::NoAccess { object: object() },
        12 => RouterError::InUse { row, object: object() },
        13 => RouterError::TableFull,
        14 => RouterError::CommitFailed,
        15 => RouterError::HalfDone,
        16 => RouterError::Unauthorised {
            router: "this address".to_owned(),
            reason: "authorizationError, the user's security level is too low".to_owned(),
        },
        4 | 17 => RouterError::NotWritable { object: object() },
        11 | 18 => RouterError::UnknownInterface { interface },
        other => RouterError::Refused { object: object(), status: status_name(other) },
    }
}

/// Whether createAndWait may succeed where createAndGo got this status: some routers take no whole
/// row at once (inconsistentValue, wrongValue, genErr) or no message of that size (tooBig).
#[must_use]
pub fn may_succeed_in_steps(status: i32) -> bool {
    matches!(status, 1 | 5 | 10 | 12)
}

fn status_name(status: i32) -> String {
    match status {
        2 => "noSuchName".to_owned(),
        3 => "badValue".to_owned(),
        7 => "wrongType".to_owned(),
        8 => "wrongLength".to_owned(),
        9 => "wrongEncoding".to_owned(),
        10 => "wrongValue".to_owned(),
        other => format!("error status {other}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::router::index::RowGeneration;

    fn row_index(sequence: u32) -> RowIndex {
        RowIndex::new(RowGeneration::new(1, 0).unwrap(), sequence).unwrap()
    }

    #[test]
    fn a_created_row_reads_back_as_the_binding() {
        let profile = VendorProfile::nat_mib();
        let (inside, mapped) = (Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(198, 51, 100, 65));
        let mut bindings = create_and_go(&profile, 2, row_index(7), inside, mapped);
        assert_eq!(bindings.len(), 16);
        let (identifier, value) = bindings.pop().unwrap();
        assert_eq!(identifier, vec![1, 3, 6, 1, 2, 1, 123, 1, 4, 1, 21, 2, 4_194_311]);
        assert_eq!(value, MibValue::Integer(4));
        bindings.push((identifier, MibValue::Integer(1)));
        bindings.reverse();
        let table = table(&profile, bindings).unwrap();
        let key = RowKey { interface: 2, index: 4_194_311 };
        assert_eq!(table.rows, BTreeMap::from([(key, NatRow::one_to_one("branchline", inside, mapped))]));
    }

    #[test]
    fn half_read_and_strange_rows_do_not_break_the_table() {
        let profile = VendorProfile::nat_mib();
        let cell = |column, index, value| (instance(&profile, column, 2, index), value);
        let read = table(
            &profile,
            [
                cell(6, 1, MibValue::Octets(vec![10, 0, 0, 1])),
                cell(21, 2, MibValue::Integer(3)),
                cell(6, 3, MibValue::Octets(vec![0; 16])),
                cell(21, 3, MibValue::Integer(1)),
                (vec![1, 3, 6], MibValue::Integer(9)),
            ],
        )
        .unwrap();
        assert_eq!(read.rows.len(), 2, "the row without a status is left out");
        assert!(read.rows.values().all(|row| row.inside.is_none()));
        let error = table(&profile, [cell(21, 2, MibValue::Octets(vec![1]))]).unwrap_err();
        assert!(error.to_string().contains("column 21 of row 2"), "{error}");
    }

    #[test]
    fn every_status_of_the_lab_has_its_meaning() {
        let profile = VendorProfile::nat_mib();
        let lines: Vec<String> = [1, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18]
            .into_iter()
            .map(|status| {
                let error = meaning(&profile, 2, 9, status, Some(11));
                format!("{status}: {error} -> {}", error.next_step())
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn the_current_binding_is_indexed_by_the_inside_address() {
        let profile = VendorProfile::nat_mib();
        assert_eq!(
            binding_object(&profile, 2, Ipv4Addr::new(10, 1, 0, 10)).unwrap(),
            vec![1, 3, 6, 1, 2, 1, 123, 1, 6, 1, 4, 2, 1, 4, 10, 1, 0, 10]
        );
    }
}
