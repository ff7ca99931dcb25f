//! Messages of the bulk plane: who has which frames, and the frames themselves.
//!
//! On a connection each message is preceded by its length (`u32`, little-endian, at most
//! [`BULK_MESSAGE_BYTES_MAX`]). The side that dialled speaks first, with [`BulkMessage::Hello`]; the other side says
//! nothing at all until it has accepted that, then answers [`BulkMessage::Accepted`].
use serde::{Deserialize, Serialize};

use super::{
    codec::{self, CodecError},
    control::Hello,
};
use crate::{
    charter::{Lease, Signed},
    ids::{Hash, NodeId, PackId},
    limits::{BULK_MESSAGE_BYTES_MAX, FRAME_BYTES_MAX},
    refusal::Refusal,
};

/// Versions of the bulk protocol that this build speaks: lowest and highest.
pub const BULK_VERSIONS: (u16, u16) = (1, 2);
/// The first version that knows [`BulkMessage::Turn`], [`BulkMessage::Pass`], [`BulkMessage::Chunk`] and
/// [`BulkMessage::Elsewhere`].
pub const BULK_VERSION_TURNS: u16 = 2;

/// One message. New variants are appended, never inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkMessage {
    /// The first message on a connection, from the side that dialled.
    Hello(Box<Hello>),
    /// The hello was accepted; the other side's own hello.
    Accepted(Box<Hello>),
    /// A known member is refused, and why; the connection is closed. A stranger is closed without a word.
    Refused(Refusal),
    /// Tell me which frames of this pack you have, now and as they come.
    Interest {
        /// The pack.
        pack: PackId,
    },
    /// I no longer want to hear of this pack.
    NoInterest {
        /// The pack.
        pack: PackId,
    },
    /// These frames I have.
    Have {
        /// The pack.
        pack: PackId,
        /// A [`crate::content::Bitmap`] in its wire form.
        bitmap: Vec<u8>,
    },
    /// These frames I have as well.
    HaveFrames {
        /// The pack.
        pack: PackId,
        /// Their indexes, at most [`crate::limits::HAVE_FRAMES_MAX`].
        indexes: Vec<u32>,
    },
    /// Send me this frame.
    Request {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// A frame, as it lies in the pack.
    Frame {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
        /// Its bytes; verified by who takes them.
        bytes: Vec<u8>,
    },
    /// Not now: all upload slots are taken.
    Busy {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
        /// Ask again after this time, or ask somebody else.
        retry_after_milliseconds: u32,
    },
    /// Not at all, and why.
    Refuse {
        /// The pack.
        pack: PackId,
        /// The frame; `None` where a lease or an interest is refused.
        index: Option<u32>,
        /// Why.
        refusal: Refusal,
    },
    /// By this lease I fetch the pack from you, the origin.
    ShowLease(Box<Signed<Lease>>),
    /// Nothing; keeps an idle connection alive.
    Ping,
    /// A raw chunk in place of its frame, from a node that made the image from a patch (R73). Inside a site only; since
    /// version 2.
    Chunk {
        /// The pack.
        pack: PackId,
        /// The chunk, which has the number of its frame.
        index: u32,
        /// Its raw bytes; verified by the raw hash.
        bytes: Vec<u8>,
    },
    /// [`BulkMessage::Busy`], and whom to ask instead; since version 2.
    Elsewhere {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
        /// Ask again after this time.
        retry_after_milliseconds: u32,
        /// A member of the site that has the frame.
        instead: NodeId,
    },
    /// Ask me for one frame of this pack now: I have a slot for you. Since version 2.
    Turn {
        /// The pack.
        pack: PackId,
    },
    /// The answer to a turn where nothing is needed; [`BulkMessage::Interest`] says when that changes. Since version 2.
    Pass {
        /// The pack.
        pack: PackId,
    },
}

