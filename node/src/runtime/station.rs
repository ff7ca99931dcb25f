//! A station's effects: directives, plans, reports to headquarters, memberships, the router.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use branchline_protocol::{
    charter::{BeginRequest, JoinToken, Membership, Revocations, Signed},
    ids::{Hash, NodeId, SessionId, SiteName, SurveyHash},
    refusal::{Refusal, RefusalKind},
    session::{Directive, HostInput, HostReport},
    time::UnixSeconds,
    wire::control::{ControlAnswer, ControlRequest, DocumentKind},
};
use branchline_station_role::{
    addresses::{AddressInput, AddressOutput, Attention},
    router::{
        DriverProperties, NatTable, RouterError, RouterOperation, RouterResult,
        table_xml::{self, TableDocument},
    },
    station::{
        HeadquartersWord, MembershipTicket, SiteInput, SiteMachine, SiteOutput, SiteReportDraft, StationInput,
        StationOutput, SurveyFacts,
    },
};
use tokio::sync::{oneshot, watch};

use super::{
    Cause,
    node::Node,
    pump::{Effects, PumpHandle},
    surveys::OpenError,
    wall_time,
};
use crate::{
    config::write_atomically,
    door::BeginAnswer,
    mesh::Admission,
    router::RouterDriver,
    web::{self, report::ReportInput},
};

/// Everything that a station's work needs; shared by its tasks.
pub struct StationContext {
    /// The site's machine.
    pub handle: PumpHandle<SiteMachine>,
    /// The site.
    pub site: SiteName,
    pub(super) node: Arc<Node>,
    router: Option<RouterDriver>,
    waiting: Mutex<Waiting>,
    stood_down: watch::Sender<bool>,
}

/// Who waits for what the machine decides.
#[derive(Default)]
struct Waiting {
    directives: BTreeMap<NodeId, Directive>,
    reports: BTreeMap<NodeId, Vec<oneshot::Sender<ControlAnswer>>>,
    begins: BTreeMap<NodeId, oneshot::Sender<Result<BeginAnswer, Refusal>>>,
    renewals: BTreeMap<NodeId, oneshot::Sender<ControlAnswer>>,
    tokens: BTreeMap<[u8; 16], oneshot::Sender<String>>,
}

/// Carries out what a site's machine wants.
pub struct StationEffects {
    context: Arc<StationContext>,
}

impl StationContext {
    /// The context of the station of `site` on `node`.
    pub fn new(
        handle: PumpHandle<SiteMachine>,
        site: SiteName,
        node: Arc<Node>,
        router: Option<RouterDriver>,
    ) -> Arc<Self> {
        Arc::new(Self { handle, site, node, router, waiting: Mutex::default(), stood_down: watch::Sender::new(false) })
    }

    /// The effects that work in this context.
    pub fn effects(self: &Arc<Self>) -> StationEffects {
        StationEffects { context: Arc::clone(self) }
    }

    fn waiting<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn station(&self, input: StationInput) {
        self.handle.input(SiteInput::Station(input)).await;
    }

    /// Keeps something that people should see.
    pub fn notice(&self, text: String) {
        self.node.notices.add(text);
    }

    /// Keeps something that people should see until its cause is gone.
    pub(super) fn notice_of(&self, cause: Cause, text: String) {
        self.node.notices.add_of(cause, text);
    }

    /// Another machine showed a member's identity and was turned away (R99).
    pub async fn copy_seen(&self, node: NodeId, text: String) {
        self.station(StationInput::CopySeen { node, text }).await;
    }

    /// A member's report: answered with the directive in force, or with the first one that the machine makes.
    pub async fn take_report(&self, node: NodeId, report: Box<HostReport>, answer: oneshot::Sender<ControlAnswer>) {
        if report.session.node != node {
            let reason = format!("{node} reports a session of {}", report.session.node);
            let _ = answer.send(ControlAnswer::Refused(Refusal::new(RefusalKind::NotAuthorised, reason)));
            return;
        }
        self.waiting(|waiting| match waiting.directives.get(&node) {
            Some(directive) => {
                let _ = answer.send(ControlAnswer::Directive(Box::new(directive.clone())));
            }
            None => waiting.reports.entry(node).or_default().push(answer),
        });
        self.station(StationInput::Report(node, report)).await;
    }

    /// A machine with a token at the public door; its signatures are checked here.
    pub async fn begin(&self, request: &Signed<BeginRequest>, answer: oneshot::Sender<Result<BeginAnswer, Refusal>>) {
        match self.check_begin(request) {
            Err(refusal) => {
                let _ = answer.send(Err(refusal));
            }
            Ok((token, begin)) => {
                self.waiting(|waiting| waiting.begins.insert(begin.node, answer));
                let input = StationInput::TokenUse {
                    identifier: token.identifier,
                    node: begin.node,
                    machine_identifier: begin.machine_identifier,
                    host_name: begin.host_name,
                };
                self.station(input).await;
            }
        }
    }

