//! An update over an installed plan, an update that fails, and what is left when all of it goes (R86, R97, R98).
use std::{
    fs,
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use branchline::install::{InstallerOutcome, InstallerRequest};

use super::{
    payloads::{TINY, deb, get},
    support::{Site, agent_definition, agent_tar, failure, tar},
};

/// The process of the only service.
fn process(site: &Site) -> u32 {
    match site.ask(&InstallerRequest::Status).1 {
        InstallerOutcome::Status(status) => match &status.services[..] {
            [service] => service.process.expect("it runs"),
            other => panic!("one service, not {other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Waits until the agent, which has just been started, answers.
fn answers(site: &Site) {
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", site.port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "the agent does not answer");
        thread::sleep(Duration::from_millis(20));
    }
}

fn uninstalled(site: &Site) {
    let (events, outcome) = site.ask(&InstallerRequest::Uninstall);
    assert_eq!(outcome, InstallerOutcome::Withdrawn { uninstalled: true }, "{events:#?}");
}

/// An agent whose archive says which version it is.
fn versioned(version: &str) -> Vec<u8> {
    let agent = format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_branchline"));
    tar(&[
        ("README", 0o644, version),
        ("bin/agent", 0o755, &agent),
        (&format!("only-in-{version}"), 0o644, version),
        ("bin/prepare", 0o755, "#!/bin/sh\necho x > \"$BRANCHLINE_ROOT/var/lib/test-agent/prepared\"\n"),
        ("bin/unprepare", 0o755, "#!/bin/sh\nrm -f \"$BRANCHLINE_ROOT/var/lib/test-agent/prepared\"\n"),
    ])
}

#[test]
fn an_agent_is_updated_and_one_that_fails_leaves_the_version_before_it_running() {
    let mut site = Site::new();
    let before = site.tree();
    site.start(&[]);
    let definition = |version: &str, more: &str, modules: &str| {
        agent_definition(site.port, more, "")
            .replace("version = \"1.0\"", &format!("version = \"{version}\""))
            .replace("[\"cpu\", \"memory\"]", modules)
            .replace("timeout_seconds = 20", "timeout_seconds = 6")
    };
    let first = site.order(1, &definition("1.0", "", "[\"cpu\"]"), &versioned("1.0"));
    let (events, outcome) = site.install(&first);
    assert!(matches!(outcome, InstallerOutcome::Installed(_)), "{events:#?}");
    let old_process = process(&site);
    let mut with_first = site.tree();
    with_first.remove(Path::new("/var/lib/test-agent/prepared")).expect("the first version's program has run");

    let second = site.order(2, &definition("2.0", "", "[\"cpu\", \"disk\"]"), &versioned("2.0"));
    let (events, outcome) = site.install(&second);
    assert!(matches!(outcome, InstallerOutcome::Installed(_)), "{events:#?}");
    let new_process = process(&site);
    assert_ne!(old_process, new_process, "the new version runs");
    assert!(get(site.port, "/metrics").contains("sample_agent_module{module=\"disk\"} 1"));
    let readme = |site: &Site| fs::read_to_string(site.root.join("opt/test-agent/README")).unwrap();
    assert_eq!(readme(&site), "2.0");
    let only_in = |site: &Site, version: &str| site.root.join(format!("opt/test-agent/only-in-{version}")).exists();
    assert!(only_in(&site, "2.0") && !only_in(&site, "1.0"), "what the new archive has not is gone");
    let mut updated = site.tree();
    // What a step's program made, only the program knows that the definition names for its undo: this one removes the file,
    // whichever version made it.
    updated.remove(Path::new("/var/lib/test-agent/prepared")).expect("the second version's program has run");

    let third = definition("3.0", "fail = \"health\"", "[\"cpu\", \"memory\"]");
    let (events, outcome) = site.install(&site.order(3, &third, &versioned("3.0")));
    assert!(failure(&outcome).contains("503"), "{outcome:?} {events:#?}");
    assert_eq!(site.tree(), updated, "everything is as the second version left it");
    process(&site);
    assert!(
        get(site.port, "/metrics").contains("sample_agent_module{module=\"disk\"} 1"),
        "the second version answers"
    );
    let InstallerOutcome::Checked { checks } = site.ask(&InstallerRequest::Verify { plan: second.plan }).1 else {
        panic!("no check")
    };
    assert!(checks.iter().all(|(_, fault)| fault.is_none()), "{checks:?}");

    // The second version is taken back (R95): the first runs, with its own configuration. Asked again, the answer is the same.
    for _ in 0..2 {
        let (events, outcome) = site.ask(&InstallerRequest::Revert { plan: second.plan });
        let InstallerOutcome::Reverted { installed: Some(installed), rolled_back: true } = outcome else {
            panic!("{outcome:?} {events:#?}")
        };
        assert_eq!(installed.plan, first.plan);
        assert_eq!(site.tree(), with_first);
        process(&site);
        answers(&site);
        assert!(get(site.port, "/metrics").contains("sample_agent_module{module=\"disk\"} 0"), "the first one answers");
    }

    uninstalled(&site);
    assert!(TcpStream::connect(("127.0.0.1", site.port)).is_err());
    assert_eq!(site.tree(), before);
}

#[test]
fn a_package_is_updated_and_one_that_fails_brings_the_version_before_it_back() {
    let mut site = Site::new();
    let Some(first) = deb(site.directory.path(), "1", "", "echo one") else { return };
    let second = deb(site.directory.path(), "2", "", "echo two").unwrap();
    let broken = deb(site.directory.path(), "3", "", "echo no licence found >&2\nexit 7").unwrap();
    let before = site.tree();
    site.start(&[]);
    let order = |site: &Site, version: u64, payload: &[u8]| {
        let definition = TINY.replace("version = \"1\"", &format!("version = \"{version}\""));
        site.order(version, &definition, payload)
    };
    let program = |site: &Site| fs::read_to_string(site.root.join("usr/bin/tiny")).unwrap();
    for (version, payload) in [(1, &first), (2, &second)] {
        let (events, outcome) = site.install(&order(&site, version, payload));
        assert!(matches!(outcome, InstallerOutcome::Installed(_)), "{outcome:?} {events:#?}");
        assert!(program(&site).contains(&format!("tiny {version}")));
    }
    let updated = site.tree();
    let (events, outcome) = site.install(&order(&site, 3, &broken));
    failure(&outcome);
    assert!(program(&site).contains("tiny 2"), "{events:#?}");
    let found = site.tree();
    let of_dpkg = |path: &&std::path::PathBuf| !path.starts_with("/var/lib/dpkg");
    for path in updated.keys().chain(found.keys()).filter(of_dpkg) {
        assert_eq!(found.get(path), updated.get(path), "{}", path.display());
    }
    let status = fs::read_to_string(site.root.join("var/lib/dpkg/status")).unwrap();
    assert!(status.contains("Status: install ok installed\n") && status.contains("Version: 2\n"), "{status}");

    uninstalled(&site);
    assert_eq!(site.tree(), before);
}

/// R86, R97: an update that fails is taken back. A `kill -9` among the last entries of that leaves the version before it
/// running with its own configuration all the same: its service is started anew once its files are back.
#[test]
fn the_version_before_a_failed_update_runs_wherever_its_rollback_ended() {
    let first = |site: &Site| agent_definition(site.port, "", "").replace("[\"cpu\", \"memory\"]", "[\"disk\"]");
    let second = |site: &Site| {
        let definition = agent_definition(site.port, "fail = \"health\"", "").replace("\"1.0\"", "\"2.0\"");
        definition.replace("timeout_seconds = 20", "timeout_seconds = 1")
    };
    let entries = |site: &Site| fs::read_to_string(site.state.join("journal.jsonl")).unwrap().lines().count();
    let mut last = 0;
    for spared in [0, 1, 2, 3, 5, 8] {
        let mut site = Site::new();
        site.start(&[]);
        let (events, outcome) = site.install(&site.order(1, &first(&site), &agent_tar()));
        assert!(matches!(outcome, InstallerOutcome::Installed(_)), "{events:#?}");
        let (mut with_first, entries_before) = (site.tree(), entries(&site));
        with_first.remove(Path::new("/var/lib/test-agent/prepared")).expect("the first version's program has run");
        let order = site.order(2, &second(&site), &agent_tar());
        if spared == 0 {
            failure(&site.install(&order).1);
            last = entries(&site) - entries_before;
        } else {
            site.start(&["--abort-after-entries", &(last - spared).to_string()]);
            let cut = site.try_ask(&InstallerRequest::Install(Box::new(order)));
            assert!(cut.is_err(), "it ended {spared} entries before the end: {cut:?}");
            site.start(&[]);
        }
        assert_eq!(site.tree(), with_first, "{spared} entries before the end");
        process(&site);
        answers(&site);
        let said = get(site.port, "/metrics");
        assert!(said.contains("sample_agent_module{module=\"disk\"} 1"), "{spared} entries before the end: {said}");
        assert!(get(site.port, "/health").contains("ok"), "{spared} entries before the end");
    }
}
