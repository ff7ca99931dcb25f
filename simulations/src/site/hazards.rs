//! Faults beyond bad weather, and the day on which they stop for the core.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use branchline_protocol::{
    ids::{PackId, SessionId},
    session::Stage,
    time::Monotonic,
};
use branchline_station_role::station::{SiteInput, StationInput};

use super::{
    SiteWorld,
    happening::{End, Happening, Hazard, Who},
};
use crate::{
    faults::Hazards,
    scenario::SiteScenario,
    world::{chance::Chance, driven::Process},
};

/// What becomes of a host that does not belong to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It never starts again.
    Dead,
    /// It reaches nobody any more.
    CutOff,
    /// Its disk stays full.
    Full,
}

/// What is wrong just now.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// Hosts that are cut off from all others, from the station and from the line; each set is one partition.
    partitions: BTreeMap<u32, BTreeSet<usize>>,
    /// Processes that stand still, and what waits for them.
    frozen: BTreeMap<Who, VecDeque<Happening>>,
    full: BTreeSet<Who>,
    outside: BTreeSet<usize>,
    fates: BTreeMap<usize, Fate>,
    pub(super) liars: BTreeSet<usize>,
    slow: BTreeSet<usize>,
    /// Pairs of hosts that may be neighbours; everybody where there is none.
    neighbours: Option<BTreeSet<(usize, usize)>>,
    numbers: u32,
    /// Hosts that people have withdrawn, or will until it is done.
    pub withdrawn: BTreeSet<usize>,
    /// Sessions of which the station said that they hold a slot in silence.
    pub silent_slots: BTreeSet<SessionId>,
}

impl Weather {
    pub fn new(scenario: &SiteScenario) -> Self {
        let mut chance = Chance::new(scenario.seed ^ 0x0048_415a_4152_4453);
        let hazards = &scenario.hazards;
        let outside = some_hosts(scenario.hosts, hazards.outside, &mut chance);
        let liars = outside.iter().copied().take(hazards.liars).collect();
        let slow = some_hosts(scenario.hosts, hazards.slow, &mut chance);
        Self { outside, liars, slow, ..Self::default() }
    }

    /// Whether a host belongs to the core that is healed.
    pub fn is_core(&self, number: usize) -> bool {
        !self.outside.contains(&number)
    }

    fn healed(&self) -> bool {
        self.fates.len() == self.outside.len() && !self.outside.is_empty()
    }
}

fn some_hosts(hosts: usize, count: usize, chance: &mut Chance) -> BTreeSet<usize> {
    let mut rest: Vec<usize> = (0..hosts).collect();
    let mut taken = BTreeSet::new();
    while taken.len() < count.min(hosts) {
        let index = usize::try_from(chance.below(rest.len() as u64)).unwrap_or(0);
        taken.insert(rest.swap_remove(index));
    }
    taken
}

/// How long a partition, a full disk or a frozen process may last.
const HAZARD_LONGEST: Duration = Duration::from_secs(150);
/// How long a connection that cannot be made now waits until it is tried again.
const DIAL_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

impl SiteWorld {
    pub(super) fn plan_hazards(&mut self) {
        let Hazards { partitions, freezes, clock_jumps, full_disks, resets, absences, moves, .. } =
            self.scenario.hazards;
        let Hazards { withdrawals, cancels, updates, priorities, address_changes, router_wipes, meddlings, .. } =
            self.scenario.hazards;
        let counts = [
            (partitions, Hazard::PartitionBegins),
            (freezes, Hazard::Freeze),
            (clock_jumps, Hazard::ClockJump),
            (full_disks, Hazard::DiskFull),
            (resets, Hazard::Reset),
            (absences, Hazard::Absence),
            (moves, Hazard::Move),
            (withdrawals, Hazard::Withdraw),
            (cancels, Hazard::Cancel),
            (updates, Hazard::Update),
            (priorities, Hazard::Prioritise),
            (address_changes, Hazard::AddressChange),
            (router_wipes, Hazard::RouterWipe),
            (meddlings, Hazard::Meddle),
        ];
        self.choose_neighbours();
        for (count, hazard) in counts {
            for _ in 0..count {
                let at = self.chance.between(Duration::ZERO, self.scenario.faults_until);
                self.agenda.after(at, Happening::Hazard(hazard));
            }
        }
        self.agenda.after(self.scenario.faults_until, Happening::Hazard(Hazard::Heal));
    }

