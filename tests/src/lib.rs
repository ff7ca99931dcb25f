//! What the tests that cross rooms share: the site lab as a Rust value.
//!
//! The lab itself is shell and Python under `tests/lab`; its page in the book is `docs/src/lab.md`.
#![forbid(unsafe_code)]