    fn check_begin(&self, signed: &Signed<BeginRequest>) -> Result<(JoinToken, BeginRequest), Refusal> {
        let begin = signed.verify(signed.signer())?;
        if begin.node != signed.signer().0 {
            let reason = "the request is not signed by the identity that it is for";
            return Err(Refusal::new(RefusalKind::BadSignature, reason));
        }
        let (_, token) = Signed::<JoinToken>::from_text(&begin.token)
            .map_err(|error| Refusal::new(RefusalKind::Token, error.to_string()))?;
        if token.station != self.node.documents.node() || token.site != self.site {
            let (own, site) = (self.node.documents.node(), &self.site);
            let reason = format!(
                "the token is for station {} of site {}, but this is station {own} of site {site}; ask its operator for one",
                token.station, token.site
            );
            return Err(Refusal::new(RefusalKind::Token, reason));
        }
        if wall_time() >= token.expires_at {
            return Err(Refusal::new(RefusalKind::Token, "the token has expired; ask for a new one"));
        }
        Ok((token, begin))
    }

    /// A member asks for a fresh membership.
    pub async fn renew(&self, node: NodeId, answer: oneshot::Sender<ControlAnswer>) {
        self.waiting(|waiting| waiting.renewals.insert(node, answer));
        self.station(StationInput::MemberRenew { node }).await;
    }

    /// Makes a token; resolves once its making is durable.
    ///
    /// # Errors
    /// The node is ending, or the machine refuses another token.
    pub async fn make_token(&self, token: JoinToken) -> Result<String> {
        let (answer, receiver) = oneshot::channel();
        self.waiting(|waiting| waiting.tokens.insert(token.identifier, answer));
        self.station(StationInput::TokenCreate(Box::new(token))).await;
        let patience = std::time::Duration::from_secs(10);
        tokio::time::timeout(patience, receiver)
            .await
            .context("the station did not make the token; see `branchline status` for its notices")?
            .context("the station stood down")
    }

    /// Lets everybody who waits go: what comes next is the new station's.
    pub fn stand_down(&self) {
        self.stood_down.send_replace(true);
        self.waiting(|waiting| *waiting = Waiting::default());
    }

    /// Resolves once this station has stood down.
    pub async fn stands_down(&self) {
        // The sender lives as long as this value: waiting cannot fail.
        let _ = self.stood_down.subscribe().wait_for(|stood_down| *stood_down).await;
    }

    async fn send_directive(&self, node: NodeId, directive: Box<Directive>) {
        let waiting = self.waiting(|waiting| {
            waiting.directives.insert(node, (*directive).clone());
            waiting.reports.remove(&node).unwrap_or_default()
        });
        let mut answered = false;
        for answer in waiting {
            answered |= answer.send(ControlAnswer::Directive(directive.clone())).is_ok();
        }
        if node == self.node.documents.node() {
            if let Some(host) = self.node.host() {
                host.input(HostInput::Directive(directive)).await;
            }
        } else if !answered
            && self.node.mesh.admitted().borrow().contains_key(&node)
            && let Err(error) = self.node.mesh.request(node, ControlRequest::Directive(directive)).await
        {
            tracing::debug!(%node, %error, "a directive did not reach the host; its next report fetches it");
        }
    }

    async fn open_survey(&self, session: SessionId, survey: SurveyHash) {
        let input = match self.node.surveys.open(session.node, survey).await {
            Ok(descriptor) => {
                let hash = Hash(*descriptor.content_hash().as_bytes());
                match self.keep_descriptor(hash, &descriptor) {
                    Ok(()) => {
                        let facts = SurveyFacts::of(&descriptor);
                        StationInput::SurveyOpened { session, survey, descriptor: hash, facts }
                    }
                    Err(error) => {
                        StationInput::SurveyFailed { session, survey, why: format!("{error:#}"), passing: true }
                    }
                }
            }
            Err(error) => {
                let passing = matches!(error, OpenError::NotFound(_));
                StationInput::SurveyFailed { session, survey, why: error.to_string(), passing }
            }
        };
        self.station(input).await;
    }

