//! How large a world is and how bad its weather.
use std::time::Duration;

use crate::{
    faults::{Hazards, Sabotage},
    world::{chance::Chance, installer::InstallerScript, lan::Link, operator::OperatorHabits, router::RouterFaults},
};

/// Everything that a site world is built from. Two equal scenarios give two equal runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteScenario {
    /// Fixes every random choice.
    pub seed: u64,
    /// Hosts, 1 to 10; each is every other's neighbour unless the hazards say otherwise.
    pub hosts: usize,
    /// How many of the last hosts headquarters denies.
    pub denied: usize,
    /// Simultaneous sessions (R22).
    pub sessions_max: u32,
    /// Whether the first two hosts are one cluster (R5).
    pub cluster: bool,
    /// Payloads, 1 to 8. Every host needs the first; each second one, and a cluster, needs all of them.
    pub packs: usize,
    /// Raw bytes of each payload.
    pub payload_bytes: usize,
    /// Raw bytes of a chunk.
    pub chunk_bytes: usize,
    /// B of R70 in bytes.
    pub leased_bytes_max: u64,
    /// The line into the site.
    pub wan_bytes_per_second: u64,
    /// One host's network card.
    pub lan_bytes_per_second: u64,
    /// Control messages inside the site, while there are faults.
    pub lan: Link,
    /// Control messages between station and headquarters, while there are faults.
    pub wan: Link,
    /// Frames that a faulty memory changes before they are sent, in thousandths.
    pub corrupt_per_mille: u32,
    /// The router.
    pub router: RouterFaults,
    /// The installers.
    pub installer: InstallerScript,
    /// The approver.
    pub approver: OperatorHabits,
    /// Power cuts and killed processes, spread over the time of faults.
    pub crashes: usize,
    /// Outages of the line.
    pub outages: usize,
    /// When the faults stop.
    pub faults_until: Duration,
    /// How long after that everybody must be done.
    pub patience: Duration,
    /// Faults beyond bad weather.
    pub hazards: Hazards,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
}

impl SiteScenario {
    /// A site in which nothing ever goes wrong.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            hosts: 5,
            denied: 0,
            sessions_max: 2,
            cluster: false,
            packs: 2,
            payload_bytes: 1 << 20,
            chunk_bytes: 32 << 10,
            leased_bytes_max: 256 << 10,
            wan_bytes_per_second: 250_000,
            lan_bytes_per_second: 12_500_000,
            lan: Link::perfect(Duration::from_millis(1)),
            wan: Link::perfect(Duration::from_millis(20)),
            corrupt_per_mille: 0,
            router: RouterFaults::default(),
            installer: InstallerScript {
                fails_per_mille: 0,
                steps: 3,
                step_shortest: Duration::from_secs(1),
                step_longest: Duration::from_secs(4),
            },
            approver: OperatorHabits {
                looks_every: Duration::from_secs(20),
                delays_per_mille: 0,
                delay_seconds: 120,
                decides_per_mille: 1000,
            },
            crashes: 0,
            outages: 0,
            faults_until: Duration::ZERO,
            patience: Duration::from_secs(4 * 3600),
            hazards: Hazards { batch_addresses: 4, ..Hazards::default() },
            sabotage: None,
        }
    }

    /// Whether there are faults beyond bad weather.
    pub fn has_hazards(&self) -> bool {
        self.hazards != Self::calm(0).hazards
    }

    /// A site in which everything goes wrong that may, for ten minutes.
    pub fn stormy(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5354_4f52_4d59);
        let per_mille = |limit: u64, chance: &mut Chance| u32::try_from(chance.below(limit)).unwrap_or(0);
        let calm = Self::calm(seed);
        let hosts = 3 + usize::try_from(chance.below(4)).unwrap_or(0);
        let lan = Link {
            lost_per_mille: per_mille(300, &mut chance),
            doubled_per_mille: per_mille(200, &mut chance),
            straggling_per_mille: per_mille(100, &mut chance),
            shortest: Duration::from_millis(1),
            longest: Duration::from_millis(1 + chance.below(300)),
            straggler_longest: Duration::from_secs(1 + chance.below(90)),
        };
        let wan = Link {
            lost_per_mille: per_mille(300, &mut chance),
            shortest: Duration::from_millis(20),
            longest: Duration::from_millis(20 + chance.below(2000)),
            ..lan
        };
        let router = RouterFaults {
            request_lost_per_mille: per_mille(150, &mut chance),
            answer_lost_per_mille: per_mille(150, &mut chance),
            late_per_mille: per_mille(80, &mut chance),
            refused_per_mille: per_mille(100, &mut chance),
        };
        Self {
            hosts,
            denied: usize::try_from(chance.below(2)).unwrap_or(0),
            sessions_max: 1 + per_mille(3, &mut chance),
            cluster: chance.happens(300),
            payload_bytes: (256 << 10) + usize::try_from(chance.below(512 << 10)).unwrap_or(0),
            chunk_bytes: 16 << 10,
            leased_bytes_max: 64 << 10,
            wan_bytes_per_second: 20_000 + chance.below(200_000),
            lan,
            wan,
            corrupt_per_mille: per_mille(4, &mut chance),
            router,
            installer: InstallerScript { fails_per_mille: per_mille(300, &mut chance), ..calm.installer },
            approver: OperatorHabits {
                delays_per_mille: per_mille(400, &mut chance),
                decides_per_mille: 500,
                ..calm.approver
            },
            crashes: usize::try_from(chance.below(12)).unwrap_or(0),
            outages: usize::try_from(chance.below(4)).unwrap_or(0),
            faults_until: Duration::from_secs(600),
            ..calm
        }
    }
}
