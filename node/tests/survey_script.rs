//! The survey script itself, under every shell that is here, on this machine and on made-up roots (R40, R43-R46, R49).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod survey_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use branchline::survey::{SignatureFile, assemble};
use survey_support::{Root, awks, descriptor_of, required, same_apart_from_time, script_file, shells, survey};

#[test]
fn every_shell_describes_this_machine() {
    for shell in shells() {
        let descriptor = descriptor_of(&survey(&shell, &["--root", "/"]));
        assert_eq!(descriptor.root, "/");
        assert!(!descriptor.host.filesystems.is_empty());
        assert!(!descriptor.host.software.list.is_empty());
        assert_eq!(descriptor.host.signatures.len(), 4);
    }
}

#[test]
fn the_description_agrees_with_the_machine() {
    let descriptor = descriptor_of(&survey(&["sh".to_owned()], &[]));
    let release: BTreeMap<String, String> = fs::read_to_string("/etc/os-release")
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect();
    let system = &descriptor.host.operating_system;
    assert_eq!(Some(&system.id), release.get("ID"));
    assert_eq!(system.version_id.as_ref(), release.get("VERSION_ID"));
    assert_eq!(system.version.as_ref(), release.get("VERSION"));
    assert_eq!(system.pretty_name.as_ref(), release.get("PRETTY_NAME"));

    let nproc = Command::new("nproc").env_remove("OMP_NUM_THREADS").output().unwrap();
    assert_eq!(descriptor.host.hardware.cpu_count.to_string(), String::from_utf8(nproc.stdout).unwrap().trim());

    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = meminfo.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(descriptor.host.hardware.memory_bytes, kib * 1024);
}

