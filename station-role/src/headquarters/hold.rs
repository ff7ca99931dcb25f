//! Answers that wait until there is something to say.
//!
//! A station that waits for a decision or a probe asks every few seconds. A signature takes a moment, a probe a second, a
//! person a while: were the answer given at once, each would cost the station the rest of that pause. So the answer to a
//! site that waits is held until there is news for it, until its next question, or for `SITE_ANSWER_HOLD_SECONDS`.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use branchline_protocol::{
    ids::{Hash, SiteName},
    limits::SITE_ANSWER_HOLD_SECONDS,
    machine::Deadline,
    time::{Monotonic, Now},
    wire::site::{HeadquartersDirective, SiteReport},
};

use super::{machine::HeadquartersMachine, words::HeadquartersOutput};

/// How long an answer is held at most.
pub const HOLD: Duration = Duration::from_secs(SITE_ANSWER_HOLD_SECONDS);

#[derive(Debug)]
struct Held {
    exchange: u64,
    report: Box<SiteReport>,
    until: Monotonic,
}

/// The answers that are held, at most one for each site, and what each site was told last. Nothing of it outlives the
/// process: a site whose answer is lost asks again.
#[derive(Debug, Default)]
pub(super) struct HeldAnswers {
    by_site: BTreeMap<SiteName, Held>,
    ends: BTreeSet<(Monotonic, SiteName)>,
    told: BTreeMap<SiteName, Hash>,
}

impl HeldAnswers {
    fn hold(&mut self, held: Held) {
        let site = held.report.site.clone();
        self.ends.insert((held.until, site.clone()));
        self.by_site.insert(site, held);
    }

    fn take(&mut self, site: &SiteName) -> Option<Held> {
        let held = self.by_site.remove(site)?;
        self.ends.remove(&(held.until, site.clone()));
        Some(held)
    }

    /// When the next answer is given, whatever is known by then.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.ends.first().map(|(at, _)| Deadline { at: *at, reason: "answer a site that waits" })
    }
}

impl HeadquartersMachine {
    /// Answers a report, or holds the answer. A site has one answer open: an older one is given now.
    pub(super) fn answer_or_hold(&mut self, now: Now, exchange: u64, report: Box<SiteReport>) {
        if let Some(before) = self.held.take(&report.site) {
            let directive = self.directive(&before.report);
            self.answer(before, directive);
        }
        let held = Held { exchange, report, until: now.monotonic.after(HOLD) };
        self.consider(held);
    }

    /// Gives the answers for which one of `changed` sites has waited.
    pub(super) fn answer_changed(&mut self, changed: &[SiteName]) {
        for site in changed {
            if let Some(held) = self.held.take(site) {
                self.consider(held);
            }
        }
    }

    /// Gives the answers that were held long enough.
    pub(super) fn answer_due(&mut self, now: Now) {
        while let Some((_, site)) = self.held.ends.first().filter(|(at, _)| *at <= now.monotonic).cloned() {
            if let Some(held) = self.held.take(&site) {
                let directive = self.directive(&held.report);
                self.answer(held, directive);
            }
        }
    }

    fn consider(&mut self, held: Held) {
        let directive = self.directive(&held.report);
        let news = fingerprint(&directive);
        let is_news = news.is_some() && news.as_ref() != self.held.told.get(&held.report.site);
        if is_news || !waits(&held.report, &directive) {
            self.answer(held, directive);
        } else {
            self.held.hold(held);
        }
    }

    fn answer(&mut self, held: Held, directive: HeadquartersDirective) {
        let site = held.report.site;
        match fingerprint(&directive) {
            Some(told) => self.held.told.insert(site.clone(), told),
            None => self.held.told.remove(&site),
        };
        self.emit(HeadquartersOutput::Answer { exchange: held.exchange, site, directive: Box::new(directive) });
    }
}

/// Whether the site asked for something that the answer does not hold.
fn waits(report: &SiteReport, directive: &HeadquartersDirective) -> bool {
    directive.approvals.len() < report.approvals.len()
        || directive.probes.len() < report.probes.len()
        || (report.wants_batch && directive.grants.is_empty())
}

/// A name of everything in an answer that a station acts upon; `None` where there is nothing.
fn fingerprint(directive: &HeadquartersDirective) -> Option<Hash> {
    let mut bytes = Vec::new();
    bytes.extend(directive.approvals.iter().flat_map(|signed| signed.hash().0.0));
    bytes.extend(directive.probes.iter().flat_map(|(_, signed)| signed.hash().0.0));
    bytes.extend(directive.grants.iter().flat_map(|signed| signed.hash().0.0));
    for session in &directive.withdraw {
        bytes.extend(session.node.0);
        bytes.extend(session.generation.to_le_bytes());
    }
    (!bytes.is_empty()).then(|| Hash::in_domain("branchline site answer 1", &bytes))
}
