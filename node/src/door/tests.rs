//! What a machine that is no member gets at the door, and what it cannot do there (R50a).
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use branchline_protocol::{
    charter::{BeginRequest, DoorFile, FileSignature, PublicKey, Signed},
    ids::Hash,
    refusal::{Refusal, RefusalKind},
};
use ed25519_dalek::SigningKey;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{BeginInquiry, Door, DoorClient, DoorError, DoorFiles, InstallTool, REQUEST_BYTES_MAX};
use crate::{
    config::{DoorCertificate, Home},
    web::ConnectionLimits,
};

const SCRIPT: &str = "#!/bin/sh\necho survey\n";
const TOOL_BYTES: usize = 64 << 20;
/// The limit that a test is about; a busy computer must not reach it by itself.
const SHORT: Duration = Duration::from_secs(2);
/// Longer than any of the door's limits here, shorter than a test may take.
const LONG: Duration = Duration::from_secs(20);

struct Opened {
    address: SocketAddr,
    client: DoorClient,
    inquiries: mpsc::Receiver<BeginInquiry>,
    home: tempfile::TempDir,
}

async fn open(limits: ConnectionLimits) -> Opened {
    let home = tempfile::tempdir().unwrap();
    let certificate = DoorCertificate::load_or_create(&Home::create(home.path()).unwrap()).unwrap();
    let install_tool = home.path().join("tool");
    std::fs::File::create(&install_tool).unwrap().set_len(TOOL_BYTES as u64).unwrap();
    let signatures = [("cluster.sh".to_owned(), "# cluster\n".to_owned())].into();
    let files = DoorFiles {
        survey_script: SCRIPT.into(),
        signatures,
        install_tool: Arc::new(InstallTool::new(install_tool)),
        owner_signatures: Arc::new(signed),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inquiries = Door::serve(listener, &certificate, files, limits).unwrap();
    Opened { address, client: DoorClient::new(address, certificate.fingerprint()), inquiries, home }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits { patience: LONG, ..ConnectionLimits::default() }
}

impl Opened {
    async fn tcp(&self, from: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::from(from), 0)).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn tls(&self) -> TlsStream<TcpStream> {
        self.client.handshake(self.tcp([127, 0, 0, 1]).await).await.unwrap()
    }

    /// Sends bytes and reads until the door closes the connection.
    async fn say(&self, request: &[u8]) -> String {
        let mut stream = self.tls().await;
        stream.write_all(request).await.unwrap();
        rest(&mut stream).await
    }

    /// Nothing that was said so far has gone further than the door.
    fn station_heard_nothing(&mut self) {
        assert!(self.inquiries.try_recv().is_err(), "the station was bothered");
    }
}

async fn rest(stream: &mut TlsStream<TcpStream>) -> String {
    let mut said = Vec::new();
    // A door that cuts a connection says no goodbye.
    let _ = timeout(LONG, stream.read_to_end(&mut said)).await.expect("the door leaves the connection open");
    String::from_utf8_lossy(&said).into_owned()
}

fn request() -> Signed<BeginRequest> {
    let key = SigningKey::from_bytes(&[5; 32]);
    let request = BeginRequest {
        token: "branchline1.nothing".to_owned(),
        node: PublicKey::of(&key).0,
        machine_identifier: "machine".to_owned(),
        host_name: "till-9".to_owned(),
    };
    Signed::sign(&request, &key)
}

fn posted(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: door\r\nconnection: close\r\n{headers}\r\n{body}").into_bytes()
}

fn owner() -> SigningKey {
    SigningKey::from_bytes(&[70; 32])
}

