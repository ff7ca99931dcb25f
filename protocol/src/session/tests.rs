use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::{
    ids::{DocumentHash, Epoch, Hash, ImageId, NodeId, PackId, PlanHash, SessionId, SurveyHash},
    limits::EVENT_BUFFER_EVENTS_MAX,
    machine::{Journaled, Machine, Record},
    report::EventBody,
    time::Now,
};

fn setup() -> HostSetup {
    HostSetup {
        node: NodeId([1; 32]),
        machine_identifier: "m1".into(),
        host_name: "host-1".into(),
        inside: Ipv4Addr::new(10, 1, 0, 1),
    }
}

fn now(seconds: u64) -> Now {
    Now::from_seconds(seconds)
}

fn plan() -> PlanHash {
    PlanHash(Hash::of(b"plan"))
}

fn descriptor() -> Hash {
    Hash::of(b"descriptor")
}

fn packs() -> Vec<PackId> {
    vec![PackId(Hash::of(b"one")), PackId(Hash::of(b"two"))]
}

fn images() -> Vec<ImageId> {
    vec![ImageId(Hash::of(b"image"))]
}

fn prepare() -> Order {
    let document = DocumentHash(Hash::of(b"document"));
    Order::Prepare { plan: plan(), catalogue: document, policy: document, descriptor: descriptor(), packs: packs() }
}

fn directive(generation: u32, revision: u64, order: Order) -> HostInput {
    HostInput::Directive(Box::new(Directive {
        session: SessionId { node: NodeId([1; 32]), generation },
        epoch: Epoch { charter_version: 2, term: 0 },
        revision,
        stage: Stage::Open,
        order,
        events_durable: 0,
    }))
}

/// A host and the journal that its runtime keeps.
struct Bench {
    host: HostMachine,
    journal: Vec<Record<HostEvent>>,
    seconds: u64,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { host: HostMachine::recover(setup(), now(0), []), journal: Vec::new(), seconds: 0 };
        bench.outputs();
        bench
    }

    /// Work that was asked for; reports and texts are left out.
    fn outputs(&mut self) -> Vec<HostOutput> {
        self.journal.extend(std::iter::from_fn(|| self.host.poll_record()));
        let last = self.journal.last().map_or(Default::default(), |record| record.sequence);
        std::iter::from_fn(|| self.host.poll_output())
            .inspect(|output| assert!(output.after <= last, "an output depends on an event that is not journaled"))
            .map(|output| output.output)
            .filter(|output| !matches!(output, HostOutput::SendReport(_) | HostOutput::ShowOperator(_)))
            .collect()
    }

    fn tell(&mut self, input: HostInput) -> Vec<HostOutput> {
        self.seconds += 1;
        self.host.handle(now(self.seconds), input);
        self.host.check_invariants();
        self.outputs()
    }

    fn kill(&mut self) -> Vec<HostOutput> {
        self.seconds += 1;
        self.host = HostMachine::recover(setup(), now(self.seconds), self.journal.clone());
        self.outputs()
    }

    fn state(&self) -> &HostState {
        &self.host.session().state
    }

    fn surveyed() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.tell(directive(1, 1, Order::Survey)), [HostOutput::RunSurvey]);
        bench.tell(HostInput::Surveyed {
            sealed: SurveyHash(Hash::of(b"sealed")),
            descriptor: descriptor(),
            changes: None,
        });
        bench
    }

    fn staged() -> Self {
        let mut bench = Self::surveyed();
        bench.tell(directive(1, 2, prepare()));
        bench.tell(HostInput::PlanComputed { plan: plan(), packs: packs() });
        for pack in packs() {
            bench.tell(HostInput::PackComplete { pack, wan_bytes: 1, lan_bytes: 2 });
        }
        assert_eq!(bench.state(), &HostState::Staged { plan: plan() });
        bench
    }

    fn installed() -> Self {
        let mut bench = Self::staged();
        assert_eq!(
            bench.tell(directive(1, 3, Order::Install { plan: plan() })),
            [HostOutput::Install { plan: plan() }]
        );
        bench.tell(HostInput::Installer(InstallerEvent::Done { plan: plan(), images: images() }));
        assert_eq!(bench.state(), &HostState::Installed { plan: plan(), images: images() });
        bench
    }
}

