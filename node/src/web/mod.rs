//! What is served over HTTP besides the public door: service discovery and reports at headquarters; and the report itself.
mod headquarters;
pub mod report;

pub use headquarters::serve_headquarters;
