use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::{
    catalogue::{ConflictKind, ConflictRule, Package, PackageDefinition, PackageWish, Payload, Wish},
    charter::Signed,
    ids::{ImageId, PackId},
    plan::{StepUndo, render},
    survey::fixtures,
    wire::codec,
};

const SAMPLE_AGENT: &str = include_str!("../../../node/src/demo/packages/sample-agent.toml");
const NODE_EXPORTER: &str = include_str!("../../../tests/lab/packages/prometheus-node-exporter.toml");
const NODE: NodeId = NodeId([7; 32]);

fn hash(text: &str) -> Hash {
    Hash::of(text.as_bytes())
}

fn package(toml: &str) -> Package {
    let definition = PackageDefinition::from_toml(toml).unwrap();
    let name = format!("{}_{}", definition.name, definition.version);
    let payload = Payload {
        image: ImageId(hash(&name)),
        pack: PackId(hash(&format!("pack {name}"))),
        pack_bytes: 3_000_000,
        raw_bytes: 9_000_000,
        sha256: hash("file"),
        file_name: format!("{name}.tar"),
    };
    Package { definition, payload }
}

fn catalogue(packages: Vec<Package>) -> Catalogue {
    let catalogue = Catalogue { version: 1, expires_at: None, packages, patches: vec![] };
    catalogue.check().unwrap();
    catalogue
}

fn both() -> Catalogue {
    catalogue(vec![package(SAMPLE_AGENT), package(NODE_EXPORTER)])
}

fn policy() -> SitePolicy {
    SitePolicy::empty("store-17".parse().unwrap(), 1)
}

fn plan_of(descriptor: &Descriptor, catalogue: &Catalogue, policy: &SitePolicy) -> Result<Plan, SelectionError> {
    select(NODE, descriptor, (catalogue, DocumentHash(hash("catalogue"))), (policy, DocumentHash(hash("policy"))))
}

fn conflicts(descriptor: &Descriptor, catalogue: &Catalogue, policy: &SitePolicy) -> Vec<Conflict> {
    match plan_of(descriptor, catalogue, policy) {
        Err(SelectionError::Conflict(conflicts)) => conflicts,
        other => panic!("a conflict was expected, not {other:?}"),
    }
}

/// A small tar package to vary; `more` is TOML at the end.
fn small(name: &str, version: &str, head: &str, more: &str) -> Package {
    package(&format!(
        "name = '{name}'\nversion = '{version}'\narchitectures = ['amd64']\nformat = 'tar'\nselect = 'true'\n{head}\n\
         [[steps]]\naction = {{ unpack = {{ prefix = '/opt/{name}' }} }}\n{more}"
    ))
}

#[test]
fn a_plain_host() {
    insta::assert_snapshot!(render(&plan_of(&fixtures::plain_host(), &both(), &policy()).unwrap()));
}

#[test]
fn a_host_with_network_storage() {
    let plan = plan_of(&fixtures::network_storage_host(), &both(), &policy()).unwrap();
    insta::assert_snapshot!(render(&plan));
    insta::assert_snapshot!("configuration_of_a_host_with_network_storage", files(&plan));
}

#[test]
fn a_clustered_host() {
    let plan = plan_of(&fixtures::clustered_host(), &both(), &policy()).unwrap();
    insta::assert_snapshot!(render(&plan));
    assert_eq!(plan.group.unwrap().members, ["db-1", "db-2"]);
}

fn files(plan: &Plan) -> String {
    let files = plan.packages.iter().flat_map(|package| &package.files);
    files.map(|file| format!("== {}\n{}", file.path, file.content)).collect()
}

#[test]
fn different_hosts_get_different_plans() {
    let hosts = [fixtures::plain_host(), fixtures::network_storage_host(), fixtures::clustered_host()];
    let modules: Vec<_> = hosts.iter().map(|host| plan_of(host, &both(), &policy()).unwrap().module_names()).collect();
    assert_eq!(modules[0], ["cpu", "disk", "filesystem", "memory"]);
    assert_eq!(modules[1], ["cpu", "disk", "filesystem", "memory", "nfs"]);
    assert_eq!(modules[2], ["cluster", "cpu", "disk", "filesystem", "high-availability", "memory", "systemd"]);
}

#[test]
fn a_plan_survives_both_encodings_and_its_hash_ignores_wording() {
    let plan = plan_of(&fixtures::clustered_host(), &both(), &policy()).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    let bytes = codec::encode(&plan, limits::PLAN_BYTES_MAX).unwrap();
    assert_eq!(codec::decode::<Plan>(&bytes, limits::PLAN_BYTES_MAX).unwrap(), plan);

    let mut other = plan.clone();
    other.explanation[0].text = "said otherwise".into();
    assert_eq!(other.hash(), plan.hash());
    other.packages[0].thresholds[0].value = "9".into();
    assert_ne!(other.hash(), plan.hash());
    let mut other = plan.clone();
    other.node = NodeId([8; 32]);
    assert_ne!(other.hash(), plan.hash(), "a plan is of one host only (R63)");
}

