//! What people see while the demo works: bars on a terminal, lines elsewhere, nothing beside JSON.
use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use branchline_protocol::session::Stage;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::observed::Session;

/// The way of a host that nothing goes wrong with.
const WAY: [Stage; 12] = [
    Stage::Queued,
    Stage::Open,
    Stage::Surveyed,
    Stage::Selected,
    Stage::Spreading,
    Stage::Installing,
    Stage::Installed,
    Stage::AwaitingApproval,
    Stage::Approved,
    Stage::Mapped,
    Stage::Verified,
    Stage::Complete,
];

/// How progress is shown.
#[derive(Debug)]
pub struct Progress {
    form: Form,
    seen: BTreeMap<String, Stage>,
}

#[derive(Debug)]
enum Form {
    Nothing,
    Lines,
    Bars { step: ProgressBar, hosts: BTreeMap<String, ProgressBar>, all: MultiProgress },
}

/// A stage in the words of the command line.
pub fn stage_name(stage: Stage) -> String {
    serde_json::to_value(stage).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

impl Progress {
    /// Bars where standard error is a terminal, lines where it is not, nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let form = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Form::Nothing,
            (false, false) => Form::Lines,
            (false, true) => {
                let all = MultiProgress::new();
                let step = all.add(ProgressBar::new_spinner());
                step.enable_steady_tick(Duration::from_millis(100));
                Form::Bars { step, hosts: BTreeMap::new(), all }
            }
        };
        Self { form, seen: BTreeMap::new() }
    }

    /// What the demo itself does now.
    pub fn step(&mut self, text: &str) {
        match &self.form {
            Form::Nothing => {}
            Form::Lines => eprintln!("{text}"),
            Form::Bars { step, .. } => step.set_message(text.to_owned()),
        }
    }

    /// Shows where the hosts stand.
    pub fn show(&mut self, sessions: &BTreeMap<String, Session>) {
        for (name, session) in sessions {
            let before = self.seen.insert(name.clone(), session.stage);
            match &mut self.form {
                Form::Nothing => {}
                Form::Lines if before == Some(session.stage) => {}
                Form::Lines => eprintln!("{name}: {}{}", stage_name(session.stage), because(session)),
                Form::Bars { hosts, all, .. } => {
                    let bar = hosts.entry(name.clone()).or_insert_with(|| bar(all, name));
                    if let Some(position) = WAY.iter().position(|stage| *stage == session.stage) {
                        bar.set_position(position as u64 + 1);
                    }
                    bar.set_message(format!("{}{}", stage_name(session.stage), because(session)));
                }
            }
        }
    }

    /// Takes bars away, so that what is printed next stands alone.
    pub fn finish(&mut self) {
        if let Form::Bars { step, hosts, .. } = &self.form {
            step.finish_and_clear();
            hosts.values().for_each(ProgressBar::finish_and_clear);
        }
    }
}

fn because(session: &Session) -> String {
    if session.reason.is_empty() { String::new() } else { format!(" ({})", session.reason) }
}

fn bar(all: &MultiProgress, name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:10} {bar:24.green} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = all.add(ProgressBar::new(WAY.len() as u64)).with_style(style);
    bar.set_prefix(name.to_owned());
    bar
}
