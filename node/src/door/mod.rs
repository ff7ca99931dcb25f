//! The public door (R50a): the only thing that answers a machine that is no member yet.
//!
//! HTTPS with a certificate whose fingerprint charter and tokens state. It serves the survey script, the install
//! tool and the owner's signatures over both, and takes one bounded request: to begin with a join token.
mod client;
mod files;
mod server;
#[cfg(test)]
mod tests;

use branchline_protocol::charter::{Charter, Membership, Signed};
use serde::{Deserialize, Serialize};

pub use client::{DoorClient, DoorError};
pub use files::{DoorFiles, InstallTool, OwnerSignatures, sha256, sha256_of_file};
pub use server::{BeginInquiry, Door};

/// What a machine with a good token gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginAnswer {
    /// The charter; its signer's hash must be the token's root.
    pub charter: Signed<Charter>,
    /// The membership.
    pub membership: Signed<Membership>,
}

/// Longest answer that a client reads, in bytes; the install tool is the longest.
const ANSWER_BYTES_MAX: usize = 512 << 20;
/// Longest request body in bytes.
const REQUEST_BYTES_MAX: usize = 32 << 10;
