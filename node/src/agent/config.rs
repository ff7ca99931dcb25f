//! The agent's configuration file.
use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Modules that the agent has.
pub const MODULES: [&str; 6] = ["cpu", "memory", "disk", "nfs", "cluster", "high-availability"];

/// A failure that a test asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// None: what a template says on the hosts that it does not mean.
    Never,
    /// Ends at once with an error.
    Start,
    /// Runs, but says that it is not well.
    Health,
    /// Ends with an error after `fail_after_seconds`.
    CrashAfterSeconds,
}

/// What the file says (TOML).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Where to serve HTTP.
    pub listen: SocketAddr,
    /// Modules that are switched on.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Thresholds by name.
    #[serde(default)]
    pub thresholds: BTreeMap<String, toml::Value>,
    /// A failure to show, for tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<Failure>,
    /// When [`Failure::CrashAfterSeconds`] happens.
    #[serde(default)]
    pub fail_after_seconds: u64,
}

/// Why a configuration is not usable.
#[derive(Debug, Error)]
pub enum AgentConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not TOML, or not such a configuration.
    #[error("the configuration {path} is not usable: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said, with the line.
        reason: String,
    },
    /// A module that the agent does not have.
    #[error("the configuration {path} switches on the module {module:?}, which this agent does not have")]
    Module {
        /// The file.
        path: PathBuf,
        /// The name.
        module: String,
    },
}

impl AgentConfig {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// See [`AgentConfigError`].
    pub fn read(path: &Path) -> Result<Self, AgentConfigError> {
        let owned = || path.to_owned();
        let text = fs::read_to_string(path).map_err(|source| AgentConfigError::Read { path: owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| AgentConfigError::Malformed { path: owned(), reason: error.to_string() })?;
        match config.modules.iter().find(|module| !MODULES.contains(&module.as_str())) {
            Some(module) => Err(AgentConfigError::Module { path: owned(), module: module.clone() }),
            None => Ok(config),
        }
    }

    /// The thresholds that are numbers.
    pub fn numbers(&self) -> BTreeMap<&str, f64> {
        let number = |value: &toml::Value| match value {
            toml::Value::Integer(number) => Some(*number as f64),
            toml::Value::Float(number) => Some(*number),
            toml::Value::String(text) => text.parse().ok(),
            _ => None,
        };
        self.thresholds.iter().filter_map(|(name, value)| Some((name.as_str(), number(value)?))).collect()
    }

    /// Whether a module is switched on.
    pub fn has(&self, module: &str) -> bool {
        self.modules.iter().any(|name| name == module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AgentConfig, AgentConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        AgentConfig::read(&path)
    }

    #[test]
    fn a_configuration_as_the_catalogue_writes_it() {
        let config = read(
            "listen = \"127.0.0.1:9105\"\nmodules = [\"cpu\", \"nfs\"]\nthresholds = { cpu_load_warning = \"3.0\", \
             nfs_stale_after_seconds = 30 }\nfail = \"crash-after-seconds\"\nfail_after_seconds = 2\n",
        )
        .unwrap();
        assert!(config.has("nfs") && !config.has("disk"));
        assert_eq!(config.numbers(), BTreeMap::from([("cpu_load_warning", 3.0), ("nfs_stale_after_seconds", 30.0)]));
        assert_eq!(config.fail, Some(Failure::CrashAfterSeconds));
    }

    #[test]
    fn a_host_that_is_not_meant_does_not_fail() {
        let config = read("listen = \"127.0.0.1:9105\"\nfail = \"never\"\n").unwrap();
        assert_eq!(config.fail, Some(Failure::Never));
    }

    #[test]
    fn unknown_modules_and_keys_are_refused_by_name() {
        let error = read("listen = \"127.0.0.1:1\"\nmodules = [\"gpu\"]\n").unwrap_err().to_string();
        assert!(error.contains("\"gpu\""), "{error}");
        let error = read("listen = \"127.0.0.1:1\"\nmodule = []\n").unwrap_err().to_string();
        assert!(error.contains("unknown field `module`"), "{error}");
    }
}
