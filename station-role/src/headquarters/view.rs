//! What the command line and the web pages show of headquarters. Every view is a plain list that serializes to JSON.
use branchline_protocol::{
    charter::{AddressBatch, Decision},
    ids::{ImageId, PlanHash, SessionId, SiteName},
    session::Stage,
    time::UnixSeconds,
};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

use super::machine::HeadquartersMachine;

/// Where a request stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestStanding {
    /// Waits for a person.
    Pending {
        /// A delay ran out before.
        asked_again: bool,
    },
    /// Decided; the signature is under way.
    Signing {
        /// What was decided.
        decision: Decision,
        /// By whom.
        by: String,
    },
    /// Decided and signed.
    Decided {
        /// What was decided.
        decision: Decision,
        /// By whom.
        by: String,
        /// When.
        at: UnixSeconds,
    },
}

/// One request for approval, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// The site.
    pub site: SiteName,
    /// The session.
    pub session: SessionId,
    /// The host's name.
    pub host_name: String,
    /// Packages with versions.
    pub packages: Vec<String>,
    /// Facts of the host.
    pub facts: Vec<(String, String)>,
    /// The images that an approval will name.
    pub images: Vec<ImageId>,
    /// The plan that an approval will name.
    pub plan: PlanHash,
    /// When it was first asked.
    pub asked_at: UnixSeconds,
    /// Where it stands.
    pub standing: RequestStanding,
}

/// One host of the mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// The site.
    pub site: SiteName,
    /// The session.
    pub session: SessionId,
    /// The host's name.
    pub host_name: String,
    /// Where the session stands.
    pub stage: Stage,
    /// Why it waits or ended.
    pub reason: String,
    /// What people should look at, such as a second machine with this identity (R99).
    pub warnings: Vec<String>,
    /// Its address inside the site.
    pub inside: Ipv4Addr,
    /// Its mapped address.
    pub mapped: Option<Ipv4Addr>,
    /// Packages with versions.
    pub packages: Vec<String>,
    /// Whether it is a monitoring target now.
    pub is_target: bool,
    /// Whether a report is kept.
    pub has_report: bool,
    /// Who withdrew it, where somebody did.
    pub withdrawn_by: Option<String>,
}

/// One grant of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantView {
    /// The site.
    pub site: SiteName,
    /// Its number within the site.
    pub serial: u64,
    /// The addresses.
    pub batch: AddressBatch,
    /// The site has said that it holds the grant.
    pub seen: bool,
    /// Addresses of the batch that a host of the mirror holds.
    pub used: u64,
}

impl HeadquartersMachine {
    /// Every request, decided or not, in order of site and session.
    pub fn approvals(&self) -> Vec<ApprovalView> {
        let mut views = Vec::new();
        for (site, state) in &self.state().sites {
            for (session, docket) in state.desk.dockets() {
                let standing = match &docket.verdict {
                    None => RequestStanding::Pending { asked_again: docket.delay_expired },
                    Some(verdict) => {
                        let (decision, by) = (verdict.approval.decision.clone(), verdict.approval.decided_by.clone());
                        if verdict.signed.is_some() {
                            RequestStanding::Decided { decision, by, at: verdict.approval.decided_at }
                        } else {
                            RequestStanding::Signing { decision, by }
                        }
                    }
                };
                let request = docket.request.clone();
                views.push(ApprovalView {
                    site: site.clone(),
                    session,
                    host_name: request.host_name,
                    packages: request.packages,
                    facts: request.facts,
                    images: request.images,
                    plan: request.plan,
                    asked_at: request.asked_at,
                    standing,
                });
            }
        }
        views
    }

    /// The requests that wait for a person, in order of site and session.
    pub fn pending_approvals(&self) -> Vec<ApprovalView> {
        let mut views = self.approvals();
        views.retain(|view| matches!(view.standing, RequestStanding::Pending { .. }));
        views
    }

    /// Every mirrored session, in order of site, host and generation.
    pub fn hosts(&self) -> Vec<HostView> {
        let targets = self.targets();
        let mut views = Vec::new();
        for (site, state) in &self.state().sites {
            for profile in state.mirror.profiles() {
                let is_target = |target: &super::Target| {
                    target.node == profile.session.node && Some(target.mapped) == profile.mapped
                };
                views.push(HostView {
                    site: site.clone(),
                    session: profile.session,
                    host_name: profile.host_name.clone(),
                    stage: profile.stage,
                    reason: profile.reason.clone(),
                    warnings: profile.warnings.clone(),
                    inside: profile.inside,
                    mapped: profile.mapped,
                    packages: profile.packages.clone(),
                    is_target: targets.iter().any(is_target),
                    has_report: profile.report_html.is_some(),
                    withdrawn_by: state.withdrawals.get(&profile.session).cloned(),
                });
            }
        }
        views
    }

    /// The HTML report of a session, where the mirror has one.
    pub fn report_html(&self, session: SessionId) -> Option<&str> {
        self.state().sites.values().find_map(|state| state.mirror.profile(session)?.report_html.as_deref())
    }

    /// Every grant, in order of site and serial.
    pub fn grants(&self) -> Vec<GrantView> {
        let view = |record: &super::authority::GrantRecord| {
            let grant = &record.grant;
            let profiles = self.state().site(&grant.site).into_iter().flat_map(|state| state.mirror.profiles());
            let used = profiles.filter(|profile| profile.mapped.is_some_and(|mapped| grant.batch.contains(mapped)));
            GrantView {
                site: grant.site.clone(),
                serial: grant.serial,
                batch: grant.batch,
                seen: self.grants_seen.get(&grant.site).is_some_and(|(seen, _)| *seen >= grant.serial),
                used: used.count() as u64,
            }
        };
        self.state().authority.all_grants().map(view).collect()
    }
}
