//! Any descriptor survives its print, and no document makes the reader panic (R46).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use branchline_protocol::limits;
use branchline_protocol::survey::descriptor::*;
use branchline_protocol::survey::words::*;
use branchline_protocol::survey::{Descriptor, DescriptorError, XSD, fixtures};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn line() -> impl Strategy<Value = String> {
    // Every character of XML 1.0 but tab and line ends; the markup characters often.
    vec(
        prop_oneof![
            Just('&'),
            Just('<'),
            Just('>'),
            Just('"'),
            Just('\''),
            Just(' '),
            Just(']'),
            any::<char>().prop_filter("not in XML", |c| { !matches!(c, '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}') }),
        ],
        1..24,
    )
    .prop_map(|characters| characters.into_iter().collect())
}

fn identifier() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_-]{0,12}"
}

fn word<T: Vocabulary + std::fmt::Debug>() -> impl Strategy<Value = T> {
    (0..T::WORDS.len()).prop_map(|index| T::WORDS[index].1)
}

fn integer() -> impl Strategy<Value = u64> {
    0..=9_999_999_999_999_999_999_u64
}

prop_compose! {
    fn hardware()(
        architecture in line(), machine in line(), cpu_count in 1..=999_999_u32, memory_bytes in integer(),
        system_kind in word(), vendor in option::of(line()), model in option::of(line()),
    ) -> Hardware {
        Hardware { architecture, machine, cpu_count, memory_bytes, system_kind, vendor, model }
    }
}

prop_compose! {
    fn operating_system()(
        id in line(), version in option::of(line()), version_id in option::of(line()),
        pretty_name in option::of(line()), kernel in line(), init in word(), package_manager in word(),
    ) -> OperatingSystem {
        OperatingSystem { id, version, version_id, pretty_name, kernel, init, package_manager }
    }
}

prop_compose! {
    fn address()(
        interface in option::of(line()), family in word(), value in line(), prefix_length in option::of(0..=128_u8),
    ) -> Address {
        Address { interface, family, value, prefix_length }
    }
}

prop_compose! {
    fn filesystem()(
        mount_point in line(), source in option::of(line()), kind in option::of(line()),
        size_bytes in integer(), free_bytes in integer(),
    ) -> Filesystem {
        Filesystem { mount_point, source, kind, size_bytes, free_bytes }
    }
}

prop_compose! {
    fn item()(kind in identifier(), facts in vec((identifier(), line()), 0..4)) -> Item {
        Item { kind, facts: facts.into_iter().map(|(name, value)| Fact { name, value }).collect() }
    }
}

prop_compose! {
    fn signature()(name in identifier(), mode in word(), detected in any::<bool>(), items in vec(item(), 0..3)) -> Signature {
        Signature { name, mode, detected, items }
    }
}

prop_compose! {
    fn host()(
        hostname in line(), machine_id in option::of(line()),
        addresses in vec(address(), 0..3), hardware in hardware(), operating_system in operating_system(),
        disks in vec((line(), integer(), any::<bool>()), 0..3), filesystems in vec(filesystem(), 0..3),
        packages in (integer(), vec((line(), line()), 0..4)), software in (integer(), vec((line(), 1..=999_999_u32, line()), 0..4)),
        ports in vec((1..=u16::MAX, word()), 0..4), signatures in vec(signature(), 0..3),
    ) -> Host {
        Host {
            identity: Identity { hostname, machine_id },
            addresses,
            hardware,
            operating_system,
            disks: disks.into_iter().map(|(name, size_bytes, rotational)| Disk { name, size_bytes, rotational }).collect(),
            filesystems,
            packages: Packages {
                total: packages.0,
                list: packages.1.into_iter().map(|(name, version)| Package { name, version }).collect(),
            },
            software: Software {
                total: software.0,
                list: software.1.into_iter().map(|(name, count, command)| Process { name, count, command }).collect(),
            },
            listening_ports: ports.into_iter().map(|(number, scope)| ListeningPort { number, scope }).collect(),
            signatures,
        }
    }
}

prop_compose! {
    fn threshold()(
        module in identifier(), name in identifier(), value in "-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,6})?",
        unit in identifier(), reason in line(), signature in identifier(),
    ) -> ThresholdAdvice {
        ThresholdAdvice { module, name, value, unit, reason, signature }
    }
}

prop_compose! {
    fn installation()(
        commands in vec((line(), line()), 0..3), conflicts in vec((identifier(), word(), line(), line()), 0..3),
    ) -> Installation {
        Installation {
            commands: commands.into_iter().map(|(line, purpose)| PlannedCommand { line, purpose }).collect(),
            conflicts: conflicts
                .into_iter()
                .map(|(kind, severity, subject, reason)| Conflict { kind, severity, subject, reason })
                .collect(),
        }
    }
}

