//! The strict reader and the published schema give the same verdict, on good and on bad documents (R46, bad input).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod survey_support;

use branchline_protocol::limits;
use branchline_protocol::survey::{Descriptor, fixtures};
use survey_support::schema_verdict;

/// What is replaced in a good document, by what, and whether the result is still good.
const MUTATIONS: &[(&str, &str, bool)] = &[
    // Still good.
    ("<host>", "<!-- a comment --><host>", true),
    ("hostname=\"files-1\"", "hostname='files-1'", true),
    ("hostname=\"files-1\"", "hostname = \"files-1\"", true),
    ("hostname=\"files-1\"", "hostname=\"&#x66;iles\"", true),
    ("hostname=\"files-1\"", "hostname=\"a\nb\"", true),
    ("<thresholds>", "\t\r\n<thresholds>", true),
    ("prefix_length=\"24\"", "prefix_length=\"128\"", true),
    ("prefix_length=\"24\"", "", true),
    (" vendor=\"QEMU\"", "", true),
    ("value=\"30\"", "value=\"-0.5\"", true),
    ("cpu_count=\"2\"", "cpu_count=\"999999\"", true),
    ("number=\"22\"", "number=\"65535\"", true),
    ("<disk name=\"vda\" size_bytes=\"21474836480\" rotational=\"false\"/>", "", true),
    // Values.
    ("cpu_count=\"2\"", "cpu_count=\"0\"", false),
    ("cpu_count=\"2\"", "cpu_count=\" 2\"", false),
    ("cpu_count=\"2\"", "cpu_count=\"+2\"", false),
    ("cpu_count=\"2\"", "cpu_count=\"02\"", false),
    ("cpu_count=\"2\"", "cpu_count=\"two\"", false),
    ("cpu_count=\"2\"", "cpu_count=\"1000000\"", false),
    ("memory_bytes=\"4294967296\"", "memory_bytes=\"-1\"", false),
    ("memory_bytes=\"4294967296\"", "memory_bytes=\"10000000000000000000\"", false),
    ("number=\"22\"", "number=\"65536\"", false),
    ("number=\"22\"", "number=\"0\"", false),
    ("prefix_length=\"24\"", "prefix_length=\"129\"", false),
    ("rotational=\"false\"", "rotational=\"0\"", false),
    ("value=\"30\"", "value=\"1e3\"", false),
    ("value=\"30\"", "value=\"\"", false),
    ("hostname=\"files-1\"", "hostname=\"\"", false),
    ("hostname=\"files-1\"", "hostname=\"a&#10;b\"", false),
    ("hostname=\"files-1\"", "hostname=\"a&#9;b\"", false),
    ("taken_at=\"2026-01-31T12:00:00Z\"", "taken_at=\"2026-01-31\"", false),
    ("taken_at=\"2026-01-31T12:00:00Z\"", "taken_at=\"2026-01-31T12:00:00+01:00\"", false),
    ("mode=\"discovery\"", "mode=\"Discovery\"", false),
    ("family=\"ipv4\"", "family=\"ipv5\"", false),
    ("system_kind=\"virtual\"", "system_kind=\"\"", false),
    ("severity=\"warning\"", "severity=\"fatal\"", false),
    ("kind=\"nfs\"", "kind=\"NFS\"", false),
    ("name=\"cpu\" need", "name=\"1cpu\" need", false),
    ("script_hash=\"ab", "script_hash=\"AB", false),
    ("script_hash=\"ab", "script_hash=\"", false),
    // Attributes and elements.
    ("cpu_count=\"2\"", "", false),
    ("cpu_count=\"2\"", "cpu_count=\"2\" colour=\"red\"", false),
    ("cpu_count=\"2\"", "cpu_count=\"2\" cpu_count=\"2\"", false),
    ("<disks>", "<disks total=\"1\">", false),
    ("<packages total=\"1\">", "<packages>", false),
    ("<host>", "<host name=\"x\">", false),
    ("<thresholds>", "<thresholds/><thresholds>", false),
    ("<conflicts>", "<extra/><conflicts>", false),
    ("<identity hostname=\"files-1\" machine_id=\"0123456789abcdef0123456789abcdef\"/>", "", false),
    ("<port number=\"22\" scope=\"any\"/>", "<door/>", false),
    ("<port number=\"22\" scope=\"any\"/>", "<port number=\"22\" scope=\"any\"><port/></port>", false),
    ("<port number=\"22\" scope=\"any\"/>", "<port number=\"22\" scope=\"any\">22</port>", false),
    ("<host>", "<host>text", false),
    ("urn:branchline:descriptor:1", "urn:branchline:descriptor:2", false),
    (" xmlns=\"urn:branchline:descriptor:1\"", "", false),
    // Not well-formed.
    ("</descriptor>", "", false),
    ("</descriptor>", "</descriptor><descriptor/>", false),
    ("</descriptor>", "</descriptor>text", false),
    ("</host>", "</hosts>", false),
    ("hostname=\"files-1\"", "hostname=files-1", false),
    ("hostname=\"files-1\"", "hostname=\"files-1", false),
    ("hostname=\"files-1\"", "hostname=\"<\"", false),
    ("hostname=\"files-1\"", "hostname=\"&\"", false),
    ("hostname=\"files-1\"", "hostname=\"&joker;\"", false),
    ("hostname=\"files-1\"", "hostname=\"&#1;\"", false),
    ("hostname=\"files-1\"", "hostname=\"&#xFFFE;\"", false),
    ("hostname=\"files-1\"", "hostname=\"\u{1}\"", false),
    ("hostname=\"files-1\"", "hostname=\"files-1\"role=\"x\"", false),
    ("<host>", "<!-- a -- b --><host>", false),
    ("<?xml version=\"1.0\"", " <?xml version=\"1.0\"", false),
    ("<host>", "<host>&amp;", false),
];

