//! Two machines with one identity (R99): the copy is turned away, the first machine goes on, and the station, headquarters
//! and the copy itself say so.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use branchline::config::Home;
use branchline_tests::kept_demo::KeptDemo;
use serde_json::Value;

const HOST: &str = "hosts/till-1/home";
const COPY: &str = "hosts/copy/home";
const WORDS: &str = "one identity on two machines";

/// Copies the files of a directory, as a disk image would hold them; sockets stay behind.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn says(demo: &KeptDemo, home: &str, words: &str) -> Result<()> {
    demo.wait_until(30, &format!("the notices in {home} say {words:?}"), || {
        let status: Value = demo.json(home, &["status"])?;
        Ok(status["notices"]
            .as_array()
            .context("no notices")?
            .iter()
            .any(|notice| notice.as_str().is_some_and(|notice| notice.contains(words))))
    })
    .with_context(|| demo.log("copy"))
}

fn session(demo: &KeptDemo, home: &str) -> Result<Value> {
    let sessions: Value = demo.json(home, &["sessions", "list"])?;
    Ok(sessions[0].clone())
}

#[test]
fn demo_copy_of_a_host_is_turned_away_and_everybody_is_told() -> Result<()> {
    let mut demo = KeptDemo::start(1)?;
    let before = session(&demo, "station")?;
    copy(&demo.path(HOST), &demo.path(COPY))?;

    // On the same machine the copy does not even start, and says why.
    demo.start_node("copy", COPY)?;
    demo.wait_until(20, "the copy ends", || {
        let runs = !demo.processes(&format!("run --home {} ", demo.path(COPY).display())).is_empty();
        Ok(!runs && demo.log("copy").contains("error:"))
    })?;
    let said = demo.log("copy");
    println!("on the first machine: {}", said.lines().last().unwrap_or_default());
    ensure!(said.contains("error: listening at 127.") && said.contains("in use"), "{said}");

    // Another machine: another address, and a root whose /etc/machine-id is its own.
    let home = Home::open(&demo.path(COPY))?;
    let mut config = home.config_or_default()?;
    let Some(IpAddr::V4(address)) = config.listen else { anyhow::bail!("the host has no address") };
    let [a, b, c, d] = address.octets();
    config.listen = Some(IpAddr::from([a, b, c, d + 40]));
    let root = demo.path("hosts/copy/root");
    copy(&config.root, &root)?;
    std::fs::write(root.join("etc/machine-id"), "00000000000000000000000000000002\n")?;
    config.root = root;
    home.save_config(&config)?;
    demo.start_node("copy", COPY)?;

    says(&demo, "station", WORDS)?;
    says(&demo, COPY, "refuses this node")?;
    says(&demo, COPY, WORDS)?;
    says(&demo, "headquarters", WORDS)?;
    for home in ["station", "headquarters"] {
        let seen = session(&demo, home)?;
        assert_eq!((&seen["stage"], &seen["mapped"]), (&"complete".into(), &before["mapped"]), "{seen:#}");
        assert!(seen["warnings"][0].as_str().is_some_and(|text| text.contains(WORDS)), "{seen:#}");
        println!("{home}: {}", seen["warnings"][0]);
    }
    let shown: Value = demo.json("station", &["sessions", "show", "till-1"])?;
    assert!(shown["history"].to_string().contains(WORDS), "{shown:#}");
    let first: Value = demo.json(HOST, &["status"])?;
    assert_eq!(first["host"]["stage"], "complete");
    assert!(first["neighbours"].as_array().is_some_and(|nodes| !nodes.is_empty()), "the first machine is connected");

    // The copy is switched off, a person has seen it.
    demo.kill_node(COPY)?;
    demo.run("station", &["sessions", "retry", "till-1"])?;
    let seen = session(&demo, "station")?;
    assert_eq!((&seen["warnings"], &seen["stage"]), (&Value::Array(Vec::new()), &"complete".into()), "{seen:#}");
    Ok(())
}
