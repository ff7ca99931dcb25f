//! What happened in a world, line by line: to compare two runs, and to read the end of one that failed.
use std::{collections::VecDeque, fmt};

use branchline_protocol::{ids::Hash, time::Monotonic};

/// Lines that are kept to be read; all lines count for the hash.
pub const TAIL_LINES: usize = 400;

/// The trace of one run.
#[derive(Clone, Debug)]
pub struct Trace {
    tail: VecDeque<String>,
    lines: u64,
    chain: Hash,
}

impl Default for Trace {
    fn default() -> Self {
        Self { tail: VecDeque::new(), lines: 0, chain: Hash::of(b"") }
    }
}

impl Trace {
    /// Adds a line.
    pub fn line(&mut self, at: Monotonic, text: fmt::Arguments<'_>) {
        let line = format!("{:>12.6} {text}", at.0 as f64 / 1e6);
        let mut bytes = self.chain.0.to_vec();
        bytes.extend(line.as_bytes());
        self.chain = Hash::of(&bytes);
        self.lines += 1;
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// Names the whole run: two runs with equal hashes did the same.
    pub fn hash(&self) -> Hash {
        self.chain
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The last lines.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }
}
