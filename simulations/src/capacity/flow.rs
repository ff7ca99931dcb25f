//! The spread inside a site as a fluid: what the chunk resolution does frame by frame, in aggregate.
//!
//! Three things hold a host back. *The front*: nothing spreads before it has crossed the line and left its first
//! holder, and a host whose card is slower than the front falls behind it; from the front, the last frame reaches the
//! hosts in doubling rounds (Mundinger, Weber, Weiss, 2008), so that the host of rank j waits floor(log2 j) more
//! rounds. *Its own card*: who comes late pulls everything at its card's rate. *The site's capacity*: what all cards
//! together send (Kumar, Ross, 2006), or what the radio medium carries, is shared fairly. The latest of the three
//! decides. The `stretch`, by which real exchanges are slower than this, comes from the chunk resolution.
use std::collections::{BTreeMap, VecDeque};

use super::{
    local::{LocalHost, LocalSite, Spread},
    units::{NEVER, Rate, Time, Volume, duration, volume},
};

/// Steps in which the front is followed.
const STEPS: u32 = 32;

/// Spreads the payload; `stretch` is how much longer the site's own network takes than theory has it.
pub fn spread(site: &LocalSite, stretch: f64) -> Spread {
    let slower = |rate: Rate| ((rate as f64 / stretch) as Rate).max(1);
    let front = Front::new(site, slower(site.station.up));
    let mut fronts: BTreeMap<Rate, Time> = BTreeMap::new();
    let capacity = shared_capacity(site).map(slower);
    let shared = capacity.map(|capacity| share(site, capacity, slower));
    let mut ready = Vec::with_capacity(site.hosts.len());
    // Faster hosts are served first where frames are scarce: they have asked for more.
    let mut order: Vec<usize> = (0..site.hosts.len()).collect();
    order.sort_by_key(|host| std::cmp::Reverse(site.hosts[*host].card.down));
    ready.resize(site.hosts.len(), NEVER);
    let mut rank = 0_u32;
    for host in order {
        let of = &site.hosts[host];
        let down = slower(of.card.down);
        let at_front = *fronts.entry(down).or_insert_with(|| front.passes(down));
        if at_front == NEVER {
            continue;
        }
        let round = duration(volume(site.frame_bytes.min(site.payload_bytes)), slower(of.card.up.min(of.card.down)));
        let alone = of.arrives.saturating_add(duration(site.payload(), down));
        rank += 1;
        let from_front = at_front.saturating_add(round.saturating_mul(Time::from(rank.ilog2())));
        let own = if of.absences.is_empty() { alone } else { with_absences(of, site, &front, down) };
        let at = from_front.max(own).max(shared.as_ref().map_or(0, |shared| shared[host]));
        ready[host] = if at > of.gone { NEVER } else { at };
    }
    let complete = ready.iter().filter(|at| **at != NEVER).count() as u64;
    let fetched = if site.prestaged { front.begin } else { site.line.done };
    let wan_bytes = if all_staged(site) { 0 } else { super::units::bytes(site.line.total()) };
    Spread { ready, fetched, wan_bytes, lan_bytes: complete * site.payload_bytes, wasted_bytes: 0, inputs: 0 }
}

/// Whether as good as everything had left a station that held it: what is provided for then is the frame that may be missing
/// where every frame is simulated.
fn all_staged(site: &LocalSite) -> bool {
    site.prestaged && site.line.total() <= volume(site.frame_bytes)
}

/// When the parts of the payload had left their first holder.
struct Front {
    begin: Time,
    step: Volume,
    /// Of each step's end.
    left: Vec<Time>,
}

impl Front {
    fn new(site: &LocalSite, station_up: Rate) -> Self {
        let begin = site.hosts.iter().map(|host| host.arrives).min().unwrap_or(0);
        let payload = site.payload();
        let step = payload / Volume::from(STEPS);
        // What a prestaged station got out before it failed; the rest has to cross the line.
        let staged = match site.prestaged {
            true if all_staged(site) => payload,
            true => payload - site.line.total().min(payload),
            false => 0,
        };
        let frame = volume(site.frame_bytes.min(site.payload_bytes));
        let mut left = Vec::with_capacity(STEPS as usize + 1);
        let mut last = begin;
        for number in 0..=STEPS {
            let wanted = if number == STEPS { payload } else { step * Volume::from(number) };
            let here = if wanted <= staged { begin } else { site.line.time_of(wanted - staged) };
            if here == NEVER {
                left.push(NEVER);
                last = NEVER;
                continue;
            }
            // What has come last takes one more frame's time to leave.
            let sent = here.saturating_add(if here > begin { duration(frame, station_up) } else { 0 });
            last = if number == 0 { begin } else { sent.max(last.saturating_add(duration(step, station_up))) };
            left.push(last);
        }
        Self { begin, step, left }
    }

