//! One stream of a patch: coded as the header says, decoded with bounded memory and bounded output.
use std::io::{self, BufReader, Read, Write};

use lzma_rust2::{Lzma2Options, Lzma2Reader, Lzma2Writer, LzmaOptions};

use super::{
    ReadAt,
    error::PatchError,
    header::{StreamCoding, StreamEntry, StreamName, take_number},
};
use crate::limits::{PATCH_DIFFERENCE_WINDOW_BYTES, PATCH_EXTRA_WINDOW_BYTES_MAX, PATCH_NUMBER_WINDOW_BYTES};

/// Shortest window that LZMA2 knows, in bytes.
const WINDOW_BYTES_MIN: u64 = 4096;
/// Longest window of a stream that zstd codes, as a power of two: 64 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;
/// Longest stream that is tried with zstd, in bytes.
const ZSTD_BYTES_MAX: usize = 16 << 20;
/// Level of zstd for streams.
const ZSTD_LEVEL: i32 = 19;
/// What is read from the patch at a time, in bytes.
const READ_BYTES: usize = 16 << 10;

/// How far back the coder of a stream looks, in bytes: it follows from the stream, so that a patch cannot ask for more.
pub(super) fn window_bytes(name: StreamName, raw_length: u64, preset_length: u64) -> u32 {
    let most = match name {
        StreamName::Extras => PATCH_EXTRA_WINDOW_BYTES_MAX,
        StreamName::Differences => PATCH_DIFFERENCE_WINDOW_BYTES,
        _ => PATCH_NUMBER_WINDOW_BYTES,
    };
    raw_length.saturating_add(preset_length).clamp(WINDOW_BYTES_MIN, most as u64) as u32
}

/// A part of the patch as a reader.
struct Section<'a, P: ReadAt + ?Sized> {
    source: &'a P,
    at: u64,
    end: u64,
}

impl<P: ReadAt + ?Sized> Read for Section<'_, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        self.source.read_at(self.at, &mut buffer[..length])?;
        self.at += length as u64;
        Ok(length)
    }
}

/// What a decoder is primed with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Preset<'a, 'c> {
    /// Nothing.
    None,
    /// Bytes that stay as long as the decoder; zstd takes these only.
    Lent(&'a [u8]),
    /// Bytes of which the decoder makes a copy.
    Copied(&'c [u8]),
}

impl<'a> Preset<'a, '_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Lent(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }

    fn lent(self) -> &'a [u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::None | Self::Copied(_) => &[],
        }
    }
}

enum Decoder<'a, P: ReadAt + ?Sized> {
    Stored(BufReader<Section<'a, P>>),
    Lzma2(Box<BufReader<Lzma2Reader<BufReader<Section<'a, P>>>>>),
    Zstd(Box<BufReader<zstd::stream::read::Decoder<'a, BufReader<Section<'a, P>>>>>),
}

/// Reads one stream, and at its end checks that it has ended.
pub(super) struct StreamReader<'a, P: ReadAt + ?Sized> {
    name: StreamName,
    left: u64,
    decoder: Decoder<'a, P>,
}

impl<'a, P: ReadAt + ?Sized> StreamReader<'a, P> {
    pub fn new(
        name: StreamName,
        entry: &StreamEntry,
        patch: &'a P,
        at: u64,
        preset: Preset<'a, '_>,
    ) -> Result<Self, PatchError> {
        let section = Section { source: patch, at, end: at + entry.coded_length };
        let section = BufReader::with_capacity(READ_BYTES, section);
        let decoder = match entry.coding {
            StreamCoding::Stored => Decoder::Stored(section),
            StreamCoding::Lzma2 => {
                let preset = preset.bytes();
                let window = window_bytes(name, entry.raw_length, preset.len() as u64);
                let reader = Lzma2Reader::new(section, window, Some(preset).filter(|preset| !preset.is_empty()));
                Decoder::Lzma2(Box::new(BufReader::with_capacity(READ_BYTES, reader)))
            }
            StreamCoding::Zstd => {
                let made = zstd::stream::read::Decoder::with_ref_prefix(section, preset.lent());
                let made = made.and_then(|mut reader| reader.window_log_max(ZSTD_WINDOW_LOG_MAX).map(|()| reader));
                let reader = made.map_err(|error| PatchError::Stream { stream: name, reason: error.to_string() })?;
                Decoder::Zstd(Box::new(BufReader::with_capacity(READ_BYTES, reader.single_frame())))
            }
        };
        Ok(Self { name, left: entry.raw_length, decoder })
    }

    fn damaged(&self, reason: impl Into<String>) -> PatchError {
        PatchError::Stream { stream: self.name, reason: reason.into() }
    }

