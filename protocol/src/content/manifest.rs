//! The manifest of a pack, and the strict check that every manifest from outside passes.
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::chunk::ChunkEntry;
use crate::{
    ids::{Hash, ImageId, PackId},
    limits::{CHUNK_BYTES_MAX, FILE_NAME_BYTES_MAX, FRAME_BYTES_MAX, MANIFEST_BYTES_MAX, MANIFEST_CHUNKS_MAX},
    refusal::{Refusal, RefusalKind},
    wire::codec,
};

/// The only format so far: one zstd frame per chunk, in order, without a dictionary.
pub const PACK_FORMAT: u16 = 1;

/// The file that the image was made from, for reports: a package may travel in another form than it was delivered in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalFile {
    /// Its name without a directory, at most [`FILE_NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// SHA-256 of its bytes, as `Hash` for its text form.
    pub sha256: Hash,
    /// Its length in bytes.
    pub length: u64,
}

/// What a pack is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`PACK_FORMAT`].
    pub format: u16,
    /// The image that the chunks make.
    pub image: ImageId,
    /// Where it came from.
    pub original: OriginalFile,
    /// The chunks in order; offsets follow from the lengths, so that nothing can overlap.
    pub chunks: Vec<ChunkEntry>,
}

/// Why a manifest is not accepted.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ManifestError {
    /// Too long, cut, or not a manifest.
    #[error("the manifest cannot be read: {0}")]
    Codec(#[from] codec::CodecError),
    /// A format of a later version.
    #[error("the manifest has format {found}; this version reads format {PACK_FORMAT}; update Branchline")]
    Format {
        /// Format found.
        found: u16,
    },
    /// No chunk, or too many.
    #[error("the manifest has {found} chunks; 1 to {MANIFEST_CHUNKS_MAX} are allowed")]
    ChunkCount {
        /// Chunks found.
        found: usize,
    },
    /// A chunk or frame that is empty or too long.
    #[error("chunk {index} has {raw} raw and {frame} frame bytes; both must be at least 1 and within their bounds")]
    ChunkLength {
        /// Which chunk.
        index: usize,
        /// Raw bytes.
        raw: u32,
        /// Frame bytes.
        frame: u32,
    },
    /// The image's name does not follow from the chunks.
    #[error("the manifest names image {named}, but its chunks make image {computed}")]
    Image {
        /// As named.
        named: ImageId,
        /// As computed.
        computed: ImageId,
    },
    /// A name that could lead out of a directory, or no name.
    #[error("the original file's name {name:?} is empty, too long, or holds a slash or a control character")]
    FileName {
        /// The name, shortened.
        name: String,
    },
    /// Not the manifest that was asked for.
    #[error("this is the manifest of pack {found}, not of {wanted}")]
    OtherPack {
        /// What came.
        found: PackId,
        /// What was asked for.
        wanted: PackId,
    },
}

impl From<ManifestError> for Refusal {
    fn from(error: ManifestError) -> Self {
        Refusal::new(RefusalKind::Malformed, error.to_string())
    }
}

impl Manifest {
    /// The image that `chunks` make: BLAKE3 over format, chunk hashes and lengths.
    pub fn image_of(chunks: &[ChunkEntry]) -> ImageId {
        let mut bytes = Vec::with_capacity(2 + chunks.len() * 36);
        bytes.extend(PACK_FORMAT.to_le_bytes());
        for chunk in chunks {
            bytes.extend(chunk.raw_hash.0);
            bytes.extend(chunk.raw_length.to_le_bytes());
        }
        ImageId(Hash::in_domain("branchline image 1", &bytes))
    }