/// The tag of [`BulkMessage::Frame`] in the encoded form.
const FRAME_TAG: u32 = 8;
/// Tag, pack, index and length in front of a frame's bytes.
pub const FRAME_HEADER_BYTES: usize = 4 + 32 + 4 + 8;

/// What stands in front of a frame's bytes, so that these need not be copied into a message or out of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The pack.
    pub pack: PackId,
    /// The frame.
    pub index: u32,
    /// How many bytes follow.
    pub length: usize,
}

impl FrameHeader {
    /// The encoded form.
    ///
    /// # Errors
    /// The message would be longer than [`BULK_MESSAGE_BYTES_MAX`].
    pub fn write(&self) -> Result<[u8; FRAME_HEADER_BYTES], CodecError> {
        let length = FRAME_HEADER_BYTES + self.length;
        if length > BULK_MESSAGE_BYTES_MAX {
            return Err(CodecError::TooLarge { length, limit: BULK_MESSAGE_BYTES_MAX });
        }
        let mut header = [0; FRAME_HEADER_BYTES];
        header[..4].copy_from_slice(&FRAME_TAG.to_le_bytes());
        header[4..36].copy_from_slice(&self.pack.0.0);
        header[36..40].copy_from_slice(&self.index.to_le_bytes());
        header[40..].copy_from_slice(&(self.length as u64).to_le_bytes());
        Ok(header)
    }

    /// Reads the beginning of a message of `message_bytes`. `None`: it is another message than a frame.
    ///
    /// # Errors
    /// A frame that is too long, or whose length is not that of its message.
    pub fn read(begin: &[u8], message_bytes: usize) -> Result<Option<Self>, CodecError> {
        if begin.get(..4) != Some(&FRAME_TAG.to_le_bytes()) {
            return Ok(None);
        }
        let malformed = |reason: &str| CodecError::Malformed(reason.to_owned());
        let header = begin.first_chunk::<FRAME_HEADER_BYTES>().ok_or_else(|| malformed("a frame without a header"))?;
        let (mut pack, mut index, mut length) = ([0; 32], [0; 4], [0; 8]);
        pack.copy_from_slice(&header[4..36]);
        index.copy_from_slice(&header[36..40]);
        length.copy_from_slice(&header[40..]);
        let payload = message_bytes.saturating_sub(FRAME_HEADER_BYTES);
        if payload > FRAME_BYTES_MAX {
            return Err(CodecError::TooLarge { length: payload, limit: FRAME_BYTES_MAX });
        }
        if u64::from_le_bytes(length) != payload as u64 {
            return Err(malformed("a frame's length is not that of its message"));
        }
        Ok(Some(Self { pack: PackId(Hash(pack)), index: u32::from_le_bytes(index), length: payload }))
    }
}

