//! Keeps what a node has resident near to what it uses.
use std::{io, time::Duration};

use branchline_resident::{ProgramPages, trim_heap};
use tokio::time::{MissedTickBehavior, interval};

/// How often memory that may not be used any more is given back. Code that is in use comes back within a millisecond,
/// which is a ten-thousandth of this.
const EVERY: Duration = Duration::from_secs(15);
/// The heap is looked through when it has grown by so much, and by an eighth, since it was last; and again as long as that gives
/// back so much.
const GROWN_BYTES: u64 = 256 << 10;
/// And after so many times in any case (five minutes): what was in use at the last look may have been freed since, and glibc keeps it
/// without growing.
const REST_TICKS: u32 = 20;

/// Gives back the code that the start or a rare task needed, and what a transfer had allocated, as long as the node runs.
pub(super) async fn keep_small(pages: io::Result<ProgramPages>) {
    let mut pages = pages.inspect_err(|error| {
        tracing::debug!(%error, "the program's own pages cannot be found; all of them stay resident");
    });
    let mut heap = Heap::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if let Ok(found) = &pages
            && let Err(error) = found.unmap()
        {
            tracing::debug!(%error, "the program's own pages cannot be given back; all of them stay resident");
            pages = Err(error);
        }
        let before_bytes = anonymous_bytes().unwrap_or(0);
        if heap.is_due(before_bytes) {
            trim_heap();
            heap.trimmed(before_bytes, anonymous_bytes().unwrap_or(0));
        }
    }
}

/// Whether it is worth looking through the heap: of a large one that takes milliseconds, in which others wait for memory.
#[derive(Debug, Default)]
struct Heap {
    trimmed_bytes: u64,
    rest_ticks: u32,
    /// The last look gave much back: what was in use then, such as frames that are kept for a while, may be free the next time.
    gave_back: bool,
}

impl Heap {
    fn is_due(&mut self, now_bytes: u64) -> bool {
        self.rest_ticks += 1;
        let has_rested = self.rest_ticks >= REST_TICKS;
        has_rested || self.gave_back || now_bytes > self.trimmed_bytes + (self.trimmed_bytes / 8).max(GROWN_BYTES)
    }

    fn trimmed(&mut self, before_bytes: u64, after_bytes: u64) {
        self.gave_back = before_bytes.saturating_sub(after_bytes) >= GROWN_BYTES;
        self.trimmed_bytes = after_bytes;
        self.rest_ticks = 0;
    }
}

/// Resident memory that has no file: what was allocated, and stacks.
fn anonymous_bytes() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    anonymous_pages(&text)
        .map(|pages| pages * rustix::param::page_size() as u64)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/self/statm says {text:?}")))
}

/// Resident pages without the shared ones, from the text of `/proc/PID/statm` (proc(5)).
fn anonymous_pages(statm: &str) -> Option<u64> {
    let mut numbers = statm.split_ascii_whitespace().map(str::parse::<u64>);
    let (_, resident, shared) = (numbers.next()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(resident.saturating_sub(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_is_looked_through_once_it_has_grown_and_until_nothing_comes_of_it() {
        let mib = |count: u64| count << 20;
        let mut heap = Heap::default();
        assert!(heap.is_due(mib(4)), "the first time");
        heap.trimmed(mib(9), mib(8));
        assert!(heap.is_due(mib(8)), "more may be free by now");
        heap.trimmed(mib(8), mib(4));
        assert!(heap.is_due(mib(4)));
        heap.trimmed(mib(4), mib(4) - GROWN_BYTES + 1);
        assert!(!heap.is_due(mib(4)), "an idle one is left alone");
        assert!(heap.is_due(mib(5)), "until it has grown");

        heap.trimmed(mib(5), mib(5));
        let due = (0..2 * REST_TICKS).find(|_| heap.is_due(mib(5)));
        assert_eq!(due, Some(REST_TICKS - 1), "or much time has passed");

        let mut large = Heap { trimmed_bytes: mib(800), ..Heap::default() };
        assert!(!large.is_due(mib(900)) && large.is_due(mib(901)), "of a large one an eighth");
    }

    #[test]
    fn anonymous_memory_is_what_no_file_has() {
        assert_eq!(anonymous_pages("30471 9000 4000 6490 0 5000 0\n"), Some(5000));
        assert_eq!(anonymous_pages("1 2 3 4 5 6 7"), Some(0));
        assert_eq!((anonymous_pages(""), anonymous_pages("1 2"), anonymous_pages("1 a 2")), (None, None, None));
        assert!(anonymous_bytes().unwrap() > 100_000, "this test runs on Linux");
    }
}
