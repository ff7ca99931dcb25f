//! Members that misbehave, on real sockets: what docs/src/protocol/spread.md says of each happens to it, and whoever
//! fetches has the pack in time from somebody else.
//!
//! The bad neighbour is written by hand: it shakes hands as the member that it is, claims the whole pack, and from there
//! on does as it likes.
use branchline_protocol::{
    ids::{Hash, PackId},
    wire::bulk::FRAME_HEADER_BYTES,
};
use tokio::{io::AsyncWriteExt, time::Instant};

use super::*;
use crate::bulk::framing::LinkStream;

const HONEST: u8 = FIRST_HOST + 1;
/// Frames that a neighbour may send again before it is cut off, as the book says.
const REPLAYS_MAX: u64 = 256;
/// A neighbour that sends nothing costs 1.5 s and 4 ms for each KiB; the rest is room for a machine that is busy.
const SOON: Duration = Duration::from_secs(20);

/// Somebody who lacks a pack, and somebody who has it but is not met yet.
struct Scene {
    site: Site,
    raw: Vec<u8>,
    pack: Arc<Pack>,
    host: Member,
    honest: Member,
}

impl Scene {
    async fn new(number: u8) -> Self {
        let site = Site::new(number);
        let raw = payload(1 << 20);
        let honest = site.start(HONEST);
        let pack = honest.store.import("agent.bin", &raw[..], raw.len() as u64).unwrap();
        honest.handle.want(Arc::clone(&pack)).await.unwrap();
        let host = site.start(FIRST_HOST);
        host.handle.want(Arc::clone(&pack)).await.unwrap();
        Self { site, raw, pack, host, honest }
    }

    /// The bad neighbour comes, claims everything, and is asked for a frame: the connection, and which frame.
    async fn rogue_is_asked(&self) -> (LinkStream, u32) {
        let mut stream = self.site.dial(ROGUE, FIRST_HOST).await.stream;
        let asked = timeout(PATIENCE, is_asked(&mut stream, &self.pack, true)).await;
        (stream, asked.expect("nothing is asked in time").unwrap())
    }

    fn frame(&self, index: u32) -> BulkMessage {
        let bytes = self.honest.store.read_frame(self.pack.id(), index).unwrap();
        BulkMessage::Frame { pack: self.pack.id(), index, bytes }
    }

    /// The host meets the honest one and fetches all that it lacks, whole and within `bound`.
    async fn completes_within(self, bound: Duration) -> Outcome {
        let began = Instant::now();
        self.host.handle.set_peers(self.site.records(&[HONEST])).await.unwrap();
        let (host, wan, lan, events) = self.host.finish(None, Arc::clone(&self.pack)).await;
        let took = began.elapsed();
        assert!(took < bound, "the bad neighbour held the pack back for {took:?}");
        assert_eq!((wan, lan), (0, self.pack.length()));
        assert_eq!(image(&host.store, &self.pack), self.raw);
        let accounts = host.handle.accounts();
        let corrupt = events.into_iter().filter_map(|event| match event {
            BulkEvent::Corrupt { peer, why, .. } => Some((peer, why)),
            _ => None,
        });
        let (honest, rogue) = (received(&accounts, HONEST), received(&accounts, ROGUE));
        // A machine that stands still for seconds may ask twice for what is under way, and for no more.
        assert!(honest.duplicate_bytes <= 256 << 10, "the honest one is asked for {honest:?}");
        Outcome {
            honest: honest.bytes - honest.duplicate_bytes,
            rogue,
            penalties: corrupt.collect(),
            site: self.site,
            _host: host,
        }
    }
}

/// What has come of it.
struct Outcome {
    /// Frame bytes of the honest neighbour that were of use.
    honest: u64,
    rogue: Transfer,
    /// Who was cut off, and why.
    penalties: Vec<(NodeId, String)>,
    site: Site,
    _host: Member,
}

fn received(accounts: &Accounts, seed: u8) -> Transfer {
    let of_peer = |key: &TransferKey| key.peer == node_id(seed) && key.direction == Direction::Received;
    let found = accounts.transfers.iter().find(|(key, _)| of_peer(key));
    found.map(|(_, transfer)| *transfer).unwrap_or_default()
}

