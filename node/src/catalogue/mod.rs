//! A catalogue directory: the signed catalogue and the packs that it names, as `branchline catalogue add` keeps it and
//! `branchline publish` hands it to headquarters.
//!
//! | file | holds |
//! | --- | --- |
//! | `catalogue.json` | the signed catalogue |
//! | `packs/PACK.manifest`, `packs/PACK.pack` | manifest and frames of each pack, as a node's pack store has them |
//!
//! A package is added packs first, catalogue last, each file whole or not at all: whatever fails, the catalogue in force
//! names only packs that are there.
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use branchline_protocol::{
    catalogue::{Catalogue, Package, PackageDefinition, Payload, PayloadFormat},
    charter::{PublicKey, Signed},
    content::{OriginalFile, Pack, build_pack, build_pack_of, chunk_bytes_for},
    ids::Hash,
    limits,
    time::UnixSeconds,
};
use ed25519_dalek::SigningKey;
use sha2::{Digest, Sha256};

use crate::config::write_atomically;

/// First bytes of what zstd, gzip and xz write.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z'];
/// Where a POSIX tar has its magic.
const TAR_MAGIC_OFFSET: usize = 257;

/// A catalogue directory.
#[derive(Clone, Debug)]
pub struct CatalogueDirectory {
    directory: PathBuf,
}

impl CatalogueDirectory {
    /// The catalogue directory at `directory`; nothing is opened yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The signed catalogue; `None` where there is none yet.
    ///
    /// # Errors
    /// The file cannot be read, or is no signed catalogue.
    pub fn signed(&self) -> Result<Option<Signed<Catalogue>>> {
        let path = self.file();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} is no signed catalogue", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// The catalogue, if `key` signed it and it is usable; an empty one of version 0 where there is none yet.
    ///
    /// # Errors
    /// As [`CatalogueDirectory::signed`], another signer, changed after it was signed, or not usable.
    pub fn verified(&self, key: PublicKey) -> Result<Catalogue> {
        let Some(signed) = self.signed()? else {
            return Ok(Catalogue { version: 0, expires_at: None, packages: Vec::new() });
        };
        let catalogue = signed.verify(key).with_context(|| format!("reading {}", self.file().display()))?;
        catalogue.check().with_context(|| format!("reading {}", self.file().display()))?;
        Ok(catalogue)
    }

    /// Packs `payload`, adds it under `definition` and signs the next version of the catalogue.
    ///
    /// # Errors
    /// Another key signed the catalogue so far; the payload is missing or not of the definition's format; the version is
    /// there already; the disk fails. The catalogue in force stays as it was.
    pub fn add(
        &self,
        key: &SigningKey,
        definition: PackageDefinition,
        payload: &Path,
        expires_at: Option<UnixSeconds>,
    ) -> Result<(u64, Package)> {
        definition.check()?;
        let packs = self.directory.join("packs");
        fs::create_dir_all(&packs).with_context(|| format!("making {}", packs.display()))?;
        let _lock = self.lock()?;
        let mut catalogue = self.verified(PublicKey::of(key))?;
        refuse_duplicate(&catalogue, &definition)?;
        let pack = add_pack(&packs, definition.format, payload)?;
        let package = Package { definition, payload: describe(&pack) };
        catalogue.packages.push(package.clone());
        catalogue.version += 1;
        catalogue.expires_at = expires_at.or(catalogue.expires_at);
        catalogue.check()?;
        let signed = Signed::sign(&catalogue, key);
        signed.verify(PublicKey::of(key)).context("the catalogue has become too large; take old versions out of it")?;
        write_atomically(&self.file(), &serde_json::to_vec_pretty(&signed)?, 0o644)?;
        Ok((catalogue.version, package))
    }

    /// The file of the signed catalogue.
    pub fn file(&self) -> PathBuf {
        self.directory.join("catalogue.json")
    }

    /// Two people who add at the same time would otherwise lose one of the packages.
    fn lock(&self) -> Result<File> {
        let path = self.directory.join(".lock");
        let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).with_context(|| {
            format!("another `catalogue add` works on {}; try again when it is done", self.directory.display())
        })?;
        Ok(file)
    }
}

