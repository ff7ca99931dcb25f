//! One site's network and nodes, as both resolutions take them.
use branchline_protocol::limits::BULK_CONNECTIONS_MAX;

use super::{
    curve::Curve,
    quantity::Neighbours,
    scenario::Slots,
    units::{NEVER, Rate, Time, Volume, rate, time, volume},
};

/// One way between two nodes of a site: what a small message takes.
pub(crate) const LAN_LATENCY: Time = 100_000;

/// A host with fewer neighbours looks for others.
pub(crate) const NEIGHBOURS_MIN: u32 = 2;
/// Nobody has more neighbours than a machine takes, the origin and some room for those who seek included.
pub(crate) const NEIGHBOURS_MAX: u32 = BULK_CONNECTIONS_MAX as u32 - 24;

/// What a network card carries, in thousandths of a bit per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    pub(crate) up: Rate,
    pub(crate) down: Rate,
}

impl Card {
    pub(crate) fn both_ways(rate: Rate) -> Self {
        Self { up: rate, down: rate }
    }

    /// A card that sends and receives at these rates, in bits per second.
    pub fn new(up_bits_per_second: f64, down_bits_per_second: f64) -> Self {
        Self { up: rate(up_bits_per_second), down: rate(down_bits_per_second) }
    }
}

/// A time in which a host is away, in nanoseconds after its arrival; for good where it never returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    pub(crate) leaves: Time,
    pub(crate) returns: Time,
}

/// One host beside the station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalHost {
    pub(crate) card: Card,
    pub(crate) arrives: Time,
    pub(crate) absences: Vec<Absence>,
    /// When it is gone for good.
    pub(crate) gone: Time,
}

impl LocalHost {
    /// A host that arrives after so many seconds and stays.
    pub fn new(card: Card, arrives_seconds: f64) -> Self {
        Self { card, arrives: time(arrives_seconds), absences: Vec::new(), gone: NEVER }
    }

    /// From `at` on, the host is away for good; where it would have come later, it never comes.
    pub(crate) fn fails_at(&mut self, at: Time) {
        self.gone = at;
        let Some(leaves) = at.checked_sub(self.arrives) else {
            self.arrives = NEVER;
            return;
        };
        self.absences.retain(|absence| absence.leaves < leaves);
        match self.absences.last_mut() {
            // It was away already, and does not come back.
            Some(absence) if absence.returns >= leaves => absence.returns = NEVER,
            _ => self.absences.push(Absence { leaves, returns: NEVER }),
        }
    }
}

/// One site: a station and hosts on one switch or radio medium, and a line.
#[derive(Clone, Debug)]
pub struct LocalSite {
    /// Fixes the choices of the machines and the graph of neighbours.
    pub seed: u64,
    pub(crate) frames: u32,
    pub(crate) frame_bytes: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) station: Card,
    pub(crate) hosts: Vec<LocalHost>,
    /// What the radio medium carries, where there is one.
    pub(crate) medium: Option<Rate>,
    pub(crate) neighbours: Neighbours,
    pub(crate) slots: Slots,
    /// Whether the station holds everything from the start.
    pub(crate) prestaged: bool,
    /// What crosses the line, and when it may.
    pub(crate) line: Curve,
    /// The line's latency, one way.
    pub(crate) latency: Time,
    /// When the station fails, and when a host has taken over.
    pub(crate) outage: Option<(Time, Time)>,
    /// How long a host serves after it has everything.
    pub(crate) lingers: Option<Time>,
}

impl LocalSite {
    /// A site whose station holds `payload_bytes` in frames of `frame_bytes` from the start.
    pub fn prestaged(payload_bytes: u64, frame_bytes: u64, station: Card, hosts: Vec<LocalHost>) -> Self {
        Self {
            seed: 0,
            frames: u32::try_from(payload_bytes.div_ceil(frame_bytes)).unwrap_or(u32::MAX),
            frame_bytes,
            payload_bytes,
            station,
            hosts,
            medium: None,
            neighbours: Neighbours::All,
            slots: Slots::Link,
            prestaged: true,
            line: Curve::nothing(0),
            latency: 0,
            outage: None,
            lingers: None,
        }
    }

    /// The same where everything has to cross a line of this rate first, which nobody else shares.
    #[must_use]
    pub fn behind_line(self, bits_per_second: f64, latency_seconds: f64) -> Self {
        let limit = rate(bits_per_second).min(self.station.up).min(self.station.down);
        let line = Curve::alone(time(2.0 * latency_seconds), volume(self.payload_bytes), limit);
        Self { prestaged: false, line, latency: time(latency_seconds), ..self }
    }

    /// The same where every host exchanges frames with so many others.
    #[must_use]
    pub fn with_neighbours(self, neighbours: Neighbours) -> Self {
        Self { neighbours, ..self }
    }

    /// The same where a host goes so many seconds after it has everything.
    #[must_use]
    pub fn lingering(self, seconds: f64) -> Self {
        Self { lingers: Some(time(seconds)), ..self }
    }

    /// The same with another seed.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    pub(crate) fn payload(&self) -> Volume {
        volume(self.payload_bytes)
    }

    /// Length of a frame in bytes.
    pub(crate) fn length_of(&self, index: u32) -> u64 {
        let from = u64::from(index) * self.frame_bytes;
        self.frame_bytes.min(self.payload_bytes - from)
    }
}

/// What came of the spread in one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// When each host held everything; the end of time where it never did.
    pub(crate) ready: Vec<Time>,
    /// When everything had crossed the line.
    pub(crate) fetched: Time,
    /// Frame bytes over the line.
    pub wan_bytes: u64,
    /// Frame bytes between nodes of the site.
    pub lan_bytes: u64,
    /// Frame bytes that came where they were not needed any more; part of the others.
    pub wasted_bytes: u64,
    /// Inputs that machines decided on.
    pub inputs: u64,
}

impl Spread {
    /// When each host held everything, in seconds; `None` where it never did.
    pub fn ready_seconds(&self) -> impl Iterator<Item = Option<f64>> + '_ {
        self.ready.iter().map(|at| (*at != NEVER).then(|| super::units::seconds(*at)))
    }

    /// When the last host that ever did held everything, in seconds.
    pub(crate) fn last_seconds(&self) -> f64 {
        self.ready_seconds().flatten().fold(0.0, f64::max)
    }

    /// When the last host held everything, in seconds; infinite where one never did.
    pub fn makespan_seconds(&self) -> f64 {
        self.ready_seconds().map(|at| at.unwrap_or(f64::INFINITY)).fold(0.0, f64::max)
    }
}
