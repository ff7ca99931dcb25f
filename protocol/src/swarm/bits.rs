//! Sets as machine words: peers by key, and how many neighbours hold each frame.
use super::{interface::PeerKey, random::SplitMix};
use crate::content::bits;

/// A set of peers by key. The first 64 need no memory of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerSet {
    first: u64,
    rest: Vec<u64>,
}

impl PeerSet {
    #[inline]
    pub fn word(&self, number: usize) -> u64 {
        match number.checked_sub(1) {
            None => self.first,
            Some(number) => self.rest.get(number).copied().unwrap_or(0),
        }
    }

    pub fn words(&self) -> usize {
        1 + self.rest.len()
    }

    #[inline]
    pub fn contains(&self, peer: PeerKey) -> bool {
        self.word(usize::from(peer.0 / 64)) >> (peer.0 % 64) & 1 == 1
    }

    #[inline]
    pub fn insert(&mut self, peer: PeerKey) {
        let bit = 1 << (peer.0 % 64);
        match usize::from(peer.0 / 64).checked_sub(1) {
            None => self.first |= bit,
            Some(number) => {
                if self.rest.len() <= number {
                    self.rest.resize(number + 1, 0);
                }
                self.rest[number] |= bit;
            }
        }
    }

    #[inline]
    pub fn remove(&mut self, peer: PeerKey) {
        let bit = 1 << (peer.0 % 64);
        match usize::from(peer.0 / 64).checked_sub(1) {
            None => self.first &= !bit,
            Some(number) => {
                if let Some(word) = self.rest.get_mut(number) {
                    *word &= !bit;
                }
            }
        }
    }

    pub fn clear(&mut self) {
        self.first = 0;
        self.rest.fill(0);
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.iter().all(|word| *word == 0)
    }

    pub fn iter(&self) -> impl Iterator<Item = PeerKey> + '_ {
        let first = bits(std::slice::from_ref(&self.first));
        first.chain(bits(&self.rest).map(|position| position + 64)).map(|position| PeerKey(position as u16))
    }

    pub fn union(&mut self, other: &Self) {
        self.first |= other.first;
        if self.rest.len() < other.rest.len() {
            self.rest.resize(other.rest.len(), 0);
        }
        for (own, other) in self.rest.iter_mut().zip(&other.rest) {
            *own |= other;
        }
    }

    /// Takes out the first member.
    #[inline]
    pub fn pop(&mut self) -> Option<PeerKey> {
        if self.first != 0 {
            let first = self.first.trailing_zeros();
            self.first &= self.first - 1;
            return Some(PeerKey(first as u16));
        }
        let number = self.rest.iter().position(|word| *word != 0)?;
        let word = &mut self.rest[number];
        let position = (number as u32 + 1) * 64 + word.trailing_zeros();
        *word &= *word - 1;
        Some(PeerKey(position as u16))
    }

    /// A member of `self`, within `also` and outside `but`, each as likely as the other.
    pub fn choose(&self, also: &Self, but: &Self, random: &mut SplitMix) -> Option<PeerKey> {
        if self.rest.is_empty() {
            let members = self.first & also.first & !but.first;
            let left = random_below_count(members.count_ones(), random)?;
            return Some(PeerKey(nth_member(members, left) as u16));
        }
        let member = |number: usize| self.word(number) & also.word(number) & !but.word(number);
        choose_word(self.words(), member, random).map(|position| PeerKey(position as u16))
    }

    /// Of `choices` members as [`PeerSet::choose`] finds them, the first of those for which `figure` is least.
    #[inline]
    pub fn choose_least(
        &self,
        also: &Self,
        but: &Self,
        random: &mut SplitMix,
        choices: u32,
        figure: impl Fn(PeerKey) -> u32,
    ) -> Option<PeerKey> {
        if !self.rest.is_empty() {
            return self.choose_least_of_many(also, but, random, choices, figure);
        }
        // All draws are from the same members, which are in one word.
        let members = self.first & also.first & !but.first;
        let count = members.count_ones();
        if count <= 1 {
            random.skip(if count == 0 { 0 } else { choices });
            return (count == 1).then(|| PeerKey(members.trailing_zeros() as u16));
        }
        let mut draw = || PeerKey(nth_member(members, random.below(count)) as u16);
        let first = draw();
        let (mut least, mut least_figure) = (first, figure(first));
        for _ in 1..choices {
            let other = draw();
            let other_figure = figure(other);
            if other_figure < least_figure {
                (least, least_figure) = (other, other_figure);
            }
        }
        Some(least)
    }

    fn choose_least_of_many(
        &self,
        also: &Self,
        but: &Self,
        random: &mut SplitMix,
        choices: u32,
        figure: impl Fn(PeerKey) -> u32,
    ) -> Option<PeerKey> {
        let draws = (0..choices).map_while(|_| self.choose(also, but, random));
        draws.min_by_key(|peer| figure(*peer))
    }

    /// The first member of `self`, within `also` and outside `but`, that comes after `cursor`, in a circle.
    pub fn next_after(&self, cursor: PeerKey, also: &Self, but: &Self) -> Option<PeerKey> {
        let member = |number: usize| self.word(number) & also.word(number) & !but.word(number);
        let (start, words) = (usize::from(cursor.0 / 64), self.words());
        let later = member(start) & u64::MAX.checked_shl(u32::from(cursor.0 % 64) + 1).unwrap_or(0);
        let found = |number: usize, word: u64| {
            (word != 0).then(|| PeerKey((number * 64) as u16 + word.trailing_zeros() as u16))
        };
        found(start, later).or_else(|| {
            (start + 1..words).chain(0..words.min(start + 1)).find_map(|number| found(number, member(number)))
        })
    }
}