    /// Fills `buffer`.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PatchError> {
        if buffer.len() as u64 > self.left {
            return Err(self.damaged("they end before the target does"));
        }
        let read = match &mut self.decoder {
            Decoder::Stored(reader) => reader.read_exact(buffer),
            Decoder::Lzma2(reader) => reader.read_exact(buffer),
            Decoder::Zstd(reader) => reader.read_exact(buffer),
        };
        read.map_err(|error| self.damaged(error.to_string()))?;
        self.left -= buffer.len() as u64;
        Ok(())
    }

    /// The next number.
    pub fn number(&mut self) -> Result<u64, PatchError> {
        let number = take_number(|| {
            let mut byte = [0];
            self.fill(&mut byte).map(|()| byte[0])
        })?;
        number.ok_or_else(|| self.damaged("a number is not in its shortest form"))
    }

    /// Checks that the stream has ended here, both decoded and coded.
    pub fn finish(mut self) -> Result<(), PatchError> {
        let mut byte = [0];
        let more = match &mut self.decoder {
            Decoder::Stored(reader) => reader.read(&mut byte),
            Decoder::Lzma2(reader) => reader.read(&mut byte),
            Decoder::Zstd(reader) => reader.read(&mut byte),
        };
        let more = more.map_err(|error| self.damaged(error.to_string()))?;
        let unread = match &self.decoder {
            Decoder::Stored(_) => 0,
            Decoder::Lzma2(reader) => unread(reader.get_ref().inner()),
            Decoder::Zstd(reader) => unread(reader.get_ref().get_ref()),
        };
        if self.left > 0 || more > 0 || unread > 0 {
            return Err(self.damaged("they go on after the target's end"));
        }
        Ok(())
    }
}

/// Coded bytes that a decoder has left over.
fn unread<P: ReadAt + ?Sized>(coded: &BufReader<Section<'_, P>>) -> u64 {
    coded.buffer().len() as u64 + coded.get_ref().end - coded.get_ref().at
}

/// The zstd frame of a stream; `None` where the stream and its preset would need a longer window than is allowed, or
/// so long a search that it does not pay.
fn zstd_frame(raw: &[u8], preset: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let length = raw.len() + preset.len();
    if length > 1 << ZSTD_WINDOW_LOG_MAX || raw.len() > ZSTD_BYTES_MAX {
        return Ok(None);
    }
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), ZSTD_LEVEL, preset)?;
    encoder.window_log(length.next_power_of_two().ilog2().clamp(10, ZSTD_WINDOW_LOG_MAX))?;
    encoder.set_pledged_src_size(Some(raw.len() as u64))?;
    encoder.write_all(raw)?;
    encoder.finish().map(Some)
}

/// Streams up to this length, with their preset, are coded with every one of [`MODELS`], in bytes; longer ones with the
/// first.
const THOROUGH_BYTES_MAX: usize = 2 << 20;
/// LZMA's parameters (literal context bits, position bits): text, code in words of four bytes, many equal literals.
const MODELS: [(u32, u32); 3] = [(3, 0), (4, 0), (3, 2)];

/// Codes a stream as short as the models allow.
///
/// # Errors
/// The coder fails, which it does for want of memory only.
pub(super) fn encode(name: StreamName, raw: &[u8], preset: &[u8]) -> io::Result<(StreamCoding, Vec<u8>)> {
    let is_short = raw.len() + preset.len() <= THOROUGH_BYTES_MAX;
    let mut best = (StreamCoding::Stored, raw.to_vec());
    for (literal_bits, position_bits) in MODELS.into_iter().take(if is_short { MODELS.len() } else { 1 }) {
        let mut options = LzmaOptions::with_preset(9);
        options.dict_size = window_bytes(name, raw.len() as u64, preset.len() as u64);
        (options.lc, options.pb) = (literal_bits, position_bits);
        // Shorter searches made the patch of haproxy deb12u3 -> u4 15 % longer.
        options.nice_len = LzmaOptions::NICE_LEN_MAX;
        options.preset_dict = (!preset.is_empty()).then(|| preset.to_vec());
        let mut writer = Lzma2Writer::new(Vec::new(), Lzma2Options { lzma_options: options, chunk_size: None });
        writer.write_all(raw)?;
        let coded = writer.finish()?;
        if coded.len() < best.1.len() {
            best = (StreamCoding::Lzma2, coded);
        }
    }
    if name == StreamName::Extras
        && let Some(frame) = zstd_frame(raw, preset)?
        && frame.len() < best.1.len()
    {
        best = (StreamCoding::Zstd, frame);
    }
    Ok(best)
}
