//! What a node keeps on disk.
pub mod journal;
mod kept;
pub mod packs;
pub mod read_at;
