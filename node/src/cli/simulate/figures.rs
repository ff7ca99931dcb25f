//! Which plots show an outcome.
use branchline_simulations::capacity::{Scenario, Simulated, SiteResult};

use super::{
    axis::Measure,
    plot::{Line, Plot, Shape},
    units::{count, duration, number, rate},
    words,
};

/// Points of a distribution over sites, at most.
const STEPS_MAX: usize = 200;

/// All plots of one outcome.
pub fn plots(scenario: &Scenario, simulated: &Simulated) -> Vec<Plot> {
    let mut plots =
        vec![complete(simulated), uplink(scenario, simulated), queue(simulated), waits(simulated), sites(simulated)];
    if !simulated.lifts.is_empty() {
        plots.push(lifts(simulated));
    }
    plots
}

fn over_time(simulated: &Simulated, name: &str, values: impl Iterator<Item = f64>, shape: Shape) -> Line {
    let points = simulated.series.at_seconds.iter().copied().zip(values).collect();
    Line { name: name.to_owned(), points, shape }
}

fn time() -> (String, Measure) {
    ("Time since the start".to_owned(), Measure::Seconds)
}

fn complete(simulated: &Simulated) -> Plot {
    let outcome = &simulated.outcome;
    let completion = &outcome.completion_seconds;
    let done = simulated.series.completed_hosts.iter().map(|hosts| *hosts as f64);
    Plot {
        name: "complete",
        title: "Hosts complete over time".to_owned(),
        alternative: format!(
            "A rising curve: half of the {} completed hosts after {}, 95 of 100 after {}, the last after {}.",
            count(outcome.completed_hosts),
            duration(completion.p50),
            duration(completion.p95),
            duration(completion.last)
        ),
        horizontal: time(),
        vertical: ("Complete".to_owned(), Measure::Count("hosts")),
        lines: vec![over_time(simulated, "complete", done, Shape::Line)],
        bounds: Vec::new(),
    }
}

fn uplink(scenario: &Scenario, simulated: &Simulated) -> Plot {
    let series = &simulated.series;
    let uplink = scenario.headquarters.uplink_bits_per_second;
    let peak = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let sent = peak(&series.headquarters_bits_per_second);
    let carried = peak(&series.wan_capacity_bits_per_second);
    // Lines that carry many times what the uplink does would press the uplink's curve to the ground.
    let shown = series.wan_capacity_bits_per_second.iter().map(|rate| rate.min(uplink * 4.0));
    let cut = if carried > uplink * 4.0 { " (cut off)" } else { "" };
    Plot {
        name: "use",
        title: "What headquarters sends, and what the lines could carry".to_owned(),
        alternative: format!(
            "Headquarters sends at most {} of its {}; the lines of the sites that fetch could carry at most {}.",
            rate(sent),
            rate(uplink),
            rate(carried)
        ),
        horizontal: time(),
        vertical: ("Rate".to_owned(), Measure::Rate),
        lines: vec![
            over_time(
                simulated,
                "sent by headquarters",
                series.headquarters_bits_per_second.iter().copied(),
                Shape::Line,
            ),
            over_time(simulated, &format!("lines of the sites that fetch{cut}"), shown, Shape::Line),
        ],
        bounds: vec![(uplink, "headquarters' uplink".to_owned())],
    }
}

fn queue(simulated: &Simulated) -> Plot {
    let series = &simulated.series;
    let peak = |values: &[u64]| count(values.iter().copied().max().unwrap_or(0));
    Plot {
        name: "queue",
        title: "Sessions of all stations".to_owned(),
        alternative: format!(
            "At most {} hosts install at a time, and at most {} wait for a slot; at one station at most {}.",
            peak(&series.slots_held),
            peak(&series.queue_length),
            count(simulated.outcome.queue.length_max)
        ),
        horizontal: time(),
        vertical: ("Hosts".to_owned(), Measure::Count("hosts")),
        lines: vec![
            over_time(simulated, "installing", series.slots_held.iter().map(|hosts| *hosts as f64), Shape::Line),
            over_time(
                simulated,
                "waiting for a slot",
                series.queue_length.iter().map(|hosts| *hosts as f64),
                Shape::Line,
            ),
        ],
        bounds: Vec::new(),
    }
}

