//! Goes through a recording, forwards and backwards.
use std::collections::BTreeMap;

use super::{Recording, Step, View};

/// Which steps are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only what concerns this machine; everything where there is none.
    pub machine: Option<String>,
}

impl Filter {
    /// Whether a step concerns the machine.
    pub fn takes(&self, step: &Step) -> bool {
        let Some(machine) = &self.machine else { return true };
        step.who == *machine || step.changes.contains_key(machine)
    }
}

/// A place in a recording: before the first step, or at one.
#[derive(Clone, Debug)]
pub struct Stepper<'a> {
    recording: &'a Recording,
    filter: Filter,
    /// Steps that lie behind.
    place: usize,
}

impl<'a> Stepper<'a> {
    /// At the beginning.
    pub fn new(recording: &'a Recording, filter: Filter) -> Self {
        Self { recording, filter, place: 0 }
    }

    /// The step that happened last.
    pub fn step(&self) -> Option<&'a Step> {
        self.recording.steps.get(self.place.checked_sub(1)?)
    }

    /// Goes to the next step that the filter takes; `None` at the end, where the place does not change.
    pub fn forward(&mut self) -> Option<&'a Step> {
        let rest = self.recording.steps.get(self.place..)?;
        let (ahead, step) = rest.iter().enumerate().find(|(_, step)| self.filter.takes(step))?;
        self.place += ahead + 1;
        Some(step)
    }

    /// Goes back to the step before; `None` at the first.
    pub fn back(&mut self) -> Option<&'a Step> {
        let before = &self.recording.steps[..self.place.saturating_sub(1)];
        let index = before.iter().rposition(|step| self.filter.takes(step))?;
        self.place = index + 1;
        self.step()
    }

    /// Goes on to the first step that has this number or later, or whose text contains `wanted`. `None`: there is none,
    /// and the place does not change.
    pub fn until(&mut self, wanted: &str) -> Option<&'a Step> {
        let number: Option<u64> = wanted.parse().ok();
        let place = self.place;
        while let Some(step) = self.forward() {
            let found = number.map_or_else(|| step.text().contains(wanted), |number| step.number >= number);
            if found {
                return Some(step);
            }
        }
        self.place = place;
        None
    }

    /// The names of the machines that a recording tells of.
    pub fn machines(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> =
            self.recording.steps.iter().flat_map(|step| step.changes.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What a machine looked like at this place.
    pub fn state_of(&self, machine: &str) -> View {
        let mut view = BTreeMap::new();
        for changed in self.recording.steps[..self.place].iter().filter_map(|step| step.changes.get(machine)) {
            view.extend(changed.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        view.retain(|_, value: &mut String| !value.is_empty());
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Header, RECORDING_FORMAT};

    fn recording() -> Recording {
        let step = |number: u64, who: &str, key: &str, value: &str| Step {
            number,
            who: who.to_owned(),
            event: "Report".to_owned(),
            changes: [(who.to_owned(), [(key.to_owned(), value.to_owned())].into())].into(),
            ..Step::default()
        };
        let steps = vec![step(1, "a", "stage", "open"), step(2, "b", "stage", "open"), step(3, "a", "stage", "")];
        let header = Header {
            format: RECORDING_FORMAT,
            seed: 1,
            sabotage: None,
            options: String::new(),
            failure: None,
            steps: 3,
        };
        Recording { header, steps }
    }

    #[test]
    fn states_follow_from_the_changes_forwards_and_backwards() {
        let recording = recording();
        let mut stepper = Stepper::new(&recording, Filter::default());
        assert_eq!(stepper.machines(), ["a", "b"]);
        assert!(stepper.state_of("a").is_empty());
        assert_eq!(stepper.forward().map(|step| step.number), Some(1));
        assert_eq!(stepper.state_of("a").get("stage").map(String::as_str), Some("open"));
        assert_eq!(stepper.until("3").map(|step| step.number), Some(3));
        assert!(stepper.state_of("a").is_empty(), "an empty value says that there is none any more");
        assert_eq!(stepper.forward(), None);
        assert_eq!(stepper.back().map(|step| step.number), Some(2));
        assert_eq!(stepper.state_of("a").len(), 1);
        assert_eq!(stepper.until("no such thing"), None);
        assert_eq!(stepper.step().map(|step| step.number), Some(2));

        let mut of_a = Stepper::new(&recording, Filter { machine: Some("a".to_owned()) });
        let numbers: Vec<u64> = std::iter::from_fn(|| of_a.forward()).map(|step| step.number).collect();
        assert_eq!(numbers, [1, 3]);
        assert_eq!(of_a.back().map(|step| step.number), Some(1));
        assert_eq!(of_a.back(), None);
    }
}
