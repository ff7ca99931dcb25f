//! The origin's side: the fence that lets only the newest lease through, and the meter of R70.
use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    charter::Lease,
    ids::{Epoch, NodeId, PackId, SiteName},
    limits::{FENCE_RECORDS_MAX, LEASE_SPANS_MAX},
    refusal::{Refusal, RefusalKind},
    time::{Monotonic, UnixSeconds},
};

/// Frames and bytes that left the origin for one pack and site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginMeter {
    /// Frames sent.
    pub frames: u64,
    /// Frame bytes sent: divided by the pack's length this is `wan_ratio` (R70).
    pub bytes: u64,
}

/// What the fence remembers of one pack of one site. Survives a restart of the origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRecord {
    /// The site.
    pub site: SiteName,
    /// The pack.
    pub pack: PackId,
    /// Highest epoch and sequence seen.
    pub rank: (Epoch, u64),
    /// The inlet by that lease.
    pub holder: NodeId,
    /// What was sent to the site, by all its inlets.
    pub meter: OriginMeter,
    /// The same by lease holder, oldest first: why these bytes crossed (R126). Of more than
    /// [`LEASE_SPANS_MAX`] changes the oldest are added up in the first.
    #[serde(default)]
    pub spans: Vec<LeaseSpan>,
}

/// What one inlet was sent of one pack, from its first lease to the next inlet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSpan {
    /// The inlet.
    pub holder: NodeId,
    /// Epoch and sequence of its first lease.
    pub rank: (Epoch, u64),
    /// When the origin first saw it, by the wall clock.
    pub since: Option<UnixSeconds>,
    /// What was sent.
    pub meter: OriginMeter,
}

#[derive(Clone, Debug)]
struct Entry {
    rank: (Epoch, u64),
    holder: NodeId,
    meter: OriginMeter,
    spans: Vec<LeaseSpan>,
    /// End of the newest lease by the origin's clock; `None` after a restart, until it is shown again.
    expires_at: Option<Monotonic>,
}

/// What follows from a lease that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whose connection is to be cut, because its lease is a lower one now.
    pub cut: Option<NodeId>,
}

/// Per site and pack: the highest lease seen, and what was sent (R70).
#[derive(Clone, Debug, Default)]
pub struct Fence {
    entries: BTreeMap<(SiteName, PackId), Entry>,
}

impl Fence {
    /// The fence as it was remembered.
    pub fn restore(records: impl IntoIterator<Item = FenceRecord>) -> Self {
        let entry = |record: FenceRecord| {
            let key = (record.site.clone(), record.pack);
            let FenceRecord { rank, holder, meter, spans, .. } = record;
            let entry = Entry { rank, holder, meter, spans, expires_at: None };
            (key, entry)
        };
        Self { entries: records.into_iter().take(FENCE_RECORDS_MAX).map(entry).collect() }
    }

    /// What must survive a restart.
    pub fn records(&self) -> Vec<FenceRecord> {
        let record = |((site, pack), entry): (&(SiteName, PackId), &Entry)| FenceRecord {
            site: site.clone(),
            pack: *pack,
            rank: entry.rank,
            holder: entry.holder,
            meter: entry.meter,
            spans: entry.spans.clone(),
        };
        self.entries.iter().map(record).collect()
    }

