//! The sessions of one station as M/M/c (Erlang C), and all hosts at once.
use branchline_simulations::capacity::{HostResult, Options, Scenario, simulate};

use super::{near, threads::Threads};

/// The probability of waiting with `c` servers and offered load `a`.
fn erlang_c(c: u32, a: f64) -> f64 {
    // The recursion of Erlang B keeps all terms small.
    let b = (1..=c).fold(1.0, |b, k| a * b / (f64::from(k) + a * b));
    let c = f64::from(c);
    c * b / (c - a * (1.0 - b))
}

/// The number of hosts, waiting or installing, that the steady state has or stays below for this share of the time.
fn hosts_in_system(c: u32, a: f64, share: f64) -> u32 {
    let weight = |before: f64, n: u32| before * a / f64::from(n.min(c));
    let weights = (1..=c).scan(1.0, |last, n| Some(std::mem::replace(last, weight(*last, n))));
    // Beyond `c` each number is a/c times as likely as the one before it.
    let full = (1..=c).fold(1.0, weight) / (1.0 - a / f64::from(c));
    let mut left = share * (weights.sum::<f64>() + full);
    let (mut n, mut here) = (0, 1.0);
    while left > here {
        left -= here;
        n += 1;
        here = weight(here, n);
    }
    n
}

/// Hosts of `sites` stations that come one after another, each with a service of mean 1 s; the payload takes no time.
fn queue_of(sites: u32, hosts: u32, c: u32, load: f64, install: &str, seed: u64) -> Vec<Vec<HostResult>> {
    queue_held_back(0.0, sites, hosts, (c, load), install, seed)
}

/// The same where nobody gets a slot for so many seconds.
fn queue_held_back(
    seconds: f64,
    sites: u32,
    hosts: u32,
    (c, load): (u32, f64),
    install: &str,
    seed: u64,
) -> Vec<Vec<HostResult>> {
    let text = format!(
        "seed = {seed}\nresolution = \"flow\"\n[payload]\nsize_bytes = 1\n[headquarters]\nuplink_bits_per_second = 10e9\n[[sites]]\n\
         count = {sites}\nhosts = {hosts}\nprestaged = true\nwan_bits_per_second = 1e9\nlan_bits_per_second = 1e13\n\
         sessions_limit = {c}\narrivals = {{ poisson_per_second = {load} }}\ninstall_seconds = {install}\n\
         [rollout]\nwindows = [{{ opens_seconds = {seconds}, lasts_seconds = 1e8, every_seconds = 1e9 }}]\n"
    );
    let options = Options { calibration_sites: 0, lifts: false, hosts: true, series_moments: 2 };
    let hosts_of = simulate(&Scenario::from_toml(&text).unwrap(), &options, &Threads(2), &|_| {}).unwrap().hosts;
    hosts_of.chunks(hosts as usize).map(<[HostResult]>::to_vec).collect()
}

fn wait(host: &HostResult) -> f64 {
    host.started_seconds.unwrap() - host.ready_seconds.unwrap()
}

/// Mean and half the width of the 95 % confidence interval over independent stations.
fn interval(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, 1.98 * (variance / n).sqrt())
}

#[test]
fn the_formula_gives_the_figures_of_the_book() {
    near(erlang_c(3, 2.0), 4.0 / 9.0, 1e-12);
    near(erlang_c(10, 6.0), 0.1013, 1e-3);
    for (load, waits, wait) in [(80.0, 0.0196, 0.00098), (95.0, 0.506, 0.101), (99.0, 0.883, 0.883)] {
        near(erlang_c(100, load), waits, 0.01);
        near(erlang_c(100, load) / (100.0 - load), wait, 0.01);
    }
}

