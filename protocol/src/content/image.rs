//! The name of an image that is being written, computed on the way.
use super::{chunk::ChunkEntry, manifest::Manifest};
use crate::{
    ids::{Hash, ImageId},
    limits::CHUNK_BYTES_MAX,
};

/// Computes the [`ImageId`] of bytes that come in pieces, with one hash state and 36 bytes per chunk in memory.
#[derive(Debug)]
pub struct ImageHasher {
    chunk_bytes: usize,
    hasher: blake3::Hasher,
    taken: usize,
    chunks: Vec<ChunkEntry>,
}

impl ImageHasher {
    /// Begins an image whose chunks have `chunk_bytes` each, the last perhaps fewer. The length of the chunks belongs to
    /// the image's name: whoever compares must cut as the pack's builder did.
    pub fn new(chunk_bytes: usize) -> Self {
        let chunk_bytes = chunk_bytes.clamp(1, CHUNK_BYTES_MAX);
        Self { chunk_bytes, hasher: blake3::Hasher::new(), taken: 0, chunks: Vec::new() }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(self.chunk_bytes - self.taken));
            self.hasher.update(now);
            self.taken += now.len();
            bytes = rest;
            if self.taken == self.chunk_bytes {
                self.end_chunk();
            }
        }
    }

    fn end_chunk(&mut self) {
        self.chunks.push(ChunkEntry {
            raw_hash: Hash(*self.hasher.finalize().as_bytes()),
            raw_length: self.taken as u32,
            // An image's name does not depend on its frames.
            frame_hash: Hash([0; 32]),
            frame_length: 0,
        });
        self.hasher.reset();
        self.taken = 0;
    }

    /// The image that the bytes made.
    pub fn finish(mut self) -> ImageId {
        if self.taken > 0 {
            self.end_chunk();
        }
        Manifest::image_of(&self.chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::build_pack;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_names_the_image_as_the_pack_does(raw in prop::collection::vec(any::<u8>(), 1..3000), chunk in 1usize..900, piece in 1usize..500) {
            let pack = build_pack("a", &raw[..], chunk, std::io::sink()).unwrap();
            let mut hasher = ImageHasher::new(chunk);
            raw.chunks(piece).for_each(|piece| hasher.update(piece));
            prop_assert_eq!(hasher.finish(), pack.manifest().image);
        }
    }
}
