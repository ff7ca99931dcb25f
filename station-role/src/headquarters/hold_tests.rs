//! Answers that are held.
use super::{super::super::hold::HOLD, *};

#[test]
fn an_answer_waits_for_the_signature_and_for_the_probe() {
    let approve = ApprovalRule {
        name: "all".into(),
        sites: Vec::new(),
        packages: Vec::new(),
        facts: Default::default(),
        when: None,
        action: RuleAction::Approve,
    };
    let mut headquarters = Loop::new(vec![approve]);
    headquarters.sign = false;
    let asked = SiteReport { approvals: vec![request(1)], wants_batch: true, ..report() };
    let exchange = headquarters.ask(asked.clone());
    assert_eq!(headquarters.answer(exchange), None, "nothing is signed yet");
    let deadline = headquarters.machine.poll_timeout().unwrap();
    assert_eq!(deadline.at, headquarters.now.monotonic.after(HOLD));

    // The next question of the site closes the first.
    let next = headquarters.ask(asked.clone());
    assert_eq!(headquarters.answer(exchange), Some(HeadquartersDirective::default()));
    let unsigned = headquarters.machine.state().site(&site()).unwrap().desk.docket(session(1)).unwrap();
    let approval = unsigned.verdict.clone().unwrap().approval;
    let signed = Signed::sign(&approval, &key());
    headquarters.input(HeadquartersInput::ApprovalSigned { approval, signed });
    let answer = headquarters.answer(next).expect("the signature is what the site waits for");
    assert_eq!((answer.approvals.len(), answer.grants.len()), (1, 0));

    // The same again is no news: the answer waits for the grant.
    let next = headquarters.ask(asked);
    assert_eq!(headquarters.answer(next), None);
    let grant = headquarters.machine.state().authority.all_grants().next().unwrap().grant.clone();
    let signed = Signed::sign(&grant, &key());
    let mapped = grant.batch.first;
    headquarters.input(HeadquartersInput::GrantSigned { grant, signed });
    assert_eq!(headquarters.answer(next).unwrap().grants.len(), 1);

    let probe = ProbeRequest { undeclared: (1..=1000).collect(), ..probe_wish(1, mapped, 1) };
    let wish = SiteReport { probes: vec![probe], grant_seen: 1, ..report() };
    let exchange = headquarters.ask(wish);
    assert_eq!(headquarters.answer(exchange), None);
    let tried = headquarters.seen.iter().find_map(|output| match output {
        HeadquartersOutput::Probe { request, .. } => Some(request.undeclared.len()),
        _ => None,
    });
    assert_eq!(tried, Some(limits::PROBE_UNDECLARED_PORTS_MAX), "a site cannot have more tried");
    let result = ProbeResult {
        site: site(),
        session: session(1),
        plan: plan(1),
        mapped,
        ports: vec![(9100, None)],
        undeclared: Vec::new(),
        probed_at: UnixSeconds(1001),
    };
    let signed = Signed::sign(&result, &key());
    headquarters.input(HeadquartersInput::ProbeDone { attempt: 1, result, signed });
    assert_eq!(headquarters.answer(exchange).unwrap().probes.len(), 1);
    assert_eq!(headquarters.machine.poll_timeout(), None, "nothing is held any more");
}

#[test]
fn a_held_answer_is_given_when_a_person_decides_and_in_any_case_after_a_while() {
    let mut headquarters = Loop::new(Vec::new());
    let exchange = headquarters.ask(SiteReport { approvals: vec![request(1)], ..report() });
    assert_eq!(headquarters.answer(exchange), None);
    let (selector, by) = (Selector::All, "ada".to_owned());
    headquarters.input(HeadquartersInput::Decide { command: 1, selector, decision: Decision::Approve, by });
    assert_eq!(headquarters.answer(exchange).unwrap().approvals.len(), 1);

    let exchange = headquarters.ask(SiteReport { approvals: vec![request(2)], ..report() });
    headquarters.now.monotonic = headquarters.now.monotonic.after(HOLD);
    headquarters.machine.handle_timeout(headquarters.now);
    headquarters.drain();
    assert_eq!(headquarters.answer(exchange), Some(HeadquartersDirective::default()));
    let idle = headquarters.ask(report());
    assert!(headquarters.answer(idle).is_some(), "who waits for nothing is answered at once");
}
