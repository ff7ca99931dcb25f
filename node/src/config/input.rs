//! Files that a command is given: what is wrong with one, said before anything else is begun.
use std::{fs::File, io, path::Path};

use anyhow::{Context, Result, bail};

/// Opens a file that `what` names, as in `the payload`.
///
/// # Errors
/// It is missing, a directory, a device or a pipe, empty, or may not be read; the message says what to give instead.
pub fn open_input(what: &str, path: &Path) -> Result<File> {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{what} {shown} is not there; check the path, which is taken from the directory of the command")
        }
        metadata => metadata.with_context(|| format!("looking at {what} {shown}"))?,
    };
    if metadata.is_dir() {
        bail!(
            "{what} {shown} is a directory; name one file, or make one of the directory (tar -cf payload.tar {shown})"
        );
    }
    if !metadata.is_file() {
        bail!("{what} {shown} is a device, a pipe or a socket; name a regular file");
    }
    if metadata.len() == 0 {
        bail!("{what} {shown} is empty: there is nothing to install; was it copied whole?");
    }
    File::open(path).with_context(|| format!("opening {what} {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_with_content_is_refused_with_what_to_give_instead() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(path("file"), "content").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for (file, words) in [
            (path("missing"), "is not there; check the path"),
            (path(""), "is a directory; name one file"),
            (path("socket"), "name a regular file"),
            (path("empty"), "is empty"),
        ] {
            let error = open_input("the payload", &file).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(&file.display().to_string()), "{error}");
        }
        open_input("the payload", &path("file")).unwrap();
    }
}
