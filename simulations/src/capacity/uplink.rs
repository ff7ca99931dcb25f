//! Headquarters' uplink over time: which site fetches at which rate, max-min fair (a fluid, in integers).
//!
//! Every site has a limit of its own (its line, its inlet's network card). At any moment there is a level: whoever's
//! limit lies below it gets the limit, all others get the level. Limits below the level are kept apart from the others
//! in order, so that what a coming or going site changes is found at the boundary between the two.
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, VecDeque},
    sync::Arc,
};

use super::{
    curve::{Curve, Levels, Piece},
    units::{NEVER, Rate, Time, Volume, duration},
};

/// What one site wants of the uplink.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// When it asks.
    pub at: Time,
    pub volume: Volume,
    /// What its own line and inlet allow.
    pub limit: Rate,
    /// Times in which it cannot fetch: from, until.
    pub pause: Option<(Time, Time)>,
}

/// What happens at the uplink; at one moment in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Done(usize, u32),
    Pause(usize),
    Resume(usize),
    Ask(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Has not begun, or is done.
    Out,
    /// Its own limit binds.
    Limited,
    /// The level binds.
    Levelled,
    /// Has begun and cannot fetch.
    Paused,
}

struct Flow {
    class: Class,
    left: Volume,
    /// Since when `left` counts.
    since: Time,
    /// The level's volume at that time.
    since_level: Volume,
    /// Counts the classes it had; plans of former ones are void.
    turn: u32,
    pieces: Vec<Piece>,
    began: Time,
    done: Time,
}

struct Uplink<'a> {
    capacity: Rate,
    demands: &'a [Demand],
    flows: Vec<Flow>,
    limited: BTreeSet<(Rate, usize)>,
    levelled: BTreeSet<(Rate, usize)>,
    limited_rate: u128,
    level: Rate,
    now: Time,
    /// What a levelled flow has got since the start.
    level_volume: Volume,
    levels: Levels,
    events: BinaryHeap<Reverse<(Time, Event)>>,
    /// Levelled flows by the level's volume at which they are done.
    level_ends: BinaryHeap<Reverse<(Volume, usize, u32)>>,
    places: u64,
    waiting: VecDeque<usize>,
}

/// The uplink shared among `demands`, at most `places` of them at a time; the others wait in the order of asking, then
/// of their numbers. One curve per demand.
pub(crate) fn share(capacity: Rate, places: Option<u64>, demands: &[Demand]) -> Vec<Curve> {
    let idle = |_| Flow {
        class: Class::Out,
        left: 0,
        since: 0,
        since_level: 0,
        turn: 0,
        pieces: Vec::new(),
        began: NEVER,
        done: NEVER,
    };
    let mut uplink = Uplink {
        capacity,
        demands,
        flows: (0..demands.len()).map(idle).collect(),
        limited: BTreeSet::new(),
        levelled: BTreeSet::new(),
        limited_rate: 0,
        level: capacity,
        now: 0,
        level_volume: 0,
        levels: Levels::default(),
        events: BinaryHeap::new(),
        level_ends: BinaryHeap::new(),
        places: places.unwrap_or(u64::MAX),
        waiting: VecDeque::new(),
    };
    let asks = demands.iter().enumerate().filter(|(_, demand)| demand.at != NEVER);
    uplink.events.extend(asks.map(|(site, demand)| Reverse((demand.at, Event::Ask(site)))));
    uplink.run();
    let levels = Arc::new(uplink.levels);
    let curve = |(flow, demand): (Flow, &Demand)| {
        Curve::new(flow.began, flow.done, flow.pieces, demand.volume, demand.limit, levels.clone())
    };
    uplink.flows.into_iter().zip(demands).map(curve).collect()
}

