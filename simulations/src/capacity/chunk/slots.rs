//! How much at a time each machine pushes and serves: the product's rule, with the figures of this site.
use std::time::Duration;

use branchline_protocol::swarm::{LinkFigures, Tuning};

use super::super::{
    local::{Card, LAN_LATENCY, LocalSite},
    units::Rate,
};

/// What the rule needs to know of a site.
pub(super) struct Slots {
    /// What a host's card receives: the mean rate of one frame to each host.
    receive: Rate,
    /// What a node's share of the radio medium is.
    share: Rate,
    frame_bytes: u64,
}

impl Slots {
    pub fn new(site: &LocalSite) -> Self {
        let hosts = site.hosts.len().max(1) as u64;
        // Frames are alike, so that the mean of their times is the harmonic mean of the rates.
        let times: u128 = site.hosts.iter().map(|host| (1 << 80) / u128::from(host.card.down)).sum();
        let receive = (u128::from(hosts) << 80).checked_div(times).unwrap_or(1);
        let share = site.medium.map_or(Rate::MAX, |medium| (medium / (hosts + 1)).max(1));
        Self { receive: Rate::try_from(receive).unwrap_or(Rate::MAX).max(1), share, frame_bytes: site.frame_bytes }
    }

    pub fn of(&self, card: Card) -> Tuning {
        // Thousandths of a bit per second.
        let bytes_per_second = |rate: Rate| (rate / 8000).max(1);
        Tuning::for_link(LinkFigures {
            send_bytes_per_second: bytes_per_second(card.up.min(self.share)),
            receive_bytes_per_second: bytes_per_second(self.receive),
            frame_bytes: self.frame_bytes,
            turnaround: Duration::from_nanos(2 * LAN_LATENCY),
        })
    }
}
