//! Control messages of one site under way: inside it, and between its station and headquarters.
use std::time::Duration;

use super::{SiteWorld, happening::Happening};
use crate::world::lan::Link;

/// A kind of message with its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Path {
    /// A host's reports to the station.
    Report(usize),
    /// The station's directives to a host.
    Directive(usize),
    /// What a host asks for leases.
    AskLease(usize),
    /// Leases for a host.
    Lease(usize),
    /// The station's reports over the line.
    SiteReport,
    /// Headquarters' answers over the line.
    Answer,
}

impl SiteWorld {
    pub(super) fn lan(&self) -> Link {
        if self.stormy() { self.scenario.lan } else { Link::perfect(Duration::from_millis(1)) }
    }

    /// A message inside the site, so many times as long under way as usual.
    pub(super) fn send_inside(&mut self, path: Path, slowness: u32, happening: &Happening) {
        let ways: Vec<_> = self.lan().deliveries(&mut self.chance).into_iter().map(|way| way * slowness).collect();
        self.let_arrive(path, &ways, happening);
    }

    /// A message between station and headquarters; it is lost where the line is down.
    pub(super) fn send_over_the_line(&mut self, path: Path, happening: &Happening) {
        let ways = match self.wan.is_up(self.agenda.now().monotonic) {
            false => Vec::new(),
            true if self.stormy() => self.scenario.wan.deliveries(&mut self.chance),
            true => vec![Duration::from_millis(20)],
        };
        self.let_arrive(path, &ways, happening);
    }

    /// Lets each copy of a message arrive after its way.
    fn let_arrive(&mut self, path: Path, ways: &[Duration], happening: &Happening) {
        self.watch.messages.sent(path, self.agenda.now().monotonic, ways);
        for way in ways {
            self.agenda.after(*way, happening.clone());
        }
    }
}
