//! Records to a patch. What the records are is the maker's choice; see `catalogue` in the node.
use std::io;

use super::{
    header::{PatchHeader, PresetRange, StreamCoding, StreamEntry, StreamName, put_number},
    stream,
};
use crate::ids::ImageId;

/// Runs of equal bytes from this length on are copied instead of written as differences of zero. Shorter runs stay among
/// the differences, where they cost next to nothing and keep the distances by which LZMA2 finds repetitions.
const COPY_BYTES_MIN: usize = 2048;

/// Which images a patch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchSubject {
    /// The image that the patch needs.
    pub base: ImageId,
    /// The image that it makes.
    pub target: ImageId,
    /// Length of the base in bytes.
    pub base_length: u64,
    /// Length of the target in bytes.
    pub target_length: u64,
    /// Bytes of the target's chunks.
    pub target_chunk_bytes: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    copy: u64,
    difference: u64,
    /// Extra bytes and the seek, where they follow.
    end: Option<(u64, i64)>,
}

/// Collects records in the order in which the target is written.
#[derive(Clone, Debug, Default)]
pub struct PatchWriter {
    records: Vec<Record>,
    is_open: bool,
    differences: Vec<u8>,
    extras: Vec<u8>,
}

/// A patch with the measure of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPatch {
    /// The patch.
    pub bytes: Vec<u8>,
    /// Coded bytes per stream, as in [`StreamName::ALL`].
    pub stream_bytes: [u64; 6],
}

impl PatchWriter {
    /// No record yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, copy: u64, difference: u64) {
        if copy + difference > 0 {
            self.records.push(Record { copy, difference, end: None });
            self.is_open = true;
        }
    }

    /// The target goes on with `new`, written from the same number of bytes of the base, `old`, at the present place.
    pub fn matched(&mut self, old: &[u8], new: &[u8]) {
        let length = old.len().min(new.len());
        let (old, new) = (&old[..length], &new[..length]);
        let (mut copied, mut start, mut at) = (0, 0, 0);
        while at < length {
            let equal = old[at..].iter().zip(&new[at..]).take_while(|(old, new)| old == new).count();
            if equal >= COPY_BYTES_MIN {
                self.differ(&old[start..at], &new[start..at], copied);
                (copied, start) = (equal as u64, at + equal);
            }
            at += equal;
            at += old[at..].iter().zip(&new[at..]).take_while(|(old, new)| old != new).count();
        }
        self.differ(&old[start..], &new[start..], copied);
    }

    fn differ(&mut self, old: &[u8], new: &[u8], copied: u64) {
        self.differences.extend(new.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)));
        self.push(copied, new.len() as u64);
    }

    /// The target goes on with `extra`, and the next matched bytes are `seek` further in the base than the last ended.
    pub fn end_record(&mut self, extra: &[u8], seek: i64) {
        self.extras.extend(extra);
        let extra_length = extra.len() as u64;
        match self.records.last_mut() {
            Some(last) if self.is_open => last.end = Some((extra_length, seek)),
            // A record that writes nothing would be refused: its seek becomes the one before's.
            Some(Record { end: Some((_, before)), .. }) if extra_length == 0 => *before += seek,
            _ => self.records.push(Record { end: Some((extra_length, seek)), ..Record::default() }),
        }
        self.is_open = false;
    }

    /// Bytes of the target that are neither copied nor differences.
    pub fn extra_length(&self) -> usize {
        self.extras.len()
    }

    /// Codes everything. `preset_bytes` are the bytes of the base that `preset` names.
    ///
    /// # Errors
    /// The coder fails for want of memory.
    pub fn encode(
        &self,
        subject: &PatchSubject,
        preset: Vec<PresetRange>,
        preset_bytes: &[u8],
    ) -> io::Result<EncodedPatch> {
        let mut numbers: [Vec<u8>; 4] = Default::default();
        for record in &self.records {
            put_number(&mut numbers[0], record.copy);
            put_number(&mut numbers[1], record.difference << 1 | u64::from(record.end.is_some()));
            if let Some((extra, seek)) = record.end {
                put_number(&mut numbers[2], extra);
                put_number(&mut numbers[3], (seek << 1 ^ seek >> 63) as u64);
            }
        }
        let raw: [&[u8]; 6] = [&numbers[0], &numbers[1], &numbers[2], &numbers[3], &self.differences, &self.extras];
        let mut streams = [StreamEntry { raw_length: 0, coding: StreamCoding::Stored, coded_length: 0 }; 6];
        let mut coded = Vec::new();
        for (name, (raw, entry)) in StreamName::ALL.into_iter().zip(raw.into_iter().zip(&mut streams)) {
            let is_extras = name == StreamName::Extras;
            let (coding, bytes) = stream::encode(name, raw, if is_extras { preset_bytes } else { &[] })?;
            *entry = StreamEntry { raw_length: raw.len() as u64, coding, coded_length: bytes.len() as u64 };
            coded.extend(bytes);
        }
        let header = PatchHeader {
            base: subject.base,
            target: subject.target,
            base_length: subject.base_length,
            target_length: subject.target_length,
            target_chunk_bytes: subject.target_chunk_bytes,
            preset,
            streams,
        };
        let mut bytes = header.encode();
        bytes.append(&mut coded);
        Ok(EncodedPatch { bytes, stream_bytes: streams.map(|stream| stream.coded_length) })
    }
}
