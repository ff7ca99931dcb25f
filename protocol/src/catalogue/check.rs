//! What the types of a catalogue do not hold: names, bounds, references between parts, and that every rule compiles.
use std::collections::BTreeSet;

use super::{
    conflict::ConflictKind,
    package::{
        Catalogue, CommandLine, DefinitionError, PackageDefinition, PayloadFormat, StepAction, read_toml, with_line,
    },
    rule::{PortNumber, Rule},
};
use crate::limits;

type Checked = Result<(), DefinitionError>;

fn fault<T>(key: impl Into<String>, reason: impl Into<String>) -> Result<T, DefinitionError> {
    Err(DefinitionError::Rule { key: key.into(), reason: reason.into() })
}

fn require(holds: bool, key: impl Into<String>, reason: &str) -> Checked {
    if holds { Ok(()) } else { fault(key, reason) }
}

/// Compiles `rule`; the key names where it stands.
fn rule(key: String, rule: &Rule) -> Checked {
    rule.compile().map(|_| ()).or_else(|error| fault(key, error.to_string()))
}

/// Whether `path` is absolute and has no empty, `.` or `..` part and no control character.
pub(crate) fn is_clean_path(path: &str) -> bool {
    let clean = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
    path.len() <= 1024 && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(clean))
}

fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-' | '_');
    (1..=63).contains(&text.len()) && text.chars().all(good) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_version(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-' | '~' | ':' | '_');
    (1..=63).contains(&text.len()) && text.chars().all(good)
}

fn unique<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Checked {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        require(is_name(name), format!("{key}[{index}].name"), "must be 1 to 63 of a-z A-Z 0-9 + . - _")?;
        require(seen.insert(name), format!("{key}[{index}].name"), "is there twice")?;
    }
    Ok(())
}

fn mode(key: String, mode: u32) -> Checked {
    require(mode <= 0o1777, key, "must be permission bits of at most 0o1777, without set-user-id and set-group-id")
}

fn path(key: String, path: &str) -> Checked {
    require(is_clean_path(path), key, "must be an absolute path without empty, . or .. parts")
}

impl PackageDefinition {
    /// Reads a `package.toml`.
    ///
    /// # Errors
    /// What TOML does not allow, with line and key; an unknown key; or what [`PackageDefinition::check`] finds.
    pub fn from_toml(text: &str) -> Result<Self, DefinitionError> {
        let definition: Self = read_toml("package definition", text, limits::PACKAGE_DEFINITION_BYTES_MAX)?;
        definition.check().map_err(|error| with_line(error, text))?;
        Ok(definition)
    }

    /// Checks names, bounds, references and rules.
    ///
    /// # Errors
    /// The first fault, with the key where it is.
    pub fn check(&self) -> Checked {
        let lower = !self.name.chars().any(|c| c.is_ascii_uppercase());
        require(is_name(&self.name) && lower, "name", "must be 1 to 63 of a-z 0-9 + . -")?;
        require(is_version(&self.version), "version", "must be 1 to 63 of a-z A-Z 0-9 + . - ~ : _")?;
        require((1..=16).contains(&self.architectures.len()), "architectures", "must name 1 to 16 architectures")?;
        self.check_bounds()?;
        unique("modules", self.modules.iter().map(|module| module.name.as_str()))?;
        unique("thresholds", self.thresholds.iter().map(|threshold| threshold.name.as_str()))?;
        self.check_rules()?;
        self.check_files()?;
        self.check_steps()?;
        self.check_service()
    }

    fn check_bounds(&self) -> Checked {
        for (key, length) in [
            ("modules", self.modules.len()),
            ("thresholds", self.thresholds.len()),
            ("conflicts", self.conflicts.len()),
            ("files", self.files.len()),
            ("steps", self.steps.len()),
            ("ports", self.ports.len()),
        ] {
            require(length <= limits::PACKAGE_PARTS_MAX, key, "has more entries than 256")?;
        }
        Ok(())
    }

