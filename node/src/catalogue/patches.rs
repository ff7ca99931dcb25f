//! The patches of a catalogue: made from the versions that its directory holds, kept where they pay (R73).
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result};
use branchline_protocol::{
    catalogue::{Catalogue, Package, PackageDefinition, PatchOffer, PayloadFormat},
    content::{Pack, assemble, build_pack, patch::PatchSubject},
    ids::{ImageId, PackId},
};

use super::{
    keep_pack,
    maker::{self, PATCH_CHUNK_BYTES, PATCH_IMAGE_BYTES_MAX},
    normal::NormalForm,
};

/// A patch is kept where it is at most this part of the whole pack, in percent: one that saves less is not worth the
/// base that every host must keep for it.
const WORTH_PERCENT: u64 = 90;

/// Makes the patches to `pack`, whose raw image is `raw`, from the newest `most` versions of the package that
/// `catalogue` holds.
///
/// # Errors
/// A base in the directory is damaged, or the disk fails.
pub(super) fn add(
    packs: &Path,
    catalogue: &Catalogue,
    definition: &PackageDefinition,
    (pack, raw): (&Pack, &mut NormalForm),
    most: usize,
) -> Result<Vec<PatchOffer>> {
    let is_earlier = |package: &&Package| {
        let known = &package.definition;
        (&known.name, known.format) == (&definition.name, definition.format)
            && known.architectures.iter().any(|architecture| definition.architectures.contains(architecture))
            && package.payload.image != pack.manifest().image
            && package.payload.raw_bytes <= PATCH_IMAGE_BYTES_MAX
    };
    let bases: Vec<&Package> = catalogue.packages.iter().rev().filter(is_earlier).take(most).collect();
    // An RPM travels compressed, and two compressed files have nothing in common.
    if bases.is_empty() || definition.format == PayloadFormat::Rpm || raw.length > PATCH_IMAGE_BYTES_MAX {
        return Ok(Vec::new());
    }
    let mut target = Vec::new();
    raw.raw.seek(SeekFrom::Start(0))?;
    raw.raw.read_to_end(&mut target).context("reading the payload's normal form")?;
    let mut offers: Vec<PatchOffer> = Vec::new();
    for base in bases {
        if offers.iter().any(|offer| offer.base == base.payload.image) {
            continue;
        }
        let offer = one(packs, base, definition, pack, &target)
            .with_context(|| format!("making the patch from {} {}", base.definition.name, base.definition.version))?;
        offers.extend(offer);
    }
    Ok(offers)
}

fn one(
    packs: &Path,
    base: &Package,
    definition: &PackageDefinition,
    pack: &Pack,
    target: &[u8],
) -> Result<Option<PatchOffer>> {
    let started = Instant::now();
    let old = image(packs, base.payload.pack)?;
    let subject = subject(base.payload.image, &old, pack, target);
    let made = maker::make(&subject, &old, target)?;
    drop(old);
    let (bytes, whole) = (made.patch.bytes.len() as u64, pack.length());
    if bytes * 100 > whole * WORTH_PERCENT {
        tracing::info!(bytes, whole, "the patch saves too little and is left out");
        return Ok(None);
    }
    let name = format!("{}_{}_to_{}.patch", definition.name, base.definition.version, definition.version);
    let name: String = name.chars().map(|c| if c == '/' { '_' } else { c }).collect();
    let patch = keep_pack(packs, |sink| Ok(build_pack(&name, &made.patch.bytes[..], PATCH_CHUNK_BYTES, sink)?))?;
    tracing::info!(%name, bytes, whole, seconds = started.elapsed().as_secs_f32(), "a patch was made");
    Ok(Some(PatchOffer {
        base: base.payload.image,
        target: pack.manifest().image,
        pack: patch.id(),
        pack_bytes: patch.length(),
        raw_bytes: bytes,
        original_bytes: pack.manifest().original.length,
    }))
}

/// What the patch from an image to a pack's image is about.
pub(super) fn subject(base: ImageId, old: &[u8], pack: &Pack, target: &[u8]) -> PatchSubject {
    PatchSubject {
        base,
        target: pack.manifest().image,
        base_length: old.len() as u64,
        target_length: target.len() as u64,
        target_chunk_bytes: pack.chunk(0).map_or(1, |chunk| chunk.raw_length),
    }
}

/// The raw image of a pack in the directory, every chunk verified.
pub(super) fn image(packs: &Path, id: PackId) -> Result<Vec<u8>> {
    let manifest = packs.join(format!("{id}.manifest"));
    let bytes = fs::read(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let pack = Pack::decode_as(id, &bytes).with_context(|| format!("reading {}", manifest.display()))?;
    let path = packs.join(format!("{id}.pack"));
    let mut frames =
        File::open(&path).map(io::BufReader::new).with_context(|| format!("opening {}", path.display()))?;
    let mut image = Vec::with_capacity(usize::try_from(pack.manifest().raw_length())?);
    let frame = |index| {
        let mut frame = vec![0; usize::try_from(pack.frame_length(index)).unwrap_or(0)];
        frames.read_exact(&mut frame).map(|()| frame)
    };
    assemble(&pack, frame, &mut image).with_context(|| format!("reading {}", path.display()))?;
    Ok(image)
}
