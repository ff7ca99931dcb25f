//! What people and programs see over HTTP besides the public door.
pub mod report;
//! What is served over HTTP besides the public door: service discovery and reports at headquarters.
mod headquarters;

pub use headquarters::serve_headquarters;
