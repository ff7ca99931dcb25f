//! An update is a new generation that keeps the host's mapping, and one that headquarters denies leaves the version before
//! it running, mapped and monitored (R97), in a running demo.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use branchline::config::Home;
use branchline_station_role::headquarters::RuleAction;
use branchline_tests::kept_demo::KeptDemo;
use serde_json::Value;

const UPDATED: &str = "till-1";
const OTHER: &str = "till-2";

#[test]
fn demo_update_keeps_the_mapping_and_a_denied_one_the_version_before_it() -> Result<()> {
    let mut demo = KeptDemo::start(2)?;
    let (first, other) = (session(&demo, UPDATED)?, session(&demo, OTHER)?);
    assert!(configuration(&demo, UPDATED)?.starts_with("# Written by"), "of the first version");

    publish(&demo, "1.1.0", 2)?;
    demo.run("station", &["sessions", "update", UPDATED])?;
    let second = wait_for(&demo, "complete", &first)?;
    assert_eq!(second["mapped"], first["mapped"], "the mapping is kept");
    assert_eq!(second["verified"], true, "{second:#}");
    assert!(configuration(&demo, UPDATED)?.starts_with("# 1.1.0: "), "of the second version");
    answers(&second)?;
    assert_eq!(session(&demo, OTHER)?["session"], other["session"], "nobody else is updated");

    let home = Home::open(&demo.path("headquarters"))?;
    let mut config = home.config_or_default()?;
    config.headquarters.desk.rules[0].action = RuleAction::Deny { reason: "not before the holidays".to_owned() };
    home.save_config(&config)?;
    demo.kill_node("headquarters")?;
    demo.start_node("headquarters-again", "headquarters")?;
    publish(&demo, "1.2.0", 3)?;
    demo.run("station", &["sessions", "update", UPDATED])?;
    let third = wait_for(&demo, "denied", &second)?;
    assert!(third["reason"].to_string().contains("not before the holidays"), "{third:#}");
    assert!(configuration(&demo, UPDATED)?.starts_with("# 1.1.0: "), "the second version stays");
    let table: Value = demo.json("station", &["nat", "show"])?;
    let mapped = second["mapped"].as_str().context("it was not mapped")?;
    ensure!(table.to_string().contains(mapped), "the mapping is gone: {table:#}");
    answers(&second)
}

fn session(demo: &KeptDemo, host: &str) -> Result<Value> {
    demo.json("station", &["sessions", "show", host])
}

/// The next session of the updated host, at this stage.
fn wait_for(demo: &KeptDemo, stage: &str, before: &Value) -> Result<Value> {
    demo.wait_until(90, &format!("{UPDATED} is {stage} in its next generation"), || {
        let shown = session(demo, UPDATED)?;
        Ok(shown["stage"] == stage && shown["session"] != before["session"])
    })
    .with_context(|| format!("{:#}", session(demo, UPDATED).unwrap_or_default()))?;
    session(demo, UPDATED)
}

/// What the agent of a host is told.
fn configuration(demo: &KeptDemo, host: &str) -> Result<String> {
    let path = demo.path(&format!("hosts/{host}/root/etc/sample-agent/agent.toml"));
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The agent answers at its mapped address.
fn answers(session: &Value) -> Result<()> {
    let mapped = session["mapped"].as_str().context("it is not mapped")?;
    let mut stream = TcpStream::connect((mapped, 9105)).with_context(|| format!("asking {mapped}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    ensure!(said.contains("sample_agent_module"), "{said}");
    Ok(())
}

/// Publishes the sample agent as another version, which its configuration tells, and waits until the station knows of it.
fn publish(demo: &KeptDemo, version: &str, catalogue: u64) -> Result<()> {
    let text = fs::read_to_string(demo.path("payload/sample-agent-1.0.0.toml"))?;
    let changed = text
        .replace("version = \"1.0.0\"", &format!("version = \"{version}\""))
        .replace("# Written by", &format!("# {version}: written by"));
    let definition = demo.path("payload/another.toml");
    fs::write(&definition, changed)?;
    let (definition, payload) = (definition.display().to_string(), demo.path("payload/sample-agent-1.0.0.tar"));
    let mut command = std::process::Command::new(demo.program());
    command.args(["catalogue", "add", "--package", &definition, "--bundle"]).arg(demo.path("bundle"));
    let output = command.arg("--payload").arg(payload).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let directory = demo.path("bundle/catalogue").display().to_string();
    demo.wait_until(30, "headquarters takes the catalogue", || {
        Ok(demo.run("headquarters", &["publish", "--catalogue", &directory]).is_ok())
    })?;
    demo.wait_until(30, "the station has the catalogue", || {
        let status: Value = demo.json("station", &["status"])?;
        Ok(status["sites"][0]["catalogue_version"].as_u64() >= Some(catalogue))
    })
}
