//! What changed between two surveys of one host (R47).
//!
//! Both descriptors are flattened to lines `place = value`, where list elements are named by what identifies them (a package by its name, a
//! port by its number) and not by their position; the difference of the two maps is exact and has a stable order. When the survey was
//! taken and by which version of the script is no difference of the host.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::descriptor::Descriptor;
use super::xml::Element;

/// One changed place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where: `host/packages/package[libc6]/@version`.
    pub place: String,
    /// The value before, if the place was there.
    pub before: Option<String>,
    /// The value now, if the place is there.
    pub after: Option<String>,
}

/// All changed places, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The changes.
    pub changes: Vec<Change>,
}

impl Difference {
    /// Compares an earlier survey with a later one.
    #[must_use]
    pub fn between(before: &Descriptor, after: &Descriptor) -> Self {
        let before = flatten(before);
        let mut after = flatten(after);
        let mut changes = Vec::new();
        for (place, old) in before {
            let new = after.remove(&place);
            if new.as_ref() != Some(&old) {
                changes.push(Change { place, before: Some(old), after: new });
            }
        }
        changes.extend(after.into_iter().map(|(place, new)| Change { place, before: None, after: Some(new) }));
        changes.sort_by(|left, right| left.place.cmp(&right.place));
        Self { changes }
    }

    /// Says whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Difference {
    /// One line for each change: `+ place = new`, `- place = old`, `~ place: old -> new`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Change { place, before, after } in &self.changes {
            match (before, after) {
                (Some(before), Some(after)) => writeln!(formatter, "~ {place}: {before} -> {after}")?,
                (Some(before), None) => writeln!(formatter, "- {place} = {before}")?,
                (None, Some(after)) => writeln!(formatter, "+ {place} = {after}")?,
                (None, None) => {}
            }
        }
        Ok(())
    }
}

/// Attributes that name a list element, joined, for each element that stands in a list.
const KEYS: &[(&str, &[&str])] = &[
    ("address", &["interface", "value"]),
    ("disk", &["name"]),
    ("filesystem", &["mount_point"]),
    ("package", &["name"]),
    ("process", &["name", "command"]),
    ("port", &["number", "scope"]),
    ("signature", &["name"]),
    ("item", &["kind"]),
    ("fact", &["name"]),
    ("module", &["name"]),
    ("threshold", &["module", "name"]),
    ("command", &["line"]),
    ("conflict", &["kind", "subject"]),
];

fn flatten(descriptor: &Descriptor) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for section in &descriptor.to_element().children {
        flatten_element(section, &section.name, &mut lines);
    }
    lines
}

fn flatten_element(element: &Element, place: &str, lines: &mut BTreeMap<String, String>) {
    let keys = keys_of(&element.name);
    let values: Vec<_> = element.attributes.iter().filter(|(name, _)| !keys.contains(&name.as_str())).collect();
    // An element that is all key, such as a port, is present or absent as a whole.
    if values.is_empty() && element.children.is_empty() && !keys.is_empty() {
        lines.insert(place.to_owned(), "present".into());
    }
    for (name, value) in values {
        lines.insert(format!("{place}/@{name}"), value.clone());
    }
    let mut occurrences: BTreeMap<String, usize> = BTreeMap::new();
    for child in &element.children {
        let name = child_name(child);
        let occurrence = occurrences.entry(name.clone()).or_default();
        *occurrence += 1;
        let suffix = if *occurrence > 1 { format!("#{occurrence}") } else { String::new() };
        flatten_element(child, &format!("{place}/{name}{suffix}"), lines);
    }
}

fn keys_of(element: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(name, _)| *name == element).map_or(&[], |(_, keys)| keys)
}

fn child_name(child: &Element) -> String {
    let keys = keys_of(&child.name);
    if keys.is_empty() {
        return child.name.clone();
    }
    let values: Vec<&str> = keys
        .iter()
        .filter_map(|key| child.attributes.iter().find(|(name, _)| name == key))
        .map(|(_, value)| value.as_str())
        .collect();
    format!("{}[{}]", child.name, values.join(" "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::survey::fixtures;

    #[test]
    fn equal_surveys_do_not_differ() {
        let before = fixtures::plain_host();
        let mut after = before.clone();
        after.taken_at = "2027-01-01T00:00:00Z".into();
        assert!(Difference::between(&before, &after).is_empty());
    }

    #[test]
    fn order_of_packages_does_not_matter() {
        let mut before = fixtures::plain_host();
        let mut second = before.host.packages.list[0].clone();
        second.name = "bash".into();
        before.host.packages.list.push(second);
        let mut after = before.clone();
        after.host.packages.list.reverse();
        assert!(Difference::between(&before, &after).is_empty());
    }

    #[test]
    fn a_difference_reads_well() {
        let mut after = fixtures::network_storage_host();
        after.host.packages.list[0].version = "2.36-9+deb12u10".into();
        after.host.listening_ports.clear();
        insta::assert_snapshot!(Difference::between(&fixtures::plain_host(), &after).to_string());
    }
}
