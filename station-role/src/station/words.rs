//! The words of the station's machine: inputs, outputs and what goes with them.
use std::net::Ipv4Addr;

use branchline_protocol::{
    catalogue::UndeclaredRule,
    charter::{
        AddressGrant, Approval, Authority, Charter, JoinToken, ProbeResult, Signed, SiteLimits, SitePolicies, Warrant,
    },
    ids::{DocumentHash, Epoch, Hash, ImageId, NodeId, PackId, PlanHash, SessionId, SiteName, SurveyHash},
    plan::{Plan, PortDeclaration, UndeclaredPorts},
    refusal::Refusal,
    session::{Directive, HostReport},
    survey::{Descriptor, words::Vocabulary},
    time::UnixSeconds,
    wire::site::{ApprovalRequest, HeadquartersDirective, HostProfile, ProbeRequest, SiteReport},
};
use serde::{Deserialize, Serialize};

use super::links::LinkAddress;
pub use super::timing::StationTiming;

/// What a station's machine is built from besides its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationSetup {
    /// The site.
    pub site: SiteName,
    /// The station itself.
    pub node: NodeId,
    /// Under which epoch it acts.
    pub epoch: Epoch,
    /// Bounds of the site.
    pub limits: SiteLimits,
    /// Standing rules of the site.
    pub policies: SitePolicies,
    /// Waits and intervals.
    pub timing: StationTiming,
}

impl StationSetup {
    /// What `charter` says of its station.
    pub fn of(charter: &Charter) -> Self {
        Self {
            site: charter.site.clone(),
            node: charter.station.node,
            epoch: charter.epoch(),
            limits: charter.limits,
            policies: charter.policies.clone(),
            timing: StationTiming::default(),
        }
    }
}

/// What the station needs of a descriptor; see [`SurveyFacts::of`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyFacts {
    /// Facts for approval rules, for people and for reports: `operating_system`, `architecture`, `package`, ...
    pub facts: Vec<(String, String)>,
}

impl SurveyFacts {
    /// The facts of a descriptor that approval rules and reports may name.
    pub fn of(descriptor: &Descriptor) -> Self {
        let host = &descriptor.host;
        let system = &host.operating_system;
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            facts: vec![
                fact("hostname", &host.identity.hostname),
                fact("operating_system", &system.id),
                fact("operating_system_version", system.version_id.as_deref().unwrap_or("")),
                fact("architecture", &host.hardware.architecture),
                fact("system_kind", host.hardware.system_kind.word()),
                fact("kernel", &system.kernel),
                fact("cpu_count", &host.hardware.cpu_count.to_string()),
                fact("memory_bytes", &host.hardware.memory_bytes.to_string()),
            ],
        }
    }
}

/// What a plan means for people, for headquarters and for the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// The plan.
    pub plan: PlanHash,
    /// The signed catalogue that it follows from.
    pub catalogue: DocumentHash,
    /// The signed site policy that it follows from.
    pub policy: DocumentHash,
    /// The packs to fetch, at most `PLAN_PACKS_MAX`.
    pub packs: Vec<PackId>,
    /// The images that will be installed.
    pub images: Vec<ImageId>,
    /// The cluster or HA pair that the host belongs to; equal for all of its members (R5).
    pub group: Option<String>,
    /// Packages with their versions.
    pub packages: Vec<String>,
    /// Modules that are switched on.
    pub modules: Vec<String>,
    /// Thresholds: name and value.
    pub thresholds: Vec<(String, String)>,
    /// What must answer at the mapped address: port, and the HTTP path whose answer must be 200 (empty: TCP only).
    pub probes: Vec<(u16, String)>,
    /// What should not answer there: ports of the host that no package declares (R94).
    pub undeclared: UndeclaredPorts,
    /// Ports that monitoring scrapes, with the HTTP path.
    pub scrape: Vec<(u16, String)>,
}

impl PlanSummary {
    /// The summary of a plan, and of what its host listens on besides.
    pub fn of(plan: &Plan, undeclared: UndeclaredPorts) -> Self {
        let ports = plan.ports();
        let ports_of = |wanted: fn(&PortDeclaration) -> bool| {
            ports.iter().filter(|port| wanted(port)).map(|port| (port.port, port.http_path.clone())).collect()
        };
        Self {
            plan: plan.hash(),
            catalogue: plan.catalogue,
            policy: plan.policy,
            packs: plan.packs(),
            images: plan.images(),
            group: plan.group.as_ref().map(|group| group.name.clone()),
            packages: plan.packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect(),
            modules: plan.module_names(),
            thresholds: plan.threshold_values(),
            probes: ports_of(|_| true),
            undeclared,
            scrape: ports_of(|port| port.scrape),
        }
    }

    /// Whether headquarters has anything to try at the mapped address.
    pub fn can_be_probed(&self) -> bool {
        !self.probes.is_empty() || !self.undeclared.ports.is_empty()
    }
}

