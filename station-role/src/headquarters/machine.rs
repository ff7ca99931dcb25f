//! Headquarters' machine: what each input changes, and what it leads to.
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use branchline_protocol::{
    charter::{AddressGrant, Approval, Decision, ProbeResult, Signed},
    ids::{SessionId, SiteName},
    limits,
    machine::{Deadline, Journaled, Machine, Record, Sequence, Sequenced},
    refusal::{Refusal, RefusalKind},
    time::{Monotonic, Now},
    wire::site::{ApprovalRequest, HeadquartersDirective, HostProfile, ProbeRequest, SiteReport},
};

use super::{
    configuration::HeadquartersConfiguration,
    desk::{Filing, approval_of, decide_by_rule},
    hold::HeldAnswers,
    invariants,
    state::{HeadquartersEvent, HeadquartersState},
    targets::{Target, targets_of_site},
    words::{HeadquartersInput, HeadquartersOutput, HeadquartersSetup, Selector},
};

/// How long a probe may take before a repeated wish starts another.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// See the module's description.
#[derive(Debug)]
pub struct HeadquartersMachine {
    configuration: HeadquartersConfiguration,
    state: HeadquartersState,
    sequence: Sequence,
    records: VecDeque<Record<HeadquartersEvent>>,
    outputs: VecDeque<Sequenced<HeadquartersOutput>>,
    /// Probes that the runtime carries out now, each with the attempt and when it is given up.
    probes_under_way: BTreeMap<(SiteName, SessionId), (u32, Monotonic)>,
    /// The newest word of each site about its grants: serial seen, free addresses. For views only.
    pub(super) grants_seen: BTreeMap<SiteName, (u64, u64)>,
    targets: BTreeMap<SiteName, Vec<Target>>,
    /// The last notice per site, so that a repeated report does not repeat it.
    noticed: BTreeMap<SiteName, String>,
    next_expiry: Option<Deadline>,
    pub(super) held: HeldAnswers,
}

impl HeadquartersMachine {
    /// The state, for views.
    pub fn state(&self) -> &HeadquartersState {
        &self.state
    }

    /// The configuration.
    pub fn configuration(&self) -> &HeadquartersConfiguration {
        &self.configuration
    }

    /// All monitoring targets, in order of site, host and port.
    pub fn targets(&self) -> Vec<Target> {
        self.targets.values().flatten().cloned().collect()
    }

    fn commit(&mut self, event: HeadquartersEvent) {
        self.state.apply(&event);
        self.sequence = self.sequence.next();
        self.records.push_back(Record { sequence: self.sequence, event });
    }

    pub(super) fn emit(&mut self, output: HeadquartersOutput) {
        self.outputs.push_back(Sequenced { after: self.sequence, output });
    }

    fn notice(&mut self, site: &SiteName, text: String) {
        if self.noticed.get(site) != Some(&text) {
            self.noticed.insert(site.clone(), text.clone());
            self.emit(HeadquartersOutput::Notice { site: site.clone(), text });
        }
    }

    fn take_report(&mut self, now: Now, exchange: u64, report: Box<SiteReport>) {
        let site = &report.site;
        if !self.state.sites.contains_key(site) && self.state.sites.len() >= limits::HEADQUARTERS_SITES_MAX {
            let text =
                format!("site {site} is not served: headquarters holds {} sites", limits::HEADQUARTERS_SITES_MAX);
            self.notice(site, text);
            let directive = Box::default();
            return self.emit(HeadquartersOutput::Answer { exchange, site: site.clone(), directive });
        }
        for profile in &report.profiles {
            self.take_profile(site, profile);
        }
        for request in &report.approvals {
            self.take_request(now, site, request);
        }
        for probe in &report.probes {
            self.take_probe_wish(now, site, probe);
        }
        self.take_address_wish(&report);
        self.answer_or_hold(now, exchange, report);
    }

    fn take_profile(&mut self, site: &SiteName, profile: &HostProfile) {
        let (newer, full) = match self.state.site(site) {
            None => (true, false),
            Some(state) => {
                let known = state.mirror.profile(profile.session).is_some();
                (state.mirror.is_newer(profile), !known && state.mirror.len() >= limits::HEADQUARTERS_SESSIONS_MAX)
            }
        };
        if full {
            let text = format!("the mirror of site {site} is full; the profile of {} is not kept", profile.session);
            self.notice(site, text);
        } else if newer {
            self.tell_warnings(site, profile);
            self.commit(HeadquartersEvent::Mirrored { site: site.clone(), profile: profile.clone() });
        }
    }

