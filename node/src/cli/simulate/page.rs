//! The answer as one page that fetches nothing.
use askama::Template;
use branchline_simulations::capacity::{Scenario, Simulated, SiteResult};

use super::{
    figures,
    plot::{Plot, STYLE},
    sweep::Shown,
    units::{bytes, count, duration},
    words::{self, Paragraph},
};

/// A table with its heading.
struct PageTable {
    heading: &'static str,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

#[derive(Template)]
#[template(path = "simulate.html")]
struct Page<'a> {
    title: String,
    lead: String,
    paragraphs: Vec<Paragraph>,
    plots: Vec<String>,
    tables: Vec<PageTable>,
    scenario: &'a str,
    plot_style: &'a str,
    version: &'a str,
}

/// The page of one outcome. What the run took is left out, so that the page is the same on every machine.
///
/// # Errors
/// The template cannot be filled.
pub fn of_outcome(origin: &str, scenario: &Scenario, written: &str, simulated: &Simulated) -> askama::Result<String> {
    let mut paragraphs = words::paragraphs(origin, scenario, simulated);
    paragraphs.retain(|paragraph| paragraph.heading != "The run");
    let lead = paragraphs.iter().find(|paragraph| paragraph.heading == "How long");
    let lead = lead.map_or_else(String::new, |paragraph| paragraph.text.clone());
    paragraphs.retain(|paragraph| paragraph.heading != "How long");
    let page = Page {
        title: format!("Simulation of {origin}"),
        lead,
        paragraphs,
        plots: figures::plots(scenario, simulated).iter().map(Plot::inline).collect(),
        tables: tables(scenario, simulated),
        scenario: written,
        plot_style: STYLE,
        version: env!("CARGO_PKG_VERSION"),
    };
    page.render()
}

/// The page of a sweep.
///
/// # Errors
/// The template cannot be filled.
pub fn of_sweep(shown: &Shown) -> askama::Result<String> {
    let mut table = PageTable { heading: "Every combination", header: shown.header(), rows: shown.rows() };
    // The last column is a bar of text; a page has the plot instead.
    table.header.pop();
    table.rows.iter_mut().for_each(|row| {
        row.pop();
    });
    let page = Page {
        title: shown.title(),
        lead: "The makespan, and what it depends on, for every combination of the swept figures.".to_owned(),
        paragraphs: Vec::new(),
        plots: shown.plot().iter().map(Plot::inline).collect(),
        tables: vec![table],
        scenario: shown.scenario(),
        plot_style: STYLE,
        version: env!("CARGO_PKG_VERSION"),
    };
    page.render()
}

fn tables(scenario: &Scenario, simulated: &Simulated) -> Vec<PageTable> {
    let entries = words::entries(scenario, &simulated.outcome.sites);
    let header = entries.header.map(str::to_owned).into();
    let mut tables = vec![
        PageTable { heading: "Every entry of the scenario", header, rows: entries.rows },
        spread(scenario, &simulated.sites),
    ];
    if !simulated.lifts.is_empty() {
        let rows = simulated.lifts.iter().map(|lift| {
            vec![words::named(lift.term).to_owned(), duration(lift.makespan_seconds), duration(lift.gain_seconds)]
        });
        let header = ["Without", "Complete after", "Earlier by"].map(str::to_owned).into();
        tables.push(PageTable { heading: "What lifting each limit would gain", header, rows: rows.collect() });
    }
    if simulated.waves.len() > 1 {
        let rows = simulated.waves.iter().enumerate().map(|(index, wave)| {
            let begins = wave.began_seconds.map_or_else(|| "never".to_owned(), duration);
            vec![(index + 1).to_string(), count(wave.sites), begins]
        });
        let header = ["Wave", "Sites", "Begins after"].map(str::to_owned).into();
        tables.push(PageTable { heading: "Waves", header, rows: rows.collect() });
    }
    tables
}

/// How much the sites of each entry differ: the first, the middle and the last of them.
fn spread(scenario: &Scenario, sites: &[SiteResult]) -> PageTable {
    let rows = (0..scenario.sites.len()).filter_map(|entry| {
        let of_entry: Vec<&SiteResult> = sites.iter().filter(|site| site.entry as usize == entry).collect();
        let mut moments: Vec<f64> = of_entry.iter().map(|site| site.makespan_seconds).collect();
        moments.sort_by(f64::total_cmp);
        let middle = *moments.get((moments.len().max(1) - 1) / 2)?;
        let sent = of_entry.iter().map(|site| site.headquarters_bytes).sum();
        let waited = of_entry.iter().map(|site| site.queue_length_max).max().unwrap_or(0);
        let (first, last) = (*moments.first()?, *moments.last()?);
        let times = [first, middle, last].map(duration);
        let name = format!("sites.{entry}");
        Some([name].into_iter().chain(times).chain([bytes(sent), count(u64::from(waited))]).collect())
    });
    let header = ["Entry", "First complete after", "Half after", "Last after", "Sent by headquarters", "Longest queue"];
    PageTable {
        heading: "How the sites of an entry differ",
        header: header.map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::simulate::sample;

    #[test]
    fn the_page_is_whole_and_fetches_nothing() {
        let (scenario, simulated) = sample::restaurants();
        let page = of_outcome("preset <x>", &scenario, "seed = 1 # <&>", &simulated).unwrap();
        assert_eq!(page.matches("<svg").count(), 6);
        assert_eq!(page.matches("role=\"img\"").count(), 6);
        for forbidden in ["<script", "http://", "https://", "src=", "url(", "preset <x>", "<&>", "NaN"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for wanted in ["prefers-color-scheme: dark", "<desc id=\"complete-text\">", "What binds", "&#60;&#38;&#62;"] {
            assert!(page.contains(wanted), "{wanted}");
        }
    }
}
