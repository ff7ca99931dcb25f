//! What `tests/bench bulk` measures: the connection's own reader, writer and threads on loopback, beside raw TCP and
//! plain TLS. Every frame is verified; no disk takes part.
use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use branchline_protocol::{
    content::{Pack, build_pack, verify_frame},
    ids::PackId,
    limits::BULK_INBOX_BYTES_MAX,
    wire::bulk::BulkMessage,
};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream, client, server};

use super::{
    certificate::TlsIdentity,
    connection::{FrameOrder, Reader, Writer},
    framing::{self, prepare},
    links::{Inbound, Served},
    pool::{FrameSource, StorePool},
    read_ahead::ReadAhead,
};
use crate::store::packs::PackStoreError;

/// Orders that wait at the writer, as a busy neighbour's.
const ORDERS: usize = 8;
/// What raw TCP and plain TLS write and read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// What one connection carried.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Bytes of payload.
    pub bytes: u64,
    /// From the first byte sent to the last one taken (and verified).
    pub seconds: f64,
}

/// A pack in memory, so that no disk takes part.
pub struct Memory {
    pack: Pack,
    frames: Vec<Bytes>,
}

impl FrameSource for Memory {
    fn frame(&self, pack: PackId, index: u32) -> Result<Bytes, PackStoreError> {
        self.frames.get(index as usize).cloned().ok_or(PackStoreError::Missing { pack, index })
    }
}

/// Frames of `frame_bytes` each, 32 MiB of them: more than the processor's caches hold.
///
/// # Errors
/// Never in practice.
pub fn memory(frame_bytes: usize) -> Result<Arc<Memory>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut raw = Vec::with_capacity(32 << 20);
    while raw.len() < 32 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        raw.extend_from_slice(&state.to_le_bytes());
    }
    let mut encoded = Vec::new();
    let pack = build_pack("noise", raw.as_slice(), frame_bytes, &mut encoded)?;
    let mut rest = Bytes::from(encoded);
    let frames = pack.manifest().chunks.iter().map(|entry| rest.split_to(entry.frame_length as usize)).collect();
    Ok(Arc::new(Memory { pack, frames }))
}

async fn sockets() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let dialled = TcpStream::connect(listener.local_addr()?).await?;
    Ok((dialled, listener.accept().await?.0))
}

async fn secure<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    dialled: S,
    accepted: S,
) -> Result<(client::TlsStream<S>, server::TlsStream<S>)> {
    let tls = |seed| TlsIdentity::new(&SigningKey::from_bytes(&[seed; 32]));
    let (client, server) = (tls(1)?.client, tls(2)?.server);
    let accepting = tokio::spawn(async move { TlsAcceptor::from(server).accept(accepted).await });
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    let dialled = TlsConnector::from(client).connect(name, dialled).await?;
    Ok((dialled, accepting.await??))
}

/// One connection of the bulk plane: `bytes` of the frames of `memory`.
///
/// # Errors
/// Loopback fails, or a frame does not verify.
pub async fn bulk(bytes: u64, memory: Arc<Memory>) -> Result<Carried> {
    let pool = StorePool::start()?;
    let (dialled, accepted) = sockets().await?;
    let (dialled, accepted) = secure(prepare(dialled)?, prepare(accepted)?).await?;

    let (orders, order_queue) = mpsc::channel(ORDERS);
    let (_messages, message_queue) = mpsc::channel(1);
    let (served, served_inbox) = mpsc::channel(64);
    // The other halves are kept: a connection that is half dropped is closed.
    let (_unread, writing) = tokio::io::split(framing::dialled(dialled));
    let (reading, _unwritten) = tokio::io::split(framing::accepted(accepted));
    let writer = Writer {
        link: 1,
        stream: writing,
        lane: Arc::default(),
        messages: message_queue,
        frames: order_queue,
        ahead: ReadAhead::new(Arc::clone(&memory) as Arc<dyn FrameSource>, pool.clone()),
        meter: None,
        inbox: served,
    };
    let (inbox, arrivals) = mpsc::channel(64);
    let room = Arc::new(Semaphore::new(BULK_INBOX_BYTES_MAX));
    let reader = Reader { link: 2, stream: reading, room, inbox };

    let start = Instant::now();
    let tasks = [tokio::spawn(writer.run()), tokio::spawn(reader.run())];
    let wanted = bytes.div_ceil(memory.pack.length()) * memory.frames.len() as u64;
    let giving = tokio::spawn(give(Arc::clone(&memory), wanted, orders, served_inbox));
    let carried = tokio::spawn(take(memory, wanted, pool, arrivals)).await??;
    let seconds = start.elapsed().as_secs_f64();
    giving.await??;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(Carried { bytes: carried, seconds })
}

