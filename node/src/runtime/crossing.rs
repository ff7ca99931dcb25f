//! The crossing desk at work: documents and wishes in, which encoding of an update crosses the line out (R70, R73).
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::Result;
use branchline_protocol::{
    catalogue::{Catalogue, UpdateTravel},
    ids::{ImageId, NodeId, PackId},
};
use branchline_station_role::station::crossings::{
    CrossingDesk, CrossingInput, CrossingNews, CrossingOutput, CrossingSetup, PatchFrom, UpdateOffer,
};
use tokio::sync::watch;

use super::{
    answers::Answers,
    clock::Clock,
    handover::CROSSINGS_JOURNAL,
    notices::{Cause, Notices},
    packs::Packs,
    pump::{self, Effects, Pump, PumpHandle, Tasks},
};
use crate::{mesh::Documents, store::journal::JournalStore};

/// What came of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// This encoding crosses; `by_station`: the station is the one to bring it.
    Crosses {
        /// Whether the station keeps the update and can use this patch.
        by_station: bool,
    },
    /// Another encoding crosses, or none.
    Withheld,
}

/// Where packs are that patches start from.
pub trait Bases: Clone + Send + Sync + 'static {
    /// Whether this node has all of a pack of this image.
    fn is_here(&self, base: ImageId) -> bool;
    /// Whether a member that is connected has all of this pack.
    fn is_held_by_a_member(&self, base: PackId) -> impl Future<Output = bool> + Send;
}

impl Bases for Packs {
    fn is_here(&self, base: ImageId) -> bool {
        self.complete_pack_of(base).is_some()
    }

    async fn is_held_by_a_member(&self, base: PackId) -> bool {
        Packs::is_held_by_a_member(self, base).await
    }
}

/// Says what crosses the line until it is ended, or as long as it is held.
#[derive(Clone)]
pub struct Crossings {
    handle: PumpHandle<CrossingDesk>,
    answers: Answers<Wish>,
    documents: Documents,
    /// Held while the desk is told of a change, so that no wish overtakes it.
    changes: Arc<tokio::sync::Mutex<watch::Receiver<u64>>>,
    notices: Notices,
    tasks: Arc<Tasks>,
}

struct CrossingEffects<B> {
    handle: PumpHandle<CrossingDesk>,
    answers: Answers<Wish>,
    bases: B,
    notices: Notices,
}

impl Crossings {
    /// Recovers the desk and starts it.
    ///
    /// # Errors
    /// The journal cannot be read, or a desk before this one still writes it.
    pub fn start(
        documents: &Documents,
        bases: impl Bases,
        notices: Notices,
        journals: &JournalStore,
        clock: Clock,
    ) -> Result<Self> {
        let (handle, inputs) = pump::channel::<CrossingDesk>();
        let answers = Answers::new();
        let effects =
            CrossingEffects { handle: handle.clone(), answers: answers.clone(), bases, notices: notices.clone() };
        let pump = Pump::recover(journals, CROSSINGS_JOURNAL, CrossingSetup, clock, inputs, effects)?;
        let runs = tokio::spawn(async move {
            if let Err(error) = pump.run().await {
                tracing::error!(machine = "crossings", "{error:#}");
                std::process::exit(70);
            }
        });
        let mut changes = documents.changes();
        // The documents that are here already are news to the desk.
        changes.mark_changed();
        let changes = Arc::new(tokio::sync::Mutex::new(changes));
        let follows = tokio::spawn(follow_documents(documents.clone(), Arc::clone(&changes), handle.clone()));
        let tasks = Arc::new(Tasks::new([runs.abort_handle(), follows.abort_handle()]));
        Ok(Self { handle, answers, documents: documents.clone(), changes, notices, tasks })
    }

    /// A wish for a lease or its renewal; resolves when the desk has decided and the decision is durable.
    pub async fn wish(&self, node: NodeId, pack: PackId) -> Wish {
        tell_of_documents(&self.documents, &self.changes, &self.handle).await;
        let receiver = self.answers.wait(node, pack);
        self.handle.input(CrossingInput::Wish { node, pack }).await;
        receiver.await.unwrap_or(Wish::Withheld)
    }

    /// The station keeps this pack.
    pub async fn keep(&self, pack: PackId) {
        tell_of_documents(&self.documents, &self.changes, &self.handle).await;
        self.handle.input(CrossingInput::Keep { pack }).await;
    }

    /// The station has this patch and could not make the pack from it.
    pub async fn station_failed(&self, pack: PackId, patch: PackId) {
        self.handle.input(CrossingInput::StationFailed { pack, patch }).await;
    }

