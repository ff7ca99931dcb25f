//! Every decoder that takes bytes from outside, by name: what the fuzz targets and the property test feed.
//!
//! A decoder may refuse; it may not panic, and what it accepts must survive its own encoder.
use branchline_protocol::{
    catalogue::{Catalogue, SitePolicy},
    charter::{
        BeginRequest, Charter, FileSignature, JoinToken, Lease, Membership, Release, Revocations, Sealed, Signed,
        Warrant,
    },
    content::{ChunkEntry, FrameError, Pack, decode_frame, frame_of_chunk, patch::Patch, verify_frame},
    ids::Hash,
    limits,
    rates::BandwidthRules,
    survey::Descriptor,
    wire::{
        bulk::{BulkMessage, FRAME_HEADER_BYTES, FrameHeader},
        codec,
        control::{ControlAnswer, ControlRequest},
    },
};
use branchline_station_role::{
    router::table_xml,
    station::{SiteEvent, crossings::CrossingEvent},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{format_of, normalise_within};

// By its path, since the fuzz crate takes this file by a path as well.
#[path = "decoders/swarm_inputs.rs"]
mod swarm_inputs;

/// The bound of `branchline::store::journal`, of which the fuzz crate has nothing.
const JOURNAL_EVENT_BYTES_MAX: usize = 4 << 20;

/// A decoder's name and the function that feeds it.
pub type Decoder = (&'static str, fn(&[u8]));

/// All of them.
pub const DECODERS: [Decoder; 19] = [
    ("control_request", |bytes| wire::<ControlRequest>(bytes, limits::CONTROL_MESSAGE_BYTES_MAX)),
    ("control_answer", |bytes| wire::<ControlAnswer>(bytes, limits::CONTROL_MESSAGE_BYTES_MAX)),
    ("bulk_message", bulk_message),
    ("sealed", |bytes| wire::<Sealed>(bytes, limits::SEALED_SURVEY_BYTES_MAX)),
    ("manifest", |bytes| {
        if let Ok(pack) = Pack::decode(bytes) {
            assert_eq!(pack.manifest().encode().expect("an accepted manifest encodes"), bytes);
        }
    }),
    ("patch", |bytes| {
        // Whatever base the patch names, as long as it is short: what is fuzzed is the decoder, not the hash.
        if let Ok(patch) = Patch::open(bytes)
            && patch.header().base_length <= 1 << 16
        {
            let header = patch.header();
            let base: Vec<u8> = (0..header.base_length).map(|at| ((at * 31) >> 3) as u8).collect();
            let mut target = Vec::new();
            let limit = header.target_length.min(1 << 20);
            let _ = patch.apply(&base[..], header.base, Bounded { sink: &mut target, left: limit });
            assert!(target.len() as u64 <= limit);
        }
    }),
    ("descriptor", |bytes| {
        if let Ok(descriptor) = Descriptor::parse(bytes) {
            let printed = descriptor.print();
            let again = Descriptor::parse(printed.as_bytes()).expect("what is printed can be read");
            assert_eq!(again.print(), printed);
        }
    }),
    ("signed_documents", |bytes| {
        json::<Signed<Charter>>(bytes);
        json::<Signed<Warrant>>(bytes);
        json::<Signed<Membership>>(bytes);
        json::<Signed<Revocations>>(bytes);
        json::<Signed<Lease>>(bytes);
        json::<Signed<Catalogue>>(bytes);
        json::<Signed<SitePolicy>>(bytes);
        json::<Signed<BandwidthRules>>(bytes);
        json::<Signed<Release>>(bytes);
        json::<Signed<BeginRequest>>(bytes);
    }),
    // A new station reads its predecessor's.
    ("journal_events", |bytes| {
        wire::<SiteEvent>(bytes, JOURNAL_EVENT_BYTES_MAX);
        wire::<CrossingEvent>(bytes, JOURNAL_EVENT_BYTES_MAX);
    }),
    ("charter", |bytes| {
        if let Ok(charter) = serde_json::from_slice::<Charter>(bytes) {
            let _ = charter.check();
        }
    }),
    ("join_token", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = Signed::<JoinToken>::from_text(text);
        }
    }),
    ("file_signature", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(signature) = text.parse::<FileSignature>()
        {
            assert_eq!(signature.to_string().parse(), Ok(signature), "what is printed can be read");
        }
    }),
    ("catalogue_toml", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = branchline_protocol::catalogue::PackageDefinition::from_toml(text);
        }
    }),
    ("policy_toml", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = SitePolicy::from_toml(text);
        }
    }),
    ("bandwidth_toml", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(rules) = BandwidthRules::from_toml(text)
        {
            assert_eq!(rules.check(), Ok(()), "what was accepted holds");
        }
    }),
    ("nat_table_xml", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = table_xml::parse(text);
        }
    }),
    ("frame", frame),
    ("normalise", normalise),
    ("swarm_inputs", swarm_inputs::feed),
];