/// What headquarters said, its signatures checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadquartersWord {
    /// Decisions, each with the hash of its signed form.
    pub approvals: Vec<(DocumentHash, Approval)>,
    /// What the probes saw, with the attempt that each answers and the hash of the signed form.
    pub probes: Vec<(u32, DocumentHash, ProbeResult)>,
    /// What the newest site policy says of undeclared ports that answer.
    pub undeclared_ports: UndeclaredRule,
    /// Address grants, for the machine of addresses.
    pub grants: Vec<AddressGrant>,
    /// Profiles that are durable at headquarters.
    pub profiles_durable: Vec<(SessionId, u64)>,
    /// Hosts to withdraw (R98).
    pub withdraw: Vec<SessionId>,
}

impl HeadquartersWord {
    /// Checks every signature of `directive`; what does not hold is left out and returned as a refusal.
    pub fn check(directive: HeadquartersDirective, authority: &Authority) -> (Self, Vec<Refusal>) {
        let mut refusals = Vec::new();
        let mut word =
            Self { profiles_durable: directive.profiles_durable, withdraw: directive.withdraw, ..Self::default() };
        for signed in &directive.approvals {
            match authority.check_approval(signed) {
                Ok(approval) => word.approvals.push((signed.hash(), approval)),
                Err(refusal) => refusals.push(refusal),
            }
        }
        for (attempt, signed) in &directive.probes {
            match authority.check_probe(signed) {
                Ok(probe) => word.probes.push((*attempt, signed.hash(), probe)),
                Err(refusal) => refusals.push(refusal),
            }
        }
        for signed in &directive.grants {
            match authority.check_grant(signed) {
                Ok(grant) => word.grants.push(grant),
                Err(refusal) => refusals.push(refusal),
            }
        }
        (word, refusals)
    }
}

/// A report to headquarters without site and warrant, which the runtime adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteReportDraft {
    /// Approvals that are wanted.
    pub approvals: Vec<ApprovalRequest>,
    /// Probes that are wanted.
    pub probes: Vec<ProbeRequest>,
    /// Profiles that headquarters does not hold in this revision.
    pub profiles: Vec<HostProfile>,
    /// Addresses in use; filled in by the site machine.
    pub addresses_used: Vec<(NodeId, Ipv4Addr)>,
    /// Free addresses; filled in by the site machine.
    pub addresses_free: u64,
    /// The highest grant that is held; filled in by the site machine.
    pub grant_seen: u64,
    /// Whether another batch is wanted; filled in by the site machine.
    pub wants_batch: bool,
}

impl SiteReportDraft {
    /// The report as it travels.
    pub fn complete(self, site: SiteName, warrant: Signed<Warrant>) -> SiteReport {
        let Self { approvals, probes, profiles, addresses_used, addresses_free, grant_seen, wants_batch } = self;
        SiteReport {
            site,
            warrant,
            approvals,
            probes,
            profiles,
            addresses_used,
            addresses_free,
            grant_seen,
            wants_batch,
        }
    }
}

