//! Makes images from the packs that the network process offers, believing nothing that is not hashed (R87, R122).
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use branchline_protocol::{
    content::{Pack, assemble},
    ids::ImageId,
    limits::MANIFEST_BYTES_MAX,
    plan::{Plan, PlannedPackage},
};
use rustix::fs::OFlags;

use super::{
    error::StepError,
    files::{self, at},
    host::Host,
    socket::OfferedPack,
};

/// Space that an installation leaves free for journals, logs and the package manager's own records, in bytes.
const MARGIN_BYTES: u64 = 8 << 20;

/// Opens an offered file: a regular one, reached without a symbolic link at its end, so that the network process cannot
/// have this process read a device or wait for a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(i32::try_from(flags).unwrap_or_default()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Whether a kept image is still what it was when it was made: its length is compared, because its content was proved
/// when it was written and the directory belongs to this process alone.
fn is_kept(host: &Host, package: &PlannedPackage) -> bool {
    fs::metadata(host.image(package.image)).is_ok_and(|metadata| metadata.len() == package.raw_bytes)
}

/// Checks that there is room for the images and for what they become, before anything is touched.
///
/// # Errors
/// Too little space, with the numbers.
pub fn check_space(host: &Host, plan: &Plan) -> Result<(), StepError> {
    let raw: u64 = plan.packages.iter().map(|package| package.raw_bytes).sum();
    let missing = plan.packages.iter().filter(|package| !is_kept(host, package));
    let images: u64 = missing.map(|package| package.raw_bytes).sum();
    let (state, root) = (host.state(), host.root().directory());
    let same = match (fs::metadata(state), fs::metadata(root)) {
        (Ok(a), Ok(b)) => std::os::unix::fs::MetadataExt::dev(&a) == std::os::unix::fs::MetadataExt::dev(&b),
        _ => false,
    };
    let needs = if same { vec![(root, raw + images)] } else { vec![(root, raw), (state, images)] };
    for (place, bytes) in needs {
        let (free, needed) = (files::free_bytes(place)?, bytes.saturating_add(MARGIN_BYTES));
        if free < needed {
            return Err(StepError::Space { place: place.to_owned(), free, needed });
        }
    }
    Ok(())
}

/// Makes the image of `package` from the offered pack, unless it is kept already.
///
/// # Errors
/// The pack is not offered, is not the plan's, or the disk is full.
pub fn make(host: &Host, package: &PlannedPackage, offered: &[OfferedPack]) -> Result<(), StepError> {
    if is_kept(host, package) {
        return Ok(());
    }
    let refuse = |reason: String| StepError::Payload { name: package.name.clone(), reason };
    let offer = offered.iter().find(|offer| offer.image == package.image);
    let offer = offer.ok_or_else(|| refuse(format!("no pack of image {} was offered", package.image)))?;
    let mut manifest = Vec::new();
    open(&offer.manifest)
        .and_then(|file| file.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut manifest))
        .map_err(|error| refuse(format!("its manifest {} cannot be read: {error}", offer.manifest.display())))?;
    let pack = Pack::decode_as(package.pack, &manifest).map_err(|error| refuse(error.to_string()))?;
    if pack.manifest().image != package.image || pack.manifest().raw_length() != package.raw_bytes {
        return Err(refuse("the pack makes another image than the plan names".to_owned()));
    }
    let mut frames = open(&offer.frames)
        .map_err(|error| refuse(format!("its frames {} cannot be read: {error}", offer.frames.display())))?;
    let place = host.image(package.image);
    let beside = files::beside(&place);
    let file = File::create(&beside).map_err(at("write", &beside))?;
    let mut sink = BufWriter::new(file);
    let made = assemble(
        &pack,
        |index| {
            // The frames come in order, each exactly once, so that the file is read straight through.
            let mut frame = vec![0; usize::try_from(pack.frame_length(index)).unwrap_or(0)];
            frames.read_exact(&mut frame).map(|()| frame)
        },
        &mut sink,
    );
    let written = match made {
        Ok(()) => sink.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all()),
        Err(error) => {
            let _ = fs::remove_file(&beside);
            // What the disk says must stay recognisable; everything else is the pack's fault.
            let full = matches!(files::free_bytes(host.state()), Ok(free) if free < package.raw_bytes.min(1 << 16));
            let full = full.then_some(files::FileError::Full { action: "write", path: place.clone() });
            return Err(full.map_or_else(|| refuse(error.to_string()), StepError::from));
        }
    };
    written.and_then(|()| fs::rename(&beside, &place)).map_err(|error| {
        let _ = fs::remove_file(&beside);
        at("write", &place)(error)
    })?;
    Ok(files::sync_parent(&place)?)
}

/// Removes images that no plan in `used` needs any more.
pub fn collect(host: &Host, used: &BTreeSet<ImageId>) {
    let names: BTreeSet<String> = used.iter().map(ToString::to_string).collect();
    for entry in fs::read_dir(host.state().join("images")).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(|name| names.contains(name)) {
            // One that cannot be removed now is tried again after the next installation.
            let _ = fs::remove_file(entry.path());
        }
    }
}