#[test]
fn a_signed_catalogue_gives_the_same_plan_as_the_one_in_memory() {
    let key = SigningKey::from_bytes(&[1; 32]);
    let signed = Signed::sign(&both(), &key);
    let read = signed.verify(crate::charter::PublicKey::of(&key)).unwrap();
    assert_eq!(read, both());
}

#[test]
fn the_site_policy_forbids_pins_wants_and_overrides() {
    let catalogue = catalogue(vec![
        small("agent", "1.9", "", ""),
        small("agent", "1.10", "", ""),
        small("agent", "2.0~rc1", "", ""),
        package(NODE_EXPORTER),
        package(SAMPLE_AGENT),
    ]);
    let toml = r#"
        site = "store-17"
        version = 3
        [[packages]]
        package = "agent"
        wish = "pinned"
        version = "1.9"
        when = "host.hostname.startsWith('db-')"
        reason = "the databases change last"
        [[packages]]
        package = "prometheus-node-exporter"
        wish = "forbidden"
        reason = "not in this shop"
        [[modules]]
        package = "sample-agent"
        module = "nfs"
        enabled = true
        reason = "we mount by hand"
        [[thresholds]]
        package = "sample-agent"
        threshold = "disk_used_warning_percent"
        value = "host.cpu_count * 40"
        reason = "small disks"
    "#;
    let policy = SitePolicy::from_toml(toml).unwrap();
    let plan = plan_of(&fixtures::clustered_host(), &catalogue, &policy).unwrap();
    let versions: Vec<_> =
        plan.packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
    assert_eq!(versions, ["agent 1.9", "sample-agent 1.0.0"]);
    assert!(plan.module_names().contains(&"nfs".to_owned()));
    assert!(plan.threshold_values().contains(&("disk_used_warning_percent".into(), "80".into())));
    insta::assert_snapshot!(super::super::explain::render_list(&plan.explanation));
    let plan = plan_of(&fixtures::plain_host(), &catalogue, &policy).unwrap();
    assert_eq!(plan.packages[0].version, "2.0~rc1");
}

#[test]
fn what_the_survey_advises_counts_more_than_the_package_and_less_than_the_site() {
    let threshold = "[[modules]]\nname = 'nfs'\nwhen = 'true'\nreason = 'r'\n\
        [[thresholds]]\nname = 'stale_after'\nmodule = 'nfs'\ndefault = '60'\n";
    let catalogue = catalogue(vec![small("agent", "1", "", threshold)]);
    let value = |host: &Descriptor, policy: &SitePolicy| {
        plan_of(host, &catalogue, policy).unwrap().threshold_values()[0].1.clone()
    };
    assert_eq!(value(&fixtures::plain_host(), &policy()), "60");
    assert_eq!(value(&fixtures::network_storage_host(), &policy()), "30");
    let text = "site = 's'\nversion = 1\n[[thresholds]]\npackage = 'agent'\nthreshold = 'stale_after'\nvalue = '5'\nreason = 'r'\n";
    assert_eq!(value(&fixtures::network_storage_host(), &SitePolicy::from_toml(text).unwrap()), "5");
}

#[test]
fn conflicts_of_each_kind_stop_the_plan() {
    use crate::survey::descriptor::{ListeningPort, Process};
    use crate::survey::words::{PortScope, Severity};
    let mut host = fixtures::network_storage_host();
    host.host.listening_ports.push(ListeningPort { number: 9105, scope: PortScope::Any });
    host.host.software.list.push(Process { name: "zabbix_agentd".into(), count: 1, command: "zabbix_agentd".into() });
    host.installation.conflicts[0].severity = Severity::Blocking;
    host.host.filesystems[0].free_bytes = 1_000_000;
    let kinds = r#"
[[conflicts]]
with = { package = "libc6" }
text = "an installed package"
[[conflicts]]
with = { package = "other" }
text = "a package that is chosen too"
[[conflicts]]
with = { software = "zabbix_agentd" }
text = "software that runs"
[[conflicts]]
with = { port = 22 }
text = "a port"
[[conflicts]]
with = { disk_space = { path = "/opt", bytes = 2000000 } }
text = "space"
[[conflicts]]
with = { operating_system_other_than = { id = "debian", versions = ["11"] } }
text = "an old system"
[[conflicts]]
with = { when = "storage.network.size() > 0" }
text = "a rule"
[[ports]]
port = 9105
"#;
    let catalogue = catalogue(vec![small("agent", "1", "", kinds), small("other", "1", "", "[[ports]]\nport = 80\n")]);
    let found = conflicts(&host, &catalogue, &policy());
    insta::assert_snapshot!(SelectionError::Conflict(found).to_string());
}