/// What can happen to a station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StationInput {
    /// A member's report; the runtime has checked who sends it.
    Report(NodeId, Box<HostReport>),
    /// The sealed survey was fetched, opened and parsed.
    SurveyOpened {
        /// Whose.
        session: SessionId,
        /// Its sealed form.
        survey: SurveyHash,
        /// Hash of the descriptor.
        descriptor: Hash,
        /// What the station needs of it.
        facts: SurveyFacts,
    },
    /// The sealed survey cannot be fetched, opened or parsed.
    SurveyFailed {
        /// Whose.
        session: SessionId,
        /// Its sealed form.
        survey: SurveyHash,
        /// Why.
        why: String,
        /// Whether trying again may help (nobody who holds it answered).
        passing: bool,
    },
    /// The plan that [`StationOutput::MakePlan`] asked for.
    PlanMade {
        /// For whom.
        session: SessionId,
        /// The descriptor that it follows from.
        descriptor: Hash,
        /// The plan.
        summary: Box<PlanSummary>,
    },
    /// No plan can be made: a conflict (R61), or nothing fits.
    PlanConflict {
        /// For whom.
        session: SessionId,
        /// The descriptor that it follows from.
        descriptor: Hash,
        /// Which rule and which fact decided.
        explanation: String,
    },
    /// Headquarters' answer to a site report.
    Headquarters(Box<HeadquartersWord>),
    /// The router maps an address to the host; read back.
    Mapped {
        /// The host.
        node: NodeId,
        /// Its inside address.
        inside: Ipv4Addr,
        /// Its mapped address.
        mapped: Ipv4Addr,
    },
    /// The host gets no mapping as things are.
    MappingFailed {
        /// The host.
        node: NodeId,
        /// Why, and what to do next.
        why: String,
    },
    /// No row of the host is in the router any more.
    Unmapped {
        /// The host.
        node: NodeId,
    },
    /// What keeps the router from being programmed just now, shown to hosts that wait; `None` where it works again.
    RouterTrouble(Option<String>),
    /// Whether hosts wait because no address is free.
    AddressesShort(bool),
    /// An operator made a join token, not signed or shown yet.
    TokenCreate(Box<JoinToken>),
    /// A machine came to the public door with a token of this station; signatures are checked.
    TokenUse {
        /// The token.
        identifier: [u8; 16],
        /// The identity that asks.
        node: NodeId,
        /// The machine.
        machine_identifier: String,
        /// Its name.
        host_name: String,
    },
    /// A member asks for a fresh membership.
    MemberRenew {
        /// Who.
        node: NodeId,
    },
    /// A peer that shows the identity of `node` was not admitted, since it runs on another machine (R99).
    CopySeen {
        /// The identity.
        node: NodeId,
        /// What was seen, the same words for the same copy.
        text: String,
    },
    /// A machine answers at the inside address of a host in the station's segment (R116).
    LinkSeen {
        /// The host that should be there.
        node: NodeId,
        /// The address.
        inside: Ipv4Addr,
        /// The link address of who answers.
        link: LinkAddress,
        /// Whether the host itself is connected.
        is_connected: bool,
    },
    /// A person ends a session.
    Cancel {
        /// Which.
        session: SessionId,
        /// Who.
        by: String,
    },
    /// A person has dealt with what a session waited for, or wants an ended one to start again.
    Retry {
        /// Which.
        session: SessionId,
        /// Who.
        by: String,
    },
    /// Takes a host out of monitoring and out of the site (R98).
    Withdraw {
        /// Which.
        session: SessionId,
        /// Who.
        by: String,
    },
    /// Starts an update or a reinstallation of a host (R35, R97).
    NewGeneration {
        /// Which host.
        node: NodeId,
        /// Who.
        by: String,
    },
    /// Places a host before others in the queue; higher is earlier (R22).
    Prioritise {
        /// Which session.
        session: SessionId,
        /// Its rollout's priority; 0 is the default.
        priority: u32,
    },
    /// The HTML report that [`StationOutput::MakeReport`] asked for.
    ReportMade {
        /// Of which session.
        session: SessionId,
        /// The text.
        html: String,
    },
    /// A newer charter designates this station still; limits, policies and epoch may differ.
    EpochChanged(Box<StationSetup>),
    /// Another node is station: say and order nothing more.
    StandDown {
        /// Why.
        reason: String,
    },
}

/// What a station wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StationOutput {
    /// Send this to the host, and answer its reports with it from now on.
    SendDirective(NodeId, Box<Directive>),
    /// The host's report is not taken; answer it with this.
    RefuseReport(NodeId, Refusal),
    /// Fetch the sealed survey from the mesh, open and parse it.
    OpenSurvey {
        /// Whose.
        session: SessionId,
        /// Its sealed form.
        survey: SurveyHash,
    },
    /// Compute the plan from this descriptor and the documents in force.
    MakePlan {
        /// For whom.
        session: SessionId,
        /// The descriptor.
        descriptor: Hash,
    },
    /// Report to headquarters; its answer comes back as [`StationInput::Headquarters`].
    SendSiteReport(Box<SiteReportDraft>),
    /// Have the host mapped.
    Bind {
        /// The host.
        node: NodeId,
        /// The machine.
        machine_identifier: String,
        /// Its inside address.
        inside: Ipv4Addr,
    },
    /// Take the host's mapping away.
    Release {
        /// The host.
        node: NodeId,
    },
    /// A mapped host has another inside address.
    InsideChanged {
        /// The host.
        node: NodeId,
        /// The address.
        inside: Ipv4Addr,
    },
    /// Nobody knows where a mapped host is inside; take its row away and keep its mapped address.
    InsideLost {
        /// The host.
        node: NodeId,
    },
    /// The token is durable: sign and show it.
    ReleaseToken(Box<JoinToken>),
    /// The use of the token, or the renewal, is durable: sign and hand out the membership.
    ReleaseMembership(MembershipTicket),
    /// The machine is not let in, or the member gets no fresh membership; say why.
    RefuseMembership(NodeId, Refusal),
    /// Put the node on the list of revoked members and spread the list.
    Revoke(NodeId),
    /// Render the HTML report of the session; answer with [`StationInput::ReportMade`].
    MakeReport {
        /// Of which session.
        session: SessionId,
    },
    /// People should see this.
    Attention {
        /// The session that it concerns.
        session: Option<SessionId>,
        /// What.
        text: String,
    },
    /// The session of this host has moved on: what people were told about it is over.
    AttentionOver(NodeId),
}

/// What a membership says, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipTicket {
    /// The member.
    pub node: NodeId,
    /// Its machine.
    pub machine_identifier: String,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Grows with each membership of this station.
    pub serial: u64,
    /// From when on it counts.
    pub issued_at: UnixSeconds,
    /// From when on it does not.
    pub expires_at: UnixSeconds,
}
