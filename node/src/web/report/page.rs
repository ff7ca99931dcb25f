//! What the report's page says, as plain values: the template only lays them out.
use askama::Template;
use branchline_protocol::{
    limits::REPORT_HTML_BYTES_MAX,
    plan::{Explanation, PlannedPackage},
    report::{Outcome, StepOutcome, StepSummary},
    session::Stage,
    time::UnixSeconds,
};
use branchline_station_role::station::{ApprovalView, SessionView};

use super::{
    ReportInput, checks,
    text::{bytes, fair_share, grouped, line, middle_cut, utc},
};

/// How much of each kind of thing the page shows.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Rows of one table.
    rows: usize,
    /// Characters of one cell.
    characters: usize,
    /// Bytes of captured output, all steps together.
    output_bytes: usize,
}

impl Budget {
    /// What is tried first: most sessions fit as a whole.
    pub const FIRST: Self = Self { rows: 400, characters: 600, output_bytes: REPORT_HTML_BYTES_MAX / 5 * 3 };
    /// What remains when everything was halved as often as possible.
    const LEAST: Self = Self { rows: 4, characters: 60, output_bytes: 1024 };

    /// Less of everything; `None` where there is no less.
    pub fn tighter(self) -> Option<Self> {
        let least = Self::LEAST;
        if self.rows <= least.rows && self.characters <= least.characters && self.output_bytes <= least.output_bytes {
            return None;
        }
        Some(Self {
            rows: (self.rows / 2).max(least.rows),
            characters: (self.characters * 3 / 4).max(least.characters),
            output_bytes: (self.output_bytes * 3 / 4).max(least.output_bytes),
        })
    }

    pub(super) fn line(self, text: &str) -> String {
        line(text, self.characters)
    }
}

/// One cell: its text, and the class that it is shown in (one of the style sheet's, or empty).
pub struct Cell {
    pub text: String,
    pub class: &'static str,
}

pub(super) fn plain(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), class: "" }
}
fn code(text: impl ToString) -> Cell {
    Cell { text: text.to_string(), class: "code" }
}
pub(super) fn number(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), class: "number" }
}
fn time(at: UnixSeconds) -> Cell {
    Cell { text: utc(at), class: "time" }
}
/// A heading with a table under it.
pub struct Section {
    pub anchor: &'static str,
    pub title: &'static str,
    /// A sentence under the heading; empty for none.
    pub lead: String,
    pub head: &'static [&'static str],
    pub rows: Vec<Vec<Cell>>,
    /// How many rows were left out.
    pub left_out: usize,
    /// Folded until it is opened.
    pub folded: bool,
}

impl Section {
    pub(super) fn of<T>(
        budget: Budget,
        anchor: &'static str,
        title: &'static str,
        head: &'static [&'static str],
        items: impl IntoIterator<Item = T>,
        row: impl FnMut(T) -> Vec<Cell>,
    ) -> Self {
        let mut items = items.into_iter();
        let rows = items.by_ref().take(budget.rows).map(row).collect();
        Self { anchor, title, lead: String::new(), head, rows, left_out: items.count(), folded: false }
    }

    pub(super) fn lead(mut self, text: impl Into<String>) -> Self {
        self.lead = text.into();
        self
    }

    fn folded(mut self) -> Self {
        self.folded = true;
        self
    }
}

/// One step of the installation with what it wrote.
pub struct StepRow {
    pub title: String,
    pub outcome: Cell,
    pub when: String,
    /// Empty where the step wrote nothing.
    pub output: String,
}

