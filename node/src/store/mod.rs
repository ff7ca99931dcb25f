//! What a node keeps on disk.
mod files;
pub mod journal;
mod kept;
mod pack_error;
pub mod packs;
pub mod read_at;