    fn check_rules(&self) -> Checked {
        rule("select".into(), &self.select)?;
        for (index, module) in self.modules.iter().enumerate() {
            rule(format!("modules[{index}].when"), &module.when)?;
            for name in module.on.keys().chain(module.off.keys()) {
                let identifier = name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty();
                require(identifier, format!("modules[{index}].on"), "a place's name must be of a-z and _")?;
            }
        }
        for (index, threshold) in self.thresholds.iter().enumerate() {
            if let Some(value) = &threshold.value {
                rule(format!("thresholds[{index}].value"), value)?;
            }
            let known = threshold.module.as_ref().is_none_or(|name| self.modules.iter().any(|m| m.name == *name));
            require(known, format!("thresholds[{index}].module"), "names a module that the package does not have")?;
        }
        for (index, conflict) in self.conflicts.iter().enumerate() {
            match &conflict.with {
                ConflictKind::When(when) => rule(format!("conflicts[{index}].with.when"), when)?,
                ConflictKind::DiskSpace { path: at, .. } if at != "/" => {
                    path(format!("conflicts[{index}].with.disk_space.path"), at)?;
                }
                _ => {}
            }
        }
        for (index, port) in self.ports.iter().enumerate() {
            self.check_port(&format!("ports[{index}]"), &port.port, &port.http_path)?;
        }
        match &self.health {
            Some(health) => {
                let key = "health.timeout_seconds";
                require((1..=600).contains(&health.timeout_seconds), key, "must be 1 to 600")?;
                self.check_port("health", &health.port, &health.http_path)
            }
            None => Ok(()),
        }
    }

    fn check_port(&self, key: &str, number: &PortNumber, http_path: &str) -> Checked {
        match number {
            PortNumber::Number(number) => require(*number != 0, format!("{key}.port"), "must be 1 to 65535")?,
            PortNumber::Rule(port) => rule(format!("{key}.port"), port)?,
        }
        let is_path = http_path.is_empty() || http_path.starts_with('/');
        let visible = http_path.len() <= 256 && http_path.chars().all(|c| c.is_ascii_graphic());
        require(
            is_path && visible,
            format!("{key}.http_path"),
            "must be empty or start with / and have visible ASCII only",
        )
    }

    fn check_files(&self) -> Checked {
        let mut seen = BTreeSet::new();
        for (index, file) in self.files.iter().enumerate() {
            path(format!("files[{index}].path"), &file.path)?;
            mode(format!("files[{index}].mode"), file.mode)?;
            require(seen.insert(&file.path), format!("files[{index}].path"), "is there twice")?;
            crate::plan::check_template(&file.content)
                .or_else(|error| fault(format!("files[{index}].content"), error))?;
            self.check_owner(&format!("files[{index}].owner"), file.owner.as_deref())?;
        }
        Ok(())
    }

    fn check_owner(&self, key: &str, owner: Option<&str>) -> Checked {
        require(owner.is_none_or(is_name), key, "must be a user's name")
    }

