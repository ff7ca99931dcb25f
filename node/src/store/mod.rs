//! What a node keeps on disk.
pub mod journal;
pub mod packs;
pub mod read_at;