/// How many neighbours hold each frame, as bit-sliced counters: plane `k` holds bit `k` of every frame's count, so that
/// the rarest of many candidates is found 64 frames at a time.
#[derive(Clone, Debug)]
pub(super) struct Rarity {
    words: usize,
    planes: Vec<u64>,
}

impl Rarity {
    pub fn new(words: usize) -> Self {
        Self { words, planes: Vec::new() }
    }

    /// One more holder of a frame. `true`: it is the first.
    #[inline]
    pub fn add(&mut self, index: u32) -> bool {
        let first = self.is_zero(index);
        let (word, bit) = ((index / 64) as usize, 1 << (index % 64));
        let mut at = word;
        loop {
            if at >= self.planes.len() {
                self.planes.resize(self.planes.len() + self.words, 0);
            }
            self.planes[at] ^= bit;
            if self.planes[at] & bit != 0 {
                return first;
            }
            at += self.words;
        }
    }

    /// One holder less of a frame that has one. `true`: it was the last.
    pub fn remove(&mut self, index: u32) -> bool {
        let (word, bit) = ((index / 64) as usize, 1 << (index % 64));
        let mut at = word;
        while at < self.planes.len() {
            self.planes[at] ^= bit;
            if self.planes[at] & bit == 0 {
                break;
            }
            at += self.words;
        }
        self.is_zero(index)
    }

    #[inline]
    pub fn is_zero(&self, index: u32) -> bool {
        let (mut at, shift, mut held) = ((index / 64) as usize, index % 64, 0);
        while at < self.planes.len() {
            held |= self.planes[at] >> shift & 1;
            at += self.words.max(1);
        }
        held == 0
    }

    /// How many neighbours hold a frame.
    #[inline]
    pub fn count(&self, index: u32) -> u32 {
        let (mut at, shift, mut plane, mut count) = ((index / 64) as usize, index % 64, 0, 0);
        while at < self.planes.len() {
            count |= ((self.planes[at] >> shift & 1) as u32) << plane;
            plane += 1;
            at += self.words.max(1);
        }
        count
    }

