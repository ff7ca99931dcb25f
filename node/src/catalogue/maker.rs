//! Makes patches (R73): finds what two images have in common, and chooses for each file how it is coded.
//!
//! | step | what |
//! | --- | --- |
//! | 1 | `matcher` finds the stretches of the new image that resemble the old one |
//! | 2 | a file whose stretches are exact is copied |
//! | 3 | for every other file both ways are tried with zstd: as differences to its stretches, and as new bytes with the old file as dictionary; the shorter one decides |
//! | 4 | the patch is coded as chosen, and once more in each way that step 3 did not rule out for the whole image; the shortest is kept |
//!
//! Step 3 estimates, step 4 measures: a patch is never longer than the better of the two ways alone.
use std::{io, ops::Range};

use anyhow::{Context, Result, ensure};
use branchline_protocol::{
    content::patch::{EncodedPatch, PatchSubject, PatchWriter, PresetRange},
    limits::{CHUNK_BYTES_LARGE, PATCH_PRESET_BYTES_MAX, PATCH_PRESET_RANGES_MAX},
};

use super::{
    matcher::{Match, matches},
    spans::spans,
};

/// Longest image that patches are made of and for, in bytes. Both are in memory, with a suffix array of four bytes per
/// byte of the old one (at most 1 GiB), and after that a coder of at most 1.5 GiB.
pub const PATCH_IMAGE_BYTES_MAX: u64 = 1 << 30;
/// Level of the estimates: their order is what counts.
const ESTIMATE_LEVEL: i32 = 9;
/// An image up to this length is coded in every way, whatever the estimates say, in bytes.
const SMALL_BYTES: usize = 2 << 20;
/// A file below this is coded with its neighbours, in bytes.
const ESTIMATE_BYTES_MIN: usize = 256;
/// Extra bytes gain little from a base this many times as long, and the base costs a decoder its memory.
const PRESET_WORTH: usize = 4096;

/// Length of the chunks of a patch's own pack: longer than a payload's of that length, because each costs 72 bytes of
/// manifest and a dozen of frame.
pub const PATCH_CHUNK_BYTES: usize = CHUNK_BYTES_LARGE;

/// How a patch came about, for people and benches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Files that are copied.
    pub copied: usize,
    /// Files that are coded as differences.
    pub differences: usize,
    /// Files that are coded as new bytes with the base as dictionary.
    pub dictionary: usize,
}

/// A patch and how it came about.
#[derive(Clone, Debug)]
pub struct Made {
    /// The patch.
    pub patch: EncodedPatch,
    /// How its files are coded.
    pub choice: Choice,
}

/// Makes the patch from `old` to `new`, the raw bytes of the subject's base and target.
///
/// # Errors
/// An image beyond [`PATCH_IMAGE_BYTES_MAX`], an empty target, or no memory.
pub fn make(subject: &PatchSubject, old: &[u8], new: &[u8]) -> Result<Made> {
    ensure!(!new.is_empty(), "there is no patch to an empty image");
    let longest = old.len().max(new.len()) as u64;
    ensure!(
        longest <= PATCH_IMAGE_BYTES_MAX,
        "images of more than {PATCH_IMAGE_BYTES_MAX} bytes travel whole: a patch of one of {longest} bytes would take \
         too much memory to make"
    );
    let found = matches(old, new);
    let estimated = estimate(old, new, &found)?;
    let mut best: Option<Made> = None;
    for (matches, choice) in estimated.candidates(&found) {
        let patch = encode(subject, old, new, &matches).context("coding the patch")?;
        if best.as_ref().is_none_or(|best| patch.bytes.len() < best.patch.bytes.len()) {
            best = Some(Made { patch, choice });
        }
    }
    best.context("no patch was coded")
}

/// What one file would cost, in bytes.
#[derive(Clone, Debug)]
struct FileCost {
    span: Range<usize>,
    /// Equal to one stretch of the base, or too short to tell.
    is_copy: bool,
    differences: usize,
    dictionary: usize,
}

struct Estimate {
    files: Vec<FileCost>,
}

impl Estimate {
    /// The ways that are worth coding: what each file prefers, and all in one way where that may be as short.
    fn candidates(&self, found: &[Match]) -> Vec<(Vec<Match>, Choice)> {
        let changed: Vec<&FileCost> = self.files.iter().filter(|file| !file.is_copy).collect();
        let copied = self.files.len() - changed.len();
        let prefers_dictionary = |file: &&&FileCost| file.dictionary < file.differences;
        let preferring: Vec<&FileCost> = changed.iter().filter(prefers_dictionary).copied().collect();
        let (differences, dictionary): (usize, usize) =
            changed.iter().fold((0, 0), |(a, b), file| (a + file.differences, b + file.dictionary));
        let count = |dictionary: usize| Choice { copied, differences: changed.len() - dictionary, dictionary };
        let mut candidates = vec![(without(found, &preferring), count(preferring.len()))];
        // The estimates see one file at a time; the real coder sees all, which favours one way throughout. A small image
        // costs little to code in every way.
        let is_small = self.files.last().is_none_or(|file| file.span.end <= SMALL_BYTES);
        if !preferring.is_empty() && (is_small || differences < dictionary.saturating_mul(2)) {
            candidates.push((found.to_vec(), count(0)));
        }
        if preferring.len() < changed.len() && (is_small || dictionary < differences.saturating_add(differences / 4)) {
            candidates.push((without(found, &changed), count(changed.len())));
        }
        candidates
    }
}

