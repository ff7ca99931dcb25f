//! Messages on a TLS stream: lengths, bounds, timeouts, and the socket's settings.
//!
//! A frame is read straight into the buffer that is verified and written, and sent from the buffer that was read: TLS
//! copies it once each way, and nothing else does.
use std::time::Duration;

use branchline_protocol::{
    ids::PackId,
    limits::{BULK_MESSAGE_BYTES_MAX, BULK_UNSENT_BYTES_MAX},
    wire::bulk::{BulkMessage, FRAME_HEADER_BYTES, FrameHeader},
};
use bytes::{Buf, BufMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsStream, client, server};

use super::{connection::LinkError, shaper::Shaped};

/// How long connections wait.
const PATIENCE: Patience =
    Patience { silence: Duration::from_secs(45), slowest_bytes_per_second: 2 << 10, longest: Duration::from_secs(300) };
/// rustls asks the socket for 4 KiB at a time: without a buffer in between, that is four system calls for one record.
const SOCKET_READ_BYTES: usize = 32 << 10;
/// How much of what is sent TLS seals at a time: a frame of 64 KiB with its header, so that no last record of a few bytes
/// leaves as a packet of its own.
const SEALED_BYTES: usize = 72 << 10;
/// So much of an announced message is believed before it comes.
const BELIEVED_BYTES: usize = 512 << 10;

/// What carries a connection's messages.
pub(super) type LinkStream = TlsStream<BufReader<Shaped>>;

/// Makes a connected socket ready for TLS: small messages leave at once, and the kernel holds few bytes that are not on
/// their way yet, so that what is decided now does not queue behind what was decided long ago.
pub(super) fn prepare(stream: TcpStream) -> std::io::Result<BufReader<Shaped>> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_notsent_lowat(BULK_UNSENT_BYTES_MAX)?;
    Ok(BufReader::with_capacity(SOCKET_READ_BYTES, Shaped::new(stream)))
}

/// A client's connection whose handshake is over, as what carries messages.
pub(super) fn dialled<S>(mut stream: client::TlsStream<S>) -> TlsStream<S> {
    stream.get_mut().1.set_buffer_limit(Some(SEALED_BYTES));
    stream.into()
}

/// A server's connection whose handshake is over, as what carries messages.
pub(super) fn accepted<S>(mut stream: server::TlsStream<S>) -> TlsStream<S> {
    stream.get_mut().1.set_buffer_limit(Some(SEALED_BYTES));
    stream.into()
}

/// How long a connection waits for its other end.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Longest silence, and longest time that a short message may be left unread; pings keep idle connections alive.
    silence: Duration,
    /// The slowest rate at which a line may bring a frame, as in the swarm machine: who is cut off in the middle of one gets it
    /// anew, and over the line twice.
    slowest_bytes_per_second: u64,
    /// The most that any message may take.
    longest: Duration,
}

impl Patience {
    /// How long a message of this length may be under way.
    fn with(self, bytes: usize) -> Duration {
        (self.silence + Duration::from_secs(bytes as u64 / self.slowest_bytes_per_second)).min(self.longest)
    }
}

/// Reads one message. The caller puts a bound on the time.
pub(super) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Result<BulkMessage, LinkError> {
    let length = read_length(stream).await?;
    read_body(stream, length).await
}

/// Reads one message, as long as neither silence nor the message takes too long.
pub(super) async fn read_message_in_time(stream: &mut (impl AsyncRead + Unpin)) -> Result<BulkMessage, LinkError> {
    read_within(PATIENCE, stream).await
}

async fn read_within(patience: Patience, stream: &mut (impl AsyncRead + Unpin)) -> Result<BulkMessage, LinkError> {
    let late = |_| LinkError::Timeout("reading");
    let length = timeout(patience.silence, read_length(stream)).await.map_err(late)??;
    timeout(patience.with(length), read_body(stream, length)).await.map_err(late)?
}

async fn read_length(stream: &mut (impl AsyncRead + Unpin)) -> Result<usize, LinkError> {
    let length = stream.read_u32_le().await? as usize;
    if length > BULK_MESSAGE_BYTES_MAX { Err(LinkError::TooLong(length)) } else { Ok(length) }
}

