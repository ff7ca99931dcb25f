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
