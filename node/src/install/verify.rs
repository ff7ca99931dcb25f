//! The installer's own judgement: who owns this host, what was the newest that they signed, and which plan follows (R62,
//! R87, R122). The network process is not believed in anything.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use branchline_protocol::{
    catalogue::DocumentMemory,
    charter::{Authority, Charter, PublicKey, Revocations, Signed},
    ids::NodeId,
    plan::{Plan, select},
    refusal::{Refusal, RefusalKind},
    survey::Descriptor,
    time::UnixSeconds,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    files::{self, FileError, at},
    socket::InstallOrder,
};

/// Why the installer's memory cannot be used at its start.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Started for another owner than before.
    #[error(
        "this installer belongs to the owner {known}, not to {given}; a host changes its owner only with a new state directory"
    )]
    OtherOwner {
        /// The owner of the first start.
        known: PublicKey,
        /// The owner that was given now.
        given: PublicKey,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Memory {
    owner: PublicKey,
    node: Option<NodeId>,
    authority: Option<Authority>,
    documents: DocumentMemory,
}

/// What the installer holds for true, on disk.
#[derive(Debug)]
pub struct Trust {
    path: PathBuf,
    memory: Memory,
}

impl Trust {
    /// Reads the memory in `state`, or begins one that takes only what `owner` signed.
    ///
    /// # Errors
    /// The file cannot be used, or belongs to another owner.
    pub fn open(state: &Path, owner: PublicKey) -> Result<Self, TrustError> {
        let path = state.join("trust.json");
        let memory = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Memory { owner, node: None, authority: None, documents: DocumentMemory::default() }
            }
            read => {
                let text = read.map_err(at("read", &path))?;
                let memory: Memory = serde_json::from_slice(&text).map_err(|error| at("read", &path)(error.into()))?;
                if memory.owner != owner {
                    return Err(TrustError::OtherOwner { known: memory.owner, given: owner });
                }
                memory
            }
        };
        let trust = Self { path, memory };
        trust.save()?;
        Ok(trust)
    }

    fn save(&self) -> Result<(), FileError> {
        let text = serde_json::to_vec(&self.memory).map_err(|error| at("write", &self.path)(error.into()))?;
        files::write_atomically(&self.path, &text, 0o600)
    }

    /// Changes the memory, durably before the answer.
    fn keep<T>(&mut self, change: impl FnOnce(&mut Memory) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let before = self.memory.clone();
        let result = change(&mut self.memory);
        if result.is_err() {
            self.memory = before;
            return result;
        }
        if let Err(error) = self.save() {
            self.memory = before;
            return Err(Refusal::new(RefusalKind::Internal, error.to_string()));
        }
        result
    }

    /// The host's identity, once it is fixed.
    pub fn node(&self) -> Option<NodeId> {
        self.memory.node
    }

    /// Version of the charter in force; 0 before the first.
    pub fn charter_version(&self) -> u64 {
        self.memory.authority.as_ref().map_or(0, |authority| authority.charter().version)
    }

    /// Takes a charter that the owner signed and that is not older than the one in force.
    ///
    /// # Errors
    /// Signed by another, older, or not usable.
    pub fn take_charter(&mut self, signed: &Signed<Charter>) -> Result<u64, Refusal> {
        let owner = self.memory.owner;
        self.keep(|memory| {
            match &mut memory.authority {
                Some(authority) => drop(authority.take_charter(signed.clone())?),
                none => *none = Some(Authority::establish(owner, signed.clone())?),
            }
            Ok(())
        })?;
        Ok(self.charter_version())
    }

    /// Keeps a list of revoked members with the charter.
    ///
    /// # Errors
    /// No charter yet, badly signed, or older.
    pub fn take_revocations(&mut self, signed: &Signed<Revocations>) -> Result<(), Refusal> {
        self.keep(|memory| match &mut memory.authority {
            Some(authority) => authority.take_revocations(signed.clone()).map(drop),
            None => Err(Refusal::new(RefusalKind::WrongState, "there is no charter yet")),
        })
    }

    /// Computes the plan of an order from its documents, and refuses any other than the one that was ordered.
    ///
    /// # Errors
    /// A document that is not signed as it must be, old or mixed; another host's order; a descriptor that is none; or a
    /// plan that does not follow.
    pub fn judge(&mut self, order: &InstallOrder, wall: UnixSeconds) -> Result<Plan, Refusal> {
        if let Some(node) = self.memory.node.filter(|node| *node != order.node) {
            let reason = format!("the order is for {}, but this host is {node}", order.node);
            return Err(Refusal::new(RefusalKind::NotAuthorised, reason));
        }
        self.take_charter(&order.charter)?;
        let (catalogue, policy) = self.keep(|memory| {
            let charter = memory.authority.as_ref().map(|authority| authority.charter());
            let charter = charter.ok_or_else(|| Refusal::new(RefusalKind::Internal, "there is no charter"))?;
            let catalogue = memory.documents.accept_catalogue(charter, &order.catalogue, wall)?;
            let policy = memory.documents.accept_policy(charter, &order.policy, wall)?;
            Ok((catalogue, policy))
        })?;
        let descriptor = Descriptor::parse(order.descriptor_xml.as_bytes()).map_err(|error| {
            Refusal::new(RefusalKind::Malformed, format!("the descriptor of this host is not usable: {error}"))
        })?;
        let plan =
            select(order.node, &descriptor, (&catalogue, order.catalogue.hash()), (&policy, order.policy.hash()))
                .map_err(|error| {
                    Refusal::new(RefusalKind::Conflict, format!("no plan follows for this host: {error}"))
                })?;
        let own = plan.hash();
        if own != order.plan {
            let reason = format!(
                "the plan {} was ordered, but {own} follows from the signed catalogue, the signed site policy and this \
                 host's descriptor; nothing is done",
                order.plan
            );
            return Err(Refusal::new(RefusalKind::PlanDiffers, reason));
        }
        self.keep(|memory| {
            memory.node = Some(order.node);
            Ok(())
        })?;
        Ok(plan)
    }
}
