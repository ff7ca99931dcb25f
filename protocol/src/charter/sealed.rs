//! Sealing: bytes that only named nodes can open, stored and passed on by others (R49).
use crypto_box::{
    ChaChaBox, PublicKey as BoxPublicKey, SecretKey as BoxSecretKey,
    aead::{Aead, generic_array::GenericArray},
};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{Hash, NodeId, SurveyHash};

/// Why sealing or opening failed.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// A recipient's identity is no point of the curve.
    #[error("{0} is not a usable node identity; nothing can be sealed to it")]
    BadRecipient(NodeId),
    /// There is nobody to seal to.
    #[error("there is no recipient to seal to")]
    NoRecipient,
    /// The opener is not among the recipients.
    #[error("it is not sealed to {0}")]
    NotSealedTo(NodeId),
    /// The bytes were changed or cut.
    #[error("the sealed bytes are damaged")]
    Damaged,
}

/// A content key sealed to one recipient: X25519 of an ephemeral key and the recipient's node key (ed25519 to
/// Montgomery form, as in libsodium), XChaCha20-Poly1305.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WrappedKey {
    recipient: NodeId,
    ephemeral: [u8; 32],
    wrapped: Vec<u8>,
}

/// Bytes sealed to some nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    keys: Vec<WrappedKey>,
    body: Vec<u8>,
}

/// The nonce is constant because every key, ephemeral or content, encrypts exactly one message.
const NONCE: [u8; 24] = *b"branchline sealed bytes1";

impl Sealed {
    /// Seals `plain` to `recipients`. `entropy` must be 32 fresh random bytes: all keys derive from it.
    ///
    /// # Errors
    /// No recipient, or an identity that is no key.
    pub fn seal(plain: &[u8], recipients: &[NodeId], entropy: &[u8; 32]) -> Result<Self, SealError> {
        if recipients.is_empty() {
            return Err(SealError::NoRecipient);
        }
        let content = BoxSecretKey::from_bytes(Hash::in_domain("branchline seal content 1", entropy).0);
        let body = own_box(&content).encrypt(GenericArray::from_slice(&NONCE), plain);
        let body = body.map_err(|_| SealError::Damaged)?;
        let keys = recipients.iter().map(|recipient| wrap(&content, *recipient, entropy)).collect::<Result<_, _>>()?;
        Ok(Self { keys, body })
    }

    /// Opens with the node key of one recipient.
    ///
    /// # Errors
    /// Not sealed to that node, or damaged.
    pub fn open(&self, key: &SigningKey) -> Result<Vec<u8>, SealError> {
        let own = NodeId(key.verifying_key().to_bytes());
        let wrapped = self.keys.iter().find(|k| k.recipient == own).ok_or(SealError::NotSealedTo(own))?;
        let secret = BoxSecretKey::from_bytes(key.to_scalar_bytes());
        let boxed = ChaChaBox::new(&BoxPublicKey::from(wrapped.ephemeral), &secret);
        let content = boxed
            .decrypt(GenericArray::from_slice(&NONCE), wrapped.wrapped.as_slice())
            .map_err(|_| SealError::Damaged)?;
        let content: [u8; 32] = content.try_into().map_err(|_| SealError::Damaged)?;
        own_box(&BoxSecretKey::from_bytes(content))
            .decrypt(GenericArray::from_slice(&NONCE), self.body.as_slice())
            .map_err(|_| SealError::Damaged)
    }

    /// Names sealed bytes by the hash of their encoded form.
    pub fn hash_of(encoded: &[u8]) -> SurveyHash {
        SurveyHash(Hash::in_domain("branchline sealed survey 1", encoded))
    }
}

fn own_box(content: &BoxSecretKey) -> ChaChaBox {
    ChaChaBox::new(&content.public_key(), content)
}

fn wrap(content: &BoxSecretKey, recipient: NodeId, entropy: &[u8; 32]) -> Result<WrappedKey, SealError> {
    let point = recipient.verifying_key().ok_or(SealError::BadRecipient(recipient))?.to_montgomery();
    let seed = [entropy.as_slice(), &recipient.0].concat();
    let ephemeral = BoxSecretKey::from_bytes(Hash::in_domain("branchline seal ephemeral 1", &seed).0);
    let wrapped = ChaChaBox::new(&BoxPublicKey::from(point.to_bytes()), &ephemeral)
        .encrypt(GenericArray::from_slice(&NONCE), content.to_bytes().as_slice())
        .map_err(|_| SealError::Damaged)?;
    Ok(WrappedKey { recipient, ephemeral: ephemeral.public_key().to_bytes(), wrapped })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }
    fn node(seed: u8) -> NodeId {
        NodeId(key(seed).verifying_key().to_bytes())
    }

    #[test]
    fn recipients_open_and_nobody_else_does() {
        let sealed = Sealed::seal(b"a survey", &[node(1), node(2)], &[7; 32]).unwrap();
        assert_eq!(sealed.open(&key(1)).unwrap(), b"a survey");
        assert_eq!(sealed.open(&key(2)).unwrap(), b"a survey");
        assert_eq!(sealed.open(&key(3)), Err(SealError::NotSealedTo(node(3))));
        assert_eq!(Sealed::seal(b"", &[], &[7; 32]), Err(SealError::NoRecipient));
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        let sealed = Sealed::seal(b"a survey", &[node(1)], &[7; 32]).unwrap();
        let mut body = sealed.clone();
        body.body[3] ^= 1;
        assert_eq!(body.open(&key(1)), Err(SealError::Damaged));
        let mut wrapped = sealed;
        wrapped.keys[0].wrapped[0] ^= 1;
        assert_eq!(wrapped.open(&key(1)), Err(SealError::Damaged));
    }
}
