//! The station's lease desk at work: wishes in, signed leases out (R70).
use std::{collections::BTreeSet, sync::Arc};

use anyhow::Result;
use branchline_protocol::{
    charter::{Authority, Signed},
    ids::{Epoch, NodeId, PackId},
    refusal::{Refusal, RefusalKind},
    wire::control::{ControlAnswer, ControlRequest},
};
use branchline_station_role::station::leases::{DeskInput, DeskOutput, DeskSetup, LeaseDesk};
use ed25519_dalek::SigningKey;

use super::{
    answers::Answers,
    clock::Clock,
    packs::Packs,
    pump::{self, Effects, Pump, PumpHandle, Tasks},
};
use crate::{mesh::Mesh, store::journal::JournalStore};

/// Gives out leases until it is ended, or as long as it is held.
#[derive(Clone)]
pub struct Leasing {
    handle: PumpHandle<LeaseDesk>,
    answers: Answers<ControlAnswer>,
    tasks: Arc<Tasks>,
}

struct LeaseEffects {
    handle: PumpHandle<LeaseDesk>,
    answers: Answers<ControlAnswer>,
    key: SigningKey,
    own: NodeId,
    mesh: Mesh,
    packs: Packs,
}

impl Leasing {
    /// Recovers the desk and starts it.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn start(
        authority: &Authority,
        key: SigningKey,
        mesh: Mesh,
        packs: Packs,
        journals: &JournalStore,
        clock: Clock,
    ) -> Result<Self> {
        let charter = authority.charter();
        let setup = DeskSetup {
            station: charter.station.node,
            site: charter.site.clone(),
            epoch: charter.epoch(),
            took_over: !charter.former_stations.is_empty(),
        };
        let (handle, inputs) = pump::channel::<LeaseDesk>();
        let answers = Answers::new();
        let effects = LeaseEffects {
            handle: handle.clone(),
            answers: answers.clone(),
            key,
            own: charter.station.node,
            mesh: mesh.clone(),
            packs,
        };
        let pump = Pump::recover(journals, "leases", setup, clock, inputs, effects)?;
        let runs = tokio::spawn(async move {
            if let Err(error) = pump.run().await {
                tracing::error!(machine = "leases", "{error:#}");
                std::process::exit(70);
            }
        });
        let follows = tokio::spawn(follow_members(mesh, handle.clone()));
        let tasks = Arc::new(Tasks::new([runs.abort_handle(), follows.abort_handle()]));
        Ok(Self { handle, answers, tasks })
    }

    /// The station fetches this pack itself.
    pub async fn station_wants(&self, pack: PackId) {
        self.handle.input(DeskInput::StationWants { pack }).await;
    }

    /// A newer charter designates this station still.
    pub async fn epoch_changed(&self, epoch: Epoch) {
        self.handle.input(DeskInput::EpochChanged { epoch }).await;
    }

    /// A wish for a lease or its renewal; resolves when the desk has decided and the decision is durable.
    pub async fn ask(&self, node: NodeId, pack: PackId, held: u32) -> ControlAnswer {
        let receiver = self.answers.wait(node, pack);
        self.handle.input(DeskInput::Ask { node, pack, held }).await;
        receiver.await.unwrap_or_else(|_| ControlAnswer::Refused(Refusal::new(RefusalKind::Busy, "no lease now")))
    }

    /// Ends the desk, whoever still asks it: once this resolves its journal is durable and written no more.
    pub async fn end(&self) {
        self.answers.end();
        self.handle.end().await;
        self.tasks.abort();
    }
}

async fn follow_members(mesh: Mesh, handle: PumpHandle<LeaseDesk>) {
    let mut admitted = mesh.admitted();
    loop {
        let nodes: BTreeSet<NodeId> = admitted
            .borrow_and_update()
            .values()
            .filter(|peer| !peer.roles.contains(&branchline_protocol::charter::Role::Headquarters))
            .map(|peer| peer.node)
            .collect();
        handle.input(DeskInput::Living { nodes }).await;
        if admitted.changed().await.is_err() {
            return;
        }
    }
}

impl LeaseEffects {
    fn collect(&self, pack: PackId, nodes: Vec<NodeId>) {
        for node in nodes {
            let (mesh, handle, packs, own) = (self.mesh.clone(), self.handle.clone(), self.packs.clone(), self.own);
            tokio::spawn(async move {
                let bitmap = if node == own {
                    packs.holdings(pack)
                } else {
                    match mesh.request(node, ControlRequest::Holdings(pack)).await {
                        Ok(ControlAnswer::Holdings(bitmap)) => bitmap,
                        _ => Vec::new(),
                    }
                };
                handle.input(DeskInput::Holdings { node, pack, bitmap }).await;
            });
        }
    }
}

impl Effects<LeaseDesk> for LeaseEffects {
    fn perform(&mut self, output: DeskOutput) {
        match output {
            DeskOutput::Collect { pack, nodes } => self.collect(pack, nodes),
            DeskOutput::Grant { lease, held } => {
                let (node, pack) = (lease.holder, lease.pack);
                let lease = Signed::sign(&lease, &self.key);
                self.answers.give(node, pack, &ControlAnswer::Lease { lease, held });
            }
            DeskOutput::Deny { node, pack, inlet } => {
                let reason = format!("{inlet} brings pack {pack} into the site; ask its neighbours for frames");
                self.answers.give(node, pack, &ControlAnswer::Refused(Refusal::new(RefusalKind::Busy, reason)));
            }
            DeskOutput::Revoke { node, pack } => {
                if node == self.own {
                    let packs = self.packs.clone();
                    tokio::spawn(async move { packs.revoke_lease(pack).await });
                }
                // Another holder stops by its own clock, and the origin lets only the newest lease through.
            }
        }
    }
}
