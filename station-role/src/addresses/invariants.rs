//! What always holds between two inputs.
use std::collections::BTreeSet;

use super::machine::AddressMachine;

impl AddressMachine {
    /// Panics with a description where an invariant is broken.
    pub(super) fn assert_invariants(&self) {
        let state = &self.state;
        let mut inside = BTreeSet::new();
        let mut mapped = BTreeSet::new();
        let mut rows: BTreeSet<_> = state.leaving.keys().copied().collect();
        for (node, binding) in &state.bindings {
            assert!(mapped.insert(binding.mapped), "two hosts have mapped address {}", binding.mapped);
            assert!(state.batches.contains(binding.mapped), "{} was never granted", binding.mapped);
            assert!(!state.resting.contains(&binding.mapped), "{} is bound while it rests", binding.mapped);
            assert_eq!(state.by_mapped.get(&binding.mapped), Some(node), "index by mapped address");
            if let Some((address, row)) = binding.place {
                assert!(inside.insert(address), "two hosts have inside address {address}");
                assert!(rows.insert(row), "row {row} is used twice");
                assert_eq!(state.by_inside.get(&address), Some(node), "index by inside address");
                assert_eq!(state.by_row.get(&row), Some(node), "index by row");
                let last = state.last_sequence.get(&row.generation()).copied().unwrap_or(0);
                assert!(row.sequence() <= last, "row {row} was allocated past the counter");
            }
            assert!(!state.waiting.contains_key(node), "{node} waits though it is bound");
        }
        assert_eq!(state.by_mapped.len(), mapped.len(), "index by mapped address");
        assert_eq!(state.by_inside.len(), inside.len(), "index by inside address");
        for (row, leaving) in &state.leaving {
            let owner = state.by_mapped.get(&leaving.mapped);
            assert!(
                owner.is_none_or(|owner| *owner == leaving.node),
                "{} was given away while row {row} is leaving",
                leaving.mapped
            );
            assert!(!state.resting.contains(&leaving.mapped), "{} rests while row {row} is leaving", leaving.mapped);
        }
        for address in &state.resting {
            assert!(self.rest_until.contains_key(address), "{address} would rest for ever");
        }
        if let Some(in_flight) = &self.in_flight {
            assert!(in_flight.id <= state.last_operation, "an operation without its intent in the journal");
        }
    }
}
