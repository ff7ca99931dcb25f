//! Waits and intervals of the station's machine.
use std::time::Duration;

use branchline_protocol::limits;

/// Waits and intervals; the defaults are in `protocol::limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StationTiming {
    /// First wait before a directive is repeated; doubled with each repetition.
    pub retry_first: Duration,
    /// Longest wait before a directive is repeated.
    pub retry_longest: Duration,
    /// Shortest time between two site reports.
    pub site_report_shortest: Duration,
    /// Between two site reports while an answer is waited for.
    pub site_report_waiting: Duration,
    /// Between two site reports otherwise.
    pub site_report_idle: Duration,
    /// After this a withdrawn host that has not confirmed is revoked all the same.
    pub withdraw_patience: Duration,
    /// A host that shows two addresses in turns within this time is two machines.
    pub duplicate_window: Duration,
    /// Silence of a host that holds a slot, after which people are told.
    pub slot_silence: Duration,
}

impl Default for StationTiming {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            retry_first: seconds(limits::DIALOGUE_RETRY_SECONDS),
            retry_longest: seconds(limits::DIALOGUE_RETRY_SECONDS_MAX),
            site_report_shortest: seconds(limits::SITE_REPORT_SECONDS_MIN),
            site_report_waiting: seconds(limits::SITE_REPORT_WAITING_SECONDS),
            site_report_idle: seconds(limits::SITE_REPORT_IDLE_SECONDS),
            withdraw_patience: seconds(limits::WITHDRAW_PATIENCE_SECONDS),
            duplicate_window: seconds(limits::DUPLICATE_WINDOW_SECONDS),
            slot_silence: seconds(limits::SLOT_SILENCE_SECONDS),
        }
    }
}
