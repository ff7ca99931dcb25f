use std::{collections::BTreeMap, io::Write, net::Ipv4Addr, process::Command};

use branchline_protocol::{
    catalogue::{PayloadFormat, SystemdUnit},
    charter::{ProbeResult, TriedPort},
    ids::{DocumentHash, Hash, ImageId, NodeId, PackId, PlanHash, SessionId},
    plan::{ConfigurationFile, PlannedModule, PlannedPackage, PlannedThreshold, PortDeclaration, Service},
    report::{EventBody, InstallReport, ReportEvent, StepOutcome},
    session::{HostState, Stage},
};
use branchline_station_role::station::{ApprovalView, SessionReport, SessionView, SignedProbe, state::HistoryLine};
use proptest::prelude::*;

use super::*;

#[path = "../../../../tests/src/required.rs"]
mod required;

const BEGAN: u64 = 1_795_314_000;
const MAPPED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 65);

fn plan_hash() -> PlanHash {
    PlanHash(Hash::of(b"plan"))
}

fn install(output: &str) -> InstallReport {
    let step = |step, title: &str| EventBody::StepStarted { step, steps: 3, title: title.to_owned() };
    let images = vec![ImageId(Hash::of(b"image"))];
    let bodies = [
        EventBody::PlanAccepted(plan_hash()),
        EventBody::PackComplete { pack: PackId(Hash::of(b"pack")), wan_bytes: 1_234_567, lan_bytes: 42 },
        step(1, "dpkg --install sample-agent_1.0.deb"),
        EventBody::Output { step: 1, text: output.to_owned() },
        EventBody::StepEnded { step: 1, outcome: StepOutcome::Done },
        step(2, "write /etc/sample-agent.toml"),
        EventBody::StepEnded { step: 2, outcome: StepOutcome::Done },
        step(3, "start sample-agent"),
        EventBody::Note("Answers after 0.3 s.".to_owned()),
        EventBody::Installed { plan: plan_hash(), images },
        EventBody::Checked { checks: vec![("file /etc/sample-agent.toml".into(), None), ("port 9100".into(), None)] },
    ];
    let events = bodies.into_iter().zip(1..).map(|(body, number)| ReportEvent {
        number,
        at: UnixSeconds(BEGAN + 10 + number),
        body,
    });
    InstallReport::of(&events.collect::<Vec<_>>())
}

fn session(host_name: &str, output: &str) -> SessionReport {
    let history = ["Opened by the host.", "Approved by Ada.", "Mapped to 198.51.100.65."];
    let history = history
        .into_iter()
        .zip(0..)
        .map(|(text, at)| HistoryLine { at: UnixSeconds(BEGAN + 20 * at), text: text.into() });
    let view = SessionView {
        session: SessionId { node: NodeId([7; 32]), generation: 1 },
        host_name: host_name.to_owned(),
        machine_identifier: "0123456789abcdef".to_owned(),
        is_current: true,
        stage: Stage::Verified,
        reason: String::new(),
        warnings: Vec::new(),
        place: None,
        slot: None,
        host_state: HostState::Checked { plan: plan_hash(), passed: true, faults: Vec::new() },
        opened_at: UnixSeconds(BEGAN),
        ended_at: None,
        inside: Ipv4Addr::new(10, 1, 0, 21),
        mapped: Some(MAPPED),
        plan: Some(plan_hash()),
        images: vec![ImageId(Hash::of(b"image"))],
        packages: vec!["sample-agent 1.0".to_owned()],
        modules: vec!["nfs".to_owned()],
        thresholds: vec![("memory_low".to_owned(), "512".to_owned())],
        facts: vec![("operating_system".to_owned(), "debian".to_owned())],
        group: None,
        approval: ApprovalView::Approved {
            by: "Ada".to_owned(),
            at: UnixSeconds(BEGAN + 20),
            document: DocumentHash(Hash::of(b"approval")),
        },
        checked: Some(Vec::new()),
        probed: Some(Vec::new()),
        findings: Vec::new(),
        verified: true,
        has_report: false,
        wan_bytes: 1_234_567,
        lan_bytes: 42,
        history: history.collect(),
    };
    SessionReport { view, install: install(output), probe: None, events_cut: 0 }
}