    /// The frames of one word that no neighbour holds; bits beyond the last frame are set.
    #[inline]
    pub fn nobody(&self, word: usize) -> u64 {
        let (mut at, mut held) = (word, 0);
        while at < self.planes.len() {
            held |= self.planes[at];
            at += self.words.max(1);
        }
        !held
    }

    /// Leaves only the candidates with the fewest holders.
    ///
    /// `candidates` has the words of one bitmap, or none.
    pub fn keep_rarest(&self, candidates: &mut [u64]) {
        let mut count = count(candidates);
        for plane in self.planes.chunks_exact(self.words.max(1)).rev() {
            // Mostly few frames are wanted, and one alone needs no comparison.
            if count <= 1 {
                return;
            }
            let candidates = &mut candidates[..plane.len()];
            let mut without = 0;
            for (number, candidate) in candidates.iter().enumerate() {
                without += (candidate & !plane[number]).count_ones();
            }
            if without != 0 {
                count = without;
                for (number, candidate) in candidates.iter_mut().enumerate() {
                    *candidate &= !plane[number];
                }
            }
        }
    }
}

/// A member of `candidates`, each as likely as the other.
pub(super) fn choose(candidates: &[u64], random: &mut SplitMix) -> Option<u32> {
    choose_word(candidates.len(), |number| candidates[number], random)
}

/// How many members `set` has.
#[inline]
fn count(set: &[u64]) -> u32 {
    let mut count = 0;
    for word in set {
        count += word.count_ones();
    }
    count
}

#[inline]
fn random_below_count(count: u32, random: &mut SplitMix) -> Option<u32> {
    (count > 0).then(|| random.below(count))
}

/// The position of a member that has `before` others before it.
#[inline]
fn nth_member(mut members: u64, before: u32) -> u32 {
    for _ in 0..before {
        members &= members - 1;
    }
    members.trailing_zeros()
}

/// The same over words that are made as they are needed. The first member at a random place or after it would be
/// quicker, but what follows a gap would be chosen more often, and by everybody.
#[inline]
fn choose_word(words: usize, word: impl Fn(usize) -> u64, random: &mut SplitMix) -> Option<u32> {
    let mut count = 0;
    for number in 0..words {
        count += word(number).count_ones();
    }
    let mut left = random_below_count(count, random)?;
    for number in 0..words {
        let members = word(number);
        let here = members.count_ones();
        if left < here {
            return Some(number as u32 * 64 + nth_member(members, left));
        }
        left -= here;
    }
    None
}

