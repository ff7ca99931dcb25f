//! Authority: the signed documents that say who may do what.
//!
//! Authority sits in documents, not in machines (DESIGN.md, identity and trust). The owner signs the [`Charter`]; the
//! charter designates the station, names headquarters and the keys for catalogue, site policy and approvals. The
//! station acts under a [`Warrant`] and gives out [`JoinToken`]s, [`Membership`]s and [`Lease`]s; headquarters signs
//! [`AddressGrant`]s and [`ProbeResult`]s; an approver signs [`Approval`]s. Every verifier persists the highest version
//! and epoch that it has seen and refuses lower ones: [`Authority`] is that memory and the only judge.
mod approval;
mod authority;
mod file_signature;
mod grant;
mod lease;
mod membership;
mod release;
mod sealed;
mod signed;
mod site;
mod token;
mod warrant;

pub use approval::{Approval, Decision};
pub use authority::{Authority, Role};
pub use file_signature::{DoorFile, FileSignature, FileSignatureError};
pub use grant::{AddressBatch, AddressGrant, ProbeResult, TriedPort};
pub use lease::Lease;
pub use membership::{Membership, Revocations};
pub use release::{Release, ReleaseError, ReleasedFile};
pub use sealed::{SealError, Sealed};
pub use signed::{Document, PublicKey, SignatureError, Signed};
pub use site::{
    Charter, CharterError, DeniedAction, HeadquartersSeat, Keys, NodeAddresses, Prefix, SiteLimits, SitePolicies,
    StationSeat, UnverifiedAction,
};
pub use token::{BeginRequest, JoinToken, TokenError};
pub use warrant::Warrant;
