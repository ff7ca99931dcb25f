//! What a station selects for its hosts: kept descriptors, plans, and what a plan's probe should find (R60-R63, R94).
use anyhow::{Context, Result};
use branchline_protocol::{
    catalogue::UndeclaredRule,
    charter::NodeAddresses,
    ids::{Hash, NodeId, SessionId},
    plan::{self, Plan, UndeclaredPorts},
    refusal::RefusalKind,
    survey::Descriptor,
};
use branchline_station_role::station::{PlanSummary, StationInput};

use super::{Cause, station::StationContext};
use crate::{config::write_atomically, mesh::as_refusal};

impl StationContext {
    /// Keeps a descriptor that was read here.
    pub(super) fn keep_descriptor(&self, hash: Hash, descriptor: &Descriptor) -> Result<()> {
        let directory = self.node.home.directory("descriptors")?;
        write_atomically(&directory.join(format!("{hash}.xml")), descriptor.print().as_bytes(), 0o640)
    }

    /// A descriptor that was read here.
    ///
    /// # Errors
    /// It is not kept here, or damaged.
    pub fn descriptor(&self, descriptor: Hash) -> Result<Descriptor> {
        let path = self.node.home.path(format!("descriptors/{descriptor}.xml"));
        let xml = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Descriptor::parse(&xml)?)
    }

    /// The plan that follows from a kept descriptor and from the documents in force.
    pub(super) fn plan(&self, node: NodeId, descriptor: Hash) -> Result<(Plan, Descriptor)> {
        let descriptor = self.descriptor(descriptor)?;
        let site = self.node.documents.site(&self.site).context("the site is not known")?;
        let ((catalogue, catalogue_hash), (policy, policy_hash)) = site.selection_documents()?;
        let plan = plan::select(node, &descriptor, (&catalogue, catalogue_hash), (&policy, policy_hash))?;
        Ok((plan, descriptor))
    }

    /// The ports on which the node itself listens, as far as they are known here.
    fn ports_of_node(&self, node: NodeId) -> Vec<u16> {
        let of = |addresses: NodeAddresses| vec![addresses.control.port(), addresses.bulk.port()];
        if node != self.node.documents.node() {
            return self.node.mesh.admitted().borrow().get(&node).map_or_else(Vec::new, |peer| of(peer.addresses));
        }
        let mut ports = of(self.node.documents.addresses());
        ports
            .extend(self.node.documents.authority(&self.site).map(|authority| authority.charter().station.door.port()));
        ports
    }

    /// Makes a session's plan, as soon as there are documents to make it from.
    pub(super) async fn make_plan(&self, session: SessionId, descriptor: Hash) {
        let mut changes = self.node.documents.changes();
        loop {
            let made = self.plan(session.node, descriptor);
            let input = match made {
                Ok((plan, read)) => {
                    self.node.packs.keep(plan.packs()).await;
                    let undeclared = UndeclaredPorts::of(&plan.ports(), &read, self.ports_of_node(session.node));
                    let summary = Box::new(PlanSummary::of(&plan, undeclared));
                    StationInput::PlanMade { session, descriptor, summary }
                }
                Err(error) if as_refusal(&error).kind == RefusalKind::NotFound => {
                    // No catalogue or policy has reached this station yet: what comes next may bring it.
                    let text = format!("nothing can be selected: {error:#}; publish it at headquarters");
                    self.notice_of(Cause::Documents, text);
                    if changes.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(error) => StationInput::PlanConflict { session, descriptor, explanation: format!("{error:#}") },
            };
            self.node.notices.over(Cause::Documents);
            return self.station(input).await;
        }
    }

    /// What the site policy says of undeclared ports. The newest counts, not the one of the plan: it may have been changed
    /// because of an earlier probe.
    pub(super) fn undeclared_rule(&self) -> UndeclaredRule {
        let documents = self.node.documents.site(&self.site).map(|site| site.selection_documents());
        match documents {
            Some(Ok((_, (policy, _)))) => policy.undeclared_ports,
            _ => UndeclaredRule::default(),
        }
    }
}
