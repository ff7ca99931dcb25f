//! A stranger inside the site, with papers that it stole: whoever is no member gets nothing on the control plane (R50a, R87).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use branchline::config::{Home, read_key};
use branchline::mesh::Documents;
use branchline_protocol::ids::{Hash, PackId, SiteName, SurveyHash};
use branchline_protocol::wire::control::{ControlAnswer, ControlRequest, DocumentKind, Hello, Staging};
use branchline_tests::{attacker::Attacker, kept_demo::KeptDemo};
use ed25519_dalek::SigningKey;
use serde_json::Value;

/// Everything that a member may ask for, of things that are there.
fn requests(pack: PackId, survey: SurveyHash) -> Vec<ControlRequest> {
    vec![
        ControlRequest::Document(DocumentKind::Charter),
        ControlRequest::Document(DocumentKind::Catalogue),
        ControlRequest::Peers,
        ControlRequest::Survey(survey),
        ControlRequest::StoreSurvey { hash: survey, sealed: b"nothing".to_vec() },
        ControlRequest::Manifest(pack),
        ControlRequest::Holdings(pack),
        ControlRequest::RenewMembership,
        ControlRequest::Handover { from: 0 },
        ControlRequest::AskLease { pack, held: 0 },
        ControlRequest::Stage { pack, staging: Staging::Fetched },
        ControlRequest::LineRate(Some(1)),
        ControlRequest::Account(pack),
    ]
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

async fn gets_nothing(stranger: &Attacker, requests: &[ControlRequest], when: &str) -> Result<()> {
    let mut refusals = 0;
    for request in requests {
        match stranger.ask(request).await {
            Ok(ControlAnswer::Refused(_)) => refusals += 1,
            // The connection may have been cut for the request before.
            Err(_) => {}
            Ok(answer) => anyhow::bail!("{when}: {request:?} is answered by {answer:?}"),
        }
    }
    ensure!(refusals > 0, "{when}: nobody said no");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_stranger_gets_nothing_on_the_control_plane() -> Result<()> {
    let demo = KeptDemo::start(2)?;
    let catalogue: Value = demo.json("station", &["status"])?;
    let pack: PackId = catalogue["packs"][0]["pack"].as_str().context("the station has no pack")?.parse()?;
    let survey = std::fs::read_to_string(demo.path("hosts/till-1/home/surveys/own.sealed-name"))?;
    let requests = requests(pack, SurveyHash(survey.trim().parse::<Hash>()?));
    let victims = ["hosts/till-1/home", "station", "headquarters"];
    for (number, victim) in (0..).zip(victims) {
        let seat: Value = demo.json(victim, &["identity"])?;
        let (node, addresses) =
            (serde_json::from_value(seat["node"].clone())?, serde_json::from_value(seat["addresses"].clone())?);
        for (thief, of) in (0..).zip(["hosts/till-2/home", "station"]) {
            let key = SigningKey::from_bytes(&[100 + 10 * number + thief; 32]);
            let hello = stolen_hello(&demo, of, 10 * number + thief)?;
            let stranger = Attacker::connect(&key, hello.clone(), node, addresses)?;
            gets_nothing(&stranger, &requests, &format!("{victim}, before a hello")).await?;
            let stranger = Attacker::connect(&key, stolen_hello(&demo, of, 10 * number + thief + 5)?, node, addresses)?;
            let ControlAnswer::Refused(refusal) = stranger.say_hello(&hello).await? else {
                anyhow::bail!("{victim} takes the papers of {of} from a stranger");
            };
            println!("{victim} refuses the papers of {of}: {refusal}");
            gets_nothing(&stranger, &requests, &format!("{victim}, after the hello of {of}")).await?;
        }
    }
    let said: Value = demo.json("station", &["status"])?;
    ensure!(said["node"].is_string(), "the station goes on");
    Ok(())
}
