//! Time zones: from the system's database, or from the one that the binary brings where the system has none.
use anyhow::{Context, Result};
use branchline_protocol::{limits::ZONE_OFFSETS_MAX, rates::ZoneOffsets, time::UnixSeconds};
use jiff::{Timestamp, tz::TimeZone};

/// A time zone by its name in the IANA database.
#[derive(Clone, Debug)]
pub struct Zone {
    zone: TimeZone,
    offsets: ZoneOffsets,
}

impl Zone {
    /// Looks a zone up; its offsets are right from `now` on, for thirty years where the clocks change twice a year.
    ///
    /// # Errors
    /// There is no such zone.
    pub fn named(name: &str, now: UnixSeconds) -> Result<Self> {
        let zone = TimeZone::get(name)
            .with_context(|| format!("{name:?} is no time zone; write a name such as Europe/Berlin or UTC"))?;
        let start = Timestamp::from_second(i64::try_from(now.0)?)?;
        let mut offsets = vec![(UnixSeconds(0), zone.to_offset(start).seconds())];
        for transition in zone.following(start).take(ZONE_OFFSETS_MAX - 1) {
            let at = u64::try_from(transition.timestamp().as_second())?;
            offsets.push((UnixSeconds(at), transition.offset().seconds()));
        }
        Ok(Self { offsets: ZoneOffsets::new(offsets)?, zone })
    }

    /// Its offsets from UTC.
    pub fn offsets(&self) -> &ZoneOffsets {
        &self.offsets
    }

    /// What the clocks there show, for people: `Fri 2026-03-27 18:00 CET`.
    pub fn text(&self, at: UnixSeconds) -> String {
        let at = i64::try_from(at.0).ok().and_then(|at| Timestamp::from_second(at).ok());
        at.map_or_else(String::new, |at| at.to_zoned(self.zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z").to_string())
    }
}

#[cfg(test)]
mod tests {
    use branchline_protocol::rates::{Rate, Schedule, Window};

    use super::*;

    /// 2026-03-27 12:00 UTC, a Friday, two days before the clocks are put forward in Berlin.
    const FRIDAY: UnixSeconds = UnixSeconds(1_774_612_800);

    #[test]
    fn the_database_knows_when_clocks_change() {
        let berlin = Zone::named("Europe/Berlin", FRIDAY).unwrap();
        assert_eq!(berlin.text(FRIDAY), "Fri 2026-03-27 13:00 CET");
        let window = Window {
            days: "mon-fri".parse().unwrap(),
            from: "08:00".parse().unwrap(),
            to: "18:00".parse().unwrap(),
            rate: "2mbit".parse().unwrap(),
        };
        let schedule = Schedule { rate: Rate::Unlimited, windows: vec![window] };
        let (evening, _) = schedule.next_change(berlin.offsets(), FRIDAY).unwrap();
        assert_eq!(berlin.text(evening), "Fri 2026-03-27 18:00 CET");
        let (monday, rate) = schedule.next_change(berlin.offsets(), evening).unwrap();
        assert_eq!((berlin.text(monday).as_str(), rate), ("Mon 2026-03-30 08:00 CEST", "2mbit".parse().unwrap()));
        assert_eq!(monday.0 - evening.0, (2 * 24 + 13) * 3600, "the night was an hour shorter");
        assert!(Zone::named("Europe/Atlantis", FRIDAY).is_err());
        assert_eq!(Zone::named("UTC", FRIDAY).unwrap().offsets(), &ZoneOffsets::utc());
    }
}
