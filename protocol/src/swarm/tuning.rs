//! How much at a time: figures that fit the link.
use std::time::Duration;

use crate::limits::{ANNOUNCE_MILLISECONDS, LAN_IN_FLIGHT_BYTES, LINK_SLOTS_MAX, PUSH_SLOTS, UPLOAD_SLOTS};

/// Figures that were chosen by measurement (`docs/src/decisions/turns.md`); the default is what nodes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Frame bytes that may be asked of one neighbour at a time; one frame always may.
    pub in_flight_bytes: u64,
    /// Frames that are served at a time.
    pub upload_slots: u16,
    /// Neighbours that give turns and of which frames are asked at a time: the turns of others are passed, and turns are
    /// given to the neediest of four neighbours. `None`, as in nodes: of any number, and turns go to the needier of two.
    pub receive_slots: Option<u16>,
    /// Neighbours that are pushed to at a time; 0: the first holder pushes nothing and serves like anyone else.
    pub push_slots: u16,
    /// Announcements are gathered for at most this long.
    pub announce_delay: Duration,
    /// One request in this many ignores rarity, so that no two nodes stay in step; 0: none.
    pub experiment_one_in: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            in_flight_bytes: LAN_IN_FLIGHT_BYTES,
            upload_slots: UPLOAD_SLOTS as u16,
            push_slots: PUSH_SLOTS as u16,
            receive_slots: None,
            announce_delay: Duration::from_millis(ANNOUNCE_MILLISECONDS),
            experiment_one_in: 16,
        }
    }
}

/// What is known of a node's link and of the neighbours behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFigures {
    /// What the node can send, in bytes per second.
    pub send_bytes_per_second: u64,
    /// What one neighbour can receive, in bytes per second.
    pub receive_bytes_per_second: u64,
    /// Length of a frame.
    pub frame_bytes: u64,
    /// From the end of a frame to the begin of the next in the same slot: a turn and its answer.
    pub turnaround: Duration,
}

/// Shares of a thousand of a link that slots must fill at least.
const FILLED_THOUSANDTHS: u128 = 950;

impl Tuning {
    /// The figures for a link.
    ///
    /// The default slots are for cards that send as fast as they receive: what is served at a time could be received
    /// eight times as fast as it is sent, so that neighbours that are busy with others do not hold the link up. Every
    /// slot beyond that makes each frame slower and each choice older. So who sends slower than its neighbours receive
    /// has fewer slots, in proportion, and who sends faster has more; but always as many as fill the link in spite of
    /// the turnaround between two frames of one slot (`docs/src/decisions/slots.md`).
    pub fn for_link(link: LinkFigures) -> Self {
        let send = u128::from(link.send_bytes_per_second.max(1));
        let receive = u128::from(link.receive_bytes_per_second.max(1));
        // Frames that the link could send in one turnaround, in thousandths.
        let idle = 1000 * send * link.turnaround.as_micros() / 1_000_000 / u128::from(link.frame_bytes.max(1));
        let filling = (FILLED_THOUSANDTHS * (1000 + idle)).div_ceil(1_000_000);
        let slots = |default: usize| {
            let slots = (default as u128 * send).div_ceil(receive).max(filling);
            slots.clamp(1, LINK_SLOTS_MAX as u128) as u16
        };
        Self { upload_slots: slots(UPLOAD_SLOTS), push_slots: slots(PUSH_SLOTS), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(send: u64, receive: u64, frame_bytes: u64, microseconds: u64) -> (u16, u16) {
        let turnaround = Duration::from_micros(microseconds);
        let link =
            LinkFigures { send_bytes_per_second: send, receive_bytes_per_second: receive, frame_bytes, turnaround };
        let tuning = Tuning::for_link(link);
        (tuning.upload_slots, tuning.push_slots)
    }

    #[test]
    fn who_sends_as_fast_as_others_receive_has_the_default() {
        let default = Tuning::default();
        assert_eq!(slots(12_500_000, 12_500_000, 1 << 20, 200), (default.upload_slots, default.push_slots));
    }

    #[test]
    fn slots_are_in_proportion_and_bounded() {
        assert_eq!(slots(1, 10, 1 << 20, 200), (1, 1), "one neighbour takes more than the link sends");
        assert_eq!(slots(1, 4, 1 << 20, 200), (2, 3));
        assert_eq!(slots(10, 1, 1 << 20, 200), (LINK_SLOTS_MAX as u16, LINK_SLOTS_MAX as u16));
        assert_eq!(slots(0, 0, 0, 0).0, UPLOAD_SLOTS as u16, "nonsense does no harm");
    }

    #[test]
    fn a_long_turnaround_takes_more_slots_whatever_the_neighbours_receive() {
        // 64 KiB at 125 MB/s take 0.52 ms.
        assert_eq!(slots(125_000_000, 12_500_000_000, 64 << 10, 0), (1, 1));
        assert_eq!(slots(125_000_000, 12_500_000_000, 64 << 10, 25), (1, 1), "a twentieth idle is nothing");
        assert_eq!(slots(125_000_000, 12_500_000_000, 64 << 10, 1000), (3, 3));
    }
}