/// The first member of `set` at or after `start`, in a circle.
pub(super) fn next_in_circle(set: &[u64], start: u32) -> Option<u32> {
    let first = (start / 64) as usize;
    let found = |number: usize, word: u64| (word != 0).then(|| number as u32 * 64 + word.trailing_zeros());
    let later = set.get(first).map_or(0, |word| word & (u64::MAX << (start % 64)));
    found(first, later).or_else(|| {
        let circle = (first + 1..set.len()).chain(0..set.len().min(first + 1));
        circle.into_iter().find_map(|number| found(number, set[number]))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_choice_is_as_likely_as_any_other() {
        // Gaps of many lengths, over several words.
        let members = [3u16, 4, 5, 60, 70, 71, 190];
        let (mut set, mut words) = (PeerSet::default(), [0u64; 3]);
        for member in members {
            set.insert(PeerKey(member));
            words[usize::from(member / 64)] |= 1 << (member % 64);
        }
        let (mut random, mut peers, mut frames) = (SplitMix::new(1), BTreeMap::new(), BTreeMap::new());
        for _ in 0..70_000 {
            *peers.entry(set.choose(&set, &PeerSet::default(), &mut random).unwrap().0).or_insert(0u32) += 1;
            *frames.entry(choose(&words, &mut random).unwrap() as u16).or_insert(0u32) += 1;
        }
        for counts in [peers, frames] {
            assert_eq!(counts.keys().copied().collect::<Vec<_>>(), members);
            assert!(counts.values().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        }
    }

    proptest! {
        #[test]
        fn the_least_is_that_of_so_many_draws(
            members: BTreeSet<u8>, also: BTreeSet<u8>, but: BTreeSet<u8>, small: bool, choices in 1u32..6, seed: u64,
        ) {
            let limit = if small { 64 } else { 256 };
            let [members, also, but] = [members, also, but].map(|keys| {
                let mut set = PeerSet::default();
                keys.into_iter().for_each(|key| set.insert(PeerKey(u16::from(key) % limit)));
                set
            });
            let figure = |peer: PeerKey| u32::from(peer.0) % 3;
            let (mut random, mut drawing) = (SplitMix::new(seed), SplitMix::new(seed));
            let found = members.choose_least(&also, &but, &mut random, choices, figure);
            let mut expected = members.choose(&also, &but, &mut drawing);
            for _ in 1..choices {
                let Some(other) = members.choose(&also, &but, &mut drawing) else { break };
                expected = expected.map(|least| if figure(other) < figure(least) { other } else { least });
            }
            prop_assert_eq!((found, random.next()), (expected, drawing.next()));
        }

        #[test]
        fn a_peer_set_is_a_set(steps: Vec<(bool, u16)>, cursor in 0u16..300) {
            let (mut set, mut model) = (PeerSet::default(), BTreeSet::new());
            for (put, key) in steps {
                let key = PeerKey(key % 300);
                if put {
                    set.insert(key);
                    model.insert(key);
                } else {
                    set.remove(key);
                    model.remove(&key);
                }
            }
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), model.clone());
            let (cursor, none) = (PeerKey(cursor), PeerSet::default());
            let next = model.range(PeerKey(cursor.0 + 1)..).next().or_else(|| model.iter().next()).copied();
            prop_assert_eq!(set.next_after(cursor, &set, &none), next);
            prop_assert_eq!(set.next_after(cursor, &set, &set), None);
            prop_assert_eq!(set.choose(&set, &set, &mut SplitMix::new(3)), None);
            let chosen = set.choose(&set, &none, &mut SplitMix::new(3));
            prop_assert!(chosen.map_or(model.is_empty(), |peer| model.contains(&peer)));
            prop_assert_eq!(set.pop(), model.pop_first());
        }

        #[test]
        fn counters_count_and_find_the_rarest(steps: Vec<(bool, u8)>, candidates in prop::collection::btree_set(0u32..130, 0..20)) {
            let (mut rarity, mut model) = (Rarity::new(3), BTreeMap::<u32, u32>::new());
            for (add, index) in steps {
                let index = u32::from(index) % 130;
                let count = model.entry(index).or_default();
                if add {
                    prop_assert_eq!(rarity.add(index), *count == 0);
                    *count += 1;
                } else if *count > 0 {
                    *count -= 1;
                    prop_assert_eq!(rarity.remove(index), *count == 0);
                }
            }
            let count = |index: u32| model.get(&index).copied().unwrap_or(0);
            for index in 0..130 {
                prop_assert_eq!(rarity.count(index), count(index));
                prop_assert_eq!(rarity.nobody(index as usize / 64) >> (index % 64) & 1 == 1, count(index) == 0);
            }
            let mut words = [0; 3];
            candidates.iter().for_each(|index| words[*index as usize / 64] |= 1u64 << (index % 64));
            rarity.keep_rarest(&mut words);
            let least = candidates.iter().map(|index| count(*index)).min();
            let rarest: Vec<u32> = candidates.iter().copied().filter(|index| Some(count(*index)) == least).collect();
            prop_assert_eq!(bits(&words).collect::<Vec<_>>(), rarest.clone());
            let chosen = choose(&words, &mut SplitMix::new(7));
            prop_assert_eq!(chosen.is_some(), !rarest.is_empty());
            prop_assert!(chosen.is_none_or(|index| rarest.contains(&index)));
        }
    }
}
