//! Sweeps: many outcomes of one scenario, whole or in shards that are put together later.
use std::{collections::BTreeMap, fs, path::PathBuf, str::FromStr};

use branchline_simulations::capacity::{Calibration, Lift, Outcome, Run, Simulated};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    error::CommandError,
    figures::{self, Swept, text_bar},
    plot::Plot,
    settings::{Sweep, combinations},
    table::{self, Values},
    units::{bytes, count, duration, number, share},
    words,
};
use crate::cli::printer;

/// The form of [`Document`]; another number is another form.
const FORM: u32 = 1;
/// Characters of the longest bar in the table.
const BAR: usize = 24;

/// Which part of a sweep: `2/5` is the second of five.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// From 1.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err("write i/n, such as 1/20 for the first of twenty".to_owned()),
        }
    }
}

impl Shard {
    /// Whether a point is of this shard: they are dealt like cards, so that dear neighbours do not meet in one.
    pub fn has(self, point: usize) -> bool {
        point % self.of == self.index - 1
    }
}

/// One figure and its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SweptKey {
    key: String,
    values: Vec<String>,
}

/// What came of one combination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    /// Its number among all combinations, from 0.
    index: usize,
    /// The values of the swept figures, as written.
    values: Vec<String>,
    /// The outcome without `run`, which no two runs share.
    outcome: Value,
    lifts: Vec<Lift>,
    calibration: Option<Calibration>,
}

/// A sweep, or a part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    branchline_sweep: u32,
    origin: String,
    /// The scenario before the swept figures are set, with every default, as TOML.
    scenario: String,
    /// What was asked beside the scenario and changes figures.
    asked: BTreeMap<String, String>,
    sweeps: Vec<SweptKey>,
    /// The part; `None`: the whole.
    shard: Option<Shard>,
    points: Vec<Point>,
}

impl Document {
    /// A sweep without points yet.
    pub fn new(
        origin: &str,
        scenario: &str,
        asked: BTreeMap<String, String>,
        sweeps: &[Sweep],
        shard: Option<Shard>,
    ) -> Self {
        let keys = sweeps.iter().map(|sweep| SweptKey { key: sweep.key().to_owned(), values: sweep.values().to_vec() });
        Self {
            branchline_sweep: FORM,
            origin: origin.to_owned(),
            scenario: scenario.to_owned(),
            asked,
            sweeps: keys.collect(),
            shard,
            points: Vec::new(),
        }
    }

    /// Adds what came of a combination.
    ///
    /// # Errors
    /// A figure is no number, which JSON cannot say.
    pub fn push(&mut self, index: usize, values: &[String], simulated: &Simulated) -> serde_json::Result<()> {
        let mut outcome = serde_json::to_value(&simulated.outcome)?;
        if let Value::Object(fields) = &mut outcome {
            fields.remove("run");
        }
        let (lifts, calibration) = (simulated.lifts.clone(), simulated.calibration.clone());
        self.points.push(Point { index, values: values.to_vec(), outcome, lifts, calibration });
        Ok(())
    }

    /// The document as it is written.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn to_text(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// The document with the figures that a reader of its text sees. Reading rounds some of them in the last digit; a
    /// whole sweep takes the same way as one from shards, so that both are the same byte for byte.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn reread(&self) -> serde_json::Result<Self> {
        serde_json::from_str(&self.to_text()?)
    }

    fn combinations(&self) -> usize {
        self.sweeps.iter().map(|sweep| sweep.values.len()).product()
    }

    /// What must be the same in all shards of a sweep.
    fn question(&self) -> (&str, &str, &BTreeMap<String, String>, &[SweptKey]) {
        (&self.origin, &self.scenario, &self.asked, &self.sweeps)
    }
}

/// Reads shards and puts them together.
///
/// # Errors
/// A file cannot be read, is no shard, belongs to another sweep, or a shard is missing or there twice.
pub fn merge(paths: &[PathBuf]) -> Result<Document, CommandError> {
    let mut documents = Vec::new();
    for path in paths {
        let text = fs::read_to_string(path).map_err(|source| CommandError::Read { path: path.clone(), source })?;
        documents.push((path.display().to_string(), read(&path.display().to_string(), &text)?));
    }
    put_together(documents)
}

