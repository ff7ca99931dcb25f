//! A file as a base or a patch is read: from any place.
use std::{fs::File, io, os::unix::fs::FileExt};

use branchline_protocol::content::patch::ReadAt;

/// A file whose length was asked once.
#[derive(Debug)]
pub struct FileAt {
    file: File,
    length: u64,
}

impl FileAt {
    /// The file as it is now.
    ///
    /// # Errors
    /// Its length cannot be asked.
    pub fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

impl ReadAt for FileAt {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}
