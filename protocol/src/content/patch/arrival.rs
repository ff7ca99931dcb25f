//! Whether a patch that is under way still comes, or its node does better to fetch the whole pack.
use std::time::Duration;

use crate::time::Monotonic;

/// After so long without a new byte of a patch a node gives it up (R73).
pub const PATCH_STALL: Duration = Duration::from_secs(120);

/// Watches one patch that is under way (R73).
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    bytes: u64,
    grew_at: Monotonic,
}

impl Arrival {
    /// Nothing of it is here yet, and patience begins.
    pub fn begin(now: Monotonic) -> Self {
        Self { bytes: 0, grew_at: now }
    }

    /// Takes how many bytes of the patch are here. `true`: no new one has come for [`PATCH_STALL`]. Fewer than before
    /// are no new ones: what was lost again has to come anew.
    pub fn has_stalled(&mut self, now: Monotonic, bytes: u64) -> bool {
        if bytes > self.bytes {
            self.grew_at = now;
        }
        self.bytes = bytes;
        now.since(self.grew_at) >= PATCH_STALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(arrival: &mut Arrival, seconds: u64, bytes: u64) -> bool {
        arrival.has_stalled(Monotonic::from_seconds(seconds), bytes)
    }

    #[test]
    fn a_patch_of_which_nothing_comes_is_given_up_after_two_minutes() {
        let mut arrival = Arrival::begin(Monotonic::from_seconds(1000));
        assert!(!look(&mut arrival, 1119, 0));
        assert!(look(&mut arrival, 1120, 0));
    }

    #[test]
    fn each_new_byte_begins_patience_anew() {
        let mut arrival = Arrival::begin(Monotonic::default());
        for seconds in (100..10_000).step_by(100) {
            assert!(!look(&mut arrival, seconds, seconds));
        }
        assert!(!look(&mut arrival, 10_019, 9_900));
        assert!(look(&mut arrival, 10_020, 9_900));
    }

    #[test]
    fn bytes_that_are_lost_again_are_no_progress_and_those_that_come_anew_are() {
        let mut arrival = Arrival::begin(Monotonic::default());
        assert!(!look(&mut arrival, 100, 500));
        assert!(!look(&mut arrival, 219, 400));
        assert!(look(&mut arrival, 220, 400));
        assert!(!look(&mut arrival, 221, 401));
    }
}
