//! How many cases properties try. Every room includes this file by its path: no room depends on the tests, and the rule
//! stands once.

/// `count`, or so many times as many as `BRANCHLINE_PROPERTY_CASES_FACTOR` says (`tests/soak` sets it).
pub(crate) fn cases(count: u32) -> u32 {
    let factor = std::env::var("BRANCHLINE_PROPERTY_CASES_FACTOR").ok().and_then(|factor| factor.parse().ok());
    count.saturating_mul(factor.unwrap_or(1))
}
