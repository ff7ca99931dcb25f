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
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};

use branchline_protocol::{
    content::{
        Bitmap, OriginalFile, Pack, PackError, assemble, build_pack, build_pack_of, chunk_bytes_for, verify_frame,
    },
    ids::PackId,
};

pub use super::pack_error::PackStoreError;
use super::{
    files::{DataFile, Files, SystemFiles, write_atomically},
    kept::{decode_kept, encode_kept},
    pack_error::io_error,
};

/// A commit is due after this many written bytes,
const COMMIT_BYTES: u64 = 16 << 20;
/// or this long after the first of them.
const COMMIT_AGE: Duration = Duration::from_millis(800);
/// How often the committer looks.
const COMMIT_LOOK: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct FileState {
    have: Bitmap,
    kept: Bitmap,
    unsynced_bytes: u64,
    unsynced_since: Option<Instant>,
    /// What was written since the last commit may be in memory only, and no later sync would write it.
    sync_failed: bool,
}

#[derive(Debug)]
struct PackFile {
    files: Arc<dyn Files>,
    pack: Arc<Pack>,
    data: Box<dyn DataFile>,
    path: PathBuf,
    kept_path: PathBuf,
    state: Mutex<FileState>,
    committing: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    files: Arc<dyn Files>,
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

impl PackFile {
    fn open(files: &Arc<dyn Files>, directory: &Path, pack: Arc<Pack>) -> Result<Self, PackStoreError> {
        let path = directory.join(format!("{}.pack", pack.id()));
        let kept_path = directory.join(format!("{}.kept", pack.id()));
        let data = files.open(&path, false).map_err(io_error("open", &path))?;
        let known = files.read(&kept_path).ok().and_then(|bytes| decode_kept(&bytes, pack.frames()));
        let empty = data.length().map_err(io_error("read", &path))? == 0;
        // Space is taken at once: a disk that is too small says so before the first byte crosses a line.
        if let Err(source) = data.allocate(pack.length()) {
            if empty {
                let _ = files.remove(&path);
            }
            return Err(io_error("allocate", &path)(source));
        }
        let mut file = Self {
            state: Mutex::new(FileState {
                have: Bitmap::new(pack.frames()),
                kept: Bitmap::new(pack.frames()),
                unsynced_bytes: 0,
                unsynced_since: None,
                sync_failed: false,
            }),
            files: Arc::clone(files),
            pack,
            data,
            path,
            kept_path,
            committing: Mutex::new(()),
        };
        let kept = match known {
            // A bitmap beside an empty file is left from a pack that was removed: it promises what is gone.
            _ if empty => Bitmap::new(file.pack.frames()),
            Some(kept) => kept,
            // The bitmap is lost or damaged, the data is not: every frame proves itself.
            None => file.scan(),
        };
        let state = file.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        (state.have, state.kept) = (kept.clone(), kept);
        Ok(file)
    }

    /// For operators who wonder after a crash: nothing of this is fetched again (R72).
    fn say_what_is_kept(&self) {
        let kept = lock(&self.state).kept.clone();
        if (1..self.pack.frames()).contains(&kept.count()) {
            let kept_bytes: u64 = kept.iter().map(|index| self.pack.frame_length(index)).sum();
            let length_bytes = self.pack.length();
            tracing::info!(pack = %self.pack.id(), kept_bytes, length_bytes, "a pack goes on from what is kept");
        }
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
        if lock(&self.state).sync_failed {
            self.write_again()?;
        }
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
        let synced = self.data.sync_data().map_err(io_error("sync", &self.path));
        lock(&self.state).sync_failed |= synced.is_err();
        let written = synced.and_then(|()| {
            let kept = encode_kept(&have);
            write_atomically(&*self.files, &self.kept_path, &kept).map_err(io_error("write", &self.kept_path))
        });
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

    /// Writes what a failed sync may have lost once more, from memory; what no longer proves itself is missing.
    fn write_again(&self) -> Result<(), PackStoreError> {
        let doubtful: Vec<u32> = {
            let state = lock(&self.state);
            state.have.iter().filter(|index| !state.kept.contains(*index)).collect()
        };
        for index in doubtful {
            let proven =
                |frame: &Vec<u8>| self.pack.chunk(index).is_some_and(|entry| verify_frame(entry, frame).is_ok());
            match self.read_raw(index).ok().filter(proven) {
                None => drop(lock(&self.state).have.remove(index)),
                Some(frame) => {
                    let offset = self.pack.frame_offset(index).unwrap_or(0);
                    self.data.write_all_at(&frame, offset).map_err(io_error("write", &self.path))?;
                }
            }
        }
        lock(&self.state).sync_failed = false;
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
        Self::open_on(Arc::new(SystemFiles), directory)
    }

    /// As [`PackStore::open`], on other files than the system's.
    ///
    /// # Errors
    /// As [`PackStore::open`].
    pub fn open_on(files: Arc<dyn Files>, directory: &Path) -> Result<Self, PackStoreError> {
        files.make_directory(directory).map_err(io_error("make", directory))?;
        let mut packs = BTreeMap::new();
        for path in files.list(directory).map_err(io_error("list", directory))? {
            if path.extension().is_none_or(|extension| extension != "manifest") {
                continue;
            }
            let read = || {
                let bytes = files.read(&path).map_err(io_error("read", &path))?;
                let pack =
                    Pack::decode(&bytes).map_err(|source| PackStoreError::Manifest { path: path.clone(), source })?;
                PackFile::open(&files, directory, Arc::new(pack))
            };
            match read() {
                Ok(file) => {
                    file.say_what_is_kept();
                    packs.insert(file.pack.id(), Arc::new(file));
                }
                Err(error) => tracing::warn!(%error, "a pack is left out"),
            }
        }
        let (wake, woken) = mpsc::channel();
        let inner = Arc::new(Inner { files, directory: directory.to_owned(), packs: Mutex::new(packs), wake });
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
        let kept_path = directory.join(format!("{}.kept", pack.id()));
        write_atomically(&*self.inner.files, &kept_path, &kept).map_err(io_error("write", &kept_path))?;
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
        let file = Arc::new(PackFile::open(&self.inner.files, directory, Arc::clone(pack))?);
        let path = directory.join(format!("{}.manifest", pack.id()));
        let bytes = pack.manifest().encode();
        let bytes = bytes.map_err(|source| PackStoreError::Manifest { path: path.clone(), source })?;
        write_atomically(&*self.inner.files, &path, &bytes).map_err(io_error("write", &path))?;
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

    /// Makes a whole pack durable.
    ///
    /// # Errors
    /// As [`PackStore::commit`]; or [`PackStoreError::Missing`], where a frame was lost by a sync that had failed.
    pub fn commit_whole(&self, pack: PackId) -> Result<(), PackStoreError> {
        self.commit(pack)?;
        let lost = self.kept(pack).and_then(|kept| kept.iter_missing().next());
        lost.map_or(Ok(()), |index| Err(PackStoreError::Missing { pack, index }))
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
        let (files, directory) = (&self.inner.files, &self.inner.directory);
        for ending in ["manifest", "kept", "pack"] {
            let path = directory.join(format!("{pack}.{ending}"));
            match files.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &path)(error)),
                _ => files.sync_directory(directory).map_err(io_error("sync", directory))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash_tests;
#[cfg(test)]
#[path = "packs_tests.rs"]
mod tests;
