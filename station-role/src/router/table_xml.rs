//! The router's table as XML, kept locally (R112).
//!
//! ```xml
//! <?xml version="1.0" encoding="UTF-8"?>
//! <nat-table xmlns="urn:branchline:nat-table:1" router="127.0.0.1:1161" driver="snmp nat-mib" read-at-milliseconds="0">
//!   <row interface="2" index="4194305" name="branchline" static="true" status="active"
//!        inside="10.1.0.10" mapped="198.51.100.65"/>
//! </nat-table>
//! ```
//!
//! Ranges are written `first-last`. Ports are left out where they are 0, as in basic NAT.

use std::net::Ipv4Addr;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, Event};
use quick_xml::{Reader, Writer};

use super::driver::{AddressRange, MAX_TABLE_ROWS, NatRow, NatTable, PortRange, RowKey, RowStatus};

/// Namespace of the document.
pub const NAMESPACE: &str = "urn:branchline:nat-table:1";

/// A table together with whose it is and when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDocument {
    /// Address of the router as configured.
    pub router: String,
    /// The driver and its profile; empty in files of versions that did not write it.
    pub driver: String,
    /// Wall clock of the read, milliseconds since the epoch of Unix.
    pub read_at_milliseconds: u64,
    /// The table.
    pub table: NatTable,
}

/// Why a document was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TableXmlError {
    /// Not well-formed.
    #[error("the NAT table's XML is not well-formed: {0}; delete the file, the next read writes it anew")]
    Xml(#[from] quick_xml::Error),
    /// An attribute is not well-formed.
    #[error(
        "an attribute in the NAT table's XML is not well-formed: {0}; delete the file, the next read writes it anew"
    )]
    Attribute(#[from] quick_xml::events::attributes::AttrError),
    /// Could not be written.
    #[error("the NAT table could not be written as XML: {0}")]
    Write(#[from] std::io::Error),
    /// Well-formed, but not such a document.
    #[error("the NAT table's XML is wrong at {element}: {reason}; delete the file, the next read writes it anew")]
    Content {
        /// The element.
        element: String,
        /// What is wrong.
        reason: String,
    },
}

/// Prints a document; rows in ascending order of their key.
///
/// # Errors
/// [`TableXmlError::Write`] only, which memory does not give.
pub fn print(document: &TableDocument) -> Result<String, TableXmlError> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let mut root = BytesStart::new("nat-table");
    root.push_attribute(("xmlns", NAMESPACE));
    root.push_attribute(("router", document.router.as_str()));
    root.push_attribute(("driver", document.driver.as_str()));
    root.push_attribute(("read-at-milliseconds", document.read_at_milliseconds.to_string().as_str()));
    writer.write_event(Event::Start(root))?;
    for (key, row) in &document.table.rows {
        writer.write_event(Event::Empty(row_element(*key, row)))?;
    }
    writer.write_event(Event::End(BytesEnd::new("nat-table")))?;
    let mut bytes = writer.into_inner();
    bytes.push(b'\n');
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn row_element(key: RowKey, row: &NatRow) -> BytesStart<'static> {
    let mut element = BytesStart::new("row");
    let mut put = |name: &str, value: String| element.push_attribute((name, value.as_str()));
    put("interface", key.interface.to_string());
    put("index", key.index.to_string());
    put("name", row.name.clone());
    put("static", row.is_static.to_string());
    put("status", status_word(row.status).to_owned());
    for (name, range) in [("inside", row.inside), ("mapped", row.mapped)] {
        if let Some(range) = range {
            put(name, range.to_string());
        }
    }
    for (name, ports) in [("inside-ports", row.inside_ports), ("mapped-ports", row.mapped_ports)] {
        if ports != PortRange::default() {
            put(name, format!("{}-{}", ports.first, ports.last));
        }
    }
    element
}

fn status_word(status: RowStatus) -> &'static str {
    match status {
        RowStatus::Active => "active",
        RowStatus::NotInService => "not-in-service",
        RowStatus::NotReady => "not-ready",
    }
}

