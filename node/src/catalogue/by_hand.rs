//! Patches between payload files, for whoever wants to see or check one without a catalogue: `branchline patch`.
use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, Result};
use branchline_protocol::{
    content::{ImageHasher, build_pack, build_pack_of, chunk_bytes_for, patch::Patch},
    ids::ImageId,
};
use serde::Serialize;

use super::{
    maker,
    normal::{NormalForm, format_of, normalise},
    patches::subject,
};
use crate::store::read_at::FileAt;

/// A patch that was made, in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct MadeFile {
    /// The image that it needs.
    pub base: ImageId,
    /// The image that it makes.
    pub target: ImageId,
    /// Length of the base's raw image.
    pub base_bytes: u64,
    /// Length of the target's raw image.
    pub target_bytes: u64,
    /// Length of the target's file as it was given.
    pub file_bytes: u64,
    /// Length of the target's whole pack.
    pub whole_pack_bytes: u64,
    /// Length of the patch.
    pub patch_bytes: u64,
    /// Length of the patch's pack: what crosses the line.
    pub pack_bytes: u64,
    /// Length of that pack's manifest.
    pub manifest_bytes: u64,
    /// Files that are copied, coded as differences, and coded with the base as dictionary.
    pub files: [usize; 3],
}

/// A patch that was applied.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// The image that it made.
    pub target: ImageId,
    /// Its length in bytes.
    pub target_bytes: u64,
}

fn read(form: &mut NormalForm) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Seek::rewind(&mut form.raw)?;
    form.raw.read_to_end(&mut bytes).context("reading a payload's normal form")?;
    Ok(bytes)
}

fn image_of(form: &mut NormalForm) -> Result<ImageId> {
    let mut hasher = ImageHasher::new(chunk_bytes_for(form.length));
    io::Seek::rewind(&mut form.raw)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match form.raw.read(&mut buffer).context("reading a payload's normal form")? {
            0 => return Ok(hasher.finish()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// Makes the patch from one payload file to another and writes it to `output`.
///
/// # Errors
/// A payload cannot be read or is too long, or the patch cannot be written.
pub fn make_patch(base: &Path, target: &Path, output: &Path) -> Result<MadeFile> {
    let mut old_form = normalise(format_of(base)?, base)?;
    let mut new_form = normalise(format_of(target)?, target)?;
    let base_image = image_of(&mut old_form)?;
    let (old, new) = (read(&mut old_form)?, read(&mut new_form)?);
    let pack = build_pack_of(new_form.original.clone(), &new[..], chunk_bytes_for(new_form.length), io::sink())?;
    let made = maker::make(&subject(base_image, &old, &pack, &new), &old, &new)?;
    let bytes = &made.patch.bytes;
    fs::write(output, bytes).with_context(|| format!("writing {}", output.display()))?;
    let travels = build_pack("patch", &bytes[..], maker::PATCH_CHUNK_BYTES, io::sink())?;
    Ok(MadeFile {
        base: base_image,
        target: pack.manifest().image,
        base_bytes: old_form.length,
        target_bytes: new_form.length,
        file_bytes: new_form.original.length,
        whole_pack_bytes: pack.length(),
        patch_bytes: bytes.len() as u64,
        pack_bytes: travels.length(),
        manifest_bytes: travels.manifest().encode()?.len() as u64,
        files: [made.choice.copied, made.choice.differences, made.choice.dictionary],
    })
}

/// Applies a patch to a payload file and writes the target's raw image to `output`, which appears only if it is proved.
///
/// # Errors
/// The payload is not the patch's base, the patch is damaged, or a file cannot be read or written.
pub fn apply_patch(base: &Path, patch: &Path, output: &Path) -> Result<Applied> {
    let mut form = normalise(format_of(base)?, base)?;
    let image = image_of(&mut form)?;
    let shown = patch.display();
    let file = File::open(patch).and_then(FileAt::new).with_context(|| format!("opening the patch {shown}"))?;
    let opened = Patch::open(&file).with_context(|| format!("reading the patch {shown}"))?;
    let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary =
        tempfile::NamedTempFile::new_in(directory).with_context(|| format!("writing to {}", directory.display()))?;
    let mut sink = BufWriter::new(temporary);
    let raw = FileAt::new(form.raw)?;
    opened.apply(&raw, image, &mut sink).with_context(|| format!("applying the patch {shown}"))?;
    sink.flush()?;
    let temporary = sink.into_inner().map_err(io::IntoInnerError::into_error)?;
    temporary.persist(output).with_context(|| format!("writing {}", output.display()))?;
    Ok(Applied { target: opened.header().target, target_bytes: opened.header().target_length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_is_patched_to_is_proved() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let tar = |content: &[u8]| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, "a", content).unwrap();
            builder.into_inner().unwrap()
        };
        let (old, new) = (tar(&[1; 70_000]), tar(&[2; 70_001]));
        fs::write(path("old.tar"), &old).unwrap();
        fs::write(path("new.tar.zst"), zstd::encode_all(&new[..], 3).unwrap()).unwrap();
        let made = make_patch(&path("old.tar"), &path("new.tar.zst"), &path("patch")).unwrap();
        assert!(made.patch_bytes < 1000 && made.target_bytes == new.len() as u64);
        let applied = apply_patch(&path("old.tar"), &path("patch"), &path("out.tar")).unwrap();
        assert_eq!((applied.target, fs::read(path("out.tar")).unwrap()), (made.target, new));
        let error = apply_patch(&path("out.tar"), &path("patch"), &path("never")).unwrap_err();
        assert!(format!("{error:#}").contains("but it was to be applied to image"), "{error:#}");
        assert!(!path("never").exists());
    }
}
