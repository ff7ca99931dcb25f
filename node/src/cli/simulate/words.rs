//! The answer in words.
use branchline_simulations::capacity::{
    BindingTerm, Calibration, Outcome, Quantity, Resolution, Scenario, Simulated, SiteSummary,
};

use super::units::{BYTES, RATES, bytes, count, counted, duration, number, rate, share};
use crate::cli::printer::table;

/// Characters of a line of the summary.
const WIDTH: usize = 96;

/// Said where every frame was simulated, and the limits were lifted all the same.
const LIFTS_AS_FLOWS: &str = " What lifting a limit gains was found with flows that were fitted to these sites.";

/// A heading and what is said below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Paragraph {
    /// What it answers.
    pub heading: &'static str,
    /// The answer.
    pub text: String,
}

/// A term in a sentence.
pub fn named(term: BindingTerm) -> &'static str {
    match term {
        BindingTerm::HeadquartersUplink => "headquarters' uplink",
        BindingTerm::Wan => "the lines into the sites",
        BindingTerm::Lan => "the networks inside the sites",
        BindingTerm::SessionLimit => "the limits of sessions and of sites at a time",
        BindingTerm::InstallTime => "the time that installing takes",
        BindingTerm::Stragglers => "hosts that come late",
    }
}

/// A term in a table or below a bar.
pub fn short(term: BindingTerm) -> &'static str {
    match term {
        BindingTerm::HeadquartersUplink => "uplink",
        BindingTerm::Wan => "WAN",
        BindingTerm::Lan => "LAN",
        BindingTerm::SessionLimit => "session limit",
        BindingTerm::InstallTime => "install time",
        BindingTerm::Stragglers => "stragglers",
    }
}

/// The whole summary: what was asked, and every answer.
pub fn summary(origin: &str, scenario: &Scenario, simulated: &Simulated) -> String {
    let mut text = String::new();
    for paragraph in paragraphs(origin, scenario, simulated) {
        text.push_str(&format!("{}\n{}\n", paragraph.heading, wrapped(&paragraph.text)));
    }
    let entries = entries(scenario, &simulated.outcome.sites);
    if entries.rows.len() > 1 {
        text.push_str(&format!("\n{}\n", table(&entries.header, &entries.rows)));
    }
    text
}

/// What is said of an outcome.
pub fn paragraphs(origin: &str, scenario: &Scenario, simulated: &Simulated) -> Vec<Paragraph> {
    let outcome = &simulated.outcome;
    let mut said = vec![
        Paragraph { heading: "What was asked", text: asked(origin, scenario, outcome) },
        Paragraph { heading: "How long", text: how_long(scenario, simulated) },
        Paragraph { heading: "Bytes", text: moved(outcome) },
        Paragraph { heading: "Queue", text: queue(outcome) },
        Paragraph { heading: "Addresses", text: addresses(outcome) },
        Paragraph { heading: "What binds", text: binding(simulated) },
        Paragraph { heading: "How sure", text: sureness(simulated) },
    ];
    if outcome.run.wall_seconds > 0.0 {
        let run = &outcome.run;
        let text = format!("Simulated in {} with {}.", duration(run.wall_seconds), bytes(run.peak_memory_bytes));
        said.push(Paragraph { heading: "The run", text });
    }
    said
}

fn asked(origin: &str, scenario: &Scenario, outcome: &Outcome) -> String {
    let payload = &scenario.payload;
    let hosts: u64 = outcome.sites.iter().map(|entry| entry.hosts).sum();
    let patch = match payload.patch_share {
        whole if whole >= 1.0 => String::new(),
        part => format!(" ({} of {}, as a patch)", share(part), bytes(payload.size_bytes)),
    };
    let at_a_time = scenario
        .headquarters
        .concurrent_sites
        .map_or_else(String::new, |sites| format!(", to at most {} at a time", counted(sites, "site")));
    format!(
        "{origin}, seed {}: {}{patch} in {} of {} to {} in {}, from headquarters with {}{at_a_time}.",
        scenario.seed,
        bytes(payload.moved_bytes()),
        counted(payload.frames(), "frame"),
        bytes(payload.frame_bytes()),
        counted(hosts, "host"),
        counted(scenario.sites_total(), "site"),
        rate(scenario.headquarters.uplink_bits_per_second),
    )
}

