//! Updates: a pack that a node wants is made from a pack that it has and a patch, where that moves less (R73), and only
//! one of the two, patch or whole pack, crosses the line into a site (R70).
//!
//! A node that holds the base fetches the patch, applies it and packs the image again: the same frames as the catalogue's
//! come of it, the pack's own identity proves that, and from there on the node has the pack like any other. It serves it
//! in the site, installs it, and reports it complete. Neither session, plan, swarm nor installer knows of patches.
//!
//! | state of a wanted pack | on | next |
//! | --- | --- | --- |
//! | wanted | complete here | done |
//! | wanted | policy `whole`, or no patch from a pack that is complete here | whole |
//! | wanted | else | patch under way |
//! | patch under way | the patch is complete | applying |
//! | patch under way | no new byte of it for [`PATCH_STALL`], and a neighbour has the pack itself | whole, and the patch until that is here |
//! | patch under way | the same, while the line was on and headquarters answered | failed |
//! | patch under way | a catalogue with other patches to the pack, or a policy with another `updates` | wanted |
//! | applying | the same pack came of it | done |
//! | applying | anything else | failed |
//! | failed | policy `patch` | whole |
//! | failed | policy `patch_only` | whole, from a neighbour that made it only, and people are told |
//!
//! The station decides once per pack which of the two crosses the line, and gives no lease for the other: that is the
//! crossing desk (`branchline_station_role::station::crossings`), which `crossing` drives.
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufWriter, Seek, Write},
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use branchline_protocol::{
    catalogue::{Catalogue, PatchOffer, Payload, UpdateTravel},
    charter::Role,
    content::{
        OriginalFile, Pack,
        patch::{Arrival, PATCH_LOOK, PATCH_STALL, Patch, Silence},
    },
    ids::{ImageId, NodeId, PackId},
    rates::Rate,
    wire::control::{ControlAnswer, ControlRequest},
};
use tokio::{task::JoinSet, time::timeout};

use super::{Learning, Packs};
use crate::{
    bulk::Bucket,
    mesh::MeshError,
    store::{packs::PackStore, read_at::FileAt},
};

/// How often a patch that is under way is looked at.
const ARRIVAL_LOOK: Duration = Duration::from_secs(5);
/// How long a member has to say whether it holds a base, and as long for the base's manifest before that: together less
/// than the crossing desk waits.
const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// How this node can make a pack.
struct Route {
    offer: PatchOffer,
    payload: Payload,
    base: PackId,
    travel: UpdateTravel,
    /// Every patch to the pack that the catalogue offers.
    offered: BTreeSet<PackId>,
}

impl Route {
    /// Whether the station's decision can still be for this patch: documents that say nothing else of the update change no
    /// decision, nor does a base that comes meanwhile. Of a version that the catalogue no longer names nothing better is known.
    fn agrees_with(&self, now: Option<&Offers>) -> bool {
        now.is_none_or(|now| now.travel == self.travel && identities(&now.offers) == self.offered)
    }
}

/// The whole pack comes sooner from inside the site than its patch over the line.
#[derive(Debug, thiserror::Error)]
#[error("a neighbour has the pack itself")]
struct MadeByNeighbour;

/// What the documents say of the updates of one pack.
struct Offers {
    payload: Payload,
    travel: UpdateTravel,
    /// The offers with the packs of their bases, as far as the catalogue still names them.
    offers: Vec<(PatchOffer, Option<PackId>)>,
}

fn offers_of(catalogue: &Catalogue, pack: PackId) -> Option<(Payload, Vec<(PatchOffer, Option<PackId>)>)> {
    let payload = catalogue.packages.iter().map(|package| &package.payload).find(|payload| payload.pack == pack)?;
    let base_of = |image: ImageId| {
        catalogue.packages.iter().map(|package| &package.payload).find(|payload| payload.image == image)
    };
    let offers = catalogue.patches.iter().filter(|offer| offer.target == payload.image);
    let offers = offers.map(|offer| (offer.clone(), base_of(offer.base).map(|base| base.pack))).collect();
    Some((payload.clone(), offers))
}

fn identities(offers: &[(PatchOffer, Option<PackId>)]) -> BTreeSet<PackId> {
    offers.iter().map(|(offer, _)| offer.pack).collect()
}

impl Packs {
    fn offers(&self, pack: PackId) -> Option<Offers> {
        self.documents.sites().into_iter().find_map(|site| {
            let ((catalogue, _), (policy, _)) = self.documents.site(&site)?.selection_documents().ok()?;
            let (payload, offers) = offers_of(&catalogue, pack)?;
            Some(Offers { payload, travel: policy.updates, offers })
        })
    }

    fn is_complete(&self, pack: PackId) -> bool {
        self.store.kept(pack).is_some_and(|kept| kept.is_full())
    }

    /// The pack of this image, where this node has all of it.
    pub(in crate::runtime) fn complete_pack_of(&self, image: ImageId) -> Option<PackId> {
        let packs = self.store.packs();
        packs.iter().find(|pack| pack.manifest().image == image && self.is_complete(pack.id())).map(|pack| pack.id())
    }

