//! The public door of a running station (R50a): which tokens let whom in, and what a crowd at the door costs.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use branchline::config::{Home, read_key};
use branchline::door::{DoorClient, DoorError};
use branchline::survey::required_signatures;
use branchline_protocol::charter::{BeginRequest, JoinToken, PublicKey, Release, Signed};
use branchline_protocol::ids::Hash;
use branchline_protocol::refusal::{Refusal, RefusalKind};
use branchline_protocol::time::UnixSeconds;
use branchline_tests::kept_demo::KeptDemo;
use branchline_tests::newcomer::home_of;
use ed25519_dalek::SigningKey;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

const MIB: u64 = 1 << 20;

/// A machine that speaks to the door as it pleases.
struct Stranger {
    key: SigningKey,
    door: DoorClient,
}

impl Stranger {
    fn new(seed: u8, token: &JoinToken) -> Self {
        Self { key: SigningKey::from_bytes(&[seed; 32]), door: DoorClient::new(token.door, token.door_fingerprint) }
    }

    fn request(&self, token: &str) -> BeginRequest {
        BeginRequest {
            token: token.to_owned(),
            node: PublicKey::of(&self.key).0,
            machine_identifier: "a machine of nobody".to_owned(),
            host_name: "stranger".to_owned(),
        }
    }

    /// What the station says where it does not let the stranger in.
    async fn refused(&self, request: &BeginRequest) -> Result<Refusal> {
        match self.door.begin(&Signed::sign(request, &self.key)).await {
            Err(DoorError::Refused(refusal)) => Ok(refusal),
            other => bail!("the station answers {other:?}"),
        }
    }
}

