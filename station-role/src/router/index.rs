//! Row indexes that are never used twice.
//!
//! A SET may sit in a queue of the network for as long as the time window of SNMPv3 allows (150 s,
//! RFC 3414 section 2.2.3). A `destroy` that arrives late must therefore never find a successor's
//! row under its index. So an index carries who allocated it (the generation, from the epoch) and a
//! sequence that only counts up:
//!
//! ```text
//! bit 31        22 21     18 17                 0
//!     +-----------+---------+--------------------+
//!     |  charter  |  term   |      sequence      |
//!     |  10 bits  | 4 bits  |      18 bits       |
//!     +-----------+---------+--------------------+
//!     1..=1023     0..=15      1..=262143
//! ```
//!
//! `natAddrMapIndex` is `Unsigned32 (1..4294967295)` (RFC 4008), so charter version 0 and sequence 0
//! stay free: small indexes, which people type, are never ours. When a part runs out the allocation
//! is refused with [`RowIndexError`]; nothing wraps.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Width of the sequence part in bits.
pub const SEQUENCE_BITS: u32 = 18;
/// Width of the term part in bits.
pub const TERM_BITS: u32 = 4;
/// Width of the charter version part in bits.
pub const CHARTER_BITS: u32 = 10;
/// Highest sequence of one generation.
pub const MAX_SEQUENCE: u32 = (1 << SEQUENCE_BITS) - 1;
/// Highest term that fits.
pub const MAX_TERM: u64 = (1 << TERM_BITS) - 1;
/// Highest charter version that fits.
pub const MAX_CHARTER_VERSION: u64 = (1 << CHARTER_BITS) - 1;

const _: () = assert!(SEQUENCE_BITS + TERM_BITS + CHARTER_BITS == 32);

/// Why no row index could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RowIndexError {
    /// The charter version does not fit its 10 bits.
    #[error(
        "charter version {version} does not fit the router's row index (1 to {MAX_CHARTER_VERSION}); \
         found a new site charter, or let the router be programmed by hand"
    )]
    CharterVersion {
        /// The version that was asked for.
        version: u64,
    },
    /// The term does not fit its 4 bits.
    #[error(
        "term {term} does not fit the router's row index (0 to {MAX_TERM}); \
         re-sign the charter, which starts terms anew"
    )]
    Term {
        /// The term that was asked for.
        term: u64,
    },
    /// Every sequence of this generation has been used.
    #[error(
        "all {MAX_SEQUENCE} row indexes of epoch {generation} are used; \
         re-sign the charter to begin a new epoch, existing mappings stay"
    )]
    Sequence {
        /// The generation that ran out.
        generation: RowGeneration,
    },
}

/// Who allocates row indexes: the epoch of the warrant, packed.
///
/// Order follows the epoch's order: a higher generation belongs to a later epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowGeneration(u16);

impl RowGeneration {
    /// Packs charter version (1 to 1023) and term (0 to 15).
    ///
    /// # Errors
    /// [`RowIndexError::CharterVersion`] or [`RowIndexError::Term`] when a part does not fit.
    pub fn new(charter_version: u64, term: u64) -> Result<Self, RowIndexError> {
        if charter_version == 0 || charter_version > MAX_CHARTER_VERSION {
            return Err(RowIndexError::CharterVersion { version: charter_version });
        }
        if term > MAX_TERM {
            return Err(RowIndexError::Term { term });
        }
        let packed = (charter_version << TERM_BITS) | term;
        u16::try_from(packed).map(Self).map_err(|_| RowIndexError::CharterVersion { version: charter_version })
    }

    /// The charter version of this generation.
    #[must_use]
    pub fn charter_version(self) -> u64 {
        u64::from(self.0 >> TERM_BITS)
    }

    /// The term of this generation.
    #[must_use]
    pub fn term(self) -> u64 {
        u64::from(self.0) & MAX_TERM
    }
}

