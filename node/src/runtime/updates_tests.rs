use std::fs;

use branchline_protocol::{
    content::{Manifest, build_pack_of, chunk_bytes_for},
    ids::Hash,
};

use super::*;
use crate::catalogue::make_patch;

/// A host's store with the base, and everything about the update.
struct Bench {
    home: tempfile::TempDir,
    store: PackStore,
    base: PackId,
    offer: PatchOffer,
    payload: Payload,
    target: Vec<u8>,
}

fn tar_of(content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, "a", content).unwrap();
    builder.into_inner().unwrap()
}

fn bench() -> Bench {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let mut content: Vec<u8> = (0..60_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let old = tar_of(&content);
    content[100_000] ^= 1;
    let target = tar_of(&content);
    fs::write(path("old.tar"), &old).unwrap();
    fs::write(path("new.tar"), &target).unwrap();
    let made = make_patch(&path("old.tar"), &path("new.tar"), &path("patch")).unwrap();
    let store = PackStore::open(&path("packs")).unwrap();
    let base = store.import("old.tar", &old[..], old.len() as u64).unwrap();
    assert_eq!(base.manifest().image, made.base);
    let patch = fs::read(path("patch")).unwrap();
    let patch = store.import("a.patch", &patch[..], patch.len() as u64).unwrap();
    let original = OriginalFile { name: "new.tar.xz".into(), sha256: Hash::of(b"delivered"), length: 77 };
    let whole = build_pack_of(original, &target[..], chunk_bytes_for(target.len() as u64), std::io::sink()).unwrap();
    let Manifest { image, original, .. } = whole.manifest().clone();
    let offer = PatchOffer {
        base: made.base,
        target: image,
        pack: patch.id(),
        pack_bytes: patch.length(),
        raw_bytes: made.patch_bytes,
        original_bytes: original.length,
    };
    let payload = Payload {
        image,
        pack: whole.id(),
        pack_bytes: whole.length(),
        raw_bytes: target.len() as u64,
        sha256: original.sha256,
        file_name: original.name,
    };
    Bench { store, base: base.id(), offer, payload, target, home }
}

impl Bench {
    fn rebuild(&self) -> Result<Arc<Pack>> {
        rebuild(&self.store, self.base, &self.offer, &self.payload)
    }

    fn refused(&self) -> String {
        let before = self.store.packs().len();
        let error = format!("{:#}", self.rebuild().unwrap_err());
        assert_eq!(self.store.packs().len(), before, "nothing of a failed update stays");
        error
    }
}

#[test]
fn the_same_pack_comes_of_base_and_patch() {
    let bench = bench();
    let made = bench.rebuild().unwrap();
    assert_eq!(made.id(), bench.payload.pack);
    assert!(bench.store.kept(made.id()).unwrap().is_full());
    let mut image = Vec::new();
    bench.store.assemble(made.id(), &mut image).unwrap();
    assert!(image == bench.target);
    let left: Vec<_> = fs::read_dir(bench.home.path().join("packs")).unwrap().collect();
    assert_eq!(left.len(), 9, "three packs of three files each, and nothing else");
}

#[test]
fn a_half_fetched_copy_is_replaced() {
    let bench = bench();
    let original = OriginalFile {
        name: bench.payload.file_name.clone(),
        sha256: bench.payload.sha256,
        length: bench.offer.original_bytes,
    };
    let length = chunk_bytes_for(bench.payload.raw_bytes);
    let whole = Arc::new(build_pack_of(original, &bench.target[..], length, std::io::sink()).unwrap());
    assert!(!bench.store.add(&whole).unwrap().is_full());
    assert_eq!(bench.rebuild().unwrap().id(), whole.id());
    assert!(bench.store.kept(whole.id()).unwrap().is_full());
}

#[test]
fn what_is_not_the_promised_update_is_refused() {
    let mut other = bench();
    other.offer.base = other.offer.target;
    assert!(other.refused().contains("but it was to be applied to image"));
    let mut other = bench();
    other.offer.target = other.offer.base;
    assert!(other.refused().contains("makes another image than the catalogue says"));
    let mut other = bench();
    other.payload.raw_bytes -= 1;
    assert!(other.refused().contains("makes another image than the catalogue says"));
    let mut other = bench();
    other.offer.original_bytes += 1;
    assert!(other.refused().contains("packs it as"));
    let mut other = bench();
    other.base = other.offer.pack;
    assert!(other.refused().contains("is for a base of"));
}

#[test]
fn a_damaged_patch_is_refused() {
    let bench = bench();
    let patch = fs::read(bench.home.path().join("patch")).unwrap();
    for cut in [0, 3, 60, patch.len() - 1] {
        let cut = bench.store.import("cut.patch", &patch[..cut.max(1)], cut as u64).unwrap();
        let offer = PatchOffer { pack: cut.id(), ..bench.offer.clone() };
        assert!(rebuild(&bench.store, bench.base, &offer, &bench.payload).is_err());
    }
    let mut flipped = patch.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let flipped = bench.store.import("flipped.patch", &flipped[..], 100).unwrap();
    let offer = PatchOffer { pack: flipped.id(), ..bench.offer.clone() };
    assert!(rebuild(&bench.store, bench.base, &offer, &bench.payload).is_err());
}

#[test]
fn only_documents_that_say_something_else_of_an_update_end_the_wait_for_its_patch() {
    let Bench { base, offer, payload, .. } = bench();
    let offers = |travel, offers| Offers { payload: payload.clone(), travel, offers };
    let known = (offer.clone(), Some(base));
    let travel = UpdateTravel::Patch;
    let offered = identities(std::slice::from_ref(&known));
    let route = Route { offer: offer.clone(), payload: payload.clone(), base, travel, offered };
    assert!(route.agrees_with(Some(&offers(travel, vec![known.clone()]))));
    assert!(route.agrees_with(None), "of a version that is no longer named nothing better is known");
    let without_base = (offer.clone(), None);
    assert!(route.agrees_with(Some(&offers(travel, vec![without_base]))), "the base is here, whatever is named");
    let other = (PatchOffer { pack: base, ..offer }, Some(base));
    assert!(!route.agrees_with(Some(&offers(travel, vec![known.clone(), other.clone()]))));
    assert!(!route.agrees_with(Some(&offers(travel, vec![other]))));
    assert!(!route.agrees_with(Some(&offers(travel, vec![]))));
    for travel in [UpdateTravel::PatchOnly, UpdateTravel::Whole] {
        assert!(!route.agrees_with(Some(&offers(travel, vec![known.clone()]))));
    }
}
