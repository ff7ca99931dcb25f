//! Random figures that are the same on every machine, in every order of asking and on any number of threads.
//!
//! Nothing is drawn from a stream: every figure has a name (seed, site, host, purpose), and its bits are a hash of
//! that name. A counterfactual that leaves one kind of figure out therefore keeps all others, and sites can be
//! simulated in any order. Logarithms and the like come from a software library, whose results do not depend on the
//! machine.

/// What a figure is for; two purposes never share their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    SiteHosts = 1,
    SiteLine,
    SiteLatency,
    SiteLan,
    Neighbours,
    Machine,
    Slow,
    Arrival,
    Install,
    Failure,
    Offline,
    Return,
    Leave,
    Away,
    Sample,
}

/// The bits of one random figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(u64);

/// Mixes all bits of `value` (the finaliser of SplitMix64; Steele, Lea, Flood, OOPSLA 2014).
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The random figures of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SiteRandom {
    key: u64,
}

impl SiteRandom {
    /// The figures of site `site` of entry `group` of a scenario with this seed.
    pub fn new(seed: u64, group: u64, site: u64) -> Self {
        let key = mix(seed.wrapping_add(GOLDEN));
        let key = mix(key ^ group.wrapping_add(1).wrapping_mul(GOLDEN));
        Self { key: mix(key ^ site.wrapping_add(1).wrapping_mul(GOLDEN)) }
    }

    /// A figure of host `host` of the site; `turn` counts those of one purpose.
    pub fn draw(self, purpose: Purpose, host: u64, turn: u64) -> Draw {
        let key = mix(self.key ^ (purpose as u64).wrapping_mul(GOLDEN));
        let key = mix(key ^ host.wrapping_add(1).wrapping_mul(GOLDEN));
        Draw(mix(key ^ turn.wrapping_add(1).wrapping_mul(GOLDEN)))
    }
}

impl Draw {
    /// Between 0 and 1, both excluded.
    pub fn uniform(self) -> f64 {
        ((self.0 >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// Exponential with mean 1.
    pub fn exponential(self) -> f64 {
        -libm::log(self.uniform())
    }

    /// Normal with mean 0 and standard deviation 1 (Box and Muller, 1958).
    pub fn normal(self) -> f64 {
        let other = Self(mix(self.0 ^ GOLDEN));
        let radius = libm::sqrt(-2.0 * libm::log(self.uniform()));
        radius * libm::cos(2.0 * core::f64::consts::PI * other.uniform())
    }

    /// Whether something that has this share of all cases is the case.
    pub fn happens(self, share: f64) -> bool {
        self.uniform() < share
    }

    /// An index below `length`; 0 where there is none.
    pub fn below(self, length: usize) -> usize {
        let product = u128::from(self.0) * length as u128;
        (product >> 64) as usize
    }

    /// The bits themselves, as a seed for a machine.
    pub fn bits(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(purpose: Purpose) -> impl Iterator<Item = Draw> {
        (0..200_000).map(move |host| SiteRandom::new(7, 1, 2).draw(purpose, host, 0))
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
        sum / f64::from(count)
    }

    #[test]
    fn the_moments_are_those_of_the_distributions() {
        assert!((mean(draws(Purpose::Arrival).map(Draw::uniform)) - 0.5).abs() < 0.003);
        assert!((mean(draws(Purpose::Arrival).map(Draw::exponential)) - 1.0).abs() < 0.01);
        assert!((mean(draws(Purpose::Arrival).map(|draw| draw.exponential().powi(2))) - 2.0).abs() < 0.05);
        assert!(mean(draws(Purpose::Install).map(Draw::normal)).abs() < 0.01);
        assert!((mean(draws(Purpose::Install).map(|draw| draw.normal().powi(2))) - 1.0).abs() < 0.015);
    }

    #[test]
    fn figures_of_two_purposes_or_hosts_are_independent() {
        let one: Vec<f64> = draws(Purpose::Arrival).map(Draw::normal).collect();
        let other: Vec<f64> = draws(Purpose::Install).map(Draw::normal).collect();
        assert!(mean(one.iter().zip(&other).map(|(a, b)| a * b)).abs() < 0.01);
        assert!(mean(one.iter().zip(&one[1..]).map(|(a, b)| a * b)).abs() < 0.01);
    }

    #[test]
    fn figures_are_the_same_on_every_machine() {
        let draw = SiteRandom::new(1, 2, 3).draw(Purpose::Install, 4, 5);
        let golden = [draw.uniform(), draw.exponential(), draw.normal()].map(f64::to_bits);
        assert_eq!(golden, GOLDEN_BITS, "{golden:#x?}");
        let below: Vec<usize> =
            (0..1000).map(|host| SiteRandom::new(1, 0, 0).draw(Purpose::Slow, host, 0).below(3)).collect();
        assert_eq!(below.iter().max(), Some(&2));
        assert_eq!(below.iter().min(), Some(&0));
    }

    const GOLDEN_BITS: [u64; 3] = [0x3fce_226b_4516_0c0c, 0x3ff7_244b_b209_2440, 0x3fe4_b600_f9b0_4ef3];
}
