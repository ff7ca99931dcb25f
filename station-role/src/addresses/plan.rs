//! What is wanted against what was read: operations in order, and conflicts. Pure.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use serde::{Deserialize, Serialize};

use crate::router::{AddressRange, NatRow, NatTable, RouterOperation, RowGeneration, RowIndex, RowKey};

/// How rows of this system are told from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// `ifIndex` of the public interface; rows of other interfaces are foreign.
    pub interface: u32,
    /// Name that our rows carry.
    pub map_name: String,
    /// Our epoch; rows of earlier ones are ours, a row of a later one means that someone has taken over.
    pub generation: RowGeneration,
}

impl Ownership {
    /// The index of a row of ours or of a later epoch; `None` for a foreign row.
    #[must_use]
    pub fn index_of(&self, key: RowKey, row: &NatRow) -> Option<RowIndex> {
        if key.interface != self.interface || row.name != self.map_name {
            return None;
        }
        RowIndex::from_raw(key.index)
    }
}

/// What a row is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DesiredRow {
    /// Address inside.
    pub inside: Ipv4Addr,
    /// Address outside.
    pub mapped: Ipv4Addr,
}

/// A foreign row stands in the way of a desired one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Conflict {
    /// It holds the mapped address: another address must be taken.
    MappedTaken {
        /// The row that is wanted.
        row: RowIndex,
        /// The address.
        mapped: Ipv4Addr,
        /// The foreign row.
        holder: RowKey,
    },
    /// It maps the inside address: a person must decide.
    InsideTaken {
        /// The row that is wanted.
        row: RowIndex,
        /// The address.
        inside: Ipv4Addr,
        /// The foreign row.
        holder: RowKey,
    },
}

impl Conflict {
    /// The row that cannot be made.
    #[must_use]
    pub fn row(&self) -> RowIndex {
        match self {
            Self::MappedTaken { row, .. } | Self::InsideTaken { row, .. } => *row,
        }
    }
}

/// What is to be done to make the table say what is desired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Operations in order: removals first, so that their addresses are free for what is made after.
    pub operations: Vec<RouterOperation>,
    /// Desired rows that foreign rows stand in the way of; no operation is planned for them.
    pub conflicts: Vec<Conflict>,
    /// Desired rows whose index holds something else. If that is ours it is to be removed, which burns the index; if
    /// it is foreign it stays. Either way the binding needs a new index, and until then no operation makes the row.
    pub spoiled: BTreeSet<RowIndex>,
    /// A row of a later epoch is in the table: nothing at all may be written, `operations` is empty.
    pub superseded_by: Option<RowGeneration>,
}

/// Compares the desired rows with the table.
///
/// `desired` holds no address twice, neither inside nor mapped; the machine's invariants see to it. Carrying out the
/// operations on the table and planning again gives no operations.
#[must_use]
pub fn plan(desired: &BTreeMap<RowIndex, DesiredRow>, table: &NatTable, ownership: &Ownership) -> Plan {
    let mut plan = Plan::default();
    let mut present = BTreeSet::new();
    let mut foreign = Vec::new();
    for (key, row) in &table.rows {
        let Some(index) = ownership.index_of(*key, row) else {
            // Somebody else's row under an index of ours: it stays, our binding evades to another index.
            let taken = RowIndex::from_raw(key.index).filter(|_| key.interface == ownership.interface);
            plan.spoiled.extend(taken.filter(|index| desired.contains_key(index)));
            foreign.push((*key, row));
            continue;
        };
        if index.generation() > ownership.generation {
            plan.superseded_by = plan.superseded_by.max(Some(index.generation()));
            continue;
        }
        match desired.get(&index) {
            Some(wanted) if row.is_binding(wanted.inside, wanted.mapped) => {
                present.insert(index);
            }
            Some(_) => {
                plan.spoiled.insert(index);
                plan.operations.push(RouterOperation::Unmap { row: index });
            }
            None => plan.operations.push(RouterOperation::Unmap { row: index }),
        }
    }
    if plan.superseded_by.is_some() {
        plan.operations.clear();
        return plan;
    }
    for (index, wanted) in desired {
        if present.contains(index) || plan.spoiled.contains(index) {
            continue;
        }
        match conflict(*index, *wanted, &foreign, ownership.interface) {
            Some(conflict) => plan.conflicts.push(conflict),
            None => {
                plan.operations.push(RouterOperation::Map { row: *index, inside: wanted.inside, mapped: wanted.mapped })
            }
        }
    }
    plan
}