/// R47: what has changed since the survey before becomes part of the report, whole.
#[test]
fn what_a_later_survey_shows_is_noted() {
    let mut bench = Bench::new();
    bench.tell(directive(1, 1, Order::Survey));
    let changes = format!("{}~ host/name: a -> b", "+ host/packages/package = x\n".repeat(300));
    bench.tell(HostInput::Surveyed {
        sealed: SurveyHash(Hash::of(b"sealed")),
        descriptor: descriptor(),
        changes: Some(changes.clone()),
    });
    let events = bench.host.report().events;
    // The first event is where the host is.
    let notes: String = events[1..]
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Note(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(notes, changes);
}

#[test]
fn a_changed_plan_is_refused_with_its_reason() {
    let mut bench = Bench::surveyed();
    bench.tell(directive(1, 2, prepare()));
    let own = PlanHash(Hash::of(b"what this host computes"));
    assert!(bench.tell(HostInput::PlanComputed { plan: own, packs: packs() }).is_empty());
    assert!(
        matches!(bench.state(), HostState::Refused { reason } if reason.contains("computes plan")),
        "{:?}",
        bench.state()
    );
    let refused = bench.tell(directive(1, 3, Order::Install { plan: plan() }));
    assert!(refused.is_empty(), "nothing is installed: {refused:?}");
}

#[test]
fn other_packs_or_another_descriptor_are_refused() {
    let mut bench = Bench::surveyed();
    bench.tell(directive(1, 2, prepare()));
    bench.tell(HostInput::PlanComputed { plan: plan(), packs: vec![PackId(Hash::of(b"other"))] });
    assert!(matches!(bench.state(), HostState::Refused { reason } if reason.contains("other packs")));

    let mut bench = Bench::surveyed();
    let document = DocumentHash(Hash::of(b"document"));
    let order = Order::Prepare {
        plan: plan(),
        catalogue: document,
        policy: document,
        descriptor: Hash::of(b"x"),
        packs: packs(),
    };
    assert!(bench.tell(directive(1, 2, order)).is_empty());
    assert!(matches!(bench.state(), HostState::Refused { reason } if reason.contains("newest is")));
}

#[test]
fn nothing_is_installed_that_was_not_accepted() {
    let mut bench = Bench::surveyed();
    assert!(bench.tell(directive(1, 2, Order::Install { plan: plan() })).is_empty());
    assert!(matches!(bench.state(), HostState::Refused { reason } if reason.contains("has only surveyed itself")));
    let mut bench = Bench::staged();
    assert!(bench.tell(directive(1, 3, Order::Install { plan: PlanHash(Hash::of(b"x")) })).is_empty());
}

#[test]
fn after_a_crash_the_same_work_is_asked_for() {
    let mut bench = Bench::new();
    bench.tell(directive(1, 1, Order::Survey));
    assert_eq!(bench.kill(), [HostOutput::RunSurvey]);
    let mut bench = Bench::surveyed();
    bench.tell(directive(1, 2, prepare()));
    assert!(matches!(bench.kill()[..], [HostOutput::ComputePlan { .. }]));
    bench.tell(HostInput::PlanComputed { plan: plan(), packs: packs() });
    bench.tell(HostInput::PackComplete { pack: packs()[0], wan_bytes: 1, lan_bytes: 2 });
    assert_eq!(bench.kill(), [HostOutput::FetchPacks(vec![packs()[1]])], "what is complete is not fetched again");
    let mut bench = Bench::staged();
    bench.tell(directive(1, 3, Order::Install { plan: plan() }));
    assert_eq!(bench.kill(), [HostOutput::Install { plan: plan() }]);
    bench.tell(HostInput::Installer(InstallerEvent::Done { plan: plan(), images: images() }));
    assert_eq!(bench.kill(), [], "an installed plan is not installed again");
}

#[test]
fn an_installation_is_finished_before_another_order_is_followed() {
    let mut bench = Bench::staged();
    bench.tell(directive(1, 3, Order::Install { plan: plan() }));
    assert_eq!(bench.tell(directive(1, 4, Order::Stop { reason: "denied".into() })), []);
    let done = InstallerEvent::Done { plan: plan(), images: images() };
    assert_eq!(bench.tell(HostInput::Installer(done)), [HostOutput::Stop]);
}

#[test]
fn lower_revisions_epochs_and_generations_change_nothing() {
    let mut bench = Bench::installed();
    for (generation, revision) in [(1, 3), (1, 2), (0, 99)] {
        assert_eq!(bench.tell(directive(generation, revision, Order::Uninstall { reason: "x".into() })), []);
    }
    let HostInput::Directive(mut old) = directive(1, 99, Order::Uninstall { reason: "x".into() }) else { panic!() };
    old.epoch = Epoch { charter_version: 1, term: 7 };
    assert_eq!(bench.tell(HostInput::Directive(old)), []);
    let Directive { session, .. } = Directive {
        session: SessionId { node: NodeId([2; 32]), generation: 1 },
        epoch: Epoch { charter_version: 9, term: 0 },
        revision: 99,
        stage: Stage::Withdrawn,
        order: Order::Uninstall { reason: "x".into() },
        events_durable: 0,
    };
    assert_ne!(session, bench.host.session_id());
    assert!(matches!(bench.state(), HostState::Installed { .. }));
}

#[test]
fn a_check_can_be_ordered_again() {
    let mut bench = Bench::installed();
    let verify = Order::Verify { plan: plan() };
    assert_eq!(bench.tell(directive(1, 4, verify.clone())), [HostOutput::Verify { plan: plan() }]);
    let checks = vec![("port".to_owned(), Some("closed".to_owned()))];
    assert_eq!(bench.tell(HostInput::CheckDone { plan: plan(), checks }), []);
    assert!(matches!(bench.state(), HostState::Checked { passed: false, faults, .. } if faults == &["port: closed"]));
    assert_eq!(bench.tell(directive(1, 5, verify)), [HostOutput::Verify { plan: plan() }]);
    let checks = vec![("port".to_owned(), None)];
    bench.tell(HostInput::CheckDone { plan: plan(), checks });
    assert!(matches!(bench.state(), HostState::Checked { passed: true, .. }));
}

#[test]
fn passing_failures_are_tried_again_later() {
    let mut bench = Bench::new();
    bench.tell(directive(1, 1, Order::Survey));
    assert_eq!(bench.tell(HostInput::WorkFailed { reason: "the disk is full".into() }), []);
    let deadline = bench.host.poll_timeout().unwrap();
    assert!(deadline.at <= now(bench.seconds + 10).monotonic);
    bench.host.handle_timeout(now(bench.seconds + 11));
    assert_eq!(bench.outputs(), [HostOutput::RunSurvey]);
}

#[test]
fn a_new_generation_keeps_what_is_installed_and_surveys_anew() {
    let mut bench = Bench::installed();
    assert_eq!(bench.tell(directive(2, 1, Order::Survey)), [], "a lower revision of the same epoch is old");
    assert_eq!(bench.tell(directive(2, 9, Order::Survey)), [HostOutput::RunSurvey]);
    let session = bench.host.session();
    assert_eq!((session.generation, &session.state, session.survey), (2, &HostState::Joined, None));
    assert_eq!(session.installed.as_ref().map(|installed| installed.generation), Some(1));
    let numbers: Vec<u64> = session.events.numbers().collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn reports_are_repeated_with_growing_waits_until_they_are_answered() {
    let mut host = HostMachine::recover(setup(), now(0), []);
    let mut sent = Vec::new();
    while sent.len() < 8 {
        while let Some(output) = host.poll_output() {
            sent.extend(matches!(output.output, HostOutput::SendReport(_)).then_some(()));
        }
        let at = host.poll_timeout().unwrap().at;
        host.handle_timeout(Now { monotonic: at, wall: Default::default() });
    }
    let last = host.poll_timeout().unwrap().at;
    assert!((60..200).contains(&(last.0 / 1_000_000)), "1 + 2 + 4 + 8 + 16 + 30 + 30 s: {last:?}");
}

#[test]
fn output_is_cut_before_terminal_events_are() {
    let mut bench = Bench::staged();
    bench.tell(directive(1, 3, Order::Install { plan: plan() }));
    for number in 1..=EVENT_BUFFER_EVENTS_MAX as u64 + 50 {
        let body = EventBody::Output { step: 1, text: "0123456789".into() };
        bench.tell(HostInput::Installer(InstallerEvent::Event { number, body }));
    }
    let cut = bench.host.session().events.cut_bytes();
    assert!(cut >= 500, "{cut}");
    let failed = InstallerEvent::Failed { plan: plan(), reason: "step 3".into(), rolled_back: true };
    bench.tell(HostInput::Installer(failed));
    assert_eq!(bench.state(), &HostState::Failed { reason: "step 3".into(), rolled_back: true });
    let mut bodies = Vec::new();
    while !bench.host.session().events.is_empty() {
        let report = bench.host.report();
        let last = report.events.last().unwrap().number;
        bodies.extend(report.events.into_iter().map(|event| event.body));
        let HostInput::Directive(mut answer) = directive(1, 3, Order::Install { plan: plan() }) else { panic!() };
        answer.events_durable = last;
        bench.tell(HostInput::Directive(answer));
    }
    assert!(matches!(&bodies[bodies.len() - 2], EventBody::Note(note) if note.starts_with(&cut.to_string())));
    assert!(matches!(bodies.last(), Some(EventBody::InstallFailed { .. })));
}

#[test]
fn what_the_installer_tells_again_counts_once() {
    let mut bench = Bench::staged();
    bench.tell(directive(1, 3, Order::Install { plan: plan() }));
    let event =
        |number| HostInput::Installer(InstallerEvent::Event { number, body: EventBody::Note(number.to_string()) });
    bench.tell(event(1));
    bench.tell(event(2));
    let before = bench.host.session().events.len();
    bench.kill();
    bench.tell(event(1));
    bench.tell(event(2));
    assert_eq!(bench.host.session().events.len(), before);
    bench.tell(event(3));
    assert_eq!(bench.host.session().events.len(), before + 1);
}

fn any_input() -> impl Strategy<Value = HostInput> {
    let order = prop_oneof![
        Just(Order::Survey),
        Just(prepare()),
        Just(Order::Install { plan: plan() }),
        Just(Order::Verify { plan: plan() }),
        Just(Order::Complete { plan: plan(), mapped: Ipv4Addr::new(192, 0, 2, 1), report_html: "<html>".into() }),
        Just(Order::Stop { reason: "x".into() }),
        Just(Order::Uninstall { reason: "x".into() }),
        Just(Order::End { reason: "x".into() }),
        Just(Order::Wait(WaitReason::Approval)),
    ];
    prop_oneof![
        4 => (1u32..3, 1u64..40, order).prop_map(|(generation, revision, order)| directive(generation, revision, order)),
        1 => Just(HostInput::Surveyed { sealed: SurveyHash(Hash::of(b"s")), descriptor: descriptor(), changes: None }),
        1 => Just(HostInput::PlanComputed { plan: plan(), packs: packs() }),
        1 => Just(HostInput::PlanRefused { reason: "no".into() }),
        2 => (0usize..2).prop_map(|at| HostInput::PackComplete { pack: packs()[at], wan_bytes: 1, lan_bytes: 1 }),
        1 => Just(HostInput::Installer(InstallerEvent::Done { plan: plan(), images: images() })),
        1 => any::<bool>().prop_map(|rolled_back| {
            HostInput::Installer(InstallerEvent::Failed { plan: plan(), reason: "no".into(), rolled_back })
        }),
        1 => Just(HostInput::Installer(InstallerEvent::Refused { plan: plan(), reason: "no".into() })),
        1 => any::<bool>().prop_map(|well| {
            let fault = (!well).then(|| "no".to_owned());
            HostInput::CheckDone { plan: plan(), checks: vec![("check".into(), fault)] }
        }),
        1 => Just(HostInput::ReportSaved),
        1 => any::<bool>().prop_map(|uninstalled| HostInput::Withdrawn { uninstalled }),
        1 => Just(HostInput::WorkFailed { reason: "later".into() }),
    ]
}

proptest! {
    /// Any inputs in any order, killed anywhere: invariants hold, and the state is the fold of the journal.
    #[test]
    fn the_state_is_the_fold_of_the_journal(inputs in prop::collection::vec((any_input(), 0u8..8), 1..60)) {
        let mut bench = Bench::new();
        for (input, chance) in inputs {
            bench.tell(input);
            if chance == 0 {
                let before = bench.host.session().clone();
                bench.kill();
                prop_assert_eq!(bench.host.session(), &before);
            }
        }
    }
}