#[test]
fn sessions_wait_as_erlang_c_has_it() {
    // 15.6 service times are one relaxation time at this load: 100 s of warm-up are more than six.
    let (warm_up, sites, hosts) = (100.0, 50, 100_000);
    let (mut waits, mut shares) = (Vec::new(), Vec::new());
    for seed in 1..=2 {
        for hosts in queue_of(sites, hosts, 100, 95.0, "{ exponential_mean = 1 }", seed) {
            let steady: Vec<f64> =
                hosts.iter().filter(|host| host.arrived_seconds.unwrap() > warm_up).map(wait).collect();
            let n = steady.len() as f64;
            waits.push(steady.iter().sum::<f64>() / n);
            shares.push(steady.iter().filter(|wait| **wait > 0.0).count() as f64 / n);
        }
    }
    let ((wait, wait_half), (share, share_half)) = (interval(&waits), interval(&shares));
    assert!(wait_half <= 0.05 * 0.1013 && share_half <= 0.05 * 0.506, "{wait} +- {wait_half}, {share} +- {share_half}");
    assert!((wait - 0.1013).abs() <= wait_half, "{wait} +- {wait_half}");
    assert!((share - 0.506).abs() <= share_half, "{share} +- {share_half}");
}

/// Mean wait in seconds, and share that waited, of the hosts of one station that came after `warm_up`.
fn steady(hosts: &[HostResult], warm_up: f64) -> (f64, f64) {
    let (mut hosts_in, mut waited, mut sum) = (0_u32, 0_u32, 0.0);
    for wait in hosts.iter().filter(|host| host.arrived_seconds.unwrap() > warm_up).map(wait) {
        hosts_in += 1;
        waited += u32::from(wait > 0.0);
        sum += wait;
    }
    (sum / f64::from(hosts_in), f64::from(waited) / f64::from(hosts_in))
}

/// Asserts that the stations' mean wait, and the share that waited, are those of Erlang C, as their row has them. The
/// tests here compare ten figures, so that two changes of the seeds in five put one of them outside its 95 % interval:
/// three standard errors are allowed, and have to be no more than `widest` of the figures themselves.
fn assert_erlang_c((c, load): (u32, f64), figures: (f64, f64), stations: &[(f64, f64)], widest: (f64, f64)) {
    let of = |figure: fn(&(f64, f64)) -> f64| interval(&stations.iter().map(figure).collect::<Vec<_>>());
    let formula = (erlang_c(c, load) / (f64::from(c) - load), erlang_c(c, load));
    let parts = [
        ("wait", of(|station| station.0), figures.0, formula.0, widest.0),
        ("share", of(|station| station.1), figures.1, formula.1, widest.1),
    ];
    for (what, (mean, half), figure, formula, widest) in parts {
        near(formula, figure, 0.01);
        let allowed = 3.0 / 1.98 * half;
        println!("C({c}, {load}) {what}: {mean:.6} +- {allowed:.6}, formula {formula:.6}");
        assert!(allowed <= widest * formula, "C({c}, {load}) {what}: {mean} +- {allowed} says too little of {formula}");
        assert!((mean - formula).abs() <= allowed, "C({c}, {load}) {what}: {mean} +- {allowed}, formula {formula}");
    }
}

#[test]
fn sessions_that_are_seldom_all_taken_wait_as_erlang_c_has_it() {
    // The relaxation time, 1 / (sqrt c - sqrt a)^2 service times, is 0.9, 9.9 and 2.0: the warm-up is ten of them or
    // more. At a load of 80 of 100 one host in fifty waits, and those who do come in clusters: that makes its interval
    // the widest.
    let rows = [
        (100, 80.0, (0.00098, 0.0196), 20.0, 150, (0.10, 0.06)),
        (3, 2.0, (4.0 / 9.0, 4.0 / 9.0), 100.0, 40, (0.03, 0.02)),
        (10, 6.0, (0.1013 / 4.0, 0.1013), 40.0, 40, (0.04, 0.02)),
    ];
    for (c, load, figures, warm_up, sites, widest) in rows {
        let mut stations = Vec::new();
        for seed in 0..sites / 10 {
            let hosts = queue_of(10, 100_000, c, load, "{ exponential_mean = 1 }", seed);
            stations.extend(hosts.iter().map(|hosts| steady(hosts, warm_up)));
        }
        assert_erlang_c((c, load), figures, &stations, widest);
    }
}

