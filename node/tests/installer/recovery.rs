//! `kill -9` at every entry of the journal, and a full disk (R86).
use std::{collections::BTreeMap, path::PathBuf, process::Command};

use branchline::install::{InstallOrder, InstallerOutcome, InstallerRequest, SocketError};

use super::{
    required,
    support::{Site, agent_definition, agent_tar, failure},
};

/// Installs with the process ending hard after 0, 1, 2, ... entries of the journal, each in a site of its own; after each
/// the order comes again to a new process. Gives how many ends there were.
fn end_everywhere(
    definition: impl Fn(&Site) -> String,
    judge: impl Fn(&Site, &BTreeMap<PathBuf, String>, InstallerOutcome),
) -> u32 {
    for entries in 0.. {
        let mut site = Site::new();
        let before = site.tree();
        let order: InstallOrder = site.order(1, &definition(&site), &agent_tar());
        site.start(&["--abort-after-entries", &entries.to_string()]);
        let first = site.try_ask(&InstallerRequest::Install(Box::new(order.clone())));
        let ended = matches!(first, Err(SocketError::Cut | SocketError::Io(_) | SocketError::Connect { .. }));
        site.start(&[]);
        let (_, outcome) = site.install(&order);
        judge(&site, &before, outcome);
        if !ended {
            return entries;
        }
    }
    0
}

#[test]
fn an_installation_is_carried_on_wherever_the_process_ended() {
    let ends = end_everywhere(
        |site| agent_definition(site.port, "", ""),
        |site, before, outcome| {
            assert!(matches!(outcome, InstallerOutcome::Installed(_)), "{outcome:?}");
            let (_, outcome) = site.ask(&InstallerRequest::Uninstall);
            assert_eq!(outcome, InstallerOutcome::Withdrawn { uninstalled: true });
            assert_eq!(site.tree(), *before);
        },
    );
    assert!(ends >= 15, "only {ends} places were tried");
}

#[test]
fn a_rollback_is_finished_wherever_the_process_ended() {
    let steps = "[[steps]]\naction = { run_command = { program = \"/opt/test-agent/bin/missing\" } }\nfinal = true\n";
    let ends = end_everywhere(
        |site| agent_definition(site.port, "", steps),
        |site, before, outcome| {
            failure(&outcome);
            assert_eq!(site.tree(), *before);
        },
    );
    assert!(ends >= 15, "only {ends} places were tried");
}

/// A file system of its own, unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(place: PathBuf, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(&place).unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&place).output().unwrap();
        if !mounted.status.success() {
            required::skip("a full disk", &format!("a small file system cannot be mounted here: {mounted:?}"));
            return None;
        }
        Some(Self(place))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_is_refused_or_rolled_back() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    let Some(_small) = Small::mount(disk.clone(), 16 << 20) else { return };
    let mut site = Site::at(directory, disk.join("root"), disk.join("root/var/lib/branchline-installer"));
    let before = site.tree();
    site.start(&[]);

    // The disk fills up in the middle: everything goes back, although the journal has no room either.
    let fill = "#!/bin/sh\nhead -c 100000000 /dev/zero > \"$BRANCHLINE_ROOT/var/lib/test-agent/fill\" || true\n";
    let empty = "#!/bin/sh\nrm -f \"$BRANCHLINE_ROOT/var/lib/test-agent/fill\"\n";
    let ok = "#!/bin/sh\nexit 0\n";
    let archive = super::support::tar(&[
        ("bin/fill", 0o755, fill),
        ("bin/empty", 0o755, empty),
        ("bin/prepare", 0o755, ok),
        ("bin/unprepare", 0o755, ok),
    ]);
    let steps = "[[steps]]\naction = { run_command = { program = \"/opt/test-agent/bin/fill\" } }\n\
                 undo = { program = \"/opt/test-agent/bin/empty\" }\n";
    let order = site.order(1, &agent_definition(site.port, "", steps), &archive);
    let (events, outcome) = site.install(&order);
    let reason = failure(&outcome);
    assert!(reason.contains("disk is full") || reason.contains("No space left"), "{reason} {events:#?}");
    assert_eq!(site.tree(), before);

    // Too little from the start: nothing is begun.
    std::fs::write(site.root.join("filler"), vec![1; 10 << 20]).unwrap();
    let order = site.order(2, &agent_definition(site.port, "", ""), &agent_tar());
    let (_, outcome) = site.install(&order);
    assert!(failure(&outcome).contains("bytes free, but the plan needs"), "{outcome:?}");
    std::fs::remove_file(site.root.join("filler")).unwrap();
    assert_eq!(site.tree(), before);
    site.kill();
}