    /// When the whole payload reaches a host with this card that was there from the start.
    fn passes(&self, down: Rate) -> Time {
        let step = duration(self.step, down);
        // A time that never comes stays so: whatever is added to it saturates.
        // The first entry is the beginning, at which nothing has passed.
        self.left.iter().skip(1).fold(self.begin, |reached, left| (*left).max(reached.saturating_add(step)))
    }

    /// How much had left its first holder by `at`.
    fn volume_at(&self, at: Time) -> Volume {
        let steps = self.left.partition_point(|left| *left <= at);
        self.step * steps.saturating_sub(1) as Volume
    }
}

/// When a host that is away at times has everything.
fn with_absences(host: &LocalHost, site: &LocalSite, front: &Front, down: Rate) -> Time {
    let mut has: Volume = 0;
    let mut from = host.arrives;
    for absence in &host.absences {
        let until = host.arrives.saturating_add(absence.leaves);
        let end = from.saturating_add(duration(site.payload() - has, down)).max(front.left[STEPS as usize]);
        if end <= until {
            return end;
        }
        has =
            (has + Volume::from(down) * Volume::from(until.saturating_sub(from))).min(front.volume_at(until).max(has));
        from = host.arrives.saturating_add(absence.returns);
    }
    from.saturating_add(duration(site.payload() - has, down))
}

/// What all nodes together may send, where that can be less than what all hosts may receive.
fn shared_capacity(site: &LocalSite) -> Option<Rate> {
    let sum = |rate: fn(&LocalHost) -> Rate| site.hosts.iter().map(rate).fold(0, Rate::saturating_add);
    let hosts = site.hosts.len() as f64;
    let cards = site.station.up.saturating_add(sum(|host| host.card.up));
    let medium = site.medium.map(|medium| {
        // The station's first copies, and its share of the others, cross the medium once; what hosts send, twice.
        let from_station = (1.0 + (hosts - 1.0) / (hosts + 1.0)) / hosts;
        (medium as f64 / (2.0 - from_station)) as Rate
    });
    let capacity = medium.map_or(cards, |medium| medium.min(cards));
    (capacity < sum(|host| host.card.down)).then_some(capacity)
}

/// When each host has received everything, if nothing but the shared capacity and its own card holds it back.
fn share(site: &LocalSite, capacity: Rate, slower: impl Fn(Rate) -> Rate) -> Vec<Time> {
    let mut arrivals: Vec<usize> = (0..site.hosts.len()).collect();
    arrivals.sort_by_key(|host| (site.hosts[*host].arrives, *host));
    let mut classes: BTreeMap<Rate, Class> = BTreeMap::new();
    let mut ends = vec![NEVER; site.hosts.len()];
    let mut now = 0;
    let mut next = arrivals.into_iter().peekable();
    loop {
        let arrival = next.peek().map(|host| site.hosts[*host].arrives);
        set_rates(&mut classes, capacity);
        let end = classes.values().filter_map(|class| class.next_end(now)).min();
        // Whoever never arrives never ends.
        let Some(at) = arrival.into_iter().chain(end).min().filter(|at| *at != NEVER) else { return ends };
        for class in classes.values_mut() {
            class.got += Volume::from(class.rate) * Volume::from(at - now);
            while class.hosts.front().is_some_and(|(target, _)| *target <= class.got) {
                if let Some((_, host)) = class.hosts.pop_front() {
                    ends[host] = at;
                }
            }
        }
        now = at;
        while let Some(host) = next.next_if(|host| site.hosts[*host].arrives <= now) {
            let class = classes.entry(slower(site.hosts[host].card.down)).or_default();
            class.hosts.push_back((class.got + site.payload(), host));
        }
    }
}

/// Hosts with equal cards: each gets the same at any moment.
#[derive(Default)]
struct Class {
    /// What a host got that was there from the start.
    got: Volume,
    rate: Rate,
    /// Who is not done, with what `got` must reach.
    hosts: VecDeque<(Volume, usize)>,
}

impl Class {
    fn next_end(&self, now: Time) -> Option<Time> {
        let (target, _) = self.hosts.front()?;
        Some(now.saturating_add(duration(target.saturating_sub(self.got), self.rate.max(1))))
    }
}

/// Max-min shares of the capacity, the slowest cards first.
fn set_rates(classes: &mut BTreeMap<Rate, Class>, capacity: Rate) {
    let mut left = capacity;
    let mut hosts: u64 = classes.values().map(|class| class.hosts.len() as u64).sum();
    for (card, class) in classes {
        let here = class.hosts.len() as u64;
        class.rate = if here == 0 { 0 } else { (*card).min(left / hosts).max(1) };
        left = left.saturating_sub(class.rate * here);
        hosts -= here;
    }
}
