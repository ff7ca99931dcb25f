//! What a router driver promises, and the words of NAT programming (R110-R113, R115).
//!
//! Nothing here touches a network. [`driver`] holds operations, results and errors as plain data;
//! [`index`] the layout of row indexes, which are never used twice; [`profile`] what differs
//! between vendors, as data; [`mib`] turns operations into variable bindings and back;
//! [`table_xml`] is the local copy of the router's table (R112). The decisions are made in
//! [`crate::addresses`]; sockets are in the node.

pub mod driver;
pub mod index;
pub mod mib;
pub mod profile;
pub mod table_xml;

pub use driver::{
    AddressRange, DriverProperties, NatRow, NatTable, PortRange, RouterError, RouterOperation, RouterResult, RowKey,
    RowStatus,
};
pub use index::{RowGeneration, RowIndex, RowIndexError};
pub use profile::VendorProfile;