#[test]
fn architecture_package_manager_and_absent_wishes_are_conflicts() {
    let mut host = fixtures::plain_host();
    host.host.hardware.architecture = "riscv64".into();
    let mut texts = vec![plan_of(&host, &both(), &policy()).unwrap_err().to_string()];
    let mut host = fixtures::plain_host();
    host.host.operating_system.package_manager = crate::survey::words::PackageManager::Apk;
    texts.push(plan_of(&host, &both(), &policy()).unwrap_err().to_string());
    let mut policy = policy();
    for (package, version) in [("nothing", None), ("sample-agent", Some("9".to_owned()))] {
        let (package, reason) = (package.to_owned(), "we want it".to_owned());
        policy.packages.push(PackageWish { package, wish: Wish::Wanted, version, when: None, reason });
    }
    texts.push(plan_of(&fixtures::plain_host(), &both(), &policy).unwrap_err().to_string());
    let same = "[[ports]]\nport = 80\n[service]\nname = 'web'\nprogram = '/opt/web'\n";
    let two = catalogue(vec![small("a", "1", "", same), small("b", "1", "", same)]);
    texts.push(plan_of(&fixtures::plain_host(), &two, &self::policy()).unwrap_err().to_string());
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn an_update_does_not_conflict_with_its_predecessor() {
    use crate::survey::{descriptor::ListeningPort, descriptor::Process, words::PortScope};
    let mut host = fixtures::plain_host();
    host.host.listening_ports.push(ListeningPort { number: 9105, scope: PortScope::Any });
    let catalogue = catalogue(vec![package(SAMPLE_AGENT)]);
    assert_eq!(conflicts(&host, &catalogue, &policy())[0].rule, "port 9105");
    host.host.software.list.push(Process { name: "sample-agent".into(), count: 1, command: "sample-agent".into() });
    assert!(plan_of(&host, &catalogue, &policy()).is_ok());
}

#[test]
fn nothing_that_suits_and_rules_without_an_answer_are_explained() {
    let nothing = catalogue(vec![small("agent", "1", "", "").with("select", "os.id == 'plan9'")]);
    let broken = catalogue(vec![small("agent", "1", "", "").with("select", "host.no_such_fact > 1")]);
    let number = catalogue(vec![small("agent", "1", "", "").with("select", "host.cpu_count")]);
    let port = catalogue(vec![small("agent", "1", "", "[[ports]]\nport = 'host.cpu_count * 100000'\n")]);
    let file = "[[files]]\npath = '/etc/a'\nmode = 420\ncontent = '{{ host.vendor }}'\n";
    let file = catalogue(vec![small("agent", "1", "", file)]);
    let mut host = fixtures::plain_host();
    host.host.hardware.vendor = Some("a\"; rm -rf /".into());
    let texts = [nothing, broken, number, port, file]
        .map(|catalogue| plan_of(&host, &catalogue, &policy()).unwrap_err().to_string());
    insta::assert_snapshot!(texts.join("\n\n"));
}

impl Package {
    fn with(mut self, _key: &str, rule: &str) -> Self {
        self.definition.select = rule.try_into().unwrap();
        self
    }
}

#[test]
fn steps_carry_their_undo() {
    let steps = "[[steps]]\naction = { create_user = { name = 'agent', home = '/opt/agent' } }\n\
        [[steps]]\naction = { run_command = { program = '/opt/agent/bin/init', arguments = ['{{ host.addresses }}'] } }\n\
        undo = { program = '/opt/agent/bin/undo' }\n\
        [[steps]]\naction = { run_command = { program = '/opt/agent/bin/seal' } }\nfinal = true\n";
    let plan = plan_of(&fixtures::plain_host(), &catalogue(vec![small("agent", "1", "", steps)]), &policy()).unwrap();
    let steps = &plan.packages[0].steps;
    assert_eq!(steps.iter().map(crate::plan::Step::is_final).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!(steps[1].undo, StepUndo::RemoveUser);
    assert!(matches!(&steps[2].undo, StepUndo::RunCommand(command) if command.program.ends_with("undo")));
}

fn some_conflict() -> impl Strategy<Value = ConflictKind> {
    prop_oneof![
        "[a-z]{1,3}".prop_map(ConflictKind::Package),
        any::<u16>().prop_map(ConflictKind::Port),
        (1_u64..1 << 40).prop_map(|bytes| ConflictKind::DiskSpace { path: "/var".into(), bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::property_tests::cases(48)))]
    #[test]
    fn selection_is_deterministic_and_the_catalogues_order_does_not_count(
        names in prop::collection::vec(("[a-c]", "[0-9]\\.[0-9]"), 1..8),
        conflict in some_conflict(),
        turn in 0_usize..8,
        host in prop::sample::select(vec![fixtures::plain_host(), fixtures::network_storage_host(), fixtures::clustered_host()]),
    ) {
        let mut packages: Vec<Package> = names.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter()
            .map(|(name, version)| small(&name, &version, "", "")).collect();
        packages[0].definition.conflicts.push(ConflictRule { with: conflict, text: "t".into() });
        packages.push(package(SAMPLE_AGENT));
        let first = plan_of(&host, &catalogue(packages.clone()), &policy());
        prop_assert_eq!(&first, &plan_of(&host, &catalogue(packages.clone()), &policy()));
        let count = packages.len();
        packages.rotate_left(turn % count);
        packages.swap(0, turn % count);
        let second = plan_of(&host, &catalogue(packages), &policy());
        prop_assert_eq!(&first, &second);
        if let (Ok(first), Ok(second)) = (first, second) {
            prop_assert_eq!(first.hash(), second.hash());
        }
    }
}
