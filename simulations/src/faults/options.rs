//! What a seed turns on. Each fault is on in about half of the seeds, and its strength is drawn for itself: a fault that
//! is always there hides what only happens without it (swarm testing, Groce et al., ISSTA 2012).
use std::time::Duration;

use branchline_protocol::charter::DeniedAction;

use crate::{
    scenario::SiteScenario,
    world::{chance::Chance, installer::InstallerScript, lan::Link, operator::OperatorHabits, router::RouterFaults},
};

/// Faults beyond bad weather; the default has none. Counts are of events that are spread over the time of faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hazards {
    /// Times at which some hosts are cut off from all others, from the station and from the line.
    pub partitions: usize,
    /// Times at which a process stands still for a while, and then goes on as if nothing had happened.
    pub freezes: usize,
    /// Jumps of one machine's wall clock.
    pub clock_jumps: usize,
    /// The farthest jump, either way, in seconds.
    pub clock_jump_seconds: u64,
    /// Times at which a disk is full for a while: its journal cannot be written and its process ends.
    pub full_disks: usize,
    /// Times at which all bulk connections of one host break.
    pub resets: usize,
    /// Long absences of headquarters.
    pub absences: usize,
    /// Hosts whose bulk plane lies.
    pub liars: usize,
    /// What they do.
    pub lies: Lies,
    /// Hosts that are slow in everything but the bulk plane.
    pub slow: usize,
    /// How much slower they are.
    pub slow_factor: u32,
    /// Planned moves of the station role (R4).
    pub moves: usize,
    /// Hosts that people withdraw (R98).
    pub withdrawals: usize,
    /// Sessions that people cancel; they are tried again later.
    pub cancels: usize,
    /// Updates of hosts that are complete (R97).
    pub updates: usize,
    /// Sessions that people put before others.
    pub priorities: usize,
    /// Hosts that get another inside address (R116).
    pub address_changes: usize,
    /// Times at which the router forgets its table.
    pub router_wipes: usize,
    /// Rows that people put into the router by hand, with addresses that were granted to the site.
    pub meddlings: usize,
    /// Whether headquarters is asked before the installation (R90a).
    pub approve_first: bool,
    /// What happens to the agent of a denied host.
    pub on_denied: DeniedAction,
    /// Bulk neighbours of each host; all others where this is 0.
    pub neighbours: usize,
    /// Addresses in one grant.
    pub batch_addresses: u32,
    /// Hosts that do not belong to the core: they stay dead, cut off, with a full disk or lying when it is healed.
    pub outside: usize,
}

/// How a lying host lies. It speaks the truth about sessions; its swarm is what is twisted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lies {
    /// Frames that it serves with a changed byte, in thousandths.
    pub corrupt_per_mille: u32,
    /// It claims to have every frame.
    pub claims_all: bool,
    /// Of the requests that it cannot or will not serve, it leaves this many without an answer, in thousandths.
    pub silent_per_mille: u32,
    /// Bitmaps that do not fit their pack, in thousandths.
    pub malformed_per_mille: u32,
}

/// Draws one number after the other, each fault for itself.
struct Draw(Chance);

impl Draw {
    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.0.below(most - least + 1)
    }

    fn count(&mut self, least: u64, most: u64) -> usize {
        usize::try_from(self.between(least, most)).unwrap_or(0)
    }

    fn on(&mut self) -> bool {
        self.0.happens(500)
    }

    /// In half of the seeds a number up to `most`, otherwise none. Small numbers come more often than large ones.
    fn some(&mut self, most: u64) -> usize {
        if !self.on() {
            return 0;
        }
        let ceiling = self.between(1, most);
        self.count(1, ceiling)
    }

    fn per_mille(&mut self, most: u64) -> u32 {
        u32::try_from(self.some(most)).unwrap_or(0)
    }

    fn link(&mut self, shortest: Duration, longest: u64) -> Link {
        let slowest = if self.on() { self.between(1, longest) } else { 1 };
        Link {
            lost_per_mille: self.per_mille(300),
            doubled_per_mille: self.per_mille(200),
            straggling_per_mille: self.per_mille(100),
            shortest,
            longest: shortest + Duration::from_millis(slowest),
            straggler_longest: shortest + Duration::from_millis(slowest.max(self.between(100, 90_000))),
        }
    }

    fn hazards(&mut self, hosts: usize) -> Hazards {
        let most = hosts as u64;
        let outside = if hosts > 1 { self.some(most / 2) } else { 0 };
        let liars = if self.on() { outside.min(self.count(1, 2)) } else { 0 };
        Hazards {
            partitions: self.some(4),
            freezes: self.some(6),
            clock_jumps: self.some(4),
            clock_jump_seconds: self.between(1, 100_000),
            full_disks: self.some(4),
            resets: self.some(10),
            absences: self.some(2),
            liars,
            lies: self.lies(),
            slow: self.some(most.div_ceil(2)),
            slow_factor: u32::try_from(self.between(2, 20)).unwrap_or(2),
            moves: self.some(2),
            withdrawals: self.some(2),
            cancels: self.some(4),
            updates: self.some(3),
            priorities: self.some(3),
            address_changes: self.some(3),
            router_wipes: self.some(2),
            meddlings: self.some(3),
            approve_first: self.on(),
            on_denied: [DeniedAction::Leave, DeniedAction::Stop, DeniedAction::Uninstall][self.count(0, 2)],
            neighbours: if self.on() { self.count(2, 6) } else { 0 },
            batch_addresses: u32::try_from(self.between(1, 8)).unwrap_or(4),
            outside,
        }
    }

    fn lies(&mut self) -> Lies {
        Lies {
            corrupt_per_mille: self.per_mille(1000),
            claims_all: self.on(),
            silent_per_mille: self.per_mille(1000),
            malformed_per_mille: self.per_mille(200),
        }
    }
}

