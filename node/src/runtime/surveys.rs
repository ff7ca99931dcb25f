//! Surveys: the own descriptor, and sealed ones of this site, kept by content hash and spread to three nodes (R47, R49).
use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use branchline_protocol::{
    charter::{DoorFile, Sealed},
    ids::{Hash, NodeId, SiteName, SurveyHash},
    limits::{SEALED_SURVEY_BYTES_MAX, SURVEY_REPLICAS},
    refusal::{Refusal, RefusalKind},
    survey::{Descriptor, Difference},
    wire::{
        codec,
        control::{ControlAnswer, ControlRequest},
    },
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    config::{Home, random_bytes, write_atomically},
    door::{DoorClient, sha256},
    mesh::{Documents, Mesh},
    survey::{Script, Survey, SurveyRequest, assemble, take},
};

/// Sealed surveys that one node keeps for others.
const SURVEYS_MAX: usize = 4_096;
/// How long a coming and going of members is waited out before others are asked to keep a survey.
const SETTLE: Duration = Duration::from_secs(3);
/// After this a node that did not take a survey is asked again.
const AGAIN: Duration = Duration::from_secs(60);
/// The descriptor that the newest one replaced.
const BEFORE: &str = "descriptor-before.xml";
/// Changes that are told of; all of them can be seen by comparing the two files.
const CHANGES_MAX: usize = 40;
/// How long the station's door may take to give its script away.
const DOOR_PATIENCE: Duration = Duration::from_secs(30);
/// The file that names the newest sealed survey of this host.
const OWN_SEALED: &str = "own.sealed-name";

/// The surveys of one node; cheap to clone.
#[derive(Clone)]
pub struct Surveys {
    directory: PathBuf,
    root: PathBuf,
    script: Arc<Script>,
    documents: Documents,
    mesh: Mesh,
    /// The newest own survey in its sealed form.
    own: Arc<watch::Sender<Option<SurveyHash>>>,
}

/// A survey of this host, sealed and kept here.
pub struct OwnSurvey {
    /// Name of its sealed form.
    pub sealed: SurveyHash,
    /// Hash of the descriptor.
    pub descriptor: Hash,
    /// How it differs from the survey before, where there was one and something has changed (R47).
    pub changes: Option<String>,
}

/// What a later survey of this host shows, in words; `None` where nothing has changed.
fn changes(before: &Descriptor, after: &Descriptor) -> Option<String> {
    let difference = Difference::between(before, after).to_string();
    let lines: Vec<&str> = difference.lines().collect();
    let more = lines.len().saturating_sub(CHANGES_MAX);
    let shown = lines.iter().take(CHANGES_MAX).copied().collect::<Vec<_>>().join("\n");
    let rest =
        if more > 0 { format!("\nand {more} more: compare {BEFORE} with descriptor.xml") } else { String::new() };
    (!lines.is_empty()).then(|| format!("Changed since the survey before:\n{shown}{rest}"))
}