    /// The shortest patch to `pack` from what this node has; `None` where the policy or the store has none.
    fn route(&self, pack: PackId) -> Option<Route> {
        if self.is_complete(pack) {
            return None;
        }
        let Offers { payload, travel, offers } = self.offers(pack)?;
        if travel == UpdateTravel::Whole {
            return None;
        }
        let offered = identities(&offers);
        let held = offers.into_iter().filter_map(|(offer, _)| Some((self.complete_pack_of(offer.base)?, offer)));
        let (base, offer) = held.min_by_key(|(_, offer)| offer.pack_bytes)?;
        Some(Route { offer, payload, base, travel, offered })
    }

    /// Gets a pack: by a patch where that is possible and allowed, else whole.
    pub(super) async fn obtain(&self, pack: PackId, learning: Learning) {
        let (mut learning, mut left_over) = (Some(learning), None);
        while let Some(route) = self.route(pack) {
            // Whoever needs the whole pack's manifest does not wait for the patch.
            learning = None;
            match self.update(&route).await {
                Ok(known) => {
                    // A half-fetched copy that the bulk plane knows is replaced.
                    let _ = self.bulk.forget(pack).await;
                    let _ = self.bulk.want(known).await;
                    return;
                }
                Err(error) if error.is::<MadeByNeighbour>() => {
                    tracing::info!(%pack, patch = %route.offer.pack, "{error}: it is fetched from there");
                    left_over = Some(route.offer.pack);
                    break;
                }
                // Other documents have come meanwhile.
                Err(_) if !self.goes_on(&route) => {}
                Err(error) => {
                    self.update_failed(pack, &route, &error).await;
                    break;
                }
            }
        }
        if let Some(known) = self.learn_manifest(pack).await {
            // The bulk plane does this as well, and tells of a disk that refuses; others wait for the manifest now.
            let (store, manifest) = (self.store.clone(), Arc::clone(&known));
            let _ = tokio::task::spawn_blocking(move || store.add(&manifest).map(drop)).await;
            drop(learning);
            let _ = self.bulk.want(known).await;
        }
        // Until then it is still wished for: the neighbour may leave.
        if let Some(patch) = left_over {
            self.completed(pack).await;
            let _ = self.bulk.forget(patch).await;
        }
    }

    /// The whole pack is wanted from here on: from a neighbour that made it, or over the line where the station lets it.
    async fn update_failed(&self, pack: PackId, route: &Route, error: &anyhow::Error) {
        if route.travel == UpdateTravel::PatchOnly {
            self.notices.add(format!(
                "update {pack} could not be made from its patch: {error:#}; the site policy says \
                 `updates = \"patch_only\"`, so this node waits for its neighbours, or for another policy"
            ));
        } else {
            tracing::warn!(%pack, "the update could not be made from its patch, the whole pack is wanted: {error:#}");
        }
        // A patch that has not come may still come, here or at a member: the line may be off for hours. One that is here
        // and makes nothing makes nothing anywhere.
        if self.is_complete(route.offer.pack)
            && let Some(desks) = self.desks()
        {
            desks.crossings.station_failed(pack, route.offer.pack).await;
        }
    }

    async fn update(&self, route: &Route) -> Result<Arc<Pack>> {
        let patch = route.offer.pack;
        let (wan_bytes, lan_bytes) = self.fetch_patch(route).await?;
        let (store, offer, payload, base) =
            (self.store.clone(), route.offer.clone(), route.payload.clone(), route.base);
        let pack = tokio::task::spawn_blocking(move || rebuild(&store, base, &offer, &payload)).await??;
        tracing::info!(pack = %pack.id(), %patch, wan_bytes, lan_bytes, whole = pack.length(), "an update was made from its patch");
        self.by_patch.lock().unwrap_or_else(PoisonError::into_inner).insert(pack.id(), (wan_bytes, lan_bytes));
        Ok(pack)
    }

    async fn fetch_patch(&self, route: &Route) -> Result<(u64, u64)> {
        let patch = route.offer.pack;
        let mut arrival = Arrival::begin(self.clock.now().monotonic);
        let known = loop {
            if let Some(known) = self.learn_manifest_within(patch, PATCH_LOOK).await {
                break known;
            }
            self.mind_silence(route, &mut arrival, 0).await?;
            // The bulk plane wishes only for what it knows, and without a wish the station lets the whole pack cross.
            self.get_lease(patch, 0).await;
        };
        self.bulk.want(known).await?;
        arrival = Arrival::begin(self.clock.now().monotonic);
        loop {
            if let Ok(bytes) = timeout(ARRIVAL_LOOK, self.completed(patch)).await {
                return Ok(bytes);
            }
            let progress = self.progress().into_iter().find(|own| own.pack == patch);
            if let Err(error) = self.mind_silence(route, &mut arrival, progress.map_or(0, |own| own.bytes)).await {
                if !error.is::<MadeByNeighbour>() {
                    let _ = self.bulk.forget(patch).await;
                }
                return Err(error);
            }
        }
    }

