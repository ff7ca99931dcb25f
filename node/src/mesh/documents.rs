//! The signed documents that a node holds, per site: kept on disk, judged by `Authority`, newest wins.
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use branchline_protocol::{
    catalogue::{Catalogue, DocumentMemory, SitePolicy},
    charter::{Authority, DoorFile, Membership, NodeAddresses, Release, Revocations, Role, Signed},
    ids::{DocumentHash, Hash, NodeId, SiteName},
    rates::BandwidthRules,
    refusal::{Refusal, RefusalKind},
    time::UnixSeconds,
    wire::control::{CONTROL_VERSIONS, ControlRequest, DocumentKind, DocumentVersions, Hello},
};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::{Home, Zone};

/// What a node knows of one site.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SiteState {
    /// Charter and revocations.
    pub authority: Authority,
    /// The own membership; station and headquarters have none.
    pub membership: Option<Signed<Membership>>,
    /// The newest catalogue.
    pub catalogue: Option<Signed<Catalogue>>,
    /// The newest site policy.
    pub policy: Option<Signed<SitePolicy>>,
    /// The newest bandwidth rules.
    #[serde(default)]
    pub bandwidth: Option<Signed<BandwidthRules>>,
    /// The newest release.
    #[serde(default)]
    pub release: Option<Signed<Release>>,
    /// The highest versions that were ever accepted.
    pub memory: DocumentMemory,
}

impl SiteState {
    /// Takes a document in the JSON text of its signed form. `true`: it was newer.
    fn take(&mut self, kind: DocumentKind, json: &[u8], wall: UnixSeconds) -> Result<bool, Refusal> {
        fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Refusal> {
            serde_json::from_slice(json)
                .map_err(|error| Refusal::new(RefusalKind::Malformed, format!("the document cannot be read: {error}")))
        }
        match kind {
            DocumentKind::Charter => self.authority.take_charter(read(json)?),
            DocumentKind::Revocations => {
                let signed: Signed<Revocations> = read(json)?;
                self.authority.take_revocations(signed)
            }
            DocumentKind::Catalogue => {
                let signed: Signed<Catalogue> = read(json)?;
                let before = self.memory.catalogue();
                self.memory.accept_catalogue(self.authority.charter(), &signed, wall)?;
                let newer = self.memory.catalogue() != before || self.catalogue.is_none();
                self.catalogue = Some(signed);
                Ok(newer)
            }
            DocumentKind::Policy => {
                let signed: Signed<SitePolicy> = read(json)?;
                let before = self.memory.policy();
                self.memory.accept_policy(self.authority.charter(), &signed, wall)?;
                let newer = self.memory.policy() != before || self.policy.is_none();
                self.policy = Some(signed);
                Ok(newer)
            }
            DocumentKind::Bandwidth => {
                let signed: Signed<BandwidthRules> = read(json)?;
                let before = self.memory.bandwidth();
                let rules = self.memory.accept_bandwidth(self.authority.charter(), &signed, wall)?;
                Zone::named(&rules.time_zone, wall)
                    .map_err(|error| Refusal::new(RefusalKind::Malformed, format!("{error:#}")))?;
                let newer = self.memory.bandwidth() != before || self.bandwidth.is_none();
                self.bandwidth = Some(signed);
                Ok(newer)
            }
            DocumentKind::Release => {
                let signed: Signed<Release> = read(json)?;
                let before = self.memory.release();
                self.memory.accept_release(self.authority.charter(), self.authority.root(), &signed, wall)?;
                let newer = self.memory.release() != before || self.release.is_none();
                self.release = Some(signed);
                Ok(newer)
            }
        }
    }

    /// A site of which only the charter is known.
    pub fn new(authority: Authority, membership: Option<Signed<Membership>>) -> Self {
        let memory = DocumentMemory::default();
        Self { authority, membership, catalogue: None, policy: None, bandwidth: None, release: None, memory }
    }

    /// What a hello says of the documents.
    pub fn versions(&self) -> DocumentVersions {
        DocumentVersions {
            charter: self.authority.charter().version,
            revocations: self.authority.revocations_rank(),
            catalogue: self.memory.catalogue(),
            policy: self.memory.policy(),
            bandwidth: self.memory.bandwidth(),
            release: self.memory.release(),
        }
    }

