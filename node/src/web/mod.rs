//! What is served over HTTP: the connections that the public door shares; service discovery and reports at headquarters, to
//! those who have its token; and the report itself.
mod connections;
mod headquarters;
pub mod report;
mod token;

pub use connections::{ConnectionLimits, serve_connections};
pub use headquarters::serve_headquarters;
pub use token::HttpToken;
