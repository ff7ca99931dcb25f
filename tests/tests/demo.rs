//! `branchline demo` as a user meets it: the built binary, real processes on loopback addresses.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use branchline_tests::{binary, required};
use serde_json::Value;

/// A user without privileges: `nobody` of Debian.
const NOBODY: u32 = 65_534;

fn demo(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary::branchline().unwrap());
    command.arg("demo").args(arguments).env("TMPDIR", directory).output().unwrap()
}

/// The same as a user who has no privileges, an empty environment, and nothing but a copy of the program.
fn demo_of_nobody(directory: &Path, arguments: &[&str]) -> Output {
    let (program, home) = (directory.join("branchline"), directory.join("t"));
    // By another process: a file that this one has written cannot be run while one of its children is being started.
    assert!(Command::new("cp").arg(binary::branchline().unwrap()).arg(&program).status().unwrap().success());
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    command.arg("demo").args(arguments).current_dir(&home).env_clear();
    command.env("HOME", &home).env("TMPDIR", &home).env("PATH", "/usr/bin:/bin");
    if std::fs::metadata(&home).unwrap().uid() == 0 {
        chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
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

/// HTML Tidy's errors and warnings.
fn faults_of_html(report: &Path) -> Option<String> {
    let output = Command::new("tidy").args(["-quiet", "-errors", "--drop-empty-elements", "no"]).arg(report).output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            required::skip("HTML Tidy's verdict", &format!("it cannot be run ({error})"));
            return None;
        }
    };
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn demo_without_privileges_brings_five_different_hosts_to_the_end_and_leaves_nothing_behind() {
    let directory = temporary();
    let output = demo_of_nobody(directory.path(), &["--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "", "nothing but JSON is written");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(answer["wan_ratio"], 1.0);
    assert_eq!(answer["wan_bytes"], answer["payload_bytes"]);
    let payload = answer["payload_bytes"].as_u64().unwrap();
    assert!(payload > 1_000_000, "the payload is a real program");
    let lan = answer["lan_bytes"].as_u64().unwrap();
    assert!(lan >= 4 * payload, "every node but one got it inside the site: {lan} bytes of {payload}");
    assert!(answer["seconds"].as_f64().unwrap() < 60.0, "{}", answer["seconds"]);

    let hosts = answer["hosts"].as_array().unwrap();
    let names: Vec<&str> = hosts.iter().map(|host| host["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["till-1", "till-2", "till-3", "till-4", "till-5"], "as many as the help promises");
    let keys: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["hosts", "lan_bytes", "payload_bytes", "seconds", "wan_bytes", "wan_ratio"]);
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
        assert_ne!(std::fs::metadata(&report).unwrap().uid(), 0, "root made {}", report.display());
    }
    let modules: Vec<BTreeSet<String>> = hosts.iter().map(|host| texts(&host["modules"])).collect();
    let has = |host: usize, name: &str| modules[host].iter().any(|module| module.ends_with(name));
    let where_is = |name: &str| (0..5).filter(|host| has(*host, name)).collect::<Vec<_>>();
    assert_eq!([where_is("nfs"), where_is("cluster"), where_is("high-availability")], [[1], [2], [2]]);
    assert!((0..5).all(|host| has(host, "cpu") && has(host, "memory")));

    assert_eq!(processes(directory.path()), Vec::<String>::new());
    let left: Vec<PathBuf> =
        std::fs::read_dir(directory.path().join("t")).unwrap().map(|entry| entry.unwrap().path()).collect();
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

/// An agent that ends at once: its host is rolled back, the other one is complete, and programs and people are told.
#[test]
fn demo_with_a_failing_agent_says_so_and_does_not_succeed() {
    let directory = temporary();
    let output = demo(directory.path(), &["--json", "--hosts", "2", "--fail-agent", "till-2=start"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [well, ill] = &answer["hosts"].as_array().unwrap()[..] else { panic!("{answer:#}") };
    assert_eq!((&well["state"], &well["verified"]), (&Value::from("complete"), &Value::from(true)), "{well:#}");
    assert!(std::fs::metadata(well["report"].as_str().unwrap()).unwrap().len() > 0);
    assert_eq!((&ill["name"], &ill["state"]), (&Value::from("till-2"), &Value::from("rolled_back")), "{ill:#}");
    assert_eq!((&ill["verified"], &ill["mapped_address"]), (&Value::from(false), &Value::Null), "{ill:#}");
    assert_eq!(texts(&ill["payloads"]), BTreeSet::from(["sample-agent 1.0.0".to_owned()]), "{ill:#}");
    let report = std::fs::read_to_string(ill["report"].as_str().unwrap()).unwrap();
    assert!(report.contains("till-2") && report.contains("rolled back"), "{report}");
    assert!(errors.starts_with("error: till-2 ended as rolled_back: "), "{errors}");
    assert!(errors.contains("sample-agent") && errors.contains("\n  till-2: rolled_back ("), "{errors}");
    assert!(!errors.contains("\n  till-1: "), "a complete host is no failure: {errors}");
    assert!(errors.contains("logs and homes are kept in "), "{errors}");
    assert_eq!(processes(directory.path()), Vec::<String>::new());
}

/// On a terminal of its own, made by script(1) of Debian's bsdutils: bars while it works, then the table alone.
#[test]
fn demo_on_a_terminal_shows_bars_and_then_a_table_of_hosts() {
    let directory = temporary();
    let payload = directory.path().join("prices.txt");
    std::fs::write(&payload, "one cup 2.50\n").unwrap();
    let program = binary::branchline().unwrap();
    let line = format!(
        "stty rows 40 columns 200; exec '{}' demo --hosts 2 --payload '{}'",
        program.display(),
        payload.display()
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(std::process::Stdio::null());
    let output = match command.env("TMPDIR", directory.path()).env("TERM", "xterm").output() {
        Ok(output) => output,
        Err(error) => return required::skip("the demo on a terminal", &format!("script cannot be run ({error})")),
    };
    let screen = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(output.status.success(), "{screen}");
    let (work, table) = screen.split_at(screen.find("HOST ").unwrap());
    // A bar has a place of its own on the screen, is drawn over, and is taken away at the end.
    for host in ["till-1", "till-2"] {
        // The name, the bar in green, and where the host stands.
        let drawn: Vec<(usize, &str)> = work
            .split(host)
            .filter_map(|rest| rest.split_once("\u{1b}[0m "))
            .map(|(bar, text)| (bar.matches('\u{2588}').count(), text.split_whitespace().next().unwrap_or_default()))
            .collect();
        let lengths: BTreeSet<usize> = drawn.iter().map(|(length, _)| *length).collect();
        assert!(lengths.len() >= 3, "the bar of {host} does not grow: {drawn:?}");
        assert_eq!(drawn.last(), Some(&(24, "complete")), "{drawn:?}");
    }
    assert!(work.contains("\u{1b}[1A") && work.contains("\u{1b}[2K"), "nothing is drawn over: {work:?}");
    assert!(work.contains("Starting headquarters, a router and the station"), "{work}");
    assert!(!table.contains('\u{2588}') && !table.contains('\u{1b}'), "{table:?}");

    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let columns = ["HOST", "STATE", "PAYLOADS", "MODULES", "THRESHOLDS", "WAN", "LAN", "MAPPED", "VERIFIED", "REPORT"];
    assert_eq!(header, columns);
    for host in ["till-1", "till-2"] {
        let row = lines.next().unwrap();
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells.len(), columns.len(), "{row}");
        assert_eq!((cells[0], cells[1], cells[8]), (host, "complete", "yes"), "{row}");
        assert!(cells[2].contains("demo-payload 1.0.0") && cells[2].contains("sample-agent 1.0.0"), "{row}");
        assert!(cells[3].contains("cpu disk memory") && cells[7].starts_with("127."), "{row}");
        assert!(cells[4].ends_with(')') && cells[9] == format!("{host}.html"), "{row}");
    }
    let reports = table.lines().find_map(|line| line.strip_prefix("The reports are in ")).unwrap();
    assert!(Path::new(reports).join("till-2.html").is_file(), "{table}");
    assert!(table.contains("\nThresholds\n  a  ") && table.contains("(ratio 1.00)"), "{table}");
    assert_eq!(processes(directory.path()), Vec::<String>::new());
}

#[test]
fn demo_refuses_wrong_flags() {
    let directory = temporary();
    for wrong in
        [&["--hosts", "0"][..], &["--hosts", "51"], &["--hosts", "many"], &["--host", "3"], &["--fail-agent", "till-1"]]
    {
        let output = demo(directory.path(), wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    let output = demo(directory.path(), &["--payload", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file"), "{output:?}");
    let output = demo(directory.path(), &["--hosts", "2", "--fail-agent", "till-3=start"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none of the demo's hosts: till-1, till-2"), "{output:?}");
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
