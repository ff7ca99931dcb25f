//! Base and patch to target, streaming: the base is read where a record says, the target is written once, in order.
use std::io::Write;

use super::{
    ReadAt,
    error::PatchError,
    header::{PatchHeader, StreamCoding, StreamName},
    stream::{Preset, StreamReader},
};
use crate::{
    content::image::ImageHasher,
    ids::ImageId,
    limits::{PATCH_BUFFER_BYTES, PATCH_HEADER_BYTES_MAX},
};

/// A patch whose header was checked.
#[derive(Debug)]
pub struct Patch<'a, P: ReadAt + ?Sized> {
    header: PatchHeader,
    header_length: u64,
    bytes: &'a P,
}

impl<'a, P: ReadAt + ?Sized> Patch<'a, P> {
    /// Reads and checks the header of the patch in `bytes`.
    ///
    /// # Errors
    /// It cannot be read, or is no usable patch.
    pub fn open(bytes: &'a P) -> Result<Self, PatchError> {
        let length = bytes.length();
        let mut start = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(PATCH_HEADER_BYTES_MAX)];
        bytes.read_at(0, &mut start).map_err(|source| PatchError::Read { what: "patch", source })?;
        let (header, header_length) = PatchHeader::decode(&start, length)?;
        Ok(Self { header, header_length, bytes })
    }

    /// What it needs and what it makes.
    pub fn header(&self) -> &PatchHeader {
        &self.header
    }

    /// Writes the target to `sink`. `base` must be the bytes of image `base_image`, proved by whoever calls.
    ///
    /// Takes at most [`crate::limits::PATCH_MEMORY_BYTES_MAX`] of memory and writes at most `target_length` bytes.
    ///
    /// # Errors
    /// Another base, a damaged patch, or reading or writing fails. Only after `Ok` is what was written the target.
    pub fn apply<B: ReadAt + ?Sized>(&self, base: &B, base_image: ImageId, sink: impl Write) -> Result<(), PatchError> {
        let header = &self.header;
        if base_image != header.base {
            return Err(PatchError::WrongBase { wanted: header.base, found: base_image });
        }
        if base.length() != header.base_length {
            return Err(PatchError::BaseLength { wanted: header.base_length, found: base.length() });
        }
        let preset = self.preset(base)?;
        let kept;
        let extras = if header.stream(StreamName::Extras).coding == StreamCoding::Zstd {
            kept = preset;
            self.stream(StreamName::Extras, Preset::Lent(&kept))?
        } else {
            // The decoder has made a copy; with this one as well the bound of memory would not hold.
            let reader = self.stream(StreamName::Extras, Preset::Copied(&preset))?;
            drop(preset);
            reader
        };
        let mut run = Run {
            base,
            position: 0,
            target: Target {
                sink,
                hasher: ImageHasher::new(header.target_chunk_bytes as usize),
                written: 0,
                length: header.target_length,
            },
            buffer: vec![0; PATCH_BUFFER_BYTES],
            addends: vec![0; PATCH_BUFFER_BYTES],
            copies: self.stream(StreamName::Copies, Preset::None)?,
            difference_lengths: self.stream(StreamName::DifferenceLengths, Preset::None)?,
            extra_lengths: self.stream(StreamName::ExtraLengths, Preset::None)?,
            seeks: self.stream(StreamName::Seeks, Preset::None)?,
            differences: self.stream(StreamName::Differences, Preset::None)?,
            extras,
        };
        let mut is_first = true;
        while run.target.written < run.target.length {
            run.record(is_first)?;
            is_first = false;
        }
        run.finish(header.target)
    }

    fn preset<B: ReadAt + ?Sized>(&self, base: &B) -> Result<Vec<u8>, PatchError> {
        let mut preset = vec![0; usize::try_from(self.header.preset_length()).unwrap_or(0)];
        let mut rest = &mut preset[..];
        for range in &self.header.preset {
            let (now, then) = rest.split_at_mut(usize::try_from(range.length).unwrap_or(0));
            base.read_at(range.offset, now).map_err(|source| PatchError::Read { what: "base", source })?;
            rest = then;
        }
        Ok(preset)
    }

    fn stream<'s>(&'s self, name: StreamName, preset: Preset<'s, '_>) -> Result<StreamReader<'s, P>, PatchError> {
        let before = self.header.streams[..name as usize].iter().map(|stream| stream.coded_length).sum::<u64>();
        StreamReader::new(name, self.header.stream(name), self.bytes, self.header_length + before, preset)
    }
}

