//! What a newer plan leaves out goes, and comes back where that plan fails (R86, R97).
use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
};

use branchline::install::{InstallOrder, InstallerOutcome, InstallerRequest};

use super::{
    payloads::{TINY, deb, deb_of, get},
    support::{Site, agent_definition, agent_tar, failure, node, output, tar},
};

/// A second agent beside the first: other places, another port, its own programs.
fn second_agent(port: u16) -> String {
    agent_definition(port, "", "").replace("test-agent", "next-agent").replace("/etc/existing.conf", "/etc/next.conf")
}

/// Its archive: the two names are of one length, and no member's name has them, so that the headers' sums still hold.
fn second_tar() -> Vec<u8> {
    String::from_utf8(agent_tar()).unwrap().replace("/test-agent", "/next-agent").into_bytes()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn installed(site: &Site, order: &InstallOrder) -> String {
    let (events, outcome) = site.install(order);
    assert!(matches!(outcome, InstallerOutcome::Installed(_)), "{outcome:?} {events:#?}");
    format!("{events:?}")
}

fn services(site: &Site) -> Vec<(String, u32)> {
    match site.ask(&InstallerRequest::Status).1 {
        InstallerOutcome::Status(status) => {
            status.services.into_iter().map(|service| (service.name, service.process.expect("it runs"))).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// What a step's program made, only the program knows that the definition names for its undo: the one of an update that
/// failed removes the file, whichever version made it.
fn without_prepared(mut tree: BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    tree.remove(Path::new("/var/lib/test-agent/prepared")).expect("the first agent's program has run");
    tree
}

fn uninstalled(site: &Site) {
    let (events, outcome) = site.ask(&InstallerRequest::Uninstall);
    assert_eq!(outcome, InstallerOutcome::Withdrawn { uninstalled: true }, "{events:#?}");
}

#[test]
fn an_agent_that_the_plan_leaves_out_goes_and_comes_back_where_the_plan_fails() {
    let mut site = Site::new();
    let before = site.tree();
    site.start(&[]);
    let second_port = free_port();
    let (first, second) = (agent_definition(site.port, "", ""), second_agent(second_port));
    let both = site.order_of(node(7), 1, &[(&first, &agent_tar()), (&second, &second_tar())]);
    installed(&site, &both);
    let with_both = site.tree();
    let without_prepared = without_prepared(with_both.clone());
    let running = services(&site);
    assert_eq!(running.len(), 2, "{running:?}");
    assert!(site.root.join("var/lib/next-agent/prepared").exists());

    // The first agent's new version fails: the second one, which that plan leaves out, runs again as before.
    let third = agent_definition(site.port, "fail = \"health\"", "").replace("\"1.0\"", "\"2.0\"");
    let fails =
        site.order_of(node(7), 2, &[(&third.replace("timeout_seconds = 20", "timeout_seconds = 4"), &agent_tar())]);
    let (events, outcome) = site.install(&fails);
    assert!(failure(&outcome).contains("503"), "{outcome:?} {events:#?}");
    assert!(format!("{events:?}").contains("Remove next-agent 1.0, which the plan leaves out"), "{events:#?}");
    assert!(output(&events).contains("preparing"), "its program ran again: {events:#?}");
    assert_eq!(site.tree(), without_prepared, "{events:#?}");
    assert_eq!(services(&site).len(), 2);
    assert!(get(second_port, "/health").contains("ok"));
    assert!(get(site.port, "/health").contains("ok"));
    let InstallerOutcome::Checked { checks } = site.ask(&InstallerRequest::Verify { plan: both.plan }).1 else {
        panic!("no check")
    };
    assert!(checks.iter().all(|(_, fault)| fault.is_none()), "{checks:?}");

    // A plan without the second agent leaves the first one alone.
    let first_process = services(&site).into_iter().find(|(name, _)| name == "test-agent");
    let alone = site.order_of(node(7), 3, &[(&first, &agent_tar())]);
    let events = installed(&site, &alone);
    assert_eq!(services(&site), Vec::from_iter(first_process), "{events}");
    assert!(TcpStream::connect(("127.0.0.1", second_port)).is_err());
    let left: Vec<_> = site.tree().into_keys().filter(|path| path.to_string_lossy().contains("next")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(get(site.port, "/health").lines().last(), Some("ok"));

    // It comes again, and everything goes.
    installed(&site, &site.order_of(node(7), 4, &[(&first, &agent_tar()), (&second, &second_tar())]));
    assert_eq!(site.tree(), without_prepared);
    assert_eq!(services(&site).len(), 2);
    uninstalled(&site);
    assert!(TcpStream::connect(("127.0.0.1", second_port)).is_err());
    assert_eq!(site.tree(), before);
}

#[test]
fn a_package_that_the_plan_leaves_out_goes_and_comes_again() {
    let mut site = Site::new();
    let Some(payload) = deb(
        site.directory.path(),
        "1",
        "",
        "mkdir -p \"$DPKG_ROOT/var/lib/tiny\"\necho kept > \"$DPKG_ROOT/var/lib/tiny/data\"",
    ) else {
        return;
    };
    let before = site.tree();
    site.start(&[]);
    let first = agent_definition(site.port, "", "");
    let both = |site: &Site, version| site.order_of(node(7), version, &[(&first, &agent_tar()), (TINY, &payload)]);
    installed(&site, &both(&site, 1));
    let with_both = without_prepared(site.tree());
    let program = site.root.join("usr/bin/tiny");
    let status = |site: &Site| fs::read_to_string(site.root.join("var/lib/dpkg/status")).unwrap();

    let fails =
        agent_definition(site.port, "fail = \"health\"", "").replace("timeout_seconds = 20", "timeout_seconds = 4");
    let (events, outcome) = site.install(&site.order_of(node(7), 2, &[(&fails, &agent_tar())]));
    assert!(failure(&outcome).contains("503"), "{outcome:?} {events:#?}");
    assert!(program.exists() && status(&site).contains("install ok installed"), "{events:#?}");
    let (found, of_dpkg) = (site.tree(), Path::new("/var/lib/dpkg"));
    for path in with_both.keys().chain(found.keys()).filter(|path| !path.starts_with(of_dpkg)) {
        assert_eq!(found.get(path), with_both.get(path), "{}", path.display());
    }

    let events = installed(&site, &site.order_of(node(7), 3, &[(&first, &agent_tar())]));
    assert!(!program.exists(), "{events}");
    assert!(status(&site).contains("deinstall ok config-files"), "{}", status(&site));
    assert!(site.root.join("var/lib/tiny/data").exists(), "data stays until everything is uninstalled");

    installed(&site, &both(&site, 4));
    assert!(program.exists() && status(&site).contains("install ok installed"));
    installed(&site, &site.order_of(node(7), 5, &[(&first, &agent_tar())]));
    assert!(!program.exists() && status(&site).contains("deinstall ok config-files"));
    uninstalled(&site);
    assert_eq!(site.tree(), before);
}

/// Packages are installed in the order of their names, so that what others need comes first; they go the other way round. One
/// that a package needs which is not ours stays.
#[test]
fn packages_that_need_each_other_are_left_out_together() {
    let mut site = Site::new();
    let directory = site.directory.path().to_owned();
    let Some(lib) = deb_of(&directory, "alib", "1", "", "true") else { return };
    let needy = deb(&directory, "1", "Depends: alib\n", "true").unwrap();
    let before = site.tree();
    site.start(&[]);
    let first = agent_definition(site.port, "", "");
    let (of_lib, agent) = (TINY.replace("tiny", "alib"), agent_tar());
    let order = |site: &Site, version, packages: &[(&str, &[u8])]| {
        site.order_of(node(7), version, &[&[(first.as_str(), agent.as_slice())], packages].concat())
    };
    let there = |site: &Site| ["alib", "tiny"].map(|name| site.root.join("usr/bin").join(name).exists());
    installed(&site, &order(&site, 1, &[(&of_lib, &lib), (TINY, &needy)]));
    assert_eq!(there(&site), [true, true]);
    let events = installed(&site, &order(&site, 2, &[]));
    assert_eq!(there(&site), [false, false], "{events}");
    installed(&site, &order(&site, 3, &[(&of_lib, &lib), (TINY, &needy)]));

    let events = installed(&site, &order(&site, 4, &[(TINY, &needy)]));
    assert_eq!(there(&site), [true, true], "{events}");
    assert!(events.contains("dpkg does not remove alib, so it stays"), "{events}");
    uninstalled(&site);
    assert_eq!(site.tree(), before);
}

/// A file that moves from one archive to another, and what the plan's own steps make, is nobody's leftover.
#[test]
fn what_another_package_or_a_step_has_put_there_is_no_leftover() {
    let mut site = Site::new();
    let before = site.tree();
    site.start(&[]);
    let members = |names: &[&str]| {
        let all: Vec<(&str, u32, &str)> = names.iter().map(|name| (*name, 0o644, *name)).collect();
        tar(&all)
    };
    let definition = |name: &str, version: &str, more: &str| {
        format!(
            "name = \"{name}\"\nversion = \"{version}\"\narchitectures = [\"all\"]\nformat = \"tar\"\nselect = \"true\"\n\
             {more}[[steps]]\naction = {{ unpack = {{ prefix = \"/opt/shared\" }} }}\n"
        )
    };
    let step =
        "[[steps]]\naction = { write_file = { path = \"/opt/shared/made\", mode = 0o644, content = \"by a step\" } }\n";
    let order = |site: &Site, version: u64, more: &str, plugins: &[&str], agent: &[&str]| {
        let (number, plain) = (format!("{version}.0"), "");
        let (one, two) = (definition("a-plugins", &number, plain), definition("z-agent", &number, more));
        site.order_of(node(7), version, &[(&one, &members(plugins)), (&two, &members(agent))])
    };
    let names = |site: &Site| {
        let mut names: Vec<String> = fs::read_dir(site.root.join("opt/shared"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    installed(&site, &order(&site, 1, "", &["one"], &["moved", "made", "gone", "kept"]));
    assert_eq!(names(&site), ["gone", "kept", "made", "moved", "one"]);
    installed(&site, &order(&site, 2, step, &["one", "moved"], &["kept"]));
    assert_eq!(names(&site), ["kept", "made", "moved", "one"]);
    assert_eq!(fs::read_to_string(site.root.join("opt/shared/made")).unwrap(), "by a step");
    uninstalled(&site);
    assert_eq!(site.tree(), before);
}
