//! The privileged installer as its own process: what it refuses, what it installs, and what is left after a rollback,
//! a full disk and `kill -9` (R80-R87, R92, R94, R98).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod left_out;
mod payloads;
mod recovery;
#[path = "../../../tests/src/required.rs"]
mod required;
mod support;
mod trust;
mod updates;
