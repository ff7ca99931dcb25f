//! One test per rule.
use std::net::Ipv4Addr;

use branchline_protocol::{
    charter::{Approval, Decision, DeniedAction, JoinToken},
    ids::{DocumentHash, Epoch, Hash, ImageId, PlanHash, SessionId},
    machine::Journaled,
    session::{HostState, Order, Stage, WaitReason},
    time::UnixSeconds,
};
use branchline_station_role::station::{HeadquartersWord, StationInput, StationMachine, StationOutput};

use super::world::{Fate, World, images, node, plan_of};

fn at_stage(world: &World, host: u8, stage: Stage) -> bool {
    world.station.machine.state().current(node(host)).is_some() && world.stage(host) == stage
}

pub(crate) fn run_to(world: &mut World, host: u8, stage: Stage) {
    assert!(
        world.run_until(2000, |world| at_stage(world, host, stage)),
        "{:?} instead of {stage:?}",
        world.stage(host)
    );
}

/// A host that waits for headquarters, which delays for a long time.
fn waiting_for_approval() -> World {
    let mut world = World::new(1, &[Fate::IsDelayed(100_000)], 10);
    run_to(&mut world, 1, Stage::Delayed);
    world
}

fn approval(world: &World) -> Approval {
    let session = world.current(1);
    Approval {
        site: world.setup.site.clone(),
        session,
        images: images(),
        plan: plan_of(session),
        epoch: world.setup.epoch,
        decision: Decision::Approve,
        decided_by: "ada".into(),
        decided_at: world.now.wall,
    }
}

fn decide(world: &mut World, approval: Approval) {
    let document = DocumentHash(Hash::of(format!("{approval:?}").as_bytes()));
    let word = HeadquartersWord { approvals: vec![(document, approval)], ..HeadquartersWord::default() };
    world.tell_station(StationInput::Headquarters(Box::new(word)));
}

#[test]
fn an_approval_binds_session_plan_images_and_epoch() {
    let mut world = waiting_for_approval();
    let good = approval(&world);
    let stale = [
        Approval { plan: PlanHash(Hash::of(b"the plan of last week")), ..good.clone() },
        Approval { images: vec![ImageId(Hash::of(b"another agent"))], ..good.clone() },
        Approval { images: vec![], ..good.clone() },
        Approval { epoch: Epoch { charter_version: 0, term: 9 }, ..good.clone() },
        Approval { session: SessionId { generation: 2, ..good.session }, ..good.clone() },
    ];
    for bad in stale {
        decide(&mut world, bad.clone());
        assert_eq!(world.stage(1), Stage::Delayed, "{bad:?}");
    }
    assert_eq!(
        world.attentions.iter().filter(|text| text.contains("was not accepted")).count(),
        3,
        "plan, images, epoch"
    );
    decide(&mut world, good);
    assert_eq!(world.stage(1), Stage::Approved);
}

#[test]
fn a_delay_holds_with_its_reason_and_its_end_asks_again() {
    let mut world = World::new(2, &[Fate::IsDelayed(300)], 10);
    run_to(&mut world, 1, Stage::Delayed);
    let asked = world.last_draft.approvals[0].asked_at;
    assert!(
        matches!(&world.directives[&1].order, Order::Wait(WaitReason::Delayed { reason, until: Some(_) }) if reason == "change freeze"),
        "{:?}",
        world.directives[&1].order
    );
    let until = world.delayed_until[&world.current(1)];
    assert!(world.run_until(1000, |world| at_stage(world, 1, Stage::AwaitingApproval)));
    assert!(world.now.wall >= until, "held until the deadline");
    assert!(world.approvals.is_empty(), "the end of a delay approves nothing");
    assert!(world.last_draft.approvals[0].asked_at > asked, "asked again");
    run_to(&mut world, 1, Stage::Complete);
}

