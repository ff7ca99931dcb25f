use branchline_protocol::{
    content::{ChunkEntry, Manifest, PACK_FORMAT},
    ids::Hash,
};

use std::fs::{self, OpenOptions};

use super::*;

const RAW_BYTES: usize = 300_000;

fn raw() -> Vec<u8> {
    (0..RAW_BYTES as u64).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect()
}

/// A store that holds a pack, and another that is to receive it.
fn stores() -> (tempfile::TempDir, PackStore, Arc<Pack>) {
    let directory = tempfile::tempdir().unwrap();
    let origin = PackStore::open(&directory.path().join("origin")).unwrap();
    let pack = origin.import("agent.bin", &raw()[..], RAW_BYTES as u64).unwrap();
    (directory, origin, pack)
}

#[test]
fn an_imported_pack_is_kept_and_gives_back_its_image() {
    let (directory, origin, pack) = stores();
    assert!(pack.frames() > 3);
    drop(origin);
    let again = PackStore::open(&directory.path().join("origin")).unwrap();
    assert!(again.kept(pack.id()).unwrap().is_full());
    let mut image = Vec::new();
    again.assemble(pack.id(), &mut image).unwrap();
    assert_eq!(image, raw());
    assert_eq!(Pack::decode_as(pack.id(), &again.manifest(pack.id()).unwrap()).unwrap(), *pack);
    again.remove(pack.id()).unwrap();
    assert_eq!(fs::read_dir(directory.path().join("origin")).unwrap().count(), 0);
}

#[test]
fn only_what_was_committed_counts_after_a_crash_and_nothing_corrupt_is_ever_written() {
    let (directory, origin, pack) = stores();
    let (id, path) = (pack.id(), directory.path().join("host"));
    let host = PackStore::open(&path).unwrap();
    assert_eq!(host.add(&pack).unwrap().count(), 0);
    let frame = |index| origin.read_frame(id, index).unwrap();
    host.write_frame(id, 0, &frame(0)).unwrap();
    host.commit(id).unwrap();
    host.write_frame(id, 1, &frame(1)).unwrap();
    assert_eq!(host.read_frame(id, 1).unwrap(), frame(1));
    let mut bad = frame(2);
    bad[10] ^= 1;
    assert!(matches!(host.write_frame(id, 2, &bad), Err(PackStoreError::Corrupt(_))));
    assert!(matches!(host.read_frame(id, 2), Err(PackStoreError::Missing { index: 2, .. })));

    // A copy of the files as a power cut would leave them, before the committer has looked.
    let image = directory.path().join("crash");
    fs::create_dir(&image).unwrap();
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), image.join(entry.file_name())).unwrap();
    }
    let crashed = PackStore::open(&image).unwrap();
    assert_eq!(crashed.kept(id).unwrap().iter().collect::<Vec<_>>(), vec![0]);
    assert!(matches!(crashed.assemble(id, io::sink()), Err(PackStoreError::Assemble { .. })));
}

#[test]
fn a_lost_bitmap_is_found_again_from_the_data() {
    let (directory, origin, pack) = stores();
    drop(origin);
    let path = directory.path().join("origin").join(format!("{}.kept", pack.id()));
    for damage in [Some(&b"nonsense"[..]), None] {
        match damage {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let again = PackStore::open(&directory.path().join("origin")).unwrap();
        assert!(again.kept(pack.id()).unwrap().is_full());
    }
}

#[test]
fn a_damaged_frame_is_not_given_out_and_counts_as_missing() {
    let (directory, origin, pack) = stores();
    let path = directory.path().join("origin").join(format!("{}.pack", pack.id()));
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xff; 16], pack.frame_offset(1).unwrap() + 20).unwrap();
    assert!(matches!(origin.read_frame(pack.id(), 1), Err(PackStoreError::Damaged { index: 1, .. })));
    assert!(matches!(origin.read_frame(pack.id(), 1), Err(PackStoreError::Missing { index: 1, .. })));
    assert!(origin.read_frame(pack.id(), 0).is_ok());
    origin.commit(pack.id()).unwrap();
    assert!(!origin.kept(pack.id()).unwrap().contains(1));
}

#[test]
fn a_pack_that_does_not_fit_is_refused_by_name_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = PackStore::open(directory.path()).unwrap();
    let hash = Hash::of(b"anything");
    let chunk = ChunkEntry { raw_hash: hash, raw_length: 4 << 20, frame_hash: hash, frame_length: 4 << 20 };
    let chunks = vec![chunk; 65_536];
    let original = OriginalFile { name: "huge".into(), sha256: hash, length: 1 };
    let manifest = Manifest { format: PACK_FORMAT, image: Manifest::image_of(&chunks), original, chunks };
    let pack = Arc::new(Pack::new(manifest).unwrap());
    let free = rustix::fs::statvfs(directory.path()).unwrap();
    if free.f_bavail * free.f_frsize > pack.length() {
        return;
    }
    let error = store.add(&pack).unwrap_err().to_string();
    assert!(error.contains(&format!("{}.pack", pack.id())) && error.contains("allocate"), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(store.import("small", &raw()[..], RAW_BYTES as u64).is_ok());
}

#[test]
fn frames_are_committed_without_being_asked() {
    let (directory, origin, pack) = stores();
    let host = PackStore::open(&directory.path().join("host")).unwrap();
    host.add(&pack).unwrap();
    host.write_frame(pack.id(), 0, &origin.read_frame(pack.id(), 0).unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while host.kept(pack.id()).unwrap().count() == 0 {
        assert!(Instant::now() < deadline, "the committer does not commit");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Recorded failure: three plans wished for one pack at once, and the file made last forgot the frames of the first.
#[test]
fn wishes_for_one_pack_at_once_share_one_file() {
    let (directory, origin, pack) = stores();
    let host = PackStore::open(&directory.path().join("host")).unwrap();
    let start = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for index in 0..8 {
            let (host, origin, pack, start) = (&host, &origin, &pack, &start);
            scope.spawn(move || {
                start.wait();
                host.add(pack).unwrap();
                if index < pack.frames() {
                    host.write_frame(pack.id(), index, &origin.read_frame(pack.id(), index).unwrap()).unwrap();
                }
            });
        }
    });
    assert_eq!(host.have(pack.id()).unwrap().count(), pack.frames().min(8));
}
