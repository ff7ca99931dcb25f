//! What the tests that cross rooms share: the site lab as a Rust value, and the binary under test.
//!
//! The lab itself is shell and Python under `tests/lab`; its page in the book is `docs/src/lab.md`.
//! The tests are in `tests/tests`.
#![forbid(unsafe_code)]

// Where the decoders find it: the fuzz crate, which takes their file too, does without the binary's crate.
use branchline::catalogue::{format_of, normalise_within};

pub mod attacker;
pub mod binary;
pub mod decoders;
pub mod kept_demo;
pub mod lab;
pub mod newcomer;
pub mod observed;
pub mod payload;
pub mod punctuality;
pub mod required;
pub mod resumption;
pub mod site;
pub mod systemd;