    /// The bandwidth rules, where there are any.
    pub fn bandwidth_rules(&self) -> Option<BandwidthRules> {
        self.bandwidth.as_ref()?.verify(self.authority.charter().keys.administrator).ok()
    }

    /// Catalogue and policy with their hashes, where both are here and hold.
    ///
    /// # Errors
    /// One is missing, or does not hold any more (it may have expired).
    pub fn selection_documents(&self) -> Result<((Catalogue, DocumentHash), (SitePolicy, DocumentHash)), Refusal> {
        let missing = |what: &str| Refusal::new(RefusalKind::NotFound, format!("no {what} has reached this node yet"));
        let keys = &self.authority.charter().keys;
        let catalogue = self.catalogue.as_ref().ok_or_else(|| missing("catalogue"))?;
        let policy = self.policy.as_ref().ok_or_else(|| missing("site policy"))?;
        Ok(((catalogue.verify(keys.catalogue)?, catalogue.hash()), (policy.verify(keys.administrator)?, policy.hash())))
    }
}

/// A peer whose hello was accepted.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Who.
    pub node: NodeId,
    /// In which site.
    pub site: SiteName,
    /// Its roles there.
    pub roles: Vec<Role>,
    /// Where it listens.
    pub addresses: NodeAddresses,
    /// The machine that it says it runs on.
    pub machine_identifier: String,
    /// What it holds.
    pub documents: DocumentVersions,
    /// When its membership ends; `None` for who needs none. A renewed one comes with another hello. At the station it may
    /// have ended: then it is for nothing but the renewal.
    pub membership_ends_at: Option<UnixSeconds>,
}

impl Admission {
    /// Whether it still holds: connections outlive memberships (R50a).
    pub fn holds_at(&self, wall: UnixSeconds) -> bool {
        self.membership_ends_at.is_none_or(|end| wall < end)
    }

    /// Whether it holds for a request: one that has ended is good for its renewal only.
    pub fn holds_for(&self, request: Option<&ControlRequest>, wall: UnixSeconds) -> bool {
        matches!(request, Some(ControlRequest::RenewMembership)) || self.holds_at(wall)
    }
}

struct State {
    sites: BTreeMap<SiteName, SiteState>,
}

