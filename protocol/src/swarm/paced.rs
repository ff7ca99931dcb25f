//! A node that rules let send or receive little (R71).
//!
//! What it sends or asks for at a time shares its rate. Were it as many frames as a free link takes, each would take
//! longer than a neighbour's patience, and what is on its way would be asked of others. So there are as many slots as
//! have brought a frame in nine tenths of that time; what else passes has the rest.
use super::{bits::PeerSet, peers::patience, state::Swarm};
use crate::time::Monotonic;

impl Swarm {
    pub(super) fn set_rates(&mut self, now: Monotonic, send: Option<u64>, receive: Option<u64>) {
        self.send_bytes_per_second = send;
        self.receive_bytes_per_second = receive;
        self.start_uploads(now);
        let slots = self.receive_slots();
        self.invite_up_to(slots.unwrap_or(u16::MAX));
        if slots.is_none() {
            self.packs.iter_mut().flatten().for_each(|own| own.declined = PeerSet::default());
        }
    }

    /// Whether one more frame can be served.
    pub(super) fn has_free_slot(&self) -> bool {
        let slots = self.half_in_time(self.tuning.upload_slots);
        self.uploads.len() + usize::from(self.turns) < usize::from(slots)
    }

    /// Neighbours that are pushed to at a time; 0: nothing is pushed.
    pub(super) fn push_slots(&self) -> u16 {
        self.half_in_time(self.tuning.push_slots)
    }

    /// Neighbours of which frames are asked at a time; `None`: of any number.
    pub(super) fn receive_slots(&self) -> Option<u16> {
        let in_time = self.receive_bytes_per_second.map(|rate| self.in_time(rate));
        in_time.into_iter().chain(self.tuning.receive_slots).min()
    }

    /// Whether as many neighbours as frames pass in time are sending: others are not even asked out of turn.
    pub(super) fn receives_all_in_time(&self) -> bool {
        self.receive_bytes_per_second.is_some_and(|rate| self.sources >= self.in_time(rate))
    }

    /// What is served and what is pushed share the rate, and neither keeps the other waiting.
    fn half_in_time(&self, slots: u16) -> u16 {
        self.send_bytes_per_second.map_or(slots, |rate| slots.min((self.in_time(rate) / 2).max(1)))
    }

    fn in_time(&self, rate: u64) -> u16 {
        let longest = self.packs.iter().flatten().map(|own| own.longest_frame_bytes).max();
        slots_in_time(rate, longest.unwrap_or(0))
    }
}

/// How many frames at a time pass in nine tenths of a neighbour's patience; one always may.
fn slots_in_time(bytes_per_second: u64, frame_bytes: u64) -> u16 {
    let bytes = bytes_per_second.saturating_mul(patience(frame_bytes)) / 10 * 9 / 1_000_000;
    u16::try_from(bytes / frame_bytes.max(1)).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HOST_RATE_BITS_PER_SECOND_MIN;

    #[test]
    fn the_slowest_node_has_slots_for_what_passes_in_time() {
        let rate = HOST_RATE_BITS_PER_SECOND_MIN / 8;
        let slots = |kib: u64| slots_in_time(rate, kib << 10);
        assert_eq!([64, 128, 256].map(slots), [12, 6, 4]);
        assert_eq!((slots_in_time(0, 0), slots_in_time(0, 1 << 20), slots_in_time(u64::MAX, 1)), (1, 1, u16::MAX));
    }
}
