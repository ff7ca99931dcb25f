//! Coverage-guided fuzzing of every decoder: `cd tests && cargo fuzz run descriptor` (needs cargo-fuzz and a nightly
//! compiler, or `RUSTC_BOOTSTRAP=1`). A crate of its own outside the workspace, because its instrumentation and its
//! compiler flags are not those of the product.
#![forbid(unsafe_code)]

use branchline_tests::decoders::DECODERS;

/// Feeds one decoder.
pub fn feed(name: &str, bytes: &[u8]) {
    let decoder = DECODERS.iter().find(|(known, _)| *known == name).expect("a decoder of that name");
    (decoder.1)(bytes);
}
