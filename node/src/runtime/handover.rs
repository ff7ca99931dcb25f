//! What a planned move of the station carries over (R4): the former station's journals, before the new station acts.
//!
//! | journal | so that the new station knows |
//! | --- | --- |
//! | [`SITE_JOURNAL`] | every host's session and address |
//! | [`CROSSINGS_JOURNAL`] | which encoding of each update crosses the line: another one would cross as well (R70) |
//!
//! The lease desk's journal stays: leases of the new epoch go before all that were, and before the first of them the site
//! is asked what it holds.
use std::future::Future;

use anyhow::{Context, Result, bail, ensure};
use branchline_protocol::{
    charter::Role,
    ids::{Epoch, NodeId},
    limits::REPORT_EVENTS_MAX,
    refusal::RefusalKind,
    wire::{
        codec,
        control::{ControlAnswer, ControlRequest},
    },
};
use branchline_station_role::station::{SiteEvent, StationEvent, crossings::CrossingEvent};
use serde::de::DeserializeOwned;

use super::node::{Node, refused};
use crate::{
    mesh::Admission,
    store::journal::{EVENT_BYTES_MAX, JournalStore},
};

/// Name of the journal of a site's machine.
pub const SITE_JOURNAL: &str = "site";
/// Name of the journal of the crossing desk.
pub const CROSSINGS_JOURNAL: &str = "crossings";

/// Once a page of events has this many bytes, it is sent.
const PAGE_BYTES: usize = 2 << 20;

/// Encoded events in a row, and whether they are the last.
type Page = (Vec<Vec<u8>>, bool);

/// Gives a journal to the station that the charter designates now, once this node has stood down.
pub fn give(node: &Node, to: &Admission, journal: &str, from: u64) -> ControlAnswer {
    if !to.roles.contains(&Role::Station) || node.station().is_some() || node.journals.is_written(journal) {
        return refused(
            RefusalKind::NotAuthorised,
            "the journal goes only to the new station, after this one stood down",
        );
    }
    match page(&node.journals, journal, from) {
        Ok((events, last)) => ControlAnswer::Handover(events, last),
        Err(error) => refused(RefusalKind::Internal, format!("{error:#}")),
    }
}

fn page(journals: &JournalStore, journal: &str, from: u64) -> Result<Page> {
    let (events, last) = journals.read_page(journal, from, REPORT_EVENTS_MAX, PAGE_BYTES)?;
    Ok((events.into_iter().map(|(_, event)| event).collect(), last))
}

/// Fetches the events that the former station has and this node has not; until they are here the new station does not
/// act. Once it has acted its own journals go on from there, and the former station may be gone for good.
///
/// # Errors
/// The former station cannot be reached, has not stood down yet, or gives what is no journal; or the disk fails.
pub async fn fetch(node: &Node, (former, last): (NodeId, Epoch)) -> Result<()> {
    if has_acted_after(&node.journals, last)? {
        return Ok(());
    }
    let ask = |request: ControlRequest| async move {
        let since = matches!(request, ControlRequest::HandoverCrossings { .. });
        let answer = node.mesh.request(former, request).await;
        match answer.context("asking the former station for its journals")? {
            ControlAnswer::Handover(events, last) => Ok((events, last)),
            // A station of a version before that request decided nothing that could be carried over.
            ControlAnswer::Refused(refusal) if since && refusal.kind == RefusalKind::Malformed => {
                Ok((Vec::new(), true))
            }
            ControlAnswer::Refused(refusal) => bail!("the former station keeps its journals: {refusal}"),
            _ => bail!("the former station answered something else than its journal"),
        }
    };
    let journals = &node.journals;
    fetch_one::<SiteEvent, _>(journals, SITE_JOURNAL, |from| ask(ControlRequest::Handover { from })).await?;
    let crossings = |from| ask(ControlRequest::HandoverCrossings { from });
    fetch_one::<CrossingEvent, _>(journals, CROSSINGS_JOURNAL, crossings).await
}

