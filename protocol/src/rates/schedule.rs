//! Rates per weekday and time of day.
use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    rate::Rate,
    zone::{DAY_SECONDS, LocalTime, ZoneOffsets},
};
use crate::{ids::ParseIdError, time::UnixSeconds};

const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// How far ahead a change is looked for: a week, and a day for the clocks that are put forward or back.
const AHEAD_DAYS: i64 = 8;

fn wrong(text: &str, expected: &'static str) -> ParseIdError {
    ParseIdError { text: text.chars().take(80).collect(), expected }
}

/// Days of the week: `daily`, `mon-fri`, `sat,sun`, `fri-mon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Days(u8);

impl Days {
    /// Every day.
    pub const DAILY: Self = Self(0x7f);

    /// Whether the day is among them, 0 for Monday.
    pub fn contains(self, weekday: u8) -> bool {
        weekday < 7 && self.0 & (1 << weekday) != 0
    }
}

impl FromStr for Days {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text == "daily" {
            return Ok(Self::DAILY);
        }
        let error = || wrong(text, "days of the week such as mon-fri, sat,sun or daily");
        let day = |name: &str| NAMES.iter().position(|known| *known == name).ok_or_else(error);
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (mut at, last) = (day(first.trim())?, day(last.trim())?);
            days |= 1 << at;
            while at != last {
                at = (at + 1) % 7;
                days |= 1 << at;
            }
        }
        Ok(Self(days))
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::DAILY {
            return f.write_str("daily");
        }
        let named: Vec<&str> =
            (0..7_u8).zip(NAMES).filter(|(day, _)| self.contains(*day)).map(|(_, name)| name).collect();
        f.write_str(&named.join(","))
    }
}

impl TryFrom<String> for Days {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<Days> for String {
    fn from(days: Days) -> Self {
        days.to_string()
    }
}

/// A time of day to the minute: `00:00` to `24:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// Minutes since midnight, 0 to 1440.
    pub fn minute(self) -> u16 {
        self.0
    }
}

impl FromStr for TimeOfDay {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = || wrong(text, "a time of day such as 08:30, from 00:00 to 24:00");
        let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        let (hour, minute) = text.split_once(':').filter(|(h, m)| digits(h) && digits(m)).ok_or_else(error)?;
        let hour: u16 = hour.parse().map_err(|_| error())?;
        let minute: u16 = minute.parse().map_err(|_| error())?;
        let total = hour * 60 + minute;
        if minute < 60 && total <= 1440 { Ok(Self(total)) } else { Err(error()) }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}

/// Hours of some days in which another rate holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The days on which it begins.
    pub days: Days,
    /// When it begins, by the clocks of the place.
    pub from: TimeOfDay,
    /// When it ends. Not after `from`: it ends on the next day.
    pub to: TimeOfDay,
    /// What holds in it.
    pub rate: Rate,
}

impl Window {
    /// Whether the clocks of the place show a time in it.
    pub fn contains(&self, local: LocalTime) -> bool {
        let (from, to, minute) = (self.from.0, self.to.0, local.minute);
        let today = self.days.contains(local.weekday());
        if from < to {
            return today && (from..to).contains(&minute);
        }
        let yesterday = self.days.contains((local.weekday() + 6) % 7);
        (today && minute >= from) || (yesterday && minute < to)
    }
}

/// A rate, and windows in which another holds. Of several windows that hold at once, the first counts.
///
/// Windows follow the clocks on the wall. When these are put forward, the hour that does not exist is in no window; when they
/// are put back, the hour that exists twice is in its windows twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// What holds outside every window.
    pub rate: Rate,
    /// When something else holds.
    pub windows: Vec<Window>,
}

impl Schedule {
    /// A rate that always holds.
    pub fn always(rate: Rate) -> Self {
        Self { rate, windows: Vec::new() }
    }

    /// The rate in force.
    pub fn rate_at(&self, zone: &ZoneOffsets, at: UnixSeconds) -> Rate {
        let local = zone.local(at);
        self.windows.iter().find(|window| window.contains(local)).map_or(self.rate, |window| window.rate)
    }

    /// When the rate next becomes another one, and which; `None` where it does not within eight days.
    pub fn next_change(&self, zone: &ZoneOffsets, at: UnixSeconds) -> Option<(UnixSeconds, Rate)> {
        let current = self.rate_at(zone, at);
        let start = i64::try_from(at.0).ok()?;
        let mut candidates = BTreeSet::new();
        for (begin, end, offset) in zone.stretches(start, start.saturating_add(AHEAD_DAYS * DAY_SECONDS)) {
            candidates.insert(begin);
            let (first_day, last_day) =
                ((begin + offset).div_euclid(DAY_SECONDS), (end + offset).div_euclid(DAY_SECONDS));
            for day in first_day..=last_day {
                let minutes = self.windows.iter().flat_map(|window| [window.from.0, window.to.0]);
                let instants = minutes.map(|minute| day * DAY_SECONDS + i64::from(minute) * 60 - offset);
                candidates.extend(instants.filter(|instant| (begin..end).contains(instant)));
            }
        }
        let later = candidates.into_iter().filter(|instant| *instant > start).filter_map(|at| u64::try_from(at).ok());
        later.map(UnixSeconds).map(|at| (at, self.rate_at(zone, at))).find(|(_, rate)| *rate != current)
    }

    /// Every rate that can hold.
    pub fn rates(&self) -> impl Iterator<Item = Rate> + '_ {
        self.windows.iter().map(|window| window.rate).chain([self.rate])
    }
}
