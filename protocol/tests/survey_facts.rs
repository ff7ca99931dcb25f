//! The book's page of facts says what is so: its names are there, and its examples are rules.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use branchline_protocol::catalogue::rule::{Facts, Rule};
use branchline_protocol::survey::fixtures;

const PAGE: &str = include_str!("../../docs/src/protocol/facts.md");

/// The names in the first column of the table, without the placeholder of a signature's name.
fn documented_names() -> Vec<String> {
    let mut names = Vec::new();
    for row in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let mut before = String::new();
        for name in row.split('|').nth(1).unwrap().split(',').map(|name| name.trim().trim_matches('`')) {
            let name = match name.strip_prefix('.') {
                Some(member) => format!("{before}.{member}"),
                None => name.to_owned(),
            };
            before = name.rsplit_once('.').map_or_else(String::new, |(parent, _)| parent.to_owned());
            names.push(name);
        }
    }
    names.retain(|name| !name.contains("NAME"));
    names
}

#[test]
fn every_documented_fact_is_there_and_every_fact_is_documented() {
    let facts = fixtures::clustered_host().facts();
    let names = documented_names();
    assert!(names.len() > 30, "{names:?}");
    for name in &names {
        let pointer = format!("/{}", name.replace('.', "/"));
        assert!(facts.pointer(&pointer).is_some(), "{name} is documented, and not there");
    }
    for (section, value) in facts.as_object().unwrap() {
        let whole = names.contains(section) || section == "signatures";
        let members = value.as_object().into_iter().flat_map(|object| object.keys());
        for name in members.map(|member| format!("{section}.{member}")) {
            assert!(whole || names.contains(&name), "{name} is there, and not documented");
        }
        assert!(whole || value.is_object(), "{section} is there, and not documented");
    }
}

#[test]
fn the_examples_are_rules_that_every_host_answers() {
    let (_, rest) = PAGE.split_once("```text\n").unwrap();
    let (examples, _) = rest.split_once("```").unwrap();
    let further = ["has(signatures.coffee)", "host.memory_bytes > 1073741824", "host.cpu_count == 2"];
    for text in examples.lines().chain(further) {
        let rule = Rule::try_from(text).unwrap().compile().unwrap();
        for host in [fixtures::plain_host(), fixtures::network_storage_host(), fixtures::clustered_host()] {
            rule.holds(&Facts::new(host.facts())).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
