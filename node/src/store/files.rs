//! The file operations of the pack store, so that tests can put a disk of their own under it: one that loses power,
//! tears writes, is full or fails.
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate};

/// A file of fixed length that is written in pieces.
pub trait DataFile: Send + Sync + fmt::Debug {
    /// Fills `bytes` from `offset` on.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`. A crash may lose any of it, in any order, until `sync_data` has returned.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes content and length durable. After an error what was written since the last success counts as lost, even
    /// where it can be read: the system may have thrown it out of its queue.
    fn sync_data(&self) -> io::Result<()>;
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Takes room for `length` bytes, or fails before anything is taken where the disk has not as much.
    fn allocate(&self, length: u64) -> io::Result<()>;
}

/// A file system, as far as the store needs one.
pub trait Files: Send + Sync + fmt::Debug {
    /// Makes a directory and those above it, where they are missing.
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// The files in a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    /// Opens a file for reading and writing, and makes it where it is missing; `truncate`: without its content.
    fn open(&self, path: &Path, truncate: bool) -> io::Result<Box<dyn DataFile>>;
    /// The content of a small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Gives a file another name, in place of whatever has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes names durable: what was made, renamed and removed in the directory.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// Writes a small file so that either the old or the new one exists after a crash.
pub fn write_atomically(files: &dyn Files, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // The manifest and the kept frames of one pack differ in their extension only: it stays in the new name.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let file = files.open(new, true)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    files.rename(new, path)?;
    files.sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// The operating system's files.
#[derive(Clone, Copy, Debug)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn open(&self, path: &Path, truncate: bool) -> io::Result<Box<dyn DataFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).create(true).truncate(truncate).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl DataFile for File {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    /// Room is asked for first, because an allocation that fails has by then taken what was left from everybody else.
    fn allocate(&self, length: u64) -> io::Result<()> {
        let taken = self.metadata()?.blocks().saturating_mul(512);
        let room = rustix::fs::fstatvfs(self)?;
        if length.saturating_sub(taken) > room.f_bavail.saturating_mul(room.f_frsize) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        match fallocate(self, FallocateFlags::empty(), 0, length) {
            Err(rustix::io::Errno::OPNOTSUPP) => self.set_len(length),
            result => Ok(result?),
        }
    }
}
