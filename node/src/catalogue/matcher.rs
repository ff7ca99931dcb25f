//! Where an image resembles another: bsdiff's search (C. Percival, "Naive Differences of Executable Code", 2003), over a
//! suffix array.
//!
//! A match is a stretch of the new image that is mostly equal to a stretch of the old one, byte by byte: an executable
//! whose addresses moved resembles itself so. Images beyond [`WINDOW_BYTES`] are searched window by window, each against
//! the stretch of the old image that lies about it, so that the memory of the search is bounded.

/// Most bytes of the old image that are searched at once; the suffix array takes four times as many.
const WINDOW_BYTES: usize = 256 << 20;
/// A match must explain this many bytes more than going on as before does.
const GAIN_BYTES: usize = 8;
/// An exact match of this length is taken even if going on as before explains nearly as much: the search would otherwise
/// look at every byte of it (the known quadratic case of bsdiff).
const LONG_BYTES: usize = 4096;

/// A stretch of the new image that resembles one of the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Where it begins in the old image.
    pub old: usize,
    /// Where it begins in the new image.
    pub new: usize,
    /// Its length, in both.
    pub length: usize,
}

impl Match {
    /// Where it ends in the new image.
    pub fn end(&self) -> usize {
        self.new + self.length
    }
}

fn common(a: &[u8], b: &[u8]) -> usize {
    // Blocks first: most comparisons of two versions run long.
    let blocks = a.chunks_exact(32).zip(b.chunks_exact(32)).take_while(|(a, b)| a == b).count() * 32;
    blocks + a[blocks..].iter().zip(&b[blocks..]).take_while(|(a, b)| a == b).count()
}

struct Suffixes<'a> {
    text: &'a [u8],
    order: Vec<i32>,
}

impl<'a> Suffixes<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, order: divsufsort::sort(text).into_parts().1 }
    }

    fn suffix(&self, rank: usize) -> &'a [u8] {
        &self.text[self.order[rank] as usize..]
    }

    /// Place and length of the longest exact match of the start of `pattern`.
    fn longest(&self, pattern: &[u8]) -> (usize, usize) {
        if self.order.is_empty() {
            return (0, 0);
        }
        let (mut low, mut high) = (0, self.order.len() - 1);
        let (mut low_common, mut high_common) = (0, 0);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let suffix = self.suffix(middle);
            // Between two suffixes every suffix shares what both share with the pattern.
            let known = low_common.min(high_common).min(suffix.len()).min(pattern.len());
            let shared = known + common(&suffix[known..], &pattern[known..]);
            let is_below = match (suffix.get(shared), pattern.get(shared)) {
                (None, _) => true,
                (_, None) => false,
                (Some(old), Some(new)) => old < new,
            };
            if is_below {
                (low, low_common) = (middle, shared);
            } else {
                (high, high_common) = (middle, shared);
            }
        }
        let (at_low, at_high) = (common(self.suffix(low), pattern), common(self.suffix(high), pattern));
        let (rank, length) = if at_low > at_high { (low, at_low) } else { (high, at_high) };
        (self.order[rank] as usize, length)
    }
}

/// All matches, ascending and without overlap in the new image.
pub fn matches(old: &[u8], new: &[u8]) -> Vec<Match> {
    if old.len() <= WINDOW_BYTES {
        return Search::new(old, new).run();
    }
    let mut found = Vec::new();
    for (index, window) in new.chunks(WINDOW_BYTES / 2).enumerate() {
        let new_start = index * (WINDOW_BYTES / 2);
        // The same relative place in the old image, with as much again to both sides.
        let middle = (new_start as u128 * old.len() as u128 / new.len().max(1) as u128) as usize;
        let start = middle.saturating_sub(WINDOW_BYTES / 4).min(old.len() - WINDOW_BYTES);
        let part = Search::new(&old[start..start + WINDOW_BYTES], window).run();
        found.extend(part.into_iter().map(|it| Match { old: it.old + start, new: it.new + new_start, ..it }));
    }
    found
}

struct Search<'a> {
    old: &'a [u8],
    new: &'a [u8],
    suffixes: Suffixes<'a>,
    found: Vec<Match>,
    /// Where the last match begins, in both.
    last: (usize, usize),
}

impl<'a> Search<'a> {
    fn new(old: &'a [u8], new: &'a [u8]) -> Self {
        Self { old, new, suffixes: Suffixes::new(old), found: Vec::new(), last: (0, 0) }
    }