    /// Lets a lease through that [`crate::charter::Authority::check_lease`] accepted and that `peer` shows.
    ///
    /// # Errors
    /// Another's lease ([`RefusalKind::NotAuthorised`]), a lower one than already seen ([`RefusalKind::Stale`]), or a
    /// full table ([`RefusalKind::Busy`]).
    pub fn admit(&mut self, now: Monotonic, peer: NodeId, lease: &Lease) -> Result<Admission, Refusal> {
        if lease.holder != peer {
            let reason = format!("the lease is for {}, but {peer} shows it", lease.holder);
            return Err(Refusal::new(RefusalKind::NotAuthorised, reason));
        }
        let key = (lease.site.clone(), lease.pack);
        let known = self.entries.get(&key);
        if known.is_none() && self.entries.len() >= FENCE_RECORDS_MAX {
            let reason = "the origin serves too many packs to take on another; ask its operator";
            return Err(Refusal::new(RefusalKind::Busy, reason));
        }
        if let Some(entry) = known.filter(|entry| lease.rank() < entry.rank || twin(entry, lease)) {
            let ((seen, number), (epoch, sequence)) = (entry.rank, lease.rank());
            let reason = format!("lease {epoch}/{sequence} of pack {} is not newer than {seen}/{number}", lease.pack);
            return Err(Refusal::new(RefusalKind::Stale, reason));
        }
        // Showing one lease again does not lengthen it.
        let same = known.filter(|entry| entry.rank == lease.rank()).and_then(|entry| entry.expires_at);
        let life = Duration::from_millis(lease.life_milliseconds);
        let expires_at = same.unwrap_or_else(|| now.after(life));
        let cut = known.map(|entry| entry.holder).filter(|holder| *holder != peer);
        let (meter, mut spans) = known.map(|entry| (entry.meter, entry.spans.clone())).unwrap_or_default();
        if spans.last().is_none_or(|span| span.holder != peer) {
            begin_span(&mut spans, LeaseSpan { holder: peer, rank: lease.rank(), since: None, meter: <_>::default() });
        }
        let entry = Entry { rank: lease.rank(), holder: peer, meter, spans, expires_at: Some(expires_at) };
        self.entries.insert(key, entry);
        Ok(Admission { cut })
    }

    /// Says when the inlet that was let through last began; a later call changes nothing.
    pub fn date(&mut self, site: &SiteName, pack: PackId, wall: UnixSeconds) {
        if let Some(span) = self.entries.get_mut(&(site.clone(), pack)).and_then(|entry| entry.spans.last_mut()) {
            span.since.get_or_insert(wall);
        }
    }

    /// Whether `peer` may be sent frames of the pack now.
    ///
    /// # Errors
    /// No lease of this peer is in force.
    pub fn check(&self, now: Monotonic, peer: NodeId, site: &SiteName, pack: PackId) -> Result<(), Refusal> {
        let entry = self.entries.get(&(site.clone(), pack));
        let open = entry.is_some_and(|entry| entry.holder == peer && entry.expires_at.is_some_and(|at| at > now));
        if open {
            return Ok(());
        }
        let reason = format!("no lease of {peer} for pack {pack} is in force; ask the station of site {site} for one");
        Err(Refusal::new(RefusalKind::NotAuthorised, reason))
    }

    /// Counts a frame of `bytes` bytes that begins to leave.
    pub fn count(&mut self, site: &SiteName, pack: PackId, bytes: u64) {
        if let Some(entry) = self.entries.get_mut(&(site.clone(), pack)) {
            entry.meter.add(bytes);
            if let Some(span) = entry.spans.last_mut() {
                span.meter.add(bytes);
            }
        }
    }

    /// What was sent for a pack of a site.
    pub fn meter(&self, site: &SiteName, pack: PackId) -> OriginMeter {
        self.entries.get(&(site.clone(), pack)).map(|entry| entry.meter).unwrap_or_default()
    }
}

impl OriginMeter {
    fn add(&mut self, bytes: u64) {
        self.frames += 1;
        self.bytes += bytes;
    }
}

fn begin_span(spans: &mut Vec<LeaseSpan>, span: LeaseSpan) {
    if spans.len() >= LEASE_SPANS_MAX {
        let second = spans.remove(1);
        spans[0].meter.frames += second.meter.frames;
        spans[0].meter.bytes += second.meter.bytes;
    }
    spans.push(span);
}

