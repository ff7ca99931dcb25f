use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::survey::fixtures;

fn value(text: &str) -> Result<Value, RuleError> {
    Rule::try_from(text)?.compile()?.evaluate(&Facts::new(fixtures::network_storage_host().facts()))
}

#[test]
fn rules_read_facts_and_calculate() {
    for (rule, expected) in [
        ("host.architecture == 'amd64'", json!(true)),
        ("storage.network.exists(n, n.kind.startsWith('nfs'))", json!(true)),
        ("storage.network.filter(n, n.kind == 'nfs').map(n, n.mount_point)", json!(["/srv/data"])),
        ("'libc6' in packages", json!(true)),
        ("22 in ports.listening", json!(true)),
        ("host.memory_bytes / 10 * 9", json!(3_865_470_561_u64)),
        ("double(host.cpu_count) * 1.5", json!(3.0)),
        ("host.cpu_count > 4 ? 'large' : 'small'", json!("small")),
        ("os.version_id.matches('^1[23]$')", json!(true)),
        ("has(host.nothing)", json!(false)),
        ("{'b': 1, 'a': [2]}", json!({"a": [2], "b": 1})),
    ] {
        assert_eq!(value(rule), Ok(expected), "{rule}");
    }
}

#[test]
fn what_is_not_bounded_or_not_determined_is_refused() {
    let long = "1+".repeat(600) + "1";
    let many = format!("[{}1]", "1,".repeat(505));
    let mut texts = vec![];
    for rule in [
        "host.",
        "",
        "packages.exists(p, packages.exists(q, p == q))",
        "software.exists(s, s.matches('^a'))",
        "storage.network.map(n, n.kind).exists(k, k == 'nfs')",
        "[[1, 2]].exists(l, 1 in l)",
        "dyn(packages).all(p, true)",
        "packages.all(p, p != 'x')",
        "host.nothing == 1",
        "host.cpu_count + 'x'",
        "9223372036854775807 + 1",
        "1 / 0",
        "b'abc'",
        "nothing",
        "1.0 / 0.0",
        "os.version_id.matches('(')",
        &many,
        &long,
    ] {
        texts.push(format!("{}\n  {}", cut(rule.to_owned(), 60), cut(value(rule).unwrap_err().to_string(), 260)));
    }
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn a_rule_names_the_facts_that_it_reads() {
    let facts = Facts::new(fixtures::network_storage_host().facts());
    let read = |text: &str| Rule::try_from(text).unwrap().compile().unwrap().facts_read(&facts);
    assert_eq!(
        read("host.cpu_count > 1 && !('zabbix-agent' in packages)"),
        "host.cpu_count = 2, packages has no \"zabbix-agent\""
    );
    assert_eq!(read("packages['libc6'].startsWith('2')"), "packages[\"libc6\"] = \"2.36-9+deb12u9\"");
    assert_eq!(read("filesystems.exists(f, f.kind == os.id)").matches("filesystems").count(), 1);
    assert!(read("filesystems.exists(f, f.kind == os.id)").ends_with("os.id = \"debian\""));
}

#[test]
fn hostile_nesting_ends_in_an_error() {
    for text in ["(".repeat(1000), "-".repeat(1000), "[".repeat(1000), "a.".repeat(500) + "a"] {
        assert!(value(&text).is_err(), "{}", cut(text, 20));
    }
    let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
    let _ = value(&deep);
    assert_eq!(value(&("!".repeat(1000) + "true")), Ok(json!(true)));
    let chain = "1+".repeat(120) + "1";
    assert_eq!(value(&chain), Ok(json!(121)));
}

#[test]
fn a_reason_does_not_depend_on_the_order_of_a_hash_table() {
    for rule in ["1 + host", "host + host", "host < 1", "packages[host]", "host.map", "size(1)", "-host", "int(host)"] {
        let first = value(rule).unwrap_err();
        for _ in 0..20 {
            assert_eq!(value(rule).unwrap_err(), first, "of {rule}");
        }
    }
    let Err(RuleError::Evaluate { reason, .. }) = value("1 + host") else { panic!("a number and a map have no sum") };
    assert_eq!(reason, "`add` is not defined for 1 and a map of 10");
}

/// Pieces from which texts are made that get further than noise does.
fn pieces() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "host",
        ".",
        "cpu_count",
        "storage.network",
        "packages",
        ".exists(",
        ".map(",
        ".filter(",
        ".all(",
        "n",
        ",",
        ")",
        "(",
        "[",
        "]",
        "{",
        "}",
        ":",
        "?",
        "+",
        "-",
        "*",
        "/",
        "%",
        "==",
        "<",
        "in",
        "!",
        "&&",
        "||",
        "'a'",
        "\"",
        "'",
        "1",
        "0x",
        "1e999",
        "true",
        "null",
        "size(",
        "matches(",
        "has(",
        "int(",
        "b'",
        "r'",
        "\\",
        "\\u",
        "`",
        "//",
        "\n",
        "é",
        "\0",
        "18446744073709551615u",
    ]);
    prop::collection::vec(words, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::property_tests::cases(2000)))]
    #[test]
    fn no_text_makes_a_rule_panic(text in prop_oneof![".{0,80}", pieces()]) {
        if let Ok(compiled) = Rule::try_from(text.as_str()).and_then(|rule| rule.compile()) {
            for descriptor in [fixtures::plain_host(), fixtures::clustered_host()] {
                let facts = Facts::new(descriptor.facts());
                let once = compiled.evaluate(&facts);
                prop_assert_eq!(once, compiled.evaluate(&facts));
                let _ = compiled.facts_read(&facts);
            }
        }
    }
}