    pub(super) fn hazard(&mut self, hazard: Hazard) {
        match hazard {
            Hazard::PartitionBegins => self.begin_partition(),
            Hazard::PartitionEnds(number) => self.end_partition(number),
            Hazard::Freeze => self.freeze(),
            Hazard::Thaw(who) => self.thaw(who),
            Hazard::ClockJump => self.jump_clock(),
            Hazard::DiskFull => self.fill_disk(),
            Hazard::DiskFree(who) => self.free_disk(who),
            Hazard::Reset => {
                let number = self.any_host();
                self.note(format_args!("all bulk connections of host {number} break"));
                self.disconnect(End::Host(number));
            }
            Hazard::Absence => {
                let lasts = self.chance.between(Duration::from_secs(60), Duration::from_secs(600));
                self.note(format_args!("headquarters cannot be reached for {lasts:?}"));
                self.wan.cut(self.agenda.now().monotonic.after(lasts));
            }
            Hazard::Move => self.begin_move(),
            Hazard::MoveEnds => self.end_move(),
            Hazard::Withdraw => {
                let number = self.any_host();
                self.note(format_args!("people withdraw host {number}"));
                self.weather.withdrawn.insert(number);
            }
            Hazard::Cancel | Hazard::Update | Hazard::Prioritise => self.meddle_with_sessions(hazard),
            Hazard::AddressChange => {
                let number = self.any_host();
                self.change_address(number);
            }
            Hazard::RouterWipe => {
                self.note(format_args!("the router forgets its table"));
                self.router.wipe();
                self.watch_table();
            }
            Hazard::Meddle => {
                let low = u8::try_from(64 + self.chance.below(64)).unwrap_or(64);
                let made = self.router.add_by_hand([198, 51, 100, low].into(), [10, 9, 9, low].into());
                self.note(format_args!("somebody maps 198.51.100.{low} by hand: {made}"));
            }
            Hazard::Heal => self.heal(),
        }
    }

    fn any_host(&mut self) -> usize {
        usize::try_from(self.chance.below(self.hosts.len() as u64)).unwrap_or(0)
    }

    fn any_process(&mut self) -> Who {
        match self.chance.below(self.hosts.len() as u64 + 2) {
            0 => Who::Station,
            1 => Who::Headquarters,
            number => Who::Host(usize::try_from(number - 2).unwrap_or(0)),
        }
    }

    fn next_number(&mut self) -> u32 {
        self.weather.numbers += 1;
        self.weather.numbers
    }

    fn begin_partition(&mut self) {
        let count = 1 + self.chance.below(self.hosts.len().div_ceil(2) as u64);
        let hosts = some_hosts(self.hosts.len(), usize::try_from(count).unwrap_or(1), &mut self.chance);
        let lasts = self.chance.between(Duration::from_secs(5), HAZARD_LONGEST);
        self.note(format_args!("hosts {hosts:?} are cut off for {lasts:?}"));
        let number = self.cut_off(hosts);
        self.agenda.after(lasts, Happening::Hazard(Hazard::PartitionEnds(number)));
    }

    fn cut_off(&mut self, hosts: BTreeSet<usize>) -> u32 {
        let number = self.next_number();
        self.count_lost_frames(&hosts);
        self.weather.partitions.insert(number, hosts.clone());
        for host in hosts {
            self.count_lost_holders(Who::Host(host));
            self.disconnect(End::Host(host));
        }
        number
    }

    /// What only these hosts hold is lost for the connected part that remains, beyond the B of each lease holder among
    /// them: R70 bounds what each connected part fetches.
    pub(super) fn count_lost_frames(&mut self, hosts: &BTreeSet<usize>) {
        self.count_lost_frames_of(hosts, |_| true);
    }

