//! One plain script from its parts: prelude, machine, signatures in the order of their file names, installation, postlude.
//!
//! A signature is a file `NN-some-name.sh` with a function `signature_some_name MODE` that prints the lines described in `prelude.sh`.
//! Dropping such a file into a directory adds it (R43). The script states its version and the BLAKE3 hash of its body (R41).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use branchline_protocol::limits;
use thiserror::Error;

const PRELUDE: &str = include_str!("prelude.sh");
const MACHINE: &str = include_str!("machine.sh");
const INSTALLATION: &str = include_str!("installation.sh");
const POSTLUDE: &str = include_str!("postlude.sh");

/// The four signatures that every survey runs (R43), by file name.
const REQUIRED_SIGNATURES: [(&str, &str); 4] = [
    ("10-system-type.sh", include_str!("signatures/10-system-type.sh")),
    ("20-network-storage.sh", include_str!("signatures/20-network-storage.sh")),
    ("30-cluster.sh", include_str!("signatures/30-cluster.sh")),
    ("40-high-availability.sh", include_str!("signatures/40-high-availability.sh")),
];

/// The four signatures that every script has: file name and shell text (R43).
pub fn required_signatures() -> [(&'static str, &'static str); 4] {
    REQUIRED_SIGNATURES
}

/// The line that ends the header; the hash covers every byte after it.
const BODY_MARKER: &str = "# ---- body: the hash above covers every byte after this line ----\n";

/// Most bytes of one signature file; the longest of ours has a tenth of it.
const MAX_SIGNATURE_FILE_BYTES: u64 = 64 * 1024;

/// One signature file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureFile {
    /// File name: two digits for the order, a name, `.sh`.
    pub file_name: String,
    /// Its shell text.
    pub text: String,
}

/// An assembled survey script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The whole text, ready to be run by any POSIX shell.
    pub text: String,
    /// BLAKE3 of the body, as the header states it.
    pub hash: blake3::Hash,
    /// Names of the signatures, in the order in which they run.
    pub signatures: Vec<String>,
}

/// Why no script could be assembled.
#[derive(Debug, Error)]
pub enum AssembleError {
    /// The directory or a file in it cannot be read.
    #[error("cannot read {path}; check that it is there and readable")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not a signature.
    #[error("{file_name} is not a signature: {problem}")]
    NotASignature {
        /// Name of the file.
        file_name: String,
        /// What is wrong with it, and how it should be.
        problem: String,
    },
    /// Two files define one signature.
    #[error("the signature {name} is there twice; rename or remove {file_name}")]
    Twice {
        /// Name of the signature.
        name: String,
        /// The later file.
        file_name: String,
    },
    /// More signatures than a descriptor can hold.
    #[error("{count} signatures are more than the {limit} that a descriptor holds")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
}

/// Reads every `*.sh` of a directory as a signature, in the order of the names (R43).
///
/// # Errors
/// [`AssembleError::Read`], and [`AssembleError::NotASignature`] for a file that is too long or not text.
pub fn read_signature_directory(directory: &Path) -> Result<Vec<SignatureFile>, AssembleError> {
    let read_error = |path: &Path| {
        let path = path.to_owned();
        move |source| AssembleError::Read { path, source }
    };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(read_error(directory))? {
        let path = entry.map_err(read_error(directory))?.path();
        let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !file_name.ends_with(".sh") {
            continue;
        }
        let not_a_signature =
            |problem: String| AssembleError::NotASignature { file_name: file_name.to_owned(), problem };
        let metadata = fs::metadata(&path).map_err(read_error(&path))?;
        if !metadata.is_file() || metadata.len() > MAX_SIGNATURE_FILE_BYTES {
            return Err(not_a_signature(format!("it must be a file of at most {MAX_SIGNATURE_FILE_BYTES} bytes")));
        }
        let bytes = fs::read(&path).map_err(read_error(&path))?;
        let text = String::from_utf8(bytes).map_err(|_| not_a_signature("it must be UTF-8 text".into()))?;
        files.insert(file_name.to_owned(), text);
    }
    Ok(files.into_iter().map(|(file_name, text)| SignatureFile { file_name, text }).collect())
}

/// Assembles the script from the required signatures and further ones.
///
/// # Errors
/// A further file whose name or content is not that of a signature, a signature that is there twice, or too many of them.
pub fn assemble(further: &[SignatureFile]) -> Result<Script, AssembleError> {
    let required =
        REQUIRED_SIGNATURES.map(|(file_name, text)| SignatureFile { file_name: file_name.into(), text: text.into() });
    let mut files: Vec<&SignatureFile> = required.iter().chain(further).collect();
    files.sort_by(|left, right| left.file_name.cmp(&right.file_name));
    if files.len() > limits::SURVEY_SIGNATURES_MAX {
        return Err(AssembleError::TooMany { count: files.len(), limit: limits::SURVEY_SIGNATURES_MAX });
    }
    let mut names: Vec<String> = Vec::new();
    for file in &files {
        let name = signature_name(file)?;
        if names.contains(&name) {
            return Err(AssembleError::Twice { name, file_name: file.file_name.clone() });
        }
        names.push(name);
    }
    let body = body(&files, &names);
    let hash = blake3::hash(body.as_bytes());
    Ok(Script { text: format!("{}{body}", header(hash, &names)), hash, signatures: names })
}

