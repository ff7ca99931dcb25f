//! Origin, station and hosts in one process, each on a loopback address of its own.
use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use branchline_protocol::{
    charter::{
        Authority, Charter, HeadquartersSeat, Keys, Lease, Membership, NodeAddresses, PublicKey, Signed, SiteLimits,
        SitePolicies, StationSeat,
    },
    content::{Bitmap, Pack},
    ids::{Hash, NodeId, SiteName},
    limits::BULK_MESSAGE_BYTES_MAX,
    refusal::{Refusal, RefusalKind},
    time::UnixSeconds,
    wire::{bulk::BulkMessage, control::PeerRecord},
};
use ed25519_dalek::SigningKey;
use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    connection::{Established, HELLO_TIMEOUT, own_hello},
    dialer::dial,
    framing::{read_message, write_message},
    *,
};
use crate::{
    config::Home,
    mesh::Documents,
    runtime::{Clock, wall_time},
    store::packs::PackStore,
};

mod bad_peers;
mod busy;
mod rates;

const OWNER: u8 = 1;
const HEADQUARTERS: u8 = 2;
const STATION: u8 = 3;
const FIRST_HOST: u8 = 10;
const ROGUE: u8 = 90;
const PATIENCE: Duration = Duration::from_secs(60);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn node_id(seed: u8) -> NodeId {
    PublicKey::of(&key(seed)).0
}

fn site() -> SiteName {
    "store-17".parse().unwrap()
}

/// A site of one test: its number makes its addresses its own.
struct Site {
    number: u8,
    directory: tempfile::TempDir,
}

struct Member {
    handle: BulkHandle,
    events: mpsc::Receiver<BulkEvent>,
    store: PackStore,
}

impl Site {
    fn new(number: u8) -> Self {
        Self { number, directory: tempfile::tempdir().unwrap() }
    }

    fn addresses(&self, seed: u8) -> NodeAddresses {
        let net = if seed == HEADQUARTERS { 78 } else { 77 };
        let at = |port| SocketAddr::from(([127, net, self.number, seed], port));
        NodeAddresses { control: at(17_400), bulk: at(17_401) }
    }

    fn authority(&self) -> Authority {
        let charter = Charter {
            site: site(),
            version: 1,
            issued_at: UnixSeconds(1000),
            owner: "Owner".into(),
            operator: "Operator".into(),
            prefixes: vec![format!("127.77.{}.0/24", self.number).parse().unwrap()],
            station: StationSeat {
                node: node_id(STATION),
                addresses: self.addresses(STATION),
                door: self.addresses(STATION).control,
                door_fingerprint: Hash::of(b"certificate"),
            },
            headquarters: HeadquartersSeat { node: node_id(HEADQUARTERS), addresses: self.addresses(HEADQUARTERS) },
            keys: Keys {
                catalogue: PublicKey::of(&key(4)),
                administrator: PublicKey::of(&key(5)),
                approvers: vec![PublicKey::of(&key(6))],
            },
            electors: vec![],
            former_stations: vec![],
            limits: SiteLimits { leased_bytes_max: 512 << 10, ..SiteLimits::default() },
            policies: SitePolicies::default(),
        };
        Authority::establish(PublicKey::of(&key(OWNER)), Signed::sign(&charter, &key(OWNER))).unwrap()
    }

    fn documents(&self, seed: u8, member: bool) -> Documents {
        self.documents_for(seed, member, 3600)
    }

    fn documents_for(&self, seed: u8, member: bool, life_seconds: u64) -> Documents {
        let authority = self.authority();
        let membership = Membership {
            site: site(),
            node: node_id(seed),
            machine_identifier: format!("machine-{seed}"),
            epoch: authority.charter().epoch(),
            serial: u64::from(seed),
            issued_at: wall_time(),
            expires_at: wall_time().after(life_seconds),
        };
        let needs_one = member && ![HEADQUARTERS, STATION].contains(&seed);
        let membership = needs_one.then(|| Signed::sign(&membership, &key(STATION)));
        let home = Home::create(&self.path(seed, "home")).unwrap();
        let documents = Documents::load(home, key(seed), self.addresses(seed), &format!("machine-{seed}")).unwrap();
        documents.add_site(authority, membership).unwrap();
        documents
    }

    fn path(&self, seed: u8, name: &str) -> std::path::PathBuf {
        self.directory.path().join(format!("{seed}-{name}"))
    }

