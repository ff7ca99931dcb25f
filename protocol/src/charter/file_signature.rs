//! Detached signatures over files that everybody can check: OpenSSH's format (PROTOCOL.sshsig), made with ed25519.
//!
//! Whoever fetches a file from the public door has nothing of ours yet that could check it. `ssh-keygen -Y verify` is on
//! most machines, and checks what is written here (R50a).
use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer, SigningKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::signed::PublicKey;
use crate::{
    ids::{Hash, NodeId},
    limits::FILE_SIGNATURE_TEXT_BYTES_MAX,
};

/// What the public door gives away under the owner's signature. A signature over one is none over the other, so that
/// nobody is given a script for a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoorFile {
    /// The install tool: the binary.
    InstallTool,
    /// The survey script.
    SurveyScript,
}

impl DoorFile {
    /// Both.
    pub const ALL: [Self; 2] = [Self::InstallTool, Self::SurveyScript];

    /// What a signature is for, as `ssh-keygen -n` wants it said.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::InstallTool => "branchline-install-tool",
            Self::SurveyScript => "branchline-survey-script",
        }
    }

    /// Its path at the door; the signature's is this one and `.sig`.
    pub fn path(self) -> &'static str {
        match self {
            Self::InstallTool => "/install-tool",
            Self::SurveyScript => "/survey.sh",
        }
    }
}

impl fmt::Display for DoorFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InstallTool => "install tool",
            Self::SurveyScript => "survey script",
        })
    }
}

const MAGIC: &[u8; 6] = b"SSHSIG";
const VERSION: u32 = 1;
const KEY_KIND: &[u8] = b"ssh-ed25519";
const DIGEST: &[u8] = b"sha256";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "-----END SSH SIGNATURE-----\n";
/// As OpenSSH breaks its lines.
const LINE_CHARACTERS: usize = 70;

/// Why a signature over a file is not accepted.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum FileSignatureError {
    /// Not in the form, or for another purpose.
    #[error("this is no signature of a file of the public door: {0}")]
    Form(&'static str),
    /// It does not hold over the file.
    #[error("the signature does not hold: the file is another than the one that was signed")]
    Invalid,
}

/// A signature over a file's SHA-256, and who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSignature {
    kind: DoorFile,
    signer: PublicKey,
    signature: [u8; 64],
}

impl FileSignature {
    /// Signs the file with this SHA-256.
    pub fn sign(kind: DoorFile, sha256: Hash, key: &SigningKey) -> Self {
        Self { kind, signer: PublicKey::of(key), signature: key.sign(&message(kind, sha256)).to_bytes() }
    }

    /// Whose signature it says it is; true only where [`FileSignature::verify`] has said so.
    pub fn signer(&self) -> PublicKey {
        self.signer
    }

    /// Whether the signer signed the file with this SHA-256, as what it is.
    ///
    /// # Errors
    /// It did not.
    pub fn verify(&self, kind: DoorFile, sha256: Hash) -> Result<(), FileSignatureError> {
        if kind != self.kind {
            return Err(FileSignatureError::Form("it was made for another purpose"));
        }
        let key = self.signer.0.verifying_key().ok_or(FileSignatureError::Invalid)?;
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&message(kind, sha256), &signature).map_err(|_| FileSignatureError::Invalid)
    }
}

impl PublicKey {
    /// The key as OpenSSH writes it, for a file of allowed signers.
    pub fn to_openssh(self) -> String {
        format!("ssh-ed25519 {}", STANDARD.encode(encoded_key(self)))
    }
}

impl fmt::Display for FileSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut blob = MAGIC.to_vec();
        blob.extend(VERSION.to_be_bytes());
        let signature = [encoded(KEY_KIND), encoded(&self.signature)].concat();
        let key = encoded_key(self.signer);
        for part in [&key[..], self.kind.namespace().as_bytes(), b"", DIGEST, &signature] {
            blob.extend(encoded(part));
        }
        f.write_str(BEGIN)?;
        let text = STANDARD.encode(blob);
        for line in text.as_bytes().chunks(LINE_CHARACTERS) {
            writeln!(f, "{}", String::from_utf8_lossy(line))?;
        }
        f.write_str(END)
    }
}

impl FromStr for FileSignature {
    type Err = FileSignatureError;

