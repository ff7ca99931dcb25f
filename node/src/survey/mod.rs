//! The survey of this machine: the script that looks (R40, R43) and the run of it (R46, R49).
//!
//! The script is the survey. It lies here in readable parts (`*.sh`), is assembled with its version and content hash by [`mod@assemble`],
//! and works without this program: an operator may read it, object to it, or run it by hand. [`mod@take`] runs the same script in a child
//! process, reads its output with the strict reader of `protocol`, and redacts secrets a second time.

pub mod assemble;
pub mod take;

pub use assemble::{AssembleError, Script, SignatureFile, assemble, read_signature_directory, required_signatures};
pub use take::{Survey, SurveyError, SurveyRequest, take};
