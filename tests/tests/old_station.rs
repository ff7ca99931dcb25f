//! A station that was replaced, with its real key and all that it knew: after a planned move the hosts, headquarters and the
//! new station refuse what it says, and say which epoch it has and which is the newest (R4, R122).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use branchline::config::{Bundle, BundleKey, Home, read_key};
use branchline::mesh::Documents;
use branchline_protocol::charter::{PublicKey, Revocations, Signed, Warrant};
use branchline_protocol::ids::{Epoch, NodeId, PackId, SessionId, SiteName};
use branchline_protocol::refusal::RefusalKind;
use branchline_protocol::session::{Directive, Order, Stage};
use branchline_protocol::wire::control::{ControlAnswer, ControlRequest, DocumentKind, Hello, Staging};
use branchline_station_role::station::SiteReportDraft;
use branchline_tests::attacker::Attacker;
use branchline_tests::kept_demo::{KeptDemo, tree};
use branchline_tests::newcomer::SITE;
use ed25519_dalek::SigningKey;
use serde_json::Value;

const HOST: &str = "hosts/till-1/home";
const OLD: Epoch = Epoch { charter_version: 1, term: 0 };
const NEW: Epoch = Epoch { charter_version: 2, term: 0 };

/// What the old station has left: its key, and what it said when it was station.
struct Former {
    key: SigningKey,
    hello: Hello,
    node: NodeId,
    successor: NodeId,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Moves the role to another machine; the old station's process ends.
fn replace(demo: &mut KeptDemo) -> Result<Former> {
    let home = Home::open(&demo.path("station"))?;
    let key = read_key(&home.path("identity.key"))?;
    let seat = demo.seat("station")?;
    let documents = Documents::load(home, key.clone(), seat.addresses, "station")?;
    let hello = documents.hello(&SITE.parse::<SiteName>()?).context("no hello")?;

    let (bundle, next) = (demo.path("bundle"), demo.path("station-2"));
    let (listen, file) = (demo.address(3)?.to_string(), demo.path("station-2.seat"));
    demo.run("station-2", &["identity", "--listen", &listen, "--out", &text(&file)])?;
    std::fs::copy(demo.path("station/router.toml"), next.join("router.toml"))?;
    let mut config = Home::open(&next)?.config_or_default()?;
    (config.mdns, config.station.router) = (false, Some("router.toml".into()));
    Home::open(&next)?.save_config(&config)?;
    let program = demo.program().to_owned();
    let moved = std::process::Command::new(program)
        .args(["charter", "move", "--bundle", &text(&bundle), "--station", &text(&file)])
        .output()?;
    ensure!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    let owner = PublicKey::of(&Bundle::open(&bundle)?.key(BundleKey::Owner)?).to_string();
    let charter = text(&bundle.join("charter.json"));
    demo.run("station-2", &["charter", "adopt", "--owner", &owner, &charter])?;
    demo.run("headquarters", &["charter", "take", &charter])?;
    demo.start_node("station-2", "station-2")?;
    demo.wait_until(40, "the new station has the old one's sessions", || {
        let sessions: Value = demo.json("station-2", &["sessions", "list"])?;
        Ok(sessions[0]["host_name"] == "till-1" && sessions[0]["stage"] == "complete")
    })
    .with_context(|| demo.log("station-2"))?;
    let successor = demo.seat("station-2")?.node;
    for home in [HOST, "headquarters"] {
        demo.wait_until(40, &format!("{home} follows the new station"), || {
            let status: Value = demo.json(home, &["status"])?;
            let neighbours = status["neighbours"].to_string();
            Ok(status["sites"][0]["charter_version"] == 2 && neighbours.contains(&successor.to_string()))
        })?;
    }
    demo.kill_node("station")?;
    Ok(Former { key, hello, node: seat.node, successor })
}

impl Former {
    /// Comes back to somebody as if nothing had happened. As a former station it is still let in as a member.
    async fn comes_to(&self, demo: &KeptDemo, home: &str) -> Result<Attacker> {
        let seat = demo.seat(home)?;
        Attacker::start(&self.key, self.hello.clone(), seat.node, seat.addresses).await
    }

