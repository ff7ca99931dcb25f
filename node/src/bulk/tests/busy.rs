//! More neighbours than a node serves: that is an answer, and whoever gets it asks elsewhere (R70).
use branchline_protocol::limits::BULK_NEIGHBOURS_ACCEPTED_MAX;
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};

use super::*;
use crate::bulk::{
    certificate::TlsIdentity, connection::LinkKind, framing::LinkStream, links::Inbound, listener::listen,
    neighbourhood::turn_away,
};

const HONEST: u8 = FIRST_HOST + 1;
const FIRST_CALLER: u8 = 100;

/// The first thing that is said on a connection.
async fn first_word(stream: &mut LinkStream) -> BulkMessage {
    timeout(PATIENCE, read_message(stream)).await.expect("nothing is said").unwrap()
}

/// What comes to a node that has a place for nobody.
async fn full_node(site: &Site) -> mpsc::Receiver<Inbound> {
    let listener = TcpListener::bind(site.addresses(ROGUE).bulk).await.unwrap();
    let (inbox, arrivals) = mpsc::channel(16);
    tokio::spawn(listen(listener, site.documents(ROGUE, true), TlsIdentity::new(&key(ROGUE)).unwrap(), inbox));
    arrivals
}

/// A host that has a pack, and as many neighbours as it has places, all of which lack the pack.
struct Crowd {
    site: Site,
    pack: Arc<Pack>,
    _host: Member,
    neighbours: Vec<LinkStream>,
    /// Who finds no place.
    next: u8,
}

impl Crowd {
    async fn new(number: u8) -> Self {
        let site = Site::new(number);
        let host = site.start(FIRST_HOST);
        let pack = host.store.import("agent.bin", &payload(1 << 16)[..], 1 << 16).unwrap();
        host.handle.want(Arc::clone(&pack)).await.unwrap();
        // So that whoever comes is told at once that the host wants to hear of it.
        let mut probe = 200;
        while first_word(&mut site.dial(probe, FIRST_HOST).await.stream).await == BulkMessage::Ping {
            probe += 1;
            sleep(Duration::from_millis(20)).await;
        }
        let next = FIRST_CALLER + u8::try_from(BULK_NEIGHBOURS_ACCEPTED_MAX).unwrap();
        let mut crowd = Self { site, pack, _host: host, neighbours: Vec::new(), next };
        for caller in FIRST_CALLER..next {
            let stream = crowd.comes_in_the_end(caller).await;
            crowd.neighbours.push(stream);
        }
        crowd
    }

    /// One more that lacks the pack.
    async fn comes(&self, caller: u8) -> Result<LinkStream, Refusal> {
        let mut stream = self.site.dial(caller, FIRST_HOST).await.stream;
        let interest = BulkMessage::Interest { pack: self.pack.id() };
        match first_word(&mut stream).await {
            BulkMessage::Refused(refusal) => {
                assert!(timeout(PATIENCE, read_message(&mut stream)).await.unwrap().is_err(), "it is closed");
                Err(refusal)
            }
            word => {
                assert_eq!(word, interest, "caller {caller}");
                write_message(&mut stream, &interest).await.unwrap();
                Ok(stream)
            }
        }
    }

