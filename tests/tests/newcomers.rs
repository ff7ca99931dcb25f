//! Machines that join and cannot go on: a host that conflicts with a package is stopped before any download (R61), and a
//! member that sends in what is no survey gets nowhere, while others are served.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, bail, ensure};
use branchline_protocol::catalogue::{Catalogue, ConflictKind, ConflictRule, Package};
use branchline_protocol::charter::Sealed;
use branchline_protocol::ids::{SessionId, SurveyHash};
use branchline_protocol::limits::{DESCRIPTOR_BYTES_MAX, SEALED_SURVEY_BYTES_MAX};
use branchline_protocol::session::{HostReport, HostState, Order, WaitReason};
use branchline_protocol::wire::codec;
use branchline_protocol::wire::control::{ControlAnswer, ControlRequest};
use branchline_tests::attacker::{Attacker, identity};
use branchline_tests::kept_demo::KeptDemo;
use branchline_tests::newcomer::home_of;
use ed25519_dalek::SigningKey;
use serde_json::Value;

/// A machine, what is on it, and what the refusal must name: the package's text, the rule and the fact.
struct Conflict {
    name: &'static str,
    files: Vec<(&'static str, String)>,
    words: [&'static str; 3],
}

fn conflicts() -> Vec<Conflict> {
    let legacy = "Package: sample-agent-legacy\nStatus: install ok installed\nVersion: 0.9\n";
    let listening = "  sl  local_address rem_address   st\n   0: 00000000:2391 00000000:0000 0A 0 0 0\n";
    let conflict = |name, files: &[(&'static str, &str)], words| Conflict {
        name,
        files: files.iter().map(|(path, text)| (*path, (*text).to_owned())).collect(),
        words,
    };
    let process = [
        ("proc/4242/comm", "old-monitor\n"),
        ("proc/4242/cmdline", "/usr/sbin/old-monitor\0--daemon\0"),
        ("proc/4242/stat", "4242 (old-monitor) S 1 4242 4242 0\n"),
    ];
    vec![
        // What the demo's own package declares, in so many words and by its port.
        conflict(
            "till-package",
            &[("var/lib/dpkg/status", legacy)],
            ["remove the old one first", "rule: package sample-agent-legacy", "packages has \"sample-agent-legacy\""],
        ),
        conflict(
            "till-port",
            &[("proc/net/tcp", listening)],
            ["something listens on TCP port 9105", "rule: port 9105", "ports.listening has 9105"],
        ),
        // What further packages of a newer catalogue declare.
        conflict(
            "till-software",
            &process,
            ["stop the old monitor", "rule: software old-monitor", "software has \"old-monitor\""],
        ),
        conflict("till-disk", &[], ["it needs a larger disk", "bytes free at /opt", "bytes are free on /"]),
        conflict(
            "till-system",
            &[("etc/os-release", "ID=debian\nVERSION_ID=\"9\"\n")],
            ["not on this version", "rule: operating system debian 12", "os.version_id = \"9\""],
        ),
    ]
}

/// A package for one host that has nothing but a conflict.
fn with_conflict(like: &Package, host: &str, with: ConflictKind, text: &str) -> Package {
    let mut package = like.clone();
    let definition = &mut package.definition;
    definition.name = format!("for-{host}");
    definition.select = format!("host.hostname == '{host}'").as_str().try_into().unwrap();
    definition.conflicts = vec![ConflictRule { with, text: text.to_owned() }];
    (definition.modules, definition.thresholds, definition.files) = (Vec::new(), Vec::new(), Vec::new());
    (definition.ports, definition.service, definition.health) = (Vec::new(), None, None);
    package
}

fn further_packages(catalogue: &mut Catalogue) {
    let agent = catalogue.packages.iter().find(|package| package.definition.name == "sample-agent").unwrap().clone();
    let system = ConflictKind::OperatingSystemOtherThan { id: "debian".to_owned(), versions: vec!["12".to_owned()] };
    let space = ConflictKind::DiskSpace { path: "/opt".to_owned(), bytes: 1 << 60 };
    let software = ConflictKind::Software("old-monitor".to_owned());
    catalogue.packages.extend([
        with_conflict(&agent, "till-software", software, "stop the old monitor"),
        with_conflict(&agent, "till-disk", space, "it needs a larger disk"),
        with_conflict(&agent, "till-system", system, "it is not on this version that it runs"),
    ]);
}

fn session(demo: &KeptDemo, host: &str) -> Result<Value> {
    demo.json("station", &["sessions", "show", host])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_newcomers_that_cannot_go_on_are_told_why_and_others_are_served() -> Result<()> {
    let mut demo = KeptDemo::start(1)?;
    let (version, _) = demo.change_catalogue(further_packages)?;
    demo.wait_for_catalogue("station", version)?;
    let conflicts = conflicts();
    let token = demo.token(conflicts.len() + 1)?;
    for (last, conflict) in (100..).zip(&conflicts) {
        demo.newcomer(conflict.name, last, &token, &conflict.files)?;
    }
    for conflict in &conflicts {
        is_stopped_before_any_download(&demo, conflict)?;
    }
    nothing_was_served(&demo, &conflicts)?;
    bad_surveys(&demo, &token).await?;
    a_mended_conflict_is_installed(&mut demo, "till-port")?;
    an_old_host_is_updated(&demo)
}

fn is_stopped_before_any_download(demo: &KeptDemo, conflict: &Conflict) -> Result<()> {
    let (name, home) = (conflict.name, home_of(conflict.name));
    demo.wait_until(60, &format!("{name} is refused"), || Ok(session(demo, name)?["stage"] == "refused"))
        .with_context(|| demo.log(name))?;
    let shown = session(demo, name)?;
    let reason = text(&shown["reason"]);
    println!("{name}: {reason}");
    for words in conflict.words {
        ensure!(reason.contains(words), "{name}: {words:?} is not in {reason:?}");
    }
    ensure!(reason.contains("before any download"), "{reason}");
    assert_eq!((&shown["wan_bytes"], &shown["lan_bytes"]), (&0.into(), &0.into()), "{shown:#}");
    assert_eq!((&shown["plan"], &shown["mapped"]), (&Value::Null, &Value::Null), "{shown:#}");

    // The host's own operator sees the same, and its disk has nothing.
    demo.wait_until(20, &format!("{name} knows why"), || {
        let status: Value = demo.json(&home, &["status"])?;
        let said = text(&status["host"]["reason"]);
        Ok(status["host"]["stage"] == "refused" && conflict.words.iter().all(|words| said.contains(words)))
    })
    .with_context(|| format!("{:#}", demo.json::<Value>(&home, &["status"]).unwrap_or_default()))?;
    demo.wait_until(20, &format!("{name} has its report"), || {
        let report = std::fs::read_to_string(demo.path(&home).join("reports/report.html"))?;
        Ok(conflict.words[0].split(' ').all(|word| report.contains(word)))
    })?;
    let packs = std::fs::read_dir(demo.path(&home).join("packs")).map_or(0, Iterator::count);
    assert_eq!(packs, 0, "{name} has files of a pack");
    let account: Value = demo.json(&home, &["transfers"])?;
    for pack in account.as_array().context("no account")? {
        assert_eq!((&pack["wan_bytes"], &pack["inside"]), (&0.into(), &Value::Array(Vec::new())), "{name}: {pack:#}");
    }
    Ok(())
}

/// The account of the site, which the station gathers from all members, names none of them.
fn nothing_was_served(demo: &KeptDemo, conflicts: &[Conflict]) -> Result<()> {
    let account: Value = demo.json("station", &["transfers"])?;
    ensure!(account.to_string().contains("till-1"), "the station's account is empty: {account:#}");
    // Who did not answer in time is named as well, so only what moved is looked at.
    let packs = account.as_array().context("no account")?;
    let moved: String = packs.iter().map(|pack| format!("{}{}", pack["line"], pack["inside"])).collect();
    for conflict in conflicts {
        let seat = demo.seat(&home_of(conflict.name))?.node.to_string();
        for name in [conflict.name, &seat] {
            ensure!(!moved.contains(name), "{name} is in the account: {account:#}");
        }
    }
    Ok(())
}

/// A member whose survey is whatever the test says.
struct Surveyor {
    attacker: Attacker,
    key: SigningKey,
    report: HostReport,
}

impl Surveyor {
    async fn report(&mut self, state: HostState, survey: Option<SurveyHash>) -> Result<Order> {
        self.report.revision += 1;
        (self.report.state, self.report.survey) = (state, survey);
        match self.attacker.ask(&ControlRequest::Report(Box::new(self.report.clone()))).await? {
            ControlAnswer::Directive(directive) => {
                self.report.directive_seen = directive.revision;
                Ok(directive.order)
            }
            other => bail!("a report is answered by {other:?}"),
        }
    }

    /// A new generation, in which the host has surveyed itself.
    async fn surveyed(&mut self, sealed: &[u8]) -> Result<SurveyHash> {
        let hash = Sealed::hash_of(sealed);
        match self.attacker.ask(&ControlRequest::StoreSurvey { hash, sealed: sealed.to_vec() }).await? {
            ControlAnswer::Done => {}
            other => bail!("the sealed survey is not kept: {other:?}"),
        }
        self.report.session.generation += 1;
        self.report(HostState::Joined, None).await?;
        self.report(HostState::Surveyed, Some(hash)).await?;
        Ok(hash)
    }
}

const NAME: &str = "till-surveyor";

async fn bad_surveys(demo: &KeptDemo, token: &str) -> Result<()> {
    demo.machine(NAME, 120, &[])?;
    demo.join(NAME, token)?;
    let (key, hello) = demo.papers(&home_of(NAME))?;
    let station = demo.seat("station")?;
    let inside = demo.address(120)?;
    let machine_identifier = hello.machine_identifier.clone();
    let attacker = Attacker::start(&key, hello, station.node, station.addresses).await?;
    let report = HostReport {
        session: SessionId { node: identity(&key), generation: 0 },
        revision: 0,
        machine_identifier,
        host_name: NAME.to_owned(),
        inside,
        state: HostState::Joined,
        survey: None,
        directive_seen: 0,
        events: Vec::new(),
    };
    let mut surveyor = Surveyor { attacker, key, report };
    let good = std::fs::read_to_string(demo.path("hosts/till-1/home/surveys/descriptor.xml"))?;
    for (what, sealed, words) in bad_papers(&good, &surveyor.key, station.node)? {
        surveyor.surveyed(&sealed).await.with_context(|| what.clone())?;
        demo.wait_until(20, &format!("{what} is refused"), || Ok(session(demo, NAME)?["stage"] == "attention"))?;
        let shown = session(demo, NAME)?;
        let reason = text(&shown["reason"]);
        println!("{what}: {reason}");
        for words in words {
            ensure!(reason.contains(words), "{what}: {words:?} is not in {reason:?}");
        }
        assert_eq!((&shown["plan"], &shown["wan_bytes"]), (&Value::Null, &0.into()), "{shown:#}");
        let status: Value = demo.json("station", &["status"])?;
        ensure!(status["notices"].to_string().contains("the survey cannot be read"), "{:#}", status["notices"]);
        // The host is told what a person has to look at, and gets no other order.
        let order = surveyor.report(HostState::Surveyed, surveyor.report.survey).await?;
        let Order::Wait(WaitReason::Attention(told)) = order else { bail!("{what}: the order is {order:?}") };
        ensure!(told == reason, "{what}: the host is told {told:?}");
    }
    what_was_said_of_earlier_generations_is_over(demo)?;
    not_even_kept(&surveyor).await
}

/// A notice says whether its cause is still there.
fn what_was_said_of_earlier_generations_is_over(demo: &KeptDemo) -> Result<()> {
    let status: Value = demo.json("station", &["status"])?;
    let notices = status["notices"].as_array().context("no notices")?;
    let mut said: Vec<&str> =
        notices.iter().map(text).filter(|said| said.contains("the survey cannot be read")).collect();
    let last = said.pop().context("no notice")?;
    ensure!(!last.ends_with("(this is over)"), "{last}");
    ensure!(said.len() > 5 && said.iter().all(|said| said.ends_with("(this is over)")), "{said:#?}");
    Ok(())
}

/// What is wrong, its sealed form, and what the refusal must name.
fn bad_papers(
    good: &str,
    own: &SigningKey,
    station: branchline_protocol::ids::NodeId,
) -> Result<Vec<(String, Vec<u8>, Vec<&'static str>)>> {
    let changed = |from: &str, to: &str| -> Result<Vec<u8>> {
        ensure!(good.contains(from), "the descriptor has no {from:?}: {good:.2000}");
        Ok(good.replacen(from, to, 1).into_bytes())
    };
    let too_long = format!("{good}{}", " ".repeat(DESCRIPTOR_BYTES_MAX + 1 - good.len()));
    let cases: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        (
            "a value of another form",
            changed(" cpu_count=\"", " cpu_count=\"many")?,
            vec!["/descriptor/host/hardware/@cpu_count", "many"],
        ),
        ("an attribute too many", changed("<identity ", "<identity rank=\"1\" ")?, vec!["/host/identity/@rank"]),
        ("a missing attribute", changed(" mode=\"", " manner=\"")?, vec!["/descriptor/@mode", "missing"]),
        (
            "an element of its own",
            changed("</host>", "<command line=\"id\"/></host>")?,
            vec!["/descriptor/host", "<command>", "no further element"],
        ),
        (
            "words between elements",
            changed("</host>", "id; rm -rf /</host>")?,
            vec!["/descriptor/host", "text between"],
        ),
        ("a missing section", changed("<thresholds", "<opinions")?, vec!["<opinions>", "expected <thresholds>"]),
        (
            "a document type",
            changed("<descriptor", "<!DOCTYPE x [<!ENTITY a \"b\">]><descriptor")?,
            vec!["document type", "not allowed"],
        ),
        ("no XML", b"hello, station\n".to_vec(), vec!["text between elements"]),
        ("cut XML", good.as_bytes()[..good.len() / 2].to_vec(), vec!["not well-formed XML at byte", "/descriptor/"]),
        ("nothing", Vec::new(), vec!["well-formed"]),
        ("too long a document", too_long.into_bytes(), vec!["more than the"]),
    ];
    let readers = [station];
    let mut papers = Vec::new();
    for (number, (what, xml, words)) in (0..).zip(cases) {
        let sealed = Sealed::seal(&xml, &readers, &[number; 32])?;
        papers.push((what.to_owned(), codec::encode(&sealed, SEALED_SURVEY_BYTES_MAX)?, words));
    }
    let elsewhere = Sealed::seal(good.as_bytes(), &[identity(own)], &[77; 32])?;
    let elsewhere = codec::encode(&elsewhere, SEALED_SURVEY_BYTES_MAX)?;
    papers.push(("a survey for somebody else".to_owned(), elsewhere, vec!["cannot be read"]));
    papers.push(("no sealed survey".to_owned(), b"\xff".repeat(5_000), vec!["cannot be read"]));
    Ok(papers)
}

async fn not_even_kept(surveyor: &Surveyor) -> Result<()> {
    let long = vec![7; SEALED_SURVEY_BYTES_MAX + 1];
    let other = Sealed::hash_of(b"something else");
    for (what, hash, sealed, words) in [
        ("an oversized survey", Sealed::hash_of(&long), long, "too large"),
        ("a survey under another name", other, b"survey".to_vec(), "does not have the hash"),
    ] {
        match surveyor.attacker.ask(&ControlRequest::StoreSurvey { hash, sealed }).await? {
            ControlAnswer::Refused(refusal) if refusal.reason.contains(words) => println!("{what}: {refusal}"),
            other => bail!("{what} is answered by {other:?}"),
        }
    }
    Ok(())
}

/// The port is free again: what was refused goes through, by a person's word.
fn a_mended_conflict_is_installed(demo: &mut KeptDemo, name: &str) -> Result<()> {
    std::fs::write(demo.path(&format!("hosts/{name}/root/proc/net/tcp")), "  sl  local_address\n")?;
    demo.start_installer(name)?;
    demo.run("station", &["sessions", "retry", name])?;
    demo.wait_until(60, &format!("{name} is complete"), || Ok(session(demo, name)?["stage"] == "complete"))
        .with_context(|| format!("{:#}", session(demo, name).unwrap_or_default()))?;
    let shown = session(demo, name)?;
    ensure!(shown["lan_bytes"].as_u64().is_some_and(|bytes| bytes > 0) && shown["verified"] == true, "{shown:#}");
    Ok(())
}

/// The station serves on whoever was there before.
fn an_old_host_is_updated(demo: &KeptDemo) -> Result<()> {
    let before = session(demo, "till-1")?["session"].clone();
    demo.run("station", &["sessions", "update", "till-1"])?;
    demo.wait_until(60, "till-1 is complete in its next generation", || {
        let shown = session(demo, "till-1")?;
        Ok(shown["stage"] == "complete" && shown["session"] != before)
    })
}