    /// Checks every rule that the type does not show.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.format != PACK_FORMAT {
            return Err(ManifestError::Format { found: self.format });
        }
        if !(1..=MANIFEST_CHUNKS_MAX).contains(&self.chunks.len()) {
            return Err(ManifestError::ChunkCount { found: self.chunks.len() });
        }
        for (index, chunk) in self.chunks.iter().enumerate() {
            let (raw, frame) = (chunk.raw_length, chunk.frame_length);
            let raw_fits = (1..=CHUNK_BYTES_MAX).contains(&(raw as usize));
            if !raw_fits || !(1..=FRAME_BYTES_MAX).contains(&(frame as usize)) {
                return Err(ManifestError::ChunkLength { index, raw, frame });
            }
        }
        let computed = Self::image_of(&self.chunks);
        if computed != self.image {
            return Err(ManifestError::Image { named: self.image, computed });
        }
        self.original.check()
    }

    /// The encoded form, whose hash is the pack's name.
    ///
    /// # Errors
    /// Too long; a manifest that passes [`Manifest::check`] never is.
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        Ok(codec::encode(self, MANIFEST_BYTES_MAX)?)
    }

    /// The name of the pack whose manifest is encoded in `bytes`.
    pub fn pack_id(bytes: &[u8]) -> PackId {
        PackId(Hash::in_domain("branchline pack 1", bytes))
    }

    /// Length of the image in bytes.
    pub fn raw_length(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.raw_length)).sum()
    }

    /// Length of the pack in bytes: P of R70.
    pub fn pack_length(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.frame_length)).sum()
    }
}

impl OriginalFile {
    fn check(&self) -> Result<(), ManifestError> {
        let name = &self.name;
        let bad = name.is_empty()
            || name.len() > FILE_NAME_BYTES_MAX
            || name == "."
            || name == ".."
            || name.chars().any(|c| c == '/' || c.is_control());
        if bad { Err(ManifestError::FileName { name: name.chars().take(80).collect() }) } else { Ok(()) }
    }
}

/// A checked manifest with its name and the offsets that follow from it. The only way to one is through the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    id: PackId,
    manifest: Manifest,
    /// Offset of each frame in the pack, and the pack's length at the end.
    frame_offsets: Vec<u64>,
}

impl Pack {
    /// Checks a manifest.
    ///
    /// # Errors
    /// As [`Manifest::check`].
    pub fn new(manifest: Manifest) -> Result<Self, ManifestError> {
        manifest.check()?;
        let id = Manifest::pack_id(&manifest.encode()?);
        let mut end = 0;
        let mut frame_offsets = vec![0];
        for chunk in &manifest.chunks {
            end += u64::from(chunk.frame_length);
            frame_offsets.push(end);
        }
        Ok(Self { id, manifest, frame_offsets })
    }

    /// Reads and checks an encoded manifest.
    ///
    /// # Errors
    /// Unreadable, or a broken rule.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        Self::new(codec::decode(bytes, MANIFEST_BYTES_MAX)?)
    }

    /// Reads and checks the encoded manifest of the pack `wanted`.
    ///
    /// # Errors
    /// As [`Pack::decode`], or another pack's manifest.
    pub fn decode_as(wanted: PackId, bytes: &[u8]) -> Result<Self, ManifestError> {
        let found = Manifest::pack_id(bytes);
        if found != wanted {
            return Err(ManifestError::OtherPack { found, wanted });
        }
        Self::decode(bytes)
    }

    /// The pack's name.
    pub fn id(&self) -> PackId {
        self.id
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Number of frames, 1 to [`MANIFEST_CHUNKS_MAX`].
    pub fn frames(&self) -> u32 {
        self.manifest.chunks.len() as u32
    }

    /// The entry of one frame, if there is such a frame.
    #[inline]
    pub fn chunk(&self, index: u32) -> Option<&ChunkEntry> {
        self.manifest.chunks.get(index as usize)
    }

    /// Where one frame begins in the pack, in bytes, if there is such a frame.
    pub fn frame_offset(&self, index: u32) -> Option<u64> {
        self.chunk(index).map(|_| self.frame_offsets[index as usize])
    }

    /// Bytes of one frame; 0 if there is no such frame.
    #[inline]
    pub fn frame_length(&self, index: u32) -> u64 {
        self.chunk(index).map_or(0, |chunk| u64::from(chunk.frame_length))
    }

    /// Length of the pack in bytes.
    pub fn length(&self) -> u64 {
        *self.frame_offsets.last().unwrap_or(&0)
    }
}
