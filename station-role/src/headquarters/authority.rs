//! The NAT authority: from the configured pool to batches for sites; every grant is kept for good (R32, R110, R113).
use std::{collections::BTreeMap, net::Ipv4Addr};

use branchline_protocol::{
    charter::{AddressBatch, AddressGrant, Signed},
    ids::SiteName,
};
use thiserror::Error;

use super::configuration::HeadquartersConfiguration;

/// A grant and, once the runtime has signed it, the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRecord {
    /// What is signed.
    pub grant: AddressGrant,
    /// The signed form.
    pub signed: Option<Signed<AddressGrant>>,
}

/// Every grant that was ever made. An address in it is never granted again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatAuthority {
    by_site: BTreeMap<SiteName, BTreeMap<u64, GrantRecord>>,
    /// First to last address of every grant; the runs do not overlap.
    granted: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// Why a site gets no further batch.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum GrantError {
    /// The pools have no free address for the site.
    #[error("no pool has a free address for site {site}: add one to `pools` in headquarters' configuration")]
    PoolEmpty {
        /// The site.
        site: SiteName,
    },
    /// The site has as many as one site may have.
    #[error(
        "site {site} already has {granted} addresses, and one site may have {limit}: look whether it uses them, or raise site_addresses_max"
    )]
    SiteLimit {
        /// The site.
        site: SiteName,
        /// Addresses it was granted.
        granted: u64,
        /// The limit.
        limit: u64,
    },
}

impl NatAuthority {
    /// The grants of a site by serial.
    pub fn grants(&self, site: &SiteName) -> impl Iterator<Item = &GrantRecord> {
        self.by_site.get(site).into_iter().flat_map(BTreeMap::values)
    }

    /// Every grant, in order of site and serial.
    pub fn all_grants(&self) -> impl Iterator<Item = &GrantRecord> {
        self.by_site.values().flat_map(BTreeMap::values)
    }

    /// The runs of granted addresses, in order.
    pub fn granted_runs(&self) -> impl Iterator<Item = AddressBatch> + '_ {
        self.granted.iter().map(|(first, last)| AddressBatch { first: *first, last: *last })
    }

    /// The highest serial of a site; 0 where it has no grant.
    pub fn last_serial(&self, site: &SiteName) -> u64 {
        self.by_site.get(site).and_then(|grants| grants.keys().next_back().copied()).unwrap_or(0)
    }

    /// Whether `address` was granted to `site`.
    pub fn holds(&self, site: &SiteName, address: Ipv4Addr) -> bool {
        self.grants(site).any(|record| record.grant.batch.contains(address))
    }

    /// How many addresses a site was granted.
    pub fn granted_addresses(&self, site: &SiteName) -> u64 {
        self.grants(site).map(|record| record.grant.batch.count()).sum()
    }

    /// The next batch for a site: the longest run from the first free address of the first pool that serves it, at
    /// most one batch long.
    ///
    /// # Errors
    /// No free address, or the site's limit is reached.
    pub fn next_grant(
        &self,
        configuration: &HeadquartersConfiguration,
        site: &SiteName,
    ) -> Result<AddressGrant, GrantError> {
        let (granted, limit) = (self.granted_addresses(site), configuration.site_addresses_max);
        if granted >= limit {
            return Err(GrantError::SiteLimit { site: site.clone(), granted, limit });
        }
        let length = u64::from(configuration.batch_addresses).min(limit - granted);
        let free = configuration.pools.iter().filter(|pool| pool.serves(site));
        let batch = free.filter_map(|pool| self.first_free_run(pool.batch(), length)).next();
        let batch = batch.ok_or_else(|| GrantError::PoolEmpty { site: site.clone() })?;
        Ok(AddressGrant { site: site.clone(), serial: self.last_serial(site) + 1, batch })
    }

    fn first_free_run(&self, pool: AddressBatch, length: u64) -> Option<AddressBatch> {
        let last = u64::from(u32::from(pool.last));
        let mut first = u64::from(u32::from(pool.first));
        // Overlapping runs can also begin below the pool, where the configuration was changed between two grants.
        for (run_first, run_last) in &self.granted {
            let (run_first, run_last) = (u64::from(u32::from(*run_first)), u64::from(u32::from(*run_last)));
            if run_last < first {
                continue;
            }
            if run_first > first {
                return batch_between(first, last.min(first + length - 1).min(run_first - 1));
            }
            first = run_last + 1;
        }
        if first > last { None } else { batch_between(first, last.min(first + length - 1)) }
    }

    pub(super) fn record(&mut self, grant: AddressGrant) {
        self.granted.insert(grant.batch.first, grant.batch.last);
        let record = GrantRecord { grant, signed: None };
        self.by_site.entry(record.grant.site.clone()).or_default().insert(record.grant.serial, record);
    }

    pub(super) fn record_signature(&mut self, site: &SiteName, serial: u64, signed: Signed<AddressGrant>) {
        if let Some(record) = self.by_site.get_mut(site).and_then(|grants| grants.get_mut(&serial)) {
            record.signed = Some(signed);
        }
    }
}

fn batch_between(first: u64, last: u64) -> Option<AddressBatch> {
    let address = |value: u64| u32::try_from(value).ok().map(Ipv4Addr::from);
    (first <= last).then_some(AddressBatch { first: address(first)?, last: address(last)? })
}
