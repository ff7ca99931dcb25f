//! A stranger inside the site, with papers that it stole: to whoever is no member the control plane says no, to requests of
//! every kind, and tells nothing else (R50a).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use branchline::config::{Home, read_key};
use branchline::mesh::Documents;
use branchline_protocol::ids::{Epoch, Hash, NodeId, PackId, SessionId, SiteName, SurveyHash};
use branchline_protocol::refusal::RefusalKind;
use branchline_protocol::session::{Directive, HostReport, HostState, Order, Stage};
use branchline_protocol::wire::control::{ControlAnswer, ControlRequest, DocumentKind, Hello, Staging};
use branchline_station_role::station::SiteReportDraft;
use branchline_tests::{attacker::Attacker, kept_demo::KeptDemo};
use ed25519_dalek::SigningKey;
use serde_json::Value;

/// Requests of every kind, a hello aside, that members send each other: for things that are there, about `host`, a member, and
/// with the station's own warrant.
fn requests(pack: PackId, survey: SurveyHash, host: NodeId, station: &Hello) -> Result<Vec<ControlRequest>> {
    let session = SessionId { node: host, generation: 1 };
    let report = HostReport {
        session,
        revision: u64::MAX,
        machine_identifier: "stolen".to_owned(),
        host_name: "till-1".to_owned(),
        inside: Ipv4Addr::LOCALHOST,
        state: HostState::Surveyed,
        survey: Some(survey),
        directive_seen: 0,
        events: Vec::new(),
    };
    let directive = Directive {
        session,
        epoch: Epoch { charter_version: 1, term: 1 },
        revision: u64::MAX,
        stage: Stage::Selected,
        order: Order::Survey,
        events_durable: 0,
    };
    let warrant = station.warrant.clone().context("the station shows no warrant")?;
    let draft = SiteReportDraft { wants_batch: true, ..SiteReportDraft::default() };
    let site = draft.complete("demo".parse()?, warrant);
    Ok(vec![
        ControlRequest::Document(DocumentKind::Charter),
        ControlRequest::Document(DocumentKind::Revocations),
        ControlRequest::Document(DocumentKind::Catalogue),
        ControlRequest::Document(DocumentKind::Policy),
        ControlRequest::Document(DocumentKind::Bandwidth),
        ControlRequest::Document(DocumentKind::Release),
        ControlRequest::Peers,
        ControlRequest::Report(Box::new(report)),
        ControlRequest::Directive(Box::new(directive)),
        ControlRequest::StoreSurvey { hash: survey, sealed: b"nothing".to_vec() },
        ControlRequest::Survey(survey),
        ControlRequest::Manifest(pack),
        ControlRequest::RenewMembership,
        ControlRequest::Site(Box::new(site)),
        ControlRequest::Holdings(pack),
        ControlRequest::Handover { from: 0 },
        ControlRequest::AskLease { pack, held: 0 },
        ControlRequest::Stage { pack, staging: Staging::Fetched },
        ControlRequest::LineRate(Some(1)),
        ControlRequest::Account(pack),
        ControlRequest::HandoverCrossings { from: 0 },
    ])
}

/// The hello of a member, with the stranger's addresses: a membership and a warrant say whose they are.
fn stolen_hello(demo: &KeptDemo, home: &str, number: u8) -> Result<Hello> {
    let directory = Home::open(&demo.path(home))?;
    let key = read_key(&directory.path("identity.key"))?;
    let seat: Value = demo.json(home, &["identity"])?;
    let documents = Documents::load(directory, key, serde_json::from_value(seat["addresses"].clone())?, "stolen")?;
    let mut hello = documents.hello(&"demo".parse::<SiteName>()?).context("no hello")?;
    let moved = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            SocketAddr::from(([a, b, c, 200 + number], address.port()))
        }
        IpAddr::V6(_) => address,
    };
    hello.addresses.control = moved(hello.addresses.control);
    hello.addresses.bulk = moved(hello.addresses.bulk);
    Ok(hello)
}