    fn check_steps(&self) -> Checked {
        let tar = self.format == PayloadFormat::Tar;
        require(
            tar || self.steps.is_empty(),
            "steps",
            "only tar payloads have steps; the package manager does the rest",
        )?;
        let mut prefixes: Vec<&str> = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let key = format!("steps[{index}]");
            let is_command = matches!(step.action, StepAction::RunCommand(_));
            require(
                is_command || step.undo.is_none(),
                format!("{key}.undo"),
                "only a command needs an undo of its own",
            )?;
            require(is_command || !step.is_final, format!("{key}.final"), "this action can be taken back")?;
            let decided = step.undo.is_some() != step.is_final;
            require(!is_command || decided, key.as_str(), "a command needs either `undo` or `final = true`")?;
            self.check_action(&key, &step.action, &mut prefixes)?;
            if let Some(undo) = &step.undo {
                check_command(&format!("{key}.undo"), undo, &prefixes)?;
            }
        }
        require(!tar || !prefixes.is_empty(), "steps", "a tar payload needs a step that unpacks it")
    }

    fn check_action<'a>(&self, key: &str, action: &'a StepAction, prefixes: &mut Vec<&'a str>) -> Checked {
        let key = format!("{key}.action");
        match action {
            StepAction::Unpack { prefix } => {
                path(format!("{key}.unpack.prefix"), prefix)?;
                prefixes.push(prefix);
                Ok(())
            }
            StepAction::CreateUser { name, home } => {
                require(is_name(name) && name != "root", format!("{key}.create_user.name"), "must be a user's name")?;
                path(format!("{key}.create_user.home"), home)
            }
            StepAction::CreateDirectory { path: at, mode: bits, owner } => {
                path(format!("{key}.create_directory.path"), at)?;
                mode(format!("{key}.create_directory.mode"), *bits)?;
                self.check_owner(&format!("{key}.create_directory.owner"), owner.as_deref())
            }
            StepAction::WriteFile { path: at, mode: bits, owner, content } => {
                path(format!("{key}.write_file.path"), at)?;
                mode(format!("{key}.write_file.mode"), *bits)?;
                self.check_owner(&format!("{key}.write_file.owner"), owner.as_deref())?;
                crate::plan::check_template(content).or_else(|error| fault(format!("{key}.write_file.content"), error))
            }
            StepAction::RunCommand(command) => check_command(&format!("{key}.run_command"), command, prefixes),
        }
    }

    fn check_service(&self) -> Checked {
        let Some(service) = &self.service else { return Ok(()) };
        require(is_name(&service.name), "service.name", "must be 1 to 63 of a-z A-Z 0-9 + . - _")?;
        path("service.program".into(), &service.program)?;
        self.check_owner("service.user", service.user.as_deref())?;
        for name in service.environment.keys() {
            let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with("LD_");
            require(good && !name.is_empty(), format!("service.environment.{name}"), "is not a name that may be set")?;
        }
        let texts = service.arguments.iter().chain(service.environment.values());
        for text in texts.chain(self.health.iter().filter_map(|health| health.address.as_ref())) {
            crate::plan::check_template(text).or_else(|error| fault("service", error))?;
        }
        Ok(())
    }
}

/// A command lies in what the payload brought, so that a definition cannot run what happens to be on the host.
fn check_command(key: &str, command: &CommandLine, prefixes: &[&str]) -> Checked {
    path(format!("{key}.program"), &command.program)?;
    let inside =
        prefixes.iter().any(|prefix| command.program.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')));
    require(inside, format!("{key}.program"), "must lie under the prefix of an earlier `unpack`")?;
    for argument in &command.arguments {
        crate::plan::check_template(argument).or_else(|error| fault(format!("{key}.arguments"), error))?;
    }
    Ok(())
}

impl Catalogue {
    /// Checks every package, and that no two entries are the same version for the same architecture and format.
    ///
    /// # Errors
    /// The first fault, with the package and the key where it is.
    pub fn check(&self) -> Checked {
        require(self.version > 0, "version", "must be at least 1")?;
        require(self.packages.len() <= limits::CATALOGUE_PACKAGES_MAX, "packages", "has more entries than 1024")?;
        let mut seen = BTreeSet::new();
        for package in &self.packages {
            let definition = &package.definition;
            let name = format!("{} {}", definition.name, definition.version);
            definition.check().or_else(|error| fault(format!("package {name}"), error.to_string()))?;
            let file = &package.payload.file_name;
            let plain = (1..=255).contains(&file.len()) && !file.contains('/') && !file.chars().any(char::is_control);
            require(
                plain && file != ".." && file != ".",
                format!("package {name}: payload.file_name"),
                "must be a plain file name",
            )?;
            for architecture in &definition.architectures {
                let key = (&definition.name, &definition.version, architecture, definition.format);
                require(seen.insert(key), format!("package {name}"), "is there twice for one architecture")?;
            }
        }
        self.check_patches()
    }

    fn check_patches(&self) -> Checked {
        require(self.patches.len() <= limits::CATALOGUE_PATCHES_MAX, "patches", "has more entries than 4096")?;
        let images: BTreeSet<_> = self.packages.iter().map(|package| package.payload.image).collect();
        let mut seen = BTreeSet::new();
        for (index, patch) in self.patches.iter().enumerate() {
            let key = format!("patches[{index}]");
            require(patch.base != patch.target, key.as_str(), "must make another image than it needs")?;
            require(images.contains(&patch.target), key.as_str(), "must make the image of a package")?;
            require(seen.insert((patch.base, patch.target)), key.as_str(), "is there twice")?;
            require(patch.pack_bytes > 0 && patch.raw_bytes > 0, key.as_str(), "must not be empty")?;
        }
        Ok(())
    }
}
