//! The spread inside a site, every frame by the swarm machines, against the bounds of theory.
use branchline_simulations::capacity::{
    Neighbours,
    chunk::{self, Content},
    flow,
    local::{Card, LocalHost, LocalSite, Spread},
};

const MIB: u64 = 1 << 20;

/// Every frame of the site's payload, decided by the machines.
pub fn run(site: &LocalSite, payload: u64, frame: u64) -> Spread {
    chunk::spread(site, &Content::new(payload, frame).unwrap())
}

/// Hosts with the same card that are there from the start.
pub fn hosts(count: usize, card: Card) -> Vec<LocalHost> {
    vec![LocalHost::new(card, 0.0); count]
}

/// The fluid minimum in seconds of Kumar and Ross: a server, `n` hosts that send and receive at these rates, all in bits
/// and bits per second.
fn fluid_minimum(bits: f64, server: f64, n: f64, up: f64, down: f64) -> f64 {
    (bits / down).max(bits / server).max(n * bits / (server + n * up))
}

#[test]
fn the_formula_of_the_fluid_minimum_gives_the_figures_of_its_row() {
    let rows = [
        (500e3, 100.0, 18_750.0),
        (500e3, 1000.0, 28_301.9),
        (1e6, 100.0, 11_538.5),
        (1e6, 1000.0, 14_563.1),
        (2e6, 100.0, 7_500.0),
        (2e6, 1000.0, 7_500.0),
        // Nobody but the server sends: max(N F / u_S, F / d_min).
        (0.0, 100.0, 50_000.0),
        (0.0, 1000.0, 500_000.0),
        (0.0, 2.0, 7_500.0),
    ];
    for (up, hosts, expected) in rows {
        let found = fluid_minimum(15e9, 30e6, hosts, up, 2e6);
        assert!(
            (found - expected).abs() < 0.05,
            "{hosts} hosts up {up}: {found} s by the formula, {expected} in the row"
        );
    }
}

#[test]
fn the_fluid_minimum_is_approached_and_never_passed() {
    // Figures of Kumar and Ross: F = 15 Gbit, server 30 Mbit/s, downlinks 2 Mbit/s. The time is in proportion to F and
    // to the rates together, so that fewer bits over faster links show the same: 1024 frames of 128 KiB, and every rate
    // twenty times as high, because the machine takes who sends less than 256 KiB/s for silent.
    // N = 1000 has a test of its own.
    let cases = [(500e3, 100, 18_750.0), (1e6, 100, 11_538.5), (2e6, 100, 7_500.0)];
    let (frame, faster) = (128 << 10, 20.0);
    let payload = 1024 * frame;
    for (up, count, expected) in cases {
        let minimum = |bits: f64| fluid_minimum(bits, 30e6, count as f64, up, 2e6);
        assert!((minimum(15e9) / expected - 1.0).abs() < 1e-3);
        let bound = minimum(8.0 * payload as f64) / faster;
        let (server, card) = (Card::new(30e6 * faster, 30e6 * faster), Card::new(up * faster, 2e6 * faster));
        let site = LocalSite::prestaged(payload, frame, server, hosts(count, card));
        let seconds = run(&site, payload, frame).makespan_seconds();
        println!("{count} hosts up {up}: {seconds:.1} s, bound {bound:.1}: {:.3}", seconds / bound);
        assert!(seconds >= bound, "{count} hosts up {up}: {seconds} s, bound {bound}");
        assert!(seconds <= 1.10 * bound, "{count} hosts up {up}: {seconds} s, bound {bound}");
    }
}

#[test]
fn a_thousand_hosts_approach_the_fluid_minimum_too() {
    // The same rates as above and a quarter of the frames, and twenty neighbours instead of all, because with a full
    // view every frame is announced a thousand times a host. Twenty times 2 Mbit/s are more than the station sends, so
    // that the minimum can be met. The flow, which knows no neighbours, meets it but for the doubling rounds.
    let (frame, frames, faster, count) = (128 << 10, 256, 20.0, 1000);
    let payload = frames * frame;
    let flow_most = 1.0 + (count as f64).log2().floor() / frames as f64;
    for up in [500e3, 1e6, 2e6] {
        let bound = fluid_minimum(8.0 * payload as f64, 30e6, count as f64, up, 2e6) / faster;
        let (server, card) = (Card::new(30e6 * faster, 30e6 * faster), Card::new(up * faster, 2e6 * faster));
        let site = LocalSite::prestaged(payload, frame, server, hosts(count, card));
        let site = site.with_neighbours(Neighbours::Number(20));
        let chunk = run(&site, payload, frame).makespan_seconds() / bound;
        let flow = flow::spread(&site, 1.0).makespan_seconds() / bound;
        println!("{count} hosts up {up}: {chunk:.3} of the bound {bound:.2} s, as a flow {flow:.3}");
        assert!((1.0..=1.10).contains(&chunk), "{count} hosts up {up}: {chunk} of the bound {bound} s");
        assert!((1.0..=flow_most).contains(&flow), "{count} hosts up {up}: {flow} of the bound {bound} s as a flow");
    }
}