    async fn send_site_report(&self, draft: SiteReportDraft) {
        let Some(authority) = self.node.documents.authority(&self.site) else { return };
        let report = Box::new(draft.complete(self.site.clone(), authority.sign_warrant(self.node.documents.key())));
        let headquarters = authority.charter().headquarters.node;
        let answer = match &self.node.desk {
            Some(desk) => {
                let (sender, receiver) = oneshot::channel();
                let own = self.own_admission();
                desk.site_report(&self.node.documents, &own, report, sender).await;
                receiver.await.ok()
            }
            None => match self.node.mesh.request(headquarters, ControlRequest::Site(report)).await {
                Ok(answer) => Some(answer),
                Err(error) => {
                    tracing::debug!(%error, "headquarters did not answer; the site goes on and asks again");
                    None
                }
            },
        };
        if let Some(ControlAnswer::Headquarters(directive)) = answer {
            let (mut word, refusals) = HeadquartersWord::check(*directive, &authority);
            if !word.probes.is_empty() {
                word.undeclared_ports = self.undeclared_rule();
            }
            for refusal in refusals {
                self.notice(format!("headquarters sent something that does not hold: {refusal}"));
            }
            self.station(StationInput::Headquarters(Box::new(word))).await;
        }
    }

    /// A node that is station and headquarters speaks to itself without the mesh.
    fn own_admission(&self) -> Admission {
        Admission {
            node: self.node.documents.node(),
            site: self.site.clone(),
            roles: Vec::new(),
            addresses: self.node.documents.addresses(),
            machine_identifier: String::new(),
            documents: Default::default(),
            membership_ends_at: None,
        }
    }

    fn release_membership(&self, ticket: &MembershipTicket) {
        let Some(authority) = self.node.documents.authority(&self.site) else { return };
        let wall = wall_time();
        let membership = Membership {
            site: self.site.clone(),
            node: ticket.node,
            machine_identifier: ticket.machine_identifier.clone(),
            epoch: ticket.epoch,
            serial: ticket.serial,
            issued_at: wall,
            expires_at: wall.after(authority.charter().policies.membership_life_seconds),
        };
        let membership = Signed::sign(&membership, self.node.documents.key());
        let (begin, renewal) =
            self.waiting(|waiting| (waiting.begins.remove(&ticket.node), waiting.renewals.remove(&ticket.node)));
        if let Some(answer) = begin {
            let charter = authority.signed_charter().clone();
            let _ = answer.send(Ok(BeginAnswer { charter, membership: membership.clone() }));
        }
        if let Some(answer) = renewal {
            let _ = answer.send(ControlAnswer::Membership(membership));
        }
    }

    fn refuse_membership(&self, node: NodeId, refusal: &Refusal) {
        let (begin, renewal) = self.waiting(|waiting| (waiting.begins.remove(&node), waiting.renewals.remove(&node)));
        if let Some(answer) = begin {
            let _ = answer.send(Err(refusal.clone()));
        }
        if let Some(answer) = renewal {
            let _ = answer.send(ControlAnswer::Refused(refusal.clone()));
        }
    }

    fn revoke(&self, node: NodeId) -> Result<()> {
        let authority = self.node.documents.authority(&self.site).context("the site is not known")?;
        let mut nodes = match authority.signed_revocations() {
            Some(signed) => signed.verify(signed.signer())?.nodes,
            None => Default::default(),
        };
        if !nodes.insert(node) {
            return Ok(());
        }
        let (_, version) = authority.revocations_rank();
        let list = Revocations { epoch: authority.charter().epoch(), version: version + 1, nodes };
        let json = serde_json::to_vec(&Signed::sign(&list, self.node.documents.key()))?;
        self.node.documents.take(&self.site, DocumentKind::Revocations, &json, wall_time())?;
        Ok(())
    }

    async fn make_report(&self, session: SessionId) {
        let made = self.handle.query(move |machine| machine.station().session_report(session)).await;
        let Ok(Some(report)) = made else { return };
        let descriptor = self.descriptor_of(session).await;
        let plan = descriptor.and_then(|descriptor| self.plan(session.node, descriptor).ok()).map(|(plan, _)| plan);
        let input = ReportInput {
            site: &self.site,
            station: self.node.documents.node(),
            session: &report,
            plan: plan.as_ref(),
            made_at: wall_time(),
        };
        match web::report::render(&input) {
            Ok(html) => self.station(StationInput::ReportMade { session, html }).await,
            Err(error) => self.notice(format!("the report of {session} cannot be made: {error}")),
        }
    }

    async fn descriptor_of(&self, session: SessionId) -> Option<Hash> {
        let look = move |machine: &SiteMachine| {
            machine.station().state().sessions.get(&session).and_then(|session| session.descriptor)
        };
        self.handle.query(look).await.ok().flatten()
    }

