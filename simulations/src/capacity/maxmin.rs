//! Max-min fair shares, exactly: progressive filling over any network, in fractions.
//!
//! The oracle of the fast solver in `uplink`, which knows one shared line and one limit per flow only. A share is
//! max-min fair if no flow can have more without taking from one that has no more (Bertsekas, Gallager, Data Networks,
//! 6.5.2).

/// A fraction of a rate, in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    numerator: u128,
    denominator: u128,
}

impl Share {
    fn new(numerator: u128, denominator: u128) -> Self {
        let (mut a, mut b) = (numerator, denominator);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let common = a.max(1);
        Self { numerator: numerator / common, denominator: denominator / common }
    }

    /// The nearest float.
    pub fn value(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// The whole part, as the fast solver rounds.
    pub fn floor(self) -> u64 {
        u64::try_from(self.numerator / self.denominator).unwrap_or(u64::MAX)
    }
}

/// Shares of `flows`, each of which crosses the named `links` (indexes into `capacities`, at least one).
///
/// Rates are integers of any one unit. Time grows with links squared times flows.
pub fn max_min_shares(capacities: &[u64], flows: &[Vec<usize>]) -> Vec<Share> {
    let mut shares: Vec<Option<Share>> = vec![None; flows.len()];
    loop {
        let tightest = (0..capacities.len()).filter_map(|link| fill_level(link, capacities, flows, &shares));
        // Two links as tight as each other: the first; the shares are the same.
        let Some((link, level)) = tightest.reduce(|a, b| if less(b.1, a.1) { b } else { a }) else { break };
        for (share, links) in shares.iter_mut().zip(flows) {
            if share.is_none() && links.contains(&link) {
                *share = Some(level);
            }
        }
    }
    shares.into_iter().map(|share| share.unwrap_or(Share::new(0, 1))).collect()
}

/// The share at which the link is full if all its open flows have the same.
fn fill_level(
    link: usize,
    capacities: &[u64],
    flows: &[Vec<usize>],
    shares: &[Option<Share>],
) -> Option<(usize, Share)> {
    let crossing = || flows.iter().zip(shares).filter(|(links, _)| links.contains(&link));
    let open = crossing().filter(|(_, share)| share.is_none()).count() as u128;
    let mut left = Share::new(u128::from(capacities[link]), 1);
    for taken in crossing().filter_map(|(_, share)| *share) {
        let denominator = left.denominator * taken.denominator;
        let numerator = (left.numerator * taken.denominator).saturating_sub(taken.numerator * left.denominator);
        left = Share::new(numerator, denominator);
    }
    (open > 0).then(|| (link, Share::new(left.numerator, left.denominator * open)))
}

fn less(a: Share, b: Share) -> bool {
    a.numerator * b.denominator < b.numerator * a.denominator
}
