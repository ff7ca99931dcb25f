//! The simulator against theory: one test per closed form, with its source. `book` holds the figures.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod book {
    pub mod resolutions;
    pub mod rollout;
    pub mod sessions;
    pub mod spread;
    pub mod tcp;
    pub mod threads;
}