/// How many of the requests are refused because a stranger asks. Any other answer is an error; none at all is the end of a
/// connection that was cut.
async fn refusals(stranger: &Attacker, requests: &[ControlRequest], when: &str) -> Result<usize> {
    let mut refused = 0;
    for request in requests {
        match stranger.ask(request).await {
            Ok(ControlAnswer::Refused(refusal)) if refusal.kind == RefusalKind::NotAMember => refused += 1,
            Ok(answer) => anyhow::bail!("{when}: {request:?} is answered by {answer:?}"),
            Err(_) => {}
        }
    }
    Ok(refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_stranger_gets_nothing_on_the_control_plane() -> Result<()> {
    let demo = KeptDemo::start(2)?;
    let catalogue: Value = demo.json("station", &["status"])?;
    let pack: PackId = catalogue["packs"][0]["pack"].as_str().context("the station has no pack")?.parse()?;
    let survey = std::fs::read_to_string(demo.path("hosts/till-1/home/surveys/own.sealed-name"))?;
    let host: Value = demo.json("hosts/till-1/home", &["identity"])?;
    let host = serde_json::from_value(host["node"].clone())?;
    let survey = SurveyHash(survey.trim().parse::<Hash>()?);
    let requests = requests(pack, survey, host, &stolen_hello(&demo, "station", 0)?)?;
    let victims = ["hosts/till-1/home", "station", "headquarters"];
    for (number, victim) in (0..).zip(victims) {
        let seat = demo.seat(victim)?;
        let (node, addresses) = (seat.node, seat.addresses);
        for (thief, of) in (0..).zip(["hosts/till-2/home", "station"]) {
            let key = SigningKey::from_bytes(&[100 + 10 * number + thief; 32]);
            let hello = stolen_hello(&demo, of, 10 * number + thief)?;
            let stranger = Attacker::connect(&key, hello.clone(), node, addresses)?;
            let refused = refusals(&stranger, &requests, &format!("{victim}, before a hello")).await?;
            ensure!(refused == requests.len(), "{victim} refuses {refused} of {} before a hello", requests.len());
            let stranger = Attacker::connect(&key, stolen_hello(&demo, of, 10 * number + thief + 5)?, node, addresses)?;
            let ControlAnswer::Refused(refusal) = stranger.say_hello(&hello).await? else {
                anyhow::bail!("{victim} takes the papers of {of} from a stranger");
            };
            println!("{victim} refuses the papers of {of}: {refusal}");
            // The connection is cut a moment after the refusal.
            let refused = refusals(&stranger, &requests, &format!("{victim}, after the hello of {of}")).await?;
            ensure!(refused > 0, "{victim} refuses nothing after the hello of {of}");
        }
    }
    let said: Value = demo.json("station", &["status"])?;
    ensure!(said["node"].is_string(), "the station goes on");
    Ok(())
}

/// Status line and everything else that a GET of `path` is answered with.
fn get(address: SocketAddr, path: &str, authorization: Option<&str>) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("dialling {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{authorization}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("no status in {answer:?}"))?, answer))
}

#[test]
fn demo_headquarters_http_is_for_those_who_have_its_token() -> Result<()> {
    let demo = KeptDemo::start(1)?;
    let configuration = Home::open(&demo.path("headquarters"))?.config_or_default()?;
    let address = configuration.headquarters.http.context("headquarters serves no HTTP")?;
    let token = std::fs::read_to_string(demo.path("headquarters/http.token"))?;
    let host: Value = demo.json("hosts/till-1/home", &["identity"])?;
    let report = format!("/reports/{}/1", host["node"].as_str().context("no identity")?);
    let paths = [("/targets", "till-1"), ("/hosts", "till-1"), (report.as_str(), "<html")];
    let (good, wrong) = (format!("Bearer {}", token.trim()), format!("Bearer {}", "0".repeat(64)));
    for (path, expected) in paths {
        for shown in [None, Some(wrong.as_str()), Some("Basic YWRhOmFkYQ==")] {
            let (status, answer) = get(address, path, shown)?;
            ensure!(status == 401 && answer.contains("http.token"), "{path} with {shown:?}: {answer}");
            ensure!(!answer.contains("till-1"), "{path} with {shown:?} tells of a host: {answer}");
        }
        let (status, answer) = get(address, path, Some(&good))?;
        ensure!(status == 200 && answer.contains(expected), "{path} with the token: {status}, {answer}");
    }
    ensure!(get(address, "/no-such-place", None)?.0 == 401, "a stranger does not even learn what is there");
    ensure!(get(address, "/no-such-place", Some(&good))?.0 == 404, "nothing is there");
    Ok(())
}
