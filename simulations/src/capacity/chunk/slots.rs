//! What the rule for slots needs to know: the figures of this site.
use std::time::Duration;

use branchline_protocol::swarm::{LinkFigures, Tuning};

use super::super::{
    local::{Card, LAN_LATENCY, LocalHost, LocalSite},
    scenario::Slots as Choice,
    units::Rate,
};

/// What the rule needs to know of a site.
pub(super) struct Slots {
    /// What a host's card receives, and what it sends: the mean rate of one frame to, or from, each host.
    receive: Rate,
    send: Rate,
    /// What a node's share of the radio medium is.
    share: Rate,
    frame_bytes: u64,
    choice: Choice,
}

impl Slots {
    pub fn new(site: &LocalSite) -> Self {
        let hosts = site.hosts.len().max(1) as u64;
        let share = site.medium.map_or(Rate::MAX, |medium| (medium / (hosts + 1)).max(1));
        let receive = mean(&site.hosts, |card| card.down);
        let send = mean(&site.hosts, |card| card.up.min(share));
        Self { receive, send, share, frame_bytes: site.frame_bytes, choice: site.slots }
    }

    /// What a machine with this card takes.
    pub fn tuning(&self, rule: fn(LinkFigures) -> Tuning, card: Card) -> Tuning {
        match self.choice {
            Choice::Link => rule(self.of(card)),
            Choice::Nodes => Tuning::default(),
        }
    }

    fn of(&self, card: Card) -> LinkFigures {
        // Thousandths of a bit per second.
        let bytes_per_second = |rate: Rate| (rate / 8000).max(1);
        LinkFigures {
            send_bytes_per_second: bytes_per_second(card.up.min(self.share)),
            receive_bytes_per_second: bytes_per_second(card.down),
            neighbour_sends_bytes_per_second: bytes_per_second(self.send),
            neighbour_receives_bytes_per_second: bytes_per_second(self.receive),
            frame_bytes: self.frame_bytes,
            turnaround: Duration::from_nanos(2 * LAN_LATENCY),
        }
    }
}

/// Frames are alike, so that the mean of their times is the harmonic mean of the rates.
fn mean(hosts: &[LocalHost], rate: impl Fn(Card) -> Rate) -> Rate {
    let times: u128 = hosts.iter().map(|host| (1 << 80) / u128::from(rate(host.card).max(1))).sum();
    let mean = ((hosts.len() as u128) << 80).checked_div(times).unwrap_or(1);
    Rate::try_from(mean).unwrap_or(Rate::MAX).max(1)
}
