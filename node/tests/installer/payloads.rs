//! Tar and .deb payloads: installed, checked, failed and taken back, byte for byte.
use std::{
    fs,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use branchline::install::{InstallerOutcome, InstallerRequest};
use branchline_protocol::{catalogue::PayloadFormat, report::EventBody};

use super::{
    required,
    support::{Site, agent_definition, agent_tar, failure, output},
};

/// What an agent answers. One that was just started, as after a rollback, is given time to listen.
pub fn get(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let connect = || std::net::TcpStream::connect(("127.0.0.1", port));
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut stream = loop {
        match connect() {
            Ok(stream) => break stream,
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(50)),
            Err(error) => panic!("port {port}: {error}"),
        }
    };
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_tar_payload_from_order_to_uninstallation() {
    let mut site = Site::new();
    let before = site.tree();
    site.start(&[]);
    let order = site.order(1, &agent_definition(site.port, "", ""), &agent_tar());
    let (events, outcome) = site.install(&order);
    assert!(matches!(outcome, InstallerOutcome::Installed(_)), "{outcome:?} {events:?}");
    assert!(output(&events).contains("preparing"), "{events:?}");
    assert!(matches!(events.last(), Some(EventBody::Installed { .. })));
    assert!(get(site.port, "/metrics").contains("sample_agent_module{module=\"memory\"} 1"));
    assert!(get(site.port, "/metrics").contains("sample_agent_module{module=\"disk\"} 0"));
    assert_eq!(fs::read_to_string(site.root.join("etc/existing.conf")).unwrap(), "as the agent needs it\n");
    assert!(fs::read_to_string(site.root.join("etc/passwd")).unwrap().contains("test-agent:x:999:"));

    // Ordered again, it is answered at once, and nothing is done twice.
    assert_eq!(site.install(&order), (events, outcome));

    // A restart of the installer finds the agent again, and does not start a second one.
    let process = |site: &Site| match site.ask(&InstallerRequest::Status).1 {
        InstallerOutcome::Status(status) => status.services[0].process,
        other => panic!("{other:?}"),
    };
    let first = process(&site);
    assert!(first.is_some());
    site.start(&[]);
    assert_eq!(process(&site), first);

    let verify = InstallerRequest::Verify { plan: order.plan };
    let InstallerOutcome::Checked { checks } = site.ask(&verify).1 else { panic!("no check") };
    assert!(checks.len() >= 4 && checks.iter().all(|(_, fault)| fault.is_none()), "{checks:?}");
    fs::write(site.root.join("etc/test-agent/agent.toml"), "listen = \"127.0.0.1:1\"\n").unwrap();
    fs::write(site.root.join("opt/test-agent/bin/prepare"), "changed").unwrap();
    let InstallerOutcome::Checked { checks } = site.ask(&verify).1 else { panic!("no check") };
    let faults: Vec<_> = checks.iter().filter_map(|(title, fault)| Some((title, fault.as_ref()?))).collect();
    assert_eq!(faults.len(), 2, "{faults:?}");

    assert_eq!(site.ask(&InstallerRequest::Stop).1, InstallerOutcome::Withdrawn { uninstalled: false });
    assert!(std::net::TcpStream::connect(("127.0.0.1", site.port)).is_err());
    let (_, outcome) = site.ask(&InstallerRequest::Uninstall);
    assert_eq!(outcome, InstallerOutcome::Withdrawn { uninstalled: true });
    assert_eq!(site.tree(), before);
}

#[test]
fn an_agent_that_does_not_start_is_rolled_back_with_its_log() {
    let mut site = Site::new();
    let before = site.tree();
    site.start(&[]);
    for (version, fail, said) in [(1, "start", "fail = \"start\""), (2, "health", "503")] {
        let more = format!("fail = \"{fail}\"");
        let definition = agent_definition(site.port, &more, "").replace("timeout_seconds = 20", "timeout_seconds = 4");
        let (events, outcome) = site.install(&site.order(version, &definition, &agent_tar()));
        assert!(failure(&outcome).contains(said), "{outcome:?}");
        assert!(matches!(events.last(), Some(EventBody::InstallFailed { rolled_back: true, .. })));
        assert_eq!(site.tree(), before, "{fail}");
        assert!(std::net::TcpStream::connect(("127.0.0.1", site.port)).is_err());
    }
}

#[test]
fn a_failing_step_is_rolled_back() {
    let mut site = Site::new();
    let before = site.tree();
    site.start(&[]);
    let steps = "[[steps]]\naction = { run_command = { program = \"/opt/test-agent/bin/missing\" } }\nfinal = true\n";
    let (_, outcome) = site.install(&site.order(1, &agent_definition(site.port, "", steps), &agent_tar()));
    assert!(failure(&outcome).contains("bin/missing could not be started"), "{outcome:?}");
    assert_eq!(site.tree(), before);
}

/// Builds a tiny Debian package in the form in which it travels: with its members decompressed. `None` where the tools
/// or the rights are missing.
pub fn deb(directory: &Path, version: &str, control: &str, postinst: &str) -> Option<Vec<u8>> {
    deb_of(directory, "tiny", version, control, postinst)
}

/// The same under another name.
pub fn deb_of(directory: &Path, name: &str, version: &str, control: &str, postinst: &str) -> Option<Vec<u8>> {
    if !rustix::process::geteuid().is_root() || Command::new("dpkg-deb").arg("--version").output().is_err() {
        required::skip("real packages", "they need root and dpkg-deb");
        return None;
    }
    let tree = directory.join(format!("{name}-{version}"));
    for part in ["DEBIAN", "usr/bin", "etc", "srv/tiny/data"] {
        fs::create_dir_all(tree.join(part)).unwrap();
    }
    let text = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Test <test@example.invalid>\n{control}\
         Description: tiny\n"
    );
    fs::write(tree.join("DEBIAN/control"), text).unwrap();
    fs::write(tree.join("DEBIAN/conffiles"), format!("/etc/{name}.conf\n")).unwrap();
    fs::write(tree.join("DEBIAN/postinst"), format!("#!/bin/sh\nset -e\n{postinst}\n")).unwrap();
    fs::write(tree.join(format!("etc/{name}.conf")), "delivered\n").unwrap();
    let program = format!("usr/bin/{name}");
    fs::write(tree.join(&program), format!("#!/bin/sh\necho {name} {version}\n")).unwrap();
    for program in ["DEBIAN/postinst", &program] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(tree.join(program), mode).unwrap();
    }
    let file = directory.join(format!("{name}-{version}.deb"));
    let built = Command::new("dpkg-deb").args(["-Zxz", "--root-owner-group", "-b"]).arg(&tree).arg(&file).output();
    let built = built.unwrap();
    assert!(built.status.success(), "{built:?}");
    let mut form = branchline::catalogue::normalise(PayloadFormat::Deb, &file).unwrap();
    let mut raw = Vec::new();
    std::io::Seek::rewind(&mut form.raw).unwrap();
    std::io::Read::read_to_end(&mut form.raw, &mut raw).unwrap();
    assert!(form.original.length < form.length, "dpkg installs the normal form, not the file that was built");
    Some(raw)
}

