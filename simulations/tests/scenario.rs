//! What a planner may write and what the simulator answers: every key and every figure on a small scenario whose answer
//! is known beforehand, from a closed form, from the rows of its hosts, or from the same scenario without the key.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

#[path = "book/threads.rs"]
mod threads;

mod scenario {
    pub mod small;

    mod answers;
    mod failures;
    mod figures;
    mod fitted;
    mod golden;
    mod lines;
    mod mended;
    mod networks;
    mod people;
    mod presets;
    mod series;
    mod terms;
    mod waves;
}
