//! Normal forms: what a payload is before it was compressed (R73).
//!
//! | payload | raw image |
//! | --- | --- |
//! | .deb | the same ar archive with its members decompressed: `debian-binary`, `control.tar`, `data.tar` |
//! | tar, plain or compressed by gzip, xz or zstd | the tar archive |
//! | .rpm | the file itself: its signatures cover the compressed form |
//!
//! Two versions of a package have little in common once they are compressed, and nearly everything before. dpkg installs
//! a .deb of that form as any other. Whatever a payload says of itself, it is never given more room than
//! [`PAYLOAD_RAW_BYTES_MAX`], nor its decoder more memory than [`DECODER_BYTES_MAX`].
use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use branchline_protocol::{
    catalogue::PayloadFormat,
    content::OriginalFile,
    ids::Hash,
    limits::{DECODER_BYTES_MAX, PAYLOAD_RAW_BYTES_MAX},
};
use sha2::{Digest, Sha256};

use crate::config::open_input;

const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z'];
const BZIP2_MAGIC: &[u8] = b"BZh";
const RPM_MAGIC: &[u8] = &[0xed, 0xab, 0xee, 0xdb];
const AR_MAGIC: &[u8] = b"!<arch>\n";
const AR_HEADER_BYTES: usize = 60;
/// Where a POSIX tar has its magic.
const TAR_MAGIC_OFFSET: usize = 257;

/// A payload in its normal form.
#[derive(Debug)]
pub struct NormalForm {
    /// The raw image, in a file without a name.
    pub raw: File,
    /// Its length in bytes.
    pub length: u64,
    /// The file that it was made of.
    pub original: OriginalFile,
}

/// What a payload is by its first bytes: a format, where a package's definition has not said one.
///
/// # Errors
/// It cannot be read, or is none that Branchline installs.
pub fn format_of(payload: &Path) -> Result<PayloadFormat> {
    let mut file = open_input("the payload", payload)?;
    let head = head(&mut file)?;
    Ok(if head.starts_with(AR_MAGIC) {
        PayloadFormat::Deb
    } else if head.starts_with(RPM_MAGIC) {
        PayloadFormat::Rpm
    } else {
        PayloadFormat::Tar
    })
}

/// Makes the normal form of `payload`, which its definition says is of `format`.
///
/// # Errors
/// It is missing, of another format, damaged, compressed by what Branchline does not read, or becomes too long.
pub fn normalise(format: PayloadFormat, payload: &Path) -> Result<NormalForm> {
    normalise_within(format, payload, PAYLOAD_RAW_BYTES_MAX)
}

/// [`normalise`] with room for `room` bytes, so that a test need not write 8 GiB to see the bound hold.
///
/// # Errors
/// As [`normalise`].
pub fn normalise_within(format: PayloadFormat, payload: &Path, room: u64) -> Result<NormalForm> {
    let shown = payload.display();
    let mut file = open_input("the payload", payload)?;
    let name = payload.file_name().and_then(|name| name.to_str()).context("the payload's file name is not UTF-8")?;
    let (sha256, length) = sha256(&mut file).with_context(|| format!("reading the payload {shown}"))?;
    let original = OriginalFile { name: name.to_owned(), sha256, length };
    let head = head(&mut file)?;
    let raw = match format {
        PayloadFormat::Rpm => {
            ensure!(head.starts_with(RPM_MAGIC), "the payload {shown} is not an RPM package, {SAID}");
            file
        }
        PayloadFormat::Tar => tar(file, &head, room).with_context(|| format!("reading the payload {shown}"))?,
        PayloadFormat::Deb => {
            ensure!(head.starts_with(AR_MAGIC), "the payload {shown} is not a Debian package (.deb), {SAID}");
            deb(&mut file, room).with_context(|| format!("reading the payload {shown}"))?
        }
    };
    let length = raw.metadata()?.len();
    ensure!(length <= room, "the payload {shown} has {length} bytes; {LIMIT}");
    Ok(NormalForm { raw, length, original })
}

const SAID: &str = "which the definition's `format` says";
const LIMIT: &str = "at most 8 GiB are taken, decompressed";

fn head(file: &mut File) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    Read::by_ref(file).take(512).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(head)
}

fn sha256(file: &mut File) -> io::Result<(Hash, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let (mut digest, mut total) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((Hash(digest.finalize().into()), total)),
            length => {
                digest.update(&buffer[..length]);
                total += length as u64;
            }
        }
    }
}

fn temporary() -> Result<File> {
    tempfile::tempfile().context("making a temporary file; is there room in the directory for temporary files?")
}

/// A decoder for what `source` begins with; itself, where it begins with no compression's magic.
fn decoder<'a>(mut source: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    let head = source.fill_buf()?;
    if head.starts_with(ZSTD_MAGIC) {
        let mut decoder = zstd::Decoder::with_buffer(source)?;
        decoder.window_log_max(DECODER_BYTES_MAX.ilog2())?;
        return Ok(Box::new(decoder));
    }
    if head.starts_with(GZIP_MAGIC) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(source)));
    }
    if head.starts_with(XZ_MAGIC) {
        return Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, (DECODER_BYTES_MAX >> 10) as u32)));
    }
    ensure!(!head.starts_with(BZIP2_MAGIC), "it is compressed by bzip2; pack it again with xz or zstd, or not at all");
    Ok(Box::new(source))
}

