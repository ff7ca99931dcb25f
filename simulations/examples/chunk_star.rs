//! How near the chunk resolution comes to M + floor(log2 N) rounds in one site, and what a frame costs (a benchmark, no
//! test).
//!
//! `cargo run --release -p branchline-simulations --example chunk_star -- [key=value...]`, where the keys are `hosts`,
//! `frames`, `frame_kib`, `up` and `down` (Mbit/s of every host's card), `server` (Mbit/s of the station's; 0: as the hosts'), `neighbours` (0: all), `upload` and `push` (slots; 0: by
//! the link), `receive` (neighbours that send at a time, where `upload` is given; 0: any number), `slow` (the share of hosts at a fifth of these rates), `seeds` and `line` (Mbit/s into the site; 0: the station holds everything).
#![forbid(unsafe_code)]
use std::{collections::BTreeMap, env, error::Error, time::Instant};

use branchline_protocol::swarm::Tuning;
use branchline_simulations::capacity::{
    Neighbours,
    chunk::{self, Content},
    local::{Card, LocalHost, LocalSite},
};

/// What a slow host's card carries, as a share of the others'.
const SLOW: f64 = 0.2;

fn main() -> Result<(), Box<dyn Error>> {
    let mut given = BTreeMap::new();
    for argument in env::args().skip(1) {
        let (key, value) = argument.split_once('=').ok_or("every argument is key=value")?;
        given.insert(key.to_owned(), value.parse::<f64>()?);
    }
    let figure = |key: &str, default: f64| given.get(key).copied().unwrap_or(default);
    let (hosts, frames) = (figure("hosts", 100.0) as usize, figure("frames", 100.0) as u64);
    let frame = figure("frame_kib", 1024.0) as u64 * 1024;
    let (up, down) = (figure("up", 100.0) * 1e6, figure("down", 1000.0) * 1e6);
    let card = Card::new(up, down);
    let server = Some(figure("server", 0.0) * 1e6).filter(|server| *server > 0.0);
    let station = server.map_or(card, |server| Card::new(server, server));
    let mut content = Content::new(frames * frame, frame)?;
    let (upload_slots, push_slots) = (figure("upload", 0.0) as u16, figure("push", 0.0) as u16);
    if upload_slots > 0 {
        let receive_slots = Some(figure("receive", 0.0) as u16).filter(|slots| *slots > 0);
        content.tuning =
            Some(Tuning { upload_slots, push_slots: push_slots.max(1), receive_slots, ..Tuning::default() });
    }
    let neighbours = match figure("neighbours", 0.0) as u32 {
        0 => Neighbours::All,
        number => Neighbours::Number(number),
    };
    let bound = frames as f64 + (hosts as f64).log2().floor();
    // Kumar and Ross, in rounds of a fast host.
    let server = server.unwrap_or(up);
    let slow = (figure("slow", 0.0) * hosts as f64) as usize;
    let fast = (hosts - slow) as f64;
    let slowest = down * if slow > 0 { SLOW } else { 1.0 };
    let fluid = (frames as f64 * up / slowest).max(frames as f64 * up / server);
    let fluid = fluid.max(hosts as f64 * frames as f64 * up / (server + (fast + SLOW * slow as f64) * up));
    let fast_bound = frames as f64 + fast.log2().floor();
    let mut all = vec![LocalHost::new(card, 0.0); hosts];
    all[..slow].fill(LocalHost::new(Card::new(up * SLOW, down * SLOW), 0.0));
    for seed in 0..figure("seeds", 3.0) as u64 {
        let mut site =
            LocalSite::prestaged(frames * frame, frame, station, all.clone()).with_neighbours(neighbours).seeded(seed);
        let line = figure("line", 0.0) * 1e6;
        if line > 0.0 {
            site = site.behind_line(line, 0.0);
        }
        let begun = Instant::now();
        let spread = chunk::spread(&site, &content);
        let seconds = begun.elapsed().as_secs_f64();
        let rounds = spread.makespan_seconds() / (8.0 * frame as f64 / up);
        let mut ready: Vec<f64> = spread.ready_seconds().flatten().map(|at| at / (8.0 * frame as f64 / up)).collect();
        ready.sort_by(f64::total_cmp);
        let at = |share: f64| ready.get((ready.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        if slow > 0 {
            let last = spread.ready_seconds().skip(slow).flatten().fold(0.0, f64::max) / (8.0 * frame as f64 / up);
            println!("fast hosts: {last:.2} rounds, {:.4} times their own bound", last / fast_bound);
        }
        println!("hosts complete: first {:.2}, half {:.2}, 90 % {:.2}", at(0.0), at(0.5), at(0.9));
        let each = hosts as f64 * frames as f64;
        println!(
            "seed {seed}: {rounds:.2} rounds, M + floor(log2 N) {bound}, ratio {:.4}; fluid minimum {fluid:.2}, ratio {:.4}; \
             wasted {:.4}; {:.1} inputs and {:.2} us per host \
             and frame, {:.2} million inputs/s",
            rounds / bound,
            rounds / fluid,
            spread.wasted_bytes as f64 / (each * frame as f64),
            spread.inputs as f64 / each,
            seconds * 1e6 / each,
            spread.inputs as f64 / seconds / 1e6,
        );
    }
    Ok(())
}