fn refuse_duplicate(catalogue: &Catalogue, definition: &PackageDefinition) -> Result<()> {
    let same = catalogue.packages.iter().map(|package| &package.definition).find(|known| {
        (&known.name, &known.version, known.format) == (&definition.name, &definition.version, definition.format)
            && known.architectures.iter().any(|architecture| definition.architectures.contains(architecture))
    });
    match same {
        Some(known) => bail!(
            "the catalogue has {} {} for {} already; give the new one a higher version",
            known.name,
            known.version,
            known.architectures.join(", ")
        ),
        None => Ok(()),
    }
}

fn describe(pack: &Pack) -> Payload {
    let manifest = pack.manifest();
    Payload {
        image: manifest.image,
        pack: pack.id(),
        pack_bytes: manifest.pack_length(),
        raw_bytes: manifest.raw_length(),
        sha256: manifest.original.sha256,
        file_name: manifest.original.name.clone(),
    }
}

/// Builds the pack beside its place and moves it there: data first, then the manifest that makes it count.
fn add_pack(packs: &Path, format: PayloadFormat, payload: &Path) -> Result<Pack> {
    let temporary =
        tempfile::NamedTempFile::new_in(packs).with_context(|| format!("writing to {}", packs.display()))?;
    let mut sink = BufWriter::new(temporary);
    let pack = pack_payload(format, payload, &mut sink)?;
    let data = packs.join(format!("{}.pack", pack.id()));
    let file = sink.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    file.persist(&data).with_context(|| format!("writing {}", data.display()))?;
    write_atomically(&packs.join(format!("{}.manifest", pack.id())), &pack.manifest().encode()?, 0o644)?;
    Ok(pack)
}

fn pack_payload(format: PayloadFormat, payload: &Path, sink: impl Write) -> Result<Pack> {
    let mut file = File::open(payload).with_context(|| format!("opening the payload {}", payload.display()))?;
    let name = payload.file_name().and_then(|name| name.to_str()).context("the payload's file name is not UTF-8")?;
    let length = file.metadata()?.len();
    if !(format == PayloadFormat::Tar && starts_with(&mut file, ZSTD_MAGIC)?) {
        check_format(format, &mut file, payload)?;
        return Ok(build_pack(name, BufReader::new(file), chunk_bytes_for(length), sink)?);
    }
    // The normal form of a compressed archive is the archive: chunks of compressed bytes have nothing in common with the
    // next version's, and the frames are compressed anyway.
    let mut raw = tempfile::tempfile().context("making a temporary file")?;
    let most = limits::CHUNK_BYTES_MAX as u64 * limits::MANIFEST_CHUNKS_MAX as u64;
    let mut decoder = zstd::Decoder::new(&mut file)?.take(most);
    io::copy(&mut decoder, &mut raw).with_context(|| format!("decompressing the payload {}", payload.display()))?;
    let sha256 = sha256(&mut file).with_context(|| format!("reading the payload {}", payload.display()))?;
    check_format(format, &mut raw, payload)?;
    let original = OriginalFile { name: name.to_owned(), sha256, length };
    let raw_length = raw.metadata()?.len();
    Ok(build_pack_of(original, BufReader::new(raw), chunk_bytes_for(raw_length), sink)?)
}

fn sha256(file: &mut File) -> io::Result<Hash> {
    file.seek(SeekFrom::Start(0))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Hash(digest.finalize().into())),
            length => digest.update(&buffer[..length]),
        }
    }
}

fn head(file: &mut File) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    Read::by_ref(file).take(512).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(head)
}

fn starts_with(file: &mut File, magic: &[u8]) -> Result<bool> {
    Ok(head(file)?.starts_with(magic))
}