fn header(hash: blake3::Hash, names: &[String]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "#!/bin/sh\n\
         # Branchline survey, version {version}: looks at this machine and describes it in XML. Read it before you run it.\n\
         # Signatures: {}.\n\
         # It needs no root, installs nothing, sends nothing, and writes only what -o names. See --help.\n\
         # To check this copy: sed '1,/^# ---- body/d' THIS_FILE | b3sum\n\
         # BLAKE3 of the body: {hash}\n\
         survey_version='{version}'\n\
         survey_hash='{hash}'\n\
         {BODY_MARKER}",
        names.join(", "),
    )
}

fn body(files: &[&SignatureFile], names: &[String]) -> String {
    let mut body = String::new();
    let signatures = files.iter().map(|file| file.text.as_str());
    for part in [PRELUDE, MACHINE].into_iter().chain(signatures).chain([INSTALLATION]) {
        push_part(&mut body, part);
    }
    body.push_str("# Every signature, in order; each looks in the mode that it is told (R44).\nrun_signatures() {\n");
    for name in names {
        body.push_str(&format!("    {} \"$mode\" | end_signature {name}\n", function_name(name)));
    }
    body.push_str("}\n\n");
    push_part(&mut body, POSTLUDE);
    body
}

/// Adds a part without its own directive for the checker, which may stand only once.
fn push_part(body: &mut String, part: &str) {
    let part = part.strip_prefix("#!/bin/sh\n").unwrap_or(part);
    let part = part.strip_prefix("# shellcheck shell=sh\n").unwrap_or(part);
    body.push_str(part.trim_end());
    body.push_str("\n\n");
}

fn function_name(name: &str) -> String {
    format!("signature_{}", name.replace('-', "_"))
}

/// The name in `NN-some-name.sh`, if the file defines the function that goes with it.
fn signature_name(file: &SignatureFile) -> Result<String, AssembleError> {
    let not_a_signature = |problem: String| AssembleError::NotASignature { file_name: file.file_name.clone(), problem };
    let stem = file.file_name.strip_suffix(".sh").unwrap_or_default();
    let name = match stem.as_bytes() {
        [b'0'..=b'9', b'0'..=b'9', b'-', b'a'..=b'z', rest @ ..]
            if stem.len() <= limits::SURVEY_IDENTIFIER_CHARACTERS_MAX
                && rest.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) =>
        {
            &stem[3..]
        }
        _ => return Err(not_a_signature("its name must look like 50-some-name.sh".into())),
    };
    let definition = format!("{}()", function_name(name));
    if !file.text.lines().any(|line| line.starts_with(&definition)) {
        return Err(not_a_signature(format!("it must define the function {definition}")));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn signature(file_name: &str, text: &str) -> SignatureFile {
        SignatureFile { file_name: file_name.into(), text: text.into() }
    }

    #[test]
    fn the_header_states_the_hash_of_the_body() {
        let script = assemble(&[]).unwrap();
        let (header, body) = script.text.split_once(BODY_MARKER).unwrap();
        assert_eq!(blake3::hash(body.as_bytes()), script.hash);
        assert!(header.contains(&script.hash.to_string()));
        assert_eq!(script.signatures, ["system-type", "network-storage", "cluster", "high-availability"]);
    }

    #[test]
    fn a_dropped_file_is_one_more_signature() {
        let extra = signature("25-graphics.sh", "signature_graphics() {\n    :\n}\n");
        let script = assemble(std::slice::from_ref(&extra)).unwrap();
        assert_eq!(script.signatures[2], "graphics");
        assert!(script.text.contains("signature_graphics \"$mode\" | end_signature graphics\n"));
        assert_ne!(script.hash, assemble(&[]).unwrap().hash);
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for (file_name, text) in [
            ("graphics.sh", "signature_graphics() { :; }"),
            ("50-Graphics.sh", "signature_Graphics() { :; }"),
            ("50-graphics;reboot.sh", "signature_graphics() { :; }"),
            ("50-graphics.sh", "other() { :; }"),
        ] {
            let error = assemble(&[signature(file_name, text)]).unwrap_err();
            assert!(matches!(error, AssembleError::NotASignature { .. }), "{file_name}: {error}");
        }
        let twice = signature("90-cluster.sh", "signature_cluster() { :; }");
        assert!(matches!(assemble(&[twice]), Err(AssembleError::Twice { .. })));
    }
}
