//! The lab as a Rust value: that the tests which use it can trust what it answers.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use branchline_tests::lab::Options;
use branchline_tests::lab_or_return;

#[test]
fn lab_answers_as_values_and_goes_when_dropped() -> Result<()> {
    let options = Options { id: "blvalue".to_owned(), hosts: 2, roots: false, ..Options::default() };
    let lab = lab_or_return!(&options);

    assert_eq!(lab.check("host2", &["hostname"])?, "host2\n");
    assert_eq!(lab.exec("host1", &["sh", "-c", "exit 3"])?.status.code(), Some(3));
    assert_eq!(lab.address("host1")?, "10.1.1.1");
    assert!(lab.address("host9").is_err());

    let before = lab.counters()?.wan;
    let ping = ["ping", "-q", "-c", "1", &lab.facts().headquarters_address];
    lab.check("host1", &ping)?;
    let after = lab.counters()?;
    assert!(after.wan.sent_bytes >= before.sent_bytes + 98, "{before:?} {after:?}");
    assert!(after.machines["host1"].sent_packets > 0);

    let table = lab.nat_table()?;
    assert_eq!(table.snmp.map(|rows| rows.len()), Some(0));
    assert!(table.forwarding.inbound.is_empty());
    lab.fault("sub-agent-dead", "on")?;
    let rows = lab.nat_table()?.snmp.unwrap_or_default();
    assert!(rows.is_empty(), "{rows:?}");

    lab.spawn("host1", "sleeper", &["sleep", "600"])?;
    assert!(lab.running("host1", "sleeper")?);
    lab.kill("host1", "sleeper", "KILL")?;
    assert_eq!(lab.wait("host1", "sleeper", 5)?, 137);

    let run = lab.facts().shared.parent().unwrap().to_owned();
    assert!(run.exists());
    drop(lab);
    assert!(!run.exists());
    Ok(())
}