impl BulkMessage {
    /// The encoded form. A frame's bytes are copied in one piece.
    ///
    /// # Errors
    /// Longer than [`BULK_MESSAGE_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let Self::Frame { pack, index, bytes } = self else {
            return codec::encode(self, BULK_MESSAGE_BYTES_MAX);
        };
        let header = FrameHeader { pack: *pack, index: *index, length: bytes.len() }.write()?;
        Ok([header.as_slice(), bytes].concat())
    }

    /// Reads one message that fills `bytes` exactly. A frame keeps the buffer that it came in.
    ///
    /// # Errors
    /// Too long, cut, with bytes left over, or not such a message.
    pub fn decode(mut bytes: Vec<u8>) -> Result<Self, CodecError> {
        let Some(FrameHeader { pack, index, .. }) = FrameHeader::read(&bytes, bytes.len())? else {
            return codec::decode(&bytes, BULK_MESSAGE_BYTES_MAX);
        };
        bytes.drain(..FRAME_HEADER_BYTES);
        Ok(Self::Frame { pack, index, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::RefusalKind;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = BulkMessage> {
        let pack = || any::<[u8; 32]>().prop_map(|bytes| PackId(Hash(bytes)));
        prop_oneof![
            pack().prop_map(|pack| BulkMessage::Interest { pack }),
            pack().prop_map(|pack| BulkMessage::NoInterest { pack }),
            pack().prop_map(|pack| BulkMessage::Turn { pack }),
            pack().prop_map(|pack| BulkMessage::Pass { pack }),
            (pack(), any::<Vec<u8>>()).prop_map(|(pack, bitmap)| BulkMessage::Have { pack, bitmap }),
            (pack(), any::<Vec<u32>>()).prop_map(|(pack, indexes)| BulkMessage::HaveFrames { pack, indexes }),
            (pack(), any::<u32>()).prop_map(|(pack, index)| BulkMessage::Request { pack, index }),
            (pack(), any::<u32>(), any::<Vec<u8>>()).prop_map(|(pack, index, bytes)| BulkMessage::Frame {
                pack,
                index,
                bytes
            }),
            (pack(), any::<u32>(), any::<Vec<u8>>()).prop_map(|(pack, index, bytes)| BulkMessage::Chunk {
                pack,
                index,
                bytes
            }),
            (pack(), any::<u32>(), any::<u32>(), any::<[u8; 32]>()).prop_map(|(pack, index, wait, node)| {
                let instead = NodeId(node);
                BulkMessage::Elsewhere { pack, index, retry_after_milliseconds: wait, instead }
            }),
            (pack(), any::<Option<u32>>(), ".*").prop_map(|(pack, index, reason)| BulkMessage::Refuse {
                pack,
                index,
                refusal: Refusal::new(RefusalKind::Stale, reason)
            }),
            Just(BulkMessage::Ping),
        ]
    }

    proptest! {
        #[test]
        fn messages_survive_and_frames_have_the_same_bytes_as_by_the_codec(message in message()) {
            let bytes = message.encode().unwrap();
            prop_assert_eq!(&bytes, &codec::encode(&message, BULK_MESSAGE_BYTES_MAX).unwrap());
            prop_assert_eq!(BulkMessage::decode(bytes).unwrap(), message);
        }

        #[test]
        fn a_cut_or_lengthened_message_is_refused(message in message(), extra in 1usize..9) {
            let bytes = message.encode().unwrap();
            let longer = [bytes.clone(), vec![0; extra]].concat();
            prop_assert!(BulkMessage::decode(longer).is_err());
            prop_assert!(BulkMessage::decode(bytes[..bytes.len() - 1].to_vec()).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_make_the_decoder_panic(tag in 0u32..18, bytes: Vec<u8>) {
            let _ = BulkMessage::decode([&tag.to_le_bytes()[..], &bytes].concat());
            let _ = BulkMessage::decode(bytes);
        }
    }

    #[test]
    fn the_bytes_of_version_1_stay_as_they_are() {
        let golden = |message: BulkMessage| bs58::encode(message.encode().unwrap()).into_string();
        let pack = PackId(Hash([7; 32]));
        let all = [
            golden(BulkMessage::Interest { pack }),
            golden(BulkMessage::Have { pack, bitmap: vec![0b101] }),
            golden(BulkMessage::Request { pack, index: 9 }),
            golden(BulkMessage::Frame { pack, index: 9, bytes: vec![1, 2, 3] }),
            golden(BulkMessage::Busy { pack, index: 9, retry_after_milliseconds: 50 }),
            golden(BulkMessage::Ping),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn the_bytes_of_version_2_stay_as_they_are() {
        let golden = |message: BulkMessage| bs58::encode(message.encode().unwrap()).into_string();
        let pack = PackId(Hash([7; 32]));
        let all = [
            golden(BulkMessage::Chunk { pack, index: 9, bytes: vec![1, 2, 3] }),
            golden(BulkMessage::Elsewhere { pack, index: 9, retry_after_milliseconds: 50, instead: NodeId([8; 32]) }),
            golden(BulkMessage::Turn { pack }),
            golden(BulkMessage::Pass { pack }),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }
}