/// Whether the first bytes are of the format that the definition names: a mistake here would show on every host only.
fn check_format(format: PayloadFormat, file: &mut File, payload: &Path) -> Result<()> {
    let head = head(file)?;
    let shown = payload.display();
    ensure!(!head.is_empty(), "the payload {shown} is empty");
    let (fits, wanted) = match format {
        PayloadFormat::Deb => (head.starts_with(b"!<arch>\ndebian"), "a Debian package (.deb)"),
        PayloadFormat::Rpm => (head.starts_with(&[0xed, 0xab, 0xee, 0xdb]), "an RPM package"),
        PayloadFormat::Tar => {
            let compressed = head.starts_with(GZIP_MAGIC) || head.starts_with(XZ_MAGIC);
            ensure!(!compressed, "the payload {shown} is compressed by gzip or xz; decompress it, or use zstd");
            let magic = head.get(TAR_MAGIC_OFFSET..TAR_MAGIC_OFFSET + 5);
            (magic == Some(b"ustar"), "a tar archive, plain or compressed by zstd")
        }
    };
    ensure!(fits, "the payload {shown} is not {wanted}, which the definition's `format` says");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE_AGENT: &str = include_str!("demo/packages/sample-agent.toml");

    fn tar_with(content: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, "bin/sample-agent", content).unwrap();
        builder.into_inner().unwrap()
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn definition(version: &str) -> PackageDefinition {
        let text = SAMPLE_AGENT.replace("version = \"1.0.0\"", &format!("version = \"{version}\""));
        PackageDefinition::from_toml(&text).unwrap()
    }

    #[test]
    fn packages_are_added_one_signed_version_after_the_other() {
        let home = tempfile::tempdir().unwrap();
        let payload = home.path().join("agent.tar");
        let raw = tar_with(&vec![7; 300_000]);
        fs::write(&payload, &raw).unwrap();
        let directory = CatalogueDirectory::new(home.path().join("catalogue"));
        let (version, first) = directory.add(&key(1), definition("1.0.0"), &payload, None).unwrap();
        assert_eq!((version, first.payload.raw_bytes), (1, raw.len() as u64));
        assert_eq!(first.payload.sha256, Hash(Sha256::digest(&raw).into()));
        let manifest = fs::read(home.path().join(format!("catalogue/packs/{}.manifest", first.payload.pack))).unwrap();
        let pack = Pack::decode_as(first.payload.pack, &manifest).unwrap();
        let frames = fs::metadata(home.path().join(format!("catalogue/packs/{}.pack", pack.id()))).unwrap().len();
        assert_eq!(frames, pack.length());

        let compressed = home.path().join("agent.tar.zst");
        fs::write(&compressed, zstd::encode_all(&raw[..], 3).unwrap()).unwrap();
        let (version, second) = directory.add(&key(1), definition("1.1.0"), &compressed, Some(UnixSeconds(9))).unwrap();
        assert_eq!(version, 2);
        assert_eq!(second.payload.image, first.payload.image, "a compressed archive's normal form is the archive");
        assert_eq!(second.payload.file_name, "agent.tar.zst");
        let catalogue = directory.verified(PublicKey::of(&key(1))).unwrap();
        assert_eq!((catalogue.packages.len(), catalogue.expires_at), (2, Some(UnixSeconds(9))));
    }

    #[test]
    fn what_is_wrong_leaves_the_catalogue_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        let payload = home.path().join("agent.tar");
        fs::write(&payload, tar_with(b"x")).unwrap();
        let other = home.path().join("agent.deb");
        fs::write(&other, b"!<arch>\ndebian-binary").unwrap();
        let gzip = home.path().join("agent.tar.gz");
        fs::write(&gzip, [0x1f, 0x8b, 8, 0]).unwrap();
        let empty = home.path().join("empty.tar");
        fs::write(&empty, b"").unwrap();
        let directory = CatalogueDirectory::new(home.path().join("catalogue"));
        directory.add(&key(1), definition("1.0.0"), &payload, None).unwrap();
        let before = fs::read(directory.file()).unwrap();
        let error = |key: &SigningKey, version: &str, payload: &Path| {
            let error = directory.add(key, definition(version), payload, None).unwrap_err();
            assert_eq!(fs::read(directory.file()).unwrap(), before);
            format!("{error:#}")
        };
        assert!(error(&key(1), "1.0.0", &payload).contains("already; give the new one a higher version"));
        assert!(error(&key(2), "2.0.0", &payload).contains("must sign it"));
        assert!(error(&key(1), "2.0.0", &other).contains("is not a tar archive"));
        assert!(error(&key(1), "2.0.0", &gzip).contains("decompress it"));
        assert!(error(&key(1), "2.0.0", &empty).contains("is empty"));
        assert!(error(&key(1), "2.0.0", &home.path().join("missing")).contains("opening the payload"));
        let leftovers = fs::read_dir(home.path().join("catalogue/packs")).unwrap().count();
        assert_eq!(leftovers, 2, "one pack and its manifest, no temporary file");

        let text = fs::read_to_string(directory.file()).unwrap();
        fs::write(directory.file(), text.replace("/opt/sample-agent", "/opt/another-one")).unwrap();
        assert!(format!("{:#}", directory.verified(PublicKey::of(&key(1))).unwrap_err()).contains("does not hold"));
    }
}