fn how_long(scenario: &Scenario, simulated: &Simulated) -> String {
    let outcome = &simulated.outcome;
    let hosts: u64 = outcome.sites.iter().map(|entry| entry.hosts).sum();
    let (done, when) = (outcome.completed_hosts, &outcome.completion_seconds);
    if done == 0 {
        return format!("None of {} is ever complete.", counted(hosts, "host"));
    }
    let who = if done == hosts {
        format!("All {} are", counted(hosts, "host"))
    } else {
        format!("{} of {} are", count(done), counted(hosts, "host"))
    };
    let mut text = format!(
        "{who} complete after {}: half of them after {}, 95 of 100 after {}, 99 of 100 after {}.",
        duration(outcome.makespan_seconds),
        duration(when.p50),
        duration(when.p95),
        duration(when.p99),
    );
    let never = simulated.waves.iter().filter(|wave| wave.began_seconds.is_none()).count();
    if never > 0 {
        text.push_str(&format!(
            " The rollout stopped: {} of {} never began, because the wave before missed its thresholds.",
            counted(never as u64, "wave"),
            simulated.waves.len()
        ));
    } else if scenario.rollout.waves.len() > 1 {
        let begins = simulated.waves.iter().filter_map(|wave| wave.began_seconds).map(duration);
        text.push_str(&format!(" The waves begin after {}.", begins.collect::<Vec<_>>().join(", ")));
    }
    text
}

fn moved(outcome: &Outcome) -> String {
    let moved = &outcome.bytes;
    let ratio = match outcome.wan_ratio {
        0.0 => "no site had to fetch".to_owned(),
        ratio if (ratio - 1.0).abs() < 0.0005 => "which is what the sites need at the least".to_owned(),
        ratio => format!("{} times what the sites need at the least", number(ratio)),
    };
    format!(
        "Headquarters sends {}, {ratio}; the lines carry {}, and the networks inside the sites {}.",
        bytes(moved.headquarters),
        bytes(moved.wan),
        bytes(moved.lan)
    )
}

fn queue(outcome: &Outcome) -> String {
    let queue = &outcome.queue;
    if queue.length_max == 0 {
        return "No host waits for a slot.".to_owned();
    }
    format!(
        "At most {} of one site wait for a slot. {} of the hosts wait at all; the mean wait of all hosts is {}.",
        counted(queue.length_max, "host"),
        share(queue.waited_share),
        duration(queue.wait_mean_seconds)
    )
}

fn addresses(outcome: &Outcome) -> String {
    let addresses = &outcome.addresses;
    let beyond = match addresses.beyond_forecast {
        0 => "within".to_owned(),
        beyond => format!("{} beyond", count(beyond)),
    };
    format!(
        "The hosts need {}, {beyond} the forecast of {}; headquarters grants {} in {}.",
        counted_addresses(addresses.needed),
        count(addresses.forecast),
        count(addresses.granted),
        counted_batches(addresses.batches)
    )
}

fn counted_addresses(value: u64) -> String {
    if value == 1 { "1 address".to_owned() } else { format!("{} addresses", count(value)) }
}

fn counted_batches(value: u64) -> String {
    if value == 1 { "1 batch".to_owned() } else { format!("{} batches", count(value)) }
}

fn binding(simulated: &Simulated) -> String {
    let term = simulated.outcome.binding_term;
    let Some(first) = simulated.lifts.iter().find(|lift| lift.term == term) else {
        return format!("Mostly {}, by the parts of the makespan. What lifting it gains was not asked.", named(term));
    };
    let mut text = format!(
        "Mostly {}: without that limit the last host is complete after {}, {} earlier.",
        named(term),
        duration(first.makespan_seconds),
        duration(first.gain_seconds)
    );
    let makespan = simulated.outcome.makespan_seconds;
    let next = simulated.lifts.iter().find(|lift| lift.term != term && lift.gain_seconds > makespan * 0.01);
    match next {
        Some(next) => {
            text.push_str(&format!(" Next is {} ({} earlier).", named(next.term), duration(next.gain_seconds)))
        }
        None => text.push_str(" No other limit alone would gain 1 % of the time."),
    }
    text
}

