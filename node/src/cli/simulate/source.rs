//! Where a scenario comes from: a file or a preset, and what the command line changes.
use std::{fs, path::Path};

use branchline_simulations::capacity::{Preset, Scenario, ScenarioError};
use serde::Deserialize;
use toml::Table;

use super::{
    error::CommandError,
    settings::{Setting, Sweep},
};

/// A scenario as it was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The file or the preset, as people name it.
    pub origin: String,
    /// What it says, before any change.
    text: String,
    /// What the command line changes, in its order.
    pub settings: Vec<Setting>,
}

impl Asked {
    /// The scenario in a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn file(path: &Path) -> Result<Self, CommandError> {
        let read = |source| CommandError::Read { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(read)?;
        Ok(Self { origin: path.display().to_string(), text, settings: Vec::new() })
    }

    /// The preset of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn preset(name: &str) -> Result<Self, CommandError> {
        let preset = Preset::named(name).ok_or_else(|| CommandError::NoPreset { name: name.to_owned() })?;
        Ok(Self::of(preset))
    }

    fn of(preset: &Preset) -> Self {
        Self { origin: format!("preset {}", preset.name), text: preset.text.to_owned(), settings: Vec::new() }
    }

    /// The file of this name, or else the preset of this name.
    ///
    /// # Errors
    /// There is neither, or the file cannot be read.
    pub fn file_or_preset(name: &str) -> Result<Self, CommandError> {
        let path = Path::new(name);
        match Preset::named(name) {
            Some(preset) if !path.exists() => Ok(Self::of(preset)),
            None if !path.exists() => Err(CommandError::NeitherFileNorPreset { name: name.to_owned() }),
            _ => Self::file(path),
        }
    }

    /// The same with more settings.
    pub fn with(mut self, settings: impl IntoIterator<Item = Setting>) -> Self {
        self.settings.extend(settings);
        self
    }

    /// The scenario of one combination of the sweeps' values.
    ///
    /// # Errors
    /// As [`Self::scenario`].
    pub fn at(&self, sweeps: &[Sweep], values: &[String]) -> Result<Scenario, CommandError> {
        let pairs = sweeps.iter().zip(values);
        let settings = pairs.map(|(sweep, value)| Setting::new(sweep.key(), value)).collect::<Result<Vec<_>, _>>()?;
        self.clone().with(settings).scenario()
    }

    /// What is to be simulated.
    ///
    /// # Errors
    /// The text is no scenario, a setting cannot be made, or no scenario is left when it is; the error names the first
    /// setting after which it is none.
    pub fn scenario(&self) -> Result<Scenario, CommandError> {
        let fault = |fault| CommandError::Scenario { origin: self.origin.clone(), fault };
        if self.settings.is_empty() {
            return Scenario::from_toml(&self.text).map_err(fault);
        }
        let mut table: Table = toml::from_str(&self.text).map_err(|error| fault(error.into()))?;
        let mut was_sound = read(&table).is_ok();
        let mut broken_by = None;
        for setting in &self.settings {
            setting.apply(&mut table)?;
            let is_sound = read(&table).is_ok();
            if was_sound && !is_sound {
                broken_by = Some(setting);
            }
            was_sound = is_sound;
        }
        read(&table).map_err(|fault| {
            let origin = broken_by.map_or_else(|| self.origin.clone(), |setting| format!("with {setting}"));
            CommandError::Scenario { origin, fault }
        })
    }
}

fn read(table: &Table) -> Result<Scenario, ScenarioError> {
    let scenario = Scenario::deserialize(table.clone())?;
    scenario.check()?;
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use branchline_simulations::capacity::PRESETS;

    use super::*;

    fn asked(settings: &[&str]) -> Asked {
        Asked::preset("restaurants").unwrap().with(settings.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn settings_change_what_a_preset_says() {
        let scenario =
            asked(&["seed=9", "sites.0.count=10", "resolution=flow", "rollout.waves=[1]"]).scenario().unwrap();
        assert_eq!((scenario.seed, scenario.sites_total()), (9, 10));
        assert_eq!(scenario.rollout.waves, [1.0]);
    }

    #[test]
    fn a_refusal_names_the_setting() {
        let cases: [&[&str]; 6] = [
            &["seed=1", "sites.0.hostz=3", "seed=2"],
            &["sites.0.hosts=0"],
            &["sites.0.slow_factor=4"],
            &["resolution=frames"],
            &["sites.0.neighbours=some"],
            &["rollout.waves=[0.5]"],
        ];
        let refusals = cases.map(|settings| {
            let error = asked(settings).scenario().unwrap_err();
            assert_eq!(error.exit_code(), 3);
            error.to_string()
        });
        insta::assert_snapshot!(refusals.join("\n---\n"));
    }

    #[test]
    fn settings_may_mend_each_other() {
        let settings = ["rollout.waves=[0.5, 0.2, 1.0]", "rollout.waves.1=0.7"];
        assert_eq!(asked(&settings).scenario().unwrap().rollout.waves, [0.5, 0.7, 1.0]);
    }

    #[test]
    fn a_combination_changes_each_swept_figure() {
        let sweeps: Vec<Sweep> = ["seed=1,2", "sites.0.hosts=5,6"].map(|text| text.parse().unwrap()).into();
        let scenario = asked(&[]).at(&sweeps, &["2".to_owned(), "5".to_owned()]).unwrap();
        assert_eq!((scenario.seed, scenario.hosts_about()), (2, 10_000.0));
    }

    #[test]
    fn every_preset_is_found_by_name() {
        for preset in PRESETS {
            assert_eq!(Asked::file_or_preset(preset.name).unwrap().scenario().unwrap().seed, 1);
        }
        assert_eq!(Asked::file_or_preset("no-such").unwrap_err().exit_code(), 2);
    }
}
