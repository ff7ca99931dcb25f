//! Definitions that people write wrongly, and documents that somebody wants to slip in.
use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    charter::{
        Charter, DoorFile, FileSignature, HeadquartersSeat, Keys, NodeAddresses, PublicKey, Release, ReleasedFile,
        Signed, SiteLimits, SitePolicies, StationSeat,
    },
    ids::{Hash, ImageId, NodeId, PackId},
    limits::RELEASED_FILES_MAX,
    rates::BandwidthRules,
    refusal::{Refusal, RefusalKind},
    time::UnixSeconds,
};

const GOOD: &str = r#"name = "agent"
version = "1.0"
architectures = ["amd64"]
format = "tar"
select = "true"
[[modules]]
name = "nfs"
when = "storage.network.size() > 0"
reason = "r"
[[thresholds]]
name = "limit"
default = "1"
[[files]]
path = "/etc/agent.conf"
mode = 0o644
content = "x"
[[steps]]
action = { unpack = { prefix = "/opt/agent" } }
[[steps]]
action = { run_command = { program = "/opt/agent/bin/init" } }
undo = { program = "/opt/agent/bin/undo" }
[service]
name = "agent"
program = "/opt/agent/bin/agent"
[[ports]]
port = 9105
"#;

#[test]
fn faults_in_a_definition_name_key_and_line() {
    assert!(PackageDefinition::from_toml(GOOD).is_ok());
    let mut texts = Vec::new();
    for (from, to) in [
        ("version = \"1.0\"", "versoin = \"1.0\""),
        ("version = \"1.0\"\n", ""),
        ("\"tar\"", "\"zip\""),
        ("\"tar\"", "\"deb\""),
        ("name = \"agent\"\nversion", "name = \"../agent\"\nversion"),
        ("select = \"true\"", "select = \"true &&\""),
        ("storage.network.size() > 0", "storage.network.exists(n, packages.exists(p, p == n))"),
        ("default = \"1\"", "default = \"1\"\nmodule = \"other\""),
        ("default = \"1\"", "default = 1"),
        ("/etc/agent.conf", "/etc/../agent.conf"),
        ("0o644", "0o4755"),
        ("content = \"x\"", "content = \"{{ host.\""),
        ("/opt/agent/bin/init", "/bin/sh"),
        ("/opt/agent/bin/undo", "/opt/agent-other/undo"),
        ("undo = { program = \"/opt/agent/bin/undo\" }", ""),
        ("undo =", "final = true\nundo ="),
        ("run_command", "run_shell"),
        ("port = 9105", "port = 0"),
        ("port = 9105", "port = 70000"),
        ("format", "= format"),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from} is not in the definition");
        let error = PackageDefinition::from_toml(&text).expect_err(to);
        texts.push(format!("== {from:?} -> {to:?}\n{}", error.to_string().trim_end()));
    }
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn what_is_too_long_is_not_read() {
    let long = format!("{GOOD}#{}", "x".repeat(crate::limits::PACKAGE_DEFINITION_BYTES_MAX));
    assert!(matches!(PackageDefinition::from_toml(&long), Err(DefinitionError::TooLarge { .. })));
    let rule = GOOD.replace("select = \"true\"", &format!("select = \"{}\"", "1 ".repeat(600)));
    assert!(PackageDefinition::from_toml(&rule).is_err());
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn charter() -> Charter {
    let addresses = |host: &str| NodeAddresses {
        control: format!("{host}:7070").parse().unwrap(),
        bulk: format!("{host}:7071").parse().unwrap(),
    };
    Charter {
        site: "store-17".parse().unwrap(),
        version: 1,
        issued_at: UnixSeconds(1),
        owner: "Owner".into(),
        operator: "Operator".into(),
        prefixes: vec!["10.1.0.0/24".parse().unwrap()],
        station: StationSeat {
            node: NodeId([1; 32]),
            addresses: addresses("10.1.0.2"),
            door: "10.1.0.2:8443".parse().unwrap(),
            door_fingerprint: Hash::of(b"door"),
        },
        headquarters: HeadquartersSeat { node: NodeId([2; 32]), addresses: addresses("192.0.2.1") },
        electors: vec![],
        former_stations: vec![],
        keys: Keys {
            catalogue: PublicKey::of(&key(101)),
            administrator: PublicKey::of(&key(102)),
            approvers: vec![PublicKey::of(&key(103))],
        },
        limits: SiteLimits::default(),
        policies: SitePolicies::default(),
    }
}

fn catalogue(version: u64, description: &str) -> Catalogue {
    let mut definition = PackageDefinition::from_toml(GOOD).unwrap();
    definition.description = description.to_owned();
    let hash = Hash::of(b"x");
    let payload = Payload {
        image: ImageId(hash),
        pack: PackId(hash),
        pack_bytes: 1,
        raw_bytes: 1,
        sha256: hash,
        file_name: "agent.tar".into(),
    };
    Catalogue {
        version,
        expires_at: Some(UnixSeconds(1000)),
        packages: vec![Package { definition, payload }],
        patches: vec![],
    }
}

fn sign(catalogue: &Catalogue, seed: u8) -> Signed<Catalogue> {
    Signed::sign(catalogue, &key(seed))
}

fn kind<T: std::fmt::Debug>(result: Result<T, Refusal>) -> RefusalKind {
    result.unwrap_err().kind
}

#[test]
fn a_captured_station_cannot_slip_in_another_catalogue() {
    let (charter, now) = (charter(), UnixSeconds(10));
    let mut memory = DocumentMemory::default();
    let second = sign(&catalogue(2, "second"), 101);
    memory.accept_catalogue(&charter, &second, now).unwrap();
    assert_eq!(memory.catalogue(), Some((2, second.hash())));
    memory.accept_catalogue(&charter, &second, now).expect("the same again is no fault");

    let before = memory;
    let mut refused =
        |signed: Signed<Catalogue>, wall| kind(memory.accept_catalogue(&charter, &signed, UnixSeconds(wall)));
    assert_eq!(refused(sign(&catalogue(3, "third"), 7), 10), RefusalKind::BadSignature, "signed by the station");
    assert_eq!(refused(sign(&catalogue(1, "first"), 101), 10), RefusalKind::Stale, "an old one");
    assert_eq!(
        refused(sign(&catalogue(2, "other"), 101), 10),
        RefusalKind::Stale,
        "mixed: other content, same version"
    );
    assert_eq!(refused(sign(&catalogue(3, "third"), 101), 1000), RefusalKind::Stale, "expired");
    let text = serde_json::to_string(&sign(&catalogue(3, "third"), 101))
        .unwrap()
        .replace("/opt/agent/bin/agent", "/opt/agent/bin/other");
    assert_eq!(refused(serde_json::from_str(&text).unwrap(), 10), RefusalKind::BadSignature, "changed after signing");
    let mut twice = catalogue(3, "third");
    twice.packages.push(twice.packages[0].clone());
    assert_eq!(refused(sign(&twice, 101), 10), RefusalKind::Malformed, "one package twice");
    assert_eq!(memory, before, "a refusal leaves the memory as it was");

    let third = sign(&catalogue(3, "third"), 101);
    let mut restored: DocumentMemory = serde_json::from_str(&serde_json::to_string(&memory).unwrap()).unwrap();
    restored.accept_catalogue(&charter, &third, now).unwrap();
    assert_eq!(
        kind(restored.accept_catalogue(&charter, &second, now)),
        RefusalKind::Stale,
        "the memory survives a restart"
    );
}

#[test]
fn a_site_policy_is_the_administrators_and_the_sites() {
    let (charter, now) = (charter(), UnixSeconds(10));
    let mut memory = DocumentMemory::default();
    let policy = |version| SitePolicy::empty(charter.site.clone(), version);
    memory.accept_policy(&charter, &Signed::sign(&policy(5), &key(102)), now).unwrap();
    let mut refused = |signed: Signed<SitePolicy>| kind(memory.accept_policy(&charter, &signed, now));
    assert_eq!(refused(Signed::sign(&policy(6), &key(101))), RefusalKind::BadSignature, "not the catalogue's key");
    assert_eq!(refused(Signed::sign(&policy(4), &key(102))), RefusalKind::Stale);
    let elsewhere = SitePolicy::empty("elsewhere".parse().unwrap(), 9);
    assert_eq!(refused(Signed::sign(&elsewhere, &key(102))), RefusalKind::NotAuthorised);
}

#[test]
fn bandwidth_rules_are_the_administrators_and_never_go_back() {
    let (charter, now) = (charter(), UnixSeconds(1000));
    let rules = |version| BandwidthRules::unlimited(charter.site.clone(), version);
    let mut memory = DocumentMemory::default();
    memory.accept_bandwidth(&charter, &Signed::sign(&rules(5), &key(102)), now).unwrap();
    assert_eq!(memory.bandwidth().map(|(version, _)| version), Some(5));
    let mut refused = |rules: &BandwidthRules, seed| {
        memory.accept_bandwidth(&charter, &Signed::sign(rules, &key(seed)), now).unwrap_err().kind
    };
    assert_eq!(refused(&rules(6), 101), RefusalKind::BadSignature, "not the catalogue's key");
    assert_eq!(refused(&rules(4), 102), RefusalKind::Stale);
    let elsewhere = BandwidthRules::unlimited("elsewhere".parse().unwrap(), 9);
    assert_eq!(refused(&elsewhere, 102), RefusalKind::NotAuthorised);
    let mut unusable = rules(7);
    unusable.host.upload = crate::rates::Schedule::always(crate::rates::Rate::Off);
    assert_eq!(refused(&unusable, 102), RefusalKind::Malformed);
    assert_eq!(memory.bandwidth().map(|(version, _)| version), Some(5), "what is refused leaves no trace");
}

#[test]
fn a_release_is_the_owners_and_never_goes_back() {
    let (charter, now, owner) = (charter(), UnixSeconds(1000), key(100));
    let file = |seed| {
        let signature = FileSignature::sign(DoorFile::InstallTool, Hash([1; 32]), &key(seed)).to_string();
        ReleasedFile { kind: DoorFile::InstallTool, name: "tool".into(), sha256: Hash([1; 32]), signature }
    };
    let release = |version, files| Release { site: charter.site.clone(), version, files };
    let mut memory = DocumentMemory::default();
    let mut take = |release: &Release, seed| {
        let taken = memory.accept_release(&charter, PublicKey::of(&owner), &Signed::sign(release, &key(seed)), now);
        taken.map_err(|refusal| refusal.kind)
    };
    let taken = take(&release(5, vec![file(100)]), 100).unwrap();
    assert_eq!(taken.signature_of(DoorFile::InstallTool, Hash([1; 32])), Some(file(100).signature.as_str()));
    assert_eq!(taken.signature_of(DoorFile::SurveyScript, Hash([1; 32])), None);
    assert_eq!(taken.signature_of(DoorFile::InstallTool, Hash([2; 32])), None);
    assert_eq!(take(&release(6, vec![file(100)]), 101), Err(RefusalKind::BadSignature), "not the catalogue's key");
    assert_eq!(take(&release(4, vec![file(100)]), 100), Err(RefusalKind::Stale));
    assert_eq!(take(&release(5, vec![]), 100), Err(RefusalKind::Stale), "another content under the same version");
    let elsewhere = Release { site: "elsewhere".parse().unwrap(), ..release(9, vec![]) };
    assert_eq!(take(&elsewhere, 100), Err(RefusalKind::NotAuthorised));
    assert_eq!(take(&release(7, vec![file(101)]), 100), Err(RefusalKind::Malformed), "a file of another signer");
    let mistaken = ReleasedFile { sha256: Hash([2; 32]), ..file(100) };
    assert_eq!(take(&release(7, vec![mistaken]), 100), Err(RefusalKind::Malformed), "another file");
    let script = ReleasedFile { kind: DoorFile::SurveyScript, ..file(100) };
    assert_eq!(take(&release(7, vec![script]), 100), Err(RefusalKind::Malformed), "a tool for a script");
    assert_eq!(take(&release(7, vec![file(100); RELEASED_FILES_MAX + 1]), 100), Err(RefusalKind::Malformed));
    assert_eq!(memory.release().map(|(version, _)| version), Some(5), "what is refused leaves no trace");
}
