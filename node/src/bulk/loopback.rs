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
    let (served, mut served_inbox) = mpsc::channel(64);
    // The other halves are kept: a connection that is half dropped is closed.
    let (_unread, writing) = tokio::io::split(framing::dialled(dialled));
    let (reading, _unwritten) = tokio::io::split(framing::accepted(accepted));
    let writer = Writer {
        link: 1,
        stream: writing,
        lane: Arc::default(),
        messages: message_queue,
        frames: order_queue,
        source: Arc::clone(&memory) as Arc<dyn FrameSource>,
        pool: pool.clone(),
        meter: None,
        inbox: served,
    };
    let (inbox, mut arrivals) = mpsc::channel(64);
    let room = Arc::new(Semaphore::new(BULK_INBOX_BYTES_MAX));
    let reader = Reader { link: 2, stream: reading, room, inbox };

    let start = Instant::now();
    let tasks = [tokio::spawn(writer.run()), tokio::spawn(reader.run())];
    let pack = memory.pack.id();
    let frames = memory.frames.len() as u64;
    let wanted = bytes.div_ceil(memory.pack.length()) * frames;
    let ordering = tokio::spawn(async move {
        for number in 0..wanted {
            let index = u32::try_from(number % frames).unwrap_or(0);
            let _ = orders.send(FrameOrder { pack, index }).await;
        }
        // Kept until the last frame has been served.
        orders
    });
    let serving = tokio::spawn(async move {
        let mut sent = 0;
        while let Some(inbound) = served_inbox.recv().await {
            if let Inbound::Served { outcome: Served::Sent(_), .. } = inbound {
                sent += 1;
                if sent == wanted {
                    break;
                }
            }
        }
        sent
    });
    let (verified, mut verdicts) = mpsc::channel(1024);
    let mut carried = 0;
    let taking = async {
        let (mut taken, mut judged) = (0, 0);
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
        Ok(())
    };
    taking.await?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(serving.await? == wanted, "not every frame was served");
    drop(ordering.await?);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(Carried { bytes: carried, seconds })
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
