//! A time zone as a table of offsets.
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{limits::ZONE_OFFSETS_MAX, time::UnixSeconds};

/// Seconds of a day.
pub(super) const DAY_SECONDS: i64 = 86_400;
/// Largest offset from UTC, in seconds; no zone was ever further away.
const OFFSET_SECONDS_MAX: i32 = 26 * 3600;

/// A time on the clocks of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTime {
    /// Days since 1970-01-01 in that place.
    pub day: i64,
    /// Minutes since midnight, 0 to 1439.
    pub minute: u16,
}

impl LocalTime {
    /// The day of the week, 0 for Monday.
    pub fn weekday(self) -> u8 {
        // 1970-01-01 was a Thursday.
        u8::try_from((self.day + 3).rem_euclid(7)).unwrap_or(0)
    }
}

/// A table that is no time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a table of offsets begins at 0, is ordered, has 1 to {ZONE_OFFSETS_MAX} entries of at most 26 hours")]
pub struct ZoneError;

/// Since when which offset from UTC is in force, in seconds east of Greenwich. The last entry holds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(UnixSeconds, i32)>", into = "Vec<(UnixSeconds, i32)>")]
pub struct ZoneOffsets(Vec<(UnixSeconds, i32)>);

impl ZoneOffsets {
    /// Checks and takes a table.
    ///
    /// # Errors
    /// It does not begin at 0, is not in order, is too long, or an offset is none.
    pub fn new(offsets: Vec<(UnixSeconds, i32)>) -> Result<Self, ZoneError> {
        let ordered = offsets.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let begins = offsets.first().is_some_and(|(since, _)| since.0 == 0);
        let sane = offsets.iter().all(|(_, offset)| (-OFFSET_SECONDS_MAX..=OFFSET_SECONDS_MAX).contains(offset));
        if ordered && begins && sane && offsets.len() <= ZONE_OFFSETS_MAX { Ok(Self(offsets)) } else { Err(ZoneError) }
    }

    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self(vec![(UnixSeconds(0), 0)])
    }

    /// What the clocks of the place show.
    pub fn local(&self, at: UnixSeconds) -> LocalTime {
        let seconds = i64::try_from(at.0).unwrap_or(i64::MAX / 2) + i64::from(self.offset(at));
        let minute = seconds.rem_euclid(DAY_SECONDS) / 60;
        LocalTime { day: seconds.div_euclid(DAY_SECONDS), minute: u16::try_from(minute).unwrap_or(0) }
    }

    /// Seconds east of Greenwich at that time.
    pub fn offset(&self, at: UnixSeconds) -> i32 {
        let after = self.0.partition_point(|(since, _)| *since <= at);
        self.0.get(after.saturating_sub(1)).map_or(0, |(_, offset)| *offset)
    }

    /// The stretches of constant offset that meet `from..until`: begin, end and offset.
    pub(super) fn stretches(&self, from: i64, until: i64) -> impl Iterator<Item = (i64, i64, i64)> + '_ {
        let seconds = |at: UnixSeconds| i64::try_from(at.0).unwrap_or(i64::MAX);
        let ends = self.0.iter().skip(1).map(move |(since, _)| seconds(*since)).chain([i64::MAX]);
        let all = self.0.iter().zip(ends).map(move |((since, offset), end)| (seconds(*since), end, i64::from(*offset)));
        all.map(move |(begin, end, offset)| (begin.max(from), end.min(until), offset))
            .filter(|(begin, end, _)| begin < end)
    }
}

impl TryFrom<Vec<(UnixSeconds, i32)>> for ZoneOffsets {
    type Error = ZoneError;
    fn try_from(offsets: Vec<(UnixSeconds, i32)>) -> Result<Self, ZoneError> {
        Self::new(offsets)
    }
}

impl From<ZoneOffsets> for Vec<(UnixSeconds, i32)> {
    fn from(zone: ZoneOffsets) -> Self {
        zone.0
    }
}
