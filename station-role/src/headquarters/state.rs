//! Headquarters' events and the state that they fold to.
use std::collections::BTreeMap;

use branchline_protocol::{
    charter::{AddressGrant, Approval, ProbeResult, Signed},
    ids::{SessionId, SiteName},
    wire::site::{ApprovalRequest, HostProfile},
};
use serde::{Deserialize, Serialize};

use super::{
    authority::NatAuthority,
    desk::{Binding, Desk, Verdict},
    mirror::Mirror,
};

/// What headquarters writes to its journal. New variants are appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadquartersEvent {
    /// A station asks for an approval in a binding that was not asked before.
    Asked {
        /// The site.
        site: SiteName,
        /// What it asks.
        request: ApprovalRequest,
    },
    /// A person or a rule decided; the signature is still to come.
    Decided {
        /// What will be signed.
        approval: Approval,
    },
    /// The decision is signed and may be given out.
    ApprovalSigned {
        /// The document.
        approval: Approval,
        /// Its signed form.
        signed: Signed<Approval>,
    },
    /// A delay ran out; the request waits for a person again (R91).
    DelayExpired {
        /// The site.
        site: SiteName,
        /// The session.
        session: SessionId,
    },
    /// A batch of addresses is given to a site; the signature is still to come.
    Granted {
        /// What will be signed.
        grant: AddressGrant,
    },
    /// The grant is signed and may be given out.
    GrantSigned {
        /// The site.
        site: SiteName,
        /// Which grant.
        serial: u64,
        /// Its signed form.
        signed: Signed<AddressGrant>,
    },
    /// A mapped address was probed.
    Probed {
        /// The wish that this answers.
        attempt: u32,
        /// What was seen.
        result: ProbeResult,
        /// Its signed form.
        signed: Signed<ProbeResult>,
    },
    /// A profile in a newer revision is mirrored.
    Mirrored {
        /// The site.
        site: SiteName,
        /// The profile.
        profile: HostProfile,
    },
    /// A person withdraws a host (R98).
    WithdrawalOrdered {
        /// The site.
        site: SiteName,
        /// The session.
        session: SessionId,
        /// Who.
        by: String,
    },
}

/// The newest probe of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRecord {
    /// The wish that it answers.
    pub attempt: u32,
    /// What was seen.
    pub result: ProbeResult,
    /// Its signed form.
    pub signed: Signed<ProbeResult>,
}

/// What headquarters knows of one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteState {
    /// Requests and decisions.
    pub desk: Desk,
    /// Profiles and reports.
    pub mirror: Mirror,
    /// The newest probe of each session.
    pub probes: BTreeMap<SessionId, ProbeRecord>,
    /// Hosts that were withdrawn, and by whom. Kept for good; only those that the site has not carried out are sent.
    pub withdrawals: BTreeMap<SessionId, String>,
}

/// The fold of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadquartersState {
    /// Per site.
    pub sites: BTreeMap<SiteName, SiteState>,
    /// Every grant.
    pub authority: NatAuthority,
}

impl HeadquartersState {
    /// Takes one event into the state. The same events always give the same state.
    pub fn apply(&mut self, event: &HeadquartersEvent) {
        match event.clone() {
            HeadquartersEvent::Asked { site, request } => self.site_mut(site).desk.file(request),
            HeadquartersEvent::Decided { approval } => self.apply_verdict(approval, None),
            HeadquartersEvent::ApprovalSigned { approval, signed } => self.apply_verdict(approval, Some(signed)),
            HeadquartersEvent::DelayExpired { site, session } => {
                if let Some(docket) = self.site_mut(site).desk.docket_mut(session) {
                    docket.verdict = None;
                    docket.delay_expired = true;
                }
            }
            HeadquartersEvent::Granted { grant } => self.authority.record(grant),
            HeadquartersEvent::GrantSigned { site, serial, signed } => {
                self.authority.record_signature(&site, serial, signed);
            }
            HeadquartersEvent::Probed { attempt, result, signed } => {
                let record = ProbeRecord { attempt, result, signed };
                let site = record.result.site.clone();
                self.site_mut(site).probes.insert(record.result.session, record);
            }
            HeadquartersEvent::Mirrored { site, profile } => self.site_mut(site).mirror.keep(profile),
            HeadquartersEvent::WithdrawalOrdered { site, session, by } => {
                self.site_mut(site).withdrawals.insert(session, by);
            }
        }
    }

    /// What is known of a site.
    pub fn site(&self, site: &SiteName) -> Option<&SiteState> {
        self.sites.get(site)
    }

    fn site_mut(&mut self, site: SiteName) -> &mut SiteState {
        self.sites.entry(site).or_default()
    }

    /// A verdict about another binding than the one on file was overtaken by a newer request and is dropped.
    fn apply_verdict(&mut self, approval: Approval, signed: Option<Signed<Approval>>) {
        let Some(docket) = self.site_mut(approval.site.clone()).desk.docket_mut(approval.session) else { return };
        if Binding::of_request(&docket.request) == Binding::of_approval(&approval) {
            docket.verdict = Some(Verdict { approval, signed });
        }
    }
}
