//! What people and programs see over HTTP besides the public door.
pub mod report;