fn sureness(simulated: &Simulated) -> String {
    let outcome = &simulated.outcome;
    match (outcome.resolution, &simulated.calibration) {
        (Resolution::Chunk, _) => format!(
            "Every frame was asked for, sent and announced by the product's own machines (chunk resolution): {}.{}",
            counted(outcome.inputs, "input"),
            if simulated.lifts.is_empty() { "" } else { LIFTS_AS_FLOWS }
        ),
        (Resolution::Flow, None) => {
            "Sites were simulated as flows (flow resolution), which was not compared with single frames.".to_owned()
        }
        (Resolution::Flow, Some(calibration)) if calibration.measured_sites == 0 => format!(
            "Sites were simulated as flows (flow resolution), fitted to {} of this scenario that were simulated frame by \
             frame. How far the flow is off was not measured: no entry has a second site to try it on.",
            counted(calibration.fitted_sites, "site"),
        ),
        (Resolution::Flow, Some(calibration)) => format!(
            "Sites were simulated as flows (flow resolution), fitted to {} of this scenario that were simulated frame by \
             frame. On {} the flow's makespan differs by {} %{}, at the most by {}.",
            counted(calibration.fitted_sites, "site"),
            other_sites(calibration.measured_sites),
            number(calibration.error_mean * 100.0),
            interval(calibration),
            share(calibration.error_max)
        ),
    }
}

fn other_sites(sites: u64) -> String {
    if sites == 1 { "one other site".to_owned() } else { format!("{} other sites", count(sites)) }
}

fn interval(calibration: &Calibration) -> String {
    match calibration.error_half_width {
        0.0 => String::new(),
        half => format!(" ± {} (95 % confidence)", number(half * 100.0)),
    }
}

/// The entries of a scenario as rows.
pub struct Entries {
    /// Titles of the columns.
    pub header: [&'static str; 6],
    /// One row for each entry.
    pub rows: Vec<Vec<String>>,
}

/// What came of each entry of the scenario.
pub fn entries(scenario: &Scenario, summaries: &[SiteSummary]) -> Entries {
    let rows = scenario.sites.iter().zip(summaries).enumerate().map(|(index, (site, summary))| {
        vec![
            format!("sites.{index}"),
            count(site.count),
            count(summary.hosts),
            line(&site.wan_bits_per_second),
            if summary.rate_bits_per_second > 0.0 { rate(summary.rate_bits_per_second) } else { "-".to_owned() },
            duration(summary.makespan_seconds),
        ]
    });
    Entries { header: ["ENTRY", "SITES", "HOSTS", "LINE", "FETCHED AT", "COMPLETE AFTER"], rows: rows.collect() }
}

fn line(figure: &Quantity) -> String {
    let about = if matches!(figure, Quantity::Fixed(_)) { "" } else { "about " };
    format!("{about}{}", rate(figure.typical()))
}

/// Whether a word is a unit, which stays on the line of its figure.
fn is_unit(word: &str) -> bool {
    let word = word.trim_end_matches([',', '.', ':', ';', ')']);
    ["s", "min", "h", "d", "%"].contains(&word) || BYTES.contains(&word) || RATES.contains(&word)
}

/// The text in lines of bearable length, two characters in.
fn wrapped(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match words.last_mut() {
            Some(figure) if is_unit(word) => *figure = format!("{figure} {word}"),
            _ => words.push(word.to_owned()),
        }
    }
    let mut lines = vec![String::from(" ")];
    for word in words {
        let length = |line: &String| line.chars().count();
        match lines.last_mut() {
            Some(line) if length(line) + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(format!("  {word}")),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use branchline_simulations::capacity::Wave;

    use super::*;
    use crate::cli::simulate::sample;

    #[test]
    fn the_summary_says_everything_in_words() {
        let (scenario, simulated) = sample::restaurants();
        insta::assert_snapshot!(summary("preset restaurants", &scenario, &simulated));
    }

    #[test]
    fn what_differs_is_said_differently() {
        let (mut scenario, mut simulated) = sample::restaurants();
        scenario.payload.patch_share = 0.25;
        scenario.headquarters.concurrent_sites = Some(1);
        simulated.waves[1] = Wave { sites: 4, began_seconds: None };
        simulated.lifts.clear();
        simulated.outcome.resolution = Resolution::Flow;
        simulated.calibration = Some(sample::calibration());
        simulated.outcome.addresses.beyond_forecast = 4;
        simulated.outcome.queue.length_max = 0;
        insta::assert_snapshot!(summary("rollout.toml", &scenario, &simulated));
        simulated.calibration = Some(Calibration { measured_sites: 0, ..sample::calibration() });
        let unmeasured =
            summary("rollout.toml", &scenario, &simulated).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(unmeasured.contains("How far the flow is off was not measured"), "{unmeasured}");
        simulated.outcome.completed_hosts = 0;
        simulated.calibration = None;
        simulated.outcome.wan_ratio = 0.0;
        insta::assert_snapshot!(summary("rollout.toml", &scenario, &simulated));
    }
}