/// Claims every frame, offers a turn where it is told to, and waits until a frame is asked for.
async fn is_asked(stream: &mut LinkStream, pack: &Pack, offers_turns: bool) -> Result<u32, LinkError> {
    loop {
        match read_message(stream).await? {
            BulkMessage::Interest { pack: id } => {
                let bitmap = Bitmap::full(pack.frames()).to_bytes();
                write_message(stream, &BulkMessage::Have { pack: id, bitmap }).await?;
                if offers_turns {
                    write_message(stream, &BulkMessage::Turn { pack: id }).await?;
                }
            }
            BulkMessage::Request { index, .. } => return Ok(index),
            _ => {}
        }
    }
}

/// A message with its length, as it lies on the wire inside TLS.
async fn on_the_wire(message: &BulkMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, message).await.unwrap();
    bytes
}

/// Waits until the other end has closed; `false`: it said something else than pings first.
async fn closes_without_a_word(stream: &mut LinkStream) -> bool {
    let said = async {
        loop {
            match read_message(stream).await {
                Ok(BulkMessage::Ping) => {}
                said => return said.is_err(),
            }
        }
    };
    timeout(SOON, said).await.expect("the connection stays open")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_peer_at_a_byte_a_second_loses_its_request_and_nothing_else() {
    let scene = Scene::new(25).await;
    let (mut stream, index) = scene.rogue_is_asked().await;
    let bytes = on_the_wire(&scene.frame(index)).await;
    let dribbling = tokio::spawn(async move {
        for byte in bytes {
            stream.write_all(&[byte]).await.unwrap();
            stream.flush().await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
    });
    let length = scene.pack.length();
    let outcome = scene.completes_within(SOON).await;
    assert_eq!((outcome.honest, outcome.rogue), (length, Transfer::default()));
    assert_eq!(outcome.penalties, [], "slow is no crime");
    assert!(!dribbling.is_finished(), "slow is no reason to close either");
    dribbling.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn half_a_frame_counts_for_nothing_and_is_asked_of_another() {
    let scene = Scene::new(26).await;
    for _ in 0..3 {
        let (mut stream, index) = scene.rogue_is_asked().await;
        let bytes = on_the_wire(&scene.frame(index)).await;
        stream.write_all(&bytes[..bytes.len() / 2]).await.unwrap();
        stream.flush().await.unwrap();
        // The socket is closed in the middle of the message, and of TLS: without a goodbye.
        drop(stream);
    }
    assert_eq!(scene.host.store.have(scene.pack.id()).unwrap().count(), 0);
    let length = scene.pack.length();
    let outcome = scene.completes_within(SOON).await;
    assert_eq!((outcome.honest, outcome.rogue), (length, Transfer::default()));
    assert_eq!(outcome.penalties, [], "a connection that breaks is an accident");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_sends_a_frame_again_and_again_is_cut_off_and_stays_so() {
    let scene = Scene::new(27).await;
    let (mut stream, index) = scene.rogue_is_asked().await;
    let frame = scene.frame(index);
    let replaying = async {
        // Many more than are allowed: what the kernel still takes after the other end has closed does not count.
        for _ in 0..20 * REPLAYS_MAX {
            if write_message(&mut stream, &frame).await.is_err() {
                return;
            }
        }
        panic!("all of them were taken");
    };
    timeout(PATIENCE, replaying).await.expect("the rogue is not cut off");
    let (length, of_frame) = (scene.pack.length(), scene.pack.frame_length(index));
    let outcome = scene.completes_within(SOON).await;
    let why = "it sent many frames again that nobody had asked for";
    assert_eq!(outcome.penalties, [(node_id(ROGUE), why.to_owned())]);
    let again = REPLAYS_MAX + 1;
    let transfer = Transfer { frames: 1 + again, bytes: (1 + again) * of_frame, duplicate_bytes: again * of_frame };
    assert_eq!(outcome.rogue, transfer, "every frame is counted, and the first alone was of use");
    assert_eq!(outcome.honest, length - of_frame);
    let mut again = outcome.site.dial(ROGUE, FIRST_HOST).await;
    assert!(closes_without_a_word(&mut again.stream).await, "it is a neighbour again at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_claims_every_frame_and_sends_none_delays_the_others_little() {
    let scene = Scene::new(28).await;
    let (mut stream, _) = scene.rogue_is_asked().await;
    let length = scene.pack.length();
    let outcome = scene.completes_within(SOON).await;
    assert_eq!((outcome.honest, outcome.rogue), (length, Transfer::default()));
    assert_eq!(outcome.penalties, [], "a machine that is suspended does the same");
    let ping = write_message(&mut stream, &BulkMessage::Ping).await;
    assert!(ping.is_ok(), "it is closed on: {ping:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_goes_on_offering_turns_and_sends_nothing_is_asked_no_more() {
    let scene = Scene::new(23).await;
    let (mut stream, _) = scene.rogue_is_asked().await;
    let luring = tokio::spawn({
        let pack = Arc::clone(&scene.pack);
        async move {
            // A turn for every request that it let go by.
            while write_message(&mut stream, &BulkMessage::Turn { pack: pack.id() }).await.is_ok() {
                let Ok(_) = is_asked(&mut stream, &pack, true).await else { break };
            }
        }
    });
    let length = scene.pack.length();
    // It is doubted after three silences: 1.8, 3.6 and 7.2 s.
    let outcome = scene.completes_within(Duration::from_secs(13) + SOON).await;
    assert_eq!((outcome.honest, outcome.rogue), (length, Transfer::default()));
    assert_eq!(outcome.penalties, [], "a machine that is suspended does the same");
    luring.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_only_a_silent_claimant_has_crosses_the_line_within_half_a_minute() {
    let site = Site::new(29);
    let raw = payload(256 << 10);
    let origin = site.start(HEADQUARTERS);
    let pack = origin.store.import("agent.bin", &raw[..], raw.len() as u64).unwrap();
    let host = site.start(FIRST_HOST);
    host.handle.want(Arc::clone(&pack)).await.unwrap();
    let mut stream = site.dial(ROGUE, FIRST_HOST).await.stream;
    let claiming = tokio::spawn({
        let pack = Arc::clone(&pack);
        async move {
            let mut asked = 0_u32;
            while is_asked(&mut stream, &pack, false).await.is_ok() {
                asked += 1;
            }
            asked
        }
    });
    let began = Instant::now();
    let (host, wan, lan, events) = host.finish(Some((&site, FIRST_HOST)), Arc::clone(&pack)).await;
    let took = began.elapsed();
    assert_eq!((wan, lan), (pack.length(), 0));
    assert_eq!(image(&host.store, &pack), raw);
    assert_eq!(events, [], "a machine that is suspended does the same");
    let bounds = Duration::from_secs(5)..Duration::from_secs(60);
    assert!(bounds.contains(&took), "the claims were believed for {took:?}");
    drop(host);
    let asked = timeout(SOON, claiming).await.expect("the host is gone").unwrap();
    assert!(asked >= 3, "it was doubted after {asked} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_announces_too_long_a_message_or_sends_none_that_can_be_read_is_cut_off_and_stays_so() {
    let too_long = u32::try_from(BULK_MESSAGE_BYTES_MAX + 1).unwrap().to_le_bytes().to_vec();
    // Four bytes, and they name no message.
    let unknown = [[4, 0, 0, 0], [0xff; 4]].concat();
    // A frame of 200 bytes in a message of ten.
    let mut lying =
        on_the_wire(&BulkMessage::Frame { pack: PackId(Hash([3; 32])), index: 0, bytes: vec![1; 10] }).await;
    lying[4 + FRAME_HEADER_BYTES - 8] = 200;
    for (number, bytes) in [(30, too_long), (21, unknown), (22, lying)] {
        let scene = Scene::new(number).await;
        let (mut stream, _) = scene.rogue_is_asked().await;
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        assert!(closes_without_a_word(&mut stream).await);
        let mut again = scene.site.dial(ROGUE, FIRST_HOST).await;
        assert!(closes_without_a_word(&mut again.stream).await, "it is a neighbour again at once");
        let length = scene.pack.length();
        let outcome = scene.completes_within(SOON).await;
        assert_eq!((outcome.honest, outcome.rogue), (length, Transfer::default()));
    }
}
