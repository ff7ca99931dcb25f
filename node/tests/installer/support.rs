//! A site with its keys in the tester's hands, a root to install into, and the real installer process.
use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use branchline::install::{
    InstallOrder, InstallerClient, InstallerOutcome, InstallerRequest, OfferedPack, SocketError, is_exception,
};
use branchline_protocol::{
    catalogue::{Catalogue, Package, PackageDefinition, Payload, SitePolicy},
    charter::{
        Charter, HeadquartersSeat, Keys, NodeAddresses, PublicKey, Signed, SiteLimits, SitePolicies, StationSeat,
    },
    content::{build_pack, chunk_bytes_for},
    ids::{Hash, NodeId},
    plan::select,
    report::EventBody,
    survey::fixtures,
    time::UnixSeconds,
};
use ed25519_dalek::SigningKey;

pub const OWNER: u8 = 1;
pub const CATALOGUE: u8 = 2;
pub const ADMINISTRATOR: u8 = 3;
pub const STATION: u8 = 4;

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub fn node(seed: u8) -> NodeId {
    PublicKey::of(&key(seed)).0
}

pub fn charter(version: u64) -> Charter {
    let addresses = |ip: &str| NodeAddresses {
        control: format!("{ip}:7400").parse().unwrap(),
        bulk: format!("{ip}:7401").parse().unwrap(),
    };
    Charter {
        site: "store-17".parse().unwrap(),
        version,
        issued_at: UnixSeconds(1000),
        owner: "Owner".into(),
        operator: "Operator".into(),
        prefixes: vec!["10.1.0.0/24".parse().unwrap()],
        station: StationSeat {
            node: node(STATION),
            addresses: addresses("10.1.0.2"),
            door: "10.1.0.2:7443".parse().unwrap(),
            door_fingerprint: Hash::of(b"certificate"),
        },
        headquarters: HeadquartersSeat { node: node(5), addresses: addresses("203.0.113.1") },
        keys: Keys {
            catalogue: PublicKey::of(&key(CATALOGUE)),
            administrator: PublicKey::of(&key(ADMINISTRATOR)),
            approvers: vec![PublicKey::of(&key(6))],
        },
        electors: vec![],
        former_stations: vec![],
        limits: SiteLimits::default(),
        policies: SitePolicies::default(),
    }
}

/// Everything of one host in a temporary directory.
pub struct Site {
    pub directory: tempfile::TempDir,
    pub root: PathBuf,
    pub state: PathBuf,
    pub port: u16,
    installer: Option<Child>,
    runtime: tokio::runtime::Runtime,
}

