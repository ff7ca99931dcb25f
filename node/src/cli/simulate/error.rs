//! What may go wrong, and the exit code of each kind.
use std::{io, path::PathBuf};

use branchline_simulations::capacity::{PRESETS, ScenarioError, SimulateError};
use thiserror::Error;

use super::settings::SettingError;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum CommandError {
    /// A file cannot be read.
    #[error("reading {}: {}", path.display(), reading(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("writing {}: {source}; name a file in a directory that exists and that you may write to", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no preset of this name.
    #[error("there is no preset `{name}`; there are {}", preset_names())]
    NoPreset {
        /// What was asked for.
        name: String,
    },
    /// A word of `--compare` is neither a file nor a preset.
    #[error("`{name}` is neither a file nor a preset; the presets are {}", preset_names())]
    NeitherFileNorPreset {
        /// What was asked for.
        name: String,
    },
    /// A setting cannot be made.
    #[error("{0}")]
    Setting(#[from] SettingError),
    /// The scenario is none.
    #[error("{origin}: {}", explained(fault))]
    Scenario {
        /// The file, the preset or the setting at fault.
        origin: String,
        /// What is wrong.
        fault: ScenarioError,
    },
    /// The scenario cannot be simulated.
    #[error("{origin}: {fault}")]
    Simulate {
        /// The file or the preset.
        origin: String,
        /// What is wrong.
        fault: SimulateError,
    },
    /// Shards do not belong together.
    #[error("{0}")]
    Shards(String),
}

fn reading(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; give the path of a scenario, or --preset NAME (--list-presets \
                                    shows them)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

fn preset_names() -> String {
    PRESETS.map(|preset| preset.name).join(", ")
}

/// The fault, with its key as `--set` takes it.
fn explained(fault: &ScenarioError) -> String {
    match fault {
        ScenarioError::Senseless { key, fault } => format!("{}: {fault}", dotted(key)),
        ScenarioError::Unreadable(error) => error.to_string().trim_end().to_owned(),
    }
}

/// `sites[1].hosts`, which counts from 1, as `sites.0.hosts`.
fn dotted(key: &str) -> String {
    let mut text = String::new();
    for (index, part) in key.split('[').enumerate() {
        match part.split_once(']') {
            Some((number, rest)) if index > 0 => {
                let number =
                    number.parse::<usize>().map_or_else(|_| number.to_owned(), |n| n.saturating_sub(1).to_string());
                text.push_str(&format!(".{number}{rest}"));
            }
            _ => text.push_str(part),
        }
    }
    text
}

impl CommandError {
    /// The exit code: 1 a file cannot be read or written, 2 the command line is wrong, 3 the scenario is refused, 4
    /// shards do not belong together.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. } | Self::Write { .. } => 1,
            Self::NoPreset { .. } | Self::NeitherFileNorPreset { .. } => 2,
            Self::Setting(_) | Self::Scenario { .. } | Self::Simulate { .. } => 3,
            Self::Shards(_) => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_settings_take_them() {
        assert_eq!(dotted("sites[1].hosts"), "sites.0.hosts");
        assert_eq!(dotted("rollout.waves[3]"), "rollout.waves.2");
        assert_eq!(dotted("payload.size_bytes"), "payload.size_bytes");
    }
}
