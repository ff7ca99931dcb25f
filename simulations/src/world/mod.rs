//! The parts of a world: each models one faulty thing and nothing else.
//!
//! | module | holds |
//! | --- | --- |
//! | [`clock`] | virtual time and what happens when |
//! | [`chance`] | the only source of randomness, from one seed |
//! | [`lan`] | control messages that get lost, doubled, late and out of order |
//! | [`wan`] | the thin line: a rate, outages, and the count of what crossed it |
//! | [`disk`] | a journal with group commit, and what a crash leaves of it |
//! | [`driven`] | a journaled machine on such a disk |
//! | [`router`] | a NAT table behind a driver that fails in every way a driver may |
//! | [`installer`] | a scripted installer with progress and failures |
//! | [`operator`] | people: they approve after a while and try again what failed |
pub mod chance;
pub mod clock;
pub mod disk;
pub mod driven;
pub mod installer;
pub mod lan;
pub mod operator;
pub mod router;
pub mod wan;