    async fn comes_in_the_end(&self, caller: u8) -> LinkStream {
        let again = async {
            loop {
                match self.comes(caller).await {
                    Ok(stream) => break stream,
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        timeout(PATIENCE, again).await.expect("the place stays taken")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_comes_when_all_places_are_taken_is_told_so_and_may_come_again() {
    let mut crowd = Crowd::new(11).await;
    // Long enough for each to be one that might make room.
    sleep(Duration::from_secs(3)).await;
    let refusal = crowd.comes(crowd.next).await.err().expect("it has a place");
    assert_eq!(refusal.kind, RefusalKind::Busy);
    assert!(refusal.reason.contains("ask another member, and this one again after 10 seconds"), "{refusal}");
    for neighbour in &mut crowd.neighbours {
        write_message(neighbour, &BulkMessage::Ping).await.unwrap();
    }

    // Somebody leaves: there is a place again, as soon as the service has noticed.
    drop(crowd.neighbours.pop());
    crowd.comes_in_the_end(crowd.next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_neighbour_that_has_all_makes_room_for_one_that_lacks_something() {
    let mut crowd = Crowd::new(14).await;
    let bitmap = Bitmap::full(crowd.pack.frames()).to_bytes();
    let have = BulkMessage::Have { pack: crowd.pack.id(), bitmap };
    let content = &mut crowd.neighbours[40];
    write_message(content, &have).await.unwrap();
    // Turns that it was offered before are given back.
    write_message(content, &BulkMessage::Pass { pack: crowd.pack.id() }).await.unwrap();
    let _newcomer = crowd.comes_in_the_end(crowd.next).await;
    let left = async { while read_message(&mut crowd.neighbours[40]).await.is_ok() {} };
    timeout(PATIENCE, left).await.expect("it is kept");
    // The others, which lack the pack, are all kept.
    crowd.neighbours.remove(40);
    let refusal = crowd.comes(crowd.next + 1).await.err().expect("somebody who lacks the pack made room");
    assert_eq!(refusal.kind, RefusalKind::Busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_is_turned_away_fetches_from_another_and_leaves_the_busy_one_alone() {
    let site = Site::new(12);
    let raw = payload(1 << 20);
    let honest = site.start(HONEST);
    let pack = honest.store.import("agent.bin", &raw[..], raw.len() as u64).unwrap();
    honest.handle.want(Arc::clone(&pack)).await.unwrap();
    let mut arrivals = full_node(&site).await;
    let turning = tokio::spawn(async move {
        let mut came = Vec::new();
        // Long until the first one, for a machine that is busy.
        let patience = |came: &Vec<Instant>| if came.is_empty() { PATIENCE } else { Duration::from_secs(4) };
        while let Ok(Some(arrival)) = timeout(patience(&came), arrivals.recv()).await {
            let Inbound::Established(new) = arrival else { panic!("only connections come") };
            assert!(matches!(new.kind, LinkKind::Swarm(_)));
            came.push(Instant::now());
            turn_away(*new, &Arc::new(Semaphore::new(1)));
        }
        came
    });
    let host = site.start(FIRST_HOST);
    host.handle.set_peers(site.records(&[ROGUE])).await.unwrap();
    host.handle.want(Arc::clone(&pack)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    host.handle.set_peers(site.records(&[ROGUE, HONEST])).await.unwrap();
    let (host, wan, lan, events) = host.finish(None, Arc::clone(&pack)).await;
    assert_eq!((wan, lan, events), (0, pack.length(), vec![]), "being busy is no offence");
    assert_eq!(image(&host.store, &pack), raw);
    let came = turning.await.unwrap();
    assert_eq!(came.len(), 1, "it is asked again before the ten seconds are over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn so_many_are_told_that_there_is_no_place_and_more_are_closed_without_a_word() {
    let site = Site::new(13);
    let mut arrivals = full_node(&site).await;
    let farewells = Arc::new(Semaphore::new(2));
    let mut callers = Vec::new();
    for caller in FIRST_CALLER..FIRST_CALLER + 5 {
        let stream = site.dial(caller, ROGUE).await.stream;
        let Some(Inbound::Established(new)) = arrivals.recv().await else { panic!("a connection comes") };
        callers.push((stream, *new));
    }
    // All at once, for whoever is told so does not keep its place for long.
    let (mut streams, news): (Vec<_>, Vec<_>) = callers.into_iter().unzip();
    news.into_iter().for_each(|new| turn_away(new, &farewells));
    for stream in streams.drain(2..) {
        let mut stream = stream;
        assert!(timeout(PATIENCE, read_message(&mut stream)).await.unwrap().is_err(), "it is told something");
    }
    for stream in &mut streams {
        assert!(matches!(first_word(stream).await, BulkMessage::Refused(_)));
    }
    // They stay connected and say nothing: their places come back all the same.
    let both = timeout(PATIENCE, farewells.acquire_many(2)).await.expect("the places stay taken");
    drop(both.unwrap());
    let mut stream = site.dial(FIRST_CALLER + 5, ROGUE).await.stream;
    let Some(Inbound::Established(new)) = arrivals.recv().await else { panic!("a connection comes") };
    turn_away(*new, &farewells);
    assert!(matches!(first_word(&mut stream).await, BulkMessage::Refused(_)));
}
