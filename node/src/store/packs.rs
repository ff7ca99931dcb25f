//! Packs as plain files (R72): per pack a preallocated data file, its manifest, and the bitmap of kept frames.
//!
//! | file | holds |
//! | --- | --- |
//! | `PACK.manifest` | the encoded manifest; the pack exists once this file does |
//! | `PACK.pack` | the frames at their offsets |
//! | `PACK.kept` | the bitmap of frames that are synced, and its hash |
//!
//! Two maps: `have` (verified and written, may be served) and `kept` (survives a power cut). A commit syncs the data
//! first and writes the bitmap afterwards, at most one second or 16 MiB after the first write; so a bit in the file
//! never promises what the disk does not have. Every call may block: never make one on the event loop.
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};

use branchline_protocol::{
    content::{
        Bitmap, FrameError, ManifestError, OriginalFile, Pack, PackError, assemble, build_pack, build_pack_of,
        chunk_bytes_for, verify_frame,
    },
    ids::PackId,
};
use rustix::fs::{FallocateFlags, fallocate};
use thiserror::Error;

use super::kept::{decode_kept, encode_kept};

/// A commit is due after this many written bytes,
const COMMIT_BYTES: u64 = 16 << 20;
/// or this long after the first of them.
const COMMIT_AGE: Duration = Duration::from_millis(800);
/// How often the committer looks.
const COMMIT_LOOK: Duration = Duration::from_millis(200);

/// Why the store could not do something. Concerns one pack only.
#[derive(Debug, Error)]
pub enum PackStoreError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; the pack waits and is tried again", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said, such as "No space left on device".
        source: io::Error,
    },
    /// The frame is not what the manifest says. Nothing was written.
    #[error(transparent)]
    Corrupt(FrameError),
    /// What was written is no longer what it was; the frame counts as missing from now on.
    #[error("frame {index} in {} is damaged ({source}); it will be fetched again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The frame.
        index: u32,
        /// What is wrong.
        source: FrameError,
    },
    /// Not in the store.
    #[error("frame {index} of pack {pack} is not in the store")]
    Missing {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// Not in the store.
    #[error("pack {0} is not in the store")]
    Unknown(PackId),
    /// A payload could not be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A manifest in the store is not usable.
    #[error("{} is not usable: {source}; remove the file, and the pack is fetched again", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// The image could not be assembled.
    #[error("cannot assemble the image of pack {pack}: {source}")]
    Assemble {
        /// The pack.
        pack: PackId,
        /// What is wrong.
        source: FrameError,
    },
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PackStoreError + 'a {
    move |source| PackStoreError::Io { action, path: path.to_owned(), source }
}

#[derive(Debug)]
struct FileState {
    have: Bitmap,
    kept: Bitmap,
    unsynced_bytes: u64,
    unsynced_since: Option<Instant>,
}

#[derive(Debug)]
struct PackFile {
    pack: Arc<Pack>,
    data: File,
    path: PathBuf,
    kept_path: PathBuf,
    state: Mutex<FileState>,
    committing: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    packs: Mutex<BTreeMap<PackId, Arc<PackFile>>>,
    wake: mpsc::Sender<()>,
}

/// The packs of one node; cheap to clone.
#[derive(Clone, Debug)]
pub struct PackStore {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a small file so that either the old or the new one exists after a crash.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), PackStoreError> {
    // The manifest and the kept frames of one pack differ in their extension only: it stays in the new name.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let write = || {
        let mut file = File::create(new)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(io_error("write", path))
}

/// Whether the file system has room for what `file` lacks of `length` bytes.
fn check_room(file: &File, length: u64) -> io::Result<()> {
    let taken = file.metadata()?.blocks().saturating_mul(512);
    let room = rustix::fs::fstatvfs(file)?;
    if length.saturating_sub(taken) > room.f_bavail.saturating_mul(room.f_frsize) {
        return Err(rustix::io::Errno::NOSPC.into());
    }
    Ok(())
}