/// Both ways to read a message: whole, and a frame by its header, which is how connections read it.
fn bulk_message(bytes: &[u8]) {
    let whole = BulkMessage::decode(bytes.to_vec());
    match FrameHeader::read(&bytes[..bytes.len().min(FRAME_HEADER_BYTES)], bytes.len()) {
        Ok(Some(header)) => {
            let body = &bytes[FRAME_HEADER_BYTES..];
            assert_eq!(header.length, body.len());
            let frame = BulkMessage::Frame { pack: header.pack, index: header.index, bytes: body.to_vec() };
            assert_eq!(whole.as_ref(), Ok(&frame), "both ways read the same");
        }
        Ok(None) => {}
        Err(_) => assert!(whole.is_err(), "only one way refuses it"),
    }
    if let Ok(message) = whole {
        assert_eq!(message.encode().expect("what was decoded can be encoded"), bytes);
    }
}

/// A frame against its entry: the first three bytes are the raw length that the entry promises, the rest is the frame. A
/// fuzzer finds no hash, so the entry has the frame's own; the raw one is taken from the complaint that it is another.
fn frame(bytes: &[u8]) {
    let Some(([low, middle, high], frame)) = bytes.split_first_chunk() else { return };
    let raw_length = u32::from_le_bytes([*low, *middle, *high, 0]) % (limits::CHUNK_BYTES_MAX as u32 + 1);
    let frame_length = u32::try_from(frame.len()).expect("fuzzers make short inputs");
    let mut entry = ChunkEntry { raw_hash: Hash([0; 32]), raw_length, frame_hash: Hash::of(frame), frame_length };
    assert!(verify_frame(&entry, frame).is_ok());
    let Err(FrameError::RawHash { found, .. }) = decode_frame(&entry, frame) else { return };
    entry.raw_hash = found;
    let raw = decode_frame(&entry, frame).expect("it is what the entry says");
    assert_eq!((raw.len(), Hash::of(&raw)), (raw_length as usize, found));
    // Another zstd may have made the frame, so that none may come; one that comes is this one.
    let again = frame_of_chunk(&entry, &raw).expect("the chunk is what the entry says");
    assert!(again.is_none_or(|again| again == frame));
    entry.frame_hash = Hash([0; 32]);
    assert!(decode_frame(&entry, frame).is_err(), "another frame than the entry's is read");
}

/// A payload as each format, with little room: what comes of it keeps to that, and says what it was made of.
fn normalise(bytes: &[u8]) {
    const ROOM: u64 = 1 << 20;
    let payload = tempfile::NamedTempFile::new().expect("there is room for a temporary file");
    std::fs::write(payload.path(), bytes).expect("there is room for a temporary file");
    // An empty file has no format.
    let Ok(format) = format_of(payload.path()) else { return };
    if let Ok(form) = normalise_within(format, payload.path(), ROOM) {
        assert_eq!(form.raw.metadata().expect("the file is open").len(), form.length);
        assert!(form.length <= ROOM);
        assert_eq!(form.original.length, bytes.len() as u64);
    }
}

/// Takes so many bytes and no more, so that a patch that promises much does not fill the memory of the fuzzer.
struct Bounded<'a> {
    sink: &'a mut Vec<u8>,
    left: u64,
}

impl std::io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(std::io::ErrorKind::WriteZero)?;
        self.sink.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn wire<T: Serialize + DeserializeOwned>(bytes: &[u8], limit: usize) {
    if let Ok(message) = codec::decode::<T>(bytes, limit) {
        let again = codec::encode(&message, limit).expect("what was decoded can be encoded");
        assert!(codec::decode::<T>(&again, limit).is_ok());
    }
}

fn json<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(document) = serde_json::from_slice::<T>(bytes) {
        assert!(serde_json::to_vec(&document).is_ok());
    }
}