/// What the owner has signed: the script, and a tool `good`. For other tools a captured station tries what it can.
fn signed(kind: DoorFile, sha256: Hash) -> Option<String> {
    let of = |text: &str| super::sha256(text.as_bytes());
    let signature = match kind {
        DoorFile::SurveyScript => FileSignature::sign(kind, sha256, &owner()),
        _ if sha256 == of("another tool") => FileSignature::sign(kind, of("good"), &owner()),
        _ if sha256 == of(SCRIPT) => FileSignature::sign(DoorFile::SurveyScript, sha256, &owner()),
        _ if sha256 == of("thief") => FileSignature::sign(kind, sha256, &SigningKey::from_bytes(&[71; 32])),
        _ if sha256 == of("good") => FileSignature::sign(kind, sha256, &owner()),
        _ if sha256 == of("long") => return Some("-".repeat(2000)),
        _ => return None,
    };
    Some(signature.to_string())
}

#[tokio::test]
async fn what_the_owner_has_not_signed_is_not_taken() {
    let door = open(limits()).await;
    let root = PublicKey::of(&owner()).root_hash();
    let (script, signature) = door.client.get_signed(DoorFile::SurveyScript, root).await.unwrap();
    assert_eq!((script.as_ref(), signature.signer().root_hash()), (SCRIPT.as_bytes(), root));
    let said = door.client.get_signed(DoorFile::SurveyScript, Hash([1; 32])).await.unwrap_err().to_string();
    assert!(said.contains("do not run it"), "{said}");
    let tool = door.home.path().join("tool");
    // An upgrade puts another tool in its place while the station runs.
    for (content, words) in [
        ("another tool", "the file is another than the one that was signed"),
        (SCRIPT, "it was made for another purpose"),
        ("thief", "it is signed by 12D3Koo"),
        ("long", "cannot be read"),
        ("unsigned", "the owner has not signed the install tool"),
    ] {
        std::fs::write(&tool, content).unwrap();
        let said = door.client.get_signed(DoorFile::InstallTool, root).await.unwrap_err().to_string();
        assert!(said.contains(words), "{content}: {said}");
    }
    std::fs::write(&tool, "good").unwrap();
    assert_eq!(door.client.get_signed(DoorFile::InstallTool, root).await.unwrap().0, "good");
    std::fs::remove_file(&tool).unwrap();
    let said = door.client.get_signed(DoorFile::InstallTool, root).await.unwrap_err().to_string();
    assert!(said.contains("the station cannot read its install tool: No such file"), "{said}");
}

