//! Takes down what happens while a world runs.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{Step, View};
use crate::site::happening::Who;

/// The steps so far, and what each machine looked like at the last of them.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    steps: Vec<Step>,
    step: Step,
    touched: BTreeSet<Who>,
    shown: BTreeMap<String, View>,
}

impl Recorder {
    /// Something begins to happen.
    pub(crate) fn begin(&mut self, step: Step, who: Option<Who>) {
        self.step = Step { number: self.steps.len() as u64 + 1, ..step };
        self.touched.clear();
        self.touched.extend(who);
    }

    /// A machine may have changed.
    pub(crate) fn touch(&mut self, who: Who) {
        self.touched.insert(who);
    }

    /// Something followed.
    pub(crate) fn note(&mut self, text: fmt::Arguments<'_>) {
        self.step.notes.push(text.to_string());
    }

    /// Whose view is wanted at the end of the step.
    pub(crate) fn touched(&self) -> Vec<Who> {
        self.touched.iter().copied().collect()
    }

    /// The step is over; these are the views of what was touched.
    pub(crate) fn end(&mut self, views: Vec<(String, View)>) {
        for (name, view) in views {
            let before = self.shown.entry(name.clone()).or_default();
            let mut changed: View =
                view.iter().filter(|(key, value)| before.get(*key) != Some(value)).map(clone_pair).collect();
            let gone = before.keys().filter(|key| !view.contains_key(*key));
            changed.extend(gone.map(|key| (key.clone(), String::new())));
            *before = view;
            if !changed.is_empty() {
                self.step.changes.insert(name, changed);
            }
        }
        self.steps.push(std::mem::take(&mut self.step));
    }

    /// The steps; one that was broken off by a panic comes last.
    pub fn into_steps(mut self) -> Vec<Step> {
        if self.step.number > 0 {
            self.steps.push(self.step);
        }
        self.steps
    }
}

fn clone_pair((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}
