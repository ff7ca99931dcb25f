//! A catalogue directory: the signed catalogue and the packs that it names, as `branchline catalogue add` keeps it and
//! `branchline publish` hands it to headquarters.
//!
//! | file | holds |
//! | --- | --- |
//! | `catalogue.json` | the signed catalogue |
//! | `packs/PACK.manifest`, `packs/PACK.pack` | manifest and frames of each pack, as a node's pack store has them |
//!
//! What `add` does: `normal` makes the payload's normal form, a pack is built of it, `patches` makes patches from the
//! versions that are there (`matcher` finds what two images share, `spans` where their files are, `maker` chooses and
//! codes), and the next version of the catalogue is signed.
//!
//! A package is added packs first, catalogue last, each file whole or not at all: whatever fails, the catalogue in force
//! names only packs that are there.
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use branchline_protocol::{
    catalogue::{Catalogue, Package, PackageDefinition, PatchOffer, Payload},
    charter::{PublicKey, Signed},
    content::{Pack, build_pack_of, chunk_bytes_for},
    time::UnixSeconds,
};
use ed25519_dalek::SigningKey;

use crate::config::write_atomically;

mod by_hand;
mod maker;
mod matcher;
mod normal;
mod patches;
mod spans;

pub use by_hand::{Applied, MadeFile, apply_patch, make_patch};
pub use maker::{Choice, PATCH_IMAGE_BYTES_MAX};
pub use normal::{NormalForm, format_of, normalise, normalise_within};

/// Earlier versions from which `catalogue add` makes patches where nobody says another number.
pub const PATCH_BASES_DEFAULT: usize = 2;