pub const TINY: &str = r#"
name = "tiny"
version = "1"
architectures = ["all"]
format = "deb"
select = "true"

[[files]]
path = "/etc/tiny.conf"
mode = 0o644
content = """
from the survey
"""
"#;

/// What a maintainer script does beside its package: a file, a change, a user.
const MESS: &str = r#"
echo "configuring $1"
mkdir -p "$DPKG_ROOT/etc/tiny.d" "$DPKG_ROOT/var/lib/tiny"
echo made > "$DPKG_ROOT/etc/tiny.d/made"
echo changed >> "$DPKG_ROOT/etc/existing.conf"
echo 'tiny:x:998:998::/:/bin/false' >> "$DPKG_ROOT/etc/passwd"
ln -sf tiny "$DPKG_ROOT/usr/bin/tiny-link" || true
rm "$DPKG_ROOT/usr/bin/tiny-link"
"#;

/// What dpkg takes away with a package that has the same directories: they are empty, and no package owns them.
fn bare_directories(site: &Site) {
    let inner = site.root.join("srv/tiny");
    fs::create_dir_all(&inner).unwrap();
    fs::set_permissions(&inner, std::os::unix::fs::PermissionsExt::from_mode(0o710)).unwrap();
}

#[test]
fn a_package_from_order_to_uninstallation() {
    let mut site = Site::new();
    let Some(payload) = deb(site.directory.path(), "1", "", MESS) else { return };
    bare_directories(&site);
    let before = site.tree();
    site.start(&[]);
    let order = site.order(1, TINY, &payload);
    let (events, outcome) = site.install(&order);
    assert!(matches!(outcome, InstallerOutcome::Installed(_)), "{outcome:?} {events:#?}");
    assert!(output(&events).contains("Setting up tiny (1)"), "{events:?}");
    assert!(output(&events).contains("configuring configure"), "{events:?}");
    assert_eq!(fs::read_to_string(site.root.join("etc/tiny.conf")).unwrap(), "from the survey\n");
    assert!(!site.root.join("usr/sbin/policy-rc.d").exists());
    let InstallerOutcome::Checked { checks } = site.ask(&InstallerRequest::Verify { plan: order.plan }).1 else {
        panic!("no check")
    };
    assert!(checks.iter().all(|(_, fault)| fault.is_none()), "{checks:?}");
    // What others write meanwhile stays.
    fs::write(site.root.join("etc/other.conf"), "somebody else's\n").unwrap();
    let mut passwd = fs::read_to_string(site.root.join("etc/passwd")).unwrap();
    passwd.push_str("other:x:1000:1000::/:/bin/sh\n");
    fs::write(site.root.join("etc/passwd"), passwd).unwrap();

    let (events, outcome) = site.ask(&InstallerRequest::Uninstall);
    assert_eq!(outcome, InstallerOutcome::Withdrawn { uninstalled: true }, "{events:?}");
    assert!(fs::read_to_string(site.root.join("etc/passwd")).unwrap().ends_with("other:x:1000:1000::/:/bin/sh\n"));
    fs::remove_file(site.root.join("etc/other.conf")).unwrap();
    fs::write(site.root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
    assert_eq!(site.tree(), before);
}

#[test]
fn packages_that_fail_to_install_are_rolled_back() {
    let mut site = Site::new();
    let broken = format!("{MESS}\necho no licence found >&2\nexit 7");
    let Some(failing) = deb(site.directory.path(), "2", "", &broken) else { return };
    let missing = deb(site.directory.path(), "3", "Depends: not-there (>= 1)\n", MESS).unwrap();
    bare_directories(&site);
    let before = site.tree();
    site.start(&[]);
    for (version, payload, said) in [(1, failing, "no licence found"), (2, missing, "not-there")] {
        let (events, outcome) = site.install(&site.order(version, TINY, &payload));
        failure(&outcome);
        assert!(output(&events).contains(said), "{events:#?}");
        assert_eq!(site.tree(), before, "{said}");
    }
}
