//! What nodes say to each other, and how it is written.
//!
//! Bytes are bincode's (fixed-width little-endian integers, `u64` lengths, `u32` enum tags), written by `wincode`
//! through serde. Every decoder has a bound and refuses trailing bytes. Released types never change: new enum variants
//! are appended, and the hello negotiates the highest common version.
pub mod bulk;
pub mod codec;
pub mod control;
pub mod site;
