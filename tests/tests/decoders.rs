//! No decoder panics, whatever comes (Bad input of issue 2): arbitrary bytes, and real messages with bytes changed.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use branchline_protocol::{
    content::{
        ImageHasher,
        patch::{Patch, PatchSubject, PatchWriter, PresetRange},
    },
    limits::CONTROL_MESSAGE_BYTES_MAX,
    survey::fixtures,
    wire::{codec, control::ControlRequest},
};
use branchline_tests::decoders::DECODERS;
use proptest::prelude::*;

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..512), which in 0..DECODERS.len()) {
        (DECODERS[which].1)(&bytes);
    }

    #[test]
    fn a_damaged_descriptor_is_refused_or_read(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = fixtures::network_storage_host().print().into_bytes();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        decoder("descriptor")(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        decoder("descriptor")(&bytes);
    }

    #[test]
    fn a_damaged_patch_is_refused_or_applied(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = sample_patch();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        decoder("patch")(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        decoder("patch")(&bytes);
    }

    #[test]
    fn a_damaged_request_is_refused_or_read(hash: [u8; 32], body: Vec<u8>, at in any::<prop::sample::Index>(), byte: u8) {
        let hash = branchline_protocol::ids::SurveyHash(branchline_protocol::ids::Hash(hash));
        let request = ControlRequest::StoreSurvey { hash, sealed: body };
        let mut bytes = codec::encode(&request, CONTROL_MESSAGE_BYTES_MAX).unwrap();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        decoder("control_request")(&bytes);
    }
}

/// A patch for the base that the decoder `patch` makes of a length.
fn sample_patch() -> Vec<u8> {
    let base: Vec<u8> = (0..9000_u64).map(|at| ((at * 31) >> 3) as u8).collect();
    let mut target = base[1000..8000].to_vec();
    target[5000] ^= 9;
    target.extend(b"and something new");
    let image = |bytes: &[u8]| {
        let mut hasher = ImageHasher::new(4096);
        hasher.update(bytes);
        hasher.finish()
    };
    let mut writer = PatchWriter::new();
    writer.end_record(&[], 1000);
    writer.matched(&base[1000..8000], &target[..7000]);
    writer.end_record(&target[7000..], 0);
    let subject = PatchSubject {
        base: image(&base),
        target: image(&target),
        base_length: base.len() as u64,
        target_length: target.len() as u64,
        target_chunk_bytes: 4096,
    };
    let preset = PresetRange { offset: 0, length: base.len() as u64 };
    writer.encode(&subject, vec![preset], &base).unwrap().bytes
}

/// The fuzzer begins from the same patch, which lies beside it as a file (`tests/fuzz/seeds`).
#[test]
fn the_sample_patch_is_one() {
    let patch = sample_patch();
    let seed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/patch/sample");
    if std::env::var_os("BRANCHLINE_WRITE_SEEDS").is_some() {
        std::fs::create_dir_all(seed.parent().unwrap()).unwrap();
        std::fs::write(&seed, &patch).unwrap();
    }
    assert!(std::fs::read(&seed).unwrap() == patch, "BRANCHLINE_WRITE_SEEDS=1 writes {}", seed.display());
    let opened = Patch::open(&patch[..]).unwrap();
    let base: Vec<u8> = (0..9000_u64).map(|at| ((at * 31) >> 3) as u8).collect();
    opened.apply(&base[..], opened.header().base, std::io::sink()).unwrap();
}

fn decoder(name: &str) -> fn(&[u8]) {
    DECODERS.iter().find(|(known, _)| *known == name).unwrap().1
}

/// The fuzz crate lies outside the workspace and is not built with it: its targets are held against the decoders here.
#[test]
fn every_decoder_has_its_fuzz_target() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(directory.join("Cargo.toml")).unwrap();
    for (name, _) in DECODERS {
        let target = std::fs::read_to_string(directory.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("branchline_fuzz::feed(\"{name}\", bytes)")), "{target}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not in Cargo.toml");
    }
    assert_eq!(std::fs::read_dir(directory.join("fuzz_targets")).unwrap().count(), DECODERS.len());
}

/// Inputs that broke a decoder once, as files in `recorded/DECODER/`.
#[test]
fn recorded_inputs_are_refused_or_read() {
    let recorded = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded");
    for (name, feed) in DECODERS {
        for entry in std::fs::read_dir(recorded.join(name)).into_iter().flatten() {
            feed(&std::fs::read(entry.unwrap().path()).unwrap());
        }
    }
}