/// What `add` added.
#[derive(Clone, Debug)]
pub struct Added {
    /// Version of the catalogue in force now.
    pub version: u64,
    /// The package.
    pub package: Package,
    /// Patches to it from versions that the catalogue holds.
    pub patches: Vec<PatchOffer>,
}

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
            return Ok(Catalogue { version: 0, expires_at: None, packages: Vec::new(), patches: Vec::new() });
        };
        let catalogue = signed.verify(key).with_context(|| format!("reading {}", self.file().display()))?;
        catalogue.check().with_context(|| format!("reading {}", self.file().display()))?;
        Ok(catalogue)
    }

    /// Packs `payload` in its normal form, makes patches to it from at most `bases` of the versions that are there, adds
    /// it under `definition` and signs the next version of the catalogue.
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
        bases: usize,
    ) -> Result<Added> {
        definition.check()?;
        let packs = self.directory.join("packs");
        fs::create_dir_all(&packs).with_context(|| format!("making {}", packs.display()))?;
        let _lock = self.lock()?;
        let mut catalogue = self.verified(PublicKey::of(key))?;
        refuse_duplicate(&catalogue, &definition)?;
        let mut raw = normalise(definition.format, payload)?;
        let pack = keep_pack(&packs, |sink| pack_normal(&mut raw, sink))?;
        let patches = patches::add(&packs, &catalogue, &definition, (&pack, &mut raw), bases)?;
        let package = Package { definition, payload: describe(&pack) };
        catalogue.packages.push(package.clone());
        for patch in &patches {
            catalogue.patches.retain(|known| (known.base, known.target) != (patch.base, patch.target));
            catalogue.patches.push(patch.clone());
        }
        catalogue.version += 1;
        catalogue.expires_at = expires_at.or(catalogue.expires_at);
        catalogue.check()?;
        let signed = Signed::sign(&catalogue, key);
        signed.verify(PublicKey::of(key)).context("the catalogue has become too large; take old versions out of it")?;
        write_atomically(&self.file(), &serde_json::to_vec_pretty(&signed)?, 0o644)?;
        Ok(Added { version: catalogue.version, package, patches })
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

/// Builds a pack beside its place and moves it there: data first, then the manifest that makes it count.
fn keep_pack(
    packs: &Path,
    build: impl FnOnce(&mut BufWriter<tempfile::NamedTempFile>) -> Result<Pack>,
) -> Result<Pack> {
    let temporary =
        tempfile::NamedTempFile::new_in(packs).with_context(|| format!("writing to {}", packs.display()))?;
    let mut sink = BufWriter::new(temporary);
    let pack = build(&mut sink)?;
    let data = packs.join(format!("{}.pack", pack.id()));
    let file = sink.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    file.persist(&data).with_context(|| format!("writing {}", data.display()))?;
    write_atomically(&packs.join(format!("{}.manifest", pack.id())), &pack.manifest().encode()?, 0o644)?;
    Ok(pack)
}

fn pack_normal(raw: &mut NormalForm, sink: impl Write) -> Result<Pack> {
    raw.raw.seek(SeekFrom::Start(0))?;
    let source = BufReader::new(&raw.raw);
    Ok(build_pack_of(raw.original.clone(), source, chunk_bytes_for(raw.length), sink)?)
}

#[cfg(test)]
mod tests {
    use branchline_protocol::{content::patch::Patch, ids::Hash};
    use sha2::{Digest, Sha256};

    use super::*;

    const SAMPLE_AGENT: &str = include_str!("../demo/packages/sample-agent.toml");

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
        let Added { version, package: first, patches } =
            directory.add(&key(1), definition("1.0.0"), &payload, None, 2).unwrap();
        assert_eq!((version, first.payload.raw_bytes, patches.len()), (1, raw.len() as u64, 0));
        assert_eq!(first.payload.sha256, Hash(Sha256::digest(&raw).into()));
        let manifest = fs::read(home.path().join(format!("catalogue/packs/{}.manifest", first.payload.pack))).unwrap();
        let pack = Pack::decode_as(first.payload.pack, &manifest).unwrap();
        let frames = fs::metadata(home.path().join(format!("catalogue/packs/{}.pack", pack.id()))).unwrap().len();
        assert_eq!(frames, pack.length());

        let compressed = home.path().join("agent.tar.zst");
        fs::write(&compressed, zstd::encode_all(&raw[..], 3).unwrap()).unwrap();
        let Added { version, package: second, patches } =
            directory.add(&key(1), definition("1.1.0"), &compressed, Some(UnixSeconds(9)), 2).unwrap();
        assert_eq!((version, patches.len()), (2, 0), "an image needs no patch to itself");
        assert_eq!(second.payload.image, first.payload.image, "a compressed archive's normal form is the archive");
        assert_eq!(second.payload.file_name, "agent.tar.zst");
        let catalogue = directory.verified(PublicKey::of(&key(1))).unwrap();
        assert_eq!((catalogue.packages.len(), catalogue.expires_at), (2, Some(UnixSeconds(9))));
    }

    #[test]
    fn a_patch_is_made_from_the_version_before_and_makes_the_new_one() {
        let home = tempfile::tempdir().unwrap();
        let directory = CatalogueDirectory::new(home.path().join("catalogue"));
        let mut content: Vec<u8> =
            (0..100_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        let mut added = Vec::new();
        for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
            let payload = home.path().join("agent.tar");
            fs::write(&payload, tar_with(&content)).unwrap();
            added.push(directory.add(&key(1), definition(version), &payload, None, 2).unwrap());
            content[50_000] ^= 1;
            content.extend(version.as_bytes());
        }
        assert_eq!(added.iter().map(|it| it.patches.len()).collect::<Vec<_>>(), [0, 1, 2, 2]);
        let offer = &added[3].patches[0];
        assert_eq!((offer.base, offer.target), (added[2].package.payload.image, added[3].package.payload.image));
        assert!(offer.pack_bytes < 1000 && added[3].package.payload.pack_bytes > 100_000, "{offer:?}");
        let catalogue = directory.verified(PublicKey::of(&key(1))).unwrap();
        assert_eq!(catalogue.patches.len(), 5);
        let packs = home.path().join("catalogue/packs");
        let (base, patch) = (added[2].package.payload.pack, offer.pack);
        let (base, patch) = (patches::image(&packs, base).unwrap(), patches::image(&packs, patch).unwrap());
        let mut target = Vec::new();
        Patch::open(&patch[..]).unwrap().apply(&base[..], offer.base, &mut target).unwrap();
        assert_eq!(target, patches::image(&packs, added[3].package.payload.pack).unwrap());
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
        directory.add(&key(1), definition("1.0.0"), &payload, None, 2).unwrap();
        let before = fs::read(directory.file()).unwrap();
        let error = |key: &SigningKey, version: &str, payload: &Path| {
            let error = directory.add(key, definition(version), payload, None, 2).unwrap_err();
            assert_eq!(fs::read(directory.file()).unwrap(), before);
            format!("{error:#}")
        };
        assert!(error(&key(1), "1.0.0", &payload).contains("already; give the new one a higher version"));
        assert!(error(&key(2), "2.0.0", &payload).contains("must sign it"));
        assert!(error(&key(1), "2.0.0", &other).contains("is not a tar archive"));
        assert!(error(&key(1), "2.0.0", &gzip).contains("decompressing it"));
        assert!(error(&key(1), "2.0.0", &empty).contains("is empty"));
        assert!(error(&key(1), "2.0.0", &home.path().join("missing")).contains("is not there"));
        let leftovers = fs::read_dir(home.path().join("catalogue/packs")).unwrap().count();
        assert_eq!(leftovers, 2, "one pack and its manifest, no temporary file");

        let text = fs::read_to_string(directory.file()).unwrap();
        fs::write(directory.file(), text.replace("/opt/sample-agent", "/opt/another-one")).unwrap();
        assert!(format!("{:#}", directory.verified(PublicKey::of(&key(1))).unwrap_err()).contains("does not hold"));
    }
}