    /// An error where nothing speaks for waiting longer for a patch. As long as its node wishes for it, the station does
    /// not let the whole pack cross instead.
    async fn mind_silence(&self, route: &Route, arrival: &mut Arrival, bytes: u64) -> Result<()> {
        let (patch, now) = (route.offer.pack, self.clock.now().monotonic);
        let Silence::Look { long, stalled } = arrival.silence(now, bytes) else { return Ok(()) };
        ensure!(self.goes_on(route), "the documents say something else of this update");
        ensure!(!long || !self.is_held_by_a_member(route.payload.pack).await, MadeByNeighbour);
        if self.line_is_off(patch) || !self.headquarters_answers(patch).await {
            arrival.rest(self.clock.now().monotonic);
            return Ok(());
        }
        ensure!(!stalled, "nothing of patch {patch} came for {} seconds", PATCH_STALL.as_secs());
        Ok(())
    }

    /// Whether waiting for this patch can still make the pack.
    fn goes_on(&self, route: &Route) -> bool {
        let pack = route.payload.pack;
        self.is_complete(route.base) && !self.is_complete(pack) && route.agrees_with(self.offers(pack).as_ref())
    }

    /// Whether the bandwidth rules let nothing of this pack cross the line now (R71).
    fn line_is_off(&self, pack: PackId) -> bool {
        let rollouts = self.rollouts_off.lock().unwrap_or_else(PoisonError::into_inner);
        self.bulk.shaper().rate(&Bucket::LineIn) == Rate::Off || rollouts.contains(&pack)
    }

    /// Whether the line carries anything: a refusal is an answer as well.
    async fn headquarters_answers(&self, pack: PackId) -> bool {
        let authorities = self.documents.sites().into_iter().filter_map(|site| self.documents.authority(&site));
        let headquarters: BTreeSet<NodeId> = authorities.map(|known| known.charter().headquarters.node).collect();
        for node in headquarters {
            let asked = timeout(ASK_PATIENCE, self.mesh.request(node, ControlRequest::Holdings(pack))).await;
            if matches!(asked, Ok(Ok(_) | Err(MeshError::Refused(_)))) {
                return true;
            }
        }
        false
    }

    /// Whether a member of the site that is connected holds all frames of `pack`.
    pub(in crate::runtime) async fn is_held_by_a_member(&self, pack: PackId) -> bool {
        let Some(known) = self.learn_manifest_within(pack, ASK_PATIENCE).await else { return false };
        let members: Vec<NodeId> = {
            let admitted = self.mesh.admitted();
            let admitted = admitted.borrow();
            admitted.values().filter(|peer| !peer.roles.contains(&Role::Headquarters)).map(|peer| peer.node).collect()
        };
        let mut asked = JoinSet::new();
        for member in members {
            let mesh = self.mesh.clone();
            asked.spawn(
                async move { timeout(ASK_PATIENCE, mesh.request(member, ControlRequest::Holdings(pack))).await },
            );
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Ok(Ok(ControlAnswer::Holdings(bitmap)))) = answer
                && branchline_protocol::content::Bitmap::from_bytes(&bitmap, known.frames())
                    .is_ok_and(|held| held.is_full())
            {
                return true;
            }
        }
        false
    }

    async fn learn_manifest_within(&self, pack: PackId, patience: Duration) -> Option<Arc<Pack>> {
        timeout(patience, self.learn_manifest(pack)).await.ok().flatten()
    }
}

/// Applies a patch to a kept base and packs the image again, in the store.
fn rebuild(store: &PackStore, base: PackId, offer: &PatchOffer, payload: &Payload) -> Result<Arc<Pack>> {
    let directory = store.directory();
    let temporary = || tempfile::tempfile_in(directory).with_context(|| format!("writing in {}", directory.display()));
    let raw = |pack: PackId| -> Result<FileAt> {
        let mut sink = BufWriter::new(temporary()?);
        store.assemble(pack, &mut sink)?;
        sink.flush()?;
        Ok(FileAt::new(sink.into_inner().map_err(std::io::IntoInnerError::into_error)?)?)
    };
    let (base_raw, patch_raw) = (raw(base)?, raw(offer.pack)?);
    let patch = Patch::open(&patch_raw)?;
    let header = patch.header();
    ensure!(
        header.target == offer.target && header.target_length == payload.raw_bytes,
        "patch {} makes another image than the catalogue says",
        offer.pack
    );
    let mut target: File = temporary()?;
    patch.apply(&base_raw, offer.base, BufWriter::new(&mut target))?;
    target.rewind()?;
    let original =
        OriginalFile { name: payload.file_name.clone(), sha256: payload.sha256, length: offer.original_bytes };
    let pack = store.import_of(original, std::io::BufReader::new(target), header.target_chunk_bytes as usize)?;
    if pack.id() != payload.pack {
        store.remove(pack.id())?;
        anyhow::bail!(
            "the right image came of the patch, but this version of Branchline packs it as {} instead of {}",
            pack.id(),
            payload.pack
        );
    }
    Ok(pack)
}

#[cfg(test)]
#[path = "updates_tests.rs"]
mod tests;