impl Site {
    /// A root with the files that every host has, and an empty package database.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, state) = (directory.path().join("root"), directory.path().join("state"));
        Self::at(directory, root, state)
    }

    pub fn at(directory: tempfile::TempDir, root: PathBuf, state: PathBuf) -> Self {
        for part in ["info", "updates", "triggers", "alternatives"] {
            fs::create_dir_all(root.join("var/lib/dpkg").join(part)).unwrap();
        }
        for part in ["etc", "opt/test-agent", "usr/sbin", "var/log"] {
            fs::create_dir_all(root.join(part)).unwrap();
        }
        for (path, text) in [
            ("var/lib/dpkg/status", ""),
            ("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"),
            ("etc/group", "root:x:0:\n"),
            ("etc/shadow", "root:*:1::::::\n"),
            ("etc/existing.conf", "as the administrator wrote it\n"),
            ("opt/test-agent/README", "somebody else's\n"),
        ] {
            fs::write(root.join(path), text).unwrap();
        }
        fs::set_permissions(root.join("etc/shadow"), fs::Permissions::from_mode(0o640)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { directory, root, state, port, installer: None, runtime }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("installer.sock")
    }

    /// Starts the real program and waits until it listens.
    pub fn start(&mut self, more: &[&str]) {
        self.kill();
        let mut command = Command::new(env!("CARGO_BIN_EXE_branchline"));
        command.arg("installer").arg("--outside").arg("--owner").arg(PublicKey::of(&key(OWNER)).to_string());
        command.arg("--socket").arg(self.socket()).arg("--state").arg(&self.state).arg("--root").arg(&self.root);
        let child = command.args(more).stdin(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        self.installer = Some(child);
        let started = Instant::now();
        while !branchline::install::answers(&self.socket()) {
            assert!(started.elapsed() < Duration::from_secs(20), "the installer does not listen");
            if self.installer.as_mut().unwrap().try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.installer.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    pub fn try_ask(&self, request: &InstallerRequest) -> Result<(Vec<EventBody>, InstallerOutcome), SocketError> {
        let client = InstallerClient::new(self.socket());
        let mut events = Vec::new();
        let outcome = self
            .runtime
            .block_on(async { client.request(request).await?.outcome(|_, body| events.push(body)).await })?;
        Ok((events, outcome))
    }

    pub fn ask(&self, request: &InstallerRequest) -> (Vec<EventBody>, InstallerOutcome) {
        self.try_ask(request).unwrap()
    }

    pub fn install(&self, order: &InstallOrder) -> (Vec<EventBody>, InstallerOutcome) {
        self.ask(&InstallerRequest::Install(Box::new(order.clone())))
    }

    /// An order for one package of this definition and payload, with everything signed as it must be.
    pub fn order(&self, version: u64, definition: &str, payload: &[u8]) -> InstallOrder {
        self.order_for(node(7), version, definition, payload)
    }

    /// The same for another host.
    pub fn order_for(&self, node: NodeId, version: u64, definition: &str, payload: &[u8]) -> InstallOrder {
        self.order_of(node, version, &[(definition, payload)])
    }

    /// An order for several packages.
    pub fn order_of(&self, node: NodeId, version: u64, packages: &[(&str, &[u8])]) -> InstallOrder {
        let (packages, packs) = packages.iter().map(|(definition, payload)| self.package(definition, payload)).unzip();
        let catalogue = Catalogue { version, expires_at: None, packages, patches: vec![] };
        let policy = SitePolicy::empty("store-17".parse().unwrap(), 1);
        let signed_catalogue = Signed::sign(&catalogue, &key(CATALOGUE));
        let signed_policy = Signed::sign(&policy, &key(ADMINISTRATOR));
        let descriptor = fixtures::plain_host();
        let (catalogue_hash, policy_hash) = (signed_catalogue.hash(), signed_policy.hash());
        let plan = select(node, &descriptor, (&catalogue, catalogue_hash), (&policy, policy_hash)).unwrap();
        InstallOrder {
            node,
            charter: Signed::sign(&charter(1), &key(OWNER)),
            catalogue: signed_catalogue,
            policy: signed_policy,
            descriptor_xml: descriptor.print(),
            plan: plan.hash(),
            packs,
            events_seen: 0,
        }
    }

    fn package(&self, definition: &str, payload: &[u8]) -> (Package, OfferedPack) {
        let definition = PackageDefinition::from_toml(definition).unwrap();
        let name = format!("{}.payload", definition.name);
        let mut frames = Vec::new();
        let pack = build_pack(&name, payload, chunk_bytes_for(payload.len() as u64), &mut frames).unwrap();
        let (manifest_file, frame_file) = (self.offered("manifest", pack.id()), self.offered("frames", pack.id()));
        fs::write(&manifest_file, pack.manifest().encode().unwrap()).unwrap();
        fs::write(&frame_file, &frames).unwrap();
        let payload = Payload {
            image: pack.manifest().image,
            pack: pack.id(),
            pack_bytes: pack.length(),
            raw_bytes: pack.manifest().raw_length(),
            sha256: pack.manifest().original.sha256,
            file_name: name,
        };
        let offered = OfferedPack { image: pack.manifest().image, manifest: manifest_file, frames: frame_file };
        (Package { definition, payload }, offered)
    }

    fn offered(&self, kind: &str, pack: impl std::fmt::Display) -> PathBuf {
        self.directory.path().join(format!("{pack}.{kind}"))
    }

    /// Every path of the root with kind, mode and content, but for the listed exceptions and the installer's own.
    pub fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        self.walk(&self.root, &mut found);
        found
    }

    fn walk(&self, directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let place = entry.unwrap().path();
            let path = Path::new("/").join(place.strip_prefix(&self.root).unwrap());
            if is_exception(&path) || place.starts_with(&self.state) {
                continue;
            }
            let metadata = fs::symlink_metadata(&place).unwrap();
            let mode = metadata.permissions().mode();
            let text = if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&place).unwrap().display())
            } else if metadata.is_dir() {
                format!("directory {mode:o}")
            } else {
                format!("file {mode:o} {}", Hash::of(&fs::read(&place).unwrap()))
            };
            found.insert(path, text);
            if metadata.is_dir() {
                self.walk(&place, found);
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The agents outlive the installer on purpose; the tests end them through a living one.
        if self.installer.is_some() && branchline::install::answers(&self.socket()) {
            let _ = self.try_ask(&InstallerRequest::Stop);
        }
        self.kill();
    }
}

