//! Requests and answers on the control plane.
//!
//! The first request on every connection is [`ControlRequest::Hello`]; until it is accepted every other request is
//! answered with [`ControlAnswer::Refused`] and the connection is closed.
use serde::{Deserialize, Serialize};

use super::site::{HeadquartersDirective, SiteReport};
use crate::{
    charter::{Charter, Lease, Membership, NodeAddresses, Signed, Warrant},
    ids::{DocumentHash, Epoch, NodeId, PackId, SurveyHash},
    refusal::Refusal,
    session::{Directive, HostReport},
    swarm::Place,
};

/// Versions of the control protocol that this build speaks: lowest and highest.
pub const CONTROL_VERSIONS: (u16, u16) = (1, 1);

/// Which documents a node holds. The hello carries it, on contact and again after every change, so that the newer one
/// travels (anti-entropy).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentVersions {
    /// Version of the charter.
    pub charter: u64,
    /// Epoch and version of the list of revoked members.
    pub revocations: (Epoch, u64),
    /// Version and hash of the catalogue.
    pub catalogue: Option<(u64, DocumentHash)>,
    /// Version and hash of the site policy.
    pub policy: Option<(u64, DocumentHash)>,
    /// Version and hash of the bandwidth rules.
    pub bandwidth: Option<(u64, DocumentHash)>,
    /// Version and hash of the release.
    pub release: Option<(u64, DocumentHash)>,
}

/// What both sides show first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest and highest version of the protocol that the sender speaks.
    pub versions: (u16, u16),
    /// The charter that the sender holds, so that the other can tell who is ahead.
    pub charter: Signed<Charter>,
    /// The sender's membership; station and headquarters need none.
    pub membership: Option<Signed<Membership>>,
    /// The station's warrant, where the sender is the station.
    pub warrant: Option<Signed<Warrant>>,
    /// Where the sender listens.
    pub addresses: NodeAddresses,
    /// The machine that the sender runs on (R99).
    pub machine_identifier: String,
    /// What the sender holds.
    pub documents: DocumentVersions,
}

/// Which document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DocumentKind {
    /// The charter.
    Charter,
    /// The list of revoked members.
    Revocations,
    /// The catalogue, as the JSON text of its signed form.
    Catalogue,
    /// The site policy, as the JSON text of its signed form.
    Policy,
    /// The bandwidth rules, as the JSON text of their signed form.
    Bandwidth,
    /// The release, as the JSON text of its signed form.
    Release,
}

/// A node that may be dialled. Only addresses in the charter's prefixes travel inside a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addresses: NodeAddresses,
}

/// A question or a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlRequest {
    /// The first one on a connection.
    Hello(Box<Hello>),
    /// Give me this document.
    Document(DocumentKind),
    /// Whom do you know?
    Peers,
    /// From a host to its station; answered by the directive in force.
    Report(Box<HostReport>),
    /// From the station to a host; answered by [`ControlAnswer::Done`].
    Directive(Box<Directive>),
    /// Keep this sealed survey (R49).
    StoreSurvey {
        /// Its name.
        hash: SurveyHash,
        /// The encoded [`crate::charter::Sealed`].
        sealed: Vec<u8>,
    },
    /// Give me this sealed survey.
    Survey(SurveyHash),
    /// Give me this pack's manifest.
    Manifest(PackId),
    /// Renew my membership.
    RenewMembership,
    /// From a station to headquarters; answered by headquarters' directive.
    Site(Box<SiteReport>),
    /// From a station: which frames of this pack do you hold? (A successor collects before it leases.)
    Holdings(PackId),
    /// A planned move: the new station asks the old one for its site's journal from this event on (R4).
    Handover {
        /// The first event wanted.
        from: u64,
    },
    /// From a host to its station: I lack frames of this pack that no neighbour has; may I fetch them over the WAN?
    /// Repeated while the wish lasts; it renews the lease of who holds it. Answered by [`ControlAnswer::Lease`] or a
    /// refusal of kind `Busy`.
    AskLease {
        /// The pack.
        pack: PackId,
        /// Frames that the host has; a holder that shows no progress loses the lease.
        held: u32,
    },
    /// From the station to a member: bring this pack of the catalogue ahead of any session, or only make ready for it.
    /// Answered by [`ControlAnswer::Done`].
    Stage {
        /// The pack.
        pack: PackId,
        /// How far.
        staging: Staging,
    },
    /// From an inlet to headquarters: send me no more than so many bytes in a second, until I say otherwise or am gone;
    /// `None`: as many as you can. Answered at once by [`ControlAnswer::Done`], so that it also measures the round trip
    /// over the line (R71).
    LineRate(Option<u64>),
    /// From a station: what did you receive and send of this pack? Answered by [`ControlAnswer::Account`] (R126).
    Account(PackId),
    /// As [`ControlRequest::Handover`], for the crossing desk's journal: what was decided to cross the line goes on (R70).
    HandoverCrossings {
        /// The first event wanted.
        from: u64,
    },
}

/// How far a pack is brought to the members of a site ahead of the sessions that need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Staging {
    /// The manifest is there, room on the disk is taken, and neighbours are connected; no frame is fetched.
    Prepared,
    /// The frames are fetched.
    Fetched,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlAnswer {
    /// Not done, and why.
    Refused(Refusal),
    /// Done.
    Done,
    /// Accepted; the other side's own hello.
    Hello(Box<Hello>),
    /// A document's JSON text in its signed form.
    Document(DocumentKind, Vec<u8>),
    /// Nodes that may be dialled.
    Peers(Vec<PeerRecord>),
    /// What the station wants.
    Directive(Box<Directive>),
    /// A sealed survey.
    Survey(Vec<u8>),
    /// A manifest in its encoded form.
    Manifest(Vec<u8>),
    /// A fresh membership.
    Membership(Signed<Membership>),
    /// What headquarters wants.
    Headquarters(Box<HeadquartersDirective>),
    /// A bitmap of held frames, least significant bit first.
    Holdings(Vec<u8>),
    /// Events of a station's journal in their encoded form, and whether these are the last.
    Handover(Vec<Vec<u8>>, bool),
    /// The host is the pack's inlet now.
    Lease {
        /// To show to the origin.
        lease: Signed<Lease>,
        /// Frames that other nodes of the site hold, least significant bit first: never to be fetched over the WAN.
        held: Vec<u8>,
    },
    /// What passed between this node and each other one, at most [`crate::limits::ACCOUNT_LINES_MAX`] of them.
    Account(Vec<AccountLine>),
}

/// What one node received of a pack from another, or sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountLine {
    /// The other end.
    pub peer: NodeId,
    /// Whether it was sent to the other end; else it was received from there.
    pub sent: bool,
    /// Over which path.
    pub place: Place,
    /// Frames.
    pub frames: u64,
    /// Frame bytes, duplicates included.
    pub bytes: u64,
    /// Bytes of frames that the receiver had already.
    pub duplicate_bytes: u64,
}