    fn start(&self, seed: u8) -> Member {
        let store = PackStore::open(&self.path(seed, "packs")).unwrap();
        let (handle, events) = start(BulkConfig {
            documents: self.documents(seed, true),
            site: (seed != HEADQUARTERS).then(site),
            store: store.clone(),
            clock: Clock::start(),
            seed: u64::from(seed),
            fence: vec![],
            accounts: Accounts::default(),
        })
        .unwrap();
        Member { handle, events, store }
    }

    /// Waits until nobody listens at the node's address any more: a handle that is dropped ends its tasks when they are polled.
    async fn until_free(&self, seed: u8) {
        for _ in 0..1_000 {
            if tokio::net::TcpListener::bind(self.addresses(seed).bulk).await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the address of node {seed} is still taken after ten seconds");
    }

    fn records(&self, seeds: &[u8]) -> Vec<PeerRecord> {
        seeds.iter().map(|seed| PeerRecord { node: node_id(*seed), addresses: self.addresses(*seed) }).collect()
    }

    fn lease(&self, holder: u8, pack: &Pack, sequence: u64) -> Signed<Lease> {
        let epoch = self.authority().charter().epoch();
        let holder = node_id(holder);
        let lease = Lease { site: site(), epoch, sequence, holder, pack: pack.id(), life_milliseconds: 10_000 };
        Signed::sign(&lease, &key(STATION))
    }

    async fn dial(&self, from: u8, to: u8) -> Established {
        let documents = self.documents(from, true);
        let tls = TlsIdentity::new(&key(from)).unwrap();
        dial(&documents, &tls, &site(), node_id(to), self.addresses(to).bulk).await.unwrap()
    }
}

fn payload(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut raw = Vec::with_capacity(bytes + 8);
    while raw.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        raw.extend(state.to_le_bytes());
    }
    raw.truncate(bytes);
    raw
}

impl Member {
    /// Goes on until the pack is complete; gives leases to itself where it is the inlet.
    async fn finish(mut self, inlet: Option<(&Site, u8)>, pack: Arc<Pack>) -> (Self, u64, u64, Vec<BulkEvent>) {
        let (mut sequence, mut others) = (0, Vec::new());
        let run = async {
            loop {
                match self.events.recv().await.unwrap() {
                    BulkEvent::Complete { pack: done, wan_bytes, lan_bytes } if done == pack.id() => {
                        return (wan_bytes, lan_bytes);
                    }
                    BulkEvent::LeaseWanted { .. } => {
                        if let Some((site, seed)) = inlet {
                            sequence += 1;
                            self.handle.give_lease(site.lease(seed, &pack, sequence), vec![]).await.unwrap();
                        }
                    }
                    other => others.push(other),
                }
            }
        };
        let (wan, lan) = timeout(PATIENCE, run).await.expect("the pack is not complete in time");
        (self, wan, lan, others)
    }
}

fn image(store: &PackStore, pack: &Pack) -> Vec<u8> {
    let mut image = Vec::new();
    store.assemble(pack.id(), &mut image).unwrap();
    image
}

