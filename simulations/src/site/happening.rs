//! What can happen in a site world, and to whom.
use std::fmt;

use branchline_protocol::{
    charter::Lease,
    ids::PackId,
    session::{Directive, HostInput, HostReport, InstallerEvent},
    wire::{
        bulk::BulkMessage,
        site::{HeadquartersDirective, SiteReport},
    },
};
use branchline_station_role::{
    addresses::OperationId,
    headquarters::HeadquartersInput,
    router::{RouterError, RouterOperation, RouterResult},
    station::SiteInput,
};

/// A process of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Headquarters, with the origin.
    Headquarters,
    /// The station.
    Station,
    /// A host by its number.
    Host(usize),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headquarters => f.write_str("headquarters"),
            Self::Station => f.write_str("station"),
            Self::Host(number) => write!(f, "till-{number}"),
        }
    }
}

/// A fault beyond bad weather, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hazard {
    /// Some hosts are cut off.
    PartitionBegins,
    /// They are back.
    PartitionEnds(u32),
    /// A process stands still.
    Freeze,
    /// It goes on.
    Thaw(Who),
    /// A wall clock jumps.
    ClockJump,
    /// A disk is full.
    DiskFull,
    /// It has room again.
    DiskFree(Who),
    /// All bulk connections of a host break.
    Reset,
    /// Headquarters cannot be reached for long.
    Absence,
    /// A charter designates another station.
    Move,
    /// It begins.
    MoveEnds,
    /// People withdraw a host.
    Withdraw,
    /// People cancel a session.
    Cancel,
    /// People update a host.
    Update,
    /// People put a session before others.
    Prioritise,
    /// A host gets another inside address.
    AddressChange,
    /// The router forgets its table.
    RouterWipe,
    /// Somebody adds a row to the router by hand.
    Meddle,
    /// The faults stop for the core.
    Heal,
}

/// An end of a bulk connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The origin at headquarters.
    Origin,
    /// A host by its number.
    Host(usize),
}

/// One thing that happens. `life` says for which life of a process it is meant; a later one does not know of it.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A deadline may have come.
    Wake(Who),
    /// A deadline of a host's swarm may have come.
    WakeSwarm(usize, u32),
    /// The group commit is done.
    Commit(Who, u32),
    /// A process or its machine dies.
    Crash(Who),
    /// It starts again.
    Restart(Who),
    /// The line goes down for a while.
    Outage,
    /// A host's report reaches the station.
    Report(usize, Box<HostReport>),
    /// A directive reaches a host.
    Directive(usize, Box<Directive>),
    /// A site report reaches headquarters.
    SiteReport(Box<SiteReport>),
    /// Headquarters' answer reaches the station.
    Answer(Box<HeadquartersDirective>),
    /// Something that the station's runtime did is done.
    StationDid(u32, Box<SiteInput>),
    /// Something that headquarters' runtime did is done.
    HeadquartersDid(u32, Box<HeadquartersInput>),
    /// Something that a host's runtime did is done.
    HostDid(usize, u32, Box<HostInput>),
    /// A host's installer says something.
    Installer(usize, u32, Box<InstallerEvent>),
    /// The router carries an operation out; the answer goes to this life of the station, if anywhere.
    RouterApplies(RouterOperation, Option<(u32, OperationId)>),
    /// The driver answers.
    RouterAnswers(u32, OperationId, Box<Result<RouterResult, RouterError>>),
    /// Two ends connect.
    Connect(End, End),
    /// A message arrives on a bulk connection.
    Bulk {
        /// The connection.
        connection: u64,
        /// From which end.
        from: End,
        /// To which end.
        to: End,
        /// What.
        message: Box<BulkMessage>,
    },
    /// A host has sent a frame.
    Served(usize, u32, u64, End, PackId, u32),
    /// A pack is synced on a host.
    Synced(usize, u32, PackId),
    /// A host's wish for a lease reaches the station.
    AskLease(usize, PackId, u32),
    /// The station asks a host what it holds of a pack.
    AskHoldings(usize, PackId),
    /// A host's answer reaches the station.
    Holdings(usize, PackId, Vec<u8>),
    /// This life of the station sees which members came and went.
    Members(u32),
    /// A lease reaches a host.
    Lease(usize, Box<Lease>, Vec<u8>),
    /// The approver looks at what waits.
    ApproverLooks,
    /// The site's own operator looks at what failed.
    TechnicianLooks,
    /// Something goes wrong, or is put right.
    Hazard(Hazard),
}

impl Happening {
    /// The process that must run for this to happen; none for what happens to the world.
    pub fn addressee(&self) -> Option<Who> {
        Some(match self {
            Self::Wake(who) | Self::Commit(who, _) => *who,
            Self::WakeSwarm(host, _)
            | Self::Directive(host, _)
            | Self::HostDid(host, ..)
            | Self::Installer(host, ..)
            | Self::Served(host, ..)
            | Self::Synced(host, ..)
            | Self::AskHoldings(host, _)
            | Self::Lease(host, ..)
            | Self::Bulk { to: End::Host(host), .. } => Who::Host(*host),
            Self::Report(..)
            | Self::Answer(_)
            | Self::StationDid(..)
            | Self::RouterAnswers(..)
            | Self::Holdings(..)
            | Self::Members(_)
            | Self::AskLease(..) => Who::Station,
            Self::SiteReport(_) | Self::HeadquartersDid(..) | Self::Bulk { to: End::Origin, .. } => Who::Headquarters,
            Self::Crash(_)
            | Self::Restart(_)
            | Self::Outage
            | Self::RouterApplies(..)
            | Self::Connect(..)
            | Self::ApproverLooks
            | Self::TechnicianLooks
            | Self::Hazard(_) => return None,
        })
    }
}