#[test]
fn a_listening_port_and_a_running_program_are_seen() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // A shell that waits for input, so that ending it leaves no child behind.
    let mut child = Command::new("sh")
        .args(["-c", "read x # --api-token hunter2hunter2 --passw=hunter3hunter3"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let output = survey(&["sh".to_owned()], &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    let descriptor = descriptor_of(&output);
    assert!(descriptor.host.listening_ports.iter().any(|listening| listening.number == port));
    let seen = descriptor.host.software.list.iter().find(|process| process.command.contains("--api-token"));
    assert_eq!(seen.unwrap().command, "sh -c read x # --api-token [redacted] --passw=[redacted]");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter"));
}

#[test]
fn network_storage_is_found() {
    let root = Root::with_network_storage();
    let descriptor = in_all_shells(&root);
    assert_eq!(descriptor.host.identity.hostname, "files-1");
    assert_eq!(descriptor.host.operating_system.id, "debian");
    let packages: Vec<_> =
        descriptor.host.packages.list.iter().map(|package| (package.name.as_str(), package.version.as_str())).collect();
    assert_eq!(packages, [("bash", "5.2.15-2"), ("nfs-common", "1:2.6.2-4")]);
    insta::assert_snapshot!(format!("{:#}", descriptor.facts()["storage"]["network"]));
    let modules: Vec<_> = descriptor.modules.iter().map(|module| module.name.as_str()).collect();
    for module in ["nfs", "cifs", "iscsi", "multipath"] {
        assert!(modules.contains(&module), "{module} is not in {modules:?}");
    }
    assert!(descriptor.thresholds.iter().any(|threshold| threshold.module == "nfs" && threshold.value == "30"));
}

#[test]
fn clusters_and_high_availability_are_found() {
    let root = Root::with_cluster();
    let descriptor = in_all_shells(&root);
    let facts = descriptor.facts();
    insta::assert_snapshot!(format!("{:#}\n{:#}", facts["cluster"], facts["high_availability"]));
    assert!(descriptor.thresholds.iter().any(|threshold| threshold.name == "members_low" && threshold.value == "2"));
    assert!(!descriptor.print().contains("keepalived-secret"));
}

#[test]
fn hostile_content_becomes_valid_xml_and_secrets_go() {
    let root = Root::hostile();
    let descriptor = in_all_shells(&root);
    assert_eq!(descriptor.host.identity.hostname, "?[31mhost]]>?");
    assert_eq!(descriptor.host.operating_system.id, "a&b");
    assert_eq!(descriptor.host.operating_system.pretty_name.as_deref(), Some("<é€𝄞> \" ' ]]> &amp;"));
    assert_eq!(descriptor.host.operating_system.version.as_deref(), Some("bad?? bytes ?("));
    // The link that leads to a file inside the root is followed there; the one that leads out of it is not.
    assert_eq!(descriptor.host.identity.machine_id.as_deref(), Some("inside-the-root"));
    let print = descriptor.print();
    assert!(!print.contains("outside-secret"), "a link out of the root was followed");
    for secret in ["hunter2", "s3cr3t", "t0ken", "two words"] {
        assert!(!print.contains(secret), "{secret} was not redacted");
    }
    let commands: String = descriptor
        .host
        .software
        .list
        .iter()
        .map(|process| format!("{} | {}\n", process.name, process.command))
        .collect();
    insta::assert_snapshot!(commands);
    let numbers: Vec<_> = descriptor.host.listening_ports.iter().map(|port| port.number).collect();
    assert_eq!(numbers, [22, 9100]);
    assert!(descriptor.installation.conflicts.iter().any(|conflict| conflict.subject == "9100"));
    assert!(descriptor.installation.conflicts.iter().any(|conflict| conflict.subject == "zabbix_agentd"));
    assert_eq!(descriptor.host.hardware.memory_bytes, 524_288 * 1024);
    assert_eq!(descriptor.host.hardware.cpu_count, 3);
}

#[test]
fn an_empty_root_gives_a_descriptor() {
    let descriptor = in_all_shells(&Root::empty());
    assert_eq!(descriptor.host.identity.hostname, "unknown");
    assert_eq!(descriptor.host.operating_system.id, "unknown");
    assert!(descriptor.host.packages.list.is_empty());
    assert!(descriptor.host.hardware.memory_bytes > 0, "hardware comes from the machine");
}

#[test]
fn nothing_under_the_root_changes() {
    for root in [Root::with_network_storage(), Root::with_cluster(), Root::hostile()] {
        let before = listing(root.path());
        for shell in shells() {
            survey(&shell, &["--root", root.argument()]);
        }
        assert_eq!(listing(root.path()), before);
    }
}

#[test]
fn a_dropped_signature_reports_too() {
    let text = "signature_coffee() {\n    found machine model 'La <Pavoni>'\n    module coffee useful coffee 'it is there'\n    echo nonsense\n}\n";
    let script = assemble(&[SignatureFile { file_name: "50-coffee.sh".into(), text: text.into() }]).unwrap();
    let file = script_file(&script);
    let root = Root::empty();
    let output = Command::new("sh").arg(file.path()).args(["--root", root.argument()]).output().unwrap();
    let descriptor = descriptor_of(&output);
    assert_eq!(descriptor.facts()["signatures"]["coffee"]["items"][0]["model"], "La <Pavoni>");
    assert!(descriptor.modules.iter().any(|module| module.name == "coffee" && module.signature == "coffee"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the signature coffee wrote 1 lines"));
}

#[test]
fn the_output_file_is_all_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.xml");
    let path = file.to_str().unwrap();
    let root = Root::empty();
    for shell in shells() {
        let output = survey(&shell, &["--root", root.argument(), "-o", path]);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty());
        branchline_protocol::survey::Descriptor::parse(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);

        fs::write(&file, "before").unwrap();
        let output = survey(&shell, &["--root", "/no/such/root", "-o", path]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("name one with --root"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "before");

        let output = survey(&shell, &["-o", "/no/such/directory/host.xml"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write beside"), "{output:?}");
        let output = survey(&shell, &["-o", directory.path().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "an unfinished file was left behind");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let file = script_file(&assemble(&[]).unwrap());
    let root = Root::empty();
    for shell in shells() {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(&shell[0])
            .args(&shell[1..])
            .arg(file.path())
            .args(["--root", root.argument()])
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{shell:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("could not be written"), "{shell:?} {output:?}");
    }
}

#[test]
fn options_are_explained_and_wrong_ones_refused() {
    let script = assemble(&[]).unwrap();
    for shell in shells() {
        let version = survey(&shell, &["--version"]);
        let expected = format!("branchline survey {}, BLAKE3 {}\n", env!("CARGO_PKG_VERSION"), script.hash);
        assert_eq!(String::from_utf8_lossy(&version.stdout), expected);
        assert!(String::from_utf8_lossy(&survey(&shell, &["--help"]).stdout).contains("Usage: sh survey.sh"));
        for wrong in [&["--colour"][..], &["-o"], &["--root", ""], &["extra"]] {
            let output = survey(&shell, wrong);
            assert_eq!(output.status.code(), Some(2), "{shell:?} {wrong:?}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn shellcheck_has_nothing_to_say() {
    let file = script_file(&assemble(&[]).unwrap());
    match Command::new("shellcheck").args(["-s", "sh"]).arg(file.path()).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => required::skip("shellcheck", &format!("it cannot be run ({error})")),
    }
}

/// Surveys a root with every shell and every awk, holds the results against the schema and each other, and gives one of them.
fn in_all_shells(root: &Root) -> branchline_protocol::survey::Descriptor {
    let mut outputs = Vec::new();
    for awk in awks() {
        for shell in shells() {
            let file = script_file(&assemble(&[]).unwrap());
            let output = Command::new(&shell[0])
                .args(&shell[1..])
                .arg(file.path())
                .args(["--root", root.argument()])
                .env("PATH", awk.search_path())
                .output()
                .unwrap();
            descriptor_of(&output);
            outputs.push((format!("{} with {}", shell.join(" "), awk.name), output));
        }
    }
    let (first_name, first) = &outputs[0];
    for (name, output) in &outputs[1..] {
        assert_eq!(
            same_apart_from_time(&output.stdout),
            same_apart_from_time(&first.stdout),
            "{name} and {first_name} differ"
        );
    }
    descriptor_of(first)
}

/// Every path below a root with what a change would show in.
fn listing(root: &Path) -> BTreeMap<String, (u32, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        found.insert(
            path.display().to_string(),
            (metadata.mode(), metadata.len(), metadata.mtime_nsec(), metadata.ctime_nsec()),
        );
        if metadata.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}