/// What the schema cannot forbid, and the reader does: the constructs that attacks on readers are made of.
const STRICTER: &[(&str, &str)] = &[
    ("<descriptor ", "<!DOCTYPE descriptor [<!ENTITY a \"b\">]><descriptor "),
    ("<descriptor ", "<!DOCTYPE descriptor SYSTEM \"file:///etc/passwd\"><descriptor "),
    ("<host>", "<?php echo 1 ?><host>"),
    ("<descriptor ", "<descriptor xmlns:x=\"urn:x\" "),
    ("<host>", "<host><![CDATA[ ]]>"),
    ("encoding=\"UTF-8\"", "encoding=\"ISO-8859-1\""),
];

#[test]
fn reader_and_schema_agree() {
    let document = fixtures::network_storage_host().print();
    for (from, to, good) in MUTATIONS {
        let changed = document.replacen(from, to, 1);
        assert_ne!(changed, document, "{from:?} is not in the document");
        let read = Descriptor::parse(changed.as_bytes());
        assert_eq!(read.is_ok(), *good, "the reader on {from:?} -> {to:?}: {:?}", read.err());
        if let Some((valid, complaint)) = schema_verdict(changed.as_bytes()) {
            assert_eq!(valid, *good, "the schema on {from:?} -> {to:?}: {complaint}");
        }
    }
}

#[test]
fn the_reader_refuses_more_than_the_schema_can() {
    let document = fixtures::plain_host().print();
    for (from, to) in STRICTER {
        let changed = document.replacen(from, to, 1);
        assert_ne!(changed, document, "{from:?} is not in the document");
        assert!(Descriptor::parse(changed.as_bytes()).is_err(), "{from:?} -> {to:?}");
    }
    let latin = document.replace("host-1", "h\u{e9}").into_bytes();
    let latin: Vec<u8> = latin.iter().copied().filter(|byte| *byte != 0xc3).collect();
    assert!(Descriptor::parse(&latin).is_err(), "not UTF-8");
}

#[test]
fn reader_and_schema_agree_at_the_bounds() {
    let good = fixtures::plain_host();
    let mut full = good.clone();
    full.host.packages.list = vec![full.host.packages.list[0].clone(); limits::SURVEY_PACKAGES_MAX];
    full.host.software.list = vec![full.host.software.list[0].clone(); limits::SURVEY_PROCESSES_MAX];
    full.host.identity.hostname = "\u{1d11e}".repeat(limits::SURVEY_LINE_CHARACTERS_MAX);
    let mut one_package_more = full.clone();
    one_package_more.host.packages.list.push(good.host.packages.list[0].clone());
    let mut one_character_more = full.clone();
    one_character_more.host.identity.hostname.push('a');
    for (descriptor, expected) in [(&full, true), (&one_package_more, false), (&one_character_more, false)] {
        let print = descriptor.print();
        assert_eq!(Descriptor::parse(print.as_bytes()).is_ok(), expected);
        if let Some((valid, complaint)) = schema_verdict(print.as_bytes()) {
            assert_eq!(valid, expected, "{complaint}");
        }
    }
}
