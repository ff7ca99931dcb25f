//! Two scenarios side by side: what differs in what is asked, and in what comes of it.
use branchline_simulations::capacity::{Outcome, Scenario};
use serde_json::{Value, json};

use super::{
    figures::signed,
    units::{bytes, count, duration, number, share},
    words,
};
use crate::cli::printer::table;

/// A figure of both outcomes.
struct Figure {
    name: &'static str,
    values: [f64; 2],
    shown: fn(f64) -> String,
}

/// A key whose values differ; `None`: it is not there.
#[derive(Clone, Debug, PartialEq)]
struct Difference {
    key: String,
    values: [Option<String>; 2],
}

/// One side of a comparison.
pub struct Side {
    /// The file or the preset.
    pub origin: String,
    /// What was asked.
    pub scenario: Scenario,
    /// What came of it.
    pub outcome: Outcome,
}

fn figures(sides: &[Side; 2]) -> Vec<Figure> {
    let figure = |name, of: fn(&Outcome) -> f64, shown: fn(f64) -> String| Figure {
        name,
        values: [of(&sides[0].outcome), of(&sides[1].outcome)],
        shown,
    };
    let whole = |value: f64| count(value as u64);
    let length = |value: f64| bytes(value as u64);
    vec![
        figure("makespan_seconds", |one| one.makespan_seconds, duration),
        figure("completed_hosts", |one| one.completed_hosts as f64, whole),
        figure("completion_seconds.p50", |one| one.completion_seconds.p50, duration),
        figure("completion_seconds.p95", |one| one.completion_seconds.p95, duration),
        figure("completion_seconds.p99", |one| one.completion_seconds.p99, duration),
        figure("bytes.headquarters", |one| one.bytes.headquarters as f64, length),
        figure("bytes.wan", |one| one.bytes.wan as f64, length),
        figure("bytes.lan", |one| one.bytes.lan as f64, length),
        figure("wan_ratio", |one| one.wan_ratio, number),
        figure("queue.length_max", |one| one.queue.length_max as f64, whole),
        figure("queue.wait_mean_seconds", |one| one.queue.wait_mean_seconds, duration),
        figure("queue.waited_share", |one| one.queue.waited_share, share),
        figure("addresses.needed", |one| one.addresses.needed as f64, whole),
        figure("addresses.beyond_forecast", |one| one.addresses.beyond_forecast as f64, whole),
        figure("addresses.granted", |one| one.addresses.granted as f64, whole),
        figure("addresses.batches", |one| one.addresses.batches as f64, whole),
    ]
}

impl Figure {
    /// The second as a difference to the first, relative where the first is not 0.
    fn change(&self) -> String {
        match self.values {
            [a, b] if a == b => "the same".to_owned(),
            [0.0, _] => "new".to_owned(),
            [a, b] => format!("{} %", signed((b / a - 1.0) * 100.0)),
        }
    }
}

/// Every key of a scenario, with its defaults, and its value.
fn leaves(prefix: &str, value: &Value, to: &mut Vec<(String, String)>) {
    let at = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| leaves(&at(key), value, to)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().for_each(|(index, value)| leaves(&at(&index.to_string()), value, to));
        }
        // TOML tells 80 from 80.0, a planner does not.
        Value::Number(plain) => {
            let text = plain
                .as_f64()
                .filter(|value| value.fract() == 0.0)
                .map_or_else(|| plain.to_string(), |whole| format!("{whole:.0}"));
            to.push((prefix.to_owned(), text));
        }
        Value::String(word) => to.push((prefix.to_owned(), word.clone())),
        other => to.push((prefix.to_owned(), other.to_string())),
    }
}