    /// What a station warns of is told here once, and stays in the mirror.
    fn tell_warnings(&mut self, site: &SiteName, profile: &HostProfile) {
        let known = self.state.site(site).and_then(|state| state.mirror.profile(profile.session));
        let known = known.map_or(&[][..], |known| &known.warnings);
        let news: Vec<String> = profile.warnings.iter().filter(|text| !known.contains(text)).cloned().collect();
        for text in news {
            let text = format!("{}: {text}", profile.host_name);
            self.emit(HeadquartersOutput::Notice { site: site.clone(), text });
        }
    }

    fn take_request(&mut self, now: Now, site: &SiteName, request: &ApprovalRequest) {
        let filing = self.state.site(site).map_or(Filing::New, |state| state.desk.filing(request));
        if filing != Filing::New {
            return;
        }
        if self.state.site(site).is_some_and(|state| {
            state.desk.docket(request.session).is_none() && state.desk.len() >= limits::HEADQUARTERS_SESSIONS_MAX
        }) {
            let text = format!("the desk of site {site} is full; the request for {} is not taken", request.session);
            return self.notice(site, text);
        }
        self.commit(HeadquartersEvent::Asked { site: site.clone(), request: request.clone() });
        let Some((decision, by)) = decide_by_rule(&self.configuration.rules, site, request, now.wall) else { return };
        self.decide(now, site, request, decision, by);
    }

    fn decide(&mut self, now: Now, site: &SiteName, request: &ApprovalRequest, decision: Decision, by: String) {
        let approval = approval_of(site, request, decision, by, now.wall);
        self.commit(HeadquartersEvent::Decided { approval: approval.clone() });
        self.emit(HeadquartersOutput::SignApproval(Box::new(approval)));
    }

    /// Probes only what headquarters approved and granted: a captured station must not use it as a scanner.
    fn take_probe_wish(&mut self, now: Now, site: &SiteName, request: &ProbeRequest) {
        let session = request.session;
        let known = self.state.site(site).and_then(|state| state.probes.get(&session));
        if known.is_some_and(|probe| answers(probe.attempt, &probe.result, request)) {
            return;
        }
        let docket = self.state.site(site).and_then(|state| state.desk.docket(session));
        if !docket.is_some_and(|docket| docket.is_approved() && docket.request.plan == request.plan) {
            let text = format!("site {site} wants {session} probed, but headquarters has not approved its plan");
            return self.notice(site, text);
        }
        if !self.state.authority.holds(site, request.mapped) {
            let mapped = request.mapped;
            return self.notice(site, format!("site {site} wants {mapped} probed, which was never granted to it"));
        }
        let key = (site.clone(), session);
        let under_way = self.probes_under_way.get(&key);
        if under_way.is_some_and(|(attempt, until)| *attempt >= request.attempt && now.monotonic < *until) {
            return;
        }
        // Beyond the bound the wish waits for its repetition.
        if self.probes_under_way.len() >= limits::HEADQUARTERS_PROBES_MAX && under_way.is_none() {
            self.probes_under_way.retain(|_, (_, until)| now.monotonic < *until);
            if self.probes_under_way.len() >= limits::HEADQUARTERS_PROBES_MAX {
                return;
            }
        }
        self.probes_under_way.insert(key, (request.attempt, now.monotonic.after(PROBE_PATIENCE)));
        let mut request = request.clone();
        request.ports.truncate(limits::PROBE_PORTS_MAX);
        request.undeclared.truncate(limits::PROBE_UNDECLARED_PORTS_MAX);
        self.emit(HeadquartersOutput::Probe { site: site.clone(), request });
    }

    fn take_address_wish(&mut self, report: &SiteReport) {
        let site = &report.site;
        self.grants_seen.insert(site.clone(), (report.grant_seen, report.addresses_free));
        // A site that has not seen its last grant yet asks for that one, not for another (a late report must not
        // empty the pool).
        if !report.wants_batch || report.grant_seen < self.state.authority.last_serial(site) {
            return;
        }
        match self.state.authority.next_grant(&self.configuration, site) {
            Ok(grant) => {
                self.commit(HeadquartersEvent::Granted { grant: grant.clone() });
                self.emit(HeadquartersOutput::SignGrant(grant));
            }
            Err(error) => self.notice(site, error.to_string()),
        }
    }

