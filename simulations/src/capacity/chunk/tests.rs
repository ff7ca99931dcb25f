use super::*;
use crate::capacity::{
    local::{Absence, Card, LocalHost},
    quantity::Neighbours,
    units::{NEVER, SECOND, rate},
};

const FRAME: u64 = 256 << 10;

fn site(hosts: usize, frames: u64) -> LocalSite {
    let card = Card::new(100e6, 100e6);
    LocalSite::prestaged(frames * FRAME - 1, FRAME, card, vec![LocalHost::new(card, 0.0); hosts])
        .with_neighbours(Neighbours::Number(10))
        .seeded(3)
}

fn run(site: &LocalSite) -> Spread {
    spread(site, &Content::new(site.payload_bytes, site.frame_bytes).unwrap())
}

#[test]
fn everybody_gets_everything_and_the_same_seed_gives_the_same() {
    let one = run(&site(30, 64));
    assert!(one.ready.iter().all(|at| *at != NEVER));
    assert_eq!(one.lan_bytes - one.wasted_bytes, 30 * (64 * FRAME - 1));
    assert_eq!((one.wan_bytes, &one), (0, &run(&site(30, 64))));
    assert_ne!(one.ready, run(&site(30, 64).seeded(4)).ready);
}

#[test]
fn what_has_to_cross_the_line_crosses_it_once() {
    let behind = run(&site(30, 64).behind_line(10e6, 0.01));
    assert_eq!(behind.wan_bytes, 64 * FRAME - 1);
    assert!(behind.ready.iter().all(|at| *at >= behind.fetched));
}

#[test]
fn a_host_that_comes_late_or_leaves_gets_everything_too() {
    let mut site = site(30, 64).behind_line(20e6, 0.01);
    let away = |leaves: u64, returns: u64| Absence { leaves: leaves * SECOND, returns: returns * SECOND };
    for host in 0..10 {
        site.hosts[host].absences = vec![away(1, 3), away(4, 40)];
        site.hosts[host + 10].arrives = host as u64 * 5 * SECOND;
    }
    let spread = run(&site);
    assert!(spread.ready.iter().all(|at| *at != NEVER), "{:?}", spread.ready);
    assert!(spread.ready[..10].iter().all(|at| *at > 40 * SECOND), "it lacked the last frames when it left");
    assert_eq!(spread.wan_bytes, 64 * FRAME - 1, "the station is the inlet all the time");
}

#[test]
fn a_host_goes_on_where_the_station_failed() {
    let mut site = site(20, 64).behind_line(10e6, 0.01);
    site.outage = Some((5 * SECOND, 65 * SECOND));
    let spread = run(&site);
    assert!(spread.ready.iter().all(|at| *at != NEVER && *at > 65 * SECOND), "{:?}", spread.ready);
    let payload = 64 * FRAME - 1;
    let most = payload + branchline_protocol::limits::LEASED_BYTES_DEFAULT;
    assert!((payload..=most).contains(&spread.wan_bytes), "R70: {} of {payload}", spread.wan_bytes);
}

#[test]
fn a_radio_medium_carries_everything_one_after_another() {
    let mut site = site(10, 32);
    site.medium = Some(rate(100e6));
    let spread = run(&site);
    let seconds = spread.makespan_seconds();
    let payload = (32 * FRAME - 1) as f64 * 8.0;
    // Each host receives everything over the medium once; what another host sent crossed it twice.
    assert!(seconds >= 10.0 * payload / 100e6 && seconds <= 1.05 * 20.0 * payload / 100e6, "{seconds}");
}

#[test]
fn a_slow_sender_does_not_keep_a_fast_receiver_from_others() {
    // Hosts whose uplinks are a tenth of their downlinks, beside a station at four times these: what slow senders send
    // to a host arrives side by side with what the station sends it, so that the fluid minimum is met.
    let (count, frames) = (40, 128);
    let (station, card) = (Card::new(400e6, 400e6), Card::new(10e6, 100e6));
    let site = LocalSite::prestaged(frames * FRAME, FRAME, station, vec![LocalHost::new(card, 0.0); count]).seeded(3);
    let bits = (frames * FRAME * 8) as f64;
    let minimum = count as f64 * bits / (400e6 + count as f64 * 10e6);
    let seconds = run(&site).makespan_seconds();
    assert!(seconds >= minimum && seconds <= 1.08 * minimum, "{seconds} s, at least {minimum}");
}

#[test]
fn a_site_that_never_begins_never_ends() {
    let mut site = site(3, 4);
    site.hosts.iter_mut().for_each(|host| host.arrives = NEVER);
    assert!(run(&site).ready.iter().all(|at| *at == NEVER));
}