/// The sender's service: as many orders as a busy neighbour has slots, and a new one for each frame that has left.
async fn give(
    memory: Arc<Memory>,
    wanted: u64,
    orders: mpsc::Sender<FrameOrder>,
    mut inbox: mpsc::Receiver<Inbound>,
) -> Result<()> {
    let pack = memory.pack.id();
    let mut indexes = (0..memory.pack.frames()).cycle();
    let mut order = || indexes.next().map(|index| FrameOrder { pack, index });
    let (mut ordered, mut sent) = (0, 0);
    while sent < wanted {
        while ordered < wanted.min(sent + ORDERS as u64) {
            orders.send(order().context("the pack has no frames")?).await?;
            ordered += 1;
        }
        match inbox.recv().await {
            Some(Inbound::Served { outcome: Served::Sent(_), .. }) => sent += 1,
            _ => anyhow::bail!("a frame was not served"),
        }
    }
    Ok(())
}

/// The receiver's service: has each frame verified by the threads for that; gives the bytes that were.
async fn take(memory: Arc<Memory>, wanted: u64, pool: StorePool, mut arrivals: mpsc::Receiver<Inbound>) -> Result<u64> {
    let (verified, mut verdicts) = mpsc::channel(1024);
    let (mut taken, mut judged, mut carried) = (0, 0, 0);
    while judged < wanted {
        tokio::select! {
            arrival = arrivals.recv(), if taken < wanted => {
                let Some(Inbound::Message { message: BulkMessage::Frame { index, bytes, .. }, .. }) = arrival else {
                    anyhow::bail!("the connection ended early");
                };
                taken += 1;
                let (memory, verified) = (Arc::clone(&memory), verified.clone());
                pool.run(move || {
                    let entry = memory.pack.chunk(index);
                    let good = entry.is_some_and(|entry| verify_frame(entry, &bytes).is_ok());
                    let _ = verified.blocking_send(good.then_some(bytes.len() as u64));
                });
            }
            Some(verdict) = verdicts.recv() => {
                carried += verdict.context("a frame does not verify")?;
                judged += 1;
            }
        }
    }
    Ok(carried)
}

/// Plain tokio-rustls with the bulk plane's certificates and cipher suites.
///
/// # Errors
/// Loopback fails.
pub async fn tls(bytes: u64) -> Result<Carried> {
    let (dialled, accepted) = sockets().await?;
    let (dialled, accepted) = secure(dialled, accepted).await?;
    copy(bytes, TlsStream::from(dialled), TlsStream::from(accepted)).await
}

/// Raw TCP.
///
/// # Errors
/// Loopback fails.
pub async fn tcp(bytes: u64) -> Result<Carried> {
    let (dialled, accepted) = sockets().await?;
    copy(bytes, dialled, accepted).await
}

async fn copy<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    bytes: u64,
    mut from: S,
    mut to: S,
) -> Result<Carried> {
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        let block = vec![7; BLOCK_BYTES];
        for _ in 0..bytes.div_ceil(BLOCK_BYTES as u64) {
            from.write_all(&block).await?;
        }
        from.flush().await?;
        Ok::<_, std::io::Error>(from)
    });
    let mut block = vec![0; BLOCK_BYTES];
    let wanted = bytes.div_ceil(BLOCK_BYTES as u64) * BLOCK_BYTES as u64;
    let mut taken = 0;
    while taken < wanted {
        let read = to.read(&mut block).await?;
        ensure!(read > 0, "the connection ended early");
        taken += read as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    drop(sending.await??);
    Ok(Carried { bytes: taken, seconds })
}
