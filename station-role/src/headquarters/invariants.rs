//! What must hold at headquarters after every input.
use std::collections::{BTreeMap, BTreeSet};

use branchline_protocol::ids::SiteName;

use super::{desk::Binding, state::HeadquartersState, targets::Target};

/// Panics with a description where an invariant is broken.
///
/// # Panics
/// Where an address was granted twice, a verdict hangs on another binding than its request, or a target is not approved.
pub fn check(state: &HeadquartersState, targets: &BTreeMap<SiteName, Vec<Target>>) {
    let mut last = None;
    let mut counted = 0;
    for run in state.authority.granted_runs() {
        assert!(run.first <= run.last, "the grant {run:?} is empty");
        assert!(last.is_none_or(|last| last < run.first), "an address at {} was granted twice (R32)", run.first);
        last = Some(run.last);
        counted += run.count();
    }
    let tracked: u64 = state.authority.all_grants().map(|record| record.grant.batch.count()).sum();
    assert_eq!(tracked, counted, "a grant is not tracked, or is tracked twice (R32)");
    for (site, site_state) in &state.sites {
        for (session, docket) in site_state.desk.dockets() {
            assert_eq!(session, docket.request.session, "a request is filed under another session");
            let Some(verdict) = &docket.verdict else { continue };
            assert_eq!(&verdict.approval.site, site, "a decision is filed under another site");
            let same = Binding::of_approval(&verdict.approval) == Binding::of_request(&docket.request);
            assert!(same, "{session} holds a decision about something else than was asked (R96)");
        }
    }
    let mut seen = BTreeSet::new();
    for target in targets.values().flatten() {
        assert!(seen.insert((target.mapped, target.port)), "{}:{} is two targets", target.mapped, target.port);
        let approved = state.site(&target.site).is_some_and(|site| {
            site.desk.dockets().any(|(session, docket)| session.node == target.node && docket.is_approved())
        });
        assert!(approved, "{} is a target without an approval (R34)", target.host);
    }
}
