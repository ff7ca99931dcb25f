//! A membership that has ended is good for its renewal by the station, and for nothing else: also on a connection that
//! has outlived it (R50a).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use branchline::config::{Home, read_key};
use branchline::mesh::Documents;
use branchline::runtime::wall_time;
use branchline_protocol::charter::{Membership, PublicKey, Signed};
use branchline_protocol::ids::SiteName;
use branchline_protocol::refusal::RefusalKind;
use branchline_protocol::wire::control::{ControlAnswer, ControlRequest, DocumentKind, Hello};
use branchline_tests::attacker::Attacker;
use branchline_tests::kept_demo::KeptDemo;
use branchline_tests::newcomer::SITE;
use ed25519_dalek::SigningKey;

const MEMBER: &str = "hosts/till-2/home";
const LIFE_SECONDS: u64 = 8;

/// A host that was switched off, in the tester's hands, and its station's key.
struct Member {
    key: SigningKey,
    station: SigningKey,
    hello: Hello,
    membership: Membership,
}

impl Member {
    fn of(demo: &KeptDemo) -> Result<Self> {
        demo.kill_node(MEMBER)?;
        let station = read_key(&Home::open(&demo.path("station"))?.path("identity.key"))?;
        let home = Home::open(&demo.path(MEMBER))?;
        let key = read_key(&home.path("identity.key"))?;
        let site: SiteName = SITE.parse()?;
        let documents = Documents::load(home, key.clone(), demo.seat(MEMBER)?.addresses, "")?;
        let signed = documents.site(&site).and_then(|state| state.membership).context("till-2 has no membership")?;
        let membership = signed.verify(PublicKey::of(&station))?;
        let mut hello = documents.hello(&site).context("no hello")?;
        hello.machine_identifier.clone_from(&membership.machine_identifier);
        Ok(Self { key, station, hello, membership })
    }

    /// Shows a membership that ends in so many seconds, as the station would have signed it.
    fn with_life(&self, seconds: u64) -> Hello {
        let now = wall_time();
        let membership = Membership { issued_at: now, expires_at: now.after(seconds), ..self.membership.clone() };
        Hello { membership: Some(Signed::sign(&membership, &self.station)), ..self.hello.clone() }
    }
}

async fn is_refused(member: &Attacker, when: &str) -> Result<()> {
    for request in [ControlRequest::Peers, ControlRequest::Document(DocumentKind::Catalogue)] {
        match member.ask(&request).await? {
            ControlAnswer::Refused(refusal) if refusal.kind == RefusalKind::NotAMember => {}
            other => bail!("{when}: {request:?} is answered by {other:?}"),
        }
    }
    Ok(())
}

async fn is_served(member: &Attacker, when: &str) -> Result<()> {
    match member.ask(&ControlRequest::Peers).await? {
        ControlAnswer::Peers(_) => Ok(()),
        other => bail!("{when}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_membership_that_has_ended_is_good_for_its_renewal_only() -> Result<()> {
    let demo = KeptDemo::start(2)?;
    let member = Member::of(&demo)?;
    let (host, station) = (demo.seat("hosts/till-1/home")?, demo.seat("station")?);

    let hello = member.with_life(LIFE_SECONDS);
    let at_host = Attacker::start(&member.key, hello.clone(), host.node, host.addresses).await?;
    is_served(&at_host, "while its membership lives").await?;
    tokio::time::sleep(Duration::from_secs(LIFE_SECONDS + 1)).await;
    is_refused(&at_host, "on a connection that outlived the membership").await?;
    ensure!(matches!(at_host.say_hello(&hello).await?, ControlAnswer::Refused(_)), "a host takes an ended membership");
    drop(at_host);
    tokio::time::sleep(Duration::from_secs(1)).await;

    // A host that was off for longer than its membership lived comes back without a token.
    let at_station = Attacker::start(&member.key, hello, station.node, station.addresses).await?;
    is_refused(&at_station, "with an ended membership at the station").await?;
    let ControlAnswer::Membership(renewed) = at_station.ask(&ControlRequest::RenewMembership).await? else {
        bail!("the station renews nothing");
    };
    let body: Membership = renewed.verify(PublicKey::of(&member.station))?;
    ensure!(body.expires_at > wall_time() && body.node == member.membership.node, "{body:?}");
    let hello = Hello { membership: Some(renewed), ..member.hello.clone() };
    ensure!(matches!(at_station.say_hello(&hello).await?, ControlAnswer::Hello(_)), "the renewed one is refused");
    is_served(&at_station, "with the renewed membership").await
}

/// R98: what a withdrawn host had of papers gets it nowhere any more, though its membership has not ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_withdrawn_host_is_no_member_any_more() -> Result<()> {
    let mut demo = KeptDemo::start(2)?;
    let member = Member::of(&demo)?;
    let victims = [demo.seat("station")?, demo.seat("hosts/till-1/home")?];
    for seat in &victims {
        let before = Attacker::start(&member.key, member.hello.clone(), seat.node, seat.addresses).await?;
        is_served(&before, "before the withdrawal").await?;
        drop(before);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    demo.start_node("till-2-again", MEMBER)?;
    demo.run("station", &["sessions", "withdraw", "till-2"])?;
    // The session is withdrawn at once; the papers are, once the host has confirmed that its agent is gone.
    demo.wait_until(90, "till-2 is withdrawn and put out", || {
        let shown: serde_json::Value = demo.json("station", &["sessions", "show", "till-2"])?;
        Ok(shown["stage"] == "withdrawn" && shown["history"].to_string().contains("Membership revoked."))
    })?;
    demo.kill_node(MEMBER)?;
    ensure!(member.membership.expires_at > wall_time(), "the membership would have ended by itself");
    for seat in victims {
        // The list of revoked members takes a moment from the station to the host.
        let limit = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let at_victim = Attacker::connect(&member.key, member.hello.clone(), seat.node, seat.addresses)?;
            match at_victim.say_hello(&member.hello).await {
                Ok(ControlAnswer::Refused(refusal)) => {
                    println!("{}: {refusal}", seat.node);
                    ensure!(refusal.to_string().contains("was revoked"), "refused for something else: {refusal}");
                    is_refused(&at_victim, "after the withdrawal").await?;
                    break;
                }
                other => ensure!(tokio::time::Instant::now() < limit, "{seat:?} takes a withdrawn host: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}
