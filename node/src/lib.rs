//! The binary's library: mesh, disk, SNMP, package managers, web and command line around the pure machines.
//!
//! Only this crate knows sockets, files, processes and clocks. What it decides itself is listed in the architecture
//! page of the book, and is little: everything else is a machine of `protocol` or `station-role`, driven by
//! [`runtime`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
pub mod bulk;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod demo;
pub mod door;
pub mod install;
pub mod mesh;
pub mod observe;
pub mod recordings;
pub mod router;
pub mod runtime;
pub mod store;
pub mod survey;
pub mod web;

#[cfg(test)]
#[path = "../../tests/src/property_tests.rs"]
mod property_tests;
