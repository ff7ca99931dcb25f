//! Inputs per second of the swarm machine on one core, and how near it comes to the bound (a benchmark, no test).
//!
//! `cargo run --release -p branchline-simulations --example swarm_inputs [-- HOSTS FRAMES DEGREE UPLOAD_SLOTS PUSH_SLOTS]`
//!
//! A star is run once and every input of every machine recorded; then fresh machines are fed the same inputs, so that
//! the time is that of the machines alone: input, all outputs, next deadline.
#![forbid(unsafe_code)]
use std::{env, error::Error, hint::black_box, mem::size_of, time::Instant};

use branchline_protocol::{
    machine::Machine,
    swarm::{Swarm, SwarmInput, SwarmOutput, Tuning},
};
use branchline_simulations::star::{Recorded, Star, StarScenario, machines};

fn feed(machines: &mut [Swarm], record: Vec<Recorded>) -> u64 {
    let mut outputs = 0;
    for (node, now, input) in record {
        let machine = &mut machines[node as usize];
        machine.handle(now, input);
        while let Some(output) = machine.poll_output() {
            black_box(&output);
            outputs += 1;
        }
        black_box(machine.poll_timeout());
    }
    outputs
}

fn main() -> Result<(), Box<dyn Error>> {
    let figures: Vec<usize> = env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let figure = |position: usize, default: usize| figures.get(position).copied().unwrap_or(default);
    let (hosts, frames, degree) = (figure(0, 100), u32::try_from(figure(1, 256))?, figure(2, 10));
    let tuning = Tuning {
        upload_slots: u16::try_from(figure(3, 1))?,
        push_slots: u16::try_from(figure(4, 1))?,
        ..Tuning::default()
    };
    println!("input {} bytes, output {} bytes", size_of::<SwarmInput>(), size_of::<SwarmOutput>());
    let scenario = StarScenario { tuning, ..StarScenario::equal(1, hosts, frames, degree) };
    let mut star = Star::new(scenario.clone(), true)?;
    let report = star.run();
    let rounds = report.makespan_microseconds() as f64 / scenario.frame_microseconds as f64;
    let bound = scenario.bound_rounds();
    println!("{hosts} hosts, {frames} frames, degree {degree}: {} of them done", report.done_microseconds.len());
    println!("  {rounds:.1} rounds, bound {bound}, ratio {:.3}", rounds / bound as f64);
    println!("  the seed sent {} frames, {} duplicates", report.seed_frames, report.duplicates);
    let record = star.record.take().unwrap_or_default();
    let inputs = record.len();
    println!("  {inputs} inputs, {:.1} per host and frame", inputs as f64 / hosts as f64 / f64::from(frames));
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let mut fresh = machines(&scenario);
        let again = record.clone();
        let began = Instant::now();
        black_box(feed(&mut fresh, again));
        best = best.min(began.elapsed().as_secs_f64());
    }
    println!(
        "  {:.2} million inputs per second ({:.0} ns each)",
        inputs as f64 / best / 1e6,
        best * 1e9 / inputs as f64
    );
    Ok(())
}
