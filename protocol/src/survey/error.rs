//! Why a document is not a descriptor.

use thiserror::Error;

/// A refused descriptor: where in the document, what was found, and what was expected there.
///
/// `path` is an XPath-like place such as `/descriptor/host/packages/package[3]/@name`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DescriptorError {
    /// The document is longer than the bound, and was not looked at.
    #[error("the descriptor has {length} bytes, more than the {limit} that are taken; survey the host again")]
    TooLarge {
        /// Bytes of the document.
        length: usize,
        /// Most bytes that are taken.
        limit: usize,
    },
    /// The document is not well-formed XML in UTF-8.
    #[error("the descriptor is not well-formed XML at byte {offset}, in {path}: {problem}")]
    NotXml {
        /// Byte offset at which reading stopped.
        offset: u64,
        /// Element in which reading stopped.
        path: String,
        /// What the reader says.
        problem: String,
    },
    /// The document uses a part of XML that descriptors may not use.
    #[error("{path}: {construct} is not allowed in a descriptor")]
    Forbidden {
        /// Element in which it stands.
        path: String,
        /// The construct, such as "a document type declaration".
        construct: &'static str,
    },
    /// An element stands where another one, or none, was expected.
    #[error("{path}: found element <{found}>, expected {expected}")]
    UnexpectedElement {
        /// The element that holds it.
        path: String,
        /// Name of the element found.
        found: String,
        /// What may stand there.
        expected: String,
    },
    /// A required element is missing.
    #[error("{path}: element <{expected}> is missing")]
    MissingElement {
        /// The element that should hold it.
        path: String,
        /// Name of the element expected.
        expected: &'static str,
    },
    /// An attribute that the element does not have.
    #[error("{path}/@{attribute}: there is no such attribute; expected {expected}")]
    UnexpectedAttribute {
        /// The element.
        path: String,
        /// The attribute found.
        attribute: String,
        /// The attributes that the element has.
        expected: String,
    },
    /// A required attribute is missing.
    #[error("{path}/@{attribute}: the attribute is missing")]
    MissingAttribute {
        /// The element.
        path: String,
        /// The attribute expected.
        attribute: &'static str,
    },
    /// A value does not have the form that is required there.
    #[error("{path}: found {found:?}, expected {expected}")]
    BadValue {
        /// The attribute, or the element for text.
        path: String,
        /// The value found, cut to 64 characters.
        found: String,
        /// The form required.
        expected: String,
    },
    /// A list is longer than its bound.
    #[error("{path}: more than {limit} elements <{name}>")]
    TooMany {
        /// The list.
        path: String,
        /// Name of its elements.
        name: &'static str,
        /// Most elements allowed.
        limit: usize,
    },
}