fn plan() -> Plan {
    let explain = |subject: &str, chosen, rule: &str, fact: &str, text: &str| branchline_protocol::plan::Explanation {
        subject: subject.to_owned(),
        chosen,
        rule: rule.to_owned(),
        fact: fact.to_owned(),
        text: text.to_owned(),
    };
    let package = PlannedPackage {
        name: "sample-agent".to_owned(),
        version: "1.0".to_owned(),
        format: PayloadFormat::Deb,
        image: ImageId(Hash::of(b"image")),
        pack: PackId(Hash::of(b"pack")),
        pack_bytes: 1_234_609,
        raw_bytes: 4_000_000,
        sha256: Hash::of(b"original"),
        file_name: "sample-agent_1.0_amd64.deb".to_owned(),
        modules: vec![PlannedModule { name: "nfs".into(), reason: "the host mounts a network file system".into() }],
        thresholds: vec![PlannedThreshold {
            name: "memory_low".into(),
            value: "512".into(),
            unit: "MiB".into(),
            reason: "rule: an eighth of the memory".into(),
        }],
        files: vec![ConfigurationFile {
            path: "/etc/sample-agent.toml".into(),
            mode: 0o644,
            owner: None,
            content: "nfs = true\n".into(),
        }],
        steps: Vec::new(),
        service: Some(Service {
            name: "sample-agent".into(),
            program: "/usr/bin/sample-agent".into(),
            arguments: Vec::new(),
            user: None,
            environment: BTreeMap::new(),
            unit: SystemdUnit::Generated,
        }),
        health: None,
        ports: vec![PortDeclaration { port: 9100, http_path: "/metrics".into(), scrape: true }],
    };
    Plan {
        node: NodeId([7; 32]),
        descriptor: Hash::of(b"descriptor"),
        catalogue: DocumentHash(Hash::of(b"catalogue")),
        policy: DocumentHash(Hash::of(b"policy")),
        group: None,
        packages: vec![package],
        explanation: vec![
            explain(
                "module nfs of sample-agent",
                true,
                "has_nfs",
                "nfs mounts: 1",
                "The host mounts a network file system.",
            ),
            explain("module corosync of sample-agent", false, "cluster != ''", "cluster: none", "There is no cluster."),
        ],
    }
}

fn probe() -> ProbeResult {
    ProbeResult {
        site: "store-17".parse().unwrap(),
        session: SessionId { node: NodeId([7; 32]), generation: 1 },
        plan: plan_hash(),
        mapped: MAPPED,
        ports: vec![(9100, None)],
        undeclared: vec![TriedPort { port: 22, answers: false }, TriedPort { port: 7400, answers: false }],
        probed_at: UnixSeconds(BEGAN + 45),
    }
}

fn page(session: &SessionReport, plan: Option<&Plan>, probe: Option<&ProbeResult>) -> String {
    let site = "store-17".parse().unwrap();
    let made_at = UnixSeconds(BEGAN + 60);
    let document = DocumentHash(Hash::of(b"probe"));
    let probe = probe.map(|result| SignedProbe { document, result: result.clone(), findings: Vec::new() });
    let session = &SessionReport { probe, ..session.clone() };
    render(&ReportInput { site: &site, station: NodeId([9; 32]), session, plan, made_at }).unwrap()
}

/// What HTML Tidy says of a page; `None` where Tidy is not installed.
fn tidy(html: &str) -> Option<(bool, String)> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(html.as_bytes()).unwrap();
    match Command::new("tidy").args(["-errors", "-quiet", "-utf8"]).arg(file.path()).output() {
        Ok(output) => Some((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) => {
            required::skip("HTML Tidy's verdict", &format!("it cannot be run ({error})"));
            None
        }
    }
}