impl Uplink<'_> {
    fn run(&mut self) {
        while let Some((at, event)) = self.next() {
            self.advance(at);
            self.take(event);
            // Whatever else happens at this moment is taken before the level is found anew.
            while let Some((_, event)) = self.next_at(at) {
                self.take(event);
            }
            self.find_level();
        }
        self.levels.close(self.now, self.level_volume, self.level);
    }

    /// The next event: of those that are planned, or the first levelled flow that ends.
    fn next(&mut self) -> Option<(Time, Event)> {
        while let Some(Reverse((_, site, turn))) = self.level_ends.peek() {
            if self.flows[*site].turn == *turn {
                break;
            }
            self.level_ends.pop();
        }
        let level_end = self.level_ends.peek().map(|Reverse((target, site, turn))| {
            let left = target.saturating_sub(self.level_volume);
            (self.now.saturating_add(duration(left, self.level)), Event::Done(*site, *turn))
        });
        let planned = self.events.peek().map(|Reverse(planned)| *planned);
        match (planned, level_end) {
            (Some(planned), Some(end)) if end < planned => {
                self.level_ends.pop();
                Some(end)
            }
            (Some(planned), _) => {
                self.events.pop();
                Some(planned)
            }
            (None, Some(end)) => {
                self.level_ends.pop();
                Some(end)
            }
            (None, None) => None,
        }
    }

    fn next_at(&mut self, at: Time) -> Option<(Time, Event)> {
        let (next, event) = self.next()?;
        if next == at {
            return Some((next, event));
        }
        match event {
            Event::Done(site, turn) if self.flows[site].class == Class::Levelled && self.flows[site].turn == turn => {
                let flow = &self.flows[site];
                self.level_ends.push(Reverse((flow.since_level + flow.left, site, turn)));
            }
            event => self.events.push(Reverse((next, event))),
        }
        None
    }

    fn advance(&mut self, at: Time) {
        self.level_volume += Volume::from(self.level) * Volume::from(at - self.now);
        self.now = at;
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Ask(site) if self.places == 0 => self.waiting.push_back(site),
            Event::Ask(site) => self.begin(site),
            Event::Done(site, turn) => {
                if self.flows[site].turn == turn {
                    self.leave(site, Class::Out);
                    self.flows[site].done = self.now;
                    self.places = self.places.saturating_add(1);
                    if let Some(next) = self.waiting.pop_front() {
                        self.begin(next);
                    }
                }
            }
            Event::Pause(site) => {
                if matches!(self.flows[site].class, Class::Limited | Class::Levelled) {
                    self.leave(site, Class::Paused);
                }
            }
            Event::Resume(site) => {
                if self.flows[site].class == Class::Paused {
                    self.join_levelled(site);
                }
            }
        }
    }

    fn begin(&mut self, site: usize) {
        self.places -= 1;
        let demand = &self.demands[site];
        let flow = &mut self.flows[site];
        flow.left = demand.volume;
        flow.began = self.now;
        match demand.pause {
            Some((from, until)) if self.now < until => {
                self.events.push(Reverse((until, Event::Resume(site))));
                if self.now >= from {
                    flow.class = Class::Paused;
                    return;
                }
                self.events.push(Reverse((from, Event::Pause(site))));
            }
            _ => {}
        }
        self.join_levelled(site);
    }

    fn join_levelled(&mut self, site: usize) {
        self.levelled.insert((self.demands[site].limit, site));
        let level_volume = self.level_volume;
        let flow = &mut self.flows[site];
        flow.class = Class::Levelled;
        flow.turn += 1;
        (flow.since, flow.since_level) = (self.now, level_volume);
        self.level_ends.push(Reverse((level_volume + flow.left, site, flow.turn)));
    }

    fn join_limited(&mut self, site: usize) {
        let limit = self.demands[site].limit;
        self.limited.insert((limit, site));
        self.limited_rate += u128::from(limit);
        let flow = &mut self.flows[site];
        flow.class = Class::Limited;
        flow.turn += 1;
        flow.since = self.now;
        let end = self.now.saturating_add(duration(flow.left, limit));
        self.events.push(Reverse((end, Event::Done(site, flow.turn))));
    }

    /// Takes a flow out of its class and writes down what it got.
    fn leave(&mut self, site: usize, next: Class) {
        let limit = self.demands[site].limit;
        let flow = &mut self.flows[site];
        let levelled = flow.class == Class::Levelled;
        let got = if levelled {
            self.levelled.remove(&(limit, site));
            self.level_volume - flow.since_level
        } else {
            self.limited.remove(&(limit, site));
            self.limited_rate -= u128::from(limit);
            Volume::from(limit) * Volume::from(self.now - flow.since)
        };
        if self.now > flow.since {
            let from = (self.demands[site].volume - flow.left, flow.since_level);
            flow.pieces.push(Piece {
                from: flow.since,
                until: self.now,
                volume: from.0,
                level: levelled.then_some(from.1),
            });
        }
        flow.left -= got.min(flow.left);
        flow.class = next;
        flow.turn += 1;
    }

    fn level_now(&self) -> Rate {
        let left = u128::from(self.capacity).saturating_sub(self.limited_rate);
        let level = left / (self.levelled.len() as u128).max(1);
        Rate::try_from(level).unwrap_or(Rate::MAX).max(1)
    }

    fn find_level(&mut self) {
        let before = self.level;
        let mut level = self.level_now();
        while let Some((limit, site)) = self.limited.last().copied().filter(|(limit, _)| *limit > level) {
            debug_assert!(limit > level);
            self.leave(site, Class::Out);
            self.join_levelled(site);
            level = self.level_now();
        }
        while let Some((_, site)) = self.levelled.first().copied().filter(|(limit, _)| *limit <= level) {
            self.leave(site, Class::Out);
            self.join_limited(site);
            level = self.level_now();
        }
        self.level = level;
        if level != before || self.levels.is_empty() {
            self.levels.push(self.now, self.level_volume, level);
        }
    }
}
