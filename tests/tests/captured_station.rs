//! A captured station: its keys are in the tester's hands, and every running host, network process and installer, refuses
//! everything that its owner, the catalogue's keeper and the site's administrator have not signed, and says why (R62,
//! R87, R122).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use branchline::config::{Home, read_key};
use branchline::install::{InstallOrder, InstallerClient, InstallerOutcome, InstallerRequest};
use branchline::mesh::{Documents, SiteState};
use branchline_protocol::catalogue::{Catalogue, SitePolicy, StepAction, StepDefinition};
use branchline_protocol::charter::{Charter, Keys, PublicKey, Sealed, Signed};
use branchline_protocol::ids::{DocumentHash, Epoch, Hash, PlanHash, SessionId};
use branchline_protocol::limits::{CONTROL_MESSAGE_BYTES_MAX, SEALED_SURVEY_BYTES_MAX};
use branchline_protocol::plan::{self, Plan};
use branchline_protocol::session::{Directive, HostReport, HostState, Order, Stage};
use branchline_protocol::survey::Descriptor;
use branchline_protocol::wire::codec;
use branchline_protocol::wire::control::{ControlAnswer, ControlRequest, DocumentKind};
use branchline_tests::attacker::Attacker;
use branchline_tests::kept_demo::{KeptDemo, tree};
use branchline_tests::newcomer::SITE;
use ed25519_dalek::SigningKey;
use serde_json::Value;

/// The hosts of the site: the second has network file systems and the third is in a cluster, so that their plans differ.
const HOSTS: [&str; 3] = ["till-1", "till-2", "till-3"];

fn home(host: &str) -> String {
    format!("hosts/{host}/home")
}

/// The station's key, and everything that a captured station knows.
struct Station {
    demo: KeptDemo,
    key: SigningKey,
    site: SiteState,
    documents: Documents,
    /// The catalogue before the newest one, with a good signature.
    old: Signed<Catalogue>,
    epoch: Epoch,
}

/// A captured station at work on one host.
struct Captured<'a> {
    station: &'a Station,
    host: &'static str,
    attacker: Attacker,
    installer: InstallerClient,
    generation: u32,
    revision: u64,
}

/// The documents of one order.
#[derive(Clone)]
struct Papers {
    charter: Signed<Charter>,
    catalogue: Signed<Catalogue>,
    policy: Signed<SitePolicy>,
    descriptor: Descriptor,
    plan: Plan,
}

fn json<T: serde::Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap()
}

/// Everything but the signature may be read by anybody.
fn body<T: branchline_protocol::charter::Document>(signed: &Signed<T>) -> T {
    signed.verify(signed.signer()).unwrap()
}

/// A site in which the hosts have seen a newer catalogue than their first; then the station falls into the wrong hands.
fn capture() -> Result<Station> {
    let demo = KeptDemo::start(u8::try_from(HOSTS.len())?)?;
    let (version, old) = demo.change_catalogue(|_| {})?;
    for host in HOSTS {
        demo.wait_for_catalogue(&home(host), version)?;
    }
    demo.kill_node("station")?;

    let station = Home::open(&demo.path("station"))?;
    let key = read_key(&station.path("identity.key"))?;
    let documents = Documents::load(station, key.clone(), demo.seat("station")?.addresses, "captured")?;
    let site = documents.site(&SITE.parse()?).context("the station knows no site")?;
    let epoch = site.authority.charter().epoch();
    Ok(Station { demo, key, site, documents, old, epoch })
}

impl<'a> Captured<'a> {
    async fn turn_to(station: &'a Station, host: &'static str) -> Result<Self> {
        let hello = station.documents.hello(&SITE.parse()?).context("no hello")?;
        let victim = station.demo.seat(&home(host))?;
        let attacker = Attacker::start(&station.key, hello, victim.node, victim.addresses).await?;
        let last = attacker.report().await?;
        let installer = InstallerClient::new(station.demo.path(&format!("hosts/{host}/installer.sock")));
        let (generation, revision) = (last.session.generation + 1, last.directive_seen);
        Ok(Self { station, host, attacker, installer, generation, revision })
    }

