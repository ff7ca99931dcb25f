//! Which frames of a pack somebody has.
use thiserror::Error;

/// Why bytes are not a bitmap of the expected length.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum BitmapError {
    /// More or fewer bytes than the pack's frames need.
    #[error("the bitmap has {found} bytes; {frames} frames need exactly {expected}")]
    Length {
        /// Bytes found.
        found: usize,
        /// Bytes needed.
        expected: usize,
        /// Frames of the pack.
        frames: u32,
    },
    /// Bits beyond the last frame are set.
    #[error("the bitmap claims frames beyond the last one")]
    Trailing,
}

/// A set of frame indexes below a fixed length, kept as words of 64. On the wire: bytes, least significant bit first,
/// trailing bits zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    length: u32,
    count: u32,
    words: Vec<u64>,
}

impl Bitmap {
    /// No frame of `length`.
    pub fn new(length: u32) -> Self {
        Self { length, count: 0, words: vec![0; length.div_ceil(64) as usize] }
    }

    /// All frames of `length`.
    pub fn full(length: u32) -> Self {
        let mut words = vec![u64::MAX; length.div_ceil(64) as usize];
        if let (Some(last), used @ 1..) = (words.last_mut(), length % 64) {
            *last = (1 << used) - 1;
        }
        Self { length, count: length, words }
    }

    /// Reads the wire form for a pack of `length` frames.
    ///
    /// # Errors
    /// Another number of bytes, or bits beyond the last frame.
    pub fn from_bytes(bytes: &[u8], length: u32) -> Result<Self, BitmapError> {
        let expected = length.div_ceil(8) as usize;
        if bytes.len() != expected {
            return Err(BitmapError::Length { found: bytes.len(), expected, frames: length });
        }
        let used = length % 8;
        if used != 0 && bytes.last().is_some_and(|last| last >> used != 0) {
            return Err(BitmapError::Trailing);
        }
        let word = |part: &[u8]| {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            u64::from_le_bytes(word)
        };
        let words: Vec<u64> = bytes.chunks(8).map(word).collect();
        let count = words.iter().map(|word| word.count_ones()).sum();
        Ok(Self { length, count, words })
    }

    /// The wire form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.length.div_ceil(8) as usize);
        bytes
    }

    /// The set as words, least significant bit first; bits beyond the length are zero.
    #[inline]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// How many frames there are in all.
    #[inline]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// How many are in the set.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether all are in the set.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.count == self.length
    }

    /// Whether none is in the set.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `index` is in the set; `false` beyond the length.
    #[inline]
    pub fn contains(&self, index: u32) -> bool {
        self.words.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Puts `index` in. `true`: it is new; `false`: it was in, or lies beyond the length.
    #[inline]
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.length || self.contains(index) {
            return false;
        }
        self.words[(index / 64) as usize] |= 1 << (index % 64);
        self.count += 1;
        true
    }

    /// Takes `index` out. `true`: it was in.
    #[inline]
    pub fn remove(&mut self, index: u32) -> bool {
        if !self.contains(index) {
            return false;
        }
        self.words[(index / 64) as usize] &= !(1 << (index % 64));
        self.count -= 1;
        true
    }

    /// The indexes in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        bits(&self.words)
    }

    /// The indexes that are not in the set, ascending.
    pub fn iter_missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.length).filter(|index| !self.contains(*index))
    }

    /// Adds every index of `other`, which has the same length.
    pub fn union(&mut self, other: &Self) {
        debug_assert_eq!(self.length, other.length);
        for (own, other) in self.words.iter_mut().zip(&other.words) {
            *own |= other;
        }
        self.recount();
    }

    /// Takes out every index of `other`, which has the same length.
    pub fn subtract(&mut self, other: &Self) {
        debug_assert_eq!(self.length, other.length);
        for (own, other) in self.words.iter_mut().zip(&other.words) {
            *own &= !other;
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.count = self.words.iter().map(|word| word.count_ones()).sum();
    }
}

/// The positions of the bits that are set in `words`, ascending.
pub(crate) fn bits(words: &[u64]) -> impl Iterator<Item = u32> + '_ {
    (0..).step_by(64).zip(words).flat_map(|(start, word)| {
        let mut rest = *word;
        std::iter::from_fn(move || {
            let bit = rest.trailing_zeros();
            (rest != 0).then(|| {
                rest &= rest - 1;
                start + bit
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set_of_small_numbers(length in 0u32..200, steps: Vec<(bool, u8)>) {
            let mut bitmap = Bitmap::new(length);
            let mut set = BTreeSet::new();
            for (put, index) in steps {
                let index = u32::from(index);
                if put {
                    prop_assert_eq!(bitmap.insert(index), index < length && set.insert(index));
                } else {
                    prop_assert_eq!(bitmap.remove(index), set.remove(&index));
                }
            }
            prop_assert_eq!(bitmap.count() as usize, set.len());
            prop_assert_eq!(bitmap.is_full(), set.len() as u32 == length);
            prop_assert_eq!(bitmap.iter().collect::<BTreeSet<_>>(), set.clone());
            prop_assert_eq!(bitmap.iter_missing().count() as u32, length - bitmap.count());
            prop_assert_eq!(Bitmap::from_bytes(&bitmap.to_bytes(), length).unwrap(), bitmap);
        }

        #[test]
        fn bytes_are_read_strictly(bytes in prop::collection::vec(any::<u8>(), 0..4), length in 0u32..33) {
            match Bitmap::from_bytes(&bytes, length) {
                Ok(bitmap) => {
                    prop_assert_eq!(bitmap.to_bytes(), bytes);
                    prop_assert!(bitmap.iter().all(|index| index < length));
                }
                Err(BitmapError::Length { .. }) => prop_assert_ne!(bytes.len() as u32, length.div_ceil(8)),
                Err(BitmapError::Trailing) => prop_assert!(bytes.last().unwrap() >> (length % 8) != 0),
            }
        }
    }

    #[test]
    fn a_full_bitmap_has_no_trailing_bits() {
        for length in 0..140 {
            let full = Bitmap::full(length);
            assert!(full.is_full());
            assert_eq!(Bitmap::from_bytes(&full.to_bytes(), length), Ok(full));
        }
    }
}