fn read(name: &str, text: &str) -> Result<Document, CommandError> {
    let fault = |fault: String| CommandError::Shards(format!("{name}: {fault}"));
    let document: Document = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => fault("it ends too early; run this shard's job again".to_owned()),
        _ => fault(format!(
            "this is no shard of a sweep, as `simulate --sweep ... --shard i/n --json` writes it ({error})"
        )),
    })?;
    if document.branchline_sweep != FORM {
        let form = document.branchline_sweep;
        return Err(fault(format!("its form is {form}, this version reads {FORM}; make all shards by one version")));
    }
    Ok(document)
}

fn put_together(documents: Vec<(String, Document)>) -> Result<Document, CommandError> {
    let Some((first_name, first)) = documents.first().cloned() else {
        return Err(CommandError::Shards("there is nothing to put together".to_owned()));
    };
    let of = first.shard.map_or(1, |shard| shard.of);
    let mut seen: BTreeMap<usize, String> = BTreeMap::new();
    let mut points = Vec::new();
    for (name, document) in documents {
        let shard = document.shard.unwrap_or(Shard { index: 1, of: 1 });
        if document.question() != first.question() {
            let fault = format!("{first_name} and {name} are of different sweeps; give the shards of one");
            return Err(CommandError::Shards(fault));
        }
        if shard.of != of {
            let fault =
                format!("{first_name} is one of {of}, {name} one of {}; give the shards of one division", shard.of);
            return Err(CommandError::Shards(fault));
        }
        if let Some(other) = seen.insert(shard.index, name.clone()) {
            let fault = format!("{other} and {name} are both shard {}/{of}; give each once", shard.index);
            return Err(CommandError::Shards(fault));
        }
        points.extend(document.points);
    }
    let missing: Vec<String> =
        (1..=of).filter(|index| !seen.contains_key(index)).map(|index| format!("{index}/{of}")).collect();
    if !missing.is_empty() {
        let fault =
            format!("these shards are missing: {}; run their jobs, and give their files too", missing.join(", "));
        return Err(CommandError::Shards(fault));
    }
    points.sort_by_key(|point| point.index);
    let whole = Document { shard: None, points, ..first };
    let in_order = whole.points.iter().enumerate().all(|(index, point)| point.index == index);
    if !in_order || whole.points.len() != whole.combinations() {
        let fault = format!("the shards hold {} of {} combinations", whole.points.len(), whole.combinations());
        return Err(CommandError::Shards(fault));
    }
    Ok(whole)
}

impl Point {
    fn outcome(&self) -> Result<Outcome, CommandError> {
        let mut value = self.outcome.clone();
        if let Value::Object(fields) = &mut value {
            let run = serde_json::to_value(Run::default()).unwrap_or_default();
            fields.insert("run".to_owned(), run);
        }
        let fault = |error| CommandError::Shards(format!("point {} holds no outcome ({error})", self.index));
        serde_json::from_value(value).map_err(fault)
    }
}

/// A sweep with its outcomes, ready to be shown.
pub struct Shown {
    document: Document,
    outcomes: Vec<Outcome>,
}

impl Shown {
    /// Reads the outcomes.
    ///
    /// # Errors
    /// One is none.
    pub fn new(document: Document) -> Result<Self, CommandError> {
        let outcomes = document.points.iter().map(Point::outcome).collect::<Result<_, _>>()?;
        Ok(Self { document, outcomes })
    }

    /// What was swept, in one line.
    pub fn title(&self) -> String {
        let keys: Vec<&str> = self.document.sweeps.iter().map(|sweep| sweep.key.as_str()).collect();
        let part =
            self.document.shard.map_or_else(String::new, |shard| format!(", shard {}/{}", shard.index, shard.of));
        format!("{}, {} over {}{part}", self.document.origin, words_for(self.outcomes.len()), keys.join(" and "))
    }

    /// The scenario before the swept figures are set, as TOML.
    pub fn scenario(&self) -> &str {
        &self.document.scenario
    }

    /// Titles of the table's columns.
    pub fn header(&self) -> Vec<String> {
        let keys = self.document.sweeps.iter().map(|sweep| sweep.key.clone());
        let figures = ["COMPLETE", "P50", "P95", "LAST", "HEADQUARTERS", "RATIO", "WAITED", "BINDS", "WITHOUT IT", ""];
        keys.chain(figures.map(str::to_owned)).collect()
    }