fn assert_valid(html: &str) {
    assert!(html.len() <= REPORT_HTML_BYTES_MAX, "{} bytes", html.len());
    if let Some((valid, words)) = tidy(html) {
        assert!(valid && words.is_empty(), "{words}\n{html}");
    }
}

const HOSTILE: &str = "</pre></title><script>alert(1)</script>'\"&amp;<!-- \u{202e}gnp\0\x1b[2J\u{85}\u{fffe}";

fn hostile() -> (SessionReport, Plan) {
    let (mut session, mut plan) = (session(HOSTILE, HOSTILE), plan());
    session.view.machine_identifier = HOSTILE.to_owned();
    session.view.reason = HOSTILE.to_owned();
    session.view.stage = Stage::Attention;
    session.view.verified = false;
    session.view.group = Some(HOSTILE.to_owned());
    session.view.history[0].text = HOSTILE.to_owned();
    session.view.facts = vec![(HOSTILE.to_owned(), HOSTILE.to_owned())];
    session.view.approval = ApprovalView::Delayed { by: HOSTILE.into(), reason: HOSTILE.into(), until: None };
    session.view.checked = Some(vec![HOSTILE.to_owned()]);
    session.view.probed = Some(vec![HOSTILE.to_owned()]);
    session.install.steps[0].title = HOSTILE.to_owned();
    session.install.notes[0].1 = HOSTILE.to_owned();
    session.install.checks[0] = (HOSTILE.to_owned(), Some(HOSTILE.to_owned()));
    let package = &mut plan.packages[0];
    for text in [&mut package.name, &mut package.version, &mut package.file_name, &mut package.files[0].path] {
        HOSTILE.clone_into(text);
    }
    package.modules[0] = PlannedModule { name: HOSTILE.into(), reason: HOSTILE.into() };
    HOSTILE.clone_into(&mut package.thresholds[0].value);
    HOSTILE.clone_into(&mut package.ports[0].http_path);
    HOSTILE.clone_into(&mut plan.explanation[1].text);
    (session, plan)
}

#[test]
fn the_page_of_a_verified_host() {
    let html =
        page(&session("till-1", "Unpacking sample-agent (1.0) ...\nSetting up\n"), Some(&plan()), Some(&probe()));
    assert_valid(&html);
    insta::assert_snapshot!(html);
}

#[test]
fn an_undeclared_port_that_answers_is_shown_with_what_people_should_know_of_it() {
    let mut session = session("till-1", "");
    session.view.findings = vec![format!("port 22 of 10.1.0.21 answers {HOSTILE}")];
    let undeclared = vec![TriedPort { port: 22, answers: true }, TriedPort { port: 7400, answers: false }];
    let html = page(&session, Some(&plan()), Some(&ProbeResult { undeclared, ..probe() }));
    assert!(html.contains("2 in number: 1 of them answer."), "{html}");
    assert!(html.contains("answers through the mapping") && html.contains("port 22 of 10.1.0.21 answers"), "{html}");
    assert!(!html.contains(HOSTILE), "a finding is escaped");
    let html = page(&session, Some(&plan()), Some(&ProbeResult { undeclared: Vec::new(), ..probe() }));
    assert!(html.contains("Headquarters tried none"), "{html}");
}

#[test]
fn without_plan_and_probe_the_names_alone_are_shown() {
    let html = page(&session("till-1", "done\n"), None, None);
    assert_valid(&html);
    for text in ["sample-agent 1.0", "memory_low", "has not probed the mapped address"] {
        assert!(html.contains(text), "{text}");
    }
}

#[test]
fn the_page_of_a_denied_host_says_who_and_why() {
    let mut session = session("till-1", "done\n");
    session.view.stage = Stage::Denied;
    session.view.reason = "not a till (by ada)".to_owned();
    (session.view.verified, session.view.mapped) = (false, None);
    session.view.approval = ApprovalView::Undecided { asked_at: Some(UnixSeconds(BEGAN + 20)) };
    (session.view.checked, session.view.probed) = (None, None);
    let html = page(&session, Some(&plan()), None);
    assert_valid(&html);
    assert!(html.contains("Denied by headquarters: this host is not monitored. not a till (by ada)"), "{html}");
    assert!(html.contains("denied: not a till (by ada)") && !html.contains("not decided"), "{html}");
}

