//! Sessions from end to end: both machines against a scripted world.
#![allow(clippy::unwrap_used)]
mod identity;
mod process;
mod random;
mod rules;
mod schedules;
mod site;
mod world;