    /// Ends the desk, whoever still asks it, and takes back what it said of updates that wait: once this resolves its journal
    /// is durable and written no more.
    pub async fn end(&self) {
        self.answers.end();
        self.handle.end().await;
        self.tasks.abort();
        // What the next station sees it says itself.
        self.notices.over_where(|cause| matches!(cause, Cause::Update(_)));
    }
}

async fn follow_documents(
    documents: Documents,
    changes: Arc<tokio::sync::Mutex<watch::Receiver<u64>>>,
    handle: PumpHandle<CrossingDesk>,
) {
    let mut changed = documents.changes();
    loop {
        tell_of_documents(&documents, &changes, &handle).await;
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Hands the desk what the documents say, where they have changed since it was told last.
async fn tell_of_documents(
    documents: &Documents,
    changes: &tokio::sync::Mutex<watch::Receiver<u64>>,
    handle: &PumpHandle<CrossingDesk>,
) {
    let mut changes = changes.lock().await;
    if changes.has_changed().unwrap_or(false) {
        changes.mark_unchanged();
        handle.input(CrossingInput::Documents { updates: updates(documents) }).await;
    }
}

/// What the documents of all sites say of updates; of several sites that name one pack the first counts.
fn updates(documents: &Documents) -> BTreeMap<PackId, UpdateOffer> {
    let mut updates = BTreeMap::new();
    for site in documents.sites() {
        let Some(Ok(((catalogue, _), (policy, _)))) = documents.site(&site).map(|state| state.selection_documents())
        else {
            continue;
        };
        for (pack, update) in updates_of(&catalogue, policy.updates) {
            updates.entry(pack).or_insert(update);
        }
    }
    updates
}

fn updates_of(catalogue: &Catalogue, travel: UpdateTravel) -> BTreeMap<PackId, UpdateOffer> {
    let mut packs: BTreeMap<ImageId, Vec<PackId>> = BTreeMap::new();
    for package in &catalogue.packages {
        packs.entry(package.payload.image).or_default().push(package.payload.pack);
    }
    let of_image = |image: &ImageId| packs.get(image).map(Vec::as_slice).unwrap_or_default();
    let mut updates = BTreeMap::new();
    for offer in &catalogue.patches {
        let base_pack = of_image(&offer.base).first().copied();
        let patch = PatchFrom { patch: offer.pack, bytes: offer.pack_bytes, base: offer.base, base_pack };
        for pack in of_image(&offer.target) {
            let update = updates.entry(*pack).or_insert_with(|| UpdateOffer { travel, patches: Vec::new() });
            update.patches.push(patch.clone());
        }
    }
    updates
}

impl<B> CrossingEffects<B> {
    fn tell(&self, pack: PackId, news: CrossingNews) {
        let cause = Cause::Update(pack);
        let waits = match news {
            CrossingNews::Over => return self.notices.over(cause),
            CrossingNews::WholeAfterAll => {
                let seconds = branchline_station_role::station::crossings::PATCH_PATIENCE.as_secs();
                return self.notices.add(format!(
                    "no member made update {pack} from its patch within {seconds} seconds; the whole pack may cross the line"
                ));
            }
            CrossingNews::NoBase => {
                "no node of the site that is connected holds a version that one of its patches starts from"
            }
            CrossingNews::Stuck => "nobody makes it from its patch",
        };
        self.notices.add_of(
            cause,
            format!(
                "update {pack} waits: {waits}, and the site policy says `updates = \"patch_only\"`; stage such a version \
                 in the site and then the update once more, or publish a policy with `updates = \"patch\"`"
            ),
        );
    }
}

impl<B: Bases> Effects<CrossingDesk> for CrossingEffects<B> {
    fn perform(&mut self, output: CrossingOutput) {
        match output {
            CrossingOutput::LookHere { pack, bases } => {
                let (handle, here) = (self.handle.clone(), self.bases.clone());
                tokio::spawn(async move {
                    let bases: BTreeSet<ImageId> = bases.into_iter().filter(|base| here.is_here(*base)).collect();
                    handle.input(CrossingInput::Here { pack, bases }).await;
                });
            }
            CrossingOutput::AskMembers { pack, base } => {
                let (handle, bases) = (self.handle.clone(), self.bases.clone());
                tokio::spawn(async move {
                    let held = bases.is_held_by_a_member(base).await;
                    handle.input(CrossingInput::AtMembers { pack, base, held }).await;
                });
            }
            CrossingOutput::Answer { node, pack, crosses, by_station } => {
                let answer = if crosses { Wish::Crosses { by_station } } else { Wish::Withheld };
                self.answers.give(node, pack, &answer);
            }
            CrossingOutput::Tell { pack, news } => self.tell(pack, news),
        }
    }
}

#[cfg(test)]
#[path = "crossing_tests.rs"]
pub(super) mod tests;
