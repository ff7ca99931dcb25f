//! The words of headquarters' machine: inputs, outputs and what it is built from.
use branchline_protocol::{
    charter::{AddressGrant, Approval, Decision, ProbeResult, Signed},
    ids::{SessionId, SiteName},
    refusal::Refusal,
    wire::site::{HeadquartersDirective, ProbeRequest, SiteReport},
};

use super::{configuration::HeadquartersConfiguration, targets::Target};

/// Which hosts an operator means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// One session.
    Session(SessionId),
    /// Every open request of a host with this name, optionally in one site only.
    Host {
        /// The site, where it is named.
        site: Option<SiteName>,
        /// The host's name, exactly.
        name: String,
    },
    /// Every open request of a site.
    Site(SiteName),
    /// Every open request.
    All,
}

/// What can happen to headquarters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadquartersInput {
    /// A station speaks. The runtime has verified its warrant and that `report.site` is the warrant's site.
    Site {
        /// The runtime's name for the request, so that it finds the connection again.
        exchange: u64,
        /// What the station says.
        report: Box<SiteReport>,
    },
    /// An operator decides (R30).
    Decide {
        /// The caller's name for the command; the output [`HeadquartersOutput::CommandDone`] repeats it.
        command: u64,
        /// About which hosts.
        selector: Selector,
        /// What.
        decision: Decision,
        /// Who.
        by: String,
    },
    /// An operator withdraws a host (R98).
    Withdraw {
        /// The caller's name for the command.
        command: u64,
        /// Which host.
        session: SessionId,
        /// Who.
        by: String,
    },
    /// A decision is signed: after [`HeadquartersOutput::SignApproval`], or by an approver who keeps the key elsewhere
    /// and signed a request that waits. The runtime has verified the signature against the site's approval keys.
    ApprovalSigned {
        /// The document.
        approval: Approval,
        /// Its signed form.
        signed: Signed<Approval>,
    },
    /// A grant is signed.
    GrantSigned {
        /// The document.
        grant: AddressGrant,
        /// Its signed form.
        signed: Signed<AddressGrant>,
    },
    /// A probe was carried out, and its result signed.
    ProbeDone {
        /// The wish that it answers.
        attempt: u32,
        /// What was seen.
        result: ProbeResult,
        /// Its signed form.
        signed: Signed<ProbeResult>,
    },
}

/// What headquarters wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadquartersOutput {
    /// Answer a station.
    Answer {
        /// The request that is answered.
        exchange: u64,
        /// The site.
        site: SiteName,
        /// The answer.
        directive: Box<HeadquartersDirective>,
    },
    /// Sign with an approval key of the site's charter and give back [`HeadquartersInput::ApprovalSigned`].
    SignApproval(Box<Approval>),
    /// Sign with headquarters' node key and give back [`HeadquartersInput::GrantSigned`].
    SignGrant(AddressGrant),
    /// Look at a mapped address, sign the result with headquarters' node key, give back [`HeadquartersInput::ProbeDone`].
    Probe {
        /// The site.
        site: SiteName,
        /// What to look at.
        request: ProbeRequest,
    },
    /// The complete list of monitoring targets is now this (R34).
    TargetsChanged(Vec<Target>),
    /// An operator's command is done, or refused.
    CommandDone {
        /// The command.
        command: u64,
        /// The sessions that it changed, or why it changed none.
        result: Result<Vec<(SiteName, SessionId)>, Refusal>,
    },
    /// Something an operator should read; changes nothing.
    Notice {
        /// The site that it is about.
        site: SiteName,
        /// What happened and what to do next.
        text: String,
    },
}

/// What the machine is built from besides its events.
#[derive(Clone, Debug)]
pub struct HeadquartersSetup {
    /// Pools, batch size and rules; [`HeadquartersConfiguration::check`] has passed.
    pub configuration: HeadquartersConfiguration,
}
