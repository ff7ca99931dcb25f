//! The memory of one verifier: which catalogue and which policy it has seen, so that nobody leads it back (R122).
use serde::{Deserialize, Serialize};

use super::{package::Catalogue, policy::SitePolicy};
use crate::{
    charter::{Charter, Document, PublicKey, Release, Signed},
    ids::{DocumentHash, SiteName},
    rates::BandwidthRules,
    refusal::{Refusal, RefusalKind},
    time::UnixSeconds,
};

/// The highest versions that were seen. Serializable, because it must survive a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentMemory {
    catalogue: Option<(u64, DocumentHash)>,
    policy: Option<(u64, DocumentHash)>,
    #[serde(default)]
    bandwidth: Option<(u64, DocumentHash)>,
    #[serde(default)]
    release: Option<(u64, DocumentHash)>,
}

impl DocumentMemory {
    /// Version and hash of the newest catalogue that was accepted.
    pub fn catalogue(&self) -> Option<(u64, DocumentHash)> {
        self.catalogue
    }

    /// Version and hash of the newest site policy that was accepted.
    pub fn policy(&self) -> Option<(u64, DocumentHash)> {
        self.policy
    }

    /// Version and hash of the newest bandwidth rules that were accepted.
    pub fn bandwidth(&self) -> Option<(u64, DocumentHash)> {
        self.bandwidth
    }

    /// Version and hash of the newest release that was accepted.
    pub fn release(&self) -> Option<(u64, DocumentHash)> {
        self.release
    }

    /// Accepts a catalogue that is not older than any seen before, and remembers it.
    ///
    /// # Errors
    /// Signed by another than the charter's catalogue key, changed, expired, older than one already seen, another content
    /// under the same version, or not usable. The memory stays as it was.
    pub fn accept_catalogue(
        &mut self,
        charter: &Charter,
        signed: &Signed<Catalogue>,
        wall: UnixSeconds,
    ) -> Result<Catalogue, Refusal> {
        let catalogue = signed.verify(charter.keys.catalogue)?;
        let seen = judge(signed, (catalogue.version, catalogue.expires_at), self.catalogue, wall)?;
        catalogue.check().map_err(|error| unusable::<Catalogue>(&error))?;
        self.catalogue = Some(seen);
        Ok(catalogue)
    }

    /// Accepts a site policy that is not older than any seen before, and remembers it.
    ///
    /// # Errors
    /// As [`DocumentMemory::accept_catalogue`], with the administrator's key, or for another site.
    pub fn accept_policy(
        &mut self,
        charter: &Charter,
        signed: &Signed<SitePolicy>,
        wall: UnixSeconds,
    ) -> Result<SitePolicy, Refusal> {
        let policy = signed.verify(charter.keys.administrator)?;
        is_of_site::<SitePolicy>(charter, &policy.site)?;
        let seen = judge(signed, (policy.version, policy.expires_at), self.policy, wall)?;
        policy.check().map_err(|error| unusable::<SitePolicy>(&error))?;
        self.policy = Some(seen);
        Ok(policy)
    }

    /// Accepts bandwidth rules that are not older than any seen before, and remembers them.
    ///
    /// # Errors
    /// As [`DocumentMemory::accept_policy`].
    pub fn accept_bandwidth(
        &mut self,
        charter: &Charter,
        signed: &Signed<BandwidthRules>,
        wall: UnixSeconds,
    ) -> Result<BandwidthRules, Refusal> {
        let rules = signed.verify(charter.keys.administrator)?;
        is_of_site::<BandwidthRules>(charter, &rules.site)?;
        let seen = judge(signed, (rules.version, rules.expires_at), self.bandwidth, wall)?;
        rules.check().map_err(|error| unusable::<BandwidthRules>(&error))?;
        self.bandwidth = Some(seen);
        Ok(rules)
    }

    /// Accepts a release of the owner that is not older than any seen before, and remembers it.
    ///
    /// # Errors
    /// As [`DocumentMemory::accept_policy`], with the owner's key; one of its files is not signed by the owner.
    pub fn accept_release(
        &mut self,
        charter: &Charter,
        owner: PublicKey,
        signed: &Signed<Release>,
        wall: UnixSeconds,
    ) -> Result<Release, Refusal> {
        let release = signed.verify(owner)?;
        is_of_site::<Release>(charter, &release.site)?;
        let seen = judge(signed, (release.version, None), self.release, wall)?;
        release.check(owner).map_err(|error| unusable::<Release>(&error))?;
        self.release = Some(seen);
        Ok(release)
    }
}

fn is_of_site<T: Document>(charter: &Charter, site: &SiteName) -> Result<(), Refusal> {
    if *site == charter.site {
        return Ok(());
    }
    let reason = format!("the {} is signed for site {site}, not for {}", T::NAME, charter.site);
    Err(Refusal::new(RefusalKind::NotAuthorised, reason))
}

fn unusable<T: Document>(error: &impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalKind::Malformed, format!("the {} is signed, but not usable: {error}", T::NAME))
}

fn judge<T: Document>(
    signed: &Signed<T>,
    (version, expires_at): (u64, Option<UnixSeconds>),
    seen: Option<(u64, DocumentHash)>,
    wall: UnixSeconds,
) -> Result<(u64, DocumentHash), Refusal> {
    let stale = |reason: String| Err(Refusal::new(RefusalKind::Stale, reason));
    let document = T::NAME;
    if expires_at.is_some_and(|end| wall >= end) {
        return stale(format!("version {version} of the {document} has expired; publish a new one"));
    }
    let hash = signed.hash();
    match seen {
        Some((highest, _)) if version < highest => {
            stale(format!("version {version} of the {document} is older than version {highest}, which was seen before"))
        }
        Some((highest, known)) if version == highest && hash != known => stale(format!(
            "version {version} of the {document} was seen with another content ({} before, {} now)",
            known.0.short(),
            hash.0.short()
        )),
        _ => Ok((version, hash)),
    }
}