    async fn order(&mut self, order: Order, answers: impl Fn(&HostReport) -> bool) -> Result<HostReport> {
        self.revision += 1;
        let directive = Directive {
            session: SessionId { node: self.attacker.victim(), generation: self.generation },
            epoch: self.station.epoch,
            revision: self.revision,
            stage: Stage::Selected,
            order,
            events_durable: 0,
        };
        self.attacker.direct(directive, answers).await
    }

    /// The host surveys itself for the new generation, as any station may ask, and this station may read the survey.
    async fn papers(&mut self) -> Result<Papers> {
        let report = self.order(Order::Survey, |report| report.state == HostState::Surveyed).await?;
        let hash = report.survey.context("no survey is named")?;
        let encoded = match self.attacker.survey(hash) {
            Some(encoded) => encoded,
            None => match self.attacker.ask(&ControlRequest::Survey(hash)).await? {
                ControlAnswer::Survey(encoded) => encoded,
                other => anyhow::bail!("no survey: {other:?}"),
            },
        };
        let sealed: Sealed = codec::decode(&encoded, SEALED_SURVEY_BYTES_MAX)?;
        let descriptor = Descriptor::parse(&sealed.open(&self.station.key)?)?;
        let site = &self.station.site;
        let (charter, catalogue, policy) =
            (site.authority.signed_charter().clone(), site.catalogue.clone().unwrap(), site.policy.clone().unwrap());
        let plan = self.plan(&descriptor, &catalogue, &policy)?;
        Ok(Papers { charter, catalogue, policy, descriptor, plan })
    }

    /// The plan that follows from documents, whoever signed them.
    fn plan(&self, descriptor: &Descriptor, c: &Signed<Catalogue>, p: &Signed<SitePolicy>) -> Result<Plan> {
        let (catalogue, policy) = (body(c), body(p));
        Ok(plan::select(self.attacker.victim(), descriptor, (&catalogue, c.hash()), (&policy, p.hash()))?)
    }

    /// Orders what follows from the papers and offers them.
    async fn prepare(&mut self, papers: &Papers, answers: impl Fn(&HostReport) -> bool) -> Result<HostReport> {
        self.attacker.offer(DocumentKind::Catalogue, json(&papers.catalogue));
        self.attacker.offer(DocumentKind::Policy, json(&papers.policy));
        let order = Order::Prepare {
            plan: papers.plan.hash(),
            catalogue: papers.catalogue.hash(),
            policy: papers.policy.hash(),
            descriptor: Hash(*papers.descriptor.content_hash().as_bytes()),
            packs: papers.plan.packs(),
        };
        self.order(order, answers).await
    }

    /// The network process refuses the papers, in its report and in what `branchline status` shows on the host; the
    /// installer, asked directly as by a network process that was captured too, refuses them by itself.
    async fn is_refused(&mut self, what: &str, papers: &Papers, words: &str, installer_words: &str) -> Result<()> {
        let answer = refusal_with(words);
        let report = self.prepare(papers, answer).await.with_context(|| format!("offering {what}"))?;
        let HostState::Refused { reason } = report.state else { anyhow::bail!("{:?}", report.state) };
        println!("{what}: {reason}");
        let status: Value = self.station.demo.json(&home(self.host), &["status"])?;
        ensure!(status["host"]["state"]["refused"]["reason"] == reason, "{what}: {status:#}");
        self.installer_refuses(what, papers, installer_words).await
    }

    async fn installer_refuses(&self, what: &str, papers: &Papers, words: &str) -> Result<()> {
        let order = InstallOrder {
            node: self.attacker.victim(),
            charter: papers.charter.clone(),
            catalogue: papers.catalogue.clone(),
            policy: papers.policy.clone(),
            descriptor_xml: std::fs::read_to_string(
                self.station.demo.path(&home(self.host)).join("surveys/descriptor.xml"),
            )?,
            plan: papers.plan.hash(),
            packs: Vec::new(),
            events_seen: 0,
        };
        match self.installer.outcome(&InstallerRequest::Install(Box::new(order))).await? {
            InstallerOutcome::Refused(refusal) if refusal.reason.contains(words) => {
                println!("{what}, to the installer: {}", refusal.reason);
                Ok(())
            }
            other => anyhow::bail!("{what}: the installer says {other:?}, which does not contain {words:?}"),
        }
    }