#[test]
fn nothing_but_a_verified_session_claims_success() {
    let stages =
        [Stage::Mapped, Stage::Attention, Stage::Denied, Stage::Failed, Stage::Withdrawn, Stage::AwaitingApproval];
    for stage in stages {
        let mut session = session("till-1", "done\n");
        session.view.stage = stage;
        session.view.verified = stage == Stage::Withdrawn;
        let html = page(&session, None, None);
        assert_valid(&html);
        assert!(!html.contains("Installed, approved, and verified"), "{stage:?}");
        assert!(!html.contains("<header class=\"good\">"), "{stage:?}");
    }
}

#[test]
fn a_session_that_has_just_begun_has_a_page_too() {
    let mut session = session("till-1", "");
    session.install = InstallReport::default();
    session.view.stage = Stage::Open;
    session.view.verified = false;
    session.view.approval = ApprovalView::Undecided { asked_at: None };
    (session.view.plan, session.view.mapped, session.view.checked, session.view.probed) = (None, None, None, None);
    (session.view.packages, session.view.images, session.view.modules) = (Vec::new(), Vec::new(), Vec::new());
    (session.view.facts, session.view.thresholds, session.view.history) = (Vec::new(), Vec::new(), Vec::new());
    assert_valid(&page(&session, None, None));
}

#[test]
fn nothing_from_outside_is_markup() {
    let (session, plan) = hostile();
    let html = page(&session, Some(&plan), None);
    assert_valid(&html);
    assert!(!html.contains("<script"), "{html}");
    assert!(html.contains("&#60;script&#62;alert(1)"), "it is shown, escaped");
    assert!(html.contains("[U+202E]gnp␀␛[2J\u{fffd}\u{fffd}"), "what would deceive is visible");
    assert_eq!(html.matches("<pre>").count(), html.matches("</pre>").count());
}

#[test]
fn a_flood_is_cut_and_says_so() {
    let (mut session, mut plan) = hostile();
    session.view.host_name = "&".repeat(100_000);
    session.install.steps[0].output = format!("first line\n{}\nlast line", "<&\0".repeat(2_000_000));
    session.install.steps = vec![session.install.steps[0].clone(); 300];
    session.view.history = vec![session.view.history[0].clone(); 10_000];
    session.view.facts = vec![session.view.facts[0].clone(); 10_000];
    session.events_cut = 12_345;
    plan.packages = vec![plan.packages[0].clone(); 256];
    plan.explanation = vec![plan.explanation[1].clone(); 4096];
    let html =
        page(&session, Some(&plan), Some(&ProbeResult { ports: vec![(1, Some(HOSTILE.into())); 64], ..probe() }));
    assert_valid(&html);
    for text in ["first line", "last line", "bytes left out here", "more rows do not fit", "12,345 events"] {
        assert!(html.contains(text), "{text}");
    }
}

#[test]
fn one_long_output_uses_the_room_that_there_is() {
    let html = page(&session("till-1", &"a line of the installer\n".repeat(1_000_000)), Some(&plan()), Some(&probe()));
    assert_valid(&html);
    assert!(html.len() > REPORT_HTML_BYTES_MAX / 2, "only {} bytes", html.len());
    assert!(html.contains("of the captured output do not fit this page"));
}

proptest! {
    #[test]
    fn no_text_breaks_out_of_its_place(text in any::<String>(), name in "[<>&'\"a-z\u{0}-\u{20}]{0,80}") {
        let reference = page(&session("x", "y"), None, None);
        let html = page(&session(&name, &text), None, None);
        for mark in ["<td", "<section", "<script", "<pre>", "<h1>", "<title>", "-->"] {
            let expected = if mark == "<pre>" { usize::from(!text.is_empty()) } else { reference.matches(mark).count() };
            prop_assert_eq!(html.matches(mark).count(), expected, "{}", mark);
        }
    }
}
