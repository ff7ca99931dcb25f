//! An outcome to show, made by hand so that no change of the simulator changes the pictures of these tests.
use branchline_simulations::capacity::{
    AddressSummary, BindingTerm, Bytes, Calibration, Completion, Lift, Outcome, Preset, Queue, Resolution, Run,
    Scenario, Series, Simulated, SiteResult, SiteSummary, Wave,
};

/// Ten restaurants of the preset, five in each of two entries.
pub fn restaurants() -> (Scenario, Simulated) {
    let mut scenario = Scenario::from_toml(Preset::named("restaurants").unwrap().text).unwrap();
    scenario.sites[0].count = 5;
    scenario.rollout.waves = vec![0.2, 1.0];
    scenario.sites.push(scenario.sites[0].clone());
    let lift = |term, makespan_seconds: f64| Lift { term, makespan_seconds, gain_seconds: 859.6 - makespan_seconds };
    let simulated = Simulated {
        outcome: outcome(),
        series: series(),
        lifts: vec![
            lift(BindingTerm::Wan, 250.0),
            lift(BindingTerm::InstallTime, 640.0),
            lift(BindingTerm::SessionLimit, 700.0),
            lift(BindingTerm::Lan, 859.0),
            lift(BindingTerm::HeadquartersUplink, 859.6),
            lift(BindingTerm::Stragglers, 859.6),
        ],
        calibration: None,
        sites: (0..10).map(site).collect(),
        waves: vec![Wave { sites: 2, began_seconds: Some(0.0) }, Wave { sites: 8, began_seconds: Some(400.0) }],
        hosts: Vec::new(),
    };
    (scenario, simulated)
}

pub fn calibration() -> Calibration {
    Calibration {
        fitted_sites: 8,
        measured_sites: 8,
        stretch: vec![1.02, 1.0],
        error_mean: -0.0031,
        error_half_width: 0.0082,
        error_max: 0.019,
    }
}

fn outcome() -> Outcome {
    let entry =
        |rate_bits_per_second, makespan_seconds| SiteSummary { hosts: 15, rate_bits_per_second, makespan_seconds };
    Outcome {
        makespan_seconds: 859.6,
        completed_hosts: 30,
        completion_seconds: Completion { p50: 500.0, p95: 840.25, p99: 859.6, last: 859.6 },
        bytes: Bytes { headquarters: 5_242_880_000, wan: 5_251_000_000, lan: 15_728_640_000 },
        wan_ratio: 1.0,
        queue: Queue { length_max: 2, wait_mean_seconds: 89.5, waited_share: 0.667 },
        sites: vec![entry(9.4e6, 859.6), entry(19.8e6, 620.0)],
        addresses: AddressSummary { needed: 30, forecast: 30, beyond_forecast: 0, granted: 2560, batches: 10 },
        binding_term: BindingTerm::Wan,
        resolution: Resolution::Chunk,
        inputs: 123_456,
        run: Run { wall_seconds: 0.25, peak_memory_bytes: 31_457_280 },
    }
}

fn series() -> Series {
    let moments = 11_u32;
    let at = |of: fn(f64) -> f64| (0..moments).map(|step| of(f64::from(step))).collect::<Vec<f64>>();
    let whole = |of: fn(u64) -> u64| (0..u64::from(moments)).map(of).collect::<Vec<u64>>();
    Series {
        at_seconds: at(|step| step * 85.96),
        completed_hosts: whole(|step| step * 3),
        headquarters_bits_per_second: at(|step| if step < 6.0 { 60e6 } else { 10e6 }),
        wan_capacity_bits_per_second: at(|step| if step < 6.0 { 62e6 } else { 10e6 }),
        queue_length: whole(|step| if step > 4 { 10 - step } else { 0 }),
        wait_seconds: at(|step| if step > 4.0 { 20.0 * step } else { 0.0 }),
        slots_held: whole(|step| if step > 3 { 10 - step } else { 0 }),
    }
}

fn site(index: u32) -> SiteResult {
    let began = if index < 2 { 0.0 } else { 400.0 };
    SiteResult {
        entry: index / 5,
        hosts: 3,
        completed: 3,
        wave: u32::from(index >= 2),
        began_seconds: began,
        fetched_seconds: began + 100.0 + 10.0 * f64::from(index),
        spread_seconds: began + 110.0 + 10.0 * f64::from(index),
        makespan_seconds: began + 379.6 + 10.0 * f64::from(index.min(8)),
        headquarters_bytes: 524_288_000,
        lan_bytes: 1_572_864_000,
        queue_length_max: 2,
        address_batches: 1,
    }
}
