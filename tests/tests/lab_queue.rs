//! More hosts than may be worked on at once (R22): the others wait in the order in which they came, and say so; what is
//! going on at a host shows while it goes on, at the station (R21) and at the host itself (R83).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use branchline_tests::observed::{Session, count_at};
use branchline_tests::site::{Site, SiteOptions};
use branchline_tests::{payload, return_without_lab};
use serde_json::Value;

const HOSTS: [&str; 4] = ["host1", "host2", "host3", "host4"];
/// What the package's maintainer script says, three seconds apart.
const STEPS: &str = "echo first step; sleep 3; echo second step";

#[test]
fn lab_queue_works_on_one_host_at_a_time() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let packages = vec![payload::generated(made.path(), "steps", 1, STEPS, "true")?];
    let options = SiteOptions::new("blqueue", HOSTS.len(), packages);
    let site = Site::up(&SiteOptions { charter: "[limits]\nsessions_max = 1\n".to_owned(), ..options })?;
    let token = site.token("station", HOSTS.len())?;
    for host in HOSTS {
        site.start_host(host, &token)?;
    }
    site.publish()?;

    let (mut longest_queue, mut slots_seen) = (0, BTreeSet::new());
    let (mut seen_at_station, mut seen_at_host) = (false, false);
    let mut preferred = None;
    let limit = Instant::now() + Duration::from_secs(180);
    loop {
        let sessions = site.sessions("station")?;
        let at_work: Vec<&Session> = sessions.iter().filter(|session| session.slot.is_some()).collect();
        ensure!(at_work.len() <= 1, "one slot, and more hold it: {at_work:#?}");
        slots_seen.extend(at_work.iter().filter_map(|session| session.slot.clone()));
        let mut places: Vec<usize> = sessions.iter().filter_map(place_of).collect();
        places.sort_unstable();
        ensure!(places.iter().copied().eq(1..=places.len()), "places in the queue: {places:?}\n{sessions:#?}");
        longest_queue = longest_queue.max(places.len());
        let last = sessions.iter().find(|session| preferred.is_none() && session.place == Some(HOSTS.len() - 1));
        if let Some(last) = last {
            prefer(&site, &last.host_name)?;
            preferred = Some(last.host_name.clone());
        }
        if let [session] = at_work[..] {
            let host = &session.host_name;
            seen_at_station |= shows_the_first_step(&history_of(&site, "station", host)?);
            seen_at_host |= shows_the_first_step(&history_of(&site, host, host)?);
        }
        if count_at(&sessions, "complete") == HOSTS.len() {
            break;
        }
        ensure!(Instant::now() < limit, "not all are complete: {sessions:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("the queue was up to {longest_queue} long; {preferred:?} was preferred when it was last");
    let preferred = preferred.context("nobody was last of three")?;
    let late = site.node_json::<Value>("station", &["sessions", "prioritise", &preferred, "1"]).unwrap_err();
    ensure!(format!("{late:#}").contains("has ended already: Complete"), "{late:#}");
    ensure!(longest_queue == HOSTS.len() - 1, "three of four wait where one slot is there, not {longest_queue}");
    ensure!(slots_seen.iter().eq(["install", "verify"]), "slots for {slots_seen:?} only");
    ensure!(seen_at_station, "at the station no host showed its first step before its second");
    ensure!(seen_at_host, "no host showed its own operator the first step before the second");
    for host in HOSTS {
        for at in ["station", host] {
            let history = history_of(&site, at, host)?;
            let (first, second) = (history.find("first step"), history.find("second step"));
            ensure!(first.context("no first step")? < second.context("no second step")?, "{host} at {at}: {history}");
        }
    }
    Ok(())
}

/// Puts a host that is last in the queue before the others (R22): now it is first, or at work already.
fn prefer(site: &Site, host: &str) -> Result<()> {
    site.node_json::<Value>("station", &["sessions", "prioritise", host, "7"])?;
    let sessions = site.sessions("station")?;
    let it = sessions.iter().find(|session| session.host_name == host).context("it has gone")?;
    ensure!(it.place == Some(1) || it.slot.is_some(), "{host} is preferred, and others are before it: {sessions:#?}");
    Ok(())
}

/// The place in the queue, which the session's reason tells people.
fn place_of(session: &Session) -> Option<usize> {
    let place = session.place?;
    let said = format!("place {place} in the queue; 1 sessions may run at once.");
    assert!(session.reason.contains(&said), "{session:?}");
    Some(place)
}

/// The events of a host's session, as the station or the host itself shows them.
fn history_of(site: &Site, at: &str, host: &str) -> Result<String> {
    Ok(site.node_json::<Value>(at, &["sessions", "show", host])?["events"].to_string())
}

/// Whether a history has what the host's installer said first, and not yet what it says three seconds later.
fn shows_the_first_step(history: &str) -> bool {
    history.contains("first step") && !history.contains("second step")
}