fn differences(sides: &[Side; 2]) -> Vec<Difference> {
    let leaves_of = |scenario: &Scenario| {
        let mut all = Vec::new();
        leaves("", &serde_json::to_value(scenario).unwrap_or_default(), &mut all);
        all
    };
    let [a, b] = [leaves_of(&sides[0].scenario), leaves_of(&sides[1].scenario)];
    let value =
        |of: &[(String, String)], key: &str| of.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let mut keys: Vec<&String> = a.iter().chain(&b).map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    let both = keys.into_iter().map(|key| Difference { key: key.clone(), values: [value(&a, key), value(&b, key)] });
    both.filter(|difference| difference.values[0] != difference.values[1]).collect()
}

/// The comparison as tables.
pub fn text(sides: &[Side; 2]) -> String {
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let asked: Vec<Vec<String>> = differences(sides)
        .iter()
        .map(|difference| vec![difference.key.clone(), or_none(&difference.values[0]), or_none(&difference.values[1])])
        .collect();
    let terms = sides.each_ref().map(|side| words::short(side.outcome.binding_term).to_owned());
    let same = if terms[0] == terms[1] { "the same" } else { "another" };
    let [first, second] = terms;
    let figures = figures(sides);
    let rows = figures.iter().map(|figure| {
        let [a, b] = figure.values.map(figure.shown);
        vec![figure.name.to_owned(), a, b, figure.change()]
    });
    let rows: Vec<Vec<String>> =
        rows.chain([vec!["binding_term".to_owned(), first, second, same.to_owned()]]).collect();
    let asked = if asked.is_empty() { "Nothing.".to_owned() } else { table(&["KEY", "A", "B"], &asked) };
    format!(
        "A: {}\nB: {}\n\nWhat is asked differently\n{asked}\n\nWhat comes of it\n{}\n",
        sides[0].origin,
        sides[1].origin,
        table(&["FIGURE", "A", "B", "B TO A"], &rows)
    )
}

/// The comparison for programs: both outcomes whole, and what differs.
pub fn json(sides: &[Side; 2]) -> Value {
    let inputs: Vec<Value> = differences(sides)
        .iter()
        .map(|difference| json!({ "key": difference.key, "a": difference.values[0], "b": difference.values[1] }))
        .collect();
    let figures: Vec<Value> = figures(sides)
        .iter()
        .map(|figure| json!({ "figure": figure.name, "a": figure.values[0], "b": figure.values[1] }))
        .collect();
    let side = |side: &Side| json!({ "scenario": side.origin, "outcome": side.outcome });
    json!({ "a": side(&sides[0]), "b": side(&sides[1]), "inputs": inputs, "figures": figures })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::simulate::sample;

    fn sides() -> [Side; 2] {
        let (scenario, simulated) = sample::restaurants();
        let mut other = scenario.clone();
        other.sites[1].wan_bits_per_second =
            toml::from_str::<toml::Table>("x = 40e6").unwrap()["x"].clone().try_into().unwrap();
        other.sites[0].churn = toml::from_str("leave_per_hour = 0.5").ok();
        other.seed = 2;
        let mut outcome = simulated.outcome.clone();
        outcome.makespan_seconds = 430.0;
        outcome.addresses.beyond_forecast = 3;
        outcome.binding_term = branchline_simulations::capacity::BindingTerm::Lan;
        let a = Side { origin: "a.toml".to_owned(), scenario, outcome: simulated.outcome };
        [a, Side { origin: "preset b".to_owned(), scenario: other, outcome }]
    }

    #[test]
    fn what_differs_is_shown() {
        insta::assert_snapshot!(text(&sides()));
    }

    #[test]
    fn programs_get_both_outcomes() {
        let json = json(&sides());
        assert_eq!(json["inputs"][0], json!({ "key": "seed", "a": "1", "b": "2" }));
        assert_eq!(json["figures"][0], json!({ "figure": "makespan_seconds", "a": 859.6, "b": 430.0 }));
        assert_eq!(json["b"]["outcome"]["makespan_seconds"], 430.0);
    }

    #[test]
    fn equal_scenarios_do_not_differ() {
        let [a, _] = sides();
        let same = Side { origin: a.origin.clone(), scenario: a.scenario.clone(), outcome: a.outcome.clone() };
        assert!(text(&[a, same]).contains("Nothing."));
    }
}