    /// Keeps the router's table as XML (R112).
    fn keep_table(&self, table: NatTable, read_at: UnixSeconds) -> Result<()> {
        let xml = table_xml::print(&TableDocument {
            router: self.router.as_ref().map(|router| router.address().to_string()).unwrap_or_default(),
            driver: self.router.as_ref().map(RouterDriver::name).unwrap_or_default(),
            read_at_milliseconds: read_at.0.saturating_mul(1000),
            table,
        })?;
        write_atomically(&self.node.home.path("nat-table.xml"), xml.as_bytes(), 0o644)
    }

    /// What the driver of the site's router promises (R115); `None` without a router.
    pub fn router_properties(&self) -> Option<DriverProperties> {
        self.router.as_ref().map(RouterDriver::properties)
    }

    async fn program_router(&self, operation: &RouterOperation) -> Result<RouterResult, RouterError> {
        match &self.router {
            Some(router) => router.perform(operation).await,
            None => Err(RouterError::Unreachable {
                router: "none".to_owned(),
                reason: "no router is configured; set station.router in node.toml".to_owned(),
            }),
        }
    }
}

impl Effects<SiteMachine> for StationEffects {
    fn perform(&mut self, output: SiteOutput) {
        let context = Arc::clone(&self.context);
        match output {
            SiteOutput::Station(output) => perform_station(context, output),
            SiteOutput::Address(AddressOutput::Router { id, operation }) => {
                tokio::spawn(async move {
                    let result = context.program_router(&operation).await;
                    context.handle.input(SiteInput::Address(AddressInput::RouterDone { id, result })).await;
                });
            }
            SiteOutput::Address(AddressOutput::TableRead { table, at }) => match context.keep_table(table, at) {
                Ok(()) => context.node.notices.over(Cause::TableFile),
                Err(error) => {
                    context.notice_of(Cause::TableFile, format!("the router's table cannot be kept: {error:#}"));
                }
            },
            SiteOutput::Address(AddressOutput::Attention(attention)) => router_attention(&context, &attention),
            SiteOutput::Address(_) => {}
        }
    }
}

/// Once the router works again, what it did wrong before is over; a row has its own end, which is not told.
fn router_attention(context: &StationContext, attention: &Attention) {
    let cause = match attention {
        Attention::RouterWorks => {
            tracing::info!("{attention}");
            return context.node.notices.over(Cause::Router);
        }
        Attention::RouterFailed { row: None, .. } => Cause::Router,
        Attention::Conflict(_) => Cause::Repeats,
        _ => Cause::Happened,
    };
    context.notice_of(cause, attention.to_string());
}

fn perform_station(context: Arc<StationContext>, output: StationOutput) {
    match output {
        StationOutput::SendDirective(node, directive) => {
            tokio::spawn(async move { context.send_directive(node, directive).await });
        }
        StationOutput::RefuseReport(node, refusal) => {
            let answers = context.waiting(|waiting| {
                waiting.directives.remove(&node);
                waiting.reports.remove(&node).unwrap_or_default()
            });
            for answer in answers {
                let _ = answer.send(ControlAnswer::Refused(refusal.clone()));
            }
        }
        StationOutput::OpenSurvey { session, survey } => {
            tokio::spawn(async move { context.open_survey(session, survey).await });
        }
        StationOutput::MakePlan { session, descriptor } => {
            tokio::spawn(async move { context.make_plan(session, descriptor).await });
        }
        StationOutput::SendSiteReport(draft) => {
            tokio::spawn(async move { context.send_site_report(*draft).await });
        }
        StationOutput::ReleaseToken(token) => {
            let text = Signed::sign(&*token, context.node.documents.key()).to_text();
            if let Some(answer) = context.waiting(|waiting| waiting.tokens.remove(&token.identifier)) {
                let _ = answer.send(text);
            }
        }
        StationOutput::ReleaseMembership(ticket) => context.release_membership(&ticket),
        StationOutput::RefuseMembership(node, refusal) => context.refuse_membership(node, &refusal),
        StationOutput::Revoke(node) => {
            if let Err(error) = context.revoke(node) {
                context.notice(format!("{node} could not be put on the list of revoked members: {error:#}"));
            }
        }
        StationOutput::MakeReport { session } => {
            tokio::spawn(async move { context.make_report(session).await });
        }
        StationOutput::Attention { session, text } => match session {
            Some(session) => context.notice_of(Cause::Session(session.node), format!("{session}: {text}")),
            None => context.notice(text),
        },
        StationOutput::AttentionOver(node) => context.node.notices.over(Cause::Session(node)),
        StationOutput::Bind { .. }
        | StationOutput::Release { .. }
        | StationOutput::InsideChanged { .. }
        | StationOutput::InsideLost { .. } => {
            tracing::error!("an address wish came out of the site's machine, which should have kept it");
        }
    }
}