/// The same rank for two holders: a station that forgot its sequence, or a forgery.
fn twin(entry: &Entry, lease: &Lease) -> bool {
    lease.rank() == entry.rank && lease.holder != entry.holder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Hash;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    fn lease(holder: NodeId, charter_version: u64, sequence: u64) -> Lease {
        Lease {
            site: "store-17".parse().unwrap(),
            epoch: Epoch { charter_version, term: 0 },
            sequence,
            holder,
            pack: PackId(Hash([9; 32])),
            life_milliseconds: 10_000,
        }
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_seconds(seconds)
    }

    #[test]
    fn only_the_highest_lease_is_served_and_it_cuts_the_one_before() {
        let mut fence = Fence::default();
        let (site, pack) = (lease(A, 1, 1).site, lease(A, 1, 1).pack);
        assert!(fence.check(at(0), A, &site, pack).is_err());
        assert_eq!(fence.admit(at(0), A, &lease(A, 1, 5)), Ok(Admission { cut: None }));
        assert_eq!(fence.check(at(1), A, &site, pack), Ok(()));
        fence.date(&site, pack, UnixSeconds(7));
        fence.date(&site, pack, UnixSeconds(8));
        fence.count(&site, pack, 100);
        assert_eq!(fence.admit(at(1), B, &lease(A, 1, 6)).unwrap_err().kind, RefusalKind::NotAuthorised);
        assert_eq!(fence.admit(at(1), B, &lease(B, 1, 4)).unwrap_err().kind, RefusalKind::Stale);
        assert_eq!(fence.admit(at(1), B, &lease(B, 1, 5)).unwrap_err().kind, RefusalKind::Stale);
        assert_eq!(fence.admit(at(1), B, &lease(B, 2, 1)), Ok(Admission { cut: Some(A) }));
        assert!(fence.check(at(1), A, &site, pack).is_err());
        assert_eq!(fence.admit(at(1), A, &lease(A, 1, 99)).unwrap_err().kind, RefusalKind::Stale);
        fence.count(&site, pack, 50);
        assert_eq!(fence.meter(&site, pack), OriginMeter { frames: 2, bytes: 150 });

        let spans: Vec<_> =
            fence.records()[0].spans.iter().map(|span| (span.holder, span.since, span.meter.bytes)).collect();
        assert_eq!(spans, [(A, Some(UnixSeconds(7)), 100), (B, None, 50)], "who was sent what, and since when");

        let mut restored = Fence::restore(fence.records());
        assert_eq!(restored.meter(&site, pack).bytes, 150);
        assert!(restored.check(at(0), B, &site, pack).is_err());
        assert_eq!(restored.admit(at(0), A, &lease(A, 1, 99)).unwrap_err().kind, RefusalKind::Stale);
        assert!(restored.admit(at(0), B, &lease(B, 2, 1)).is_ok());
        assert_eq!(restored.check(at(0), B, &site, pack), Ok(()));
    }

    #[test]
    fn a_lease_ends_and_showing_it_again_does_not_lengthen_it() {
        let mut fence = Fence::default();
        let (site, pack) = (lease(A, 1, 1).site, lease(A, 1, 1).pack);
        fence.admit(at(0), A, &lease(A, 1, 1)).unwrap();
        fence.admit(at(9), A, &lease(A, 1, 1)).unwrap();
        assert!(fence.check(at(10), A, &site, pack).is_err());
        fence.admit(at(10), A, &lease(A, 1, 2)).unwrap();
        assert!(fence.check(at(19), A, &site, pack).is_ok());
    }

    #[test]
    fn however_often_the_inlet_changes_the_spans_are_bounded_and_their_sum_is_the_meter() {
        let mut fence = Fence::default();
        let (site, pack) = (lease(A, 1, 1).site, lease(A, 1, 1).pack);
        for sequence in 0..100 {
            let holder = if sequence % 2 == 0 { A } else { B };
            fence.admit(at(sequence), holder, &lease(holder, 1, sequence)).unwrap();
            fence.date(&site, pack, UnixSeconds(sequence));
            fence.count(&site, pack, 10);
        }
        let record = &fence.records()[0];
        assert_eq!(record.spans.len(), LEASE_SPANS_MAX);
        assert_eq!(record.spans.iter().map(|span| span.meter.bytes).sum::<u64>(), record.meter.bytes);
        assert_eq!(record.spans.last().unwrap().since, Some(UnixSeconds(99)));
    }
}
