//! A router that refuses, is full, or does not answer: people are told why, and it goes on by itself afterwards.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result};
use branchline_tests::site::{Site, SiteOptions, count_at};
use branchline_tests::{payload, return_without_lab};

/// A host, the fault that it meets, and words of what people are told.
const FAULTS: [(&str, &str, &str); 3] = [
    ("host1", "read-only", "does not let anyone write"),
    ("host2", "table-full", "full"),
    ("host3", "drop-requests", "did not answer"),
];

#[test]
fn lab_router_faults() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let packages = vec![payload::node_exporter(made.path())?];
    let site = Site::up(&SiteOptions::new("blfault", FAULTS.len(), packages))?;
    site.publish()?;
    let token = site.token("station", FAULTS.len())?;
    for (number, (host, fault, words)) in FAULTS.into_iter().enumerate() {
        site.lab().fault(fault, "on")?;
        site.start_host(host, &token)?;
        site.wait_until(60, &format!("status says {words:?} after the fault {fault}"), || {
            let status: serde_json::Value = site.node_json("station", &["status"])?;
            Ok(status["notices"].to_string().contains(words))
        })?;
        let status: serde_json::Value = site.node_json("station", &["status"])?;
        let notices = status["notices"].as_array().cloned().unwrap_or_default();
        let said = notices.iter().filter_map(|notice| notice.as_str()).find(|notice| notice.contains(words));
        println!("{fault}: {}", said.unwrap_or_default());
        let sessions = site.sessions("station")?;
        assert_eq!(count_at(&sessions, "complete"), number, "{sessions:?}");
        let session = sessions.iter().find(|session| session.host_name == host).context("no session")?;
        println!("{host} is {}: {}", session.stage, session.reason);
        assert_eq!((session.stage.as_str(), session.verified), ("approved", false), "{session:?}");
        assert!(session.reason.contains(words), "{session:?}");
        // Nothing is half done: no packet is sent to a host whose row is not whole, and headquarters lists no such host.
        let inside = site.lab().address(host)?;
        let forwarding = site.lab().nat_table()?.forwarding;
        assert!(forwarding.inbound.iter().all(|mapping| mapping.local != inside), "{forwarding:?}");
        assert!(!site.targets()?.contains_key(host));
        site.lab().fault("clear", "")?;
        let mended = std::time::Instant::now();
        site.wait_for("station", 120, "the host is complete once the router works", |sessions| {
            count_at(sessions, "complete") == number + 1
        })?;
        println!("{fault}: complete {:.1} s after it was mended", mended.elapsed().as_secs_f64());
    }
    let table = site.lab().nat_table()?;
    assert_eq!(table.forwarding.inbound.len(), FAULTS.len(), "{table:?}");
    let rows = table.snmp.context("the router does not answer")?;
    assert!(rows.len() == FAULTS.len() && rows.iter().all(|row| row.status == "active"), "{rows:?}");
    Ok(())
}
