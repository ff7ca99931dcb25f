//! `branchline survey --out FILE` on the machine that runs the tests: the file agrees with what the system itself says,
//! and where it cannot be written the command fails and says why (R40, R43-R47).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use branchline_protocol::survey::Descriptor;
use branchline_tests::binary;

/// A user without privileges: `nobody` of Debian.
const NOBODY: u32 = 65_534;

fn survey(out: &Path) -> Output {
    Command::new(binary::branchline().unwrap()).args(["survey", "--out"]).arg(out).output().unwrap()
}

/// What a command of the system prints.
fn said(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).env_remove("OMP_NUM_THREADS").output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_file_agrees_with_the_machine() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("host.xml");
    let output = survey(&out);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "the result goes to the file alone");
    let descriptor = Descriptor::parse(&std::fs::read(&out).unwrap()).unwrap();

    let text = std::fs::read_to_string("/etc/os-release").unwrap();
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let release: BTreeMap<&str, &str> = lines.map(|(key, value)| (key, value.trim_matches(['"', '\'']))).collect();
    let system = &descriptor.host.operating_system;
    assert_eq!(Some(system.id.as_str()), release.get("ID").copied());
    assert_eq!(system.version_id.as_deref(), release.get("VERSION_ID").copied());
    assert_eq!(system.pretty_name.as_deref(), release.get("PRETTY_NAME").copied());
    assert_eq!(system.kernel, said(&["uname", "-r"]));

    let hardware = &descriptor.host.hardware;
    assert_eq!(hardware.cpu_count.to_string(), said(&["nproc"]));
    assert_eq!(hardware.machine, said(&["uname", "-m"]));
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let kibibytes: u64 = total.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert_eq!(hardware.memory_bytes, kibibytes * 1024);
    assert_eq!(descriptor.host.identity.hostname, said(&["uname", "-n"]));

    // The command reads its own file back, and finds nothing in it that the machine has not.
    let validated =
        Command::new(binary::branchline().unwrap()).args(["survey", "--validate"]).arg(&out).output().unwrap();
    assert!(validated.status.success(), "{validated:?}");
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept.xml");
    std::fs::write(&kept, "an earlier survey\n").unwrap();
    let closed = directory.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let cases = [
        (directory.path().join("missing/host.xml"), "No such file or directory"),
        (kept.join("host.xml"), "Not a directory"),
        (directory.path().to_owned(), "it is a directory"),
        ("/proc/self/host.xml".into(), "cannot write /proc/self/host.xml"),
    ];
    for (out, words) in cases {
        let output = survey(&out);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{}: {errors}", out.display());
        assert!(errors.starts_with("error: ") && errors.contains(&out.display().to_string()), "{errors}");
        assert!(errors.contains(words) && output.stdout.is_empty(), "{errors}");
    }
    // Root may write everywhere, so that the command is given as somebody else.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    let program = directory.path().join("branchline");
    assert!(Command::new("cp").arg(binary::branchline().unwrap()).arg(&program).status().unwrap().success());
    let mut command = Command::new(&program);
    command.args(["survey", "--out"]).arg(closed.join("host.xml"));
    if std::fs::metadata(&closed).unwrap().uid() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("closed/host.xml") && errors.contains("Permission denied"), "{errors}");

    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "an earlier survey\n");
    assert_eq!(std::fs::read_dir(&closed).unwrap().count(), 0);
    let names =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names.len(), 3, "something unfinished lies there: {names:?}");
}