    fn count_lost_frames_of(&mut self, hosts: &BTreeSet<usize>, counts: impl Fn(PackId) -> bool) {
        let mut lost = 0;
        for payload in self.payloads.iter().filter(|payload| counts(payload.id())) {
            let holds = |number: usize, index: u32| {
                let store = self.hosts[number].store.get(&payload.id());
                store.is_some_and(|store| store.frame(index).is_some())
            };
            let remain = |number: &usize| {
                !hosts.contains(number) && self.hosts[*number].machine.is_up() && self.reaches_station(*number)
            };
            let others: Vec<usize> = (0..self.hosts.len()).filter(remain).collect();
            let gone = (0..payload.pack.frames()).filter(|index| {
                hosts.iter().any(|number| holds(*number, *index)) && !others.iter().any(|number| holds(*number, *index))
            });
            lost += gone.map(|index| payload.pack.frame_length(index)).sum::<u64>();
        }
        self.watch.bytes_lost += lost;
    }

    /// One host dies or stands still. In mere bad weather a lease holder costs B and anybody else nothing, except where no
    /// second node lived that wanted the pack and was its neighbour: nobody could hold what the inlet brought, and B of R70
    /// bounds nothing. Beyond it an inlet may also have been cut off from those that did.
    pub(super) fn count_lost_host(&mut self, number: usize) {
        let hazards = self.scenario.has_hazards();
        let others = (0..self.hosts.len()).filter(|other| *other != number && self.hosts[*other].machine.is_up());
        let wanted: BTreeSet<PackId> = others
            .filter(|other| !self.is_banned(number, *other) && !self.is_banned(*other, number))
            .filter_map(|other| self.hosts[other].swarm.as_ref())
            .flat_map(|swarm| swarm.progress().map(|progress| progress.pack).collect::<Vec<_>>())
            .collect();
        self.count_lost_frames_of(&[number].into(), |pack| hazards || !wanted.contains(&pack));
    }

    /// Whether one host has no neighbour in another, because it got corrupt frames from there.
    fn is_banned(&self, by: usize, number: usize) -> bool {
        let now = self.agenda.now().monotonic;
        self.hosts[by].swarm.as_ref().is_some_and(|swarm| swarm.bans(now, self.hosts[number].node))
    }

    fn end_partition(&mut self, number: u32) {
        if let Some(hosts) = self.weather.partitions.remove(&number) {
            self.note(format_args!("hosts {hosts:?} are back"));
        }
    }

    /// Whether a host reaches the station, headquarters and the router.
    pub(super) fn reaches_station(&self, number: usize) -> bool {
        self.weather.partitions.values().all(|hosts| !hosts.contains(&number))
    }

    /// Whether two ends may be connected now.
    fn may_connect(&self, a: End, b: End) -> bool {
        let is_frozen = |end| {
            let who = if let End::Host(number) = end { Who::Host(number) } else { Who::Headquarters };
            self.weather.frozen.contains_key(&who)
        };
        let together = self.weather.partitions.values().all(|hosts| {
            let inside = |end| matches!(end, End::Host(number) if hosts.contains(&number));
            inside(a) == inside(b)
        });
        let neighbours = match (a, b, &self.weather.neighbours) {
            (End::Host(a), End::Host(b), Some(pairs)) => pairs.contains(&(a.min(b), a.max(b))),
            _ => true,
        };
        // Who needs an update looks for others that need it.
        let update = |end| matches!(end, End::Host(number) if self.hosts[number].plans.len() > 1);
        together && (neighbours || update(a) && update(b)) && !is_frozen(a) && !is_frozen(b)
    }

