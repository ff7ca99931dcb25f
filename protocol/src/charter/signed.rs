//! A document with a signature over exactly the bytes that were signed.
use std::{fmt, marker::PhantomData, str::FromStr};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    ids::{DocumentHash, Hash, NodeId, ParseIdError},
    refusal::{Refusal, RefusalKind},
};

/// An ed25519 public key that signs documents. A node's own key is such a key too; the text is the node identity's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(pub NodeId);

impl PublicKey {
    /// The public half of `key`.
    pub fn of(key: &SigningKey) -> Self {
        Self(NodeId(key.verifying_key().to_bytes()))
    }

    /// The hash by which a join token names a charter's root (R50a).
    pub fn root_hash(self) -> Hash {
        Hash::in_domain("branchline charter root 1", &self.0.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PublicKey {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.parse().map(Self)
    }
}

/// What can be signed. The context separates the kinds, so that a signature over one never holds for another.
pub trait Document: Serialize + DeserializeOwned {
    /// A constant such as `"branchline charter 1"`.
    const CONTEXT: &'static str;
    /// Longest body in bytes.
    const BYTES_MAX: usize;
    /// What people call it, for error texts: `"charter"`.
    const NAME: &'static str;
}

/// Why a signed document is not accepted.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SignatureError {
    /// The body is longer than the kind allows.
    #[error("the {document} has {length} bytes; at most {limit} are allowed")]
    TooLarge {
        /// The kind.
        document: &'static str,
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Signed by another key than the one that must sign.
    #[error("the {document} is signed by {found}, but {expected} must sign it")]
    WrongSigner {
        /// The kind.
        document: &'static str,
        /// Who signed.
        found: PublicKey,
        /// Who must sign.
        expected: PublicKey,
    },
    /// The signature does not hold over the body.
    #[error("the signature of the {document} does not hold: it was changed after it was signed, or is damaged")]
    Invalid {
        /// The kind.
        document: &'static str,
    },
    /// The signature holds, but the body is not such a document.
    #[error("the {document} is signed, but its body cannot be read: {reason}")]
    Unreadable {
        /// The kind.
        document: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

impl From<SignatureError> for Refusal {
    fn from(error: SignatureError) -> Self {
        let kind = match error {
            SignatureError::TooLarge { .. } => RefusalKind::TooLarge,
            SignatureError::Unreadable { .. } => RefusalKind::Malformed,
            SignatureError::WrongSigner { .. } | SignatureError::Invalid { .. } => RefusalKind::BadSignature,
        };
        Refusal::new(kind, error.to_string())
    }
}

/// A document as it travels and as it is stored: the signed JSON text, who signed, and the signature over
/// `context || 0 || body` (ed25519, RFC 8032).
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T> {
    body: String,
    signer: PublicKey,
    #[serde(with = "signature_bytes")]
    signature: [u8; 64],
    #[serde(skip)]
    kind: PhantomData<fn() -> T>,
}

impl<T: Document> Signed<T> {
    /// Signs `document` with `key`.
    ///
    /// # Panics
    /// Never in practice: every document type serializes to JSON (maps have text keys).
    pub fn sign(document: &T, key: &SigningKey) -> Self {
        let body = serde_json::to_string(document).expect("a document type serializes to JSON");
        let signature = key.sign(&Self::message(&body)).to_bytes();
        Self { body, signer: PublicKey::of(key), signature, kind: PhantomData }
    }

    /// The document, if `expected` signed it and nothing was changed since.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn verify(&self, expected: PublicKey) -> Result<T, SignatureError> {
        let document = T::NAME;
        if self.body.len() > T::BYTES_MAX {
            return Err(SignatureError::TooLarge { document, length: self.body.len(), limit: T::BYTES_MAX });
        }
        if self.signer != expected {
            return Err(SignatureError::WrongSigner { document, found: self.signer, expected });
        }
        let key: VerifyingKey = self.signer.0.verifying_key().ok_or(SignatureError::Invalid { document })?;
        key.verify_strict(&Self::message(&self.body), &Signature::from_bytes(&self.signature))
            .map_err(|_| SignatureError::Invalid { document })?;
        serde_json::from_str(&self.body)
            .map_err(|error| SignatureError::Unreadable { document, reason: error.to_string() })
    }

    /// The document, if any of `expected` signed it.
    ///
    /// # Errors
    /// As [`Signed::verify`]; where none of the keys signed, the first is named.
    pub fn verify_any(&self, expected: &[PublicKey]) -> Result<T, SignatureError> {
        let matching = expected.iter().copied().find(|key| *key == self.signer);
        let fallback = expected.first().copied().unwrap_or(PublicKey(NodeId([0; 32])));
        self.verify(matching.unwrap_or(fallback))
    }

    /// Who claims to have signed; means nothing before [`Signed::verify`].
    pub fn signer(&self) -> PublicKey {
        self.signer
    }

    /// Names the document by its kind and signed body.
    pub fn hash(&self) -> DocumentHash {
        DocumentHash(Hash::in_domain(T::CONTEXT, self.body.as_bytes()))
    }

    fn message(body: &str) -> Vec<u8> {
        [T::CONTEXT.as_bytes(), &[0], body.as_bytes()].concat()
    }
}

impl<T: Document> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed<{}>({:?} by {:?})", T::NAME, self.hash(), self.signer)
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        (&self.body, self.signer, self.signature) == (&other.body, other.signer, other.signature)
    }
}

impl<T> Eq for Signed<T> {}

/// 64 bytes: hexadecimal in texts, a sequence of two halves in the binary format (serde has no 64-byte arrays).
mod signature_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::ids::Hash;

