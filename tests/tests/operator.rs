//! What an operator is told: where a word would change nothing, where a name is another's, where output is lost; and what
//! lies where for the day on which a machine is lost (R49, R90-R98, R115).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use branchline_tests::{binary, kept_demo::KeptDemo};
use serde_json::Value;

/// The homes of everybody who may keep a sealed survey.
fn homes(hosts: usize) -> Vec<String> {
    let hosts = (1..=hosts).map(|number| format!("hosts/till-{number}/home"));
    hosts.chain(["station".to_owned(), "headquarters".to_owned()]).collect()
}

/// How many nodes hold the newest sealed survey of the host in `home`.
fn holders(demo: &KeptDemo, home: &str, homes: &[String]) -> Result<usize> {
    let name = demo.path(home).join("surveys/own.sealed-name");
    let hash = std::fs::read_to_string(&name).with_context(|| format!("reading {}", name.display()))?;
    let file = PathBuf::from("surveys").join(format!("{}.sealed", hash.trim()));
    ensure!(!demo.path("headquarters").join(&file).exists(), "a survey left its site");
    Ok(homes.iter().filter(|home| demo.path(home).join(&file).exists()).count())
}

/// Runs a command that must fail, and gives what it said.
fn refused(demo: &KeptDemo, home: &str, arguments: &[&str]) -> Result<String> {
    match demo.run(home, arguments) {
        Ok(said) => anyhow::bail!("branchline {} was not refused: {said}", arguments.join(" ")),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
fn demo_operator_is_told_what_changes_nothing_and_surveys_outlive_their_holders() -> Result<()> {
    const HOSTS: usize = 4;
    let demo = KeptDemo::start(u8::try_from(HOSTS)?)?;
    let homes = homes(HOSTS);

    // The first host surveyed itself when it was alone with the station.
    for number in 1..=HOSTS {
        let home = format!("hosts/till-{number}/home");
        demo.wait_until(30, "three nodes hold the survey", || Ok(holders(&demo, &home, &homes)? >= 3))?;
    }
    demo.kill_node("hosts/till-4/home")?;
    let connected = ["hosts/till-1/home".to_owned(), "hosts/till-2/home".to_owned(), "hosts/till-3/home".to_owned()];
    let living: Vec<String> = connected.into_iter().chain(["station".to_owned()]).collect();
    for number in 1..=3 {
        let home = format!("hosts/till-{number}/home");
        demo.wait_until(90, "three living nodes hold it", || Ok(holders(&demo, &home, &living)? >= 3))?;
    }

    // A word that changes nothing is no success.
    let said = refused(&demo, "station", &["sessions", "cancel", "till-1"])?;
    ensure!(said.contains("complete") && said.contains("sessions withdraw"), "{said}");
    let said = refused(&demo, "station", &["sessions", "retry", "till-1"])?;
    ensure!(said.contains("complete") && said.contains("sessions update"), "{said}");
    demo.run("station", &["sessions", "withdraw", "till-3"])?;
    demo.wait_until(30, "till-3 is withdrawn", || {
        let seen: Value = demo.json("station", &["sessions", "show", "till-3"])?;
        Ok(seen["stage"] == "withdrawn")
    })?;
    let said = refused(&demo, "station", &["sessions", "update", "till-3"])?;
    ensure!(said.contains("withdrawn") && said.contains("joining anew"), "{said}");

    // A host has its own report only.
    ensure!(demo.run("hosts/till-1/home", &["report", "till-1"])?.contains("till-1"), "no report");
    let said = refused(&demo, "hosts/till-1/home", &["report", "till-2"])?;
    ensure!(said.contains("its own host only"), "{said}");

    // The router's table as last read says whose it is.
    let table = std::fs::read_to_string(demo.path("station/nat-table.xml"))?;
    let router = std::fs::read_to_string(demo.path("station/router.toml"))?;
    let address = router.lines().find_map(|line| line.strip_prefix("address = ")).context("no address")?;
    ensure!(table.contains(&format!("router={address} driver=\"snmp nat-mib\"")), "{address} is not in {table}");

    // The product says what the router's driver promises.
    let nat: Value = demo.json("station", &["nat", "show"])?;
    ensure!(
        nat["router_promise"].as_str().is_some_and(|text| text.contains("two hosts never get one address")),
        "{nat}"
    );
    Ok(())
}

#[test]
fn lost_output_is_an_error_and_no_panic() -> Result<()> {
    let program = binary::branchline()?;
    for arguments in [&["completions", "bash"][..], &["simulate", "--list-presets"]] {
        let full = std::fs::File::options().write(true).open("/dev/full")?;
        let output = Command::new(&program).args(arguments).stdout(full).stderr(Stdio::piped()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        ensure!(said.starts_with("error: ") && said.contains("No space left") && !said.contains("panicked"), "{said}");
    }
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let output = Command::new(&program).args(["completions", "bash"]).stdout(writer).stderr(Stdio::piped()).output()?;
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(1), &b""[..]), "a reader that had enough is no news");
    Ok(())
}
