//! `branchline demo` as a user meets it: the built binary, real processes on loopback addresses.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use branchline_tests::binary;
use serde_json::Value;

fn demo(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary::branchline().unwrap());
    command.arg("demo").args(arguments).env("TMPDIR", directory).output().unwrap()
}

/// A temporary directory with a name that is short enough for Unix sockets, and that names this test's processes.
fn temporary() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("bl-").tempdir_in("/tmp").unwrap()
}

/// Command lines of living processes that have to do with `directory`.
fn processes(directory: &Path) -> Vec<String> {
    let directory = directory.display().to_string();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&directory).then_some(line)
    });
    lines.collect()
}

fn texts(value: &Value) -> BTreeSet<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// HTML Tidy's errors and warnings, where it is installed.
fn faults_of_html(report: &Path) -> Option<String> {
    let output = Command::new("tidy").args(["-quiet", "-errors", "--drop-empty-elements", "no"]).arg(report).output();
    let output = output.ok()?;
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn demo_brings_three_different_hosts_to_the_end_and_leaves_nothing_behind() {
    let directory = temporary();
    let output = demo(directory.path(), &["--json", "--hosts", "3"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "", "nothing but JSON is written");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(answer["wan_ratio"], 1.0);
    assert_eq!(answer["wan_bytes"], answer["payload_bytes"]);
    let payload = answer["payload_bytes"].as_u64().unwrap();
    assert!(payload > 1_000_000, "the payload is a real program");
    let lan = answer["lan_bytes"].as_u64().unwrap();
    assert!(lan >= 2 * payload, "every node but one got it inside the site: {lan} bytes of {payload}");
    assert!(answer["seconds"].as_f64().unwrap() < 60.0, "{}", answer["seconds"]);

    let hosts = answer["hosts"].as_array().unwrap();
    assert_eq!(hosts.len(), 3);
    let mut mapped = BTreeSet::new();
    for host in hosts {
        assert_eq!((&host["state"], &host["verified"]), (&Value::from("complete"), &Value::from(true)), "{host:#}");
        assert_eq!(texts(&host["payloads"]), BTreeSet::from(["sample-agent 1.0.0".to_owned()]));
        assert!(mapped.insert(host["mapped_address"].as_str().unwrap()), "one address for each: {host:#}");
        assert!(host["thresholds"].as_object().unwrap().len() >= 3, "{host:#}");
        let report = PathBuf::from(host["report"].as_str().unwrap());
        let html = std::fs::read_to_string(&report).unwrap();
        assert!(
            html.contains(host["name"].as_str().unwrap()) && html.contains(host["mapped_address"].as_str().unwrap())
        );
        assert_eq!(faults_of_html(&report), None, "{}", report.display());
    }
    let modules: Vec<BTreeSet<String>> = hosts.iter().map(|host| texts(&host["modules"])).collect();
    let has = |host: usize, name: &str| modules[host].iter().any(|module| module.ends_with(name));
    assert_eq!([0, 1, 2].map(|host| has(host, "nfs")), [false, true, false]);
    assert_eq!([0, 1, 2].map(|host| has(host, "cluster")), [false, false, true]);
    assert_eq!([0, 1, 2].map(|host| has(host, "high-availability")), [false, false, true]);
    assert!((0..3).all(|host| has(host, "cpu") && has(host, "memory")));

    assert_eq!(processes(directory.path()), Vec::<String>::new());
    let left: Vec<PathBuf> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 1);
    let left: Vec<_> = std::fs::read_dir(&left[0]).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["reports"]);
}

#[test]
fn demo_that_is_kept_goes_on_until_its_script_ends_it() {
    let directory = temporary();
    let payload = directory.path().join("prices.txt");
    std::fs::write(&payload, "one cup 2.50\n").unwrap();
    let output = demo(directory.path(), &["--hosts", "1", "--keep", "--payload", payload.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let stop = said.lines().find_map(|line| line.strip_prefix("End it and remove it: ")).unwrap();
    let kept = Path::new(stop).parent().unwrap();
    assert_eq!(std::fs::read(kept.join("hosts/till-1/root/opt/demo-payload/prices.txt")).unwrap(), b"one cup 2.50\n");
    assert!(processes(directory.path()).len() >= 6, "{:#?}", processes(directory.path()));
    assert!(Command::new(stop).status().unwrap().success());
    assert_eq!(processes(directory.path()), Vec::<String>::new());
    assert!(!kept.exists());
}

#[test]
fn demo_refuses_wrong_flags() {
    let directory = temporary();
    for wrong in [&["--hosts", "0"][..], &["--hosts", "51"], &["--hosts", "many"], &["--host", "3"]] {
        let output = demo(directory.path(), wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    let output = demo(directory.path(), &["--payload", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file"), "{output:?}");
    assert_eq!(processes(directory.path()), Vec::<String>::new());
}

#[test]
fn demo_ends_its_processes_when_it_is_killed() {
    let directory = temporary();
    let mut command = Command::new(binary::branchline().unwrap());
    command.args(["demo", "--json", "--hosts", "1"]).env("TMPDIR", directory.path());
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let wait_until = |what: &str, holds: &dyn Fn() -> bool| {
        let begin = std::time::Instant::now();
        while !holds() {
            assert!(begin.elapsed().as_secs() < 40, "{what}: {:#?}", processes(directory.path()));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    wait_until("no agent started", &|| processes(directory.path()).iter().any(|line| line.contains("agent.toml")));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("processes are left", &|| processes(directory.path()).is_empty());
}
