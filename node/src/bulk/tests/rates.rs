//! Rates of R71: nodes that may send or receive little, of which no frame takes longer than those who wait for it have
//! patience, and a rollout that is off.
use std::time::Instant;

use branchline_protocol::{content::OriginalFile, ids::PackId, rates::Rate};
use sha2::{Digest, Sha256};

use super::*;
use crate::bulk::Bucket;

/// As long as those of images from 1 GiB on.
const FRAME_BYTES: usize = 256 << 10;
const FRAMES: usize = 32;
/// The least that a node may have.
const RATE: Rate = Rate::Bits(4_000_000);
const HOSTS: u8 = 12;

/// Makes a pack of long frames in the store of a node.
fn import(member: &Member) -> Arc<Pack> {
    let raw = payload(FRAMES * FRAME_BYTES);
    let sha256 = Hash(Sha256::digest(&raw).into());
    let original = OriginalFile { name: "agent.bin".into(), sha256, length: raw.len() as u64 };
    let pack = member.store.import_of(original, &raw[..], FRAME_BYTES).unwrap();
    assert_eq!(pack.frames(), FRAMES as u32);
    pack
}

/// Lets the station spread a pack to hosts that are connected; gives them, and the bytes that came to them twice.
async fn spread(site: &Site, station: &Member, pack: &Arc<Pack>, seeds: &[u8]) -> (Vec<Member>, u64) {
    let mut hosts = Vec::new();
    for seed in seeds.iter().filter(|seed| **seed != STATION) {
        let host = site.start(*seed);
        host.handle.set_peers(site.records(seeds)).await.unwrap();
        host.handle.want(Arc::clone(pack)).await.unwrap();
        hosts.push(host);
    }
    until_connected().await;
    station.handle.want(Arc::clone(pack)).await.unwrap();
    let tasks: Vec<_> = hosts.into_iter().map(|host| tokio::spawn(host.finish(None, Arc::clone(pack)))).collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap().0);
    }
    let duplicate_bytes = done.iter().map(|host| host.handle.accounts().received_lan.duplicate_bytes).sum();
    (done, duplicate_bytes)
}

/// And until everybody has looked at its rates, which is once in half a second.
async fn until_connected() {
    sleep(Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn long_frames_from_a_slow_node_arrive_before_anybody_asks_for_them_again() {
    let site = Site::new(6);
    let station = site.start(STATION);
    let pack = import(&station);
    station.handle.shaper().set_rate(&Bucket::Upload, RATE);
    let seeds: Vec<u8> = (FIRST_HOST..FIRST_HOST + HOSTS).chain([STATION]).collect();
    let (_hosts, duplicate_bytes) = spread(&site, &station, &pack, &seeds).await;
    assert_eq!(duplicate_bytes, 0, "somebody lost patience and asked for what was on its way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn long_frames_to_a_slow_node_arrive_before_it_asks_for_them_again() {
    let site = Site::new(7);
    let station = site.start(STATION);
    let pack = import(&station);
    let mut seeds: Vec<u8> = (FIRST_HOST..FIRST_HOST + HOSTS).chain([STATION]).collect();
    let (_hosts, _) = spread(&site, &station, &pack, &seeds).await;
    let slow = FIRST_HOST + HOSTS;
    seeds.push(slow);
    let host = site.start(slow);
    host.handle.shaper().set_rate(&Bucket::Download, RATE);
    host.handle.set_peers(site.records(&seeds)).await.unwrap();
    until_connected().await;
    host.handle.want(Arc::clone(&pack)).await.unwrap();
    let (host, ..) = host.finish(None, pack).await;
    let duplicate_bytes = host.handle.accounts().received_lan.duplicate_bytes;
    assert_eq!(duplicate_bytes, 0, "it lost patience and asked for what was on its way");
}

/// Answers every wish for a lease, and tells of packs that are complete.
fn grant_leases(site: &Arc<Site>, member: Member, packs: &[Arc<Pack>]) -> (BulkHandle, mpsc::Receiver<PackId>) {
    let (complete, completions) = mpsc::channel(packs.len());
    let (site, packs, handle) = (Arc::clone(site), packs.to_vec(), member.handle.clone());
    let mut events = member.events;
    tokio::spawn(async move {
        let mut sequence = 0;
        while let Some(event) = events.recv().await {
            match event {
                BulkEvent::LeaseWanted { pack, .. } => {
                    let pack = packs.iter().find(|known| known.id() == pack).unwrap();
                    sequence += 1;
                    member.handle.give_lease(site.lease(STATION, pack, sequence), vec![]).await.unwrap();
                }
                BulkEvent::Complete { pack, .. } => complete.send(pack).await.unwrap(),
                _ => {}
            }
        }
    });
    (handle, completions)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rollout_that_is_off_waits_and_delays_no_other() {
    let site = Arc::new(Site::new(8));
    let origin = site.start(HEADQUARTERS);
    let raw = payload(6 << 20);
    let import = |name: &str, raw: &[u8]| origin.store.import(name, raw, raw.len() as u64).unwrap();
    let (held, free) = (import("held.bin", &raw[..2 << 20]), import("free.bin", &raw[2 << 20..]));
    let rollout = Bucket::Rollout(super::site(), held.id());
    let set = |rate: &str| origin.handle.shaper().set_rate(&rollout, rate.parse().unwrap());
    set("off");
    let station = site.start(STATION);
    station.handle.set_peers(site.records(&[STATION])).await.unwrap();
    for pack in [&held, &free] {
        station.handle.want(Arc::clone(pack)).await.unwrap();
    }
    let (_station, mut completions) = grant_leases(&site, station, &[Arc::clone(&held), Arc::clone(&free)]);
    let began = Instant::now();
    assert_eq!(timeout(PATIENCE, completions.recv()).await.unwrap(), Some(free.id()));
    assert!(began.elapsed() < Duration::from_secs(5), "the other pack waited: {:?}", began.elapsed());
    assert_eq!(origin_bytes(&origin, &held), 0);

    // It goes on, and is off again under way: what was begun passes at 128 kbit/s, and then nothing.
    set("8mbit");
    let a_quarter = async {
        while origin_bytes(&origin, &held) < held.length() / 4 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, a_quarter).await.unwrap();
    set("off");
    sleep(Duration::from_secs(5)).await;
    let begun = origin_bytes(&origin, &held);
    // Meanwhile the station asks again.
    sleep(Duration::from_secs(11)).await;
    assert_eq!(origin_bytes(&origin, &held), begun);
    assert!(begun < held.length(), "it was complete before it was off");
    set("unlimited");
    assert_eq!(timeout(PATIENCE, completions.recv()).await.unwrap(), Some(held.id()));
    assert_eq!(origin_bytes(&origin, &held), held.length(), "every byte crossed once");
}
