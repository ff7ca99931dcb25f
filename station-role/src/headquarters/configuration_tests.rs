use super::*;

#[test]
fn a_configuration_reads_as_people_write_it() {
    let text = r#"
        batch_addresses = 8
        [[pools]]
        site = "store-17"
        first = "198.51.100.64"
        last = "198.51.100.127"
        [[rules]]
        name = "debian"
        facts = { operating_system = "debian" }
        action = "approve"
        [[rules]]
        name = "rest"
        action = { delay = { reason = "office hours", seconds = 3600 } }
    "#;
    let configuration: HeadquartersConfiguration = toml::from_str(text).unwrap();
    assert_eq!(configuration.check(), Ok(()));
    assert_eq!(configuration.rules[0].action, RuleAction::Approve);
    assert!(configuration.pools[0].serves(&"store-17".parse().unwrap()));
    assert!(!configuration.pools[0].serves(&"store-18".parse().unwrap()));
}

#[test]
fn pools_that_overlap_and_rules_of_one_name_are_refused() {
    let pool =
        |first: &str, last: &str| PoolEntry { site: None, first: first.parse().unwrap(), last: last.parse().unwrap() };
    let with = |pools| HeadquartersConfiguration { pools, ..HeadquartersConfiguration::default() };
    let overlap = with(vec![pool("10.0.0.1", "10.0.0.9"), pool("10.0.0.9", "10.0.0.20")]);
    assert!(matches!(overlap.check(), Err(ConfigurationError::Overlap { .. })));
    assert!(matches!(with(vec![pool("10.0.0.2", "10.0.0.1")]).check(), Err(ConfigurationError::EmptyPool { .. })));
    let rule = ApprovalRule {
        name: "a".into(),
        sites: vec![],
        packages: vec![],
        facts: BTreeMap::new(),
        when: None,
        action: RuleAction::Approve,
    };
    let twice = HeadquartersConfiguration { rules: vec![rule.clone(), rule], ..HeadquartersConfiguration::default() };
    assert_eq!(twice.check(), Err(ConfigurationError::RuleName { name: "a".into() }));
}