    fn from_str(text: &str) -> Result<Self, FileSignatureError> {
        let form = FileSignatureError::Form;
        if text.len() > FILE_SIGNATURE_TEXT_BYTES_MAX {
            return Err(form("it is too long"));
        }
        let inner = text.strip_prefix(BEGIN).and_then(|text| text.strip_suffix(END));
        let base64: String = inner.ok_or(form("it has no such first and last line"))?.lines().collect();
        let blob = STANDARD.decode(base64).map_err(|_| form("its lines are not base64"))?;
        let rest = blob.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(&VERSION.to_be_bytes()));
        let mut parts = Parts(rest.ok_or(form("it is of another version"))?);
        let mut key = Parts(parts.next()?);
        let namespace = parts.next()?;
        let kind = DoorFile::ALL.into_iter().find(|kind| kind.namespace().as_bytes() == namespace);
        let kind = kind.ok_or(form("it was made for another purpose"))?;
        if !parts.next()?.is_empty() {
            return Err(form("it was made for another purpose"));
        }
        if parts.next()? != DIGEST {
            return Err(form("it is not over a SHA-256"));
        }
        let mut signature = Parts(parts.next()?);
        if key.next()? != KEY_KIND || signature.next()? != KEY_KIND {
            return Err(form("its key is not ed25519"));
        }
        let signer = key.next()?.try_into().map_err(|_| form("its key has not 32 bytes"))?;
        let bytes = signature.next()?.try_into().map_err(|_| form("it has not 64 bytes"))?;
        if [parts, key, signature].iter().any(|parts| !parts.0.is_empty()) {
            return Err(form("something follows it"));
        }
        Ok(Self { kind, signer: PublicKey(NodeId(signer)), signature: bytes })
    }
}

/// What is signed: the digest with its purpose, so that it is good for no other.
fn message(kind: DoorFile, sha256: Hash) -> Vec<u8> {
    let mut message = MAGIC.to_vec();
    for part in [kind.namespace().as_bytes(), b"", DIGEST, &sha256.0] {
        message.extend(encoded(part));
    }
    message
}

/// A string of RFC 4251: its length in four bytes, then its bytes.
fn encoded(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}

/// RFC 8709: the kind, then the 32 bytes of the key.
fn encoded_key(key: PublicKey) -> Vec<u8> {
    [encoded(KEY_KIND), encoded(&key.0.0)].concat()
}

/// The strings of RFC 4251 that a text consists of.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn next(&mut self) -> Result<&'a [u8], FileSignatureError> {
        let cut = FileSignatureError::Form("it is cut off");
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut)?;
        let (part, rest) = rest.split_at_checked(length).ok_or(cut)?;
        self.0 = rest;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOOL: DoorFile = DoorFile::InstallTool;

    fn signature() -> FileSignature {
        FileSignature::sign(TOOL, Hash([7; 32]), &SigningKey::from_bytes(&[3; 32]))
    }

    #[test]
    fn a_signature_holds_for_its_file_and_no_other() {
        let read: FileSignature = signature().to_string().parse().unwrap();
        assert_eq!(read, signature());
        assert_eq!(read.verify(TOOL, Hash([7; 32])), Ok(()));
        assert!(read.verify(DoorFile::SurveyScript, Hash([7; 32])).is_err(), "a tool is no script");
        assert_eq!(read.verify(TOOL, Hash([8; 32])), Err(FileSignatureError::Invalid));
        let of_another = FileSignature { signer: PublicKey::of(&SigningKey::from_bytes(&[4; 32])), ..read };
        assert_eq!(of_another.verify(TOOL, Hash([7; 32])), Err(FileSignatureError::Invalid));
    }

    #[test]
    fn another_purpose_is_no_signature_of_ours() {
        let text = signature().to_string();
        let blob = STANDARD.decode(text[BEGIN.len()..text.len() - END.len()].replace('\n', "")).unwrap();
        let at = blob.windows(10).position(|window| window == b"branchline").unwrap();
        let mut other = blob.clone();
        other[at] = b'B';
        let armoured = |blob: &[u8]| format!("{BEGIN}{}\n{END}", STANDARD.encode(blob));
        assert_eq!(armoured(&blob).parse(), Ok(signature()), "lines may be of any length");
        let refused = |blob: &[u8]| armoured(blob).parse::<FileSignature>().unwrap_err().to_string();
        assert!(refused(&other).ends_with("it was made for another purpose"));
        assert!(refused(&[&blob[..], b"x"].concat()).ends_with("something follows it"));
        assert!(refused(&blob[..blob.len() - 1]).ends_with("it is cut off"));
    }

    proptest! {
        #[test]
        fn no_change_goes_unseen(at in 0_usize..1000, to in any::<u8>()) {
            let mut text = signature().to_string().into_bytes();
            let at = at % text.len();
            prop_assume!(text[at] != to);
            text[at] = to;
            let Ok(text) = String::from_utf8(text) else { return Ok(()) };
            // Where a line ends says nothing; whatever else is changed makes it another signature, or none.
            prop_assert!(text.parse::<FileSignature>().map_or(true, |read| read == signature() || read.verify(TOOL, Hash([7; 32])).is_err()));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".*", blob in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = text.parse::<FileSignature>();
            let _ = format!("{BEGIN}{}\n{END}", STANDARD.encode(blob)).parse::<FileSignature>();
        }
    }
}