/// Reads a document that [`print()`] made.
///
/// # Errors
/// [`TableXmlError`] for anything else; nothing is guessed.
pub fn parse(text: &str) -> Result<TableDocument, TableXmlError> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().trim_text(true);
    let mut document: Option<TableDocument> = None;
    let mut closed = false;
    loop {
        match reader.read_event()? {
            Event::Decl(_) | Event::Comment(_) => {}
            Event::Start(element) if document.is_none() && name(&element) == "nat-table" => {
                document = Some(root(&element)?);
            }
            Event::Empty(element) if document.is_none() && name(&element) == "nat-table" => {
                document = Some(root(&element)?);
                closed = true;
            }
            Event::Empty(element) if !closed && name(&element) == "row" => {
                let Some(document) = document.as_mut() else {
                    return Err(content("row", "outside nat-table"));
                };
                let (key, row) = row(&element)?;
                if document.table.rows.insert(key, row).is_some() {
                    return Err(content("row", &format!("index {} twice", key.index)));
                }
                if document.table.rows.len() > MAX_TABLE_ROWS {
                    return Err(content("nat-table", "too many rows"));
                }
            }
            Event::End(_) if document.is_some() && !closed => closed = true,
            Event::Eof => break,
            other => return Err(content("nat-table", &format!("unexpected {other:?}"))),
        }
    }
    match (document, closed) {
        (Some(document), true) => Ok(document),
        _ => Err(content("nat-table", "missing or not closed")),
    }
}

fn name(element: &BytesStart<'_>) -> String {
    element.name().as_ref().to_owned()
}

fn content(element: &str, reason: &str) -> TableXmlError {
    TableXmlError::Content { element: element.to_owned(), reason: reason.to_owned() }
}

fn attribute(element: &BytesStart<'_>, wanted: &str) -> Result<Option<String>, TableXmlError> {
    for attribute in element.attributes() {
        let attribute = attribute?;
        if attribute.key.as_ref() == wanted {
            let value = attribute.normalized_value(XmlVersion::Explicit1_0)?;
            return Ok(Some(value.into_owned()));
        }
    }
    Ok(None)
}

fn required(element: &BytesStart<'_>, wanted: &str) -> Result<String, TableXmlError> {
    attribute(element, wanted)?.ok_or_else(|| content(&name(element), &format!("attribute {wanted} is missing")))
}

fn number<T: std::str::FromStr>(element: &BytesStart<'_>, wanted: &str) -> Result<T, TableXmlError> {
    let text = required(element, wanted)?;
    text.parse().map_err(|_| content(&name(element), &format!("{wanted} is not valid: {text:?}")))
}

fn root(element: &BytesStart<'_>) -> Result<TableDocument, TableXmlError> {
    let namespace = required(element, "xmlns")?;
    if namespace != NAMESPACE {
        return Err(content("nat-table", &format!("unknown namespace {namespace:?}")));
    }
    Ok(TableDocument {
        router: required(element, "router")?,
        driver: attribute(element, "driver")?.unwrap_or_default(),
        read_at_milliseconds: number(element, "read-at-milliseconds")?,
        table: NatTable::default(),
    })
}

fn row(element: &BytesStart<'_>) -> Result<(RowKey, NatRow), TableXmlError> {
    let key = RowKey { interface: number(element, "interface")?, index: number(element, "index")? };
    let status = match required(element, "status")?.as_str() {
        "active" => RowStatus::Active,
        "not-in-service" => RowStatus::NotInService,
        "not-ready" => RowStatus::NotReady,
        other => return Err(content("row", &format!("unknown status {other:?}"))),
    };
    let row = NatRow {
        name: required(element, "name")?,
        is_static: number(element, "static")?,
        inside: addresses(element, "inside")?,
        mapped: addresses(element, "mapped")?,
        inside_ports: ports(element, "inside-ports")?,
        mapped_ports: ports(element, "mapped-ports")?,
        status,
    };
    Ok((key, row))
}

fn halves<T: std::str::FromStr>(element: &BytesStart<'_>, wanted: &str) -> Result<Option<(T, T)>, TableXmlError> {
    let Some(text) = attribute(element, wanted)? else {
        return Ok(None);
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) => Ok(Some((first, last))),
        _ => Err(content("row", &format!("{wanted} is no range: {text:?}"))),
    }
}

