//! Tree to types: every element and attribute is named once here, as it is in the schema.

use super::NAMESPACE;
use super::descriptor::*;
use super::error::DescriptorError;
use super::lexical::Form;
use super::words::Vocabulary;
use super::xml::Element;
use crate::limits;

const LINE: Form = Form::Line(limits::SURVEY_LINE_CHARACTERS_MAX);
const COMMAND: Form = Form::Line(limits::SURVEY_COMMAND_CHARACTERS_MAX);

type Read<T> = Result<T, DescriptorError>;

/// A walk over one element: which attributes were asked for, and which child comes next.
struct Walk<'a> {
    element: &'a Element,
    path: String,
    asked: Vec<&'static str>,
    next_child: usize,
}

impl<'a> Walk<'a> {
    fn new(element: &'a Element, path: String) -> Self {
        Self { element, path, asked: Vec::new(), next_child: 0 }
    }

    fn raw(&mut self, name: &'static str) -> Option<&'a str> {
        self.asked.push(name);
        let element = self.element;
        element.attributes.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value.as_str())
    }

    fn bad_value(&self, name: &str, found: &str, expected: String) -> DescriptorError {
        DescriptorError::BadValue {
            path: format!("{}/@{name}", self.path),
            found: found.chars().take(64).collect(),
            expected,
        }
    }

    fn optional(&mut self, name: &'static str, form: Form) -> Read<Option<String>> {
        match self.raw(name) {
            None => Ok(None),
            Some(value) if form.allows(value) => Ok(Some(value.to_owned())),
            Some(value) => Err(self.bad_value(name, value, form.expected())),
        }
    }

    fn required(&mut self, name: &'static str, form: Form) -> Read<String> {
        let value = self.optional(name, form)?;
        value.ok_or_else(|| DescriptorError::MissingAttribute { path: self.path.clone(), attribute: name })
    }

    /// A number whose form already guarantees that it fits `T`; the error is for the compiler's sake and still names the place.
    fn number<T: std::str::FromStr>(&mut self, name: &'static str, form: Form) -> Read<T> {
        let value = self.required(name, form)?;
        value.parse().map_err(|_| self.bad_value(name, &value, form.expected()))
    }

    fn word<T: Vocabulary>(&mut self, name: &'static str) -> Read<T> {
        let Some(value) = self.raw(name) else {
            return Err(DescriptorError::MissingAttribute { path: self.path.clone(), attribute: name });
        };
        T::from_word(value).ok_or_else(|| {
            let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
            self.bad_value(name, value, format!("one of {}", words.join(", ")))
        })
    }

    fn child(&mut self, name: &'static str) -> Read<Walk<'a>> {
        match self.element.children.get(self.next_child) {
            Some(child) if child.name == name => {
                self.next_child += 1;
                Ok(Walk::new(child, format!("{}/{name}", self.path)))
            }
            Some(child) => Err(self.unexpected(child, format!("<{name}>"))),
            None => Err(DescriptorError::MissingElement { path: self.path.clone(), expected: name }),
        }
    }

    /// All children, which must have one name, each read by `read`.
    fn list<T>(&mut self, name: &'static str, limit: usize, read: impl Fn(&mut Walk<'a>) -> Read<T>) -> Read<Vec<T>> {
        if self.element.children.len() > limit {
            return Err(DescriptorError::TooMany { path: self.path.clone(), name, limit });
        }
        let mut values = Vec::with_capacity(self.element.children.len());
        for (index, child) in self.element.children.iter().enumerate() {
            if child.name != name {
                return Err(self.unexpected(child, format!("<{name}>")));
            }
            let mut walk = Walk::new(child, format!("{}/{name}[{}]", self.path, index + 1));
            values.push(read(&mut walk)?);
            walk.finish()?;
        }
        self.next_child = self.element.children.len();
        Ok(values)
    }

