//! Every message and table stays within its bound of `protocol::limits`.
use branchline_protocol::{
    limits::{
        ADDRESS_WAITING_MAX, EVENT_BUFFER_EVENTS_MAX, FRAME_BYTES_MAX, HAVE_FRAMES_MAX, MANIFEST_CHUNKS_MAX,
        PLAN_PACKS_MAX, REPORT_EVENTS_MAX, SESSION_EVENTS_MAX, SITE_REPORT_PROFILES_MAX, SITE_REPORT_REQUESTS_MAX,
    },
    session::{Directive, HostMachine, HostReport, Order},
    wire::{bulk::BulkMessage, site::SiteReport},
};
use branchline_station_role::station::SiteMachine;

use super::{Kind, Violation, ensure};

/// Things happen in one second of a world only so often; a machine that asks to be called again and again at one
/// instant would otherwise hang the world.
pub const HAPPENINGS_PER_SECOND_MAX: u64 = 200_000;

/// Terminal events are never cut, so that a table of events may exceed its bound by these.
const TERMINAL_EVENTS: usize = 64;

fn within(what: &str, count: usize, most: usize) -> Result<(), Violation> {
    ensure(Kind::Bounds, "every message and table has a bound", count <= most, || {
        format!("{what}: {count}, at most {most} are allowed")
    })
}

/// A message of the bulk plane.
///
/// # Errors
/// It is longer than it may be.
pub fn bulk_message(message: &BulkMessage) -> Result<(), Violation> {
    match message {
        BulkMessage::Frame { bytes, .. } => within("bytes of a frame", bytes.len(), FRAME_BYTES_MAX),
        BulkMessage::Have { bitmap, .. } => within("bytes of a bitmap", bitmap.len(), MANIFEST_CHUNKS_MAX / 8),
        BulkMessage::HaveFrames { indexes, .. } => within("frames announced", indexes.len(), HAVE_FRAMES_MAX),
        _ => Ok(()),
    }
}

/// A host's report.
///
/// # Errors
/// It carries more than it may.
pub fn host_report(report: &HostReport) -> Result<(), Violation> {
    within("events in a report", report.events.len(), REPORT_EVENTS_MAX)
}

/// A station's directive.
///
/// # Errors
/// It names more packs than it may.
pub fn directive(directive: &Directive) -> Result<(), Violation> {
    let packs = if let Order::Prepare { packs, .. } = &directive.order { packs.len() } else { 0 };
    within("packs in a directive", packs, PLAN_PACKS_MAX)
}

/// A site's report.
///
/// # Errors
/// It asks or tells more than it may.
pub fn site_report(report: &SiteReport) -> Result<(), Violation> {
    within("approvals asked for", report.approvals.len(), SITE_REPORT_REQUESTS_MAX)?;
    within("probes asked for", report.probes.len(), SITE_REPORT_REQUESTS_MAX)?;
    within("profiles in a report", report.profiles.len(), SITE_REPORT_PROFILES_MAX)
}

/// A host's tables.
///
/// # Errors
/// More events wait than may.
pub fn host(machine: &HostMachine) -> Result<(), Violation> {
    within("events that wait", machine.session().events.len(), EVENT_BUFFER_EVENTS_MAX + TERMINAL_EVENTS)
}

/// A station's tables: at most one place in the queue for each member, sessions with a bounded history.
///
/// # Errors
/// One of them is larger than it may be.
pub fn station(machine: &SiteMachine) -> Result<(), Violation> {
    let (state, limits) = (machine.station().state(), machine.station().setup().limits);
    within("members", state.hosts.len() - state.revoked.len().min(state.hosts.len()), limits.members_max as usize)?;
    within("hosts that wait for an address", machine.addresses().state().waiting.len(), ADDRESS_WAITING_MAX)?;
    let events = state.sessions.values().map(|session| session.events.len()).max().unwrap_or(0);
    within("events of a session", events, SESSION_EVENTS_MAX + TERMINAL_EVENTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use branchline_protocol::ids::{Hash, PackId};

    #[test]
    fn a_message_beyond_its_bound_is_seen() {
        let pack = PackId(Hash([1; 32]));
        let announce = |count| BulkMessage::HaveFrames { pack, indexes: vec![0; count] };
        assert!(bulk_message(&announce(HAVE_FRAMES_MAX)).is_ok());
        assert_eq!(bulk_message(&announce(HAVE_FRAMES_MAX + 1)).map_err(|found| found.kind), Err(Kind::Bounds));
    }
}