prop_compose! {
    fn descriptor()(
        survey_version in line(), script_hash in "[0-9a-f]{64}", mode in word(), root in line(), host in host(),
        modules in vec((identifier(), word(), line(), identifier()), 0..3), thresholds in vec(threshold(), 0..3),
        installation in installation(),
    ) -> Descriptor {
        Descriptor {
            survey_version,
            script_hash,
            mode,
            taken_at: "2026-01-31T23:59:59Z".into(),
            root,
            host,
            modules: modules
                .into_iter()
                .map(|(name, need, reason, signature)| ModuleAdvice { name, need, reason, signature })
                .collect(),
            thresholds,
            installation,
        }
    }
}

proptest! {
    #[test]
    fn parse_of_print_is_the_descriptor(descriptor in descriptor()) {
        let print = descriptor.print();
        let again = Descriptor::parse(print.as_bytes()).unwrap();
        prop_assert_eq!(&again, &descriptor);
        prop_assert_eq!(again.print(), print);
        prop_assert_eq!(again.content_hash(), descriptor.content_hash());
    }

    #[test]
    fn facts_are_made_of_any_descriptor(descriptor in descriptor()) {
        prop_assert!(descriptor.facts().is_object());
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Descriptor::parse(&bytes);
    }

    #[test]
    fn any_damage_is_refused_or_harmless(place in any::<prop::sample::Index>(), removed in 0..40_usize, inserted in "[<>&\"'a-z /=?!\\[\\]-]{0,6}") {
        let document = fixtures::network_storage_host().print();
        let start = place.index(document.len());
        let end = (start + removed).min(document.len());
        let damaged = format!("{}{inserted}{}", &document[..start], &document[end..]);
        if let Ok(descriptor) = Descriptor::parse(damaged.as_bytes()) {
            prop_assert_eq!(Descriptor::parse(descriptor.print().as_bytes()).unwrap(), descriptor);
        }
    }
}

#[test]
fn fixtures_are_valid() {
    for descriptor in [fixtures::plain_host(), fixtures::network_storage_host(), fixtures::clustered_host()] {
        descriptor.check().unwrap();
    }
}

#[test]
fn the_print_is_readable() {
    insta::assert_snapshot!(fixtures::network_storage_host().print());
}

#[test]
fn the_schema_states_the_same_bounds() {
    for (element, limit) in [
        ("address", limits::SURVEY_ADDRESSES_MAX),
        ("disk", limits::SURVEY_DISKS_MAX),
        ("filesystem", limits::SURVEY_FILESYSTEMS_MAX),
        ("package", limits::SURVEY_PACKAGES_MAX),
        ("process", limits::SURVEY_PROCESSES_MAX),
        ("port", limits::SURVEY_PORTS_MAX),
        ("signature", limits::SURVEY_SIGNATURES_MAX),
        ("item", limits::SURVEY_ITEMS_MAX),
        ("fact", limits::SURVEY_ITEM_FACTS_MAX),
        ("module", limits::SURVEY_MODULES_MAX),
        ("threshold", limits::SURVEY_THRESHOLDS_MAX),
        ("command", limits::SURVEY_COMMANDS_MAX),
        ("conflict", limits::SURVEY_CONFLICTS_MAX),
    ] {
        let text = format!("<xs:element name=\"{element}\" type=\"{element}\" minOccurs=\"0\" maxOccurs=\"{limit}\"/>");
        assert!(XSD.contains(&text), "{text}");
    }
    for limit in [limits::SURVEY_LINE_CHARACTERS_MAX, limits::SURVEY_COMMAND_CHARACTERS_MAX] {
        assert!(XSD.contains(&format!("<xs:maxLength value=\"{limit}\"/>")), "{limit}");
    }
}

#[test]
fn oversized_input_is_refused_unread() {
    let document = vec![b' '; limits::DESCRIPTOR_BYTES_MAX + 1];
    assert!(matches!(Descriptor::parse(&document), Err(DescriptorError::TooLarge { .. })));
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    let document = fixtures::network_storage_host().print();
    let mut messages = String::new();
    for (from, to) in [
        ("cpu_count=\"2\"", "cpu_count=\"two\""),
        ("cpu_count=\"2\"", ""),
        ("cpu_count=\"2\"", "cpu_count=\"2\" colour=\"red\""),
        ("<disks>", "<discs>"),
        ("need=\"required\"", "need=\"perhaps\""),
        ("<port number=\"22\" scope=\"any\"/>", "<port number=\"22\" scope=\"any\"/><door/>"),
        ("urn:branchline:descriptor:1", "urn:branchline:descriptor:2"),
        ("<host>", "<!DOCTYPE a><host>"),
        ("<host>", "<host>text"),
        ("<host>", "<host>&amp;"),
        ("<host>", "<?php 1 ?><host>"),
        ("<host>", "<host><![CDATA[ ]]>"),
        ("hostname=\"files-1\"", "hostname=\"&joker;\""),
        ("hostname=\"files-1\"", "hostname=\"&#1;\""),
        ("hostname=\"files-1\"", "hostname=\"files-1\"machine=\"x\""),
    ] {
        let damaged = document.replacen(from, to, 1);
        assert_ne!(damaged, document, "{from}");
        messages += &format!("{}\n", Descriptor::parse(damaged.as_bytes()).unwrap_err());
    }
    insta::assert_snapshot!(messages);
}
