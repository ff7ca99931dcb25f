//! How an event changes the state. Total: every event can be applied to every state.
use std::net::Ipv4Addr;

use branchline_protocol::ids::NodeId;

use super::state::{AddressEvent, AddressState, Binding, LeavingRow};
use crate::router::RowIndex;

impl AddressState {
    /// Applies one event; the state is the fold of all of them.
    pub fn apply(&mut self, event: &AddressEvent) {
        match event {
            AddressEvent::Granted { serial, batch } => self.batches.add(*serial, *batch),
            AddressEvent::Waiting { node, machine_identifier, inside } => {
                self.waiting.insert(*node, (machine_identifier.clone(), *inside));
            }
            AddressEvent::Bound { node, machine_identifier, inside, mapped, row } => {
                self.waiting.remove(node);
                self.unbind(*node);
                self.bind(*node, machine_identifier.clone(), *inside, *mapped, *row);
            }
            AddressEvent::Rebound { node, inside, mapped, row } => {
                if let Some(old) = self.unbind(*node) {
                    if old.place.is_none() && old.mapped != *mapped {
                        // No row is left to go that would bring the address to rest.
                        self.resting.insert(old.mapped);
                    }
                    self.bind(*node, old.machine_identifier, *inside, *mapped, *row);
                }
            }
            AddressEvent::InsideLost { node } => {
                if let Some(old) = self.unbind(*node) {
                    self.by_mapped.insert(old.mapped, *node);
                    self.bindings.insert(*node, Binding { place: None, confirmed: false, ..old });
                }
            }
            AddressEvent::Released { node } => {
                self.waiting.remove(node);
                if let Some(old) = self.unbind(*node)
                    && !self.leaving.values().any(|row| row.mapped == old.mapped)
                {
                    self.resting.insert(old.mapped);
                }
            }
            AddressEvent::Intended { id, .. } => self.last_operation = self.last_operation.max(*id),
            AddressEvent::Confirmed { row } => {
                if let Some(binding) = self.by_row.get(row).and_then(|node| self.bindings.get_mut(node)) {
                    binding.confirmed = true;
                }
            }
            AddressEvent::RowGone { row } => {
                if let Some(gone) = self.leaving.remove(row)
                    && !self.by_mapped.contains_key(&gone.mapped)
                    && !self.leaving.values().any(|other| other.mapped == gone.mapped)
                {
                    self.resting.insert(gone.mapped);
                }
            }
            AddressEvent::Rested { mapped } => {
                self.resting.remove(mapped);
            }
        }
    }

    fn bind(&mut self, node: NodeId, machine_identifier: String, inside: Ipv4Addr, mapped: Ipv4Addr, row: RowIndex) {
        let last = self.last_sequence.entry(row.generation()).or_default();
        *last = (*last).max(row.sequence());
        self.by_inside.insert(inside, node);
        self.by_mapped.insert(mapped, node);
        self.by_row.insert(row, node);
        let binding = Binding { machine_identifier, place: Some((inside, row)), mapped, confirmed: false };
        self.bindings.insert(node, binding);
    }

    /// Takes a binding out; its row, if it has one, is leaving.
    fn unbind(&mut self, node: NodeId) -> Option<Binding> {
        let old = self.bindings.remove(&node)?;
        self.by_mapped.remove(&old.mapped);
        if let Some((inside, row)) = old.place {
            self.by_inside.remove(&inside);
            self.by_row.remove(&row);
            self.leaving.insert(row, LeavingRow { node, mapped: old.mapped });
        }
        Some(old)
    }
}
