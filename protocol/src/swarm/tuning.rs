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
    /// What it can receive, in bytes per second.
    pub receive_bytes_per_second: u64,
    /// What one neighbour can send, in bytes per second.
    pub neighbour_sends_bytes_per_second: u64,
    /// What one neighbour can receive, in bytes per second.
    pub neighbour_receives_bytes_per_second: u64,
    /// Length of a frame.
    pub frame_bytes: u64,
    /// From the end of a frame to the begin of the next in the same slot: a turn and its answer.
    pub turnaround: Duration,
}

/// Shares of a thousand of a link that slots must fill at least.
const FILLED_THOUSANDTHS: u128 = 990;
/// Slots of a card that sends as fast as others receive, if frames are long: one that is sent, one that waits for its
/// receiver, one that is given out. With two the card is idle at times, with each beyond three choices are older.
const BUSY_SLOTS: u128 = 3;
/// Most slots for a card that sends as fast as others receive: more make choices older and fill no link better.
const EQUAL_SLOTS_MAX: u128 = 8;
/// Turnarounds from a frame's end to the begin of the next in its slot, as turns that are passed and those that are
/// given anew count too: measured, with receive slots.
const TURNAROUNDS: u128 = 6;

impl Tuning {
    /// The figures for a link.
    ///
    /// Every slot is worth the same share of what a neighbour receives, so that senders' slots and receivers' fit: who
    /// sends slower than its neighbours receive has fewer slots, in proportion, and who sends faster has more; who
    /// receives is sent to by as many as fill its link. Three slots keep a card busy. Those that wait for a turn
    /// come on top: a frame leaves in every frame's time, and some turnarounds pass until its slot is taken again, so
    /// that, by Little's law, as many slots wait as frames could be sent meanwhile. It is never more than eight,
    /// nor fewer than fill the link in spite of one turnaround between two frames of one slot
    /// (`docs/src/decisions/slots.md`).
    pub fn for_link(link: LinkFigures) -> Self {
        let neighbour = u128::from(link.neighbour_receives_bytes_per_second.max(1));
        let waiting = TURNAROUNDS * link.idle_thousandths(link.neighbour_receives_bytes_per_second);
        let equal = (BUSY_SLOTS + (waiting + 500) / 1000).min(EQUAL_SLOTS_MAX);
        let slots = |equal: u128, rate: u64| {
            let slots = (equal * u128::from(rate.max(1))).div_ceil(neighbour).max(link.filling_slots(rate));
            slots.clamp(1, LINK_SLOTS_MAX as u128)
        };
        let send = link.send_bytes_per_second;
        let push = equal * 5 / 4;
        let neighbour_sends = link.neighbour_sends_bytes_per_second;
        let receive = u128::from(link.receive_bytes_per_second.max(1)) * slots(equal, neighbour_sends);
        let receive = receive.div_ceil(u128::from(neighbour_sends.max(1)));
        let receive = receive.max(link.filling_slots(link.receive_bytes_per_second));
        Self {
            upload_slots: slots(equal, send) as u16,
            push_slots: slots(push, send) as u16,
            receive_slots: Some(u16::try_from(receive).unwrap_or(u16::MAX)),
            ..Self::default()
        }
    }
}

impl LinkFigures {
    /// Frames that a link of this rate could carry in one turnaround, in thousandths.
    fn idle_thousandths(&self, bytes_per_second: u64) -> u128 {
        let bytes = u128::from(bytes_per_second) * self.turnaround.as_micros() / 1000;
        bytes / u128::from(self.frame_bytes.max(1))
    }

