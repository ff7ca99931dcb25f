//! The store on a disk that loses power at every step, tears and reorders what was not synced, fills up and fails (R72).
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use rustix::io::Errno;

use super::{
    super::files::{DataFile, Files},
    *,
};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Images of each point in time, besides the two extremes.
const IMAGES: u64 = 6;
const RAW_BYTES: usize = 300_000;
const HOME: &str = "/packs";

fn raw() -> Vec<u8> {
    (0..RAW_BYTES as u64).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect()
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What survives a crash.
    durable: Vec<u8>,
    /// What reads see.
    current: Vec<u8>,
    /// Since the last sync, in order: where, and what (nothing: the length changed).
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Made(PathBuf, usize),
    Renamed(PathBuf, PathBuf, usize),
    Removed(PathBuf),
}

#[derive(Clone, Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    /// Bytes that still fit.
    room: Option<u64>,
    failing_syncs: u32,
    failing_writes: u32,
}

/// What the store had promised when the power could go.
#[derive(Clone)]
struct Moment {
    disk: Disk,
    promised: Vec<u32>,
}

#[derive(Default)]
struct Recording {
    disk: Disk,
    moments: Vec<Moment>,
    promised: Vec<u32>,
}

/// A file system in memory; every change is a moment at which the power may go.
#[derive(Clone, Default)]
struct MemoryFiles(Arc<Mutex<Recording>>);

impl std::fmt::Debug for MemoryFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("files in memory")
    }
}

#[derive(Debug)]
struct MemoryFile {
    files: MemoryFiles,
    inode: usize,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn coin(&mut self) -> bool {
        self.next() & 0x100 != 0
    }

    fn below(&mut self, range: Range<usize>) -> usize {
        range.start + usize::try_from(self.next() >> 16).unwrap() % (range.end - range.start)
    }
}

fn write_into(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl MemoryFiles {
    fn of(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new(Recording { disk, ..Recording::default() })))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Disk) -> T) -> T {
        let mut recording = lock(&self.0);
        let result = change(&mut recording.disk);
        let moment = Moment { disk: recording.disk.clone(), promised: recording.promised.clone() };
        recording.moments.push(moment);
        result
    }

    fn promise(&self, kept: &Bitmap) {
        lock(&self.0).promised = kept.iter().collect();
    }
}

impl Disk {
    /// What is left when the power goes now: of what was not synced, some, in any order, and torn.
    fn after_power_cut(&self, random: &mut Random, all: Option<bool>) -> Self {
        let mut left = Self { inodes: self.inodes.clone(), names: self.durable_names.clone(), ..Self::default() };
        for inode in &mut left.inodes {
            let mut content = inode.durable.clone();
            let mut unsynced = std::mem::take(&mut inode.unsynced);
            if all.is_none() && unsynced.len() > 1 && random.coin() {
                let (a, b) = (random.below(0..unsynced.len()), random.below(0..unsynced.len()));
                unsynced.swap(a, b);
            }
            for (offset, bytes) in unsynced {
                let keeps = all.unwrap_or_else(|| random.coin());
                let torn = if all.is_none() && random.coin() {
                    random.below(0..bytes.len() / SECTOR + 1) * SECTOR
                } else {
                    bytes.len()
                };
                if keeps {
                    write_into(&mut content, offset, &bytes[..torn.min(bytes.len())]);
                }
            }
            (inode.durable, inode.current) = (content.clone(), content);
        }
        for change in &self.unsynced_names {
            if !all.unwrap_or_else(|| random.coin()) {
                continue;
            }
            match change {
                NameChange::Made(path, inode) => drop(left.names.insert(path.clone(), *inode)),
                NameChange::Renamed(from, to, inode) => {
                    left.names.remove(from);
                    left.names.insert(to.clone(), *inode);
                }
                NameChange::Removed(path) => drop(left.names.remove(path)),
            }
        }
        left.durable_names = left.names.clone();
        left
    }
}