    /// What a station learns: exactly what it asked for and headquarters has signed or made durable.
    pub(super) fn directive(&self, report: &SiteReport) -> HeadquartersDirective {
        let site = &report.site;
        let mut directive = HeadquartersDirective::default();
        let unseen = self.state.authority.grants(site).filter(|record| record.grant.serial > report.grant_seen);
        directive.grants = unseen.filter_map(|record| record.signed.clone()).collect();
        let Some(state) = self.state.site(site) else { return directive };
        directive.approvals =
            report.approvals.iter().filter_map(|request| state.desk.answer(request).cloned()).collect();
        let probe_of = |wish: &ProbeRequest| {
            let probe = state.probes.get(&wish.session)?;
            answers(probe.attempt, &probe.result, wish).then(|| (probe.attempt, probe.signed.clone()))
        };
        directive.probes = report.probes.iter().filter_map(probe_of).collect();
        let durable = |profile: &HostProfile| Some((profile.session, state.mirror.profile(profile.session)?.revision));
        directive.profiles_durable = report.profiles.iter().filter_map(durable).collect();
        let open = state.withdrawals.keys().filter(|session| !state.mirror.is_withdrawn(**session));
        directive.withdraw = open.copied().collect();
        directive
    }

    fn take_decision(&mut self, now: Now, command: u64, selector: &Selector, decision: &Decision, by: &str) {
        let selected = self.open_requests(selector);
        let result = if selected.is_empty() { Err(self.why_nothing_is_open(selector)) } else { Ok(()) };
        let mut changed = Vec::new();
        for (site, request) in selected {
            changed.push((site.clone(), request.session));
            self.decide(now, &site, &request, decision.clone(), by.to_owned());
        }
        self.emit(HeadquartersOutput::CommandDone { command, result: result.map(|()| changed) });
    }

    fn open_requests(&self, selector: &Selector) -> Vec<(SiteName, ApprovalRequest)> {
        let sites = self.state.sites.iter();
        let dockets = sites.flat_map(|(site, state)| state.desk.dockets().map(move |(_, docket)| (site, docket)));
        let chosen = dockets.filter(|(site, docket)| {
            docket.is_open()
                && match selector {
                    Selector::Session(session) => docket.request.session == *session,
                    Selector::Host { site: only, name } => {
                        docket.request.host_name == *name && only.as_ref().is_none_or(|only| only == *site)
                    }
                    Selector::Site(only) => only == *site,
                    Selector::All => true,
                }
        });
        chosen.map(|(site, docket)| (site.clone(), docket.request.clone())).collect()
    }

    fn why_nothing_is_open(&self, selector: &Selector) -> Refusal {
        let Selector::Session(session) = selector else {
            return Refusal::new(
                RefusalKind::NotFound,
                "no open request matches; `branchline approvals list` shows what waits",
            );
        };
        let verdict = self.state.sites.values().find_map(|state| state.desk.docket(*session)?.verdict.as_ref());
        match verdict.map(|verdict| (&verdict.approval.decision, &verdict.approval.decided_by)) {
            Some((Decision::Approve, by)) => Refusal::new(
                RefusalKind::WrongState,
                format!("{session} was approved by {by}; to take that back, withdraw the host"),
            ),
            Some((_, by)) => Refusal::new(
                RefusalKind::WrongState,
                format!("{session} was denied by {by}, which ended its session; the site must start a new one"),
            ),
            None => Refusal::new(
                RefusalKind::NotFound,
                format!("no request of {session} waits here; `branchline approvals list` shows what does"),
            ),
        }
    }

    fn take_withdrawal(&mut self, command: u64, session: SessionId, by: String) {
        let known = self
            .state
            .sites
            .iter()
            .find(|(_, state)| state.mirror.profile(session).is_some() || state.desk.docket(session).is_some());
        let site = known.map(|(site, state)| (site.clone(), state.withdrawals.contains_key(&session)));
        let result = match site {
            None => Err(Refusal::new(
                RefusalKind::NotFound,
                format!("{session} is not known here; `branchline sessions list` shows the hosts of all sites"),
            )),
            Some((site, already)) => {
                if !already {
                    self.commit(HeadquartersEvent::WithdrawalOrdered { site: site.clone(), session, by });
                }
                Ok(vec![(site, session)])
            }
        };
        self.emit(HeadquartersOutput::CommandDone { command, result });
    }

