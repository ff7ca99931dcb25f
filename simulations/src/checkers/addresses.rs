//! No two hosts have one address (R115).
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use branchline_protocol::time::Monotonic;

use super::{Kind, Violation, ensure};

/// Who was last seen behind each mapped address, and when; and which pair each row was made for.
#[derive(Clone, Debug, Default)]
pub struct AddressWatch {
    last: BTreeMap<Ipv4Addr, (usize, Monotonic)>,
    /// The table at the last look, with the host behind each address: it stood until this look.
    table: BTreeMap<Ipv4Addr, usize>,
    /// What each row index was first used for. An index never comes back for anything else.
    rows: BTreeMap<u32, (Ipv4Addr, Ipv4Addr)>,
}

impl AddressWatch {
    /// Looks at the router's table (mapped to inside address) after each change of it; `owner` says whose an inside
    /// address is or was.
    ///
    /// # Errors
    /// Two mapped addresses for one inside address, or an address that changed hands before it had rested.
    pub fn look(
        &mut self,
        now: Monotonic,
        table: &BTreeMap<Ipv4Addr, Ipv4Addr>,
        owner: impl Fn(Ipv4Addr) -> usize,
        rest: Duration,
    ) -> Result<(), Violation> {
        let owners = table.iter().map(|(mapped, inside)| (*mapped, owner(*inside))).collect();
        for (mapped, host) in std::mem::replace(&mut self.table, owners) {
            self.last.insert(mapped, (host, now));
        }
        let mut behind: BTreeMap<Ipv4Addr, Ipv4Addr> = BTreeMap::new();
        for (mapped, inside) in table {
            let other = behind.insert(*inside, *mapped);
            ensure(Kind::Addresses, "one host, one address", other.is_none(), || {
                format!("{inside} has {mapped} and {other:?}")
            })?;
            let host = owner(*inside);
            if let Some((before, seen)) = self.last.get(mapped) {
                let property = "an address rests before it changes hands";
                ensure(Kind::Addresses, property, *before == host || now.since(*seen) >= rest, || {
                    format!("{mapped} went from host {before} to host {host} after {:?}", now.since(*seen))
                })?;
            }
        }
        Ok(())
    }

    /// A row was made.
    ///
    /// # Errors
    /// Its index was used for another pair before.
    pub fn row_made(&mut self, row: u32, inside: Ipv4Addr, mapped: Ipv4Addr) -> Result<(), Violation> {
        let first = *self.rows.entry(row).or_insert((inside, mapped));
        ensure(Kind::Addresses, "row indexes are never used again", first == (inside, mapped), || {
            format!("row {row} maps {inside} to {mapped}, but was made for {} and {} before", first.0, first.1)
        })
    }
}

/// What was read back from the router is what the station's plan says.
///
/// # Errors
/// A row too many, too few, or with other addresses.
pub fn table_is_as_planned(
    planned: &BTreeMap<Ipv4Addr, Ipv4Addr>,
    found: &BTreeMap<Ipv4Addr, Ipv4Addr>,
) -> Result<(), Violation> {
    ensure(Kind::Addresses, "the router holds exactly what is planned", planned == found, || {
        format!("planned {planned:?}, found {found:?}")
    })
}