    /// Whether byte `at` of the new image is what going on with the last match gives.
    fn goes_on(&self, at: usize) -> bool {
        let (last_old, last_new) = self.last;
        let place = (at + last_old).checked_sub(last_new);
        place.and_then(|place| self.old.get(place)).is_some_and(|byte| *byte == self.new[at])
    }

    fn run(mut self) -> Vec<Match> {
        let (mut scan, mut length, mut position) = (0, 0, 0);
        while scan < self.new.len() {
            scan += length;
            // How many bytes of new[scan..scored] the last match would give if it went on.
            let (mut score, mut scored) = (0, scan);
            let mut is_new = false;
            while scan < self.new.len() {
                (position, length) = self.suffixes.longest(&self.new[scan..]);
                while scored < scan + length {
                    score += usize::from(self.goes_on(scored));
                    scored += 1;
                }
                is_new = length > score;
                if (length == score && length > 0) || length > score + GAIN_BYTES || length >= LONG_BYTES {
                    break;
                }
                if scored > scan {
                    score -= usize::from(self.goes_on(scan));
                } else {
                    scored = scan + 1;
                }
                scan += 1;
            }
            if is_new || scan >= self.new.len() {
                self.settle(scan, position);
            }
        }
        self.found
    }

    /// The last match ends somewhere before `scan`, where one from `position` of the old image begins, perhaps earlier.
    fn settle(&mut self, scan: usize, position: usize) {
        let (last_old, last_new) = self.last;
        let is_end = scan >= self.new.len();
        let mut forward = best_length((last_new..scan).zip(last_old..self.old.len()).map(|(n, o)| self.same(o, n)));
        let mut backward = if is_end {
            0
        } else {
            best_length((last_new..scan).rev().zip((0..position).rev()).map(|(n, o)| self.same(o, n)))
        };
        if last_new + forward > scan - backward {
            // Both reach for the same bytes: cut where the sum of what they explain is largest.
            let overlap = last_new + forward - (scan - backward);
            let (mut gain, mut best, mut keep) = (0_i64, 0, 0);
            for index in 0..overlap {
                let at = scan - backward + index;
                gain += i64::from(self.same(last_old + forward - overlap + index, at));
                gain -= i64::from(self.same(position - backward + index, at));
                if gain > best {
                    (best, keep) = (gain, index + 1);
                }
            }
            forward -= overlap - keep;
            backward -= keep;
        }
        if forward > 0 {
            self.found.push(Match { old: last_old, new: last_new, length: forward });
        }
        self.last = (position - backward, scan - backward);
    }

    fn same(&self, old: usize, new: usize) -> bool {
        self.old[old] == self.new[new]
    }
}

/// How far a match is worth following: where equal bytes outnumber the others by most.
fn best_length(same: impl Iterator<Item = bool>) -> usize {
    let (mut lead, mut best, mut length) = (0_i64, 0, 0);
    for (index, same) in same.enumerate() {
        lead += if same { 1 } else { -1 };
        if lead > best {
            (best, length) = (lead, index + 1);
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_changed_byte_does_not_break_a_match() {
        let old: Vec<u8> = (0..2000_u32).flat_map(|i| (i * 7919).to_le_bytes()).collect();
        let mut new = old.clone();
        new[4000] ^= 255;
        assert_eq!(matches(&old, &new), [Match { old: 0, new: 0, length: 8000 }]);
    }

    #[test]
    fn what_moved_is_found() {
        let old: Vec<u8> = (0..2000_u32).flat_map(|i| (i * 7919).to_le_bytes()).collect();
        let new = [&old[4000..], &[9; 50], &old[..4000]].concat();
        let found = matches(&old, &new);
        assert_eq!(found[0], Match { old: 4000, new: 0, length: 4000 });
        assert!(found.iter().any(|it| it.old <= 10 && it.end() == new.len()));
    }

    proptest! {
        #[test]
        fn matches_are_in_order_and_inside(old in prop::collection::vec(0u8..4, 0..400), new in prop::collection::vec(0u8..4, 0..400)) {
            let mut end = 0;
            for it in matches(&old, &new) {
                prop_assert!(it.length > 0 && it.new >= end);
                prop_assert!(it.old + it.length <= old.len() && it.end() <= new.len());
                end = it.end();
            }
        }

        #[test]
        fn the_longest_match_is_exact_and_longest(old in prop::collection::vec(0u8..3, 1..200), pattern in prop::collection::vec(0u8..3, 1..20)) {
            let (at, length) = Suffixes::new(&old).longest(&pattern);
            prop_assert_eq!(&old[at..at + length], &pattern[..length]);
            prop_assert!(length == pattern.len() || !old.windows(length + 1).any(|window| window == &pattern[..=length]));
        }
    }
}
