//! Control messages on a libp2p stream: a 32-bit little-endian length, then the message.
use std::io;

use branchline_protocol::{
    limits::CONTROL_MESSAGE_BYTES_MAX,
    refusal::{Refusal, RefusalKind},
    wire::{
        codec,
        control::{ControlAnswer, ControlRequest},
    },
};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response::Codec};
use serde::{Serialize, de::DeserializeOwned};

/// The name under which the protocol is negotiated.
pub const CONTROL_PROTOCOL: StreamProtocol = StreamProtocol::new("/branchline/control/1");

/// Reads and writes control messages with their bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct ControlCodec;

async fn read<T: DeserializeOwned>(io: &mut (impl AsyncRead + Unpin + Send)) -> io::Result<T> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > CONTROL_MESSAGE_BYTES_MAX {
        let text = format!("a control message of {length} bytes; at most {CONTROL_MESSAGE_BYTES_MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // The buffer grows with what arrives, so that a length alone makes nobody allocate.
    let mut bytes = Vec::with_capacity(length.min(64 << 10));
    io.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    codec::decode(&bytes, CONTROL_MESSAGE_BYTES_MAX).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

async fn write<T: Serialize>(io: &mut (impl AsyncWrite + Unpin + Send), message: &T) -> io::Result<()> {
    let bytes = codec::encode(message, CONTROL_MESSAGE_BYTES_MAX)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let length = u32::try_from(bytes.len()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    io.write_all(&length.to_le_bytes()).await?;
    io.write_all(&bytes).await?;
    io.close().await
}

/// A request as it was read. One that cannot be read is kept as a refusal: the transport says nothing of it by itself, and
/// both sides should hear of it.
pub type Received = Result<ControlRequest, Refusal>;

impl Codec for ControlCodec {
    type Protocol = StreamProtocol;
    type Request = Received;
    type Response = ControlAnswer;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Received>
    where
        T: AsyncRead + Unpin + Send,
    {
        match read(io).await {
            Ok(request) => Ok(Ok(request)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let reason =
                    format!("a request that this node does not know, or a damaged one; nothing is done: {error}");
                Ok(Err(Refusal::new(RefusalKind::Malformed, reason)))
            }
            Err(error) => Err(error),
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<ControlAnswer>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Received) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match request {
            Ok(request) => write(io, &request).await,
            Err(refusal) => Err(io::Error::new(io::ErrorKind::InvalidInput, refusal.reason)),
        }
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: ControlAnswer) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &answer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;

    #[tokio::test]
    async fn a_message_survives_and_an_oversized_or_cut_one_is_refused() {
        let mut bytes = Vec::new();
        write(&mut Cursor::new(&mut bytes), &ControlRequest::Peers).await.unwrap();
        let back: ControlRequest = read(&mut Cursor::new(&bytes)).await.unwrap();
        assert_eq!(back, ControlRequest::Peers);

        let huge = u32::MAX.to_le_bytes();
        let error = read::<ControlRequest>(&mut Cursor::new(&huge)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = read::<ControlRequest>(&mut Cursor::new(&bytes[..bytes.len() - 1])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let nonsense = [8u32.to_le_bytes().as_slice(), &[0xff; 8]].concat();
        let error = read::<ControlRequest>(&mut Cursor::new(&nonsense)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
