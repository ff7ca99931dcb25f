//! Join tokens: how a machine that is no member yet knows whom it speaks to, and is let in (R50a).
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::signed::{Document, PublicKey, Signed};
use crate::{
    ids::{Hash, NodeId, SiteName},
    limits::{DOCUMENT_BYTES_MAX, TOKEN_TEXT_BYTES_MAX},
    time::UnixSeconds,
};

/// Signed by the station. Its text form is `branchline1.` and base58.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// The site.
    pub site: SiteName,
    /// Hash of the key that must have signed the charter.
    pub root: Hash,
    /// The station, which signed the token.
    pub station: NodeId,
    /// The station's public door.
    pub door: SocketAddr,
    /// SHA-256 of the door's certificate.
    pub door_fingerprint: Hash,
    /// 128 random bits that name the token.
    pub identifier: [u8; 16],
    /// How many machines may join with it.
    pub uses: u32,
    /// From when on it is refused.
    pub expires_at: UnixSeconds,
}

impl Document for JoinToken {
    const CONTEXT: &'static str = "branchline join token 1";
    const BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
    const NAME: &'static str = "join token";
}

/// Why a text is not a token.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// Not in the text form.
    #[error(
        "this is not a join token: it must begin with \"branchline1.\"; copy the whole line that `branchline token` printed"
    )]
    Form,
    /// Cut or mistyped.
    #[error("the join token is damaged ({reason}); copy the whole line that `branchline token` printed")]
    Damaged {
        /// What does not fit.
        reason: String,
    },
}

const TEXT_PREFIX: &str = "branchline1.";

impl Signed<JoinToken> {
    /// The token as one word that can be copied.
    pub fn to_text(&self) -> String {
        let json = serde_json::to_vec(self).expect("a signed document serializes to JSON");
        format!("{TEXT_PREFIX}{}", bs58::encode(json).with_check().into_string())
    }

    /// Reads the text form and checks that the station that it names signed it.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn from_text(text: &str) -> Result<(Self, JoinToken), TokenError> {
        let damaged = |reason: String| TokenError::Damaged { reason };
        let encoded = text.trim().strip_prefix(TEXT_PREFIX).ok_or(TokenError::Form)?;
        if encoded.len() > TOKEN_TEXT_BYTES_MAX {
            return Err(damaged(format!("{} characters, at most {TOKEN_TEXT_BYTES_MAX}", encoded.len())));
        }
        let json = bs58::decode(encoded).with_check(None).into_vec().map_err(|error| damaged(error.to_string()))?;
        let signed: Self = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        let token = signed.verify(signed.signer()).map_err(|error| damaged(error.to_string()))?;
        if PublicKey(token.station) != signed.signer() {
            return Err(damaged("it is not signed by the station that it names".to_owned()));
        }
        Ok((signed, token))
    }
}

/// What a machine posts at the public door to become a member. Signed by the machine's own node key, which proves that
/// it holds the identity that it asks a membership for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginRequest {
    /// The token in its text form.
    pub token: String,
    /// The identity that asks.
    pub node: NodeId,
    /// The machine's identifier.
    pub machine_identifier: String,
    /// The machine's host name, for people.
    pub host_name: String,
}

impl Document for BeginRequest {
    const CONTEXT: &'static str = "branchline begin request 1";
    const BYTES_MAX: usize = 16 << 10;
    const NAME: &'static str = "begin request";
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    fn token() -> Signed<JoinToken> {
        let key = SigningKey::from_bytes(&[3; 32]);
        let token = JoinToken {
            site: "store-17".parse().unwrap(),
            root: Hash::of(b"root"),
            station: PublicKey::of(&key).0,
            door: "10.1.0.2:7443".parse().unwrap(),
            door_fingerprint: Hash::of(b"certificate"),
            identifier: [9; 16],
            uses: 5,
            expires_at: UnixSeconds(1_800_000_000),
        };
        Signed::sign(&token, &key)
    }

    #[test]
    fn a_token_survives_its_text_and_no_mistyped_character_does() {
        let text = token().to_text();
        assert_eq!(Signed::<JoinToken>::from_text(&format!(" {text}\n")).unwrap().0, token());
        assert_eq!(Signed::<JoinToken>::from_text("hello").unwrap_err(), TokenError::Form);
        for at in TEXT_PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(Signed::<JoinToken>::from_text(&changed).is_err(), "position {at}");
        }
    }

    #[test]
    fn a_token_by_another_than_its_station_is_refused() {
        let thief = SigningKey::from_bytes(&[4; 32]);
        let (_, inner) = Signed::<JoinToken>::from_text(&token().to_text()).unwrap();
        let forged = Signed::sign(&inner, &thief).to_text();
        assert!(matches!(Signed::<JoinToken>::from_text(&forged), Err(TokenError::Damaged { .. })));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = Signed::<JoinToken>::from_text(&text);
            let _ = Signed::<JoinToken>::from_text(&format!("{TEXT_PREFIX}{text}"));
        }
    }
}