/// Found by the fault simulation (seed 1067 of its first night): a host died with the only slot, then the station
/// restarted, and nobody was ever told that the slot was not coming back.
#[test]
fn people_are_told_of_a_silent_slot_though_the_station_has_restarted_since() {
    let mut world = World::new(6, &[Fate::Completes], 1);
    run_to(&mut world, 1, Stage::Installing);
    world.crash_station();
    world.now.monotonic = world.now.monotonic.after(std::time::Duration::from_secs(890));
    world.tell_station(StationInput::RouterTrouble(None));
    assert!(!world.attentions.iter().any(|text| text.contains("is silent for")), "{:?}", world.attentions);
    world.now.monotonic = world.now.monotonic.after(std::time::Duration::from_secs(20));
    world.tell_station(StationInput::RouterTrouble(None));
    assert!(world.attentions.iter().any(|text| text.contains("is silent for")), "{:?}", world.attentions);
}

/// Found by the fault simulation (seed 137 of its first night): somebody had mapped the host's address by hand, the
/// router gave it another one, and the host went out of monitoring without a word.
#[test]
fn a_complete_host_at_another_mapped_address_is_verified_there_anew() {
    let mut world = World::new(5, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    world.run_until(100, |_| false);
    let inside = world.station.machine.state().hosts[&node(1)].inside;
    let mapped = Ipv4Addr::new(198, 51, 100, 250);
    let attempt = world.station.machine.state().sessions[&world.current(1)].attempt;
    world.tell_station(StationInput::Mapped { node: node(1), inside, mapped });
    assert_ne!(world.stage(1), Stage::Complete, "nothing was seen at the new address yet");
    run_to(&mut world, 1, Stage::Complete);
    let session = &world.station.machine.state().sessions[&world.current(1)];
    assert!(session.attempt > attempt && session.probed == Some(vec![]), "probed anew");
    let view = world.station.machine.session(world.current(1)).unwrap();
    assert_eq!((view.mapped, view.reason.contains("198.51.100.250")), (Some(mapped), true), "{}", view.reason);
}

#[test]
fn a_denied_host_is_marked_and_its_agent_treated_by_policy() {
    for (action, expected) in
        [(DeniedAction::Stop, Some(false)), (DeniedAction::Uninstall, Some(true)), (DeniedAction::Leave, None)]
    {
        let mut world = World::new(3, &[Fate::IsDenied], 10);
        world.setup.policies.on_denied = action;
        world.crash_station();
        run_to(&mut world, 1, Stage::Denied);
        world.run_until(100, |_| false);
        let view = world.station.machine.session(world.current(1)).unwrap();
        assert_eq!(view.reason, "not ours (by ada)");
        assert_eq!(view.mapped, None);
        let withdrawn = match view.host_state {
            HostState::Withdrawn { uninstalled } => Some(uninstalled),
            _ => None,
        };
        assert_eq!(withdrawn, expected, "{action:?}");
        assert_has_its_report_everywhere(&world, 1);
    }
}

/// The report of a session that ended without success is at the station, at headquarters and on the host (R85, R92).
pub(crate) fn assert_has_its_report_everywhere(world: &World, host: u8) {
    let id = world.current(host);
    let html = world.station.machine.session_html(id).expect("the station has a report").to_owned();
    assert!(matches!(&world.directives[&host].order, Order::Keep { report_html, .. } if *report_html == html));
    assert_eq!(world.kept_reports.get(&host), Some(&html), "the host keeps it");
    assert!(world.mirrored_reports.contains(&id), "headquarters keeps it");
    assert_eq!(world.station.machine.profile(id).unwrap().report_html, None, "and is not sent it again");
}

#[test]
fn a_denied_host_that_is_gone_has_its_report_after_a_while() {
    let mut world = World::new(3, &[Fate::IsDenied], 10);
    assert!(world.run_until(4000, |world| at_stage(world, 1, Stage::AwaitingApproval)));
    let id = world.current(1);
    world.hosts.clear();
    let html = |world: &World| world.station.machine.session_html(id).is_some();
    run_to(&mut world, 1, Stage::Denied);
    let before = world.now.wall.0;
    assert!(world.run_until(5000, html));
    assert!((590..700).contains(&(world.now.wall.0 - before)), "{}", world.now.wall.0 - before);
}

#[test]
fn policy_may_ask_before_the_installation() {
    let mut world = World::new(4, &[Fate::IsDelayed(500)], 10);
    world.setup.policies.approve_before_installation = true;
    world.crash_station();
    run_to(&mut world, 1, Stage::Delayed);
    assert!(world.installed.is_empty() && world.installing.is_empty());
    run_to(&mut world, 1, Stage::Complete);
    assert_eq!(world.installed.len(), 1);
}

#[test]
fn withdrawing_undoes_everything_and_keeps_the_reports() {
    let mut world = World::new(6, &[Fate::Completes; 2], 10);
    run_to(&mut world, 1, Stage::Complete);
    run_to(&mut world, 2, Stage::Complete);
    let id = world.current(1);
    world.tell_station(StationInput::Withdraw { session: id, by: "bea".into() });
    assert!(world.revoked.is_empty(), "the host must be able to confirm first");
    assert!(world.run_until(500, |world| world.revoked.contains(&node(1))));
    assert!(!world.installed.contains_key(&1) && world.installed.contains_key(&2));
    assert_eq!(world.stage(1), Stage::Withdrawn);
    assert!(world.station.machine.session_html(id).is_some());
    assert!(!world.station.machine.session_events(id).is_empty());
    assert_eq!(world.station.machine.profile(id).unwrap().mapped, None);
    world.refusals.clear();
    world.run_until(300, |_| false);
    assert!(world.refusals.iter().any(|(who, reason)| *who == node(1) && reason.contains("withdrawn")));
    assert_eq!(world.stage(2), Stage::Complete);
}

#[test]
fn an_update_keeps_the_mapping_and_a_denied_one_the_old_version() {
    let mut world = World::new(11, &[Fate::Completes], 10);
    run_to(&mut world, 1, Stage::Complete);
    world.run_until(100, |_| false);
    let first = world.station.machine.session(world.current(1)).unwrap();
    let start = |world: &mut World| {
        world.tell_station(StationInput::NewGeneration { node: node(1), by: "bea".into() });
    };
    start(&mut world);
    run_to(&mut world, 1, Stage::Complete);
    let second = world.station.machine.session(world.current(1)).unwrap();
    assert_eq!((second.session.generation, second.mapped), (2, first.mapped));
    assert_eq!(world.installed[&1], plan_of(second.session));

    world.fates.insert(1, Fate::IsDenied);
    start(&mut world);
    run_to(&mut world, 1, Stage::Denied);
    world.run_until(100, |_| false);
    assert_eq!(world.installed[&1], plan_of(second.session), "the old version stays");
    assert_eq!(world.station.machine.profile(second.session).unwrap().mapped, first.mapped);
    assert_eq!(world.station.machine.profile(second.session).unwrap().stage, Stage::Complete);
    assert!(matches!(world.directives[&1].order, Order::Keep { .. }), "and is not stopped");
}

#[test]
fn members_of_one_cluster_follow_each_other() {
    let mut world = World::new(12, &[Fate::Completes; 3], 10);
    for host in 1..=3 {
        world.groups.insert(host, "corosync hacluster".into());
    }
    let (mut begun, mut waited) = (Vec::new(), false);
    let ended = world.run_until(3000, |world| {
        let state = world.station.machine.state();
        for host in 1..=3 {
            let Some((_, session)) = state.current(node(host)) else { continue };
            if session.begun && !begun.contains(&host) {
                let unverified = begun.iter().any(|other| !state.current(node(*other)).unwrap().1.verified);
                assert!(!unverified, "host {host} began before the others were verified");
                begun.push(host);
            }
            waited |= matches!(world.station.machine.wait_of(node(host)), Some(WaitReason::Group { member }) if member.starts_with("host-"));
        }
        (1..=3).all(|host| at_stage(world, host, Stage::Complete))
    });
    assert!(ended && waited && begun.len() == 3);
}

#[test]
fn the_queue_goes_by_priority_then_by_arrival_and_hosts_see_their_place() {
    let mut world = World::new(13, &[Fate::Completes; 4], 1);
    let all_queued =
        world.run_until(200, |world| (1..=4).filter(|host| at_stage(world, *host, Stage::Queued)).count() == 3);
    assert!(all_queued);
    let place = |world: &World, host: u8| world.station.machine.session(world.current(host)).unwrap().place;
    let mut queued: Vec<(u32, u8)> = (1..=4).filter_map(|host| Some((place(&world, host)?, host))).collect();
    queued.sort_unstable();
    let arrival = |host: &u8| world.station.machine.state().current(node(*host)).unwrap().1.arrival;
    let hosts: Vec<u8> = queued.iter().map(|(_, host)| *host).collect();
    assert_eq!(queued.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(hosts.is_sorted_by_key(arrival), "first come, first served");
    let last = hosts[2];
    assert_eq!(world.directives[&last].order, Order::Wait(WaitReason::Slots { place: 3, limit: 1 }));
    let session = world.current(last);
    world.tell_station(StationInput::Prioritise { session, priority: 9 });
    assert_eq!(place(&world, last), Some(1));
}

#[test]
fn a_conflict_stops_before_any_download() {
    let mut world = World::new(14, &[Fate::Conflicts], 10);
    run_to(&mut world, 1, Stage::Refused);
    let view = world.station.machine.session(world.current(1)).unwrap();
    assert!(view.reason.contains("port 9100 is in use by otherd"));
    assert_eq!((view.wan_bytes, view.lan_bytes), (0, 0));
    world.fates.insert(1, Fate::Completes);
    let session = world.current(1);
    world.tell_station(StationInput::Retry { session, by: "bea".into() });
    run_to(&mut world, 1, Stage::Complete);
    assert_eq!(world.current(1).generation, 2);
}

#[test]
fn cancelling_stops_what_was_begun() {
    let mut world = World::new(15, &[Fate::IsDelayed(9000)], 10);
    run_to(&mut world, 1, Stage::Delayed);
    let session = world.current(1);
    world.tell_station(StationInput::Cancel { session, by: "bea".into() });
    assert_eq!(world.stage(1), Stage::Cancelled);
    let stopped = |world: &World| world.station.machine.session(world.current(1)).unwrap().host_state;
    assert!(world.run_until(100, |world| stopped(world) == HostState::Withdrawn { uninstalled: false }));
}

fn token(uses: u32) -> JoinToken {
    JoinToken {
        site: "store-17".parse().unwrap(),
        root: Hash::of(b"root"),
        station: node(255),
        door: "10.1.0.2:7443".parse().unwrap(),
        door_fingerprint: Hash::of(b"certificate"),
        identifier: [9; 16],
        uses,
        expires_at: UnixSeconds(5000),
    }
}

fn joins(world: &mut World, host: u8, machine: &str) -> Result<u64, String> {
    (world.memberships, world.refusals) = (Vec::new(), Vec::new());
    world.tell_station(StationInput::TokenUse {
        identifier: [9; 16],
        node: node(host),
        machine_identifier: machine.into(),
        host_name: format!("host-{host}"),
    });
    match (world.memberships.pop(), world.refusals.pop()) {
        (Some((_, serial)), None) => Ok(serial),
        (None, Some((_, reason))) => Err(reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_lets_in_as_many_machines_as_it_says() {
    let mut world = World::new(16, &[], 10);
    assert!(joins(&mut world, 1, "m1").unwrap_err().contains("no such token"));
    world.tell_station(StationInput::TokenCreate(Box::new(token(2))));
    assert_eq!(joins(&mut world, 1, "m1"), Ok(1));
    assert_eq!(joins(&mut world, 1, "m1"), Ok(1), "asking again is the same use");
    assert!(joins(&mut world, 1, "copy").unwrap_err().contains("same identity"));
    assert_eq!(joins(&mut world, 2, "m2"), Ok(2));
    assert!(joins(&mut world, 3, "m3").unwrap_err().contains("2 times"));
    world.crash_station();
    assert!(joins(&mut world, 3, "m3").unwrap_err().contains("2 times"), "uses survive a crash");
    world.memberships.clear();
    world.tell_station(StationInput::MemberRenew { node: node(2) });
    assert_eq!(world.memberships, [(node(2), 3)]);
}

#[test]
fn an_expired_token_lets_nobody_in() {
    let mut world = World::new(17, &[], 10);
    world.tell_station(StationInput::TokenCreate(Box::new(token(2))));
    world.run_until(5000, |world| world.now.wall >= UnixSeconds(5000));
    assert!(joins(&mut world, 1, "m1").unwrap_err().contains("expired"));
}

#[test]
fn a_membership_waits_until_the_use_of_its_token_is_durable() {
    use branchline_protocol::machine::Machine;
    let world = World::new(18, &[], 10);
    let mut station = StationMachine::recover(world.setup.clone(), world.now, Vec::new());
    station.handle(world.now, StationInput::TokenCreate(Box::new(token(1))));
    let (identifier, machine_identifier, host_name) = ([9; 16], "m1".to_owned(), "host-1".to_owned());
    let input = StationInput::TokenUse { identifier, node: node(1), machine_identifier, host_name };
    station.handle(world.now, input);
    let last = std::iter::from_fn(|| station.poll_record()).last().unwrap();
    let release = std::iter::from_fn(|| station.poll_output())
        .find(|output| matches!(output.output, StationOutput::ReleaseMembership(_)))
        .unwrap();
    assert_eq!(release.after, last.sequence);
}

#[test]
fn a_station_that_stands_down_says_nothing_more() {
    let mut world = World::new(19, &[Fate::Completes; 2], 10);
    run_to(&mut world, 1, Stage::Selected);
    world.tell_station(StationInput::StandDown { reason: "epoch 2.0 is in force".into() });
    let before = world.directives.clone();
    world.run_until(300, |_| false);
    assert_eq!(world.directives, before);
    assert!(world.attentions.iter().any(|text| text.contains("stands down")));
}

#[test]
fn an_order_of_an_older_epoch_is_ignored_by_hosts() {
    use branchline_protocol::{machine::Machine, session::HostInput};
    let mut world = World::new(20, &[Fate::Completes], 10);
    world.setup.epoch.charter_version = 5;
    world.crash_station();
    run_to(&mut world, 1, Stage::Complete);
    let mut old = world.directives[&1].clone();
    old.epoch.charter_version = 4;
    old.revision += 1_000_000;
    old.order = Order::Uninstall { reason: "I am the station".into() };
    let now = world.now;
    world.hosts.get_mut(&1).unwrap().machine.handle(now, HostInput::Directive(Box::new(old)));
    world.run_until(100, |_| false);
    assert!(world.installed.contains_key(&1));
    assert_eq!(world.stage(1), Stage::Complete);
}

/// The stages that a session goes through, with the order at each: the tables of the book.
fn table(fate: Fate) -> String {
    let mut world = World::new(21, &[fate], 1);
    let mut lines: Vec<String> = Vec::new();
    world.run_until(900, |world| {
        if let Some(directive) = world.directives.get(&1) {
            let line = format!("| `{:?}` | {} |", directive.stage, order_words(&directive.order));
            if lines.last() != Some(&line) {
                lines.push(line);
            }
        }
        false
    });
    format!("| stage | order to the host |\n| --- | --- |\n{}\n", lines.join("\n"))
}

fn order_words(order: &Order) -> String {
    match order {
        Order::Wait(reason) => {
            let reason = format!("{reason:?}");
            format!("`Wait({})`", reason.split([' ', '(']).next().unwrap())
        }
        other => format!("`{}`", format!("{other:?}").split([' ', '{']).next().unwrap()),
    }
}

#[test]
fn the_book_shows_the_tables_that_the_code_makes() {
    let book =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/protocol/session.md")).unwrap();
    let fates = [
        Fate::Completes,
        Fate::IsDenied,
        Fate::IsDelayed(60),
        Fate::FailsToInstall,
        Fate::FailsItsCheck,
        Fate::Conflicts,
    ];
    let missing: Vec<String> = fates
        .into_iter()
        .map(|fate| (fate, table(fate)))
        .filter(|(_, table)| !book.contains(table))
        .map(|(fate, table)| format!("{fate:?}\n{table}"))
        .collect();
    assert!(missing.is_empty(), "docs/src/protocol/session.md lacks these tables:\n{}", missing.join("\n"));
}
