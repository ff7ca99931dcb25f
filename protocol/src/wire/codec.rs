//! Encoding with a bound on both sides.
use serde::{Serialize, de::DeserializeOwned};
use serde_wincode::SerdeCompat;
use thiserror::Error;
use wincode::{SchemaRead, config::DefaultConfig};

use crate::refusal::{Refusal, RefusalKind};

/// Why a message could not be written or read.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CodecError {
    /// Longer than its bound.
    #[error("the message has {length} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not such a message.
    #[error("the message cannot be read: {0}")]
    Malformed(String),
}

impl From<CodecError> for Refusal {
    fn from(error: CodecError) -> Self {
        let kind = match error {
            CodecError::TooLarge { .. } => RefusalKind::TooLarge,
            CodecError::Malformed(_) => RefusalKind::Malformed,
        };
        Refusal::new(kind, error.to_string())
    }
}

fn check_length(length: usize, limit: usize) -> Result<(), CodecError> {
    if length > limit { Err(CodecError::TooLarge { length, limit }) } else { Ok(()) }
}

/// Writes `message` in at most `limit` bytes.
///
/// # Errors
/// Too long, or a type that the format cannot carry.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, CodecError> {
    let bytes = <SerdeCompat<T> as wincode::Serialize>::serialize(message)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    check_length(bytes.len(), limit)?;
    Ok(bytes)
}

/// Reads one message of at most `limit` bytes that fills `bytes` exactly.
///
/// # Errors
/// Too long, cut, with bytes left over, or not such a message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, CodecError> {
    check_length(bytes.len(), limit)?;
    let mut rest = bytes;
    let message = <SerdeCompat<T> as SchemaRead<'_, DefaultConfig>>::get(&mut rest)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    match rest.len() {
        0 => Ok(message),
        left => Err(CodecError::Malformed(format!("{left} bytes are left over"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Sample {
        Unit,
        Pair(u32, String),
        Named { bytes: Vec<u8>, maybe: Option<i64>, list: Vec<(u16, bool)> },
    }

    fn sample() -> impl Strategy<Value = Sample> {
        prop_oneof![
            Just(Sample::Unit),
            (any::<u32>(), ".*").prop_map(|(a, b)| Sample::Pair(a, b)),
            (any::<Vec<u8>>(), any::<Option<i64>>(), any::<Vec<(u16, bool)>>())
                .prop_map(|(bytes, maybe, list)| Sample::Named { bytes, maybe, list }),
        ]
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_bincode(sample in sample()) {
            let ours = encode(&sample, 1 << 20).unwrap();
            let theirs = bincode::serde::encode_to_vec(&sample, bincode::config::legacy()).unwrap();
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(decode::<Sample>(&ours, 1 << 20).unwrap(), sample);
        }

        #[test]
        fn arbitrary_bytes_never_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode::<Sample>(&bytes, 1 << 20);
        }

        #[test]
        fn a_cut_or_lengthened_message_is_refused(sample in sample(), extra in 1usize..9) {
            let bytes = encode(&sample, 1 << 20).unwrap();
            let mut longer = bytes.clone();
            longer.extend(vec![0; extra]);
            prop_assert!(decode::<Sample>(&longer, 1 << 20).is_err());
            prop_assert!(decode::<Sample>(&bytes[..bytes.len() - 1], 1 << 20).is_err());
        }
    }

    #[test]
    fn a_hostile_length_is_an_error_not_an_allocation() {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(matches!(decode::<Sample>(&bytes, 1 << 20), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<Sample>(&[0; 100], 99), Err(CodecError::TooLarge { length: 100, limit: 99 })));
    }
}