fn conflict(row: RowIndex, wanted: DesiredRow, foreign: &[(RowKey, &NatRow)], interface: u32) -> Option<Conflict> {
    let holds = |range: Option<AddressRange>, address| range.is_some_and(|range| range.contains(address));
    foreign.iter().find_map(|(holder, other)| {
        let holder = *holder;
        if holds(other.mapped, wanted.mapped) {
            Some(Conflict::MappedTaken { row, mapped: wanted.mapped, holder })
        } else if holder.interface == interface && holds(other.inside, wanted.inside) {
            Some(Conflict::InsideTaken { row, inside: wanted.inside, holder })
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::router::RowStatus;

    fn ownership() -> Ownership {
        Ownership { interface: 2, map_name: "branchline".into(), generation: RowGeneration::new(2, 0).unwrap() }
    }

    fn index(charter: u64, sequence: u32) -> RowIndex {
        RowIndex::new(RowGeneration::new(charter, 0).unwrap(), sequence).unwrap()
    }

    fn inside(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn mapped(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, last)
    }

    fn carry_out(table: &mut NatTable, operations: &[RouterOperation]) {
        for operation in operations {
            match *operation {
                RouterOperation::ReadTable => {}
                RouterOperation::Map { row, inside, mapped } => {
                    let key = RowKey { interface: 2, index: row.raw() };
                    assert!(!table.rows.contains_key(&key), "the index is in use");
                    assert!(
                        table.rows.values().all(|row| !row.mapped.is_some_and(|range| range.contains(mapped))),
                        "the address is in use"
                    );
                    table.rows.insert(key, NatRow::one_to_one("branchline", inside, mapped));
                }
                RouterOperation::Unmap { row } => {
                    table.rows.remove(&RowKey { interface: 2, index: row.raw() });
                }
            }
        }
    }

    fn any_table_row() -> impl Strategy<Value = (RowKey, NatRow)> {
        let status = prop::sample::select(vec![RowStatus::Active, RowStatus::NotReady]);
        let name = prop::sample::select(vec!["branchline", "static-1"]);
        (1..=2_u32, 0..=2_u64, 1..8_u32, 1..12_u8, 1..12_u8, name, status).prop_map(
            |(interface, charter, sequence, from, to, name, status)| {
                let raw = if charter == 0 { sequence } else { index(charter, sequence).raw() };
                let row = NatRow { status, ..NatRow::one_to_one(name, inside(from), mapped(to)) };
                (RowKey { interface, index: raw }, row)
            },
        )
    }

    proptest! {
        #[test]
        fn carried_out_it_is_done_and_foreign_rows_stay(
            rows in prop::collection::btree_map(any_table_row().prop_map(|(key, _)| key), any_table_row(), 0..8),
            wanted in prop::collection::btree_map((1..=2_u64, 1..8_u32), 1..12_u8, 0..6),
        ) {
            let mut table = NatTable { rows: rows.into_iter().map(|(key, (_, row))| (key, row)).collect() };
            // Addresses are unique among the desired rows, as the machine's invariants have it.
            let mut used = BTreeSet::new();
            let desired: BTreeMap<_, _> = wanted
                .into_iter()
                .filter(|(_, last)| used.insert(*last))
                .map(|((charter, sequence), last)| {
                    (index(charter, sequence), DesiredRow { inside: inside(last), mapped: mapped(last) })
                })
                .collect();
            let ownership = ownership();
            let foreign = |table: &NatTable| -> Vec<_> {
                let is_foreign = |(key, row): &(&RowKey, &NatRow)| ownership.index_of(**key, row).is_none();
                table.rows.iter().filter(is_foreign).map(|(key, row)| (*key, row.clone())).collect()
            };
            let (before, first) = (foreign(&table), plan(&desired, &table, &ownership));
            carry_out(&mut table, &first.operations);
            prop_assert_eq!(foreign(&table), before);
            // Burnt indexes are not desired any more; the machine gives their bindings new ones.
            let desired: BTreeMap<_, _> =
                desired.into_iter().filter(|(index, _)| !first.spoiled.contains(index)).collect();
            let second = plan(&desired, &table, &ownership);
            prop_assert_eq!(&second.operations, &vec![]);
            prop_assert_eq!(second.conflicts, first.conflicts);
            prop_assert!(second.spoiled.is_empty());
        }
    }

    #[test]
    fn a_later_epoch_stops_every_write() {
        let row = NatRow::one_to_one("branchline", inside(1), mapped(1));
        let key = |index: RowIndex| RowKey { interface: 2, index: index.raw() };
        let table = NatTable { rows: [(key(index(1, 1)), row.clone()), (key(index(3, 1)), row)].into() };
        let desired = [(index(2, 1), DesiredRow { inside: inside(2), mapped: mapped(2) })].into();
        let plan = plan(&desired, &table, &ownership());
        assert_eq!(plan.superseded_by, RowGeneration::new(3, 0).ok());
        assert_eq!(plan.operations, vec![]);
    }

    #[test]
    fn removals_come_first_and_free_their_address() {
        let key = RowKey { interface: 2, index: index(1, 1).raw() };
        let table = NatTable { rows: [(key, NatRow::one_to_one("branchline", inside(1), mapped(9)))].into() };
        let desired = [(index(1, 2), DesiredRow { inside: inside(3), mapped: mapped(9) })].into();
        let plan = plan(&desired, &table, &ownership());
        let map = RouterOperation::Map { row: index(1, 2), inside: inside(3), mapped: mapped(9) };
        assert_eq!(plan.operations, vec![RouterOperation::Unmap { row: index(1, 1) }, map]);
    }
}