/// The matches outside of the files, which are in order.
fn without(found: &[Match], files: &[&FileCost]) -> Vec<Match> {
    let mut kept = Vec::new();
    for it in found {
        let mut start = it.new;
        let first = files.partition_point(|file| file.span.end <= start);
        for file in files[first..].iter().take_while(|file| file.span.start < it.end()) {
            push_part(&mut kept, it, start..file.span.start);
            start = file.span.end;
        }
        push_part(&mut kept, it, start..it.end());
    }
    kept
}

fn push_part(kept: &mut Vec<Match>, whole: &Match, part: Range<usize>) {
    if part.start < part.end {
        kept.push(Match { old: whole.old + (part.start - whole.new), new: part.start, length: part.len() });
    }
}

/// The parts of the matches inside of `span`.
fn inside(found: &[Match], span: &Range<usize>) -> Vec<Match> {
    let mut parts = Vec::new();
    let first = found.partition_point(|it| it.end() <= span.start);
    for it in found[first..].iter().take_while(|it| it.new < span.end) {
        push_part(&mut parts, it, it.new.max(span.start)..it.end().min(span.end));
    }
    parts
}

fn estimate(old: &[u8], new: &[u8], found: &[Match]) -> Result<Estimate> {
    let mut files = Vec::new();
    for span in spans(new) {
        let parts = inside(found, &span);
        let is_exact =
            matches!(&parts[..], [it] if it.length == span.len() && old[it.old..][..it.length] == new[span.clone()]);
        let is_copy = is_exact || span.len() < ESTIMATE_BYTES_MIN;
        let (differences, dictionary) =
            if is_copy { (0, 0) } else { costs(old, new, &span, &parts).context("estimating a file")? };
        files.push(FileCost { span, is_copy, differences, dictionary });
    }
    Ok(Estimate { files })
}

fn costs(old: &[u8], new: &[u8], span: &Range<usize>, parts: &[Match]) -> io::Result<(usize, usize)> {
    let (mut differences, mut extras, mut at) = (Vec::new(), Vec::new(), span.start);
    for part in parts {
        extras.extend(&new[at..part.new]);
        let pairs = new[part.new..part.end()].iter().zip(&old[part.old..]);
        differences.extend(pairs.map(|(new, old)| new.wrapping_sub(*old)));
        at = part.end();
    }
    extras.extend(&new[at..span.end]);
    // The dictionary: as much of the base as the file resembles, with a margin of its own length.
    let margin = span.len().max(64 << 10);
    let start = parts.iter().map(|part| part.old).min().unwrap_or(0).saturating_sub(margin);
    let end = parts.iter().map(|part| part.old + part.length).max().unwrap_or(0).saturating_add(margin).min(old.len());
    // A stray match far away would make the dictionary the whole base.
    let end = end.min(start.saturating_add(8 * margin));
    let dictionary = &old[start.min(end)..end];
    // What a record's four numbers take after coding, on average.
    let records = 4 * parts.len();
    let as_differences = compressed(&differences, &[])? + compressed(&extras, dictionary)? + records;
    Ok((as_differences, compressed(&new[span.clone()], dictionary)?))
}

fn compressed(bytes: &[u8], dictionary: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let mut encoder = zstd::Encoder::with_ref_prefix(Counter(0), ESTIMATE_LEVEL, dictionary)?;
    let window = (bytes.len() + dictionary.len()).next_power_of_two().ilog2().clamp(10, 27);
    encoder.window_log(window)?;
    io::Write::write_all(&mut encoder, bytes)?;
    Ok(encoder.finish()?.0)
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encode(subject: &PatchSubject, old: &[u8], new: &[u8], matches: &[Match]) -> io::Result<EncodedPatch> {
    let mut writer = PatchWriter::new();
    let (mut at, mut position) = (0, 0);
    for it in matches {
        if it.new > at || it.old != position {
            writer.end_record(&new[at..it.new], it.old as i64 - position as i64);
        }
        writer.matched(&old[it.old..it.old + it.length], &new[it.new..it.end()]);
        (at, position) = (it.end(), it.old + it.length);
    }
    if at < new.len() {
        writer.end_record(&new[at..], 0);
    }
    let preset = preset(old, matches, writer.extra_length());
    let bytes: Vec<u8> =
        preset.iter().flat_map(|it| &old[it.offset as usize..(it.offset + it.length) as usize]).copied().collect();
    writer.encode(subject, preset, &bytes)
}

/// What primes the coder of the extra bytes: the whole base where that is allowed, else what of it no match uses.
fn preset(old: &[u8], matches: &[Match], extra: usize) -> Vec<PresetRange> {
    if old.is_empty() || old.len() / PRESET_WORTH > extra {
        return Vec::new();
    }
    if old.len() <= PATCH_PRESET_BYTES_MAX {
        return vec![PresetRange { offset: 0, length: old.len() as u64 }];
    }
    let mut used: Vec<Range<usize>> = matches.iter().map(|it| it.old..it.old + it.length).collect();
    used.sort_by_key(|range| range.start);
    let (mut gaps, mut end) = (Vec::new(), 0);
    for range in used.into_iter().chain(std::iter::once(old.len()..old.len())) {
        if range.start > end {
            gaps.push(end..range.start);
        }
        end = end.max(range.end);
    }
    // The longest gaps, in the order of the base.
    gaps.sort_by_key(|gap| std::cmp::Reverse(gap.len()));
    let mut room = PATCH_PRESET_BYTES_MAX;
    let mut preset = Vec::new();
    for gap in gaps.into_iter().take(PATCH_PRESET_RANGES_MAX) {
        let length = gap.len().min(room);
        if length > 0 {
            preset.push(PresetRange { offset: gap.start as u64, length: length as u64 });
            room -= length;
        }
    }
    preset.sort_by_key(|range| range.offset);
    preset
}

#[cfg(test)]
#[path = "maker_tests.rs"]
mod tests;
