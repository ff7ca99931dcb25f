//! Sessions from end to end: both machines against a scripted world.
#![allow(clippy::unwrap_used)]
mod identity;
mod process;
#[path = "../../../tests/src/property_tests.rs"]
mod property_tests;
mod random;
mod rules;
mod schedules;
mod site;
mod verification;
mod withdrawal;
mod words;
mod world;
