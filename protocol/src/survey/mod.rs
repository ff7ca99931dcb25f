//! What a host says about itself: the survey's XML descriptor (R40-R49).
//!
//! A survey script (in the `node` crate) writes one **descriptor** with four sections (R46): the host, the modules that are useful
//! or required to monitor it, the thresholds that should differ from their defaults, and what an installation will run or collide
//! with. This module is the other half: it reads such a document strictly, prints it in one canonical form, compares two of them
//! (R47), and turns one into the plain facts over which the catalogue's rules run (R60).
//!
//! Goals: [`Descriptor::parse`] takes exactly what [`XSD`] allows (in UTF-8, without DTD, processing instructions, CDATA and
//! namespace prefixes), never panics, and names the offending element or attribute with what it expected there;
//! `parse(print(d)) == d`, and `print(parse(x))` is stable. Non-goals: reading other XML, or repairing a broken descriptor.
//!
//! - [`descriptor`]: the types. [`words`]: their closed vocabularies. [`lexical`]: what a single value may look like.
//! - [`xml`]: text to a bounded tree, and canonical text from it; `read` and `print` map the tree to the types.
//! - [`difference`]: what changed between two surveys. [`facts`]: the JSON for rules. [`redact`]: secrets on command lines (R49).

pub mod descriptor;
pub mod difference;
pub mod error;
pub mod facts;
pub mod fixtures;
pub mod lexical;
mod print;
mod read;
pub mod redact;
pub mod words;
pub mod xml;

pub use descriptor::Descriptor;
pub use difference::Difference;
pub use error::DescriptorError;

/// The published XML schema of a descriptor, as text (R46).
pub const XSD: &str = include_str!("descriptor.xsd");

/// The XML namespace of a descriptor; its last part is the version of the format.
pub const NAMESPACE: &str = "urn:branchline:descriptor:1";