impl PackFile {
    fn open(directory: &Path, pack: Arc<Pack>) -> Result<Self, PackStoreError> {
        let path = directory.join(format!("{}.pack", pack.id()));
        let kept_path = directory.join(format!("{}.kept", pack.id()));
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let data = opened.map_err(io_error("open", &path))?;
        let known = fs::read(&kept_path).ok().and_then(|bytes| decode_kept(&bytes, pack.frames()));
        let empty = data.metadata().map_err(io_error("read", &path))?.len() == 0;
        // Space is taken at once: a disk that is too small says so before the first byte crosses a line. It is asked first,
        // because an allocation that fails has by then taken what was left from everybody else.
        if let Err(source) = check_room(&data, pack.length()) {
            if empty {
                let _ = fs::remove_file(&path);
            }
            return Err(io_error("allocate", &path)(source));
        }
        match fallocate(&data, FallocateFlags::empty(), 0, pack.length()) {
            Ok(()) => {}
            Err(rustix::io::Errno::OPNOTSUPP) => data.set_len(pack.length()).map_err(io_error("allocate", &path))?,
            Err(error) => {
                if empty {
                    let _ = fs::remove_file(&path);
                }
                return Err(io_error("allocate", &path)(error.into()));
            }
        }
        let mut file = Self {
            state: Mutex::new(FileState {
                have: Bitmap::new(pack.frames()),
                kept: Bitmap::new(pack.frames()),
                unsynced_bytes: 0,
                unsynced_since: None,
            }),
            pack,
            data,
            path,
            kept_path,
            committing: Mutex::new(()),
        };
        let kept = match known {
            Some(kept) => kept,
            None if empty => Bitmap::new(file.pack.frames()),
            // The bitmap is lost or damaged, the data is not: every frame proves itself.
            None => file.scan(),
        };
        let state = file.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        (state.have, state.kept) = (kept.clone(), kept);
        Ok(file)
    }

    fn scan(&self) -> Bitmap {
        let mut found = Bitmap::new(self.pack.frames());
        for (index, entry) in (0..).zip(&self.pack.manifest().chunks) {
            if self.read_raw(index).is_ok_and(|frame| verify_frame(entry, &frame).is_ok()) {
                found.insert(index);
            }
        }
        found
    }

    fn read_raw(&self, index: u32) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; usize::try_from(self.pack.frame_length(index)).unwrap_or(0)];
        self.data.read_exact_at(&mut frame, self.pack.frame_offset(index).unwrap_or(0))?;
        Ok(frame)
    }

    fn commit(&self) -> Result<(), PackStoreError> {
        let _one_at_a_time = lock(&self.committing);
        let (have, bytes) = {
            let mut state = lock(&self.state);
            if state.have == state.kept {
                (state.unsynced_bytes, state.unsynced_since) = (0, None);
                return Ok(());
            }
            // Whatever is written from here on belongs to the next commit, and starts its own second.
            state.unsynced_since = None;
            (state.have.clone(), std::mem::take(&mut state.unsynced_bytes))
        };
        let written = self
            .data
            .sync_data()
            .map_err(io_error("sync", &self.path))
            .and_then(|()| write_atomically(&self.kept_path, &encode_kept(&have)));
        let mut state = lock(&self.state);
        match written {
            Ok(()) => state.kept = have,
            Err(error) => {
                state.unsynced_bytes += bytes;
                state.unsynced_since.get_or_insert_with(Instant::now);
                return Err(error);
            }
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let state = lock(&self.state);
        state.unsynced_bytes >= COMMIT_BYTES || state.unsynced_since.is_some_and(|since| since.elapsed() >= COMMIT_AGE)
    }
}

/// Commits whatever is due until the store is gone.
fn run_committer(inner: &Weak<Inner>, woken: &mpsc::Receiver<()>) {
    while !matches!(woken.recv_timeout(COMMIT_LOOK), Err(mpsc::RecvTimeoutError::Disconnected)) {
        let Some(inner) = inner.upgrade() else { return };
        let files: Vec<_> = lock(&inner.packs).values().cloned().collect();
        for file in files.into_iter().filter(|file| file.is_due()) {
            if let Err(error) = file.commit() {
                tracing::warn!(pack = %file.pack.id(), %error, "frames are not durable yet");
            }
        }
    }
}

