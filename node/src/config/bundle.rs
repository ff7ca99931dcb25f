//! The offline bundle: the keys that no station holds, and the documents that they signed.
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use branchline_protocol::{
    catalogue::{Catalogue, SitePolicy},
    charter::{Charter, Keys, PublicKey, Release, Signed},
    rates::BandwidthRules,
};
use ed25519_dalek::SigningKey;
use serde::{Serialize, de::DeserializeOwned};

use super::{Zone, keys, write_atomically};
use crate::runtime::wall_time;

/// A directory with `owner.key`, `catalogue.key`, `administrator.key`, `approval.key`, `charter.json`, `policy.json`,
/// `release.json` and the directory `catalogue`. It belongs on a medium that is taken out when it is not used.
#[derive(Clone, Debug)]
pub struct Bundle {
    directory: PathBuf,
}

/// The keys of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleKey {
    /// Signs charters and releases.
    Owner,
    /// Signs catalogues.
    Catalogue,
    /// Signs site policies.
    Administrator,
    /// Signs approvals.
    Approval,
}

impl BundleKey {
    const ALL: [Self; 4] = [Self::Owner, Self::Catalogue, Self::Administrator, Self::Approval];

    /// The key's file in the bundle.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Owner => "owner.key",
            Self::Catalogue => "catalogue.key",
            Self::Administrator => "administrator.key",
            Self::Approval => "approval.key",
        }
    }
}

impl Bundle {
    /// Makes a new bundle with fresh keys. An existing one is never touched.
    ///
    /// # Errors
    /// The directory holds keys already, or cannot be written.
    pub fn create(directory: &Path) -> Result<Self> {
        if directory.join(BundleKey::Owner.file_name()).exists() {
            bail!("{} holds a bundle already; its keys are never overwritten", directory.display());
        }
        fs::create_dir_all(directory).with_context(|| format!("making the bundle {}", directory.display()))?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("setting the mode of {}", directory.display()))?;
        for key in BundleKey::ALL {
            keys::create_key(&directory.join(key.file_name()))?;
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// Opens a bundle.
    ///
    /// # Errors
    /// There is none.
    pub fn open(directory: &Path) -> Result<Self> {
        if !directory.join(BundleKey::Owner.file_name()).exists() {
            bail!(
                "{} holds no bundle; `branchline init --bundle {}` makes one",
                directory.display(),
                directory.display()
            );
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// A path in the bundle.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// One of the secret keys.
    ///
    /// # Errors
    /// Its file is missing or damaged.
    pub fn key(&self, key: BundleKey) -> Result<SigningKey> {
        keys::read_key(&self.path(key.file_name()))
    }

    /// The public keys as a charter names them.
    ///
    /// # Errors
    /// A key cannot be read.
    pub fn public_keys(&self) -> Result<Keys> {
        Ok(Keys {
            catalogue: PublicKey::of(&self.key(BundleKey::Catalogue)?),
            administrator: PublicKey::of(&self.key(BundleKey::Administrator)?),
            approvers: vec![PublicKey::of(&self.key(BundleKey::Approval)?)],
        })
    }

    /// The charter as last signed.
    ///
    /// # Errors
    /// It is missing, or not signed by this bundle's owner.
    pub fn charter(&self) -> Result<Charter> {
        let signed: Signed<Charter> = read_document(&self.path("charter.json"))?;
        Ok(signed.verify(PublicKey::of(&self.key(BundleKey::Owner)?))?)
    }

    /// Signs a charter and keeps it in the bundle.
    ///
    /// # Errors
    /// It breaks a rule, or cannot be written.
    pub fn sign_charter(&self, charter: &Charter) -> Result<Signed<Charter>> {
        charter.check()?;
        let signed = Signed::sign(charter, &self.key(BundleKey::Owner)?);
        write_document(&self.path("charter.json"), &signed)?;
        Ok(signed)
    }

    /// The release as last signed, where there is one.
    ///
    /// # Errors
    /// It is damaged, or not signed by this bundle's owner.
    pub fn release(&self) -> Result<Option<Release>> {
        let path = self.path("release.json");
        if !path.exists() {
            return Ok(None);
        }
        let signed: Signed<Release> = read_document(&path)?;
        Ok(Some(signed.verify(PublicKey::of(&self.key(BundleKey::Owner)?))?))
    }

    /// Signs a release and keeps it in the bundle.
    ///
    /// # Errors
    /// One of its files is not signed by this bundle's owner, or it cannot be written.
    pub fn sign_release(&self, release: &Release) -> Result<Signed<Release>> {
        let key = self.key(BundleKey::Owner)?;
        release.check(PublicKey::of(&key))?;
        let signed = Signed::sign(release, &key);
        write_document(&self.path("release.json"), &signed)?;
        Ok(signed)
    }

    /// Signs a site policy and keeps it in the bundle.
    ///
    /// # Errors
    /// It breaks a rule, or cannot be written.
    pub fn sign_policy(&self, policy: &SitePolicy) -> Result<Signed<SitePolicy>> {
        policy.check()?;
        let signed = Signed::sign(policy, &self.key(BundleKey::Administrator)?);
        write_document(&self.path("policy.json"), &signed)?;
        Ok(signed)
    }

    /// Signs bandwidth rules and keeps them in the bundle.
    ///
    /// # Errors
    /// They break a rule, or cannot be written.
    pub fn sign_bandwidth(&self, rules: &BandwidthRules) -> Result<Signed<BandwidthRules>> {
        rules.check()?;
        // Nodes look the zone up; a name that they do not know is not to be signed.
        Zone::named(&rules.time_zone, wall_time())?;
        let signed = Signed::sign(rules, &self.key(BundleKey::Administrator)?);
        write_document(&self.path("bandwidth.json"), &signed)?;
        Ok(signed)
    }

    /// Signs a catalogue without packages, the first of a new site.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn sign_catalogue(&self, catalogue: &Catalogue) -> Result<Signed<Catalogue>> {
        let signed = Signed::sign(catalogue, &self.key(BundleKey::Catalogue)?);
        write_document(&self.path("catalogue/catalogue.json"), &signed)?;
        Ok(signed)
    }
}

/// Reads a signed document, or anything else in JSON.
///
/// # Errors
/// The file is missing or damaged.
pub fn read_document<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no such document", path.display()))
}

/// Writes a signed document.
///
/// # Errors
/// The file cannot be written.
pub fn write_document<T: Serialize>(path: &Path, document: &T) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    write_atomically(path, &serde_json::to_vec_pretty(document)?, 0o644)
}