fn waits(simulated: &Simulated) -> Plot {
    let series = &simulated.series;
    let longest = series.wait_seconds.iter().copied().fold(0.0, f64::max);
    Plot {
        name: "waits",
        title: "How long hosts waited for a slot".to_owned(),
        alternative: format!(
            "The mean wait of hosts that get a slot at about the same time is at most {}; of all hosts it is {}.",
            duration(longest),
            duration(simulated.outcome.queue.wait_mean_seconds)
        ),
        horizontal: time(),
        vertical: ("Mean wait".to_owned(), Measure::Seconds),
        lines: vec![over_time(
            simulated,
            "of those that got a slot since the moment before",
            series.wait_seconds.iter().copied(),
            Shape::Line,
        )],
        bounds: Vec::new(),
    }
}

fn sites(simulated: &Simulated) -> Plot {
    let of = |name: &str, moment: fn(&SiteResult) -> f64| {
        let mut moments: Vec<f64> = simulated.sites.iter().map(moment).collect();
        moments.sort_by(f64::total_cmp);
        Line { name: name.to_owned(), points: distribution(&moments), shape: Shape::Steps }
    };
    let lines = vec![
        of("the last frame has crossed the line", |site| site.fetched_seconds),
        of("every host holds the payload", |site| site.spread_seconds),
        of("every host is complete", |site| site.makespan_seconds),
    ];
    let quantile = |line: &Line, share: f64| {
        let last = line.points.last().map_or(0.0, |(x, _)| *x);
        duration(line.points.iter().find(|(_, y)| *y >= share).map_or(last, |(x, _)| *x))
    };
    Plot {
        name: "sites",
        title: "How far the sites are: each curve a share of them".to_owned(),
        alternative: format!(
            "In half of the sites the line is done after {}, in nearly all after {}; half of the sites are complete after \
             {}, nearly all after {}.",
            quantile(&lines[0], 0.5),
            quantile(&lines[0], 0.99),
            quantile(&lines[2], 0.5),
            quantile(&lines[2], 0.99)
        ),
        horizontal: time(),
        vertical: ("Sites".to_owned(), Measure::Share("of all sites")),
        lines,
        bounds: Vec::new(),
    }
}

/// The share of values that lie at or below each, in at most [`STEPS_MAX`] steps; `sorted` ascends.
fn distribution(sorted: &[f64]) -> Vec<(f64, f64)> {
    let all = sorted.len();
    let steps = all.min(STEPS_MAX);
    let rise = (1..=steps).map(|step| {
        let rank = step * all / steps;
        (sorted[rank - 1], rank as f64 / all as f64)
    });
    std::iter::once((0.0, 0.0)).chain(rise).collect()
}

fn lifts(simulated: &Simulated) -> Plot {
    let now = ("as asked".to_owned(), simulated.outcome.makespan_seconds);
    let lifted = simulated.lifts.iter().map(|lift| (words::short(lift.term).to_owned(), lift.makespan_seconds));
    let (names, makespans): (Vec<String>, Vec<f64>) = std::iter::once(now).chain(lifted).unzip();
    let parts: Vec<String> =
        names.iter().zip(&makespans).map(|(name, makespan)| format!("{name}: {}", duration(*makespan))).collect();
    let points = makespans.iter().enumerate().map(|(index, makespan)| (index as f64, *makespan)).collect();
    Plot {
        name: "lifts",
        title: "How long it would take without one of the limits".to_owned(),
        alternative: format!("Bars. {}.", parts.join("; ")),
        horizontal: ("Limit".to_owned(), Measure::Words("Without".to_owned(), names)),
        vertical: ("Makespan".to_owned(), Measure::Seconds),
        lines: vec![Line { name: "makespan".to_owned(), points, shape: Shape::Bars }],
        bounds: Vec::new(),
    }
}

