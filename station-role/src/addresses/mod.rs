//! Which host has which mapped address, and the router's table kept equal to it (R110-R116).
//!
//! | module | holds |
//! | --- | --- |
//! | [`batch`] | the addresses that the NAT authority granted, and when to ask for more (R113) |
//! | `plan` | pure: what is wanted against what was read gives operations and conflicts |
//! | [`state`] | what is known, as the fold of the journal; inputs, outputs and events |
//! | `transitions` | how an event changes the state |
//! | [`machine`] | the machine: dispatch of inputs |
//! | `reconcile` | what to ask the router next |
//! | `invariants` | what always holds |
//!
//! # How a mapping comes and goes
//!
//! `Bind` journals the binding with an address and a row index that was never used; the row is written, read back
//! and announced as `Mapped`. `Release` moves the row to the leaving ones; once it is read as gone, `Unmapped` is
//! announced and the address rests, longer than any SET may be under way, before another host may have it.
//! Whoever uses the machine repeats its last wish for every host after a crash. The answer says how things stand, so
//! that nobody holds on to an address that was given to another host meanwhile.
//!
//! # Why a crash neither leaks nor doubles (R115)
//!
//! The intent of every write is in the journal before the write leaves. After a crash or a timeout nothing is
//! believed but a fresh read of the table: rows of ours that nobody wants are removed, missing ones are made. A row
//! index is burnt as soon as its removal is planned, so a late `destroy` finds nothing, and a late creation is a row
//! that nobody wants and is removed by the next read, while its address still rests.
//!
//! # What is not done here
//!
//! No row of anyone else is ever touched. Nothing is written while the table shows rows of a later epoch: then this
//! station stands down until it has proved its warrant.

pub mod batch;
mod invariants;
pub mod machine;
pub mod plan;
mod reconcile;
pub mod state;
#[cfg(test)]
mod tests;
mod transitions;

pub use batch::{BatchLedger, GrantError};
pub use machine::AddressMachine;
pub use plan::{Conflict, DesiredRow, Ownership, Plan, plan};
pub use state::{
    AddressEvent, AddressInput, AddressOutput, AddressSetup, AddressState, Attention, Binding, MappingView,
    OperationId, Timing,
};