async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: usize) -> Result<BulkMessage, LinkError> {
    let mut head = [0; FRAME_HEADER_BYTES];
    let head = &mut head[..length.min(FRAME_HEADER_BYTES)];
    stream.read_exact(head).await?;
    match FrameHeader::read(head, length)? {
        Some(header) => {
            let bytes = read_bytes(stream, Vec::new(), header.length).await?;
            Ok(BulkMessage::Frame { pack: header.pack, index: header.index, bytes })
        }
        None => Ok(BulkMessage::decode(read_bytes(stream, head.to_vec(), length - head.len()).await?)?),
    }
}

/// Appends `length` bytes of the stream. The buffer grows with what really comes, not with what is announced.
async fn read_bytes(
    stream: &mut (impl AsyncRead + Unpin),
    mut bytes: Vec<u8>,
    mut length: usize,
) -> Result<Vec<u8>, LinkError> {
    while length > 0 {
        let part = length.min(BELIEVED_BYTES);
        bytes.reserve_exact(part);
        // Not `read_exact`: the room would be filled with zeros first, and that is a tenth of what hashing costs.
        let mut room = (&mut bytes).limit(part);
        while room.has_remaining_mut() {
            if stream.read_buf(&mut room).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        length -= part;
    }
    Ok(bytes)
}

/// Writes one message, and waits until it has left for the kernel.
pub(super) async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &BulkMessage,
) -> Result<(), LinkError> {
    write_messages(stream, std::slice::from_ref(message)).await
}

/// Writes messages that wait together as one: for the cost of one record, one packet and one wake-up.
pub(super) async fn write_messages(
    stream: &mut (impl AsyncWrite + Unpin),
    messages: &[BulkMessage],
) -> Result<(), LinkError> {
    let mut bytes = Vec::new();
    for message in messages {
        let body = message.encode()?;
        let length = u32::try_from(body.len()).map_err(|_| LinkError::TooLong(body.len()))?;
        bytes.extend(length.to_le_bytes());
        bytes.extend(body);
    }
    write(stream, bytes.as_slice()).await
}

/// Writes a frame without copying it into a message.
pub(super) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    pack: PackId,
    index: u32,
    bytes: &[u8],
) -> Result<(), LinkError> {
    let header = FrameHeader { pack, index, length: bytes.len() }.write()?;
    let length = u32::try_from(header.len() + bytes.len()).map_err(|_| LinkError::TooLong(bytes.len()))?;
    let head = length.to_le_bytes();
    write(stream, Buf::chain(Buf::chain(head.as_slice(), header.as_slice()), bytes)).await
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), mut bytes: impl Buf) -> Result<(), LinkError> {
    let patience = PATIENCE.with(bytes.remaining());
    let write = async {
        stream.write_all_buf(&mut bytes).await?;
        stream.flush().await
    };
    Ok(timeout(patience, write).await.map_err(|_| LinkError::Timeout("writing"))??)
}

#[cfg(test)]
mod tests {
    use branchline_protocol::ids::Hash;

    use super::*;

    fn pack() -> PackId {
        PackId(Hash([3; 32]))
    }

