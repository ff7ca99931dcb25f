//! The planner's reference in the book, compared with the code.
use std::collections::BTreeMap;

use branchline_simulations::capacity::Scenario;
use serde::Deserialize;
use toml::{Table, Value};

use super::{sample, settings::Setting};

const SCENARIO_PAGE: &str = include_str!("../../../../docs/src/plan/scenario.md");
const OUTPUT_PAGE: &str = include_str!("../../../../docs/src/plan/output.md");
const PRESETS_PAGE: &str = include_str!("../../../../docs/src/plan/presets.md");

/// Everything that is required, and nothing else, in every table that there is.
const REQUIRED: &str = "
    [payload]
    size_bytes = 1
    [headquarters]
    uplink_bits_per_second = 1
    [[sites]]
    hosts = 1
    wan_bits_per_second = 1
    lan_bits_per_second = 1
    offline = { share = 0.5, return_mean_seconds = 1 }
    churn = { leave_per_hour = 1 }
    hosts_fail = { count = 1, at_seconds = 1 }
    [rollout]
    windows = [{ opens_seconds = 1, lasts_seconds = 1 }]
";

/// Headings of the page, and where their keys stand in a scenario.
const SECTIONS: [(&str, &str); 10] = [
    ("The whole scenario", ""),
    ("`[payload]`", "payload."),
    ("`[headquarters]`", "headquarters."),
    ("`[[sites]]`", "sites.0."),
    ("`[sites.offline]`", "sites.0.offline."),
    ("`[sites.churn]`", "sites.0.churn."),
    ("`[sites.hosts_fail]`", "sites.0.hosts_fail."),
    ("`[rollout]`", "rollout."),
    ("`[rollout.thresholds]`", "rollout.thresholds."),
    ("`[[rollout.windows]]`", "rollout.windows.0."),
];

/// First cells of the table below a heading, without their backquotes, with the other cells.
fn rows<'a>(page: &'a str, heading: &str) -> BTreeMap<&'a str, Vec<&'a str>> {
    let (_, below) = page.split_once(&format!("## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let section = below.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")).map(|line| {
        let mut cells = line.split(" | ");
        let key = cells.next().unwrap_or_default().trim_end_matches('`');
        (key, cells.collect())
    });
    cells.collect()
}

/// The keys that a table knows, as the refusal of an unknown one names them.
fn known(prefix: &str) -> Vec<String> {
    let mut table: Table = toml::from_str(REQUIRED).unwrap();
    let unknown: Setting = format!("{prefix}no_such_key=1").parse().unwrap();
    unknown.apply(&mut table).unwrap();
    let refusal = Scenario::deserialize(table).unwrap_err().to_string();
    let (_, expected) = refusal.split_once("expected").unwrap_or_else(|| panic!("{refusal}"));
    let expected = expected.lines().next().unwrap_or_default();
    let mut keys: Vec<String> = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    keys.sort();
    keys
}

fn value_at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| match value {
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}

#[test]
fn the_scenario_reference_names_every_key() {
    for (heading, prefix) in SECTIONS.into_iter().chain([("`[addresses]`", "addresses.")]) {
        let written: Vec<&str> = rows(SCENARIO_PAGE, heading).into_keys().collect();
        assert_eq!(written, known(prefix), "{heading}");
    }
}

#[test]
fn the_scenario_reference_names_every_default() {
    let required: Table = toml::from_str(REQUIRED).unwrap();
    let scenario = Scenario::deserialize(required.clone()).unwrap();
    let filled: Table = toml::from_str(&toml::to_string(&scenario).unwrap()).unwrap();
    for (heading, prefix) in SECTIONS.into_iter().chain([("`[addresses]`", "addresses.")]) {
        for (key, cells) in rows(SCENARIO_PAGE, heading) {
            let path = format!("{prefix}{key}");
            let default = cells[1];
            match (value_at(&required, &path), value_at(&filled, &path)) {
                (Some(Value::Table(_) | Value::Array(_)), _) => {}
                (Some(_), _) => assert_eq!(default, "required", "{path}"),
                (None, None | Some(Value::Table(_) | Value::Array(_))) => {
                    assert!(!default.contains('`') && default != "required", "{path} has no plain default: {default}");
                }
                (None, Some(plain)) => {
                    let plain = plain.to_string();
                    assert_eq!(default.trim_matches('`'), plain.trim_matches('"'), "{path}");
                }
            }
        }
    }
}

#[test]
fn the_output_reference_names_every_key() {
    let (_, simulated) = sample::restaurants();
    let value = serde_json::to_value(&simulated.outcome).unwrap();
    let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let page = rows(OUTPUT_PAGE, "The JSON object");
    assert_eq!(page.keys().copied().collect::<Vec<_>>(), keys);
    for (key, cells) in page {
        let fields = match &value[key] {
            serde_json::Value::Object(fields) => fields,
            serde_json::Value::Array(items) => items[0].as_object().unwrap(),
            _ => continue,
        };
        for field in fields.keys() {
            assert!(cells[0].contains(&format!("`{field}`")) || field == "headquarters", "{key}.{field}");
        }
    }
    let columns: Vec<String> = super::table::hosts(&[]).into_iter().map(|(name, _)| name).collect();
    let mut columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    columns.sort_unstable();
    assert_eq!(rows(OUTPUT_PAGE, "A host's row").into_keys().collect::<Vec<_>>(), columns);
}

#[test]
fn every_preset_is_described() {
    for preset in super::PRESETS {
        assert!(PRESETS_PAGE.contains(&format!("| `{}` |", preset.name)), "{}", preset.name);
    }
}
