//! The first bytes of a patch.
//!
//! ```text
//! "BLP", format (1 byte)
//! base image (32), target image (32)
//! base length, target length, length of the target's chunks            numbers, 7 bits a byte, lowest first
//! number of preset ranges, then for each: gap after the one before, length
//! for each of the six streams: raw length, coding (1 byte), coded length
//! ```
//! The streams follow at once, in the same order, and nothing follows them.
use std::fmt;

use super::error::PatchError;
use crate::{
    ids::{Hash, ImageId},
    limits::{
        CHUNK_BYTES_MAX, MANIFEST_CHUNKS_MAX, PATCH_HEADER_BYTES_MAX, PATCH_PRESET_BYTES_MAX, PATCH_PRESET_RANGES_MAX,
    },
};

/// The only format so far.
pub const PATCH_FORMAT: u8 = 1;
const MAGIC: &[u8; 3] = b"BLP";
/// Most bytes of one number.
const NUMBER_BYTES_MAX: usize = 10;

/// The six streams, in the order in which they stand in a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamName {
    /// Bytes to copy, one number per record.
    Copies,
    /// Bytes to write as differences, twice, plus one where extra bytes and a seek follow.
    DifferenceLengths,
    /// Extra bytes to write.
    ExtraLengths,
    /// How far to move in the base, zigzag.
    Seeks,
    /// The differences.
    Differences,
    /// The extra bytes.
    Extras,
}

impl StreamName {
    /// All, in order.
    pub const ALL: [Self; 6] =
        [Self::Copies, Self::DifferenceLengths, Self::ExtraLengths, Self::Seeks, Self::Differences, Self::Extras];
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copies => "copies",
            Self::DifferenceLengths => "difference lengths",
            Self::ExtraLengths => "extra lengths",
            Self::Seeks => "seeks",
            Self::Differences => "differences",
            Self::Extras => "extra bytes",
        })
    }
}

/// How a stream's bytes are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamCoding {
    /// As they are.
    Stored,
    /// LZMA2, with the window that follows from the stream's place.
    Lzma2,
    /// One zstd frame with the preset as prefix: shorter than LZMA2 where most of a stream does not compress.
    Zstd,
}

/// What the header says of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Bytes after decoding.
    pub raw_length: u64,
    /// How they are coded.
    pub coding: StreamCoding,
    /// Bytes in the patch.
    pub coded_length: u64,
}

/// A range of the base that the decoder of the extra bytes is primed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresetRange {
    /// First byte in the base.
    pub offset: u64,
    /// Bytes, at least 1.
    pub length: u64,
}

/// A checked header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchHeader {
    /// The image that the patch needs.
    pub base: ImageId,
    /// The image that it makes.
    pub target: ImageId,
    /// Length of the base in bytes.
    pub base_length: u64,
    /// Length of the target in bytes, at least 1.
    pub target_length: u64,
    /// Bytes of the target's chunks: they belong to its name.
    pub target_chunk_bytes: u32,
    /// What the decoder of the extra bytes is primed with: ascending ranges that do not overlap.
    pub preset: Vec<PresetRange>,
    /// The streams, as in [`StreamName::ALL`].
    pub streams: [StreamEntry; 6],
}

/// Appends a number: seven bits a byte, lowest first, the highest bit set on all but the last.
pub(super) fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads a number from single bytes; `None` where it is too long, not in its shortest form, or `next` gives no byte.
pub(super) fn take_number<E>(mut next: impl FnMut() -> Result<u8, E>) -> Result<Option<u64>, E> {
    let mut number = 0_u64;
    for index in 0..NUMBER_BYTES_MAX {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        if index == NUMBER_BYTES_MAX - 1 && bits > 1 {
            return Ok(None);
        }
        number |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((byte != 0 || index == 0).then_some(number));
        }
    }
    Ok(None)
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn byte(&mut self) -> Result<u8, PatchError> {
        let (byte, rest) = self.0.split_first().ok_or(PatchError::Header("it is cut"))?;
        self.0 = rest;
        Ok(*byte)
    }

    fn number(&mut self) -> Result<u64, PatchError> {
        take_number(|| self.byte())?.ok_or(PatchError::Header("a number is not in its shortest form"))
    }

    fn image(&mut self) -> Result<ImageId, PatchError> {
        let (image, rest) = self.0.split_first_chunk::<32>().ok_or(PatchError::Header("it is cut"))?;
        self.0 = rest;
        Ok(ImageId(Hash(*image)))
    }
}