    fn directive(&self, host: NodeId, generation: u32, epoch: Epoch) -> ControlRequest {
        ControlRequest::Directive(Box::new(Directive {
            session: SessionId { node: host, generation },
            epoch,
            revision: u64::MAX / 2,
            stage: Stage::Withdrawn,
            order: Order::Uninstall { reason: "the old station says so".to_owned() },
            events_durable: 0,
        }))
    }

    fn report(&self, warrant: Signed<Warrant>) -> ControlRequest {
        let draft = SiteReportDraft { wants_batch: true, ..SiteReportDraft::default() };
        ControlRequest::Site(Box::new(draft.complete(SITE.parse().unwrap(), warrant)))
    }

    /// The warrant that it had, and one that it signs for itself under the newest epoch.
    fn warrants(&self) -> Result<(Signed<Warrant>, Signed<Warrant>)> {
        let had = self.hello.warrant.clone().context("the station showed no warrant")?;
        let body = had.verify(PublicKey::of(&self.key))?;
        Ok((had, Signed::sign(&Warrant { epoch: NEW, ..body }, &self.key)))
    }
}

/// The request is refused in this way, and the reason has all of these words.
async fn is_refused(
    attacker: &Attacker,
    what: &str,
    request: &ControlRequest,
    kind: RefusalKind,
    words: &[&str],
) -> Result<()> {
    match attacker.ask(request).await.with_context(|| what.to_owned())? {
        ControlAnswer::Refused(refusal) => {
            println!("{what}: {refusal}");
            ensure!(refusal.kind == kind, "{what}: {refusal:?}");
            for word in words {
                ensure!(refusal.reason.contains(word), "{what}: {word:?} is not in {:?}", refusal.reason);
            }
            Ok(())
        }
        other => bail!("{what} is answered by {other:?}"),
    }
}

fn notice(demo: &KeptDemo, home: &str, words: &str) -> Result<()> {
    demo.wait_until(10, &format!("the notices in {home} say {words:?}"), || {
        Ok(demo.json::<Value>(home, &["status"])?["notices"].to_string().contains(words))
    })
    .with_context(|| format!("{:#}", demo.json::<Value>(home, &["status"]).unwrap_or_default()["notices"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_old_station_is_refused_by_host_and_headquarters_and_told_which_epoch_is_the_newest() -> Result<()> {
    let mut demo = KeptDemo::start(1)?;
    let former = replace(&mut demo)?;
    let root = demo.path("hosts/till-1/root");
    let (before, agents) = (tree(&root)?, demo.processes("agent.toml"));
    ensure!(!agents.is_empty(), "no agent runs");
    at_the_host(&demo, &former).await?;
    at_headquarters(&demo, &former).await?;
    at_the_new_station(&demo, &former).await?;

    assert_eq!((tree(&root)?, demo.processes("agent.toml")), (before, agents), "nothing on the host has changed");
    for home in ["station-2", "headquarters"] {
        let sessions: Value = demo.json(home, &["sessions", "list"])?;
        assert_eq!(sessions[0]["stage"], "complete", "{home}: {sessions:#}");
    }
    // The site is in the new station's hands.
    let first: Value = demo.json("station-2", &["sessions", "show", "till-1"])?;
    demo.run("station-2", &["sessions", "update", "till-1"])?;
    demo.wait_until(60, "till-1 is updated by the new station", || {
        let shown: Value = demo.json("station-2", &["sessions", "show", "till-1"])?;
        Ok(shown["stage"] == "complete" && shown["session"] != first["session"])
    })
    .with_context(|| demo.log("station-2"))
}

async fn at_the_host(demo: &KeptDemo, former: &Former) -> Result<()> {
    let host = demo.seat(HOST)?.node;
    let attacker = former.comes_to(demo, HOST).await?;
    notice(demo, HOST, "the warrant is of epoch 1.0, but the station's epoch is 2.0")?;
    let successor = former.successor.to_string();
    for (what, generation, epoch, kind) in [
        ("an order of the old epoch", 1, OLD, RefusalKind::Stale),
        ("an order of the old epoch for another generation", 2, OLD, RefusalKind::Stale),
        ("an order of an epoch that it has not", 1, NEW, RefusalKind::NotAuthorised),
        ("an order of an epoch to come", 9, Epoch { charter_version: 7, term: 0 }, RefusalKind::NotAuthorised),
    ] {
        let claimed = format!("is of epoch {epoch}");
        let words = [claimed.as_str(), "epoch 2.0 is the newest here", &successor];
        is_refused(&attacker, what, &former.directive(host, generation, epoch), kind, &words).await?;
        notice(demo, HOST, &format!("{claimed}, but epoch 2.0 is the newest here"))?;
    }
    // Of one peer the last is kept, so that it cannot push other notices out.
    let status: Value = demo.json(HOST, &["status"])?;
    let orders = status["notices"].to_string().matches("the directive of").count();
    ensure!(orders == 1, "{orders} of its orders are noticed: {:#}", status["notices"]);
    let pack = PackId(branchline_protocol::ids::Hash::of(b"pack"));
    for (what, request) in [
        ("a wish for the account", ControlRequest::Account(pack)),
        ("a word to stage", ControlRequest::Stage { pack, staging: Staging::Fetched }),
        ("a wish for the journal", ControlRequest::Handover { from: 0 }),
        ("a wish for the crossing desk's journal", ControlRequest::HandoverCrossings { from: 0 }),
    ] {
        is_refused(&attacker, what, &request, RefusalKind::NotAuthorised, &["station"]).await?;
    }
    claims(demo, former, &attacker).await
}

/// Documents by which it would be station again, or put members out.
async fn claims(demo: &KeptDemo, former: &Former, attacker: &Attacker) -> Result<()> {
    let (_, forged) = former.warrants()?;
    let hello = Hello { warrant: Some(forged), ..former.hello.clone() };
    let ControlAnswer::Hello(answer) = attacker.say_hello(&hello).await? else { bail!("no hello comes back") };
    let shown = answer.charter.verify(answer.charter.signer())?;
    assert_eq!(shown.version, 2, "the answer shows why it is station no more");
    notice(demo, HOST, "shows a warrant, but the charter designates")?;

    let list = |epoch, version| {
        let nodes = [former.successor, demo.seat("headquarters")?.node].into();
        anyhow::Ok(serde_json::to_vec(&Signed::sign(&Revocations { epoch, version, nodes }, &former.key))?)
    };
    for (number, (epoch, words)) in (1..).zip([
        (OLD, "of epoch 1.0, is not newer than list 1 of epoch 2.0"),
        (NEW, "under epoch 2.0, who was not station then"),
    ]) {
        attacker.offer(DocumentKind::Revocations, list(epoch, 90 + number)?);
        let mut hello = former.hello.clone();
        hello.documents.revocations = (Epoch { charter_version: 50, term: 0 }, number);
        attacker.say_hello(&hello).await?;
        notice(demo, HOST, words)?;
        println!("a list of revoked members of epoch {epoch}: {words}");
    }
    let status: Value = demo.json(HOST, &["status"])?;
    ensure!(status["neighbours"].to_string().contains(&former.successor.to_string()), "{status:#}");
    Ok(())
}

async fn at_headquarters(demo: &KeptDemo, former: &Former) -> Result<()> {
    let attacker = former.comes_to(demo, "headquarters").await?;
    let (had, forged) = former.warrants()?;
    let words = ["the warrant is of epoch 1.0, but the station's epoch is 2.0"];
    is_refused(&attacker, "a report of the old epoch", &former.report(had), RefusalKind::Stale, &words).await?;
    notice(demo, "headquarters", words[0])?;
    let words = [&*former.node.to_string(), "the charter designates", &former.successor.to_string()];
    let request = former.report(forged);
    is_refused(&attacker, "a report with a forged warrant", &request, RefusalKind::NotAuthorised, &words).await
}

async fn at_the_new_station(demo: &KeptDemo, former: &Former) -> Result<()> {
    let attacker = former.comes_to(demo, "station-2").await?;
    let host = demo.seat(HOST)?.node;
    let words = ["is of epoch 1.0", "epoch 2.0 is the newest here"];
    let order = former.directive(host, 1, OLD);
    is_refused(&attacker, "an order to the new station", &order, RefusalKind::Stale, &words).await?;
    for journal in [ControlRequest::Handover { from: 0 }, ControlRequest::HandoverCrossings { from: 0 }] {
        is_refused(&attacker, "a wish for a new journal", &journal, RefusalKind::NotAuthorised, &["new station"])
            .await?;
    }
    Ok(())
}