/// The scenario of a seed.
pub fn draw(seed: u64) -> SiteScenario {
    let mut draw = Draw(Chance::new(seed ^ 0x0046_4155_4c54_5321));
    let calm = SiteScenario::calm(seed);
    let hosts = draw.count(1, 10);
    let packs = draw.count(1, 4);
    // Small frames: what waits for the line must never look like an origin that has fallen silent.
    let chunk_bytes = 1024 << draw.count(0, 3);
    let router = RouterFaults {
        request_lost_per_mille: draw.per_mille(150),
        answer_lost_per_mille: draw.per_mille(150),
        late_per_mille: draw.per_mille(80),
        refused_per_mille: draw.per_mille(100),
    };
    SiteScenario {
        hosts,
        packs,
        denied: if draw.on() { draw.count(0, hosts as u64 / 2) } else { 0 },
        sessions_max: u32::try_from(draw.between(1, 5)).unwrap_or(1),
        cluster: hosts > 1 && draw.0.happens(300),
        payload_bytes: chunk_bytes * draw.count(1, 24) + draw.count(0, 1023),
        chunk_bytes,
        // A frame of random bytes is a little longer than its chunk.
        leased_bytes_max: (chunk_bytes as u64 + 64) * draw.between(1, 16),
        wan_bytes_per_second: draw.between(30_000, 500_000),
        lan: draw.link(Duration::from_millis(1), 300),
        wan: draw.link(Duration::from_millis(20), 2000),
        corrupt_per_mille: draw.per_mille(5),
        router,
        installer: InstallerScript { fails_per_mille: draw.per_mille(300), ..calm.installer },
        approver: OperatorHabits {
            delays_per_mille: draw.per_mille(400),
            decides_per_mille: u32::try_from(draw.between(300, 1000)).unwrap_or(1000),
            ..calm.approver
        },
        crashes: draw.some(16),
        outages: draw.some(4),
        faults_until: Duration::from_secs(draw.between(120, 900)),
        hazards: draw.hazards(hosts),
        ..calm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_on_in_some_seeds_and_off_in_others() {
        let drawn: Vec<SiteScenario> = (0..200).map(draw).collect();
        let tests: [(&str, fn(&SiteScenario) -> bool); 20] = [
            ("loss", |s| s.lan.lost_per_mille > 0),
            ("doubling", |s| s.lan.doubled_per_mille > 0),
            ("stragglers", |s| s.wan.straggling_per_mille > 0),
            ("router", |s| s.router.request_lost_per_mille > 0),
            ("crashes", |s| s.crashes > 0),
            ("outages", |s| s.outages > 0),
            ("partitions", |s| s.hazards.partitions > 0),
            ("freezes", |s| s.hazards.freezes > 0),
            ("clock jumps", |s| s.hazards.clock_jumps > 0),
            ("full disks", |s| s.hazards.full_disks > 0),
            ("absences", |s| s.hazards.absences > 0),
            ("liars", |s| s.hazards.liars > 0),
            ("slow hosts", |s| s.hazards.slow > 0),
            ("moves", |s| s.hazards.moves > 0),
            ("withdrawals", |s| s.hazards.withdrawals > 0),
            ("updates", |s| s.hazards.updates > 0),
            ("approval first", |s| s.hazards.approve_first),
            ("few neighbours", |s| s.hazards.neighbours > 0),
            ("a core", |s| s.hazards.outside > 0),
            ("denials", |s| s.denied > 0),
        ];
        for (name, is_on) in tests {
            let on = drawn.iter().filter(|scenario| is_on(scenario)).count();
            assert!((20..=180).contains(&on), "{name} is on in {on} of 200 seeds");
        }
        assert_eq!(draw(7), draw(7));
        assert!(drawn.iter().all(|scenario| scenario.hazards.outside < scenario.hosts));
        assert!(drawn.iter().all(|scenario| scenario.hazards.liars <= scenario.hazards.outside));
    }
}
