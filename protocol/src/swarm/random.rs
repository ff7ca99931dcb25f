//! A small seeded source of choices (SplitMix64, Steele, Lea, Flood 2014): a request costs one multiplication, not a
//! block of a cipher. It decides among equals only; nothing secret depends on it.

/// What the state grows by with every number.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The generator's state.
#[derive(Clone, Debug)]
pub(super) struct SplitMix(u64);

impl SplitMix {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Goes on as if so many numbers had been taken.
    #[inline]
    pub fn skip(&mut self, numbers: u32) {
        self.0 = self.0.wrapping_add(GAMMA.wrapping_mul(u64::from(numbers)));
    }

    /// A number below `limit` (0 where `limit` is 0), uniform up to 2^-32 for the small limits of this module.
    #[inline]
    pub fn below(&mut self, limit: u32) -> u32 {
        ((u64::from(limit) * (self.next() >> 32)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_sequence_and_stays_below_its_limit() {
        let mut random = SplitMix::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        let mut skipped = SplitMix::new(1_234_567);
        skipped.skip(1);
        assert_eq!(skipped.next(), 3_203_168_211_198_807_973);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}
