//! Acknowledged means durable: what somebody was told is safe survives every crash.
use std::collections::BTreeMap;

use branchline_protocol::{ids::SessionId, machine::Record};
use branchline_station_role::headquarters::HeadquartersEvent;

use super::{Kind, Violation, ensure};

/// What was acknowledged, as the other side heard it.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    /// Highest event of each session that the station said is durable.
    pub events: BTreeMap<SessionId, u64>,
    /// Highest profile revision of each session that headquarters said is durable.
    pub profiles: BTreeMap<SessionId, u64>,
}

impl Acknowledged {
    /// Notes that `value` was acknowledged.
    pub fn note(map: &mut BTreeMap<SessionId, u64>, session: SessionId, value: u64) {
        let known = map.entry(session).or_default();
        *known = (*known).max(value);
    }

    /// Headquarters' durable journal holds every acknowledged profile.
    ///
    /// # Errors
    /// One is missing.
    pub fn check_headquarters(&self, journal: &[Record<HeadquartersEvent>]) -> Result<(), Violation> {
        let mut durable: BTreeMap<SessionId, u64> = BTreeMap::new();
        for record in journal {
            if let HeadquartersEvent::Mirrored { profile, .. } = &record.event {
                Self::note(&mut durable, profile.session, profile.revision);
            }
        }
        compare("profile", &self.profiles, &durable)
    }

    /// The station, as it recovers from what is durable, holds every acknowledged event.
    ///
    /// # Errors
    /// One is missing.
    pub fn check_station(&self, held: &BTreeMap<SessionId, u64>) -> Result<(), Violation> {
        compare("event", &self.events, held)
    }
}

fn compare(
    what: &str,
    promised: &BTreeMap<SessionId, u64>,
    durable: &BTreeMap<SessionId, u64>,
) -> Result<(), Violation> {
    for (session, number) in promised {
        let held = durable.get(session).copied().unwrap_or(0);
        ensure(Kind::Durability, "acknowledged means durable", held >= *number, || {
            format!("{what} {number} of {session} was acknowledged, only {held} survived")
        })?;
    }
    Ok(())
}
