//! Fault simulation: does everything stay correct, whatever goes wrong (in the spirit of TigerBeetle's VOPR)?
//!
//! A seed draws which faults there are, how strong they are and how large the site is, so that each seed turns another
//! subset on. While the faults last nothing wrong may happen (safety). Then the faults stop for a core of the site, the
//! rest stays dead, cut off or without room on its disk, and everybody in the core must get done in bounded time (liveness).
//!
//! | module | holds |
//! | --- | --- |
//! | [`options`] | what a seed turns on |
//! | [`sabotage`] | what can be broken on purpose, to see that a checker finds it |
//! | [`run()`] | one run, its report and its recording |
pub mod options;
pub mod run;
pub mod sabotage;

pub use options::{Hazards, draw};
pub use run::{Report, record, run};
pub use sabotage::Sabotage;
