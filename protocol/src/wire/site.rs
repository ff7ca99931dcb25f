//! What a site's station and headquarters tell each other. Level-triggered like the dialogue of a session; the station
//! always asks, because sites dial headquarters and never the other way round.
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{
    charter::{AddressGrant, Approval, ProbeResult, Signed, Warrant},
    ids::{Epoch, ImageId, NodeId, PlanHash, SessionId, SiteName},
    session::Stage,
    time::UnixSeconds,
};

/// The station asks for an approval (R90). Repeated until it is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// Host and generation.
    pub session: SessionId,
    /// The host's name.
    pub host_name: String,
    /// What was installed.
    pub images: Vec<ImageId>,
    /// The plan.
    pub plan: PlanHash,
    /// The station's epoch.
    pub epoch: Epoch,
    /// The packages with their versions, for people.
    pub packages: Vec<String>,
    /// Facts that automatic rules may use: `operating_system`, `architecture`, `package`, ...
    pub facts: Vec<(String, String)>,
    /// When it was first asked.
    pub asked_at: UnixSeconds,
}

/// The station asks headquarters to look at a mapped address (R94). Repeated until it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRequest {
    /// Host and generation.
    pub session: SessionId,
    /// The plan.
    pub plan: PlanHash,
    /// Where to look.
    pub mapped: Ipv4Addr,
    /// What must answer there: port, and the HTTP path whose answer must be 200 (empty: a TCP connection is enough).
    pub ports: Vec<(u16, String)>,
    /// What should not answer there: TCP ports on which the host listens and that no package declares.
    pub undeclared: Vec<u16>,
    /// Grows with each new wish to probe the same session.
    pub attempt: u32,
}

/// The customer profile of one host, mirrored to headquarters (R31, R93).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostProfile {
    /// Host and generation.
    pub session: SessionId,
    /// Grows with every change of this profile.
    pub revision: u64,
    /// The host's name.
    pub host_name: String,
    /// The machine.
    pub machine_identifier: String,
    /// Where the session stands.
    pub stage: Stage,
    /// Why it waits or ended, for people.
    pub reason: String,
    /// What people should look at, such as a second machine with this identity (R99); at most `HOST_WARNINGS_MAX`.
    pub warnings: Vec<String>,
    /// Inside address.
    pub inside: Ipv4Addr,
    /// Mapped address, while there is one.
    pub mapped: Option<Ipv4Addr>,
    /// Packages with versions.
    pub packages: Vec<String>,
    /// Modules that are switched on.
    pub modules: Vec<String>,
    /// Thresholds: name and value.
    pub thresholds: Vec<(String, String)>,
    /// Ports that monitoring scrapes, with the HTTP path: taken from the packages' declarations (R94).
    pub scrape: Vec<(u16, String)>,
    /// The HTML report, once it is made and until headquarters holds it (R95).
    pub report_html: Option<String>,
    /// Frame bytes that this host received over the WAN and inside the site.
    pub wan_bytes: u64,
    /// Frame bytes from inside the site.
    pub lan_bytes: u64,
}

/// From a station to headquarters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteReport {
    /// The site.
    pub site: SiteName,
    /// By what right.
    pub warrant: Signed<Warrant>,
    /// Approvals that are wanted.
    pub approvals: Vec<ApprovalRequest>,
    /// Probes that are wanted.
    pub probes: Vec<ProbeRequest>,
    /// Profiles that headquarters has not acknowledged in this revision.
    pub profiles: Vec<HostProfile>,
    /// Addresses in use, and how many are free: the authority sees when a batch runs out (R113).
    pub addresses_used: Vec<(NodeId, Ipv4Addr)>,
    /// Free addresses in the granted batches.
    pub addresses_free: u64,
    /// The highest grant that the station holds.
    pub grant_seen: u64,
    /// Whether another batch is wanted.
    pub wants_batch: bool,
}

/// From headquarters to a station.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadquartersDirective {
    /// Decisions on the approvals that were asked for.
    pub approvals: Vec<Signed<Approval>>,
    /// What the probes saw, with the attempt that each answers.
    pub probes: Vec<(u32, Signed<ProbeResult>)>,
    /// Grants that the station has not seen.
    pub grants: Vec<Signed<AddressGrant>>,
    /// Profiles that are durable at headquarters: session and revision.
    pub profiles_durable: Vec<(SessionId, u64)>,
    /// Hosts to withdraw (R98).
    pub withdraw: Vec<SessionId>,
}