    /// The host's notices, once one contains `words`.
    fn notice(&self, words: &str) -> Result<()> {
        self.station.demo.wait_until(10, &format!("a notice says {words:?}"), || {
            let status: Value = self.station.demo.json(&home(self.host), &["status"])?;
            Ok(status["notices"].to_string().contains(words))
        })?;
        ensure!(self.station.demo.log(self.host).contains(words), "the log does not say {words:?}");
        println!("notice: {words}");
        Ok(())
    }
}

fn refusal_with(words: &str) -> impl Fn(&HostReport) -> bool + use<> {
    let words = words.to_owned();
    move |report| matches!(&report.state, HostState::Refused { reason } if reason.contains(&words))
}

/// The catalogue's package with a step that would have cron run a command as root.
fn with_a_command(catalogue: &Signed<Catalogue>) -> Catalogue {
    let mut changed = body(catalogue);
    changed.version += 1;
    let (path, content) = ("/etc/cron.d/owned".to_owned(), "* * * * * root id >/owned\n".to_owned());
    let action = StepAction::WriteFile { path, mode: 0o644, owner: None, content };
    changed.packages[0].definition.steps.push(StepDefinition { action, undo: None, is_final: false });
    changed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_every_host_refuses_what_a_captured_station_offers_and_says_why() -> Result<()> {
    let station = capture()?;
    let roots =
        || HOSTS.iter().map(|host| tree(&station.demo.path(&format!("hosts/{host}/root")))).collect::<Result<Vec<_>>>();
    let before = roots()?;
    let agents = station.demo.processes("agent.toml");
    assert_eq!(agents.len(), HOSTS.len(), "an agent runs on every host");
    let mut plans = BTreeSet::new();
    for host in HOSTS {
        println!("{host}");
        plans.insert(refuses_everything(&station, host).await.with_context(|| host.to_owned())?);
    }
    assert_eq!(plans.len(), HOSTS.len(), "every host was offered a plan of its own");
    assert_eq!(roots()?, before, "nothing on any host has changed");
    assert_eq!(station.demo.processes("agent.toml"), agents, "the agents run on");
    Ok(())
}

/// Everything that a captured station could think of, on one host; gives the plan that the host would have taken.
async fn refuses_everything(station: &Station, host: &'static str) -> Result<PlanHash> {
    let mut captured = Captured::turn_to(station, host).await?;
    let true_papers = captured.papers().await?;

    // Over this very wire an honest order is taken: what follows is refused for what it says.
    let holds = |report: &HostReport| matches!(report.state, HostState::Accepted { .. } | HostState::Staged { .. });
    captured.prepare(&true_papers, holds).await.context("an honest order")?;

    changed_policy_and_plan(&mut captured, &true_papers).await?;
    // With the plan the installer has seen the newer catalogue: the order in which an honest station brings it.
    unsigned_and_old(&mut captured, &true_papers).await?;
    commands(&mut captured).await?;
    a_charter_of_its_own(&mut captured, &true_papers).await?;
    Ok(true_papers.plan.hash())
}

async fn unsigned_and_old(captured: &mut Captured<'_>, papers: &Papers) -> Result<()> {
    let forged = Signed::sign(&with_a_command(&papers.catalogue), &captured.station.key);
    let plan = captured.plan(&papers.descriptor, &forged, &papers.policy)?;
    let offer = Papers { catalogue: forged, plan, ..papers.clone() };
    let words = "the catalogue is signed by";
    captured.is_refused("an unsigned package", &offer, words, words).await?;
    captured.notice_of_anti_entropy(&offer, words).await?;

    let mut text = serde_json::to_value(&papers.catalogue)?;
    let changed = text["body"].as_str().context("no body")?.replacen("sample-agent", "rogue-agent!", 1);
    text["body"] = changed.into();
    let offer = Papers { catalogue: serde_json::from_value(text)?, ..papers.clone() };
    let words = "the signature of the catalogue does not hold";
    captured.is_refused("a changed package", &offer, words, words).await?;

    let old = captured.station.old.clone();
    let plan = captured.plan(&papers.descriptor, &old, &papers.policy)?;
    let offer = Papers { catalogue: old, plan, ..papers.clone() };
    captured.is_refused("an old package", &offer, "is older than version", "is older than version").await
}

async fn changed_policy_and_plan(captured: &mut Captured<'_>, papers: &Papers) -> Result<()> {
    let mut policy = body(&papers.policy);
    policy.version += 1;
    policy.thresholds.clear();
    let policy = Signed::sign(&policy, &captured.station.key);
    let plan = captured.plan(&papers.descriptor, &papers.catalogue, &policy)?;
    let offer = Papers { policy, plan, ..papers.clone() };
    let words = "the site policy is signed by";
    captured.is_refused("a changed policy", &offer, words, words).await?;

    let mut plan = papers.plan.clone();
    plan.packages[0].files.clear();
    ensure!(plan.hash() != papers.plan.hash(), "the plan is not changed");
    let offer = Papers { plan, ..papers.clone() };
    captured.is_refused("a changed plan", &offer, "nothing is installed", "nothing is done").await
}

/// There is no command to give: the wire knows none, and an order names a plan that the host agreed to before.
async fn commands(captured: &mut Captured<'_>) -> Result<()> {
    let plan = PlanHash(Hash::of(b"rm -rf /"));
    let words = "the installation of plan";
    let report = captured.order(Order::Install { plan }, refusal_with(words)).await?;
    println!("an installation that was never agreed: {:?}", report.state);

    // A kind of request that no version knows, with a command line in it.
    let mut bytes = 4711u32.to_le_bytes().to_vec();
    bytes.extend(b"/bin/sh -c 'id >/owned'");
    let answer = codec::decode(&captured.attacker.send(bytes).await?, CONTROL_MESSAGE_BYTES_MAX)?;
    let words = "a request that this node does not know";
    match answer {
        ControlAnswer::Refused(refusal) if refusal.reason.contains(words) => println!("a command: {refusal}"),
        other => anyhow::bail!("a command is answered by {other:?}"),
    }
    captured.notice(words)
}

/// The way to everything else would be a charter that names other keys.
async fn a_charter_of_its_own(captured: &mut Captured<'_>, papers: &Papers) -> Result<()> {
    let own = PublicKey::of(&captured.station.key);
    let charter = Charter {
        version: body(&papers.charter).version + 1,
        keys: Keys { catalogue: own, administrator: own, approvers: vec![own] },
        ..body(&papers.charter)
    };
    let charter = Signed::sign(&charter, &captured.station.key);
    let words = "must sign it";
    let offer = Papers { charter: charter.clone(), ..papers.clone() };
    captured.installer_refuses("a charter of its own", &offer, words).await?;
    let mut hello = captured.attacker.hello();
    hello.charter = charter;
    match captured.attacker.say_hello(&hello).await? {
        ControlAnswer::Refused(refusal) => println!("a charter of its own: {refusal}"),
        other => anyhow::bail!("a charter of its own is answered by {other:?}"),
    }
    captured.notice("belongs to another owner here")
}

impl Captured<'_> {
    /// The same document, spread by the mesh's own exchange of versions instead of an order.
    async fn notice_of_anti_entropy(&self, papers: &Papers, words: &str) -> Result<()> {
        self.attacker.offer(DocumentKind::Catalogue, json(&papers.catalogue));
        let mut hello = self.attacker.hello();
        let seen: Option<(u64, DocumentHash)> = hello.documents.catalogue;
        hello.documents.catalogue = seen.map(|(version, _)| (version + 10, papers.catalogue.hash()));
        self.attacker.say_hello(&hello).await?;
        self.notice(words)
    }
}