/// All documents of one node; cheap to clone.
#[derive(Clone)]
pub struct Documents {
    home: Home,
    key: SigningKey,
    node: NodeId,
    addresses: NodeAddresses,
    machine_identifier: Arc<str>,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Documents {
    /// Reads what the home directory holds.
    ///
    /// # Errors
    /// A file cannot be read or is damaged.
    pub fn load(home: Home, key: SigningKey, addresses: NodeAddresses, machine_identifier: &str) -> Result<Self> {
        let mut sites = BTreeMap::new();
        let directory = home.directory("sites")?;
        for entry in std::fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some(site) = name.strip_suffix(".json") else { continue };
            if let Some(state) = home.read_json::<SiteState>(format!("sites/{name}"))? {
                sites.insert(site.parse()?, state);
            }
        }
        let node = branchline_protocol::charter::PublicKey::of(&key).0;
        let (changed, _) = watch::channel(0);
        Ok(Self {
            home,
            key,
            node,
            addresses,
            machine_identifier: machine_identifier.into(),
            state: Arc::new(Mutex::new(State { sites })),
            changed: Arc::new(changed),
        })
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Where this node listens.
    pub fn addresses(&self) -> NodeAddresses {
        self.addresses
    }

    /// The same, of a node that listens at another address.
    #[must_use]
    pub fn listening_at(mut self, address: IpAddr) -> Self {
        self.addresses.control.set_ip(address);
        self.addresses.bulk.set_ip(address);
        self
    }

    /// This node's key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Counts changes; a receiver wakes at each.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The names of the sites, in order.
    pub fn sites(&self) -> Vec<SiteName> {
        self.look(|state| state.sites.keys().cloned().collect())
    }

    /// What is known of a site.
    pub fn site(&self, site: &SiteName) -> Option<SiteState> {
        self.look(|state| state.sites.get(site).cloned())
    }

    /// The authority of a site.
    pub fn authority(&self, site: &SiteName) -> Option<Arc<Authority>> {
        self.look(|state| state.sites.get(site).map(|site| Arc::new(site.authority.clone())))
    }

    /// The owner's signature over a file that the public door of `site` gives away, where the newest release has one.
    pub fn signature_of(&self, site: &SiteName, kind: DoorFile, sha256: Hash) -> Option<String> {
        let known = |state: &State| {
            let site = state.sites.get(site)?;
            Some((site.release.clone()?, site.authority.root()))
        };
        // Strangers ask for it: what costs time is done without the lock.
        let (signed, owner) = self.look(known)?;
        signed.verify(owner).ok()?.signature_of(kind, sha256).map(str::to_owned)
    }

    /// Adds a site, or takes what is newer where it is known already.
    ///
    /// # Errors
    /// An older charter, or the disk fails.
    pub fn add_site(&self, authority: Authority, membership: Option<Signed<Membership>>) -> Result<()> {
        let site = authority.charter().site.clone();
        if self.site(&site).is_some() {
            self.change(&site, |state| {
                state.authority.take_charter(authority.signed_charter().clone())?;
                if membership.is_some() {
                    state.membership = membership;
                }
                Ok(true)
            })?;
            return Ok(());
        }
        let state = SiteState::new(authority, membership);
        self.home.write_json(format!("sites/{site}.json"), &state)?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sites.insert(site, state);
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Takes a renewed membership.
    ///
    /// # Errors
    /// It is not for this node, or the disk fails.
    pub fn take_membership(&self, site: &SiteName, membership: Signed<Membership>, wall: UnixSeconds) -> Result<()> {
        let node = self.node;
        self.change(site, |state| {
            state.authority.check_member(node, Some(&membership), wall)?;
            state.membership = Some(membership);
            Ok(true)
        })?;
        Ok(())
    }

    /// Takes a document in the JSON text of its signed form. `true`: it was newer, and is kept now.
    ///
    /// # Errors
    /// It does not hold, is older, or the disk fails.
    pub fn take(&self, site: &SiteName, kind: DocumentKind, json: &[u8], wall: UnixSeconds) -> Result<bool> {
        self.change(site, |state| state.take(kind, json, wall))
    }

    /// Whether [`Self::take`] would succeed, and with which answer; changes nothing.
    ///
    /// # Errors
    /// The document does not hold, or is older.
    pub fn would_take(
        &self,
        site: &SiteName,
        kind: DocumentKind,
        json: &[u8],
        wall: UnixSeconds,
    ) -> Result<bool, Refusal> {
        self.site(site).ok_or_else(|| unknown_site(site))?.take(kind, json, wall)
    }

    /// A document in the JSON text of its signed form.
    pub fn give(&self, site: &SiteName, kind: DocumentKind) -> Option<Vec<u8>> {
        let state = self.site(site)?;
        let json = match kind {
            DocumentKind::Charter => serde_json::to_vec(state.authority.signed_charter()),
            DocumentKind::Revocations => serde_json::to_vec(state.authority.signed_revocations()?),
            DocumentKind::Catalogue => serde_json::to_vec(&state.catalogue?),
            DocumentKind::Policy => serde_json::to_vec(&state.policy?),
            DocumentKind::Bandwidth => serde_json::to_vec(&state.bandwidth?),
            DocumentKind::Release => serde_json::to_vec(&state.release?),
        };
        json.ok()
    }

    /// The hello by which this node shows itself in a site.
    pub fn hello(&self, site: &SiteName) -> Option<Hello> {
        let state = self.site(site)?;
        let is_station = state.authority.roles(self.node).contains(&Role::Station);
        Some(Hello {
            versions: CONTROL_VERSIONS,
            charter: state.authority.signed_charter().clone(),
            warrant: is_station.then(|| state.authority.sign_warrant(&self.key)),
            documents: state.versions(),
            membership: state.membership,
            addresses: self.addresses,
            machine_identifier: self.machine_identifier.to_string(),
        })
    }

    /// Judges the hello of a peer that TLS has identified as `node`. A newer charter in it is taken.
    ///
    /// # Errors
    /// Not a member, an unknown site, a charter by another owner, no common version.
    pub fn admit(&self, node: NodeId, hello: &Hello, wall: UnixSeconds) -> Result<Admission, Refusal> {
        let (lowest, highest) = (CONTROL_VERSIONS.0.max(hello.versions.0), CONTROL_VERSIONS.1.min(hello.versions.1));
        if lowest > highest {
            let reason = format!(
                "this node speaks versions {} to {} of the control protocol, the peer {} to {}; upgrade the older one",
                CONTROL_VERSIONS.0, CONTROL_VERSIONS.1, hello.versions.0, hello.versions.1
            );
            return Err(Refusal::new(RefusalKind::Malformed, reason));
        }
        if hello.machine_identifier.len() > 256 {
            return Err(Refusal::new(RefusalKind::TooLarge, "a machine identifier has at most 256 bytes"));
        }
        let site = self.site_of_charter(hello)?;
        let stale = |refusal: &Refusal| refusal.kind == RefusalKind::Stale;
        match self.change(&site, |state| state.authority.take_charter(hello.charter.clone())) {
            Ok(_) => {}
            Err(error) if error.downcast_ref::<Refusal>().is_some_and(stale) => {}
            Err(error) => return Err(as_refusal(&error)),
        }
        let authority = self.authority(&site).ok_or_else(|| unknown_site(&site))?;
        // A host that was off for longer than its membership lived must reach the station to renew it.
        let membership = if authority.charter().station.node == self.node {
            authority.check_membership(node, hello.membership.as_ref())?
        } else {
            authority.check_member(node, hello.membership.as_ref(), wall)?
        };
        if let Some(membership) = &membership
            && membership.machine_identifier != hello.machine_identifier
        {
            let reason = format!(
                "{node} is a member on machine {}, but is shown by machine {} at {}: one identity on two machines; make \
                 an identity for the second one (an empty home directory and a token of its own)",
                membership.machine_identifier,
                hello.machine_identifier,
                hello.addresses.control.ip()
            );
            return Err(Refusal::new(RefusalKind::DuplicateIdentity, reason));
        }
        Ok(Admission {
            node,
            roles: authority.roles(node),
            site,
            addresses: hello.addresses,
            machine_identifier: hello.machine_identifier.clone(),
            documents: hello.documents.clone(),
            membership_ends_at: membership.map(|membership| membership.expires_at),
        })
    }

    fn site_of_charter(&self, hello: &Hello) -> Result<SiteName, Refusal> {
        let charter = hello.charter.verify(hello.charter.signer())?;
        let known = self.authority(&charter.site).ok_or_else(|| unknown_site(&charter.site))?;
        if known.root() != hello.charter.signer() {
            let reason = format!("site {} belongs to another owner here than the charter shown says", charter.site);
            return Err(Refusal::new(RefusalKind::NotAMember, reason));
        }
        Ok(charter.site)
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes a copy, writes it to disk, and only then makes it the truth.
    fn change(&self, site: &SiteName, change: impl FnOnce(&mut SiteState) -> Result<bool, Refusal>) -> Result<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.sites.get_mut(site).ok_or_else(|| unknown_site(site))?;
        let mut next = known.clone();
        if !change(&mut next)? {
            return Ok(false);
        }
        self.home.write_json(format!("sites/{site}.json"), &next)?;
        *known = next;
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        Ok(true)
    }
}

fn unknown_site(site: &SiteName) -> Refusal {
    Refusal::new(RefusalKind::NotAMember, format!("site {site} is not known here"))
}

/// A refusal as it was, or an internal fault that says what went wrong.
pub fn as_refusal(error: &anyhow::Error) -> Refusal {
    error
        .downcast_ref::<Refusal>()
        .cloned()
        .unwrap_or_else(|| Refusal::new(RefusalKind::Internal, format!("{error:#}")))
}

/// The documents of which `theirs` is newer.
pub(super) fn newer(own: &DocumentVersions, theirs: &DocumentVersions) -> Vec<DocumentKind> {
    let version = |document: &Option<(u64, _)>| document.as_ref().map_or(0, |(version, _)| *version);
    let mut kinds = Vec::new();
    if theirs.charter > own.charter {
        kinds.push(DocumentKind::Charter);
    }
    if theirs.revocations > own.revocations {
        kinds.push(DocumentKind::Revocations);
    }
    if version(&theirs.catalogue) > version(&own.catalogue) {
        kinds.push(DocumentKind::Catalogue);
    }
    if version(&theirs.policy) > version(&own.policy) {
        kinds.push(DocumentKind::Policy);
    }
    if version(&theirs.bandwidth) > version(&own.bandwidth) {
        kinds.push(DocumentKind::Bandwidth);
    }
    if version(&theirs.release) > version(&own.release) {
        kinds.push(DocumentKind::Release);
    }
    kinds
}
