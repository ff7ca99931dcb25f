//! The row of equal uplinks as a formula, and what a search through every schedule finds.
use std::collections::BTreeSet;

/// Rounds in which a source and as many hosts, each of which sends one part in a round, can give every host every part
/// (Mundinger, Weber, Weiss, 2008), where downlinks do not limit.
pub fn fewest_rounds(hosts: usize, parts: u64) -> u64 {
    parts + u64::from(hosts.ilog2())
}

/// Hosts that lack everything, a source that lacks nothing, and parts. A state says what each host holds: `parts` bits
/// per host, hosts in ascending order of what they hold, because which host is which changes nothing.
struct Game {
    hosts: u32,
    parts: u32,
}

impl Game {
    fn full(&self) -> u32 {
        (1 << self.parts) - 1
    }

    fn held(&self, state: u32, host: u32) -> u32 {
        state >> (host * self.parts) & self.full()
    }

    fn sorted(&self, state: u32) -> u32 {
        let mut held: Vec<u32> = (0..self.hosts).map(|host| self.held(state, host)).collect();
        held.sort_unstable();
        held.into_iter().rev().fold(0, |state, held| state << self.parts | held)
    }

    /// Every state in which a round may end. A sender has what it held when the round began. It is idle only where
    /// nobody lacks what it holds: whoever holds more can do whatever it could with less, so that idling never leads to
    /// fewer rounds, and for the same reason nobody sends what the receiver gets from another in this round.
    fn after_a_round(&self, state: u32) -> BTreeSet<u32> {
        let senders = std::iter::once(self.full()).chain((0..self.hosts).map(|host| self.held(state, host)));
        let mut ends = BTreeSet::from([state]);
        for sender in senders {
            let mut next = BTreeSet::new();
            for end in ends {
                let sent: Vec<u32> = (0..self.hosts)
                    .flat_map(|host| (0..self.parts).map(move |part| (host, part)))
                    .filter(|(host, part)| sender >> part & 1 == 1 && self.held(end, *host) >> part & 1 == 0)
                    .map(|(host, part)| end | 1 << (host * self.parts + part))
                    .collect();
                next.extend(if sent.is_empty() { vec![end] } else { sent });
            }
            ends = next;
        }
        ends.into_iter().map(|end| self.sorted(end)).collect()
    }

    /// Breadth first: the first round at whose end everybody may hold everything.
    fn search(&self) -> u64 {
        let goal = (1 << (self.hosts * self.parts)) - 1;
        let mut states = BTreeSet::from([0]);
        let mut rounds = 0;
        while !states.contains(&goal) {
            states = states.into_iter().flat_map(|state| self.after_a_round(state)).collect();
            rounds += 1;
        }
        rounds
    }
}

#[test]
fn the_formula_of_equal_uplinks_gives_the_figures_of_its_row() {
    let rows = [
        (10, 10, 13),
        (10, 100, 103),
        (100, 10, 16),
        (100, 100, 106),
        (100, 256, 262),
        (1000, 10, 19),
        (1000, 100, 109),
        (1000, 256, 265),
        (63, 1, 6),
        (64, 1, 7),
        (127, 1, 7),
        (128, 1, 8),
        (50, 50, 55),
    ];
    for (hosts, parts, expected) in rows {
        let found = fewest_rounds(hosts, parts);
        assert_eq!(
            found, expected,
            "{hosts} hosts, {parts} parts: {found} rounds by the formula, {expected} in the row"
        );
    }
}

#[test]
fn a_search_through_every_schedule_finds_what_the_formula_says() {
    for parts in 1..=3 {
        for hosts in 1..=5 {
            let (found, expected) = (Game { hosts, parts }.search(), fewest_rounds(hosts as usize, u64::from(parts)));
            assert_eq!(
                found, expected,
                "{hosts} hosts, {parts} parts: {found} rounds by search, {expected} by formula"
            );
        }
    }
}

#[test]
fn the_search_knows_one_round_of_one_part_by_heart() {
    // One host holds the part, and so does the source: both send it, to two of the other three.
    let game = Game { hosts: 4, parts: 1 };
    assert_eq!(game.after_a_round(game.sorted(0b0001)), BTreeSet::from([game.sorted(0b0111)]));
    // Two parts: what the source sends in this round cannot be passed on before the next.
    let game = Game { hosts: 2, parts: 2 };
    let ends: Vec<u32> = game.after_a_round(0).into_iter().collect();
    assert_eq!(ends, [game.sorted(0b01), game.sorted(0b10)], "one host has one part");
}