/// The whole page.
#[derive(Template)]
#[template(path = "report.html")]
pub struct Page {
    host: String,
    site: String,
    stage: String,
    class: &'static str,
    statement: String,
    summary: Vec<(&'static str, Cell)>,
    sections: Vec<Section>,
    steps: Vec<StepRow>,
    steps_left_out: usize,
    output_cut: String,
    notes: Vec<String>,
    timeline: Section,
    made_at: String,
    station: String,
    version: &'static str,
}

impl Page {
    /// Lays out the values of `input`, cut to `budget`.
    pub fn new(input: &ReportInput<'_>, budget: Budget) -> Self {
        let (view, install) = (&input.session.view, &input.session.install);
        let (steps, steps_left_out, cut_bytes) = steps(&install.steps, budget);
        let events_cut = input.session.events_cut;
        let mut notes = Vec::new();
        if events_cut > 0 {
            notes.push(format!(
                "{} events of progress and output were not kept: the host wrote more than a session may.",
                grouped(events_cut)
            ));
        }
        let output_cut = match cut_bytes {
            0 => String::new(),
            cut => format!(
                "{} of the captured output do not fit this page; the station keeps all that it received.",
                bytes(cut as u64)
            ),
        };
        let (class, statement) = statement(view, budget);
        Self {
            host: budget.line(&view.host_name),
            site: input.site.to_string(),
            stage: stage_words(view.stage),
            class,
            statement,
            summary: summary(input, budget),
            sections: sections(input, budget),
            steps,
            steps_left_out,
            output_cut,
            notes,
            timeline: timeline(input, budget),
            made_at: utc(input.made_at),
            station: input.station.to_string(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// A stage as people read it: `awaiting approval`.
fn stage_words(stage: Stage) -> String {
    let mut words = String::new();
    for character in format!("{stage:?}").chars() {
        if character.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(character.to_lowercase());
    }
    words
}

/// The page's colour and its first sentence. Only a session that is verified and still stands may claim success (R95).
fn statement(view: &SessionView, budget: Budget) -> (&'static str, String) {
    let because = match budget.line(&view.reason) {
        reason if reason.is_empty() => String::new(),
        reason => format!(" {reason}"),
    };
    match (view.stage, view.mapped) {
        (Stage::Verified | Stage::Complete, Some(mapped)) if view.verified => {
            ("good", format!("Installed, approved, and verified from inside and by headquarters at {mapped}."))
        }
        (Stage::Withdrawn, _) => ("bad", format!("Withdrawn: this host is not monitored any more.{because}")),
        (Stage::Denied, _) => ("bad", format!("Denied by headquarters: this host is not monitored.{because}")),
        (Stage::Refused | Stage::RolledBack | Stage::Failed | Stage::Cancelled, _) => {
            ("bad", format!("The session ended without success.{because}"))
        }
        (Stage::Attention, _) => ("bad", format!("The session waits for a person.{because}")),
        _ => ("waiting", format!("The session is not verified yet.{because}")),
    }
}

fn summary(input: &ReportInput<'_>, budget: Budget) -> Vec<(&'static str, Cell)> {
    let view = &input.session.view;
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    let mut rows = vec![
        ("Node", code(view.session.node)),
        ("Machine", code(budget.line(&view.machine_identifier))),
        ("Generation", plain(view.session.generation.to_string())),
        ("Inside address", code(view.inside)),
        ("Mapped address", code(or_none(view.mapped.map(|mapped| mapped.to_string())))),
        ("Opened", time(view.opened_at)),
    ];
    if let Some(ended) = view.ended_at {
        rows.push(("Ended", time(ended)));
    }
    if let Some(group) = &view.group {
        rows.push(("Cluster or HA pair", plain(budget.line(group))));
    }
    rows.extend([
        ("Plan", code(or_none(view.plan.map(|plan| plan.to_string())))),
        ("Approval", approval(view, budget)),
        ("Installation", outcome(&input.session.install.outcome, budget)),
        ("Over the WAN", plain(bytes(view.wan_bytes))),
        ("From inside the site", plain(bytes(view.lan_bytes))),
    ]);
    rows.extend(view.findings.iter().map(|finding| ("Finding", Cell { text: budget.line(finding), class: "bad" })));
    if let ApprovalView::Approved { document, .. } = &view.approval {
        rows.push(("Signed approval", code(document)));
    }
    if let Some(plan) = input.plan {
        rows.push(("Catalogue", code(plan.catalogue)));
        rows.push(("Site policy", code(plan.policy)));
        rows.push(("Descriptor", code(plan.descriptor)));
    }
    rows
}

fn approval(view: &SessionView, budget: Budget) -> Cell {
    if view.stage == Stage::Denied {
        return Cell { text: format!("denied: {}", budget.line(&view.reason)), class: "bad" };
    }
    match &view.approval {
        ApprovalView::Undecided { asked_at: None } => plain("not asked for"),
        ApprovalView::Undecided { asked_at: Some(at) } => plain(format!("asked for at {}, not decided", utc(*at))),
        ApprovalView::Delayed { by, reason, until } => {
            let until = until.map(|until| format!(" until {}", utc(until))).unwrap_or_default();
            Cell { text: format!("delayed by {}{until}: {}", budget.line(by), budget.line(reason)), class: "bad" }
        }
        ApprovalView::Approved { by, at, .. } => {
            Cell { text: format!("approved by {}; it arrived at {}", budget.line(by), utc(*at)), class: "good" }
        }
    }
}

fn outcome(outcome: &Outcome, budget: Budget) -> Cell {
    let bad = |text: String| Cell { text, class: "bad" };
    match outcome {
        Outcome::UnderWay => plain("under way"),
        Outcome::Installed => Cell { text: "installed and started".to_owned(), class: "good" },
        Outcome::Refused(reason) => bad(format!("refused by the host: {}", budget.line(reason))),
        Outcome::Failed { reason, rolled_back: true } => {
            bad(format!("failed, and everything was put back: {}", budget.line(reason)))
        }
        Outcome::Failed { reason, rolled_back: false } => {
            bad(format!("failed, and not everything could be put back: {}", budget.line(reason)))
        }
        Outcome::Withdrawn { uninstalled: true } => plain("withdrawn: stopped, and its files removed"),
        Outcome::Withdrawn { uninstalled: false } => plain("withdrawn: stopped, its files stay"),
    }
}

fn sections(input: &ReportInput<'_>, budget: Budget) -> Vec<Section> {
    let mut sections = match input.plan {
        Some(plan) => planned(&plan.packages, budget),
        None => named(&input.session.view, budget),
    };
    sections.extend(checks::sections(input, budget));
    if let Some(plan) = input.plan {
        sections.extend(explained(&plan.explanation, budget));
    }
    let (view, install) = (&input.session.view, &input.session.install);
    let head: &[&str] = &["Pack", "Complete", "Over the WAN", "From inside the site"];
    sections.push(Section::of(budget, "packs", "Packs received", head, &install.packs, |pack| {
        vec![code(pack.pack), time(pack.at), number(bytes(pack.wan_bytes)), number(bytes(pack.lan_bytes))]
    }));
    let facts =
        Section::of(budget, "facts", "Facts of the survey", &["Fact", "Value"], &view.facts, |(name, value)| {
            vec![plain(budget.line(name)), code(budget.line(value))]
        });
    sections.push(facts.folded());
    sections
}

/// What the plan says of its packages.
fn planned(packages: &[PlannedPackage], budget: Budget) -> Vec<Section> {
    let head: &[&str] = &["Package", "Version", "Format", "File", "Image", "Pack", "SHA-256 of the file"];
    let list = Section::of(budget, "packages", "Packages", head, packages, |package| {
        vec![
            plain(budget.line(&package.name)),
            plain(budget.line(&package.version)),
            plain(format!("{:?}", package.format).to_lowercase()),
            plain(format!("{}, {}", budget.line(&package.file_name), bytes(package.raw_bytes))),
            code(package.image),
            plain(format!("{} …, {}", package.pack.0.short(), bytes(package.pack_bytes))),
            code(package.sha256),
        ]
    });
    let modules = packages.iter().flat_map(|package| package.modules.iter().map(move |module| (package, module)));
    let head: &[&str] = &["Module", "Of", "Why"];
    let modules = Section::of(budget, "modules", "Modules switched on", head, modules, |(package, module)| {
        vec![plain(budget.line(&module.name)), plain(budget.line(&package.name)), plain(budget.line(&module.reason))]
    });
    let thresholds = packages.iter().flat_map(|package| &package.thresholds);
    let head: &[&str] = &["Threshold", "Value", "Unit", "Why"];
    let thresholds = Section::of(budget, "thresholds", "Thresholds", head, thresholds, |threshold| {
        vec![
            plain(budget.line(&threshold.name)),
            code(budget.line(&threshold.value)),
            plain(budget.line(&threshold.unit)),
            plain(budget.line(&threshold.reason)),
        ]
    });
    let ports = packages.iter().flat_map(|package| package.ports.iter().map(move |port| (package, port)));
    let head: &[&str] = &["Port", "Of", "HTTP path", "Monitoring"];
    let ports = Section::of(budget, "ports", "Ports reachable through the mapping", head, ports, |(package, port)| {
        let path = if port.http_path.is_empty() { "TCP only".to_owned() } else { budget.line(&port.http_path) };
        let scrape = if port.scrape { "scraped" } else { "not scraped" };
        vec![number(port.port.to_string()), plain(budget.line(&package.name)), code(path), plain(scrape)]
    });
    let files = packages.iter().flat_map(|package| &package.files);
    let head: &[&str] = &["File", "Mode", "Owner", "Length"];
    let files = Section::of(budget, "files", "Configuration written", head, files, |file| {
        let owner = file.owner.as_deref().unwrap_or("root");
        let length = bytes(file.content.len() as u64);
        vec![
            code(budget.line(&file.path)),
            code(format!("{:04o}", file.mode)),
            plain(budget.line(owner)),
            number(length),
        ]
    });
    vec![list, modules, thresholds, ports, files]
}

/// What the station's own summary says, where the plan is not at hand.
fn named(view: &SessionView, budget: Budget) -> Vec<Section> {
    let packages = Section::of(budget, "packages", "Packages", &["Package"], &view.packages, |package| {
        vec![plain(budget.line(package))]
    });
    let images = Section::of(budget, "images", "Images", &["Image"], &view.images, |image| vec![code(image)]);
    let modules = Section::of(budget, "modules", "Modules switched on", &["Module"], &view.modules, |module| {
        vec![plain(budget.line(module))]
    });
    let head: &[&str] = &["Threshold", "Value"];
    let thresholds = Section::of(budget, "thresholds", "Thresholds", head, &view.thresholds, |(name, value)| {
        vec![plain(budget.line(name)), code(budget.line(value))]
    });
    vec![packages, images, modules, thresholds]
}

fn explained(explanations: &[Explanation], budget: Budget) -> [Section; 2] {
    let row = |explanation: &Explanation| {
        vec![
            plain(budget.line(&explanation.subject)),
            plain(budget.line(&explanation.text)),
            code(budget.line(&explanation.rule)),
            code(budget.line(&explanation.fact)),
        ]
    };
    let head: &[&str] = &["What", "Why", "Rule", "Facts"];
    let (chosen, left_out): (Vec<_>, Vec<_>) = explanations.iter().partition(|explanation| explanation.chosen);
    [
        Section::of(budget, "left-out", "Left out", head, left_out, row),
        Section::of(budget, "chosen", "Chosen", head, chosen, row).folded(),
    ]
}

/// The steps, how many are left out, and how many bytes of their output.
fn steps(steps: &[StepSummary], budget: Budget) -> (Vec<StepRow>, usize, usize) {
    // What failed stands at the end, so that the first steps go.
    let left_out = steps.len().saturating_sub(budget.rows);
    let mut cut: usize = steps[..left_out].iter().map(|step| step.output.len()).sum();
    let steps = &steps[left_out..];
    let share = fair_share(&steps.iter().map(|step| step.output.len()).collect::<Vec<_>>(), budget.output_bytes);
    let rows = steps
        .iter()
        .map(|step| {
            let (output, cut_here) = middle_cut(&step.output, share);
            cut += cut_here;
            let (when, outcome) = match &step.ended {
                None => (format!("{} – under way", utc(step.began_at)), plain("under way")),
                Some((at, ended)) => (format!("{} – {}", utc(step.began_at), utc(*at)), step_outcome(ended, budget)),
            };
            StepRow { title: format!("{}. {}", step.step, budget.line(&step.title)), outcome, when, output }
        })
        .collect();
    (rows, left_out, cut)
}

fn step_outcome(outcome: &StepOutcome, budget: Budget) -> Cell {
    match outcome {
        StepOutcome::Done => Cell { text: "done".to_owned(), class: "good" },
        StepOutcome::Undone => plain("undone"),
        StepOutcome::Failed(reason) => Cell { text: format!("failed: {}", budget.line(reason)), class: "bad" },
    }
}

/// What happened, by the station's journal and by the host's word, in order of time. The middle goes where it is too long.
fn timeline(input: &ReportInput<'_>, budget: Budget) -> Section {
    let install = &input.session.install;
    let mut lines: Vec<(UnixSeconds, &'static str, String)> = Vec::new();
    lines.extend(input.session.view.history.iter().map(|line| (line.at, "station", line.text.clone())));
    lines.extend(install.notes.iter().map(|(at, text)| (*at, "host", text.clone())));
    for pack in &install.packs {
        lines.push((pack.at, "host", format!("Pack {} is complete and verified.", pack.pack.0.short())));
    }
    for step in &install.steps {
        lines.push((step.began_at, "host", format!("Step {} begins: {}", step.step, step.title)));
        match &step.ended {
            Some((at, StepOutcome::Failed(why))) => {
                lines.push((*at, "host", format!("Step {} failed: {why}", step.step)))
            }
            Some((at, StepOutcome::Undone)) => lines.push((*at, "host", format!("Step {} is undone.", step.step))),
            Some((_, StepOutcome::Done)) | None => {}
        }
    }
    lines.sort_by_key(|(at, _, _)| *at);
    let left_out = lines.len().saturating_sub(budget.rows);
    lines.drain(budget.rows.min(lines.len()) / 2..budget.rows.min(lines.len()) / 2 + left_out);
    let head: &[&str] = &["When", "Who says so", "What"];
    let mut section = Section::of(budget, "timeline", "Timeline", head, lines, |(at, who, what)| {
        vec![time(at), plain(who), plain(budget.line(&what))]
    });
    section.left_out = left_out;
    section.lead("Times are those of each machine's own clock.")
}
