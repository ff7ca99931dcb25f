//! What people should see of a running node, whatever its role: the last notices, for `branchline status` and the log.
//!
//! A notice does not stay for ever. One whose cause this node can see ([`Cause`]) stays as long as the cause does, and
//! ten minutes more, marked as over. One that tells of something that happened stays for a week after it was said last.
//! There are at most 100, of at most 2 KiB each; the oldest goes first.
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use branchline_protocol::{
    ids::{NodeId, PackId},
    time::Monotonic,
};

use super::clock::Clock;

/// Notices that are kept.
const NOTICES_MAX: usize = 100;
/// Longest notice, in bytes.
const NOTICE_BYTES_MAX: usize = 2 << 10;
/// How long a notice of something that happened stays after it was said last: over a weekend and a few days more.
const HAPPENED_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a notice stays whose cause is gone: long enough for somebody who looks because of it.
const OVER_LIFE: Duration = Duration::from_secs(10 * 60);
/// What follows a notice whose cause is gone.
const OVER: &str = " (this is over)";

/// What must be gone before a notice goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It happened, and is not there to go away.
    Happened,
    /// It is said again every minute as long as it is so.
    Repeats,
    /// What this peer says is refused; of each peer the last one stays, so that nobody fills the list.
    Refused(NodeId),
    /// This peer refuses this node.
    RefusedBy(NodeId),
    /// Something is wrong with the session of this host.
    Session(NodeId),
    /// Documents are missing from which to select.
    Documents,
    /// The router does not do what it is told.
    Router,
    /// Nothing of this update can cross the line.
    Update(PackId),
    /// The router's table cannot be written to the disk.
    TableFile,
    /// This machine no longer has the address on which the node listens.
    Address,
}

#[derive(Debug)]
struct Notice {
    text: String,
    cause: Cause,
    said_at: Monotonic,
    over_at: Option<Monotonic>,
}

impl Notice {
    fn is_due(&self, now: Monotonic) -> bool {
        let since_said = now.since(self.said_at);
        match (self.cause, self.over_at) {
            (_, Some(over_at)) => now.since(over_at) >= OVER_LIFE,
            (Cause::Happened | Cause::Refused(_), None) => since_said >= HAPPENED_LIFE,
            (Cause::Repeats, None) => since_said >= OVER_LIFE,
            _ => false,
        }
    }
}

/// The notices of one node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Notices {
    clock: Clock,
    kept: Arc<Mutex<VecDeque<Notice>>>,
}

impl Notices {
    /// No notice yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, kept: Arc::default() }
    }

    /// Keeps something that happened; said again, it moves to the end and is not logged again.
    pub fn add(&self, text: String) {
        self.add_of(Cause::Happened, text);
    }

    /// Keeps something until its cause is gone.
    pub fn add_of(&self, cause: Cause, text: String) {
        self.put(self.clock.now().monotonic, cause, text);
    }

    /// The cause is gone: what was said of it stays for ten minutes more.
    pub fn over(&self, cause: Cause) {
        self.end(self.clock.now().monotonic, cause);
    }

    /// All causes of this kind are gone.
    pub fn over_where(&self, is_gone: impl Fn(Cause) -> bool) {
        self.end_where(self.clock.now().monotonic, is_gone);
    }

    /// All of them, newest last.
    pub fn list(&self) -> Vec<String> {
        self.look(self.clock.now().monotonic)
    }

    fn kept<T>(&self, now: Monotonic, change: impl FnOnce(&mut VecDeque<Notice>) -> T) -> T {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|notice| !notice.is_due(now));
        change(&mut kept)
    }

    fn put(&self, now: Monotonic, cause: Cause, text: String) {
        let text = cut(text);
        self.kept(now, |kept| {
            let before = kept.len();
            let replaces = |notice: &Notice| matches!(cause, Cause::Refused(_)) && notice.cause == cause;
            kept.retain(|notice| notice.text != text && !replaces(notice));
            if kept.len() == before {
                tracing::warn!("{text}");
            }
            if kept.len() >= NOTICES_MAX {
                kept.pop_front();
            }
            kept.push_back(Notice { text, cause, said_at: now, over_at: None });
        });
    }

    fn end(&self, now: Monotonic, cause: Cause) {
        self.end_where(now, |other| other == cause);
    }

    fn end_where(&self, now: Monotonic, is_gone: impl Fn(Cause) -> bool) {
        self.kept(now, |kept| {
            for notice in kept.iter_mut().filter(|notice| is_gone(notice.cause) && notice.over_at.is_none()) {
                notice.over_at = Some(now);
            }
        });
    }

    fn look(&self, now: Monotonic) -> Vec<String> {
        let text = |notice: &Notice| format!("{}{}", notice.text, notice.over_at.map_or("", |_| OVER));
        self.kept(now, |kept| kept.iter().map(text).collect())
    }
}

