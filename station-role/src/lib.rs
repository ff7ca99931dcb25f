//! The pure part of the roles that hold authority.
#![forbid(unsafe_code)]

pub mod addresses;
pub mod headquarters;
pub mod router;
pub mod station;
