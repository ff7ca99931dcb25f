//! What an operator is told: where a word would change nothing, where a name is another's, where output is lost; and what
//! lies where for the day on which a machine is lost (R49, R90-R98, R115).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use branchline_tests::{
    binary,
    kept_demo::{KeptDemo, tree},
};
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

/// `sessions watch` ends by itself once every session has; `catalogue show` says everything about one package.
fn what_is_there_is_shown(demo: &KeptDemo, hosts: usize) -> Result<()> {
    let watched = demo.run("station", &["sessions", "watch", "--json"])?;
    let last: Value = serde_json::from_str(&watched).with_context(|| watched.clone())?;
    let stages: Vec<&Value> = last.as_array().into_iter().flatten().map(|session| &session["stage"]).collect();
    ensure!(stages.len() == hosts && stages.iter().all(|stage| **stage == "complete"), "{watched}");
    let shown = Command::new(demo.program())
        .args(["catalogue", "show", "sample-agent", "--json", "--bundle"])
        .arg(demo.path("bundle"))
        .output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.contains("sample-agent") && shown.contains("1.0.0"), "{shown}");
    Ok(())
}

/// Runs a command that must fail, and gives what it said.
fn refused(demo: &KeptDemo, home: &str, arguments: &[&str]) -> Result<String> {
    match demo.run(home, arguments) {
        Ok(said) => anyhow::bail!("branchline {} was not refused: {said}", arguments.join(" ")),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Every file of the station, and what it says of its sessions.
fn kept_by_station(demo: &KeptDemo) -> Result<(Vec<(PathBuf, String)>, Value)> {
    Ok((tree(&demo.path("station"))?, demo.json("station", &["sessions", "list"])?))
}

fn names(plans: &Value) -> Vec<&str> {
    let hosts = plans["hosts"].as_array().map_or(&[][..], Vec::as_slice);
    hosts.iter().filter_map(|host| host["host_name"].as_str()).collect()
}

/// The plans of all hosts, where nothing has changed with them: the station's own work may fall between two looks.
fn plans_without_a_trace(demo: &KeptDemo) -> Result<Option<Value>> {
    let before = kept_by_station(demo)?;
    let plans = demo.json("station", &["plan", "--all"])?;
    Ok((kept_by_station(demo)? == before).then_some(plans))
}

/// R62: the station shows what it would do for any host, group or choice of hosts; it is what it did, and looking leaves
/// no trace.
fn plans_are_shown_and_change_nothing(demo: &KeptDemo, hosts: usize) -> Result<()> {
    let plans = RefCell::new(None);
    demo.wait_until(60, "nothing changes while plans are shown", || {
        *plans.borrow_mut() = plans_without_a_trace(demo)?;
        Ok(plans.borrow().is_some())
    })?;
    let plans = plans.into_inner().context("no plans")?;
    ensure!(names(&plans).len() == hosts && plans["summary"]["planned"] == hosts, "{plans}");
    let sessions: Value = demo.json("station", &["sessions", "list"])?;
    for session in sessions.as_array().context("no list of sessions")? {
        let planned =
            plans["hosts"].as_array().and_then(|all| all.iter().find(|h| h["host_name"] == session["host_name"]));
        ensure!(planned.is_some_and(|planned| planned["hash"] == session["plan"]), "{session} is not {planned:?}");
    }

    // One host is shown as its files would be.
    let node = plans["hosts"][0]["node"].as_str().context("no node")?;
    let descriptor = plans["hosts"][0]["plan"]["descriptor"].as_str().context("no descriptor")?;
    let path = |name: &str| demo.path(name).display().to_string();
    let (descriptor, charter) = (path(&format!("station/descriptors/{descriptor}.xml")), path("bundle/charter.json"));
    let (catalogue, policy) = (path("bundle/catalogue/catalogue.json"), path("bundle/policy.json"));
    let files = ["--descriptor", &descriptor, "--catalogue", &catalogue, "--policy", &policy, "--charter", &charter];
    let of_files = demo.run("station", &[&["plan", "--node", node][..], &files].concat())?;
    ensure!(of_files == demo.run("station", &["plan", "till-1"])?, "{of_files}");
    ensure!(of_files.contains("payload ") && of_files.contains("\nWhy\n"), "{of_files}");

    // Some hosts, by what their surveys say.
    let with_nfs: Value = demo.json("station", &["plan", "--where", "storage.network.exists(m, m.kind == 'nfs')"])?;
    ensure!((1..hosts).contains(&names(&with_nfs).len()), "{with_nfs}");
    for host in with_nfs["hosts"].as_array().context("no hosts")? {
        ensure!(host["plan"]["packages"][0]["modules"].to_string().contains("nfs"), "{host}");
    }
    let all = plans["hosts"].as_array().context("no hosts")?;
    let group =
        all.iter().find_map(|host| host["plan"]["group"]["name"].as_str()).context("no host is in a cluster")?;
    let members: Value = demo.json("station", &["plan", "--group", group])?;
    ensure!((1..hosts).contains(&names(&members).len()), "{members}");
    let text = demo.run("station", &["plan", "--all", "--summary"])?;
    ensure!(text.starts_with(&format!("{hosts} hosts: {hosts} with a plan, 0 without")), "{text}");

    for (home, arguments, words) in [
        ("station", &["plan", "till-9"][..], "this station knows till-1, till-2"),
        ("station", &["plan", "--where", "os."], "--where"),
        ("station", &["plan", "--where", "host.cpu_count"], "must be true or false"),
        ("station", &["plan", "--where", "false"], "no host is meant"),
        ("station", &["plan", "--group", "nobody"], "no host is meant"),
        ("hosts/till-1/home", &["plan", "--all"], "not station"),
        ("headquarters", &["plan", "till-1"], "not station"),
    ] {
        let said = refused(demo, home, arguments)?;
        ensure!(said.contains(words), "{arguments:?} at {home}: {said}");
    }
    Ok(())
}

/// Under a policy that forbids what there is no host has a plan, and the command fails.
fn nothing_suits_any_more(demo: &KeptDemo) -> Result<()> {
    let file = demo.path("forbidden.toml");
    let wish = "[[packages]]\npackage = \"sample-agent\"\nwish = \"forbidden\"\nreason = \"a test\"\n";
    std::fs::write(&file, format!("site = \"demo\"\nversion = 99\n{wish}"))?;
    let (file, bundle) = (file.display().to_string(), demo.path("bundle").display().to_string());
    demo.run("headquarters", &["publish", "--bundle", &bundle, "--policy", &file])?;
    demo.wait_until(30, "the station has the policy", || {
        let status: Value = demo.json("station", &["status"])?;
        Ok(status["sites"][0]["policy_version"] == 99)
    })?;
    let said = refused(demo, "station", &["plan", "till-1"])?;
    ensure!(said.contains("no package of the catalogue suits this host"), "{said}");
    let said = refused(demo, "station", &["plan", "--all", "--json"])?;
    ensure!(said.contains("\"planned\": 0") && said.contains("\"refused\""), "{said}");
    Ok(())
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
    plans_are_shown_and_change_nothing(&demo, HOSTS)?;
    what_is_there_is_shown(&demo, HOSTS)?;
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

    // A dry run is of who is there; a survey that is stored serves as well as a host that answers.
    let plans: Value = demo.json("station", &["plan", "--all"])?;
    ensure!(names(&plans) == ["till-1", "till-2", "till-4"], "{plans}");
    nothing_suits_any_more(&demo)?;

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

/// What a shell and a reader get before there is any node: completions that the shell reads, and the script that runs.
#[test]
fn completions_are_read_by_the_shell_and_the_printed_script_is_the_one_that_runs() -> Result<()> {
    let program = binary::branchline()?;
    let completions = Command::new(&program).args(["completions", "bash"]).output()?;
    ensure!(completions.status.success() && completions.stdout.len() > 1_000, "{completions:?}");
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &completions.stdout)?;
    let read = Command::new("bash").arg("-n").arg(file.path()).output()?;
    ensure!(read.status.success() && read.stderr.is_empty(), "{}", String::from_utf8_lossy(&read.stderr));
    let printed = Command::new(&program).args(["survey", "--print-script"]).output()?;
    ensure!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    ensure!(printed.stdout == branchline::survey::assemble(&[])?.text.as_bytes(), "another script is printed");
    Ok(())
}
