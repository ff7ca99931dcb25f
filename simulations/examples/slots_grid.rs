//! How near the chunk resolution comes to the bounds of theory over a grid of sites, with rules for slots beside each
//! other (a benchmark, no test).
//!
//! `cargo run --release -p branchline-simulations --example slots_grid -- [key=value,...] [rule...]`. A rule is `link`, the
//! product's, or `UPLOAD/PUSH/RECEIVE`: slots of a card that sends as fast as its neighbours receive, in proportion to
//! what others send, and as many receive slots (0: any number, as in nodes). The keys are `hosts`, `frames`,
//! `ups` (a host's uplink in downlinks), `degrees` (0: all neighbours) and `stations` (its card in downlinks; 0: as a
//! host's), of which each may be a list, and `frame_kib`, `down` (Mbit/s) and `seeds`.
#![forbid(unsafe_code)]
use std::{cell::Cell, collections::BTreeMap, env, error::Error};

use branchline_protocol::{
    limits::LINK_SLOTS_MAX,
    swarm::{LinkFigures, Tuning},
};
use branchline_simulations::capacity::{
    Neighbours,
    chunk::{self, Content},
    local::{Card, LocalHost, LocalSite},
};

thread_local! {
    /// The slots of the rule that is measured: a rule is a function without memory.
    static SLOTS: Cell<[u64; 3]> = const { Cell::new([8, 10, 0]) };
}

fn in_proportion(link: LinkFigures) -> Tuning {
    let [upload, push, receive] = SLOTS.get();
    let (send, taken) = (link.send_bytes_per_second, link.neighbour_receives_bytes_per_second);
    let slots = |equal: u64| (equal * send).div_ceil(taken).clamp(1, LINK_SLOTS_MAX as u64) as u16;
    let receive_slots = (receive > 0).then_some(receive as u16);
    Tuning { upload_slots: slots(upload), push_slots: slots(push), receive_slots, ..Tuning::default() }
}

/// One place in the grid; rates in bits per second.
struct Place {
    hosts: usize,
    frames: u64,
    frame: u64,
    host: Card,
    station: Card,
    neighbours: Neighbours,
    /// The greatest lower bound that is known, in seconds.
    bound: f64,
}

type Given = BTreeMap<String, Vec<f64>>;

fn list(given: &Given, key: &str, default: &[f64]) -> Vec<f64> {
    given.get(key).cloned().unwrap_or(default.to_vec())
}

fn figure(given: &Given, key: &str, default: f64) -> f64 {
    list(given, key, &[default]).first().copied().unwrap_or(default)
}

impl Place {
    fn new(given: &Given, [degree, station, up, hosts, frames]: [f64; 5]) -> Self {
        let frame = figure(given, "frame_kib", 1024.0) as u64 * 1024;
        let down = figure(given, "down", 100.0) * 1e6;
        let (up, server) = (down * up, down * station);
        let host = Card::new(up, down);
        let (server, station) = if station > 0.0 { (server, Card::new(server, server)) } else { (up, host) };
        let bits = 8.0 * frame as f64 * frames;
        let fluid = (bits / down).max(bits / server).max(hosts * bits / (server + hosts * up));
        let rounds = (frames + hosts.log2().floor()) * 8.0 * frame as f64 / up;
        let bound = if server > up { fluid } else { fluid.max(rounds) };
        let neighbours = if degree > 0.0 { Neighbours::Number(degree as u32) } else { Neighbours::All };
        Self { hosts: hosts as usize, frames: frames as u64, frame, host, station, neighbours, bound }
    }

    /// The makespan over the bound, mean and greatest of some seeds, and the inputs per host and frame.
    fn measure(&self, content: &Content, seeds: u64) -> (f64, f64, f64) {
        let (mut sum, mut greatest, mut inputs) = (0.0, 0.0f64, 0);
        for seed in 0..seeds {
            let hosts = vec![LocalHost::new(self.host, 0.0); self.hosts];
            let site = LocalSite::prestaged(self.frames * self.frame, self.frame, self.station, hosts);
            let spread = chunk::spread(&site.with_neighbours(self.neighbours).seeded(seed), content);
            let ratio = spread.makespan_seconds() / self.bound;
            sum += ratio;
            greatest = greatest.max(ratio);
            inputs += spread.inputs;
        }
        let each = inputs as f64 / seeds as f64 / self.hosts as f64 / self.frames as f64;
        (sum / seeds as f64, greatest, each)
    }
}

/// Every combination of the five lists, the last running fastest.
fn places(given: &Given) -> Vec<[f64; 5]> {
    let keys: [(&str, &[f64]); 5] = [
        ("degrees", &[0.0, 10.0]),
        ("stations", &[0.0, 4.0, 15.0]),
        ("ups", &[1.0, 0.5, 0.25, 0.1, 4.0]),
        ("hosts", &[10.0, 20.0, 50.0, 100.0, 200.0]),
        ("frames", &[100.0, 256.0, 1024.0]),
    ];
    let mut all = vec![[0.0; 5]];
    for (position, (key, default)) in keys.into_iter().enumerate() {
        let values = list(given, key, default);
        let with = |place: [f64; 5]| {
            values.clone().into_iter().map(move |value| {
                let mut place = place;
                place[position] = value;
                place
            })
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut given, mut rules) = (Given::new(), Vec::new());
    for argument in env::args().skip(1) {
        if let Some((key, values)) = argument.split_once('=') {
            given.insert(key.to_owned(), values.split(',').map(str::parse).collect::<Result<_, _>>()?);
        } else {
            rules.push(argument);
        }
    }
    println!("degree station up hosts frames: mean (greatest) of the bound, inputs per host and frame, for {rules:?}");
    for values in places(&given) {
        let place = Place::new(&given, values);
        print!("{values:>5?}:");
        for rule in &rules {
            let mut content = Content::new(place.frames * place.frame, place.frame)?;
            if rule != "link" {
                let slots: Vec<u64> = rule.split('/').map(str::parse).collect::<Result<_, _>>()?;
                SLOTS.set(slots.try_into().map_err(|_| "a rule is UPLOAD/PUSH/RECEIVE")?);
                content.rule = in_proportion;
            }
            let (mean, greatest, inputs) = place.measure(&content, figure(&given, "seeds", 3.0) as u64);
            print!("  {mean:.3} ({greatest:.3}) {inputs:.0}");
        }
        println!();
    }
    Ok(())
}