impl Surveys {
    /// The surveys in a home directory; `root` is the system that this node surveys.
    ///
    /// # Errors
    /// The directory cannot be made, or the script cannot be assembled.
    pub fn new(home: &Home, root: PathBuf, documents: Documents, mesh: Mesh) -> Result<Self> {
        let directory = home.directory("surveys")?;
        // A name that cannot be read is written anew by the next survey.
        let own = std::fs::read_to_string(directory.join(OWN_SEALED)).ok().and_then(|name| name.trim().parse().ok());
        let own = Arc::new(watch::Sender::new(own));
        Ok(Self { directory, root, script: Arc::new(assemble(&[])?), documents, mesh, own })
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

    /// Surveys this host, seals the descriptor to the station and the electors, and keeps it; [`Surveys::keep_spread`]
    /// hands it to others.
    ///
    /// # Errors
    /// The script fails, or the disk does.
    pub async fn survey(&self, site: &SiteName) -> Result<OwnSurvey> {
        let survey = self.take(site).await?;
        let xml = survey.descriptor.print();
        let authority = self.documents.authority(site).context("the site is not known")?;
        let sealed = Sealed::seal(xml.as_bytes(), &authority.charter().survey_readers(), &random_bytes()?)?;
        let encoded = codec::encode(&sealed, SEALED_SURVEY_BYTES_MAX)?;
        let hash = Sealed::hash_of(&encoded);
        self.store(hash, &encoded)?;
        let path = self.descriptor_path();
        // One that cannot be read any more is nothing to compare with.
        let before = self.own_descriptor().ok();
        if path.exists() {
            std::fs::copy(&path, self.directory.join(BEFORE)).context("keeping the descriptor before")?;
        }
        write_atomically(&path, xml.as_bytes(), 0o640)?;
        write_atomically(&self.directory.join(OWN_SEALED), hash.to_string().as_bytes(), 0o640)?;
        self.own.send_replace(Some(hash));
        let changes = before.and_then(|(before, _)| changes(&before, &survey.descriptor));
        Ok(OwnSurvey { sealed: hash, descriptor: Hash(*survey.descriptor.content_hash().as_bytes()), changes })
    }

    /// Takes a survey by the station's script, which may have signatures of its operator's (R43), where the owner has
    /// signed it (R50a); else by the script of this binary.
    async fn take(&self, site: &SiteName) -> Result<Survey> {
        match self.station_script(site).await {
            Ok(Some(text)) => match self.run(text).await {
                Err(error) => {
                    tracing::warn!("the station's survey script fails, so this node's own is used: {error:#}")
                }
                taken => return taken,
            },
            Ok(None) => {}
            Err(error) => tracing::info!("this node's own survey script is used, not the station's: {error:#}"),
        }
        self.run(self.script.text.clone()).await
    }

    async fn run(&self, script: String) -> Result<Survey> {
        let request = SurveyRequest::of_root(&self.root);
        Ok(tokio::task::spawn_blocking(move || take(&script, &request)).await??)
    }

    /// The script that the station's door gives away, if it is another than this binary's and the owner has signed it.
    async fn station_script(&self, site: &SiteName) -> Result<Option<String>> {
        let authority = self.documents.authority(site).context("the site is not known")?;
        let seat = &authority.charter().station;
        let door = DoorClient::new(seat.door, seat.door_fingerprint);
        let text = timeout(DOOR_PATIENCE, door.get(DoorFile::SurveyScript.path())).await;
        let text = text.context("the station's door does not come to the end of its script")??;
        if text == self.script.text.as_bytes() {
            return Ok(None);
        }
        let signed = self.documents.signature_of(site, DoorFile::SurveyScript, sha256(&text));
        ensure!(signed.is_some(), "the owner has not signed it; see `branchline release --signatures`");
        Ok(Some(String::from_utf8(text.into()).context("reading the station's script")?))
    }

    /// Sees to it, as long as the node runs, that the station and enough others keep the newest survey of this host: whoever
    /// joins later gets it where they are too few, and where a holder left another takes its place (R49).
    pub async fn keep_spread(self, site: SiteName) {
        let (mut own, mut admitted) = (self.own.subscribe(), self.mesh.admitted());
        let (mut spread, mut holders) = (None, BTreeSet::new());
        loop {
            let newest = *own.borrow_and_update();
            if spread != newest {
                (spread, holders) = (newest, BTreeSet::new());
            }
            let connected: BTreeSet<NodeId> = admitted.borrow_and_update().keys().copied().collect();
            let enough = match newest {
                Some(hash) => self.spread(&site, hash, &connected, &mut holders).await,
                None => true,
            };
            tokio::select! {
                changed = own.changed() => if changed.is_err() { return },
                changed = admitted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    sleep(SETTLE).await;
                }
                () = sleep(AGAIN), if !enough => {}
            }
        }
    }

    /// Asks the station, and others until enough of those that are connected hold the survey; says whether enough do.
    async fn spread(
        &self,
        site: &SiteName,
        hash: SurveyHash,
        connected: &BTreeSet<NodeId>,
        holders: &mut BTreeSet<NodeId>,
    ) -> bool {
        let (Some(authority), Some(encoded)) = (self.documents.authority(site), self.sealed(hash)) else {
            return false;
        };
        let (station, own) = (authority.charter().station.node, self.documents.node());
        let mut others: Vec<NodeId> = connected
            .iter()
            .copied()
            .filter(|node| ![authority.charter().headquarters.node, station].contains(node))
            .collect();
        // Each survey begins with other nodes, so that no node keeps the surveys of all.
        others.sort_by_key(|node| Hash::of(format!("{hash} {node}").as_bytes()));
        for node in std::iter::once(station).filter(|station| *station != own).chain(others) {
            // This node is a holder too.
            let held = 1 + holders.intersection(connected).count();
            if held >= SURVEY_REPLICAS && holders.contains(&station) {
                break;
            }
            if holders.contains(&node) || (held >= SURVEY_REPLICAS && node != station) {
                continue;
            }
            let request = ControlRequest::StoreSurvey { hash, sealed: encoded.clone() };
            match self.mesh.request(node, request).await {
                Ok(_) => drop(holders.insert(node)),
                Err(error) => tracing::debug!(%node, %error, "a sealed survey was not taken"),
            }
        }
        1 + holders.intersection(connected).count() >= SURVEY_REPLICAS && (station == own || holders.contains(&station))
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
        self.unseal(hash, &encoded)
    }

    /// Opens a sealed survey with this node's key; `None` where it is not kept here. Nothing is fetched.
    pub fn open_kept(&self, hash: SurveyHash) -> Option<Result<Descriptor, OpenError>> {
        self.sealed(hash).map(|encoded| self.unseal(hash, &encoded))
    }

    fn unseal(&self, hash: SurveyHash, encoded: &[u8]) -> Result<Descriptor, OpenError> {
        let damaged = |reason: String| OpenError::Damaged { hash, reason };
        let sealed: Sealed =
            codec::decode(encoded, SEALED_SURVEY_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
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