impl PackStore {
    /// Opens the store in `directory`, which is made where it is missing, and starts its committer.
    ///
    /// # Errors
    /// The directory cannot be used. A single pack that cannot is left out with a warning.
    pub fn open(directory: &Path) -> Result<Self, PackStoreError> {
        fs::create_dir_all(directory).map_err(io_error("make", directory))?;
        let mut packs = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
            let path = entry.map_err(io_error("list", directory))?.path();
            if path.extension().is_none_or(|extension| extension != "manifest") {
                continue;
            }
            let read = || {
                let bytes = fs::read(&path).map_err(io_error("read", &path))?;
                let pack =
                    Pack::decode(&bytes).map_err(|source| PackStoreError::Manifest { path: path.clone(), source })?;
                PackFile::open(directory, Arc::new(pack))
            };
            match read() {
                Ok(file) => drop(packs.insert(file.pack.id(), Arc::new(file))),
                Err(error) => tracing::warn!(%error, "a pack is left out"),
            }
        }
        let (wake, woken) = mpsc::channel();
        let inner = Arc::new(Inner { directory: directory.to_owned(), packs: Mutex::new(packs), wake });
        let weak = Arc::downgrade(&inner);
        thread::Builder::new()
            .name("pack-commits".to_owned())
            .spawn(move || run_committer(&weak, &woken))
            .map_err(io_error("start the committer of", directory))?;
        Ok(Self { inner })
    }

    fn file(&self, pack: PackId) -> Result<Arc<PackFile>, PackStoreError> {
        lock(&self.inner.packs).get(&pack).cloned().ok_or(PackStoreError::Unknown(pack))
    }

    /// Packs a payload of `length` bytes into the store.
    ///
    /// # Errors
    /// Reading, packing or writing fails; then nothing of it stays.
    pub fn import(&self, name: &str, raw: impl Read, length: u64) -> Result<Arc<Pack>, PackStoreError> {
        self.import_with(|sink| build_pack(name, raw, chunk_bytes_for(length), sink))
    }

    /// Packs the normal form `raw` of another file into the store, in chunks of a given length.
    ///
    /// # Errors
    /// As [`PackStore::import`].
    pub fn import_of(
        &self,
        original: OriginalFile,
        raw: impl Read,
        chunk_bytes: usize,
    ) -> Result<Arc<Pack>, PackStoreError> {
        self.import_with(|sink| build_pack_of(original, raw, chunk_bytes, sink))
    }

    /// Where the packs are, and where what becomes one is prepared.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    fn import_with(
        &self,
        build: impl FnOnce(&mut BufWriter<File>) -> Result<Pack, PackError>,
    ) -> Result<Arc<Pack>, PackStoreError> {
        let directory = &self.inner.directory;
        let part = tempfile::NamedTempFile::new_in(directory).map_err(io_error("write in", directory))?;
        let file = part.as_file().try_clone().map_err(io_error("write in", directory))?;
        let mut sink = BufWriter::new(file);
        let pack = Arc::new(build(&mut sink)?);
        part.as_file().sync_data().map_err(io_error("sync", part.path()))?;
        if self.kept(pack.id()).is_some_and(|kept| kept.is_full()) {
            return Ok(pack);
        }
        // A half-fetched file of the same pack is replaced, with everything that was known of it.
        lock(&self.inner.packs).remove(&pack.id());
        let path = directory.join(format!("{}.pack", pack.id()));
        part.persist(&path).map_err(|error| io_error("write", &path)(error.error))?;
        let kept = encode_kept(&Bitmap::full(pack.frames()));
        write_atomically(&directory.join(format!("{}.kept", pack.id())), &kept)?;
        self.register(&pack)?;
        Ok(pack)
    }

    /// Makes room for a pack that is to be fetched, if it is not here yet, and gives the frames that are kept.
    ///
    /// # Errors
    /// No room, or the disk fails; the error names the file.
    pub fn add(&self, pack: &Arc<Pack>) -> Result<Bitmap, PackStoreError> {
        match self.kept(pack.id()) {
            Some(kept) => Ok(kept),
            None => Ok(lock(&self.register(pack)?.state).kept.clone()),
        }
    }

    fn register(&self, pack: &Arc<Pack>) -> Result<Arc<PackFile>, PackStoreError> {
        let directory = &self.inner.directory;
        // Held to the end: two wishes at once must not make two files, of which the second forgets the first's frames.
        let mut packs = lock(&self.inner.packs);
        if let Some(file) = packs.get(&pack.id()) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(PackFile::open(directory, Arc::clone(pack))?);
        let path = directory.join(format!("{}.manifest", pack.id()));
        let bytes = pack.manifest().encode();
        let bytes = bytes.map_err(|source| PackStoreError::Manifest { path: path.clone(), source })?;
        write_atomically(&path, &bytes)?;
        packs.insert(pack.id(), Arc::clone(&file));
        Ok(file)
    }

    /// The packs in the store, complete or not.
    pub fn packs(&self) -> Vec<Arc<Pack>> {
        lock(&self.inner.packs).values().map(|file| Arc::clone(&file.pack)).collect()
    }

    /// A pack in the store.
    pub fn pack(&self, pack: PackId) -> Option<Arc<Pack>> {
        Some(Arc::clone(&self.file(pack).ok()?.pack))
    }

    /// The encoded manifest of a pack, to pass on.
    pub fn manifest(&self, pack: PackId) -> Option<Vec<u8>> {
        self.pack(pack)?.manifest().encode().ok()
    }

    /// The frames that survive a power cut.
    pub fn kept(&self, pack: PackId) -> Option<Bitmap> {
        Some(lock(&self.file(pack).ok()?.state).kept.clone())
    }

    /// The frames that are verified and written, synced or not: what may be served.
    pub fn have(&self, pack: PackId) -> Option<Bitmap> {
        Some(lock(&self.file(pack).ok()?.state).have.clone())
    }

    /// Checks a frame and writes it; it can be read at once and is committed within a second.
    ///
    /// # Errors
    /// [`PackStoreError::Corrupt`]: not what the manifest says, and nothing was written; else the disk.
    pub fn write_frame(&self, pack: PackId, index: u32, frame: &[u8]) -> Result<(), PackStoreError> {
        let file = self.file(pack)?;
        let entry = file.pack.chunk(index).ok_or(PackStoreError::Missing { pack, index })?;
        verify_frame(entry, frame).map_err(PackStoreError::Corrupt)?;
        let offset = file.pack.frame_offset(index).unwrap_or(0);
        file.data.write_all_at(frame, offset).map_err(io_error("write", &file.path))?;
        let mut state = lock(&file.state);
        state.have.insert(index);
        state.unsynced_bytes += frame.len() as u64;
        state.unsynced_since.get_or_insert_with(Instant::now);
        if state.unsynced_bytes >= COMMIT_BYTES {
            let _ = self.inner.wake.send(());
        }
        Ok(())
    }

    /// Makes every written frame of a pack durable.
    ///
    /// # Errors
    /// The disk fails; the frames stay readable and the commit is tried again.
    pub fn commit(&self, pack: PackId) -> Result<(), PackStoreError> {
        self.file(pack)?.commit()
    }

    /// Reads a frame and checks it again, so that a damaged disk is never spread.
    ///
    /// # Errors
    /// Not here, damaged (it counts as missing from then on), or the disk fails.
    pub fn read_frame(&self, pack: PackId, index: u32) -> Result<Vec<u8>, PackStoreError> {
        let file = self.file(pack)?;
        let entry = file.pack.chunk(index).filter(|_| lock(&file.state).have.contains(index));
        let entry = entry.ok_or(PackStoreError::Missing { pack, index })?;
        let frame = file.read_raw(index).map_err(io_error("read", &file.path))?;
        if let Err(source) = verify_frame(entry, &frame) {
            let mut state = lock(&file.state);
            state.have.remove(index);
            state.unsynced_since.get_or_insert_with(Instant::now);
            return Err(PackStoreError::Damaged { path: file.path.clone(), index, source });
        }
        Ok(frame)
    }

    /// Writes the whole image to `sink`, every chunk verified.
    ///
    /// # Errors
    /// A frame is missing or damaged, or the sink fails; what was written until then is incomplete.
    pub fn assemble(&self, pack: PackId, sink: impl Write) -> Result<(), PackStoreError> {
        let known = self.file(pack)?;
        let frame = |index| self.read_frame(pack, index).map_err(io::Error::other);
        assemble(&known.pack, frame, sink).map_err(|source| PackStoreError::Assemble { pack, source })
    }

    /// Deletes a pack. Its manifest goes first, so that a crash leaves no pack without data.
    ///
    /// # Errors
    /// Unknown, or the disk fails.
    pub fn remove(&self, pack: PackId) -> Result<(), PackStoreError> {
        lock(&self.inner.packs).remove(&pack).ok_or(PackStoreError::Unknown(pack))?;
        for ending in ["manifest", "kept", "pack"] {
            let path = self.inner.directory.join(format!("{pack}.{ending}"));
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "packs_tests.rs"]
mod tests;
