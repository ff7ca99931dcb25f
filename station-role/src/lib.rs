//! The pure part of the roles that hold authority.
#![forbid(unsafe_code)]

pub mod addresses;
pub mod headquarters;
#[cfg(test)]
#[path = "../../tests/src/property_tests.rs"]
mod property_tests;
pub mod router;
pub mod station;
