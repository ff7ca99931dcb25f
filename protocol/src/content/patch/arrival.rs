//! Whether a patch that is under way still comes, or its node does better to fetch the whole pack.
use std::time::Duration;

use crate::time::Monotonic;

/// After so long without a new byte of a patch a node gives it up (R73).
pub const PATCH_STALL: Duration = Duration::from_secs(120);

/// How often a node looks why no new byte comes.
pub const PATCH_LOOK: Duration = Duration::from_secs(30);

/// Watches one patch that is under way (R73).
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    bytes: u64,
    grew_at: Monotonic,
    /// Patience counts from here.
    could_come_at: Monotonic,
    look_at: Monotonic,
}

/// What is known of a patch of which no new byte comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It has not lasted long enough to look.
    Short,
    /// It is to be seen whether anything could have come; if not, [`Arrival::rest`].
    Look {
        /// For [`PATCH_STALL`] no new byte has come, whether one could or not.
        long: bool,
        /// And for that long each look said that one could.
        stalled: bool,
    },
}

impl Arrival {
    /// Nothing of it is here yet, and patience begins.
    pub fn begin(now: Monotonic) -> Self {
        Self { bytes: 0, grew_at: now, could_come_at: now, look_at: now.after(PATCH_LOOK) }
    }

    /// Until now nothing could come: patience begins anew.
    pub fn rest(&mut self, now: Monotonic) {
        self.could_come_at = now;
    }

    /// Takes how many bytes of the patch are here. Fewer than before are no new ones: what was lost again has to come
    /// anew.
    pub fn silence(&mut self, now: Monotonic, bytes: u64) -> Silence {
        if bytes > self.bytes {
            (self.grew_at, self.could_come_at, self.look_at) = (now, now, now.after(PATCH_LOOK));
        }
        self.bytes = bytes;
        if now < self.look_at {
            return Silence::Short;
        }
        self.look_at = now.after(PATCH_LOOK);
        let lasts = |since: Monotonic| now.since(since) >= PATCH_STALL;
        Silence::Look { long: lasts(self.grew_at), stalled: lasts(self.could_come_at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(arrival: &mut Arrival, seconds: u64, bytes: u64) -> Silence {
        arrival.silence(Monotonic::from_seconds(seconds), bytes)
    }

    fn stalled(arrival: &mut Arrival, seconds: u64, bytes: u64) -> bool {
        matches!(look(arrival, seconds, bytes), Silence::Look { stalled: true, .. })
    }

    #[test]
    fn a_patch_of_which_nothing_comes_is_given_up_after_two_minutes() {
        let mut arrival = Arrival::begin(Monotonic::from_seconds(1000));
        assert_eq!(look(&mut arrival, 1029, 0), Silence::Short);
        assert_eq!(look(&mut arrival, 1030, 0), Silence::Look { long: false, stalled: false });
        assert_eq!(look(&mut arrival, 1059, 0), Silence::Short);
        assert_eq!(look(&mut arrival, 1090, 0), Silence::Look { long: false, stalled: false });
        assert_eq!(look(&mut arrival, 1120, 0), Silence::Look { long: true, stalled: true });
    }

    #[test]
    fn each_new_byte_begins_patience_anew() {
        let mut arrival = Arrival::begin(Monotonic::default());
        for seconds in (100..10_000).step_by(100) {
            assert_eq!(look(&mut arrival, seconds, seconds), Silence::Short);
        }
        assert!(!stalled(&mut arrival, 10_019, 9_900));
        assert!(stalled(&mut arrival, 10_049, 9_900));
    }

    #[test]
    fn time_in_which_nothing_could_come_is_no_stall_and_yet_long() {
        let mut arrival = Arrival::begin(Monotonic::default());
        for seconds in (30..10_000).step_by(30) {
            assert_eq!(look(&mut arrival, seconds, 0), Silence::Look { long: seconds >= 120, stalled: false });
            arrival.rest(Monotonic::from_seconds(seconds));
        }
        assert!(!stalled(&mut arrival, 10_100, 0));
        assert!(stalled(&mut arrival, 10_130, 0));
    }

    #[test]
    fn bytes_that_are_lost_again_are_no_progress_and_those_that_come_anew_are() {
        let mut arrival = Arrival::begin(Monotonic::default());
        assert_eq!(look(&mut arrival, 100, 500), Silence::Short);
        assert!(!stalled(&mut arrival, 190, 400));
        assert!(stalled(&mut arrival, 220, 400));
        assert_eq!(look(&mut arrival, 221, 401), Silence::Short);
    }
}