#[test]
fn sessions_that_are_nearly_always_all_taken_wait_as_erlang_c_has_it() {
    // At a load of 99 the relaxation time is 398 service times, and a station has 100,000 hosts at most, which come in
    // 1010: begun with nobody, it would be as theory has it only when the last hosts come. So each station begins with
    // as many hosts as a moment of the steady state has, because nobody gets a slot until so many are expected to have
    // come. Of a hundred stations, each four begin with another of 25 equally likely numbers, and all go on for a hundred
    // service times before anything is measured. The 25 numbers have a mean queue that is 2 % short, as they leave its
    // longest out. Since a station of 900 service times is little more than one independent look, the mean wait is
    // known to a fifth, the share that waits to three hundredths.
    let (c, load, strata) = (100, 99.0, 25_u32);
    let mut stations = Vec::new();
    for stratum in 0..strata {
        let held_back = f64::from(hosts_in_system(c, load, (f64::from(stratum) + 0.5) / f64::from(strata))) / load;
        let hosts = queue_held_back(held_back, 4, 100_000, (c, load), "{ exponential_mean = 1 }", u64::from(stratum));
        stations.extend(hosts.iter().map(|hosts| steady(hosts, held_back + 100.0)));
    }
    assert_erlang_c((c, load), (0.883, 0.883), &stations, (0.20, 0.03));
}

#[test]
fn sessions_of_fixed_length_wait_about_half_as_long() {
    let hosts = queue_of(40, 100_000, 100, 95.0, "{ fixed = 1 }", 3);
    let mean = |hosts: &Vec<HostResult>| {
        let steady: Vec<f64> = hosts.iter().filter(|host| host.arrived_seconds.unwrap() > 100.0).map(wait).collect();
        steady.iter().sum::<f64>() / steady.len() as f64
    };
    let (wait, half) = interval(&hosts.iter().map(mean).collect::<Vec<_>>());
    assert!(half < 0.05 * 0.0536 && (wait - 0.0536).abs() <= half + 0.0001, "{wait} +- {half}");
}

#[test]
fn all_at_once_take_as_many_turns_as_it_needs() {
    let run = |hosts: u32, c: u32, install: &str, sites: u32| {
        let text = format!(
            "resolution = \"flow\"\n[payload]\nsize_bytes = 1\n[headquarters]\nuplink_bits_per_second = 10e9\n[[sites]]\ncount = {sites}\n\
             hosts = {hosts}\nprestaged = true\nwan_bits_per_second = 1e9\nlan_bits_per_second = 1e13\nsessions_limit = {c}\n\
             install_seconds = {install}\n"
        );
        let options = Options { calibration_sites: 0, lifts: false, hosts: false, series_moments: 2 };
        simulate(&Scenario::from_toml(&text).unwrap(), &options, &Threads(2), &|_| {}).unwrap()
    };
    for (hosts, c) in [(1000_u32, 100_u32), (1001, 100), (99, 100), (7, 3)] {
        let (found, least) =
            (run(hosts, c, "{ fixed = 60 }", 1).outcome.makespan_seconds, 60.0 * f64::from(hosts.div_ceil(c)));
        assert!(found >= least && found <= 1.01 * least, "{hosts} hosts, {c} at a time: {found}, at least {least}");
    }
    // Exponential: ((N - c) / c + H_c) S.
    let sites = run(1000, 100, "{ exponential_mean = 1 }", 400).sites;
    let (mean, half) = interval(&sites.iter().map(|site| site.makespan_seconds).collect::<Vec<_>>());
    let expected = 9.0 + (1..=100).map(|k| 1.0 / f64::from(k)).sum::<f64>();
    assert!((expected - 14.19).abs() < 0.01 && half < 0.02 * expected, "{expected} {half}");
    assert!((mean - expected).abs() <= 1.5 * half, "{mean} +- {half}, expected {expected}");
}