    /// Slots that fill a link of this rate where each waits a turnaround between two frames.
    fn filling_slots(&self, bytes_per_second: u64) -> u128 {
        (FILLED_THOUSANDTHS * (1000 + self.idle_thousandths(bytes_per_second))).div_ceil(1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A card that sends and receives at these rates, among neighbours with cards of their own.
    fn tuning(card: (u64, u64), neighbour: (u64, u64), frame_bytes: u64, microseconds: u64) -> Tuning {
        Tuning::for_link(LinkFigures {
            send_bytes_per_second: card.0,
            receive_bytes_per_second: card.1,
            neighbour_sends_bytes_per_second: neighbour.0,
            neighbour_receives_bytes_per_second: neighbour.1,
            frame_bytes,
            turnaround: Duration::from_micros(microseconds),
        })
    }

    fn slots(card: (u64, u64), neighbour: (u64, u64), frame_bytes: u64, microseconds: u64) -> (u16, u16, u16) {
        let tuning = tuning(card, neighbour, frame_bytes, microseconds);
        (tuning.upload_slots, tuning.push_slots, tuning.receive_slots.expect("the rule gives receive slots"))
    }

    #[test]
    fn nodes_are_asked_by_any_number() {
        let default = Tuning::default();
        let slots = (default.upload_slots, default.push_slots, default.receive_slots);
        assert_eq!(slots, (UPLOAD_SLOTS as u16, PUSH_SLOTS as u16, None));
    }

    #[test]
    fn three_slots_keep_equal_cards_busy() {
        let card = (12_500_000, 12_500_000);
        assert_eq!(slots(card, card, 1 << 20, 200), (3, 3, 3), "1 MiB takes 84 ms");
        assert_eq!(slots(card, card, 64 << 10, 200), (3, 3, 3), "64 KiB take 5.2 ms");
    }

    #[test]
    fn short_frames_take_more_slots_up_to_eight() {
        // 128 KiB at 125 MB/s take 1.05 ms.
        let card = (125_000_000, 125_000_000);
        assert_eq!(slots(card, card, 128 << 10, 200), (4, 5, 4));
        assert_eq!(slots(card, card, 64 << 10, 200), (5, 6, 5));
        assert_eq!(slots(card, card, 64 << 10, 1000), (8, 10, 8), "never more than eight");
    }

    #[test]
    fn slots_are_in_proportion_and_those_of_senders_and_receivers_fit() {
        let (frame, turnaround) = (1 << 20, 200);
        // Of ten neighbours that send a tenth of what it receives each fills a tenth of its link.
        assert_eq!(slots((1_000_000, 10_000_000), (1_000_000, 10_000_000), frame, turnaround), (1, 1, 10));
        assert_eq!(slots((5_000_000, 10_000_000), (5_000_000, 10_000_000), frame, turnaround), (2, 2, 4));
        assert_eq!(slots((40_000_000, 10_000_000), (40_000_000, 10_000_000), frame, turnaround), (12, 12, 3));
        // A station beside equal hosts, and a slow host among them.
        assert_eq!(slots((150_000_000, 150_000_000), (10_000_000, 10_000_000), frame, turnaround), (45, 45, 45));
        assert_eq!(slots((2_000_000, 2_000_000), (10_000_000, 10_000_000), frame, turnaround), (1, 1, 1));
    }

    #[test]
    fn slots_are_bounded_and_nonsense_does_no_harm() {
        let most = LINK_SLOTS_MAX as u16;
        assert_eq!(slots((100, 100), (1, 1), 1 << 20, 200), (most, most, 300));
        assert_eq!(slots((u64::MAX, u64::MAX), (1, 1), 1, u64::MAX), (most, most, u16::MAX));
        assert_eq!(slots((0, 0), (0, 0), 0, 0), (3, 3, 3));
        assert_eq!(slots((0, 0), (u64::MAX, u64::MAX), 0, u64::MAX), (1, 1, 1));
    }

    #[test]
    fn a_long_turnaround_takes_more_slots_whatever_the_neighbours_receive() {
        // 64 KiB at 125 MB/s take 0.52 ms.
        let (card, fast) = ((125_000_000, 125_000_000), (125_000_000, 12_500_000_000));
        assert_eq!(slots(card, fast, 64 << 10, 0).0, 1);
        assert_eq!(slots(card, fast, 64 << 10, 5).0, 1, "a hundredth idle is nothing");
        assert_eq!(slots(card, fast, 64 << 10, 1000).0, 3);
    }
}