fn origin_bytes(origin: &Member, pack: &Pack) -> u64 {
    let records = origin.handle.fence_records();
    records.iter().filter(|record| record.pack == pack.id()).map(|record| record.meter.bytes).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn station_and_five_hosts_fetch_every_byte_once_even_where_one_dies_on_the_way() {
    let site = Site::new(1);
    let raw = payload(5 << 20);
    let origin = site.start(HEADQUARTERS);
    let pack = origin.store.import("agent.bin", &raw[..], raw.len() as u64).unwrap();
    let seeds = [STATION, FIRST_HOST, FIRST_HOST + 1, FIRST_HOST + 2, FIRST_HOST + 3, FIRST_HOST + 4];
    let mut members: BTreeMap<u8, Member> = seeds.iter().map(|seed| (*seed, site.start(*seed))).collect();
    for member in members.values() {
        member.handle.set_peers(site.records(&seeds)).await.unwrap();
        member.handle.want(Arc::clone(&pack)).await.unwrap();
    }
    let victim = members.remove(&(FIRST_HOST + 4)).unwrap();
    let tasks: Vec<_> = members
        .into_iter()
        .map(|(seed, member)| {
            let (pack, inlet) = (Arc::clone(&pack), seed == STATION);
            let site = Site { number: site.number, directory: tempfile::tempdir().unwrap() };
            tokio::spawn(async move {
                let done = member.finish(inlet.then_some((&site, STATION)), pack).await;
                (seed, done)
            })
        })
        .collect();
    sleep(Duration::from_millis(150)).await;
    drop(victim);
    let mut wan = 0;
    let mut kept_open = Vec::new();
    for task in tasks {
        let (seed, (member, wan_bytes, lan_bytes, _)) = task.await.unwrap();
        assert_eq!(wan_bytes + lan_bytes, pack.length(), "member {seed}");
        assert!(wan_bytes == 0 || seed == STATION, "only the inlet uses the WAN");
        assert_eq!(image(&member.store, &pack), raw, "member {seed}");
        let accounts = member.handle.accounts();
        assert_eq!(accounts.received_wan.bytes, wan_bytes);
        assert_eq!(accounts.received_lan.bytes - accounts.received_lan.duplicate_bytes, lan_bytes);
        wan += wan_bytes;
        kept_open.push(member);
    }
    assert_eq!(wan, pack.length());
    assert_eq!(origin_bytes(&origin, &pack), pack.length(), "wan_ratio is not 1.00");

    // What is kept survives: a member that starts again needs neither origin nor site (R72, R74).
    drop((origin, kept_open));
    site.until_free(FIRST_HOST).await;
    let (_again, wan, lan, _) = site.start(FIRST_HOST).finish(None, Arc::clone(&pack)).await;
    assert_eq!((wan, lan), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_corrupting_peer_is_named_and_leaves_no_byte_behind() {
    let site = Site::new(2);
    let raw = payload(1 << 20);
    let good = site.start(STATION);
    let pack = good.store.import("agent.bin", &raw[..], raw.len() as u64).unwrap();
    good.handle.want(Arc::clone(&pack)).await.unwrap();
    let host = site.start(FIRST_HOST);
    host.handle.want(Arc::clone(&pack)).await.unwrap();
    let mut rogue = site.dial(ROGUE, FIRST_HOST).await;
    let all = Bitmap::full(pack.frames()).to_bytes();
    let corrupting = tokio::spawn({
        let pack = Arc::clone(&pack);
        async move {
            while let Ok(message) = read_message(&mut rogue.stream).await {
                let answers = match message {
                    BulkMessage::Interest { pack } => {
                        vec![BulkMessage::Have { pack, bitmap: all.clone() }, BulkMessage::Turn { pack }]
                    }
                    BulkMessage::Request { pack: id, index } => {
                        let bytes = vec![0; pack.frame_length(index) as usize];
                        vec![BulkMessage::Frame { pack: id, index, bytes }]
                    }
                    _ => continue,
                };
                for answer in answers {
                    if write_message(&mut rogue.stream, &answer).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    timeout(PATIENCE, corrupting).await.expect("the rogue is not cut off").unwrap();
    let directory = site.path(FIRST_HOST, "packs");
    assert_eq!(host.store.have(pack.id()).unwrap().count(), 0);
    host.handle.set_peers(site.records(&[STATION])).await.unwrap();
    let (host, _, lan, events) = host.finish(None, Arc::clone(&pack)).await;
    let named = events.iter().any(|event| matches!(event, BulkEvent::Corrupt { peer, .. } if *peer == node_id(ROGUE)));
    assert!(named, "{events:?}");
    assert_eq!(lan, pack.length());
    assert_eq!(image(&host.store, &pack), raw);
    assert!(Path::new(&directory).join(format!("{}.kept", pack.id())).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_is_no_member_gets_nothing() {
    let site = Site::new(3);
    let station = site.start(STATION);
    let documents = site.documents(ROGUE, false);
    let tls = TlsIdentity::new(&key(ROGUE)).unwrap();
    let stream = tokio::net::TcpStream::connect(site.addresses(STATION).bulk).await.unwrap();
    let name = rustls::pki_types::ServerName::IpAddress(site.addresses(STATION).bulk.ip().into());
    let mut stream = tokio_rustls::TlsConnector::from(tls.client).connect(name, stream).await.unwrap();
    let hello = own_hello(&documents, &site_name(&station)).unwrap();
    write_message(&mut stream, &BulkMessage::Hello(hello)).await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("the connection stays open");
    assert!(said.is_empty(), "{} bytes were said to a stranger", said.len());

    // An announced length beyond the bound ends the connection as well.
    let member = site.dial(FIRST_HOST, STATION).await;
    let mut stream = member.stream;
    let length = u32::try_from(BULK_MESSAGE_BYTES_MAX + 1).unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &length.to_le_bytes()).await.unwrap();
    tokio::io::AsyncWriteExt::flush(&mut stream).await.unwrap();
    let ended = async { while read_message(&mut stream).await.is_ok() {} };
    timeout(Duration::from_secs(10), ended).await.expect("a hostile length is tolerated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_ends_with_the_membership_of_who_is_at_its_other_end() {
    let site = Site::new(5);
    let station = site.start(STATION);
    let end = wall_time().after(5);
    let documents = site.documents_for(FIRST_HOST, true, 5);
    let tls = TlsIdentity::new(&key(FIRST_HOST)).unwrap();
    let at = site.addresses(STATION).bulk;
    let mut ending = dial(&documents, &tls, &site_name(&station), node_id(STATION), at).await.unwrap();
    let mut lasting = site.dial(FIRST_HOST + 1, STATION).await;
    let ended = async { while read_message(&mut ending.stream).await.is_ok() {} };
    timeout(Duration::from_secs(15), ended).await.expect("it is tolerated");
    assert!(wall_time() >= end, "it was cut before the membership ended");
    let goes_on = async { while read_message(&mut lasting.stream).await.is_ok() {} };
    assert!(timeout(Duration::from_secs(2), goes_on).await.is_err(), "a member is cut as well");
}

fn site_name(_station: &Member) -> SiteName {
    site()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_origin_serves_the_newest_lease_only_and_cuts_the_one_before() {
    let site = Site::new(4);
    let raw = payload(1 << 20);
    let origin = site.start(HEADQUARTERS);
    let pack = origin.store.import("agent.bin", &raw[..], raw.len() as u64).unwrap();
    let id = pack.id();
    let request = |index| BulkMessage::Request { pack: id, index };
    let show = |holder, sequence| BulkMessage::ShowLease(Box::new(site.lease(holder, &pack, sequence)));
    async fn answer(link: &mut Established) -> Result<BulkMessage, LinkError> {
        loop {
            match timeout(PATIENCE, read_message(&mut link.stream)).await.unwrap()? {
                BulkMessage::Ping => {}
                message => return Ok(message),
            }
        }
    }

    let mut first = site.dial(FIRST_HOST, HEADQUARTERS).await;
    write_message(&mut first.stream, &request(0)).await.unwrap();
    let refused = answer(&mut first).await.unwrap();
    assert!(matches!(refused, BulkMessage::Refuse { refusal, .. } if refusal.kind == RefusalKind::NotAuthorised));
    write_message(&mut first.stream, &show(STATION, 1)).await.unwrap();
    let refused = answer(&mut first).await.unwrap();
    assert!(matches!(refused, BulkMessage::Refuse { refusal, .. } if refusal.kind == RefusalKind::NotAuthorised));
    write_message(&mut first.stream, &show(FIRST_HOST, 1)).await.unwrap();
    write_message(&mut first.stream, &request(0)).await.unwrap();
    assert!(matches!(answer(&mut first).await.unwrap(), BulkMessage::Frame { index: 0, .. }));

    let mut second = site.dial(FIRST_HOST + 1, HEADQUARTERS).await;
    write_message(&mut second.stream, &show(FIRST_HOST + 1, 2)).await.unwrap();
    write_message(&mut second.stream, &request(1)).await.unwrap();
    assert!(matches!(answer(&mut second).await.unwrap(), BulkMessage::Frame { index: 1, .. }));
    assert!(answer(&mut first).await.is_err(), "the connection with the lower lease goes on");

    let mut again = site.dial(FIRST_HOST, HEADQUARTERS).await;
    write_message(&mut again.stream, &show(FIRST_HOST, 1)).await.unwrap();
    let refused = answer(&mut again).await.unwrap();
    assert!(matches!(refused, BulkMessage::Refuse { refusal, .. } if refusal.kind == RefusalKind::Stale));
    assert_eq!(origin_bytes(&origin, &pack), pack.frame_length(0) + pack.frame_length(1));
}

/// More members than are dialled at a time, whose machines take connections and say nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn neighbours_that_do_not_answer_keep_nobody_from_the_origin() {
    let site = Site::new(14);
    let raw = payload(256 << 10);
    let origin = site.start(HEADQUARTERS);
    let pack = origin.store.import("agent.bin", &raw[..], raw.len() as u64).unwrap();
    let seeds: Vec<u8> = (FIRST_HOST..FIRST_HOST + 10).collect();
    let mut mute = Vec::new();
    for seed in &seeds {
        mute.push(tokio::net::TcpListener::bind(site.addresses(*seed).bulk).await.unwrap());
    }
    let station = site.start(STATION);
    station.handle.set_peers(site.records(&seeds)).await.unwrap();
    let began = std::time::Instant::now();
    station.handle.want(Arc::clone(&pack)).await.unwrap();
    let (_station, wan, ..) = station.finish(Some((&site, STATION)), Arc::clone(&pack)).await;
    assert_eq!(wan, pack.length());
    assert!(began.elapsed() < HELLO_TIMEOUT, "it waited for them: {:?}", began.elapsed());
}