    /// With few neighbours everybody still gets what it needs: those who need the same packs form a ring.
    fn choose_neighbours(&mut self) {
        let count = self.scenario.hazards.neighbours;
        if count == 0 {
            return;
        }
        let core = |number: &usize| !self.weather.healed() || self.weather.is_core(*number);
        let members: Vec<usize> = (0..self.hosts.len()).filter(core).collect();
        let (odd, even): (Vec<usize>, Vec<usize>) =
            members.iter().partition(|number| self.hosts[**number].plan % 2 == 1);
        let mut pairs = BTreeSet::new();
        let mut pair = |a: usize, b: usize| pairs.insert((a.min(b), a.max(b)));
        for ring in [&odd, &even, &members] {
            for (index, number) in ring.iter().enumerate() {
                pair(*number, ring[(index + 1) % ring.len()]);
            }
        }
        for number in 0..self.hosts.len() {
            for _ in 2..count {
                let other = usize::try_from(self.chance.below(self.hosts.len() as u64)).unwrap_or(0);
                pair(number, other);
            }
        }
        self.weather.neighbours = Some(pairs);
    }

    fn freeze(&mut self) {
        let who = self.any_process();
        let lasts = self.chance.between(Duration::from_secs(1), HAZARD_LONGEST);
        if self.process(who).is_up() && !self.weather.frozen.contains_key(&who) {
            self.note(format_args!("{who} stands still for {lasts:?}"));
            if let Who::Host(number) = who {
                self.count_lost_host(number);
            }
            self.weather.frozen.insert(who, VecDeque::new());
            self.agenda.after(lasts, Happening::Hazard(Hazard::Thaw(who)));
        }
    }

    fn thaw(&mut self, who: Who) {
        let Some(waiting) = self.weather.frozen.remove(&who) else { return };
        self.note(format_args!("{who} goes on, {} things wait for it", waiting.len()));
        for happening in waiting {
            if let Some(happening) = self.intercept(happening) {
                self.happen(happening);
            }
        }
    }

    /// What waits for a process that dies is lost.
    pub(super) fn drop_frozen(&mut self, who: Who) {
        self.weather.frozen.remove(&who);
    }

    fn jump_clock(&mut self) {
        let who = self.any_process();
        let most = self.scenario.hazards.clock_jump_seconds;
        let seconds = i64::try_from(self.chance.below(2 * most + 1)).unwrap_or(0) - i64::try_from(most).unwrap_or(0);
        self.note(format_args!("the wall clock of {who} is {seconds} s off"));
        self.process(who).set_wall_offset(seconds);
    }

    fn fill_disk(&mut self) {
        let who = self.any_process();
        let lasts = self.chance.between(Duration::from_secs(1), HAZARD_LONGEST);
        self.note(format_args!("the disk of {who} is full for {lasts:?}"));
        self.weather.full.insert(who);
        self.agenda.after(lasts, Happening::Hazard(Hazard::DiskFree(who)));
    }

    fn free_disk(&mut self, who: Who) {
        let stays = matches!(who, Who::Host(number) if self.weather.fates.get(&number) == Some(&Fate::Full));
        if !stays && self.weather.full.remove(&who) {
            self.note(format_args!("the disk of {who} has room again"));
        }
    }

    /// Whether a process may not write.
    pub(super) fn is_disk_full(&self, who: Who) -> bool {
        self.weather.full.contains(&who)
    }

    /// How much slower a host is in everything but the bulk plane.
    pub(super) fn slowness(&self, number: usize) -> u32 {
        if self.stormy() && self.weather.slow.contains(&number) { self.scenario.hazards.slow_factor.max(1) } else { 1 }
    }

    /// Whether a host may start.
    pub(super) fn may_start(&self, who: Who) -> bool {
        !matches!(who, Who::Host(number) if self.weather.fates.get(&number) == Some(&Fate::Dead))
    }

    /// A planned move of the role: the old station stands down, the new one begins with the journal of the old.
    fn begin_move(&mut self) {
        if !self.station.machine.is_up() {
            return;
        }
        self.note(format_args!("the charter designates another station"));
        self.trust.move_station();
        let reason = "a newer charter designates another station".to_owned();
        self.station_input(SiteInput::Station(StationInput::StandDown { reason }));
        let takes = self.chance.between(Duration::from_millis(500), Duration::from_secs(20));
        self.agenda.after(takes, Happening::Hazard(Hazard::MoveEnds));
    }

