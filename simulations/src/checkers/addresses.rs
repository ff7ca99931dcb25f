//! No two hosts have one address (R115).
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use branchline_protocol::time::Monotonic;

use super::{Violation, ensure};

/// Who was last seen behind each mapped address, and when.
#[derive(Clone, Debug, Default)]
pub struct AddressWatch {
    last: BTreeMap<Ipv4Addr, (Ipv4Addr, Monotonic)>,
    /// The table at the last look: it stood until this one.
    table: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

impl AddressWatch {
    /// Looks at the router's table (mapped to inside address) after each change of it.
    ///
    /// # Errors
    /// Two mapped addresses for one host, or an address that changed hands before it had rested.
    pub fn look(
        &mut self,
        now: Monotonic,
        table: &BTreeMap<Ipv4Addr, Ipv4Addr>,
        rest: Duration,
    ) -> Result<(), Violation> {
        for (mapped, inside) in std::mem::replace(&mut self.table, table.clone()) {
            self.last.insert(mapped, (inside, now));
        }
        let mut behind: BTreeMap<Ipv4Addr, Ipv4Addr> = BTreeMap::new();
        for (mapped, inside) in table {
            let other = behind.insert(*inside, *mapped);
            ensure("one host, one address", other.is_none(), || format!("{inside} has {mapped} and {other:?}"))?;
            if let Some((before, seen)) = self.last.get(mapped) {
                ensure(
                    "an address rests before it changes hands",
                    before == inside || now.since(*seen) >= rest,
                    || format!("{mapped} went from {before} to {inside} after {:?}", now.since(*seen)),
                )?;
            }
        }
        Ok(())
    }
}