fn addresses(element: &BytesStart<'_>, wanted: &str) -> Result<Option<AddressRange>, TableXmlError> {
    let range = halves::<Ipv4Addr>(element, wanted)?;
    Ok(range.map(|(first, last)| AddressRange { first, last }))
}

fn ports(element: &BytesStart<'_>, wanted: &str) -> Result<PortRange, TableXmlError> {
    let range = halves::<u32>(element, wanted)?;
    Ok(range.map_or_else(PortRange::default, |(first, last)| PortRange { first, last }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn range() -> impl Strategy<Value = Option<AddressRange>> {
        prop::option::of(
            (any::<u32>(), any::<u32>())
                .prop_map(|(first, last)| AddressRange { first: Ipv4Addr::from(first), last: Ipv4Addr::from(last) }),
        )
    }

    fn any_row() -> impl Strategy<Value = NatRow> {
        let status = prop::sample::select(vec![RowStatus::Active, RowStatus::NotInService, RowStatus::NotReady]);
        let ports = || (any::<u32>(), any::<u32>()).prop_map(|(first, last)| PortRange { first, last });
        ("[ -~äß€]{0,32}", any::<bool>(), range(), range(), ports(), ports(), status).prop_map(
            |(name, is_static, inside, mapped, inside_ports, mapped_ports, status)| NatRow {
                name,
                is_static,
                inside,
                mapped,
                inside_ports,
                mapped_ports,
                status,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            rows in prop::collection::btree_map((any::<u32>(), any::<u32>()), any_row(), 0..8),
            read_at_milliseconds: u64,
            driver in "[ -~]{0,32}",
        ) {
            let rows = rows.into_iter().map(|((interface, index), row)| (RowKey { interface, index }, row));
            let document = TableDocument {
                router: "127.0.0.1:1161".to_owned(),
                driver,
                read_at_milliseconds,
                table: NatTable { rows: rows.collect() },
            };
            prop_assert_eq!(parse(&print(&document).unwrap()).unwrap(), document);
        }

        #[test]
        fn nothing_makes_it_panic(text in ".{0,200}") {
            let _ = parse(&text);
            let _ = parse(&format!("<nat-table xmlns='{NAMESPACE}' router='r' read-at-milliseconds='1'>{text}"));
        }
    }

    #[test]
    fn reads_well() {
        let key = |index| RowKey { interface: 2, index };
        let document = TableDocument {
            router: "10.1.0.1:161".to_owned(),
            driver: "snmp nat-mib".to_owned(),
            read_at_milliseconds: 1_790_000_000_000,
            table: NatTable {
                rows: [
                    (
                        key(4_194_305),
                        NatRow::one_to_one("branchline", Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(198, 51, 100, 65)),
                    ),
                    (
                        key(7),
                        NatRow {
                            mapped_ports: PortRange { first: 80, last: 81 },
                            inside: None,
                            status: RowStatus::NotReady,
                            ..NatRow::one_to_one("mail & web", Ipv4Addr::LOCALHOST, Ipv4Addr::new(198, 51, 100, 2))
                        },
                    ),
                ]
                .into(),
            },
        };
        insta::assert_snapshot!(print(&document).unwrap());
    }

    #[test]
    fn a_file_of_an_earlier_version_names_no_driver() {
        let text = format!("<nat-table xmlns='{NAMESPACE}' router='10.1.0.1:161' read-at-milliseconds='1'/>");
        let document = parse(&text).unwrap();
        assert_eq!((document.router.as_str(), document.driver.as_str()), ("10.1.0.1:161", ""));
    }

    #[test]
    fn wrong_documents_are_refused_with_the_reason() {
        let head = format!("<nat-table xmlns='{NAMESPACE}' router='r' read-at-milliseconds='1'>");
        for (text, reason) in [
            (String::new(), "missing"),
            (head.clone(), ""),
            (format!("{head}<row interface='2'/></nat-table>"), "index is missing"),
            (format!("{head}<col/></nat-table>"), "unexpected"),
            ("<nat-table xmlns='x' router='r' read-at-milliseconds='1'/>".to_owned(), "namespace"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
