//! The station role moves away and comes back to a node that has run all the time: nothing of its first time is in the way of
//! its second (R4).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use branchline::config::{Bundle, BundleKey, Home};
use branchline_protocol::charter::PublicKey;
use branchline_tests::kept_demo::KeptDemo;
use serde_json::Value;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Signs a charter that designates the node of this seat, and gives it to headquarters.
fn move_to(demo: &KeptDemo, seat: &Path) -> Result<()> {
    let bundle = demo.path("bundle");
    let moved = std::process::Command::new(demo.program())
        .args(["charter", "move", "--bundle", &text(&bundle), "--station", &text(seat)])
        .output()?;
    ensure!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    demo.run("headquarters", &["charter", "take", &text(&bundle.join("charter.json"))]).map(drop)
}

/// Makes a second node that can be station, and starts it with the newest charter.
fn start_successor(demo: &mut KeptDemo) -> Result<()> {
    let (next, file) = (demo.path("station-2"), demo.path("station-2.seat"));
    let listen = demo.address(3)?.to_string();
    demo.run("station-2", &["identity", "--listen", &listen, "--out", &text(&file)])?;
    std::fs::copy(demo.path("station/router.toml"), next.join("router.toml"))?;
    let mut config = Home::open(&next)?.config_or_default()?;
    (config.mdns, config.station.router) = (false, Some("router.toml".into()));
    Home::open(&next)?.save_config(&config)?;
    move_to(demo, &file)?;
    let bundle = demo.path("bundle");
    let owner = PublicKey::of(&Bundle::open(&bundle)?.key(BundleKey::Owner)?).to_string();
    demo.run("station-2", &["charter", "adopt", "--owner", &owner, &text(&bundle.join("charter.json"))])?;
    demo.start_node("station-2", "station-2")
}

/// The site is in the hands of this station: it knows the host, and a new session of it runs to its end.
fn leads(demo: &KeptDemo, station: &str) -> Result<()> {
    demo.wait_until(60, &format!("{station} has the site's sessions"), || {
        let sessions: Value = demo.json(station, &["sessions", "list"])?;
        Ok(sessions[0]["host_name"] == "till-1" && sessions[0]["stage"] == "complete")
    })
    .with_context(|| demo.log(station))?;
    let first: Value = demo.json(station, &["sessions", "show", "till-1"])?;
    demo.run(station, &["sessions", "update", "till-1"])?;
    demo.wait_until(60, &format!("till-1 is updated by {station}"), || {
        let shown: Value = demo.json(station, &["sessions", "show", "till-1"])?;
        Ok(shown["stage"] == "complete" && shown["session"] != first["session"])
    })
    .with_context(|| demo.log(station))
}

#[test]
fn demo_station_role_comes_back_to_a_node_that_never_stopped_and_stays_there_when_the_other_is_gone() -> Result<()> {
    let mut demo = KeptDemo::start(1)?;
    let first = demo.path("station.seat");
    demo.run("station", &["identity", "--out", &text(&first)])?;
    start_successor(&mut demo)?;
    leads(&demo, "station-2")?;
    move_to(&demo, &first)?;
    leads(&demo, "station")?;
    // Found by a reading: every start asked the former station for its journals, and one that was gone made an end of the site.
    demo.kill_node("station-2")?;
    demo.kill_node("station")?;
    demo.start_node("station", "station")?;
    leads(&demo, "station")
}
