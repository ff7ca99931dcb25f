//! The simulator against theory: one test per closed form, with its source. `book` holds the figures.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod book {
    /// Whether a figure is within a share of the expected one.
    pub fn near(found: f64, expected: f64, share: f64) {
        assert!((found / expected - 1.0).abs() <= share, "{found} is not within {share} of {expected}");
    }

    pub mod resolutions;
    pub mod rollout;
    pub mod rounds;
    pub mod rules;
    pub mod search;
    pub mod sessions;
    pub mod spread;
    pub mod tcp;
    pub mod threads;
}