/// The target as far as it is written.
struct Target<W: Write> {
    sink: W,
    hasher: ImageHasher,
    written: u64,
    length: u64,
}

impl<W: Write> Target<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PatchError> {
        self.sink.write_all(bytes).map_err(PatchError::Write)?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }
}

struct Run<'a, B: ReadAt + ?Sized, P: ReadAt + ?Sized, W: Write> {
    base: &'a B,
    position: u64,
    target: Target<W>,
    buffer: Vec<u8>,
    addends: Vec<u8>,
    copies: StreamReader<'a, P>,
    difference_lengths: StreamReader<'a, P>,
    extra_lengths: StreamReader<'a, P>,
    seeks: StreamReader<'a, P>,
    differences: StreamReader<'a, P>,
    extras: StreamReader<'a, P>,
}

impl<B: ReadAt + ?Sized, P: ReadAt + ?Sized, W: Write> Run<'_, B, P, W> {
    fn refuse<T>(&self, reason: &'static str) -> Result<T, PatchError> {
        Err(PatchError::Record { at: self.target.written, reason })
    }

    /// Carries out one record. Only the first may write nothing, so that the work is bounded by the target's length.
    fn record(&mut self, may_be_empty: bool) -> Result<(), PatchError> {
        let before = self.target.written;
        let copy = self.copies.number()?;
        let difference = self.difference_lengths.number()?;
        self.take_base(copy, false)?;
        self.take_base(difference >> 1, true)?;
        if difference & 1 == 1 {
            let extra = self.extra_lengths.number()?;
            self.extra(extra)?;
            let zigzag = self.seeks.number()?;
            let seek = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            match self.position.checked_add_signed(seek) {
                Some(position) if position <= self.base.length() => self.position = position,
                _ => return self.refuse("it moves to a place outside of its base"),
            }
        }
        if self.target.written == before && !may_be_empty {
            return self.refuse("a record writes nothing");
        }
        Ok(())
    }

    fn take_base(&mut self, length: u64, changed: bool) -> Result<(), PatchError> {
        if length > self.target.length - self.target.written {
            return self.refuse("it writes beyond the end of its target");
        }
        if length > self.base.length() - self.position {
            return self.refuse("it reads beyond the end of its base");
        }
        let mut left = length;
        while left > 0 {
            let now = left.min(PATCH_BUFFER_BYTES as u64) as usize;
            let bytes = &mut self.buffer[..now];
            self.base.read_at(self.position, bytes).map_err(|source| PatchError::Read { what: "base", source })?;
            if changed {
                let addends = &mut self.addends[..now];
                self.differences.fill(addends)?;
                bytes.iter_mut().zip(addends).for_each(|(byte, addend)| *byte = byte.wrapping_add(*addend));
            }
            self.target.write(bytes)?;
            self.position += now as u64;
            left -= now as u64;
        }
        Ok(())
    }

    fn extra(&mut self, length: u64) -> Result<(), PatchError> {
        if length > self.target.length - self.target.written {
            return self.refuse("it writes beyond the end of its target");
        }
        let mut left = length;
        while left > 0 {
            let now = left.min(PATCH_BUFFER_BYTES as u64) as usize;
            let bytes = &mut self.buffer[..now];
            self.extras.fill(bytes)?;
            self.target.write(bytes)?;
            left -= now as u64;
        }
        Ok(())
    }

    fn finish(mut self, promised: ImageId) -> Result<(), PatchError> {
        for stream in
            [self.copies, self.difference_lengths, self.extra_lengths, self.seeks, self.differences, self.extras]
        {
            stream.finish()?;
        }
        self.target.sink.flush().map_err(PatchError::Write)?;
        let made = self.target.hasher.finish();
        if made != promised {
            return Err(PatchError::Target { promised, made });
        }
        Ok(())
    }
}