#[test]
fn a_flow_into_one_host_takes_as_long_as_its_card() {
    let (payload, frame) = (64 << 20, MIB / 4);
    for (server, down) in [(100e6, 100e6), (1000e6, 50e6)] {
        let bound = fluid_minimum(8.0 * payload as f64, server, 1.0, 100e6, down);
        let site = LocalSite::prestaged(payload, frame, Card::new(server, server), hosts(1, Card::new(100e6, down)));
        let (chunk, flow) = (run(&site, payload, frame), flow::spread(&site, 1.0));
        let [chunk, flow] = [chunk, flow].map(|spread| spread.makespan_seconds() / bound);
        println!("card of {down}: {chunk:.4} of the bound {bound:.3} s, as a flow {flow:.4}");
        assert!((1.0..1.001).contains(&chunk), "card of {down}: {chunk} of the bound {bound} s");
        assert!((1.0..1.001).contains(&flow), "card of {down}: {flow} of the bound {bound} s as a flow");
    }
}

#[test]
fn a_server_whose_hosts_hardly_send_takes_as_long_as_it_takes_alone() {
    // One server alone: max(N F / u_S, F / d_min). Hosts that send nothing at all would be asked all the same and be
    // taken for silent, which costs time that theory does not know; so they send just more than the 256 KiB/s of who is
    // not, 2.2 Mbit/s beside a station of 10 Gbit/s. Twenty of them add 0.44 % to it.
    let (frame, frames, count, server, up) = (64 << 10, 4096, 20, 10e9, 2.2e6);
    let payload = frames * frame;
    let bits = 8.0 * payload as f64;
    for (down, most) in [(1e9, 1.01), (100e6, 1.06)] {
        let alone = fluid_minimum(bits, server, count as f64, 0.0, down);
        assert!((alone - (count as f64 * bits / server).max(bits / down)).abs() < 1e-9);
        let bound = fluid_minimum(bits, server, count as f64, up, down);
        let site = LocalSite::prestaged(payload, frame, Card::new(server, server), hosts(count, Card::new(up, down)));
        let seconds = run(&site, payload, frame).makespan_seconds();
        println!("down {down}: {seconds:.3} s, alone {alone:.3}: {:.4}", seconds / alone);
        assert!(seconds >= bound && seconds >= 0.995 * alone, "down {down}: {seconds} s, alone {alone}, bound {bound}");
        assert!(seconds <= most * alone, "down {down}: {seconds} s, alone {alone}");
    }
}

#[test]
fn the_fluid_minimum_is_approached_with_256_frames_too() {
    // The fewest frames that the row asks for, beside a station at 15 times a host's downlink; and where the uplinks are so
    // slow that many have to send to one host at the same time.
    let (frame, count) = (MIB, 100);
    let payload = 256 * frame;
    for (up, station) in [(25e6, 1500e6), (50e6, 1500e6), (100e6, 1500e6), (10e6, 400e6)] {
        let bound = fluid_minimum(8.0 * payload as f64, station, count as f64, up, 100e6);
        let mut sum = 0.0;
        for seed in 0..4 {
            let (server, card) = (Card::new(station, station), Card::new(up, 100e6));
            let site = LocalSite::prestaged(payload, frame, server, hosts(count, card)).seeded(seed);
            let ratio = run(&site, payload, frame).makespan_seconds() / bound;
            assert!((1.0..=1.10).contains(&ratio), "{count} hosts up {up}, seed {seed}: {ratio} of the bound");
            sum += ratio / 4.0;
        }
        println!("{count} hosts, 256 frames, up {up}: {sum:.3} of the bound");
        assert!(sum <= 1.07, "{count} hosts up {up}: {sum} of the bound");
    }
}

#[test]
fn the_fast_half_of_a_site_is_done_soon_and_all_are_in_time() {
    // Half of the hosts at a fifth of the rate, a full view: the fast half within 1.1 times M + floor(log2 N) of its own,
    // all within 1.05 times the fluid minimum, which is what a slow card takes to receive everything.
    let (frame, frames, count, rate) = (64 << 10, 1024, 20, 100e6);
    let mut all = hosts(count, Card::new(rate, rate));
    all[..count / 2].fill(LocalHost::new(Card::new(rate / 5.0, rate / 5.0), 0.0));
    let site = LocalSite::prestaged(frames * frame, frame, Card::new(rate, rate), all);
    let spread = run(&site, frames * frame, frame);
    let round = 8.0 * frame as f64 / rate;
    let fast = spread.ready_seconds().skip(count / 2).map(Option::unwrap).fold(0.0, f64::max) / round;
    let bound = frames as f64 + ((count / 2) as f64).log2().floor();
    let minimum = 5.0 * frames as f64;
    println!("fast half {:.3}, all {:.3}", fast / bound, spread.makespan_seconds() / round / minimum);
    assert!(fast >= bound && fast <= 1.10 * bound, "{fast} rounds, bound {bound}");
    assert!(spread.makespan_seconds() / round >= minimum && spread.makespan_seconds() / round <= 1.05 * minimum);
}