impl PatchHeader {
    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[PATCH_FORMAT], &self.base.0.0, &self.target.0.0].concat();
        put_number(&mut bytes, self.base_length);
        put_number(&mut bytes, self.target_length);
        put_number(&mut bytes, u64::from(self.target_chunk_bytes));
        put_number(&mut bytes, self.preset.len() as u64);
        let mut end = 0;
        for range in &self.preset {
            put_number(&mut bytes, range.offset.saturating_sub(end));
            put_number(&mut bytes, range.length);
            end = range.offset.saturating_add(range.length);
        }
        for stream in &self.streams {
            put_number(&mut bytes, stream.raw_length);
            bytes.push(match stream.coding {
                StreamCoding::Stored => 0,
                StreamCoding::Lzma2 => 1,
                StreamCoding::Zstd => 2,
            });
            put_number(&mut bytes, stream.coded_length);
        }
        bytes
    }

    /// Reads and checks the header of a patch of `patch_length` bytes from its first bytes, of which the first
    /// [`PATCH_HEADER_BYTES_MAX`] suffice; gives its own length too.
    ///
    /// # Errors
    /// No patch, another format, cut, or a promise beyond a bound.
    pub fn decode(start: &[u8], patch_length: u64) -> Result<(Self, u64), PatchError> {
        let start = &start[..start.len().min(PATCH_HEADER_BYTES_MAX)];
        let rest = start.strip_prefix(MAGIC).ok_or(PatchError::NotAPatch)?;
        let mut cursor = Cursor(rest);
        match cursor.byte()? {
            PATCH_FORMAT => {}
            found => return Err(PatchError::Format { found }),
        }
        let (base, target) = (cursor.image()?, cursor.image()?);
        let (base_length, target_length, chunk_bytes) = (cursor.number()?, cursor.number()?, cursor.number()?);
        let target_chunk_bytes = chunk_bytes_of(target_length, chunk_bytes)?;
        let preset = preset_of(&mut cursor, base_length)?;
        let mut streams = [StreamEntry { raw_length: 0, coding: StreamCoding::Stored, coded_length: 0 }; 6];
        for stream in &mut streams {
            stream.raw_length = cursor.number()?;
            stream.coding = match cursor.byte()? {
                0 => StreamCoding::Stored,
                1 => StreamCoding::Lzma2,
                2 => StreamCoding::Zstd,
                _ => return Err(PatchError::Header("a stream has an unknown coding")),
            };
            stream.coded_length = cursor.number()?;
        }
        let header = Self { base, target, base_length, target_length, target_chunk_bytes, preset, streams };
        let length = (start.len() - cursor.0.len()) as u64;
        header.check_streams(length, patch_length)?;
        Ok((header, length))
    }

    fn check_streams(&self, header_length: u64, patch_length: u64) -> Result<(), PatchError> {
        let mut end = Some(header_length);
        for (name, stream) in StreamName::ALL.into_iter().zip(&self.streams) {
            // Every record but one writes a byte at least, and no number is longer than ten.
            let most = match name {
                StreamName::Differences | StreamName::Extras => Some(self.target_length),
                _ => self.target_length.checked_add(1).and_then(|records| records.checked_mul(10)),
            };
            if most.is_none_or(|most| stream.raw_length > most) {
                return Err(PatchError::Header("a stream promises more than the target can need"));
            }
            if stream.coding == StreamCoding::Stored && stream.raw_length != stream.coded_length {
                return Err(PatchError::Header("a stored stream has two lengths"));
            }
            // Six windows of zstd would take more memory than a patch may.
            if stream.coding == StreamCoding::Zstd && name != StreamName::Extras {
                return Err(PatchError::Header("a stream has a coding that only the extra bytes may have"));
            }
            end = end.and_then(|end| end.checked_add(stream.coded_length));
        }
        if end != Some(patch_length) {
            return Err(PatchError::Header("its streams do not fill the patch"));
        }
        Ok(())
    }

    /// The entry of one stream.
    pub fn stream(&self, name: StreamName) -> &StreamEntry {
        &self.streams[name as usize]
    }

    /// Bytes of the preset.
    pub fn preset_length(&self) -> u64 {
        self.preset.iter().map(|range| range.length).sum()
    }
}

fn chunk_bytes_of(target_length: u64, chunk_bytes: u64) -> Result<u32, PatchError> {
    if !(1..=CHUNK_BYTES_MAX as u64).contains(&chunk_bytes) {
        return Err(PatchError::Header("the target's chunks have an impossible length"));
    }
    if target_length == 0 || target_length.div_ceil(chunk_bytes) > MANIFEST_CHUNKS_MAX as u64 {
        return Err(PatchError::Header("the target is empty or has too many chunks"));
    }
    Ok(chunk_bytes as u32)
}

fn preset_of(cursor: &mut Cursor<'_>, base_length: u64) -> Result<Vec<PresetRange>, PatchError> {
    let count = cursor.number()?;
    if count > PATCH_PRESET_RANGES_MAX as u64 {
        return Err(PatchError::Header("it names too many ranges of the base"));
    }
    let (mut preset, mut end, mut total) = (Vec::new(), 0_u64, 0_u64);
    for _ in 0..count {
        let (gap, length) = (cursor.number()?, cursor.number()?);
        let offset = end.checked_add(gap).filter(|_| length > 0);
        let offset = offset.ok_or(PatchError::Header("a range of the base is empty"))?;
        end = offset
            .checked_add(length)
            .filter(|end| *end <= base_length)
            .ok_or(PatchError::Header("a range lies outside of the base"))?;
        total += length;
        if total > PATCH_PRESET_BYTES_MAX as u64 {
            return Err(PatchError::Header("the ranges of the base take more memory than a patch may"));
        }
        preset.push(PresetRange { offset, length });
    }
    Ok(preset)
}
