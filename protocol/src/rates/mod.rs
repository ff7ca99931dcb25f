//! How fast bytes may flow: rates, weekly schedules, token buckets, and a background mode that yields (R71).
//!
//! Nothing here reads a clock or knows a time zone by name: times come in, and a zone is the table of its offsets
//! ([`ZoneOffsets`]), which the node makes from the system's time zone data.
//!
//! | file | holds |
//! | --- | --- |
//! | `rate` | a rate as people write it: `20mbit`, `off`, `unlimited` |
//! | `schedule` | rates per weekday and time of day |
//! | `zone` | a time zone as a table of offsets from UTC |
//! | `bucket` | token buckets, and several of them asked at once |
//! | `background` | the rate of a transfer that yields to other traffic |
//! | `rules` | the signed document in which a site says all this |
mod background;
mod bucket;
mod rate;
mod rules;
mod schedule;
mod zone;

pub use background::{Background, BackgroundSetup, Step};
pub use bucket::{BURST, Limiter, Permit, TokenBucket};
pub use rate::{ParseRateError, Rate};
pub use rules::{BandwidthRules, BandwidthRulesError, HostLimits, LineLimits, RolloutLimit};
pub use schedule::{Days, Schedule, TimeOfDay, Window};
pub use zone::{LocalTime, ZoneError, ZoneOffsets};

#[cfg(test)]
mod background_tests;
#[cfg(test)]
mod schedule_tests;