    /// The table's rows.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let most = self.outcomes.iter().map(|outcome| outcome.makespan_seconds).fold(0.0, f64::max);
        self.document.points.iter().zip(&self.outcomes).map(|(point, outcome)| row(point, outcome, most)).collect()
    }

    /// The table as text.
    pub fn text(&self) -> String {
        let header = self.header();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        format!("{}\n\n{}\n", self.title(), printer::table(&header, &self.rows()))
    }

    /// Makespans over the first swept figure; `None` for a shard, which has not all of them.
    pub fn plot(&self) -> Option<Plot> {
        let (first, others) = self.document.sweeps.split_first()?;
        if self.document.shard.is_some() {
            return None;
        }
        let lines = self.outcomes.len() / first.values.len().max(1);
        let name = |line: usize| {
            let pairs = others.iter().zip(&self.document.points[line].values[1..]);
            pairs.map(|(sweep, value)| format!("{}={value}", sweep.key)).collect::<Vec<_>>().join(", ")
        };
        let makespans =
            |line: usize| self.outcomes[line..].iter().step_by(lines.max(1)).map(|one| one.makespan_seconds);
        let swept: Vec<Swept> =
            (0..lines).map(|line| Swept { name: name(line), makespans: makespans(line).collect() }).collect();
        Some(figures::sweep(&first.key, &first.values, &swept))
    }

    /// One row for each combination, for other programs.
    pub fn table(&self) -> table::Table {
        let figure = |of: fn(&Outcome) -> f64| Values::Numbers(self.outcomes.iter().map(|one| Some(of(one))).collect());
        let whole = |of: fn(&Outcome) -> u64| Values::Whole(self.outcomes.iter().map(|one| of(one) as i64).collect());
        let keys = self.document.sweeps.iter().enumerate().map(|(index, sweep)| {
            let values = self.document.points.iter().map(|point| point.values[index].clone()).collect();
            (sweep.key.clone(), Values::Words(values))
        });
        let binding = self.outcomes.iter().map(|one| words::short(one.binding_term).to_owned()).collect();
        let figures = [
            ("makespan_seconds", figure(|one| one.makespan_seconds)),
            ("completed_hosts", whole(|one| one.completed_hosts)),
            ("completion_p50_seconds", figure(|one| one.completion_seconds.p50)),
            ("completion_p95_seconds", figure(|one| one.completion_seconds.p95)),
            ("completion_p99_seconds", figure(|one| one.completion_seconds.p99)),
            ("headquarters_bytes", whole(|one| one.bytes.headquarters)),
            ("wan_bytes", whole(|one| one.bytes.wan)),
            ("lan_bytes", whole(|one| one.bytes.lan)),
            ("wan_ratio", figure(|one| one.wan_ratio)),
            ("queue_length_max", whole(|one| one.queue.length_max)),
            ("queue_wait_mean_seconds", figure(|one| one.queue.wait_mean_seconds)),
            ("queue_waited_share", figure(|one| one.queue.waited_share)),
            ("addresses_needed", whole(|one| one.addresses.needed)),
            ("addresses_granted", whole(|one| one.addresses.granted)),
            ("binding_term", Values::Words(binding)),
        ];
        keys.chain(figures.map(|(name, values)| (name.to_owned(), values))).collect()
    }
}

fn words_for(points: usize) -> String {
    if points == 1 { "one outcome".to_owned() } else { format!("{} outcomes", count(points as u64)) }
}

fn row(point: &Point, outcome: &Outcome, most: f64) -> Vec<String> {
    let without = point.lifts.iter().find(|lift| lift.term == outcome.binding_term);
    let figures = [
        count(outcome.completed_hosts),
        duration(outcome.completion_seconds.p50),
        duration(outcome.completion_seconds.p95),
        duration(outcome.makespan_seconds),
        bytes(outcome.bytes.headquarters),
        number(outcome.wan_ratio),
        share(outcome.queue.waited_share),
        words::short(outcome.binding_term).to_owned(),
        without.map_or_else(|| "-".to_owned(), |lift| duration(lift.makespan_seconds)),
        text_bar(outcome.makespan_seconds, most, BAR),
    ];
    point.values.iter().cloned().chain(figures).collect()
}

/// The numbers and values of the combinations of one shard, or of all.
pub fn points_of(sweeps: &[Sweep], shard: Option<Shard>) -> Vec<(usize, Vec<String>)> {
    let all = combinations(sweeps).into_iter().enumerate();
    all.filter(|(index, _)| shard.is_none_or(|shard| shard.has(*index))).collect()
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
