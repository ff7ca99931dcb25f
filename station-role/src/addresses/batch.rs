//! Granted batches: the only source of mapped addresses (R110, R113).
use std::{collections::BTreeMap, net::Ipv4Addr};

use branchline_protocol::{
    charter::AddressBatch,
    limits::{ADDRESS_BATCH_ADDRESSES_MAX, ADDRESS_GRANTS_MAX},
};
use serde::{Deserialize, Serialize};

/// Ask for another batch when no more than this share of all granted addresses is free, in percent.
pub const LOW_WATER_PERCENT: u64 = 20;

/// Why a grant was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum GrantError {
    /// The batch is empty or too large.
    #[error(
        "grant {serial} holds {count} addresses, allowed are 1 to {ADDRESS_BATCH_ADDRESSES_MAX}; \
         the NAT authority must grant it in smaller batches"
    )]
    Size {
        /// Its serial.
        serial: u64,
        /// How many addresses it holds.
        count: u64,
    },
    /// Some address was granted before under another serial.
    #[error("grant {serial} overlaps grant {other}; the NAT authority must withdraw one of them")]
    Overlap {
        /// Its serial.
        serial: u64,
        /// The grant that holds the address.
        other: u64,
    },
    /// The serial was used for another batch.
    #[error("grant {serial} came with two different batches; the NAT authority's journal is damaged")]
    Changed {
        /// Its serial.
        serial: u64,
    },
    /// There are too many grants.
    #[error("this site holds {ADDRESS_GRANTS_MAX} grants already; the NAT authority must merge them")]
    TooMany,
}

/// All grants of a site by serial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLedger {
    grants: BTreeMap<u64, AddressBatch>,
}

impl BatchLedger {
    /// Whether the grant is new and acceptable: `Ok(true)` for new, `Ok(false)` for one that is known already.
    ///
    /// # Errors
    /// [`GrantError`] where it contradicts what was granted before, or breaks a bound.
    pub fn check(&self, serial: u64, batch: AddressBatch) -> Result<bool, GrantError> {
        if let Some(known) = self.grants.get(&serial) {
            return if *known == batch { Ok(false) } else { Err(GrantError::Changed { serial }) };
        }
        let count = batch.count();
        if count == 0 || count > ADDRESS_BATCH_ADDRESSES_MAX {
            return Err(GrantError::Size { serial, count });
        }
        if self.grants.len() >= ADDRESS_GRANTS_MAX {
            return Err(GrantError::TooMany);
        }
        let overlaps = |known: &AddressBatch| known.first <= batch.last && batch.first <= known.last;
        match self.grants.iter().find(|(_, known)| overlaps(known)) {
            Some((other, _)) => Err(GrantError::Overlap { serial, other: *other }),
            None => Ok(true),
        }
    }

    /// Adds a grant that [`BatchLedger::check`] accepted.
    pub fn add(&mut self, serial: u64, batch: AddressBatch) {
        self.grants.insert(serial, batch);
    }

    /// The grants by serial.
    pub fn grants(&self) -> impl Iterator<Item = (u64, AddressBatch)> + '_ {
        self.grants.iter().map(|(serial, batch)| (*serial, *batch))
    }

    /// The highest serial held; 0 where there is none.
    #[must_use]
    pub fn highest_serial(&self) -> u64 {
        self.grants.last_key_value().map_or(0, |(serial, _)| *serial)
    }

    /// How many addresses were granted in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.grants.values().map(|batch| batch.count()).sum()
    }

    /// Whether the address was granted.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.grants.values().any(|batch| batch.contains(address))
    }

    /// The first granted address for which `taken` says no, in order of serials and addresses.
    #[must_use]
    pub fn first_free(&self, mut taken: impl FnMut(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        self.grants.values().flat_map(|batch| batch.addresses()).find(|address| !taken(*address))
    }

    /// Whether it is time to ask for another batch, given how many addresses are not free (R113).
    #[must_use]
    pub fn is_low(&self, not_free: u64) -> bool {
        is_low(self.total(), not_free)
    }
}

/// Whether a site with `total` granted addresses, of which so many are not free, asks for another batch (R113).
#[must_use]
pub fn is_low(total: u64, not_free: u64) -> bool {
    total.saturating_sub(not_free) * 100 <= total * LOW_WATER_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u8, last: u8) -> AddressBatch {
        AddressBatch { first: Ipv4Addr::new(198, 51, 100, first), last: Ipv4Addr::new(198, 51, 100, last) }
    }

    #[test]
    fn grants_are_checked_against_each_other() {
        let mut ledger = BatchLedger::default();
        assert!(ledger.is_low(0), "nothing granted is as low as it gets");
        assert_eq!(ledger.check(1, batch(10, 19)), Ok(true));
        ledger.add(1, batch(10, 19));
        assert_eq!(ledger.check(1, batch(10, 19)), Ok(false));
        assert_eq!(ledger.check(1, batch(10, 18)), Err(GrantError::Changed { serial: 1 }));
        assert_eq!(ledger.check(2, batch(19, 30)), Err(GrantError::Overlap { serial: 2, other: 1 }));
        assert_eq!(ledger.check(2, batch(30, 20)), Err(GrantError::Size { serial: 2, count: 0 }));
        assert_eq!(ledger.check(2, batch(20, 29)), Ok(true));
    }

    #[test]
    fn more_is_asked_for_before_it_is_empty() {
        let mut ledger = BatchLedger::default();
        ledger.add(1, batch(10, 19));
        assert!(!ledger.is_low(7));
        assert!(ledger.is_low(8), "2 of 10 are left");
        let free = ledger.first_free(|address| address.octets()[3] < 13);
        assert_eq!(free, Some(Ipv4Addr::new(198, 51, 100, 13)));
        assert_eq!(ledger.first_free(|_| true), None);
    }
}