    /// Takes a signature for the decision on file, or a signed decision about a request that waits. A decision that was
    /// overtaken meanwhile, by a newer request or by the end of its delay, is dropped.
    fn take_signed_approval(&mut self, now: Now, approval: Approval, signed: Signed<Approval>) {
        let Some(docket) = self.state.site(&approval.site).and_then(|state| state.desk.docket(approval.session)) else {
            return;
        };
        let expected = match &docket.verdict {
            Some(verdict) if verdict.approval == approval => verdict.signed.is_none(),
            _ => docket.is_open(),
        };
        let expired = matches!(&approval.decision, Decision::Delay { until: Some(until), .. } if *until <= now.wall);
        let same = super::desk::Binding::of_approval(&approval) == super::desk::Binding::of_request(&docket.request);
        if expected && same && !expired {
            self.commit(HeadquartersEvent::ApprovalSigned { approval, signed });
        }
    }

    fn take_signed_grant(&mut self, grant: &AddressGrant, signed: Signed<AddressGrant>) {
        let on_file = self.state.authority.grants(&grant.site).find(|record| record.grant == *grant);
        if on_file.is_some_and(|record| record.signed.is_none()) {
            let (site, serial) = (grant.site.clone(), grant.serial);
            self.commit(HeadquartersEvent::GrantSigned { site, serial, signed });
        }
    }

    fn take_probe_result(&mut self, attempt: u32, result: ProbeResult, signed: Signed<ProbeResult>) {
        self.probes_under_way.remove(&(result.site.clone(), result.session));
        let known = self.state.site(&result.site).and_then(|state| state.probes.get(&result.session));
        if known.is_none_or(|probe| probe.attempt <= attempt) {
            self.commit(HeadquartersEvent::Probed { attempt, result, signed });
        }
    }

    fn expire_delays(&mut self, now: Now) {
        let sites = self.state.sites.iter();
        let dockets = sites.flat_map(|(site, state)| state.desk.dockets().map(move |(id, docket)| (site, id, docket)));
        let due = dockets.filter(|(_, _, docket)| docket.asks_again_at().is_some_and(|until| until <= now.wall));
        let due: Vec<_> = due.map(|(site, session, _)| (site.clone(), session)).collect();
        for (site, session) in due {
            self.commit(HeadquartersEvent::DelayExpired { site, session });
        }
    }

    /// Brings what follows from the state up to date: targets of the sites that changed, and the next expiry.
    fn settle(&mut self, now: Now, changed: Sequence) {
        if self.sequence != changed {
            let mut sites: Vec<SiteName> = Vec::new();
            let unseen = self.records.iter().rev().take_while(|record| record.sequence > changed);
            sites.extend(unseen.filter_map(|record| site_of(&record.event).cloned()));
            sites.dedup();
            self.refresh_targets(&sites);
            self.refresh_expiry(now);
            self.answer_changed(&sites);
        }
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    fn refresh_targets(&mut self, sites: &[SiteName]) {
        let mut differs = false;
        for site in sites {
            let Some(state) = self.state.site(site) else { continue };
            let targets = targets_of_site(site, state, &self.state.authority);
            let before = self.targets.insert(site.clone(), targets);
            differs |= before.unwrap_or_default() != self.targets[site];
        }
        if differs {
            self.emit(HeadquartersOutput::TargetsChanged(self.targets()));
        }
    }

    fn refresh_expiry(&mut self, now: Now) {
        let dockets = self.state.sites.values().flat_map(|state| state.desk.dockets());
        let earliest = dockets.filter_map(|(_, docket)| docket.asks_again_at()).min();
        self.next_expiry = earliest.map(|until| {
            // The wall clock may be set meanwhile, so that no wait that it measured is trusted for long.
            let wait = Duration::from_secs(until.0.saturating_sub(now.wall.0).min(limits::DELAY_LOOK_SECONDS));
            Deadline { at: now.monotonic.after(wait), reason: "ask again about a delayed host" }
        });
    }
}

fn answers(attempt: u32, result: &ProbeResult, wish: &ProbeRequest) -> bool {
    attempt == wish.attempt && result.plan == wish.plan && result.mapped == wish.mapped
}

fn site_of(event: &HeadquartersEvent) -> Option<&SiteName> {
    Some(match event {
        HeadquartersEvent::Asked { site, .. }
        | HeadquartersEvent::DelayExpired { site, .. }
        | HeadquartersEvent::GrantSigned { site, .. }
        | HeadquartersEvent::Mirrored { site, .. }
        | HeadquartersEvent::WithdrawalOrdered { site, .. } => site,
        HeadquartersEvent::Decided { approval } | HeadquartersEvent::ApprovalSigned { approval, .. } => &approval.site,
        HeadquartersEvent::Granted { grant } => &grant.site,
        HeadquartersEvent::Probed { result, .. } => &result.site,
    })
}

impl Machine for HeadquartersMachine {
    type Input = HeadquartersInput;
    type Output = HeadquartersOutput;

