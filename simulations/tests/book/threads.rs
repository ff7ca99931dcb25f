//! Workers with threads, for tests and the example `capacity`.
use std::sync::atomic::{AtomicUsize, Ordering};

use branchline_simulations::capacity::Workers;

/// So many threads, each taking the next part when it is done with one.
pub struct Threads(pub usize);

impl Workers for Threads {
    fn carry_out(&self, count: usize, part: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|| {
                    while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count)
                    {
                        part(number);
                    }
                });
            }
        });
    }
}
