//! Coverage-guided fuzzing of every decoder. `tests/fuzz/run` builds the targets with the stable compiler and runs each
//! for a while; `cd tests && cargo fuzz run descriptor` works as well (cargo-fuzz and a nightly compiler). A crate of its
//! own outside the workspace, because its instrumentation and its compiler flags are not those of the product.
#![forbid(unsafe_code)]

#[path = "../../src/decoders.rs"]
mod decoders;

/// Feeds one decoder.
pub fn feed(name: &str, bytes: &[u8]) {
    let decoder = decoders::DECODERS.iter().find(|(known, _)| *known == name).expect("a decoder of that name");
    (decoder.1)(bytes);
}