fn refused(demo: &KeptDemo, name: &str, token: &str) -> Result<String> {
    match demo.join(name, token) {
        Ok(said) => bail!("{name} was let in: {said}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn mistyped(token: &str) -> String {
    let mut wrong = token.to_owned();
    let last = if wrong.pop() == Some('a') { 'b' } else { 'a' };
    wrong.push(last);
    wrong
}

const COFFEE: &str = "signature_coffee() {\n    found machine model filter\n}\n";

/// What the door of a running station gives away is what the binary holds and the station's operator added (R43, R50a).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_door_gives_script_signatures_and_tool() -> Result<()> {
    let mut demo = KeptDemo::start(1)?;
    let directory = demo.path("signatures");
    std::fs::create_dir(&directory)?;
    std::fs::write(directory.join("50-coffee.sh"), COFFEE)?;
    let home = Home::open(&demo.path("station"))?;
    let mut config = home.config_or_default()?;
    config.station.signatures = Some(directory);
    home.save_config(&config)?;
    demo.kill_node("station")?;
    demo.start_node("station-again", "station")?;
    demo.wait_until(60, "the station gives tokens again", || Ok(demo.token(1).is_ok()))
        .with_context(|| demo.log("station-again"))?;
    let (_, token) = Signed::<JoinToken>::from_text(&demo.token(1)?)?;
    let door = Stranger::new(40, &token).door;

    let names: Vec<String> = serde_json::from_slice(&door.get("/signatures").await?)?;
    let mut expected: Vec<String> = required_signatures().map(|(name, _)| name.to_owned()).into();
    expected.push("50-coffee.sh".to_owned());
    assert_eq!(names, expected);
    for (name, text) in required_signatures().into_iter().chain([("50-coffee.sh", COFFEE)]) {
        ensure!(door.get(&format!("/signatures/{name}")).await? == text.as_bytes(), "the door's {name} is another");
    }

    let script = demo.path("survey.sh");
    std::fs::write(&script, door.get("/survey.sh").await?)?;
    let survey = Command::new("sh").arg(&script).output()?;
    ensure!(survey.status.success(), "{}", String::from_utf8_lossy(&survey.stderr));
    let descriptor = demo.path("descriptor.xml");
    std::fs::write(&descriptor, &survey.stdout)?;
    let status = Command::new(demo.program()).arg("survey").arg("--validate").arg(&descriptor).status()?;
    ensure!(status.success(), "the door's script writes no valid descriptor");
    ensure!(String::from_utf8_lossy(&survey.stdout).contains("filter"), "the added signature has found nothing");

    let tool = door.get("/install-tool").await?;
    ensure!(Hash::of(&tool) == Hash::of(&std::fs::read(demo.program())?), "the install tool is not this binary");
    a_host_surveys_itself(&demo, false)?;
    the_owner_has_signed_both(&demo, &demo.token(1)?)?;
    a_host_surveys_itself(&demo, true)
}

/// A host that surveys itself again runs the station's script, with the operator's signature in it, once the owner has signed
/// that (R43, R50a), and tells what has changed since the survey before (R47).
fn a_host_surveys_itself(demo: &KeptDemo, is_signed: bool) -> Result<()> {
    let root = demo.path("hosts/till-1/root");
    let release = root.join("etc/os-release");
    let text = std::fs::read_to_string(&release)?;
    let version = if is_signed { "13" } else { "12.9" };
    let lines = text.lines().map(|line| match line.starts_with("VERSION_ID=") {
        true => format!("VERSION_ID=\"{version}\"\n"),
        false => format!("{line}\n"),
    });
    std::fs::write(&release, lines.collect::<String>())?;
    let shown = || demo.json::<Value>("station", &["sessions", "show", "till-1"]);
    let before = shown()?;
    demo.run("station", &["sessions", "update", "till-1"])?;
    demo.wait_until(90, "the next generation is complete", || {
        let shown = shown()?;
        Ok(shown["stage"] == "complete" && shown["session"] != before["session"])
    })
    .with_context(|| format!("{:#}", shown().unwrap_or_default()))?;
    let descriptor = std::fs::read_to_string(demo.path("hosts/till-1/home/surveys/descriptor.xml"))?;
    ensure!(descriptor.contains("coffee") == is_signed, "signed: {is_signed}\n{descriptor}");
    let events = shown()?["events"].to_string();
    ensure!(events.contains("Changed since the survey before:"), "{events}");
    ensure!(events.contains(&format!("-> {version}")), "{events}");
    Ok(())
}

/// What the owner has signed is fetched, and OpenSSH says the same of it; what the owner has not signed is not.
fn the_owner_has_signed_both(demo: &KeptDemo, token: &str) -> Result<()> {
    let owner = PublicKey::of(&read_key(&demo.path("bundle/owner.key"))?).to_string();
    let fetch = |out: &Path| -> Result<(bool, String)> {
        let output =
            Command::new(demo.program()).args(["fetch", token, "--owner", &owner, "--out"]).arg(out).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let first = demo.path("fetched-first");
    let (done, said) = fetch(&first)?;
    println!("fetch, with a signature that the owner does not know: {said}");
    ensure!(!done && said.contains("the owner has not signed the survey script"), "{said}");
    ensure!(first.join("branchline").exists() && !first.join("survey.sh").exists(), "written without a signature");

    // The owner signs the script with the operator's signature too.
    let signatures = demo.path("signatures").display().to_string();
    let release = |further: &[&str]| -> Result<Value> {
        let mut command = Command::new(demo.program());
        command.arg("release").arg("--json").arg("--bundle").arg(demo.path("bundle")).args(further);
        Ok(serde_json::from_slice(&command.output()?.stdout)?)
    };
    let signed = release(&["--signatures", &signatures])?;
    ensure!(signed["version"] == 2 && signed["files"].as_array().map(Vec::len) == Some(3), "{signed:#}");
    let path = demo.path("bundle/release.json").display().to_string();
    let published: Value = demo.json("headquarters", &["publish", "--release", &path])?;
    ensure!(published["release_is_new"] == true, "{published}");
    let second = demo.path("fetched-second");
    demo.wait_until(30, "the release is at the station", || Ok(fetch(&second)?.0))?;
    ensure!(std::fs::read(second.join("branchline"))? == std::fs::read(demo.program())?, "another tool");
    ensure!(std::fs::read_to_string(second.join("survey.sh"))?.contains("coffee"), "another script");

    let signers = demo.path("allowed-signers");
    std::fs::write(&signers, signed["allowed_signer"].as_str().context("no line for OpenSSH")?)?;
    let openssh = |purpose: &str, file: &str, content: &str| -> Result<bool> {
        let mut command = Command::new("ssh-keygen");
        command.args(["-Y", "verify", "-I", "owner", "-n", &format!("branchline-{purpose}")]).arg("-f").arg(&signers);
        command.arg("-s").arg(second.join(format!("{file}.sig"))).stdin(std::fs::File::open(second.join(content))?);
        let output = command.output().context("ssh-keygen (package openssh-client)")?;
        println!("{file}: {}", String::from_utf8_lossy(&output.stdout).trim_end());
        Ok(output.status.success())
    };
    ensure!(openssh("install-tool", "branchline", "branchline")?, "OpenSSH refuses the tool's signature");
    ensure!(openssh("survey-script", "survey.sh", "survey.sh")?, "OpenSSH refuses the script's signature");
    ensure!(!openssh("survey-script", "survey.sh", "branchline")?, "OpenSSH takes another file");
    ensure!(!openssh("install-tool", "survey.sh", "survey.sh")?, "OpenSSH takes a script for a tool");

    // A captured station makes a token that names a key of its own as the owner's.
    let (_, token) = Signed::<JoinToken>::from_text(token)?;
    let station = read_key(&demo.path("station/identity.key"))?;
    let captured = JoinToken { root: PublicKey::of(&station).root_hash(), ..token };
    let text = Signed::sign(&captured, &station).to_text();
    let output = Command::new(demo.program()).args(["fetch", &text, "--owner", &owner]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("names another owner"), "{said}");

    // An older release, and one by another key than the owner's, are refused where they would enter.
    let older = serde_json::to_string(&Signed::sign(
        &Release { site: "demo".parse()?, version: 1, files: vec![] },
        &read_key(&demo.path("bundle/owner.key"))?,
    ))?;
    let foreign = serde_json::to_string(&Signed::sign(
        &Release { site: "demo".parse()?, version: 9, files: vec![] },
        &read_key(&demo.path("bundle/catalogue.key"))?,
    ))?;
    for (text, words) in [(older, "older than version 2"), (foreign, "must sign it")] {
        std::fs::write(demo.path("other.json"), text)?;
        let other = demo.path("other.json").display().to_string();
        let said = format!("{:#}", demo.run("headquarters", &["publish", "--release", &other]).unwrap_err());
        ensure!(said.contains(words), "{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_door_lets_in_who_has_a_good_token_and_bears_a_crowd() -> Result<()> {
    let demo = KeptDemo::start(1)?;
    for (name, last) in [("till-a", 101), ("till-b", 102), ("till-c", 103), ("till-d", 104)] {
        demo.machine(name, last, &[])?;
    }
    let text = demo.token(1)?;
    let (_, token) = Signed::<JoinToken>::from_text(&text)?;
    let home = Home::open(&demo.path("station"))?;
    let station = read_key(&home.path("identity.key"))?;
    bad_tokens(&demo, &station, &text, &token).await?;
    // None of those was a use.
    demo.join("till-a", &text)?;
    a_used_token(&demo, &text, &token).await?;
    one_crowd_from_one_address(&demo, &token).await?;
    crowds_from_many_addresses(&demo, &token).await?;
    let sessions: Value = demo.json("station", &["sessions", "list"])?;
    assert_eq!(sessions.as_array().map(Vec::len), Some(1), "only who runs has a session: {sessions:#}");
    Ok(())
}

async fn bad_tokens(demo: &KeptDemo, station: &SigningKey, text: &str, token: &JoinToken) -> Result<()> {
    let stranger = Stranger::new(41, token);
    let signed = |change: &dyn Fn(&mut JoinToken), key: &SigningKey| {
        let mut token = token.clone();
        change(&mut token);
        Signed::sign(&token, key).to_text()
    };
    let thief = SigningKey::from_bytes(&[66; 32]);
    let expired = signed(&|token| token.expires_at = UnixSeconds(1_700_000_000), station);
    let of_another_site = signed(&|token| token.site = "elsewhere".parse().unwrap(), station);
    let of_a_thief = signed(&|_| {}, &thief);
    let of_another_station = signed(&|token| token.station = PublicKey::of(&thief).0, &thief);
    let unknown = signed(&|token| token.identifier = [3; 16], station);
    // What the station says, where a program leaves out the joiner's own checks.
    for (what, token, words) in [
        ("nothing", String::new(), "not a join token"),
        ("a text that is none", "let me in".to_owned(), "not a join token"),
        ("a mistyped token", mistyped(text), "the join token is damaged"),
        ("a token of a thief", of_a_thief.clone(), "not signed by the station that it names"),
        ("a token of another station", of_another_station, "the token is for station"),
        ("a token for another site", of_another_site.clone(), "of site elsewhere"),
        ("an expired token", expired.clone(), "the token has expired"),
        ("a token that nobody made", unknown.clone(), "made no such token"),
    ] {
        let refusal = stranger.refused(&stranger.request(&token)).await.with_context(|| what.to_owned())?;
        println!("{what}: {refusal}");
        ensure!(refusal.kind == RefusalKind::Token && refusal.reason.contains(words), "{what}: {refusal:?}");
    }
    let for_another = BeginRequest { node: PublicKey::of(&thief).0, ..stranger.request(text) };
    let refusal = stranger.refused(&for_another).await?;
    ensure!(refusal.kind == RefusalKind::BadSignature, "a request for another identity: {refusal:?}");
    let nameless = BeginRequest { machine_identifier: String::new(), ..stranger.request(text) };
    let refusal = stranger.refused(&nameless).await?;
    ensure!(refusal.kind == RefusalKind::Malformed, "a request of no machine: {refusal:?}");

    // What the command says to whoever types it.
    for (what, token, words) in [
        ("a mistyped token", mistyped(text), "copy the whole line"),
        ("an expired token", expired, "ask the station's operator for a new one"),
        ("a token for another site", of_another_site, "of site elsewhere"),
        ("a token that nobody made", unknown, "made no such token"),
        ("a token of a thief", of_a_thief, "not signed by the station that it names"),
    ] {
        let said = refused(demo, "till-d", &token)?;
        println!("join, {what}: {}", said.lines().last().unwrap_or_default());
        ensure!(said.contains(words), "{what}: {said}");
    }
    let pretended = DoorClient::new(token.door, Hash::of(b"another certificate"));
    match pretended.begin(&Signed::sign(&stranger.request(text), &stranger.key)).await {
        Err(DoorError::NotTheStation { reason, .. }) => println!("another certificate: {reason}"),
        other => bail!("a door with another certificate is believed: {other:?}"),
    }
    // The station takes it, as it made a token of that name; the joiner sees whose charter it is given.
    let (_, other) = Signed::<JoinToken>::from_text(&demo.token(1)?)?;
    let with_root = JoinToken { root: Hash::of(b"another owner"), ..other };
    let said = refused(demo, "till-d", &Signed::sign(&with_root, station).to_text())?;
    println!("join, a token of another owner: {}", said.lines().last().unwrap_or_default());
    ensure!(said.contains("not the owner that the join token names"), "{said}");
    Ok(())
}

async fn a_used_token(demo: &KeptDemo, text: &str, token: &JoinToken) -> Result<()> {
    let said = refused(demo, "till-b", text)?;
    ensure!(said.contains("was used 1 times") && said.contains("ask for a new one"), "{said}");
    // The answer may have been lost on its way: the same machine gets it again, and that is no second use.
    demo.join("till-a", text)?;
    let stranger = Stranger::new(42, token);
    let refusal = stranger.refused(&stranger.request(text)).await?;
    println!("a used token: {refusal}");
    // A stolen identity is no way in either: the station knows which machine has it.
    let (key, _) = demo.papers(&home_of("till-a"))?;
    let copy = Stranger { key, ..stranger };
    let refusal = copy.refused(&copy.request(text)).await?;
    println!("a copy of a member: {refusal}");
    ensure!(refusal.kind == RefusalKind::DuplicateIdentity, "{refusal:?}");
    Ok(())
}

/// Connections that say nothing.
async fn crowd(door: SocketAddr, from: IpAddr, number: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..number {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        match tokio::time::timeout(Duration::from_millis(300), socket.connect(door)).await {
            Ok(Ok(stream)) => held.push(stream),
            // The kernel's backlog is full.
            _ => break,
        }
    }
    held
}

/// Resident bytes and open files of the station's process.
fn costs(demo: &KeptDemo) -> Result<(u64, usize)> {
    let line = format!("run --home {} ", demo.path("station").display());
    let [process] = demo.processes(&line)[..] else { bail!("{:?} processes", demo.processes(&line)) };
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse()?;
    Ok((kib << 10, std::fs::read_dir(format!("/proc/{process}/fd"))?.count()))
}

async fn one_crowd_from_one_address(demo: &KeptDemo, token: &JoinToken) -> Result<()> {
    let fresh = demo.token(1)?;
    let (_, files) = costs(demo)?;
    let held = crowd(token.door, demo.address(200)?.into(), 200).await;
    ensure!(held.len() >= 150, "only {} connections", held.len());
    let (_, crowded) = costs(demo)?;
    ensure!(crowded <= files + 16 + 16, "{files} files before, {crowded} now");
    let started = Instant::now();
    demo.join("till-b", &fresh)?;
    println!("joined in {:?} beside {} silent connections of one address", started.elapsed(), held.len());
    ensure!(started.elapsed() < Duration::from_secs(9), "one address shuts the door for others");
    Ok(())
}

async fn crowds_from_many_addresses(demo: &KeptDemo, token: &JoinToken) -> Result<()> {
    let fresh = demo.token(1)?;
    let (bytes, files) = costs(demo)?;
    let mut held = Vec::new();
    for last in 150..170 {
        held.extend(crowd(token.door, demo.address(last)?.into(), 15).await);
    }
    ensure!(held.len() >= 100, "only {} connections", held.len());
    let (crowded_bytes, crowded_files) = costs(demo)?;
    println!(
        "{} silent connections: {} KiB, {} files more",
        held.len(),
        (crowded_bytes.saturating_sub(bytes)) >> 10,
        { crowded_files.saturating_sub(files) }
    );
    ensure!(crowded_files <= files + 64 + 16, "{files} files before, {crowded_files} now");
    ensure!(crowded_bytes <= bytes + 16 * MIB, "{bytes} bytes before, {crowded_bytes} now");
    // The station goes on with its members meanwhile, and with newcomers when the crowd is gone.
    let till: Value = demo.json("hosts/till-1/home", &["status"])?;
    ensure!(till["neighbours"].as_array().is_some_and(|nodes| !nodes.is_empty()), "{till:#}");
    drop(held);
    demo.wait_until(20, "a machine joins after the crowd", || demo.join("till-c", &fresh).map(|_| true))
}