/// A tar archive of these members: path, mode, content.
pub fn tar(members: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The archive of the test agent: the sample agent, and two programs for a step and its undo.
pub fn agent_tar() -> Vec<u8> {
    let agent = format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_branchline"));
    tar(&[
        ("README", 0o644, "the agent's\n"),
        ("bin/agent", 0o755, &agent),
        (
            "bin/prepare",
            0o755,
            "#!/bin/sh\necho preparing\necho x > \"$BRANCHLINE_ROOT/var/lib/test-agent/prepared\"\n",
        ),
        ("bin/unprepare", 0o755, "#!/bin/sh\nrm -f \"$BRANCHLINE_ROOT/var/lib/test-agent/prepared\"\n"),
    ])
}

/// The test agent's definition; `more` is TOML for its configuration, `before_files` for further steps.
pub fn agent_definition(port: u16, more: &str, steps: &str) -> String {
    format!(
        r#"
name = "test-agent"
version = "1.0"
architectures = ["all"]
format = "tar"
select = "true"

[[steps]]
action = {{ unpack = {{ prefix = "/opt/test-agent" }} }}
[[steps]]
action = {{ create_user = {{ name = "test-agent", home = "/var/lib/test-agent" }} }}
[[steps]]
action = {{ create_directory = {{ path = "/var/lib/test-agent", mode = 0o755 }} }}
[[steps]]
action = {{ write_file = {{ path = "/etc/existing.conf", mode = 0o600, content = "as the agent needs it\n" }} }}
[[steps]]
action = {{ run_command = {{ program = "/opt/test-agent/bin/prepare" }} }}
undo = {{ program = "/opt/test-agent/bin/unprepare" }}
{steps}
[[files]]
path = "/etc/test-agent/agent.toml"
mode = 0o644
content = """
listen = "127.0.0.1:{port}"
modules = ["cpu", "memory"]
{more}
"""

[service]
name = "test-agent"
program = "/opt/test-agent/bin/agent"
arguments = ["sample-agent", "--config", "/etc/test-agent/agent.toml"]

[health]
address = "127.0.0.1"
port = {port}
http_path = "/health"
expected_text = "ok"
timeout_seconds = 20
"#
    )
}

/// All captured output as one text.
pub fn output(events: &[EventBody]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        EventBody::Output { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// The reason of a failure that was rolled back.
pub fn failure(outcome: &InstallerOutcome) -> &str {
    match outcome {
        InstallerOutcome::Failed { reason, rolled_back: true } => reason,
        other => panic!("a failure that is rolled back was expected, not {other:?}"),
    }
}

/// The reason of a refusal.
pub fn refusal(outcome: &InstallerOutcome) -> &str {
    match outcome {
        InstallerOutcome::Refused(refusal) => &refusal.reason,
        other => panic!("a refusal was expected, not {other:?}"),
    }
}