/// Peers give reasons too; none of them may fill this node's memory.
fn cut(mut text: String) -> String {
    if text.len() > NOTICE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(NOTICE_BYTES_MAX - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Monotonic = Monotonic(1_000_000);

    fn notices() -> Notices {
        Notices::new(Clock::start())
    }

    #[test]
    fn a_notice_is_kept_once_and_the_oldest_goes() {
        let notices = notices();
        for number in 0..NOTICES_MAX + 5 {
            notices.add(format!("notice {number}"));
            notices.add("again and again".to_owned());
        }
        let list = notices.list();
        assert_eq!(list.len(), NOTICES_MAX);
        assert_eq!(list.iter().filter(|text| *text == "again and again").count(), 1);
        assert_eq!(list.last().unwrap(), "again and again");
    }

    #[test]
    fn a_long_notice_is_cut_between_characters() {
        let notices = notices();
        for length in NOTICE_BYTES_MAX - 4..NOTICE_BYTES_MAX + 4 {
            notices.add("ä".repeat(length));
        }
        let list = notices.list();
        assert!(list.iter().all(|text| text.len() <= NOTICE_BYTES_MAX && text.ends_with("ä…")), "{list:?}");
    }

    #[test]
    fn what_happened_goes_a_week_after_it_was_said_last() {
        let notices = notices();
        notices.put(START, Cause::Happened, "a copy was seen".to_owned());
        let later = START.after(HAPPENED_LIFE / 2);
        notices.put(later, Cause::Happened, "a copy was seen".to_owned());
        let last = later.after(HAPPENED_LIFE - Duration::from_secs(1));
        assert_eq!(notices.look(last), ["a copy was seen"]);
        assert_eq!(notices.look(last.after(Duration::from_secs(1))), [""; 0]);
    }

    #[test]
    fn a_cause_that_lasts_keeps_its_notice_and_one_that_is_gone_lets_it_go() {
        let notices = notices();
        let (mine, other) = (Cause::RefusedBy(NodeId([1; 32])), Cause::RefusedBy(NodeId([2; 32])));
        notices.put(START, mine, "till-1 refuses this node".to_owned());
        notices.put(START, other, "till-2 refuses this node".to_owned());
        let much_later = START.after(HAPPENED_LIFE * 10);
        notices.end(much_later, mine);
        let over = "till-1 refuses this node (this is over)";
        assert_eq!(notices.look(much_later), [over, "till-2 refuses this node"]);
        // That it is over is said from the first time on, not from the last.
        let soon = much_later.after(OVER_LIFE / 2);
        notices.end(soon, mine);
        assert_eq!(notices.look(soon), [over, "till-2 refuses this node"]);
        assert_eq!(notices.look(much_later.after(OVER_LIFE)), ["till-2 refuses this node"]);
    }

    #[test]
    fn what_comes_back_is_not_over() {
        let notices = notices();
        notices.put(START, Cause::Router, "the router does not answer".to_owned());
        notices.end(START, Cause::Router);
        let again = START.after(OVER_LIFE / 2);
        notices.put(again, Cause::Router, "the router does not answer".to_owned());
        assert_eq!(notices.look(again.after(OVER_LIFE * 3)), ["the router does not answer"]);
    }

    #[test]
    fn what_is_repeated_goes_when_it_is_not_repeated_any_more() {
        let notices = notices();
        notices.put(START, Cause::Repeats, "a row stands in the way".to_owned());
        let again = START.after(OVER_LIFE - Duration::from_secs(1));
        notices.put(again, Cause::Repeats, "a row stands in the way".to_owned());
        assert_eq!(notices.look(again.after(OVER_LIFE - Duration::from_secs(1))).len(), 1);
        assert_eq!(notices.look(again.after(OVER_LIFE)).len(), 0);
    }
}