/// Decompresses `source` into `sink`, at most `room` bytes.
fn decompress(source: impl BufRead, sink: &mut impl Write, room: u64) -> Result<u64> {
    let mut decoder = decoder(source)?.take(room.saturating_add(1));
    let length = io::copy(&mut decoder, sink).context("decompressing it")?;
    ensure!(length <= room, "it is a decompression bomb, or too long to be distributed: {LIMIT}");
    Ok(length)
}

fn tar(file: File, head: &[u8], room: u64) -> Result<File> {
    let is_tar = |head: &[u8]| head.get(TAR_MAGIC_OFFSET..TAR_MAGIC_OFFSET + 5) == Some(b"ustar");
    let not_a_tar = "it is not a tar archive, plain or compressed by gzip, xz or zstd";
    if is_tar(head) {
        return Ok(file);
    }
    let known = [ZSTD_MAGIC, GZIP_MAGIC, XZ_MAGIC, BZIP2_MAGIC].iter().any(|magic| head.starts_with(magic));
    ensure!(known, "{not_a_tar}, {SAID}");
    let mut raw = BufWriter::new(temporary()?);
    decompress(BufReader::new(file), &mut raw, room)?;
    let mut raw = raw.into_inner().map_err(io::IntoInnerError::into_error)?;
    ensure!(is_tar(&self::head(&mut raw)?), "{not_a_tar}, {SAID}");
    Ok(raw)
}

/// One header of an ar archive (as of `deb(5)`: no long names).
struct ArMember {
    header: [u8; AR_HEADER_BYTES],
    name: String,
    length: u64,
}

impl ArMember {
    fn read(source: &mut impl Read) -> Result<Option<Self>> {
        let mut header = [0; AR_HEADER_BYTES];
        let first = source.read(&mut header[..1])?;
        if first == 0 {
            return Ok(None);
        }
        source.read_exact(&mut header[1..]).context("the archive is cut")?;
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).map(str::trim_end);
        let (Ok(name), Ok(length), b"`\n") = (text(0..16), text(48..58), &header[58..]) else {
            bail!("the archive is damaged: one of its headers is none");
        };
        let length = length.parse().context("the archive is damaged: a member's length is no number")?;
        Ok(Some(Self { name: name.trim_end_matches('/').to_owned(), header, length }))
    }

    /// The header under another name and length.
    fn header_of(&self, name: &str, length: u64) -> Result<[u8; AR_HEADER_BYTES]> {
        let mut header = self.header;
        ensure!(length < 10_000_000_000, "a member of {length} bytes does not fit an archive");
        header[..16].copy_from_slice(format!("{name:<16.16}").as_bytes());
        header[48..58].copy_from_slice(format!("{length:<10}").as_bytes());
        Ok(header)
    }
}

/// The archive with its tars decompressed. Whatever else is in it, such as a signature, stays as it is.
fn deb(file: &mut File, room: u64) -> Result<File> {
    let mut source = BufReader::new(file);
    source.seek(SeekFrom::Start(AR_MAGIC.len() as u64))?;
    let mut raw = BufWriter::new(temporary()?);
    raw.write_all(AR_MAGIC)?;
    let (mut written, mut tars) = (AR_MAGIC.len() as u64, Vec::new());
    while let Some(member) = ArMember::read(&mut source)? {
        let place = raw.stream_position()?;
        let plain = ["control.tar", "data.tar"].into_iter().find(|plain| member.name.starts_with(plain));
        let name = plain.unwrap_or(&member.name);
        raw.write_all(&member.header)?;
        let room = room.saturating_sub(written);
        let mut content = source.by_ref().take(member.length);
        let length = match plain {
            Some(plain) => {
                ensure!(
                    !member.name.ends_with(".lzma"),
                    "{} is compressed by lzma; pack it again with xz",
                    member.name
                );
                tars.push(plain);
                decompress(&mut content, &mut raw, room)
            }
            None => io::copy(&mut content, &mut raw).map_err(Into::into),
        };
        let length = length.with_context(|| format!("reading its member {}", member.name))?;
        // What a decoder leaves unread belongs to no later member.
        io::copy(&mut content, &mut io::sink())?;
        ensure!(content.limit() == 0, "the archive is cut in its member {}", member.name);
        for (length, sink) in [(member.length, None), (length, Some(&mut raw))] {
            match sink {
                _ if length % 2 == 0 => {}
                Some(raw) => raw.write_all(b"\n")?,
                // The last member's padding is often left out.
                None => drop(io::copy(&mut source.by_ref().take(1), &mut io::sink())?),
            }
        }
        let end = raw.stream_position()?;
        raw.seek(SeekFrom::Start(place))?;
        raw.write_all(&member.header_of(name, length)?)?;
        raw.seek(SeekFrom::Start(end))?;
        written = end;
    }
    ensure!(
        tars == ["control.tar", "data.tar"],
        "it is no Debian package: it needs control.tar and data.tar, once each"
    );
    let mut raw = raw.into_inner().map_err(io::IntoInnerError::into_error)?;
    raw.seek(SeekFrom::Start(0))?;
    Ok(raw)
}

#[cfg(test)]
#[path = "normal_tests.rs"]
mod tests;
