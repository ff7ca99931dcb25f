//! No decoder panics, whatever comes (Bad input of issue 2): arbitrary bytes, and real messages with bytes changed.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use branchline_protocol::{
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
    fn a_damaged_request_is_refused_or_read(hash: [u8; 32], body: Vec<u8>, at in any::<prop::sample::Index>(), byte: u8) {
        let hash = branchline_protocol::ids::SurveyHash(branchline_protocol::ids::Hash(hash));
        let request = ControlRequest::StoreSurvey { hash, sealed: body };
        let mut bytes = codec::encode(&request, CONTROL_MESSAGE_BYTES_MAX).unwrap();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        decoder("control_request")(&bytes);
    }
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