/// One line of a sweep: what the further sweeps' figures are, and a makespan for each value of the first.
pub struct Swept {
    /// The figures of the further sweeps; empty where there are none.
    pub name: String,
    /// Makespans in seconds, in the order of the first sweep's values.
    pub makespans: Vec<f64>,
}

/// Makespans over the values of the first sweep, a line for every combination of the others.
pub fn sweep(key: &str, values: &[String], swept: &[Swept]) -> Plot {
    let numbers: Option<Vec<f64>> = values.iter().map(|value| value.replace('_', "").parse().ok()).collect();
    let (measure, places, shape) = match numbers {
        Some(numbers) => (Measure::Figure(key.to_owned()), numbers, Shape::Marked),
        None => {
            let places = (0..values.len()).map(|index| index as f64).collect();
            (Measure::Words(key.to_owned(), values.to_vec()), places, Shape::Bars)
        }
    };
    let line = |swept: &Swept| {
        let mut points: Vec<(f64, f64)> = places.iter().copied().zip(swept.makespans.iter().copied()).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { name: swept.name.clone(), points, shape }
    };
    let described = swept.iter().map(|swept| {
        let pairs =
            values.iter().zip(&swept.makespans).map(|(value, makespan)| format!("{value}: {}", duration(*makespan)));
        let name = if swept.name.is_empty() { String::new() } else { format!("{}: ", swept.name) };
        format!("{name}{}", pairs.collect::<Vec<_>>().join(", "))
    });
    Plot {
        name: "sweep",
        title: format!("Makespan over {key}"),
        alternative: format!("{}.", described.collect::<Vec<_>>().join("; ")),
        horizontal: (key.to_owned(), measure),
        vertical: ("Makespan".to_owned(), Measure::Seconds),
        lines: swept.iter().map(line).collect(),
        bounds: Vec::new(),
    }
}

/// A bar of text, `width` characters at the most.
pub fn text_bar(value: f64, most: f64, width: usize) -> String {
    let length = if most > 0.0 && value.is_finite() { (value / most * width as f64).round() as usize } else { 0 };
    "#".repeat(length.min(width))
}

/// A difference with its sign.
pub fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", number(value)) } else { number(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::simulate::sample;

    #[test]
    fn an_outcome_has_its_plots_with_words_for_those_who_do_not_see_them() {
        let (scenario, simulated) = sample::restaurants();
        let all = plots(&scenario, &simulated);
        let texts: Vec<String> = all.iter().map(|plot| format!("{}: {}", plot.name, plot.alternative)).collect();
        insta::assert_snapshot!(texts.join("\n"));
        assert!(all.iter().all(|plot| !plot.file().contains("NaN")));
    }

    #[test]
    fn a_distribution_ends_with_all() {
        let sorted: Vec<f64> = (0..1000).map(f64::from).collect();
        let steps = distribution(&sorted);
        assert_eq!((steps.len(), steps[0], steps[200]), (201, (0.0, 0.0), (999.0, 1.0)));
        assert_eq!(distribution(&[5.0]), [(0.0, 0.0), (5.0, 1.0)]);
        assert_eq!(distribution(&[]), [(0.0, 0.0)]);
    }

    #[test]
    fn swept_words_are_bars_and_numbers_are_points() {
        let swept = [Swept { name: String::new(), makespans: vec![100.0, 50.0] }];
        let words = sweep("resolution", &["chunk".to_owned(), "flow".to_owned()], &swept);
        assert_eq!(words.lines[0].shape, Shape::Bars);
        let numbers = sweep("seed", &["1e3".to_owned(), "500".to_owned()], &swept);
        assert_eq!(numbers.lines[0].points, [(500.0, 50.0), (1000.0, 100.0)]);
        assert_eq!(numbers.alternative, "1e3: 1 min 40 s, 500: 50 s.");
    }
}
