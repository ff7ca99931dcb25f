//! What differs between vendors, as data.
//!
//! A profile names the table, the columns to write with their contents, and the columns to read.
//! A further vendor is a further value of [`VendorProfile`], or the same in TOML; no code.

use serde::{Deserialize, Serialize};

use super::driver::DriverProperties;
use super::mib::MibValue;

/// What stands in a column of a new row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnContent {
    /// Always this value.
    Constant(MibValue),
    /// The map's name ([`VendorProfile::map_name`]).
    MapName,
    /// The inside address, 4 octets.
    InsideAddress,
    /// The mapped address, 4 octets.
    MappedAddress,
}

/// One column that is written when a row is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenColumn {
    /// Column number in the entry.
    pub column: u32,
    /// Its name, for messages.
    pub name: String,
    /// What to write.
    pub content: ColumnContent,
}

/// Column numbers to read a row by; `None` where the table has no such column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadColumns {
    /// Map name (octets).
    pub name: Option<u32>,
    /// Entry type; static is 1.
    pub entry_type: Option<u32>,
    /// First and last inside address.
    pub inside: (u32, u32),
    /// First and last mapped address.
    pub mapped: (u32, u32),
    /// First and last inside port.
    pub inside_ports: Option<(u32, u32)>,
    /// First and last mapped port.
    pub mapped_ports: Option<(u32, u32)>,
}

impl ReadColumns {
    /// All columns to read besides the status, ascending, each once.
    #[must_use]
    pub fn all(&self) -> Vec<u32> {
        let mut columns = vec![self.inside.0, self.inside.1, self.mapped.0, self.mapped.1];
        columns.extend(self.name);
        columns.extend(self.entry_type);
        for ports in [self.inside_ports, self.mapped_ports].into_iter().flatten() {
            columns.extend([ports.0, ports.1]);
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// Everything the SNMP driver must know about one make of router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VendorProfile {
    /// Name in configuration files.
    pub name: String,
    /// The map's name in every row of ours, 1 to 32 octets. A row with another name is never touched.
    pub map_name: String,
    /// Object identifier of the table's entry; instances end in column, ifIndex, row index.
    pub entry: Vec<u32>,
    /// Columns written when a row is made, in this order, without the status.
    pub written: Vec<WrittenColumn>,
    /// Columns read.
    pub read: ReadColumns,
    /// Column of the RowStatus.
    pub status_column: u32,
    /// Entry and column of a table of current bindings that shows what the router really does, if
    /// there is one: instances end in column, ifIndex, 1, 4, and the four octets of the inside address.
    pub binding: Option<(Vec<u32>, u32)>,
    /// What this make promises.
    pub properties: DriverProperties,
}

impl VendorProfile {
    /// RFC 4008 NAT-MIB `natAddrMapTable` as its text says; the profile to try first.
    #[must_use]
    pub fn nat_mib() -> Self {
        use ColumnContent::{Constant, InsideAddress, MapName, MappedAddress};
        let integer = |value| Constant(MibValue::Integer(value));
        let port = || Constant(MibValue::Unsigned(0));
        let written = [
            (2, "natAddrMapName", MapName),
            (3, "natAddrMapEntryType", integer(1)),
            // inboundDstOnly and outboundSrcOnly: both directions, seen from the public interface.
            (4, "natAddrMapTranslationEntity", Constant(MibValue::Octets(vec![0x30]))),
            (5, "natAddrMapLocalAddrType", integer(1)),
            (6, "natAddrMapLocalAddrFrom", InsideAddress),
            (7, "natAddrMapLocalAddrTo", InsideAddress),
            (8, "natAddrMapLocalPortFrom", port()),
            (9, "natAddrMapLocalPortTo", port()),
            (10, "natAddrMapGlobalAddrType", integer(1)),
            (11, "natAddrMapGlobalAddrFrom", MappedAddress),
            (12, "natAddrMapGlobalAddrTo", MappedAddress),
            (13, "natAddrMapGlobalPortFrom", port()),
            (14, "natAddrMapGlobalPortTo", port()),
            // other, icmp, udp, tcp: all protocols.
            (15, "natAddrMapProtocol", Constant(MibValue::Octets(vec![0xf0]))),
            // nonVolatile: the row survives a restart of the router.
            (20, "natAddrMapStorageType", integer(3)),
        ]
        .into_iter()
        .map(|(column, name, content)| WrittenColumn { column, name: name.to_owned(), content })
        .collect();
        Self {
            name: "nat-mib".to_owned(),
            map_name: "branchline".to_owned(),
            entry: vec![1, 3, 6, 1, 2, 1, 123, 1, 4, 1],
            written,
            read: ReadColumns {
                name: Some(2),
                entry_type: Some(3),
                inside: (6, 7),
                mapped: (11, 12),
                inside_ports: Some((8, 9)),
                mapped_ports: Some((13, 14)),
            },
            status_column: 21,
            binding: Some((vec![1, 3, 6, 1, 2, 1, 123, 1, 6, 1], 4)),
            properties: DriverProperties {
                conditional_create: true,
                atomic_rows: true,
                rows_survive_restart: true,
                reads_back: true,
            },
        }
    }

    /// The profile of a name, or `None`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        (name == "nat-mib").then(Self::nat_mib)
    }

    /// The name of a column, for messages.
    #[must_use]
    pub fn column_name(&self, column: u32) -> String {
        if column == self.status_column {
            return "the row's status".to_owned();
        }
        self.written
            .iter()
            .find(|written| written.column == column)
            .map_or_else(|| format!("column {column}"), |written| written.name.clone())
    }
}
