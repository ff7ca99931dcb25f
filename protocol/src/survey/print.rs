//! Types to tree, in the order of the schema.

use super::NAMESPACE;
use super::descriptor::*;
use super::words::Vocabulary;
use super::xml::Element;

impl Descriptor {
    /// The tree of the document.
    pub(super) fn to_element(&self) -> Element {
        Element::new("descriptor")
            .with("xmlns", NAMESPACE)
            .with("survey_version", &self.survey_version)
            .with("script_hash", &self.script_hash)
            .with("mode", self.mode.word())
            .with("taken_at", &self.taken_at)
            .with("root", &self.root)
            .with_child(host(&self.host))
            .with_child(Element::new("modules").with_children(self.modules.iter().map(module)))
            .with_child(Element::new("thresholds").with_children(self.thresholds.iter().map(threshold)))
            .with_child(installation(&self.installation))
    }
}

fn host(host: &Host) -> Element {
    Element::new("host")
        .with_child(
            Element::new("identity")
                .with("hostname", &host.identity.hostname)
                .with_optional("machine_id", host.identity.machine_id.as_deref()),
        )
        .with_child(Element::new("addresses").with_children(host.addresses.iter().map(address)))
        .with_child(hardware(&host.hardware))
        .with_child(operating_system(&host.operating_system))
        .with_child(Element::new("disks").with_children(host.disks.iter().map(disk)))
        .with_child(Element::new("filesystems").with_children(host.filesystems.iter().map(filesystem)))
        .with_child(
            Element::new("packages")
                .with("total", host.packages.total)
                .with_children(host.packages.list.iter().map(package)),
        )
        .with_child(
            Element::new("software")
                .with("total", host.software.total)
                .with_children(host.software.list.iter().map(process)),
        )
        .with_child(Element::new("listening_ports").with_children(host.listening_ports.iter().map(port)))
        .with_child(Element::new("signatures").with_children(host.signatures.iter().map(signature)))
}

fn address(address: &Address) -> Element {
    Element::new("address")
        .with_optional("interface", address.interface.as_deref())
        .with("family", address.family.word())
        .with("value", &address.value)
        .with_optional("prefix_length", address.prefix_length.map(|length| length.to_string()).as_deref())
}

fn hardware(hardware: &Hardware) -> Element {
    Element::new("hardware")
        .with("architecture", &hardware.architecture)
        .with("machine", &hardware.machine)
        .with("cpu_count", hardware.cpu_count)
        .with("memory_bytes", hardware.memory_bytes)
        .with("system_kind", hardware.system_kind.word())
        .with_optional("vendor", hardware.vendor.as_deref())
        .with_optional("model", hardware.model.as_deref())
}

fn operating_system(system: &OperatingSystem) -> Element {
    Element::new("operating_system")
        .with("id", &system.id)
        .with_optional("version", system.version.as_deref())
        .with_optional("version_id", system.version_id.as_deref())
        .with_optional("pretty_name", system.pretty_name.as_deref())
        .with("kernel", &system.kernel)
        .with("init", system.init.word())
        .with("package_manager", system.package_manager.word())
}

fn disk(disk: &Disk) -> Element {
    Element::new("disk")
        .with("name", &disk.name)
        .with("size_bytes", disk.size_bytes)
        .with("rotational", disk.rotational)
}

fn filesystem(filesystem: &Filesystem) -> Element {
    Element::new("filesystem")
        .with("mount_point", &filesystem.mount_point)
        .with_optional("source", filesystem.source.as_deref())
        .with_optional("kind", filesystem.kind.as_deref())
        .with("size_bytes", filesystem.size_bytes)
        .with("free_bytes", filesystem.free_bytes)
}

fn package(package: &Package) -> Element {
    Element::new("package").with("name", &package.name).with("version", &package.version)
}

fn process(process: &Process) -> Element {
    Element::new("process").with("name", &process.name).with("count", process.count).with("command", &process.command)
}

fn port(port: &ListeningPort) -> Element {
    Element::new("port").with("number", port.number).with("scope", port.scope.word())
}

fn signature(signature: &Signature) -> Element {
    Element::new("signature")
        .with("name", &signature.name)
        .with("mode", signature.mode.word())
        .with("detected", signature.detected)
        .with_children(signature.items.iter().map(|item| {
            Element::new("item").with("kind", &item.kind).with_children(
                item.facts.iter().map(|fact| Element::new("fact").with("name", &fact.name).with("value", &fact.value)),
            )
        }))
}

fn module(module: &ModuleAdvice) -> Element {
    Element::new("module")
        .with("name", &module.name)
        .with("need", module.need.word())
        .with("reason", &module.reason)
        .with("signature", &module.signature)
}

fn threshold(threshold: &ThresholdAdvice) -> Element {
    Element::new("threshold")
        .with("module", &threshold.module)
        .with("name", &threshold.name)
        .with("value", &threshold.value)
        .with("unit", &threshold.unit)
        .with("reason", &threshold.reason)
        .with("signature", &threshold.signature)
}

fn installation(installation: &Installation) -> Element {
    Element::new("installation")
        .with_child(
            Element::new("commands").with_children(
                installation.commands.iter().map(|command| {
                    Element::new("command").with("line", &command.line).with("purpose", &command.purpose)
                }),
            ),
        )
        .with_child(Element::new("conflicts").with_children(installation.conflicts.iter().map(|conflict| {
            Element::new("conflict")
                .with("kind", &conflict.kind)
                .with("severity", conflict.severity.word())
                .with("subject", &conflict.subject)
                .with("reason", &conflict.reason)
        })))
}