/// Whether this node has been station in a later epoch than this one.
fn has_acted_after(journals: &JournalStore, last: Epoch) -> Result<bool> {
    let entered = |event: &SiteEvent| match event {
        SiteEvent::Station(StationEvent::EpochEntered { epoch, .. }) => *epoch > last,
        _ => false,
    };
    Ok(journals.read::<SiteEvent>(SITE_JOURNAL)?.iter().any(|record| entered(&record.event)))
}

/// Nothing is kept of a page in which this version cannot read an event: it could not read its journal afterwards.
async fn fetch_one<E, F>(journals: &JournalStore, journal: &'static str, ask: impl Fn(u64) -> F) -> Result<()>
where
    E: DeserializeOwned,
    F: Future<Output = Result<Page>>,
{
    loop {
        let next = journals.last(journal)? + 1;
        let (events, last) = ask(next).await?;
        ensure!(last || !events.is_empty(), "the former station gives nothing of its journal \"{journal}\"");
        let numbered: Vec<(u64, Vec<u8>)> = (next..).zip(events).collect();
        for (number, event) in &numbered {
            codec::decode::<E>(event, EVENT_BYTES_MAX)
                .with_context(|| format!("reading event {number} of the former station's journal \"{journal}\""))?;
        }
        journals.import(journal, &numbered)?;
        if last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeMap};

    use branchline_protocol::{
        catalogue::UpdateTravel,
        ids::{Hash, ImageId, PackId},
        machine::{Journaled, Machine},
        time::{Now, UnixSeconds},
    };
    use branchline_station_role::station::crossings::{
        Crossing, CrossingDesk, CrossingInput, CrossingSetup, PatchFrom, UpdateOffer,
    };

    use super::*;

    fn pack(number: u32) -> PackId {
        PackId(Hash::of(&number.to_le_bytes()))
    }

    /// So many updates, each with one patch whose base the station holds.
    fn documents(updates: u32) -> CrossingInput {
        let update = |number| {
            let base = ImageId(pack(number).0);
            let patch = PatchFrom { patch: pack(1_000_000 + number), bytes: 1, base, base_pack: None };
            (pack(number), UpdateOffer { travel: UpdateTravel::Patch, patches: vec![patch] })
        };
        CrossingInput::Documents { updates: (0..updates).map(update).collect::<BTreeMap<_, _>>() }
    }

    fn recover(journals: &JournalStore) -> CrossingDesk {
        CrossingDesk::recover(CrossingSetup, Now::default(), journals.read(CROSSINGS_JOURNAL).unwrap())
    }

    /// The desk decides for the patches of the updates from `first` on, and its journal is written.
    fn decide(journals: &JournalStore, first: u32, updates: u32) {
        let mut desk = recover(journals);
        desk.handle(Now::default(), documents(updates));
        for number in first..updates {
            desk.handle(Now::default(), CrossingInput::Keep { pack: pack(number) });
            let bases = [ImageId(pack(number).0)].into();
            desk.handle(Now::default(), CrossingInput::Here { pack: pack(number), bases });
        }
        let records = std::iter::from_fn(|| desk.poll_record());
        let encoded = |event: &CrossingEvent| codec::encode(event, EVENT_BYTES_MAX).unwrap();
        let events: Vec<_> = records.map(|record| (record.sequence.0, encoded(&record.event))).collect();
        assert_eq!(events.len(), (updates - first) as usize);
        journals.import(CROSSINGS_JOURNAL, &events).unwrap();
    }

    fn decided(journals: &JournalStore, updates: u32) -> Vec<Option<Crossing>> {
        let mut desk = recover(journals);
        desk.handle(Now::default(), documents(updates));
        (0..updates).map(|number| desk.crossing(pack(number))).collect()
    }

    fn station(home: &tempfile::TempDir) -> JournalStore {
        JournalStore::open(&home.path().join("journal.redb")).unwrap()
    }

    async fn fetch_from(former: &JournalStore, new: &JournalStore, pages: &Cell<usize>) -> Result<()> {
        let ask = async |from| {
            pages.set(pages.get() + 1);
            page(former, CROSSINGS_JOURNAL, from)
        };
        fetch_one::<CrossingEvent, _>(new, CROSSINGS_JOURNAL, ask).await
    }

    #[tokio::test]
    async fn the_new_station_goes_on_with_the_encodings_that_crossed_and_so_does_the_next_one() {
        let (first_home, second_home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, second) = (station(&first_home), station(&second_home));
        let updates = REPORT_EVENTS_MAX as u32 + 10;
        decide(&first, 0, updates);
        let pages = Cell::new(0);
        fetch_from(&first, &second, &pages).await.unwrap();
        assert_eq!(pages.take(), 2, "no answer is longer than one page");
        let crosses = |number| Some(Crossing::Patch { patch: pack(1_000_000 + number), by_station: true });
        let expected: Vec<_> = (0..updates).map(crosses).collect();
        assert_eq!(decided(&second, updates), expected);

        // The role goes back: only what is new is fetched.
        decide(&second, updates, updates + 3);
        fetch_from(&second, &first, &pages).await.unwrap();
        assert_eq!(pages.take(), 1);
        assert_eq!(decided(&first, updates + 3), decided(&second, updates + 3));
        assert_eq!(first.last(CROSSINGS_JOURNAL).unwrap(), u64::from(updates) + 3);
    }

    #[tokio::test]
    async fn a_station_that_never_decided_hands_over_nothing() {
        let (former_home, new_home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (former, new) = (station(&former_home), station(&new_home));
        fetch_from(&former, &new, &Cell::new(0)).await.unwrap();
        assert_eq!(decided(&new, 2), [None, None]);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_what_is_no_journal_and_who_gives_nothing_is_not_asked_for_ever() {
        let home = tempfile::tempdir().unwrap();
        let journals = station(&home);
        decide(&journals, 0, 1);
        let (good, _) = page(&journals, CROSSINGS_JOURNAL, 0).unwrap();
        let given = |page: Page| {
            let journals = &journals;
            async move { fetch_one::<CrossingEvent, _>(journals, CROSSINGS_JOURNAL, async |_| Ok(page.clone())).await }
        };
        let mut bad = good[0].clone();
        bad.push(0);
        let error = given((vec![good[0].clone(), bad], true)).await.unwrap_err();
        assert!(error.to_string().contains("reading event 3"), "{error:#}");
        let error = given((vec![], false)).await.unwrap_err();
        assert!(error.to_string().contains("gives nothing"), "{error:#}");
        assert_eq!(journals.last(CROSSINGS_JOURNAL).unwrap(), 1);
    }

    #[test]
    fn who_has_acted_in_a_later_epoch_asks_for_nothing_more() {
        let home = tempfile::tempdir().unwrap();
        let journals = station(&home);
        let epoch = |charter_version| Epoch { charter_version, term: 0 };
        let entered = |number: u64| {
            let event = StationEvent::EpochEntered { at: UnixSeconds(1), epoch: epoch(number) };
            (number, codec::encode(&SiteEvent::Station(event), EVENT_BYTES_MAX).unwrap())
        };
        assert!(!has_acted_after(&journals, epoch(2)).unwrap(), "nothing is journaled yet");
        // What the former station gave, while not all of it has come.
        journals.import(SITE_JOURNAL, &[entered(1), entered(2)]).unwrap();
        assert!(!has_acted_after(&journals, epoch(2)).unwrap());
        journals.import(SITE_JOURNAL, &[entered(3)]).unwrap();
        assert!(has_acted_after(&journals, epoch(2)).unwrap());
        assert!(!has_acted_after(&journals, epoch(3)).unwrap(), "it was moved away and comes back");
    }

    #[test]
    fn a_page_ends_after_so_many_bytes() {
        let home = tempfile::tempdir().unwrap();
        let journals = station(&home);
        let large = |number| (number, vec![7; PAGE_BYTES - 1]);
        journals.import(SITE_JOURNAL, &[large(1), large(2), large(3)]).unwrap();
        let (events, last) = page(&journals, SITE_JOURNAL, 0).unwrap();
        assert_eq!((events.len(), last), (2, false));
        let (events, last) = page(&journals, SITE_JOURNAL, 3).unwrap();
        assert_eq!((events.len(), last), (1, true));
    }
}
