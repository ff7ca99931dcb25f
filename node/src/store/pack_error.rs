//! Why the pack store could not do something.
use std::{
    io,
    path::{Path, PathBuf},
};

use branchline_protocol::{
    content::{FrameError, ManifestError, PackError},
    ids::PackId,
};
use thiserror::Error;

/// Why the store could not do something. Concerns one pack only.
#[derive(Debug, Error)]
pub enum PackStoreError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; the pack waits and is tried again", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said, such as "No space left on device".
        source: io::Error,
    },
    /// The frame is not what the manifest says. Nothing was written.
    #[error(transparent)]
    Corrupt(FrameError),
    /// What was written is no longer what it was; the frame counts as missing from now on.
    #[error("frame {index} in {} is damaged ({source}); it will be fetched again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The frame.
        index: u32,
        /// What is wrong.
        source: FrameError,
    },
    /// Not in the store.
    #[error("frame {index} of pack {pack} is not in the store")]
    Missing {
        /// The pack.
        pack: PackId,
        /// The frame.
        index: u32,
    },
    /// Not in the store.
    #[error("pack {0} is not in the store")]
    Unknown(PackId),
    /// A payload could not be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A manifest in the store is not usable.
    #[error("{} is not usable: {source}; remove the file, and the pack is fetched again", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// The image could not be assembled.
    #[error("cannot assemble the image of pack {pack}: {source}")]
    Assemble {
        /// The pack.
        pack: PackId,
        /// What is wrong.
        source: FrameError,
    },
}

pub(super) fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PackStoreError + 'a {
    move |source| PackStoreError::Io { action, path: path.to_owned(), source }
}
