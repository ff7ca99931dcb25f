//! Sessions from end to end: both machines against a scripted world.
#![allow(clippy::unwrap_used)]
mod rules;
mod schedules;
mod site;
mod world;