impl Files for MemoryFiles {
    fn make_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(lock(&self.0).disk.names.keys().cloned().collect())
    }

    fn open(&self, path: &Path, truncate: bool) -> io::Result<Box<dyn DataFile>> {
        let known = lock(&self.0).disk.names.get(path).copied();
        let inode = match known {
            Some(inode) if !truncate => inode,
            _ => self.change(|disk| {
                // A truncated file is a new one here: the old content may or may not be there after a crash.
                disk.inodes.push(Inode::default());
                let inode = disk.inodes.len() - 1;
                disk.names.insert(path.to_owned(), inode);
                disk.unsynced_names.push(NameChange::Made(path.to_owned(), inode));
                inode
            }),
        };
        Ok(Box::new(MemoryFile { files: self.clone(), inode }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let recording = lock(&self.0);
        let inode = recording.disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(recording.disk.inodes[*inode].current.clone())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|disk| {
            let inode = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            disk.names.insert(to.to_owned(), inode);
            disk.unsynced_names.push(NameChange::Renamed(from.to_owned(), to.to_owned(), inode));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|disk| {
            disk.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
            disk.unsynced_names.push(NameChange::Removed(path.to_owned()));
            Ok(())
        })
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.change(|disk| {
            disk.durable_names = disk.names.clone();
            disk.unsynced_names.clear();
        });
        Ok(())
    }
}

impl DataFile for MemoryFile {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let recording = lock(&self.files.0);
        let offset = usize::try_from(offset).unwrap();
        let content = recording.disk.inodes[self.inode].current.get(offset..offset + bytes.len());
        bytes.copy_from_slice(content.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.files.change(|disk| {
            if disk.failing_writes > 0 {
                disk.failing_writes -= 1;
                return Err(Errno::IO.into());
            }
            let inode = &mut disk.inodes[self.inode];
            let offset = usize::try_from(offset).unwrap();
            write_into(&mut inode.current, offset, bytes);
            inode.unsynced.push((offset, bytes.to_vec()));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.files.change(|disk| {
            let inode = &mut disk.inodes[self.inode];
            if disk.failing_syncs > 0 {
                disk.failing_syncs -= 1;
                // As Linux does: what could not be written is forgotten, can still be read, and is never tried again.
                inode.unsynced.clear();
                return Err(Errno::IO.into());
            }
            for (offset, bytes) in std::mem::take(&mut inode.unsynced) {
                write_into(&mut inode.durable, offset, &bytes);
            }
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.files.0).disk.inodes[self.inode].current.len() as u64)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let taken = self.length()?;
        self.files.change(|disk| {
            let more = length.saturating_sub(taken);
            if disk.room.is_some_and(|room| more > room) {
                return Err(Errno::NOSPC.into());
            }
            disk.room = disk.room.map(|room| room - more);
            let inode = &mut disk.inodes[self.inode];
            let length = usize::try_from(length).unwrap().max(inode.current.len());
            inode.current.resize(length, 0);
            if let Some(last) = length.checked_sub(1).filter(|_| more > 0) {
                inode.unsynced.push((last, vec![0]));
            }
            Ok(())
        })
    }
}

/// A pack, and its frames.
fn payload() -> (tempfile::TempDir, Arc<Pack>, Vec<Vec<u8>>) {
    let directory = tempfile::tempdir().unwrap();
    let origin = PackStore::open(directory.path()).unwrap();
    let pack = origin.import("agent.bin", &raw()[..], RAW_BYTES as u64).unwrap();
    let frames = (0..pack.frames()).map(|index| origin.read_frame(pack.id(), index).unwrap()).collect();
    (directory, pack, frames)
}

fn open(files: &MemoryFiles) -> PackStore {
    PackStore::open_on(Arc::new(files.clone()), Path::new(HOME)).unwrap()
}

/// Opens what a power cut left and checks all that R72 promises of it; then fetches the rest.
fn check_image(moment: &Moment, disk: Disk, pack: &Arc<Pack>, frames: &[Vec<u8>]) -> usize {
    let store = open(&MemoryFiles::of(disk));
    let id = pack.id();
    let kept: BTreeSet<u32> = store.kept(id).iter().flat_map(Bitmap::iter).collect();
    for index in &kept {
        assert_eq!(&store.read_frame(id, *index).unwrap(), &frames[*index as usize], "frame {index} counts unverified");
    }
    for index in &moment.promised {
        assert!(kept.contains(index), "frame {index} was kept and is to be fetched again");
    }
    store.add(pack).unwrap();
    let missing: Vec<u32> = store.kept(id).unwrap().iter_missing().collect();
    for index in &missing {
        store.write_frame(id, *index, &frames[*index as usize]).unwrap();
    }
    store.commit_whole(id).unwrap();
    let mut image = Vec::new();
    store.assemble(id, &mut image).unwrap();
    assert_eq!(image, raw());
    kept.len()
}

fn check_all_images(files: &MemoryFiles, pack: &Arc<Pack>, frames: &[Vec<u8>]) -> (usize, BTreeSet<usize>) {
    let moments = lock(&files.0).moments.clone();
    let (mut images, mut counts) = (0, BTreeSet::new());
    for (number, moment) in moments.iter().enumerate() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ ((number as u64 + 1) << 20));
        for variant in 0..IMAGES + 2 {
            let all = [Some(false), Some(true)].get(variant as usize).copied().flatten();
            counts.insert(check_image(moment, moment.disk.after_power_cut(&mut random, all), pack, frames));
            images += 1;
        }
    }
    (images, counts)
}

#[test]
fn whatever_a_power_cut_leaves_what_was_kept_counts_and_nothing_else() {
    let (_directory, pack, frames) = payload();
    let files = MemoryFiles::default();
    let store = open(&files);
    store.add(&pack).unwrap();
    let id = pack.id();
    for (index, frame) in (0..).zip(&frames) {
        store.write_frame(id, index, frame).unwrap();
        // Commits of two frames, so that the last one is under way alone.
        if index % 2 == 1 {
            store.commit(id).unwrap();
            files.promise(&store.kept(id).unwrap());
        }
    }
    store.commit_whole(id).unwrap();
    files.promise(&store.kept(id).unwrap());
    files.change(|_| ());
    drop(store);
    let (images, counts) = check_all_images(&files, &pack, &frames);
    println!("{images} crash images, kept frames in them: {counts:?}");
    assert!(images > 200 && counts.len() > 2, "{images} {counts:?}");
}

#[test]
fn a_pack_that_was_removed_and_comes_again_promises_nothing_of_its_first_life() {
    let (_directory, pack, frames) = payload();
    let (files, id) = (MemoryFiles::default(), pack.id());
    let store = open(&files);
    store.add(&pack).unwrap();
    (0..).zip(&frames).for_each(|(index, frame)| store.write_frame(id, index, frame).unwrap());
    store.commit_whole(id).unwrap();
    store.remove(id).unwrap();
    store.add(&pack).unwrap();
    store.write_frame(id, 0, &frames[0]).unwrap();
    store.commit(id).unwrap();
    files.promise(&store.kept(id).unwrap());
    files.change(|_| ());
    drop(store);
    check_all_images(&files, &pack, &frames);
}

#[test]
fn what_a_failed_sync_lost_is_written_again_before_it_counts() {
    let (_directory, pack, frames) = payload();
    let (files, id) = (MemoryFiles::default(), pack.id());
    let store = open(&files);
    store.add(&pack).unwrap();
    store.write_frame(id, 0, &frames[0]).unwrap();
    store.commit(id).unwrap();
    store.write_frame(id, 1, &frames[1]).unwrap();
    files.change(|disk| disk.failing_syncs = 1);
    let refused = store.commit(id).unwrap_err().to_string();
    assert!(refused.contains("cannot sync") && refused.contains(".pack"), "{refused}");
    assert_eq!(store.kept(id).unwrap().iter().collect::<Vec<_>>(), [0]);
    assert_eq!(store.read_frame(id, 1).unwrap(), frames[1], "it can still be served");
    store.commit(id).unwrap();
    let mut random = Random(7);
    let disk = lock(&files.0).disk.after_power_cut(&mut random, Some(false));
    let again = open(&MemoryFiles::of(disk));
    assert_eq!(again.kept(id).unwrap().iter().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(again.read_frame(id, 1).unwrap(), frames[1]);
}

#[test]
fn a_frame_that_a_failed_sync_lost_for_good_is_missing_and_the_whole_pack_is_not_complete() {
    let (_directory, pack, frames) = payload();
    let (files, id) = (MemoryFiles::default(), pack.id());
    let store = open(&files);
    store.add(&pack).unwrap();
    (0..).zip(&frames).for_each(|(index, frame)| store.write_frame(id, index, frame).unwrap());
    files.change(|disk| disk.failing_syncs = 1);
    store.commit(id).unwrap_err();
    // The memory that held it was needed for something else: the disk's old content shows.
    files.change(|disk| {
        for inode in &mut disk.inodes {
            let offset = usize::try_from(pack.frame_offset(2).unwrap()).unwrap();
            if inode.current.len() > offset + 100 {
                inode.current[offset..offset + 100].fill(0);
            }
        }
    });
    assert!(matches!(store.commit_whole(id), Err(PackStoreError::Missing { index: 2, .. })));
    store.write_frame(id, 2, &frames[2]).unwrap();
    store.commit_whole(id).unwrap();
}

#[test]
fn a_full_disk_and_a_failing_write_are_said_and_pass() {
    let (_directory, pack, frames) = payload();
    let (files, id) = (MemoryFiles::default(), pack.id());
    files.change(|disk| disk.room = Some(pack.length() - 1));
    let store = open(&files);
    let full = store.add(&pack).unwrap_err().to_string();
    assert!(full.contains("allocate") && full.contains("No space"), "{full}");
    assert!(lock(&files.0).disk.names.is_empty(), "nothing is left of it");
    files.change(|disk| disk.room = Some(pack.length()));
    store.add(&pack).unwrap();
    files.change(|disk| disk.failing_writes = 1);
    let failed = store.write_frame(id, 0, &frames[0]).unwrap_err().to_string();
    assert!(failed.contains("cannot write"), "{failed}");
    assert_eq!(store.have(id).unwrap().count(), 0);
    store.write_frame(id, 0, &frames[0]).unwrap();
    store.commit(id).unwrap();
    assert_eq!(store.kept(id).unwrap().count(), 1);
}
