//! Coverage-guided fuzzing of every decoder. `tests/fuzz/run` builds the targets with the stable compiler and runs each
//! for a while; `cd tests && cargo fuzz run descriptor` works as well (cargo-fuzz and a nightly compiler). A crate of its
//! own outside the workspace, because its instrumentation and its compiler flags are not those of the product.
#![forbid(unsafe_code)]

#[path = "../../src/decoders.rs"]
mod decoders;
// Two files of the binary's crate by themselves, since its whole would bring the network stack with it.
#[path = "../../../node/src/config/input.rs"]
pub mod input;
#[path = "../../../node/src/catalogue/normal.rs"]
pub mod normal;

/// Where `normal` looks for it.
pub mod config {
    pub use super::input::open_input;
}

use normal::{format_of, normalise_within};

/// Feeds one decoder.
pub fn feed(name: &str, bytes: &[u8]) {
    let decoder = decoders::DECODERS.iter().find(|(known, _)| *known == name).expect("a decoder of that name");
    (decoder.1)(bytes);
}