    #[tokio::test]
    async fn frames_and_messages_follow_each_other_and_survive() {
        let (mut here, mut there) = tokio::io::duplex(1000);
        let long: Vec<u8> = (0..600_000_u32).map(|byte| byte as u8).collect();
        let sent = long.clone();
        let writer = tokio::spawn(async move {
            write_message(&mut here, &BulkMessage::Ping).await.unwrap();
            write_frame(&mut here, pack(), 7, &sent).await.unwrap();
            write_message(&mut here, &BulkMessage::Request { pack: pack(), index: 8 }).await.unwrap();
            write_frame(&mut here, pack(), 9, &[]).await.unwrap();
        });
        assert_eq!(read_message(&mut there).await.unwrap(), BulkMessage::Ping);
        let frame = BulkMessage::Frame { pack: pack(), index: 7, bytes: long };
        assert_eq!(read_message(&mut there).await.unwrap(), frame);
        assert_eq!(read_message(&mut there).await.unwrap(), BulkMessage::Request { pack: pack(), index: 8 });
        let empty = BulkMessage::Frame { pack: pack(), index: 9, bytes: vec![] };
        assert_eq!(read_message(&mut there).await.unwrap(), empty);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn messages_that_wait_together_are_read_one_by_one() {
        let messages = [BulkMessage::Ping, BulkMessage::Request { pack: pack(), index: 8 }, BulkMessage::Ping];
        let mut together = Vec::new();
        write_messages(&mut together, &messages).await.unwrap();
        let mut rest = together.as_slice();
        for message in messages {
            assert_eq!(read_message(&mut rest).await.unwrap(), message);
        }
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn a_frame_written_apart_has_the_bytes_of_the_message() {
        let bytes = vec![5; 1000];
        let (mut apart, mut whole) = (Vec::new(), Vec::new());
        write_frame(&mut apart, pack(), 4, &bytes).await.unwrap();
        write_message(&mut whole, &BulkMessage::Frame { pack: pack(), index: 4, bytes }).await.unwrap();
        assert_eq!(apart, whole);
    }

    #[tokio::test]
    async fn lengths_that_do_not_hold_are_refused_before_room_is_made() {
        let mut long = u32::MAX.to_le_bytes().to_vec();
        long.extend([0; 100]);
        assert!(matches!(read_message(&mut long.as_slice()).await, Err(LinkError::TooLong(_))));
        let mut lying = Vec::new();
        write_frame(&mut lying, pack(), 4, &[1; 10]).await.unwrap();
        // The length inside the header says more than the message has.
        lying[4 + FRAME_HEADER_BYTES - 8] = 200;
        assert!(matches!(read_message(&mut lying.as_slice()).await, Err(LinkError::Codec(_))));
        let mut cut = Vec::new();
        write_frame(&mut cut, pack(), 4, &[1; 10]).await.unwrap();
        cut.truncate(cut.len() - 1);
        assert!(matches!(read_message(&mut cut.as_slice()).await, Err(LinkError::Io(_))));
    }

    #[test]
    fn patience_grows_with_the_length_up_to_a_bound() {
        let seconds = |bytes| PATIENCE.with(bytes).as_secs();
        assert_eq!((seconds(0), seconds(64 << 10), seconds(256 << 10)), (45, 45 + 32, 45 + 128));
        assert_eq!(seconds(BULK_MESSAGE_BYTES_MAX), 300);
    }

    /// Reads, with a patience of 0.3 s and a second for each 50 KiB, what comes of a frame of 256 KiB in five parts of which
    /// one comes every 0.2 s.
    async fn trickled(parts: usize) -> (Result<BulkMessage, LinkError>, Duration) {
        let (mut here, mut there) = tokio::io::duplex(1 << 20);
        let mut frame = Vec::new();
        write_frame(&mut frame, pack(), 7, &vec![9; 256 << 10]).await.unwrap();
        let sending = tokio::spawn(async move {
            for part in frame.chunks(frame.len().div_ceil(5)).take(parts) {
                here.write_all(part).await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            std::future::pending::<()>().await;
        });
        let silence = Duration::from_millis(300);
        let patience = Patience { silence, slowest_bytes_per_second: 50 << 10, longest: Duration::from_secs(60) };
        let began = std::time::Instant::now();
        let read = read_within(patience, &mut there).await;
        sending.abort();
        (read, began.elapsed())
    }

    #[tokio::test]
    async fn a_frame_may_take_as_long_as_the_slowest_line_needs_and_no_longer() {
        let (all, few, none) = tokio::join!(trickled(5), trickled(4), trickled(0));
        assert!(matches!(all.0, Ok(BulkMessage::Frame { index: 7, .. })), "{:?}", all.0);
        assert!(all.1 > Duration::from_millis(700), "it is longer under way than silence may last");
        assert!(matches!(few.0, Err(LinkError::Timeout("reading"))), "{:?}", few.0);
        assert!(few.1 > Duration::from_secs(5), "{:?}", few.1);
        assert!(matches!(none.0, Err(LinkError::Timeout("reading"))), "{:?}", none.0);
        assert!(none.1 < few.1, "{:?}", none.1);
    }
}