#[test]
fn a_line_that_binds_is_kept_busy() {
    // The cards carry 100 Mbit/s. A line of as much binds no more than they do: the station has to send every frame as
    // fast as it comes, and what is lost is what the doubling loses where cards are the same both ways.
    for (line, expected, most) in [(1.544e6, 5564.0, 1.03), (10e6, 859.6, 1.03), (100e6, 86.5, 1.03)] {
        let (payload, rate, count) = (1 << 30, 100e6, 99);
        let card = Card::new(rate, rate);
        let bound = 8.0 * payload as f64 / line + ((count + 1) as f64).log2().ceil() * 8.0 * MIB as f64 / rate;
        assert!((bound / expected - 1.0).abs() < 1e-3, "{bound} s by the formula, {expected} s in the row");
        let site = LocalSite::prestaged(payload, MIB, card, hosts(count, card)).with_neighbours(Neighbours::Number(10));
        let spread = run(&site.behind_line(line, 0.0), payload, MIB);
        let seconds = spread.makespan_seconds();
        println!("line {line}: {seconds:.1} s, bound {bound:.1}: {:.4}", seconds / bound);
        assert_eq!(spread.wan_bytes, payload, "the payload crosses the line once");
        assert!(seconds >= bound && seconds <= most * bound, "line {line}: {seconds} s, bound {bound}");
    }
}

#[test]
fn a_site_is_never_faster_than_its_line_its_slowest_host_or_all_uplinks() {
    // T >= max(F/w, F/d_min, (N-1) F / sum u_i): one copy crosses the line, and the N nodes, of which the station is
    // one, send N-1 others. Each of the three binds in one case.
    let (frame, frames, count) = (MIB, 256, 99);
    let payload = frames * frame;
    let bits = 8.0 * payload as f64;
    let station = 100e6;
    for (line, up, slowest, most) in
        [(10e6, 100e6, 100e6, 1.05), (100e6, 100e6, 20e6, 1.05), (100e6, 25e6, 100e6, 1.10)]
    {
        let mut all = hosts(count, Card::new(up, 100e6));
        all[0] = LocalHost::new(Card::new(up, slowest), 0.0);
        let uplinks = station + count as f64 * up;
        let parts = [bits / line, bits / slowest, count as f64 * bits / uplinks];
        let bound = parts.into_iter().fold(0.0, f64::max);
        let site = LocalSite::prestaged(payload, frame, Card::new(station, station), all).behind_line(line, 0.0);
        let spread = run(&site, payload, frame);
        let ratio = spread.makespan_seconds() / bound;
        println!("line {line}, uplinks {up}, slowest {slowest}: {ratio:.3} of the bound {bound:.1} s, of {parts:.1?}");
        assert_eq!(spread.wan_bytes, payload, "one copy crosses the line");
        assert!((1.0..=most).contains(&ratio), "line {line}, uplinks {up}, slowest {slowest}: {ratio} of {bound} s");
    }
}

/// Hosts that lack something at a moment, where hosts come one after another and go so long after they are complete.
fn lacking_at(seconds: f64, lingers: f64) -> usize {
    // 4 frames of 1 MiB; the station sends 2 frames a second, a host 10; 4 hosts come in a second.
    let (frames, frame) = (4, MIB);
    let card = Card::new(8.0 * MIB as f64 * 10.0, 8.0 * MIB as f64 * 40.0);
    let station = Card::new(8.0 * MIB as f64 * 2.0, 8.0 * MIB as f64 * 40.0);
    let arrivals = (0..600).map(|number| LocalHost::new(card, f64::from(number) * 0.25)).collect();
    let site = LocalSite::prestaged(frames * frame, frame, station, arrivals).lingering(lingers).seeded(9);
    let spread = run(&site, frames * frame, frame);
    let arrived = (0..600).filter(|number| f64::from(*number) * 0.25 <= seconds);
    let ready: Vec<f64> = spread.ready_seconds().map(|at| at.unwrap_or(f64::INFINITY)).collect();
    arrived.filter(|number| ready[*number as usize] > seconds).count()
}

#[test]
fn without_lingering_hosts_pile_up_and_with_it_they_do_not() {
    // Hajek, Zhu: the station's rate (2 frames a second) is below the arrivals (4 hosts a second).
    let (early, late) = (lacking_at(50.0, 0.0), lacking_at(145.0, 0.0));
    let (early_linger, late_linger) = (lacking_at(50.0, 30.0), lacking_at(145.0, 30.0));
    println!("waiting at 50 s and 145 s: {early}, {late}; with lingering {early_linger}, {late_linger}");
    assert!(late_linger <= 20 && early_linger <= 20, "{early_linger}, {late_linger}");
    assert!(late > early && late > 5 * late_linger.max(1), "{early}, {late}, with lingering {late_linger}");
}