    fn end_move(&mut self) {
        if !self.station.machine.is_up() {
            return;
        }
        if self.is_disk_full(Who::Station) {
            // The journal is handed over once it is durable.
            self.agenda.after(Duration::from_secs(5), Happening::Hazard(Hazard::MoveEnds));
            return;
        }
        self.stop(Who::Station);
        self.restart(Who::Station);
    }

    fn meddle_with_sessions(&mut self, hazard: Hazard) {
        let number = self.any_host();
        let node = self.hosts[number].node;
        let Some(machine) = self.station.machine.machine() else { return };
        let state = machine.station().state();
        let Some((session, found)) = state.current(node) else { return };
        let end = found.end.as_ref().map(|end| end.stage);
        let by = "tom".to_owned();
        let input = match (hazard, end) {
            (Hazard::Cancel, None) => StationInput::Cancel { session, by },
            (Hazard::Update, Some(Stage::Complete)) => StationInput::NewGeneration { node, by },
            (Hazard::Prioritise, _) => StationInput::Prioritise { session, priority: 1 },
            _ => return,
        };
        if hazard == Hazard::Update {
            self.choose_update(number);
        }
        self.note(format_args!("{hazard:?} of host {number}"));
        self.station_input(SiteInput::Station(input));
    }

    /// The core gets well; what lies outside of it gets as bad as it can.
    fn heal(&mut self) {
        let everybody = [Who::Station, Who::Headquarters].into_iter().chain((0..self.hosts.len()).map(Who::Host));
        let everybody: Vec<Who> = everybody.collect();
        self.note(format_args!("the faults stop"));
        self.weather.partitions.clear();
        for who in everybody {
            self.free_disk(who);
            self.process(who).set_wall_offset(0);
            self.thaw(who);
        }
        for number in self.weather.outside.clone() {
            let fate = match self.chance.below(3) {
                _ if self.weather.liars.contains(&number) => Fate::CutOff,
                0 => Fate::Dead,
                1 => Fate::CutOff,
                _ => Fate::Full,
            };
            self.note(format_args!("host {number} stays outside: {fate:?}"));
            self.weather.fates.insert(number, fate);
            match fate {
                Fate::Dead => self.crash(Who::Host(number)),
                Fate::CutOff => drop(self.cut_off([number].into())),
                Fate::Full => drop(self.weather.full.insert(Who::Host(number))),
            }
        }
        self.choose_neighbours();
        self.connect_everybody();
    }

    /// What stands between a happening and whom it concerns. `None`: it is lost, put off, or something else happened.
    pub(super) fn intercept(&mut self, happening: Happening) -> Option<Happening> {
        if let Some(waiting) = happening.addressee().and_then(|who| self.weather.frozen.get_mut(&who)) {
            waiting.push_back(happening);
            return None;
        }
        match happening {
            Happening::Report(host, _)
            | Happening::Directive(host, _)
            | Happening::AskLease(host, ..)
            | Happening::AskHoldings(host, _)
            | Happening::Holdings(host, ..)
            | Happening::Lease(host, ..)
                if !self.reaches_station(host) =>
            {
                None
            }
            Happening::Connect(a, b) if !self.may_connect(a, b) => {
                let wait = self.chance.between(DIAL_AGAIN.0, DIAL_AGAIN.1);
                // Those who are no neighbours never will be, until the core is healed.
                if self.agenda.now().monotonic < Monotonic(0).after(self.scenario.faults_until) {
                    self.agenda.after(wait, Happening::Connect(a, b));
                }
                None
            }
            Happening::Commit(who, life) if self.weather.full.contains(&who) => {
                if self.process(who).life() == life {
                    self.note(format_args!("{who} cannot write its journal"));
                    self.crash(who);
                }
                None
            }
            Happening::Bulk { connection, from: End::Host(liar), to, message }
                if self.weather.liars.contains(&liar) =>
            {
                let message = Box::new(self.lie(liar, *message)?);
                Some(Happening::Bulk { connection, from: End::Host(liar), to, message })
            }
            Happening::Directive(host, _) if self.is_deaf(host) => None,
            other => Some(other),
        }
    }
}