    fn handle(&mut self, now: Now, input: HeadquartersInput) {
        let before = self.sequence;
        match input {
            HeadquartersInput::Site { exchange, report } => self.take_report(now, exchange, report),
            HeadquartersInput::Decide { command, selector, decision, by } => {
                self.take_decision(now, command, &selector, &decision, &by);
            }
            HeadquartersInput::Withdraw { command, session, by } => self.take_withdrawal(command, session, by),
            HeadquartersInput::ApprovalSigned { approval, signed } => self.take_signed_approval(now, approval, signed),
            HeadquartersInput::GrantSigned { grant, signed } => self.take_signed_grant(&grant, signed),
            HeadquartersInput::ProbeDone { attempt, result, signed } => self.take_probe_result(attempt, result, signed),
        }
        self.settle(now, before);
    }

    fn handle_timeout(&mut self, now: Now) {
        let before = self.sequence;
        self.expire_delays(now);
        self.settle(now, before);
        self.answer_due(now);
        // The wall clock may have been set back: then nothing expired, and the wait is measured anew.
        self.refresh_expiry(now);
    }

    fn poll_output(&mut self) -> Option<Sequenced<HeadquartersOutput>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        Deadline::earlier(self.next_expiry, self.held.deadline())
    }

    fn check_invariants(&self) {
        invariants::check(&self.state, &self.targets);
    }
}

impl Journaled for HeadquartersMachine {
    type Event = HeadquartersEvent;
    type Setup = HeadquartersSetup;

    fn recover(
        setup: HeadquartersSetup,
        now: Now,
        events: impl IntoIterator<Item = Record<HeadquartersEvent>>,
    ) -> Self {
        let mut machine = Self {
            configuration: setup.configuration,
            state: HeadquartersState::default(),
            sequence: Sequence::default(),
            records: VecDeque::new(),
            outputs: VecDeque::new(),
            probes_under_way: BTreeMap::new(),
            grants_seen: BTreeMap::new(),
            targets: BTreeMap::new(),
            noticed: BTreeMap::new(),
            next_expiry: None,
            held: HeldAnswers::default(),
        };
        for record in events {
            machine.state.apply(&record.event);
            machine.sequence = record.sequence;
        }
        machine.restart(now);
        machine
    }

    fn poll_record(&mut self) -> Option<Record<HeadquartersEvent>> {
        self.records.pop_front()
    }
}

impl HeadquartersMachine {
    /// Asks again for the signatures that the crash may have lost; probes are asked for again by the sites.
    fn restart(&mut self, now: Now) {
        let dockets = self.state.sites.values().flat_map(|state| state.desk.dockets());
        let verdicts = dockets.filter_map(|(_, docket)| docket.verdict.as_ref());
        let unsigned: Vec<_> = verdicts.filter(|verdict| verdict.signed.is_none()).cloned().collect();
        for verdict in unsigned {
            self.emit(HeadquartersOutput::SignApproval(Box::new(verdict.approval)));
        }
        let grants = self.state.authority.all_grants().filter(|record| record.signed.is_none());
        let grants: Vec<AddressGrant> = grants.map(|record| record.grant.clone()).collect();
        for grant in grants {
            self.emit(HeadquartersOutput::SignGrant(grant));
        }
        let sites: Vec<SiteName> = self.state.sites.keys().cloned().collect();
        self.refresh_targets(&sites);
        self.refresh_expiry(now);
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
