//! A node's home directory: the one place where it keeps everything.
use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, bail};
use ed25519_dalek::SigningKey;
use serde::{Serialize, de::DeserializeOwned};

use super::{keys, raw::NodeConfig};

/// A home directory. Its files:
///
/// | path | holds |
/// | --- | --- |
/// | `node.toml` | the configuration |
/// | `identity.key` | the node's secret key |
/// | `door.key`, `door.crt` | key and certificate of the public door |
/// | `http.token` | what readers of headquarters' HTTP must show |
/// | `sites/NAME/` | what is known of a site: authority, catalogue, policy, memberships |
/// | `journal.redb` | the journals of the machines |
/// | `packs/` | packs |
/// | `surveys/` | the own descriptor and sealed surveys |
/// | `reports/` | HTML reports |
/// | `control.sock` | where commands reach the running node |
#[derive(Clone, Debug)]
pub struct Home {
    directory: PathBuf,
}

impl Home {
    /// Opens an existing home directory.
    ///
    /// # Errors
    /// It is not there.
    pub fn open(directory: &Path) -> Result<Self> {
        if !directory.is_dir() {
            bail!(
                "there is no home directory {}; make one with `branchline identity --home {}` or `branchline join`",
                directory.display(),
                directory.display()
            );
        }
        Ok(Self { directory: directory.canonicalize()? })
    }

    /// Opens a home directory, and makes it where it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("making the home directory {}", directory.display()))?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o750))
            .with_context(|| format!("setting the mode of {}", directory.display()))?;
        Self::open(directory)
    }

    /// A path in the home directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join(name)
    }

    /// A directory in the home directory, made where it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn directory(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("making the directory {}", path.display()))?;
        Ok(path)
    }

    /// The node's key, made at the first call.
    ///
    /// # Errors
    /// It cannot be read or made.
    pub fn identity(&self) -> Result<SigningKey> {
        let path = self.path("identity.key");
        if path.exists() { keys::read_key(&path) } else { keys::create_key(&path) }
    }

    /// The configuration; an absent file means the defaults.
    ///
    /// # Errors
    /// The file cannot be read, or has a wrong key or value.
    pub fn config_or_default(&self) -> Result<NodeConfig> {
        let path = self.path("node.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(NodeConfig::default()),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "reading {}; give the command as the user that the home directory belongs to",
                        path.display()
                    )
                });
            }
        };
        toml::from_str(&text).with_context(|| format!("reading the configuration {}", path.display()))
    }

    /// Writes the configuration: only what differs from the defaults, so that an operator can add tables to the file
    /// without meeting them there already.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save_config(&self, config: &NodeConfig) -> Result<()> {
        let changed = without_defaults(toml::Table::try_from(config)?, &toml::Table::try_from(NodeConfig::default())?);
        write_atomically(&self.path("node.toml"), toml::to_string_pretty(&changed)?.as_bytes(), 0o640)
    }

    /// Reads a JSON file of the home directory; `None` where it is missing.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn read_json<T: DeserializeOwned>(&self, name: impl AsRef<Path>) -> Result<Option<T>> {
        let path = self.path(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        serde_json::from_slice(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes a JSON file of the home directory, durably and whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_json<T: Serialize>(&self, name: impl AsRef<Path>, value: &T) -> Result<()> {
        write_atomically(&self.path(name), &serde_json::to_vec_pretty(value)?, 0o640)
    }
}

fn without_defaults(config: toml::Table, defaults: &toml::Table) -> toml::Table {
    use toml::Value::Table;
    let changed = config.into_iter().filter_map(|(name, value)| match (value, defaults.get(&name)) {
        (Table(value), Some(Table(default))) => {
            Some(without_defaults(value, default)).filter(|changed| !changed.is_empty()).map(|t| (name, Table(t)))
        }
        (value, default) => (Some(&value) != default).then_some((name, value)),
    });
    changed.collect()
}

/// Numbers the temporary files of [`write_atomically`].
static TEMPORARY_FILES: AtomicU64 = AtomicU64::new(0);

/// Writes a file so that after a crash it is either as before or wholly new: a temporary file in the same directory,
/// synced, renamed over the old one, the directory synced.
///
/// # Errors
/// Any of these steps; the message names the file.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Two threads may write the same file: each needs a temporary one of its own.
        let number = TEMPORARY_FILES.fetch_add(1, Ordering::Relaxed);
        let temporary = parent.join(format!(".{name}.{}-{number}.new", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        fs::File::open(parent)?.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_configuration_holds_what_was_set_and_can_be_added_to() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::create(directory.path()).unwrap();
        let config = NodeConfig { listen: Some("10.1.0.2".parse().unwrap()), ..NodeConfig::default() };
        home.save_config(&config).unwrap();
        let mut text = fs::read_to_string(home.path("node.toml")).unwrap();
        assert_eq!(text, "listen = \"10.1.0.2\"\n");
        text += "[station]\nrouter = \"/etc/branchline/router.toml\"\n[headquarters]\nhttp = \"10.1.0.2:8080\"\n\
                 [[headquarters.desk.pools]]\nsite = \"store-17\"\nfirst = \"198.51.100.64\"\nlast = \"198.51.100.127\"\n\
                 [[headquarters.desk.rules]]\nname = \"all\"\naction = \"approve\"\n";
        fs::write(home.path("node.toml"), text).unwrap();
        let read = home.config_or_default().unwrap();
        assert_eq!((read.listen, read.headquarters.desk.pools.len()), (config.listen, 1));
        home.save_config(&read).unwrap();
        assert_eq!(home.config_or_default().unwrap().headquarters.desk.rules, read.headquarters.desk.rules);
    }

    #[test]
    fn threads_that_write_one_file_do_not_disturb_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::thread::scope(|scope| {
            for text in ["one", "two", "three", "four"] {
                let path = &path;
                scope.spawn(move || (0..25).for_each(|_| write_atomically(path, text.as_bytes(), 0o644).unwrap()));
            }
        });
        assert!(["one", "two", "three", "four"].contains(&fs::read_to_string(&path).unwrap().as_str()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