#[tokio::test]
async fn the_door_gives_what_is_public_and_nothing_else() {
    let mut door = open(limits()).await;
    assert_eq!(door.client.get("/survey.sh").await.unwrap(), SCRIPT);
    assert_eq!(door.client.get("/signatures").await.unwrap(), "[\"cluster.sh\"]");
    assert_eq!(door.client.get("/signatures/cluster.sh").await.unwrap(), "# cluster\n");
    assert_eq!(door.client.get("/install-tool").await.unwrap().len(), TOOL_BYTES);
    let others = [
        ("GET", "/"),
        ("GET", "/begin"),
        ("PUT", "/begin"),
        ("POST", "/survey.sh"),
        ("DELETE", "/install-tool"),
        ("GET", "/install-tool/"),
        ("GET", "/install-tool/../door.key"),
        ("GET", "/install-tool.sig/"),
        ("GET", "/door.key.sig"),
        ("GET", "/door.key"),
        ("GET", "/identity.key"),
        ("GET", "/node.toml"),
        ("GET", "/sites/demo.json"),
        ("GET", "/descriptors"),
        ("GET", "/reports/report.html"),
        ("GET", "/targets"),
        ("GET", "/metrics"),
        ("OPTIONS", "*"),
        ("CONNECT", "door:443"),
        ("TRACE", "/survey.sh"),
        ("BREW", "/coffee"),
    ];
    for (method, path) in others {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: door\r\nconnection: close\r\n\r\n");
        let said = door.say(head.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 404"), "{method} {path}: {said}");
        assert!(said.contains("everything else is for members"), "{method} {path}: {said}");
    }
    // Names of signatures are compared with a list, never looked up on the disk.
    for name in ["other.sh", "..%2ftool", "%2e%2e%2fdoor.key", "cluster.sh%00"] {
        let error = door.client.get(&format!("/signatures/{name}")).await.unwrap_err().to_string();
        assert!(error.contains("404"), "{name}: {error}");
    }
    door.station_heard_nothing();
}

/// Recorded failure: a station that had handed its role over kept its door's port, so that it could not take the role again.
#[tokio::test]
async fn a_door_behind_which_nobody_listens_is_closed_and_can_be_opened_again() {
    let Opened { address, client, inquiries, home: _home } = open(limits()).await;
    assert_eq!(client.get("/survey.sh").await.unwrap(), SCRIPT);
    assert!(TcpListener::bind(address).await.is_err(), "it is open");
    drop(inquiries);
    let again = async {
        while TcpListener::bind(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, again).await.expect("the door stays open");
}

#[tokio::test]
async fn what_is_no_begin_request_is_refused_with_the_reason() {
    let mut door = open(limits()).await;
    let good = serde_json::to_string(&request()).unwrap();
    let of_another_type = good.replacen("\"body\":", "\"body\":7,\"more\":", 1);
    let cut = &good[..good.len() / 2];
    for body in ["", "{}", "[]", "null", "\u{0}", cut, &of_another_type, &"[".repeat(20_000)] {
        let said = door.say(&posted("/begin", &format!("content-length: {}\r\n", body.len()), body)).await;
        let first = said.lines().next().unwrap_or_default();
        assert!(first.contains("400") && said.contains("this is no signed begin request"), "{body:.40}: {said}");
    }
    let long = "x".repeat(REQUEST_BYTES_MAX + 1);
    let chunked = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    for (headers, body) in [
        (format!("content-length: {}\r\n", long.len()), &long),
        // It announces more than anybody could send, and sends little: nothing is set aside for it.
        ("content-length: 18446744073709551615\r\n".to_owned(), &"x".to_owned()),
        ("transfer-encoding: chunked\r\n".to_owned(), &chunked),
    ] {
        let said = door.say(&posted("/begin", &headers, body)).await;
        assert!(said.starts_with("HTTP/1.1 4") && !said.contains("no signed begin"), "{headers}: {said}");
    }
    for head in ["\u{16}\u{3}garbage\r\n\r\n".to_owned(), format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20))] {
        let mut stream = door.tls().await;
        let _ = stream.write_all(head.as_bytes()).await;
        let said = rest(&mut stream).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    door.station_heard_nothing();
}

#[tokio::test]
async fn the_stations_answer_comes_back_and_its_silence_is_busy() {
    let mut door = open(ConnectionLimits { patience: SHORT, ..limits() }).await;
    let client = door.client.clone();
    let asking = tokio::spawn(async move { client.begin(&request()).await });
    let inquiry = door.inquiries.recv().await.unwrap();
    assert_eq!(inquiry.request, request());
    let refusal = Refusal::new(RefusalKind::Token, "the token has expired");
    inquiry.answer.send(Err(refusal.clone())).ok().unwrap();
    match asking.await.unwrap() {
        Err(DoorError::Refused(said)) => assert_eq!(said, refusal),
        other => panic!("{other:?}"),
    }
    match door.client.begin(&request()).await {
        Err(DoorError::Refused(said)) => assert_eq!(said.kind, RefusalKind::Busy),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn more_than_the_station_takes_are_told_to_come_again() {
    let door =
        open(ConnectionLimits { patience: LONG, connections: 200, connections_of_one_address: 200, ..limits() }).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..80 {
        let client = door.client.clone();
        asking.spawn(async move { client.begin(&request()).await });
    }
    for _ in 0..80 - 64 {
        match timeout(LONG, asking.join_next()).await.expect("fewer are told than the queue has no place for") {
            Some(Ok(Err(DoorError::Refused(said)))) => assert_eq!(said.kind, RefusalKind::Busy),
            other => panic!("{other:?}"),
        }
    }
    // The others wait for the station, which does not look after its queue here.
    let one_more = timeout(Duration::from_millis(300), asking.join_next()).await;
    assert!(one_more.is_err(), "more than the queue has places for are told: {one_more:?}");
}

#[tokio::test]
async fn whoever_is_silent_is_cut_after_the_time_limit() {
    let mut door = open(ConnectionLimits { patience: SHORT, ..limits() }).await;
    let half_head = "GET /survey.sh HTTP/1.1\r\nhost: do".to_owned();
    let half_body = String::from_utf8(posted("/begin", "content-length: 900\r\n", "{\"body\":")).unwrap();
    let served = "GET /survey.sh HTTP/1.1\r\nhost: door\r\n\r\n".to_owned();
    let say_nothing = String::new();
    for (said, answer) in
        [(say_nothing, ""), (half_head, ""), (half_body, "is sent within 2 s"), (served, "echo survey")]
    {
        let mut stream = door.tls().await;
        let started = Instant::now();
        stream.write_all(said.as_bytes()).await.unwrap();
        let heard = rest(&mut stream).await;
        let took = started.elapsed();
        assert!(heard.contains(answer), "{said:?}: {heard}");
        assert!(took >= SHORT * 9 / 10 && took < LONG, "{said:?}: cut after {took:?}");
    }
    // Before TLS: not a byte.
    let mut stream = door.tcp([127, 0, 0, 1]).await;
    let (started, mut nothing) = (Instant::now(), Vec::new());
    let _ = timeout(LONG, stream.read_to_end(&mut nothing)).await.expect("the door leaves the connection open");
    assert!(nothing.is_empty() && started.elapsed() < LONG);
    door.station_heard_nothing();
}

#[tokio::test]
async fn one_address_cannot_shut_the_door_for_others() {
    let bounds = ConnectionLimits { connections: 6, connections_of_one_address: 2, patience: LONG, ..limits() };
    let door = open(bounds).await;
    let mut held = Vec::new();
    for last in 2..4 {
        for _ in 0..2 {
            held.push(door.tcp([127, 0, 0, last]).await);
        }
    }
    // A third one from the same address is closed at once, however many come.
    for _ in 0..50 {
        let mut third = door.tcp([127, 0, 0, 2]).await;
        let closed = timeout(LONG / 2, third.read(&mut [0; 1])).await.expect("it is left open");
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    assert_eq!(door.client.get("/survey.sh").await.unwrap(), SCRIPT, "another address is served");
    // The places come back with the connections.
    held.clear();
    let mut served = false;
    for _ in 0..100 {
        let stream = door.tcp([127, 0, 0, 2]).await;
        served = door.client.handshake(stream).await.is_ok();
        if served {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(served, "an address that left is never let in again");
}

#[tokio::test]
async fn beyond_the_bound_connections_wait_and_are_served_when_silent_ones_are_cut() {
    let bounds = ConnectionLimits { connections: 4, connections_of_one_address: 2, patience: SHORT, ..limits() };
    let door = open(bounds).await;
    let started = Instant::now();
    let mut held = Vec::new();
    for last in 2..4 {
        for _ in 0..2 {
            held.push(door.tcp([127, 0, 0, last]).await);
        }
    }
    assert_eq!(door.client.get("/survey.sh").await.unwrap(), SCRIPT);
    let waited = started.elapsed();
    assert!(waited >= SHORT * 9 / 10, "all places were taken, and it was served after {waited:?}");
}

#[tokio::test]
async fn whoever_takes_the_tool_and_does_not_read_it_is_cut_at_the_end_of_its_life() {
    let bounds = ConnectionLimits { connections: 1, life: SHORT, patience: LONG, ..limits() };
    let door = open(bounds).await;
    let started = Instant::now();
    let mut idle = door.tls().await;
    idle.write_all(b"GET /install-tool HTTP/1.1\r\nhost: door\r\n\r\n").await.unwrap();
    assert_eq!(door.client.get("/survey.sh").await.unwrap(), SCRIPT, "the only place is free again");
    assert!(started.elapsed() >= SHORT * 9 / 10, "{:?}", started.elapsed());
    let heard = rest(&mut idle).await;
    assert!(heard.len() < TOOL_BYTES, "it was cut before the end");
}