    fn halves(bytes: &[u8; 64]) -> (Hash, Hash) {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        a.copy_from_slice(&bytes[..32]);
        b.copy_from_slice(&bytes[32..]);
        (Hash(a), Hash(b))
    }

    fn whole(a: Hash, b: Hash) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&a.0);
        bytes[32..].copy_from_slice(&b.0);
        bytes
    }

    pub fn serialize<S: Serializer>(bytes: &[u8; 64], serializer: S) -> Result<S::Ok, S::Error> {
        let (a, b) = halves(bytes);
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{a}{b}"))
        } else {
            (a, b).serialize(serializer)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
        if !deserializer.is_human_readable() {
            let (a, b) = Deserialize::deserialize(deserializer)?;
            return Ok(whole(a, b));
        }
        let text = String::deserialize(deserializer)?;
        let (a, b) = text.split_at_checked(64).ok_or_else(|| D::Error::custom("not a signature of 128 digits"))?;
        Ok(whole(a.parse().map_err(D::Error::custom)?, b.parse().map_err(D::Error::custom)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Note {
        text: String,
    }
    impl Document for Note {
        const CONTEXT: &'static str = "test note 1";
        const BYTES_MAX: usize = 100;
        const NAME: &'static str = "note";
    }
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Other {
        text: String,
    }
    impl Document for Other {
        const CONTEXT: &'static str = "test other 1";
        const BYTES_MAX: usize = 100;
        const NAME: &'static str = "other";
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn a_signature_holds_for_its_kind_its_key_and_its_bytes_only() {
        let signed = Signed::sign(&Note { text: "hello".into() }, &key(1));
        assert_eq!(signed.verify(PublicKey::of(&key(1))), Ok(Note { text: "hello".into() }));
        assert!(matches!(signed.verify(PublicKey::of(&key(2))), Err(SignatureError::WrongSigner { .. })));

        let json = serde_json::to_string(&signed).unwrap();
        let changed: Signed<Note> = serde_json::from_str(&json.replace("hello", "hallo")).unwrap();
        assert!(matches!(changed.verify(PublicKey::of(&key(1))), Err(SignatureError::Invalid { .. })));

        let other: Signed<Other> = serde_json::from_str(&json).unwrap();
        assert!(matches!(other.verify(PublicKey::of(&key(1))), Err(SignatureError::Invalid { .. })));

        let forged: Signed<Note> = serde_json::from_str(&json.replace(&key_text(1), &key_text(2))).unwrap();
        assert!(matches!(forged.verify(PublicKey::of(&key(2))), Err(SignatureError::Invalid { .. })));
    }

    fn key_text(seed: u8) -> String {
        PublicKey::of(&key(seed)).to_string()
    }

    #[test]
    fn a_body_over_its_bound_is_refused() {
        let signed = Signed::sign(&Note { text: "x".repeat(200) }, &key(1));
        assert!(matches!(signed.verify(PublicKey::of(&key(1))), Err(SignatureError::TooLarge { .. })));
    }

    #[test]
    fn both_encodings_carry_it() {
        let signed = Signed::sign(&Note { text: "hello".into() }, &key(1));
        let bytes = codec::encode(&signed, 1000).unwrap();
        assert_eq!(codec::decode::<Signed<Note>>(&bytes, 1000).unwrap(), signed);
        let json = serde_json::to_string(&signed).unwrap();
        assert_eq!(serde_json::from_str::<Signed<Note>>(&json).unwrap(), signed);
    }
}