    /// Reads a child that is nothing but a list.
    fn child_list<T>(
        &mut self,
        child: &'static str,
        name: &'static str,
        limit: usize,
        read: impl Fn(&mut Walk<'a>) -> Read<T>,
    ) -> Read<Vec<T>> {
        let mut walk = self.child(child)?;
        let values = walk.list(name, limit, read)?;
        walk.finish()?;
        Ok(values)
    }

    fn unexpected(&self, child: &Element, expected: String) -> DescriptorError {
        DescriptorError::UnexpectedElement {
            path: self.path.clone(),
            found: child.name.chars().take(64).collect(),
            expected,
        }
    }

    /// Refuses what nobody asked for.
    fn finish(&self) -> Read<()> {
        if let Some(child) = self.element.children.get(self.next_child) {
            return Err(self.unexpected(child, "no further element".into()));
        }
        let stranger = self.element.attributes.iter().find(|(name, _)| !self.asked.contains(&name.as_str()));
        match stranger {
            None => Ok(()),
            Some((name, _)) => Err(DescriptorError::UnexpectedAttribute {
                path: self.path.clone(),
                attribute: name.chars().take(64).collect(),
                expected: if self.asked.is_empty() { "none".into() } else { self.asked.join(", ") },
            }),
        }
    }
}

impl Descriptor {
    /// Reads the tree of a document.
    pub(super) fn from_element(root: &Element) -> Read<Self> {
        let mut walk = Walk::new(root, "/descriptor".into());
        if root.name != "descriptor" {
            return Err(DescriptorError::UnexpectedElement {
                path: "/".into(),
                found: root.name.chars().take(64).collect(),
                expected: "<descriptor>".into(),
            });
        }
        match walk.raw("xmlns") {
            Some(NAMESPACE) => {}
            other => return Err(walk.bad_value("xmlns", other.unwrap_or(""), NAMESPACE.into())),
        }
        let descriptor = Self {
            survey_version: walk.required("survey_version", LINE)?,
            script_hash: walk.required("script_hash", Form::Hash)?,
            mode: walk.word("mode")?,
            taken_at: walk.required("taken_at", Form::Timestamp)?,
            root: walk.required("root", COMMAND)?,
            host: read_host(&mut walk.child("host")?)?,
            modules: walk.child_list("modules", "module", limits::SURVEY_MODULES_MAX, read_module)?,
            thresholds: walk.child_list("thresholds", "threshold", limits::SURVEY_THRESHOLDS_MAX, read_threshold)?,
            installation: read_installation(&mut walk.child("installation")?)?,
        };
        walk.finish()?;
        Ok(descriptor)
    }
}

fn read_host(walk: &mut Walk<'_>) -> Read<Host> {
    let host = Host {
        identity: read_identity(&mut walk.child("identity")?)?,
        addresses: walk.child_list("addresses", "address", limits::SURVEY_ADDRESSES_MAX, read_address)?,
        hardware: read_hardware(&mut walk.child("hardware")?)?,
        operating_system: read_operating_system(&mut walk.child("operating_system")?)?,
        disks: walk.child_list("disks", "disk", limits::SURVEY_DISKS_MAX, read_disk)?,
        filesystems: walk.child_list("filesystems", "filesystem", limits::SURVEY_FILESYSTEMS_MAX, read_filesystem)?,
        packages: read_packages(&mut walk.child("packages")?)?,
        software: read_software(&mut walk.child("software")?)?,
        listening_ports: walk.child_list("listening_ports", "port", limits::SURVEY_PORTS_MAX, read_port)?,
        signatures: walk.child_list("signatures", "signature", limits::SURVEY_SIGNATURES_MAX, read_signature)?,
    };
    walk.finish()?;
    Ok(host)
}

fn read_identity(walk: &mut Walk<'_>) -> Read<Identity> {
    let identity =
        Identity { hostname: walk.required("hostname", LINE)?, machine_id: walk.optional("machine_id", LINE)? };
    walk.finish()?;
    Ok(identity)
}

fn read_address(walk: &mut Walk<'_>) -> Read<Address> {
    let prefix = walk.optional("prefix_length", Form::PrefixLength)?;
    Ok(Address {
        interface: walk.optional("interface", LINE)?,
        family: walk.word("family")?,
        value: walk.required("value", LINE)?,
        prefix_length: prefix.and_then(|length| length.parse().ok()),
    })
}

fn read_hardware(walk: &mut Walk<'_>) -> Read<Hardware> {
    let hardware = Hardware {
        architecture: walk.required("architecture", LINE)?,
        machine: walk.required("machine", LINE)?,
        cpu_count: walk.number("cpu_count", Form::Count)?,
        memory_bytes: walk.number("memory_bytes", Form::Integer)?,
        system_kind: walk.word("system_kind")?,
        vendor: walk.optional("vendor", LINE)?,
        model: walk.optional("model", LINE)?,
    };
    walk.finish()?;
    Ok(hardware)
}

fn read_operating_system(walk: &mut Walk<'_>) -> Read<OperatingSystem> {
    let operating_system = OperatingSystem {
        id: walk.required("id", LINE)?,
        version: walk.optional("version", LINE)?,
        version_id: walk.optional("version_id", LINE)?,
        pretty_name: walk.optional("pretty_name", LINE)?,
        kernel: walk.required("kernel", LINE)?,
        init: walk.word("init")?,
        package_manager: walk.word("package_manager")?,
    };
    walk.finish()?;
    Ok(operating_system)
}

fn read_disk(walk: &mut Walk<'_>) -> Read<Disk> {
    Ok(Disk {
        name: walk.required("name", LINE)?,
        size_bytes: walk.number("size_bytes", Form::Integer)?,
        rotational: walk.number("rotational", Form::Boolean)?,
    })
}

fn read_filesystem(walk: &mut Walk<'_>) -> Read<Filesystem> {
    Ok(Filesystem {
        mount_point: walk.required("mount_point", COMMAND)?,
        source: walk.optional("source", COMMAND)?,
        kind: walk.optional("kind", LINE)?,
        size_bytes: walk.number("size_bytes", Form::Integer)?,
        free_bytes: walk.number("free_bytes", Form::Integer)?,
    })
}

fn read_packages(walk: &mut Walk<'_>) -> Read<Packages> {
    let packages = Packages {
        total: walk.number("total", Form::Integer)?,
        list: walk.list("package", limits::SURVEY_PACKAGES_MAX, |package| {
            Ok(Package { name: package.required("name", LINE)?, version: package.required("version", LINE)? })
        })?,
    };
    walk.finish()?;
    Ok(packages)
}

fn read_software(walk: &mut Walk<'_>) -> Read<Software> {
    let software = Software {
        total: walk.number("total", Form::Integer)?,
        list: walk.list("process", limits::SURVEY_PROCESSES_MAX, |process| {
            Ok(Process {
                name: process.required("name", LINE)?,
                count: process.number("count", Form::Count)?,
                command: process.required("command", COMMAND)?,
            })
        })?,
    };
    walk.finish()?;
    Ok(software)
}

fn read_port(walk: &mut Walk<'_>) -> Read<ListeningPort> {
    Ok(ListeningPort { number: walk.number("number", Form::Port)?, scope: walk.word("scope")? })
}

fn read_signature(walk: &mut Walk<'_>) -> Read<Signature> {
    Ok(Signature {
        name: walk.required("name", Form::Identifier)?,
        mode: walk.word("mode")?,
        detected: walk.number("detected", Form::Boolean)?,
        items: walk.list("item", limits::SURVEY_ITEMS_MAX, |item| {
            Ok(Item {
                kind: item.required("kind", Form::Identifier)?,
                facts: item.list("fact", limits::SURVEY_ITEM_FACTS_MAX, |fact| {
                    Ok(Fact { name: fact.required("name", Form::Identifier)?, value: fact.required("value", COMMAND)? })
                })?,
            })
        })?,
    })
}

fn read_module(walk: &mut Walk<'_>) -> Read<ModuleAdvice> {
    Ok(ModuleAdvice {
        name: walk.required("name", Form::Identifier)?,
        need: walk.word("need")?,
        reason: walk.required("reason", LINE)?,
        signature: walk.required("signature", Form::Identifier)?,
    })
}

fn read_threshold(walk: &mut Walk<'_>) -> Read<ThresholdAdvice> {
    Ok(ThresholdAdvice {
        module: walk.required("module", Form::Identifier)?,
        name: walk.required("name", Form::Identifier)?,
        value: walk.required("value", Form::Decimal)?,
        unit: walk.required("unit", Form::Identifier)?,
        reason: walk.required("reason", LINE)?,
        signature: walk.required("signature", Form::Identifier)?,
    })
}

fn read_installation(walk: &mut Walk<'_>) -> Read<Installation> {
    let installation = Installation {
        commands: walk.child_list("commands", "command", limits::SURVEY_COMMANDS_MAX, |command| {
            Ok(PlannedCommand { line: command.required("line", COMMAND)?, purpose: command.required("purpose", LINE)? })
        })?,
        conflicts: walk.child_list("conflicts", "conflict", limits::SURVEY_CONFLICTS_MAX, |conflict| {
            Ok(Conflict {
                kind: conflict.required("kind", Form::Identifier)?,
                severity: conflict.word("severity")?,
                subject: conflict.required("subject", LINE)?,
                reason: conflict.required("reason", LINE)?,
            })
        })?,
    };
    walk.finish()?;
    Ok(installation)
}
