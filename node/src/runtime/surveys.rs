//! Surveys: the own descriptor, and sealed ones of this site, kept by content hash and spread to three nodes (R47, R49).
use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};
use branchline_protocol::{
    charter::Sealed,
    ids::{Hash, NodeId, SiteName, SurveyHash},
    limits::{SEALED_SURVEY_BYTES_MAX, SURVEY_REPLICAS},
    refusal::{Refusal, RefusalKind},
    survey::Descriptor,
    wire::{
        codec,
        control::{ControlAnswer, ControlRequest},
    },
};

use crate::{
    config::{Home, random_bytes, write_atomically},
    mesh::{Documents, Mesh},
    survey::{Script, SurveyRequest, assemble, take},
};

/// Sealed surveys that one node keeps for others.
const SURVEYS_MAX: usize = 4_096;

/// The surveys of one node; cheap to clone.
#[derive(Clone)]
pub struct Surveys {
    directory: PathBuf,
    root: PathBuf,
    script: Arc<Script>,
    documents: Documents,
    mesh: Mesh,
}

/// A survey of this host, sealed and kept here.
pub struct OwnSurvey {
    /// Name of its sealed form.
    pub sealed: SurveyHash,
    /// Hash of the descriptor.
    pub descriptor: Hash,
}

impl Surveys {
    /// The surveys in a home directory; `root` is the system that this node surveys.
    ///
    /// # Errors
    /// The directory cannot be made, or the script cannot be assembled.
    pub fn new(home: &Home, root: PathBuf, documents: Documents, mesh: Mesh) -> Result<Self> {
        let directory = home.directory("surveys")?;
        Ok(Self { directory, root, script: Arc::new(assemble(&[])?), documents, mesh })
    }

    /// The script that this node runs and gives away.
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// Where the own descriptor is, for its operator (R47).
    pub fn descriptor_path(&self) -> PathBuf {
        self.directory.join("descriptor.xml")
    }

    /// The own newest descriptor, with its XML text.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn own_descriptor(&self) -> Result<(Descriptor, String)> {
        let path = self.descriptor_path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok((Descriptor::parse(text.as_bytes())?, text))
    }

    /// Surveys this host, seals the descriptor to the station and the electors, keeps it, and hands it to others.
    ///
    /// # Errors
    /// The script fails, or the disk does.
    pub async fn survey(&self, site: &SiteName) -> Result<OwnSurvey> {
        let (script, request) = (Arc::clone(&self.script), SurveyRequest::of_root(&self.root));
        let survey = tokio::task::spawn_blocking(move || take(&script, &request)).await??;
        let xml = survey.descriptor.print();
        let path = self.descriptor_path();
        if path.exists() {
            std::fs::copy(&path, self.directory.join("descriptor-before.xml"))
                .context("keeping the descriptor before")?;
        }
        write_atomically(&path, xml.as_bytes(), 0o640)?;
        let authority = self.documents.authority(site).context("the site is not known")?;
        let sealed = Sealed::seal(xml.as_bytes(), &authority.charter().survey_readers(), &random_bytes()?)?;
        let encoded = codec::encode(&sealed, SEALED_SURVEY_BYTES_MAX)?;
        let hash = Sealed::hash_of(&encoded);
        self.store(hash, &encoded)?;
        self.spread(site, hash, encoded).await;
        Ok(OwnSurvey { sealed: hash, descriptor: Hash(*survey.descriptor.content_hash().as_bytes()) })
    }

    /// Gives the sealed survey to the station and to enough others. What fails now is done by whoever asks for it later.
    async fn spread(&self, site: &SiteName, hash: SurveyHash, encoded: Vec<u8>) {
        let Some(authority) = self.documents.authority(site) else { return };
        let station = authority.charter().station.node;
        let mut holders: Vec<NodeId> = self.mesh.admitted().borrow().keys().copied().collect();
        holders.retain(|node| *node != authority.charter().headquarters.node && *node != station);
        let mut copies = 1;
        for node in std::iter::once(station).chain(holders) {
            if copies >= SURVEY_REPLICAS + usize::from(node == station) {
                break;
            }
            let request = ControlRequest::StoreSurvey { hash, sealed: encoded.clone() };
            match self.mesh.request(node, request).await {
                Ok(_) => copies += 1,
                Err(error) => tracing::debug!(%node, %error, "a sealed survey was not taken"),
            }
        }
    }

    /// Keeps a sealed survey of somebody.
    ///
    /// # Errors
    /// It does not have that hash, is too large, or the disk fails.
    pub fn store(&self, hash: SurveyHash, encoded: &[u8]) -> Result<()> {
        if encoded.len() > SEALED_SURVEY_BYTES_MAX {
            bail!(Refusal::new(RefusalKind::TooLarge, "the sealed survey is too large"));
        }
        if Sealed::hash_of(encoded) != hash {
            bail!(Refusal::new(RefusalKind::Malformed, "the sealed survey does not have the hash that it is named by"));
        }
        let path = self.sealed_path(hash);
        if !path.exists() {
            let kept = std::fs::read_dir(&self.directory).map_or(0, Iterator::count);
            if kept >= SURVEYS_MAX {
                bail!(Refusal::new(RefusalKind::Busy, "this node keeps as many surveys as it may"));
            }
            write_atomically(&path, encoded, 0o640)?;
        }
        Ok(())
    }

    /// A sealed survey, if it is kept here.
    pub fn sealed(&self, hash: SurveyHash) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.sealed_path(hash)).ok()?;
        (Sealed::hash_of(&bytes) == hash).then_some(bytes)
    }

    fn sealed_path(&self, hash: SurveyHash) -> PathBuf {
        self.directory.join(format!("{hash}.sealed"))
    }

    /// Fetches a sealed survey from whoever holds it, the surveyed host first, and opens it with this node's key.
    ///
    /// # Errors
    /// Nobody has it, it is not sealed to this node, or what is in it is no descriptor.
    pub async fn open(&self, host: NodeId, hash: SurveyHash) -> Result<Descriptor, OpenError> {
        let encoded = match self.sealed(hash) {
            Some(encoded) => encoded,
            None => self.fetch(host, hash).await.ok_or(OpenError::NotFound(hash))?,
        };
        let damaged = |reason: String| OpenError::Damaged { hash, reason };
        let sealed: Sealed =
            codec::decode(&encoded, SEALED_SURVEY_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
        let plain = sealed.open(self.documents.key()).map_err(|error| damaged(error.to_string()))?;
        Descriptor::parse(&plain).map_err(|error| damaged(error.to_string()))
    }

    async fn fetch(&self, host: NodeId, hash: SurveyHash) -> Option<Vec<u8>> {
        let others: Vec<NodeId> = self.mesh.admitted().borrow().keys().copied().collect();
        for node in std::iter::once(host).chain(others.into_iter().filter(|node| *node != host)) {
            if let Ok(ControlAnswer::Survey(encoded)) = self.mesh.request(node, ControlRequest::Survey(hash)).await
                && self.store(hash, &encoded).is_ok()
            {
                return Some(encoded);
            }
        }
        None
    }
}

/// Why a sealed survey could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody who answers holds it; trying again may help.
    #[error("no node that answers holds the sealed survey {0}")]
    NotFound(SurveyHash),
    /// It is here, and cannot be read.
    #[error("the sealed survey {hash} cannot be read: {reason}")]
    Damaged {
        /// Which.
        hash: SurveyHash,
        /// Why.
        reason: String,
    },
}