impl fmt::Display for RowGeneration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.charter_version(), self.term())
    }
}

/// A `natAddrMapIndex` that this system allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct RowIndex(u32);

impl RowIndex {
    /// Packs a generation and a sequence (1 to 262143).
    ///
    /// # Errors
    /// [`RowIndexError::Sequence`] when the sequence is 0 or used up.
    pub fn new(generation: RowGeneration, sequence: u32) -> Result<Self, RowIndexError> {
        if sequence == 0 || sequence > MAX_SEQUENCE {
            return Err(RowIndexError::Sequence { generation });
        }
        Ok(Self((u32::from(generation.0) << SEQUENCE_BITS) | sequence))
    }

    /// Reads an index found in a router's table; `None` if no allocation of ours can look so.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        let sequence = raw & MAX_SEQUENCE;
        let charter = raw >> (SEQUENCE_BITS + TERM_BITS);
        (sequence != 0 && charter != 0).then_some(Self(raw))
    }

    /// The number on the wire.
    #[must_use]
    pub fn raw(self) -> u32 {
        self.0
    }

    /// The generation that allocated this index.
    #[must_use]
    pub fn generation(self) -> RowGeneration {
        RowGeneration(u16::try_from(self.0 >> SEQUENCE_BITS).unwrap_or(u16::MAX))
    }

    /// The sequence within the generation.
    #[must_use]
    pub fn sequence(self) -> u32 {
        self.0 & MAX_SEQUENCE
    }
}

impl From<RowIndex> for u32 {
    fn from(index: RowIndex) -> Self {
        index.0
    }
}

impl TryFrom<u32> for RowIndex {
    type Error = String;

    fn try_from(raw: u32) -> Result<Self, String> {
        Self::from_raw(raw).ok_or_else(|| format!("{raw} is no row index of this system"))
    }
}

impl fmt::Display for RowIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}/{})", self.0, self.generation(), self.sequence())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_come_back_and_order_follows_the_epoch(
            charter in 1..=MAX_CHARTER_VERSION, term in 0..=MAX_TERM, sequence in 1..=MAX_SEQUENCE,
            other_charter in 1..=MAX_CHARTER_VERSION, other_term in 0..=MAX_TERM,
        ) {
            let generation = RowGeneration::new(charter, term).unwrap();
            let other = RowGeneration::new(other_charter, other_term).unwrap();
            let index = RowIndex::new(generation, sequence).unwrap();
            prop_assert_eq!(index.generation(), generation);
            prop_assert_eq!(index.sequence(), sequence);
            prop_assert_eq!((generation.charter_version(), generation.term()), (charter, term));
            prop_assert_eq!(RowIndex::from_raw(index.raw()), Some(index));
            prop_assert_eq!(generation.cmp(&other), (charter, term).cmp(&(other_charter, other_term)));
        }
    }

    #[test]
    fn exhaustion_is_refused_and_says_what_to_do() {
        let generation = RowGeneration::new(3, 1).unwrap();
        assert!(RowIndex::new(generation, MAX_SEQUENCE).is_ok());
        let error = RowIndex::new(generation, MAX_SEQUENCE + 1).unwrap_err();
        assert!(error.to_string().contains("epoch 3.1"), "{error}");
        assert!(error.to_string().contains("re-sign the charter"), "{error}");
        assert!(RowGeneration::new(1024, 0).is_err());
        assert!(RowGeneration::new(0, 0).is_err());
        assert!(RowGeneration::new(1, 16).is_err());
    }

    #[test]
    fn indexes_that_people_type_are_not_ours() {
        for raw in [0, 1, 2, 100, MAX_SEQUENCE, 1 << (SEQUENCE_BITS + TERM_BITS)] {
            assert_eq!(RowIndex::from_raw(raw), None, "{raw}");
        }
        let first = RowIndex::new(RowGeneration::new(1, 0).unwrap(), 1).unwrap();
        assert_eq!(first.raw(), 4_194_305);
    }
}
