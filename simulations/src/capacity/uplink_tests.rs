use proptest::prelude::*;

use super::{
    curve::Curve,
    maxmin::max_min_shares,
    units::{NEVER, Rate, SECOND, Time, Volume, bits_per_second, rate, volume},
    uplink::{Demand, share},
};

fn demand(at: Time, bits: f64, limit: f64) -> Demand {
    Demand { at, volume: (bits * 1e12) as Volume, limit: rate(limit), pause: None }
}

fn seconds_of(curve: &Curve) -> f64 {
    curve.done as f64 / 1e9
}

fn rate_at(curve: &Curve, at: Time) -> f64 {
    (curve.volume_at(at + SECOND) - curve.volume_at(at)) as f64 / 1e12
}

#[test]
fn the_levels_and_ends_of_the_book_are_met() {
    let limits = [1.544e6, 8e6, 10e6, 20e6, 50e6, 100e6];
    let demands: Vec<Demand> = limits.iter().map(|limit| demand(0, 8e9, *limit)).collect();
    let curves = share(rate(100e6), None, &demands);
    let rates: Vec<f64> = curves.iter().map(|curve| rate_at(curve, 0)).collect();
    for (found, expected) in rates.iter().zip([1.544e6, 8e6, 10e6, 20e6, 30.228e6, 30.228e6]) {
        assert!((found - expected).abs() < 1.0, "{rates:?}");
    }
    let ends: Vec<f64> = curves.iter().map(seconds_of).collect();
    for (found, expected) in ends.iter().zip([5181.347, 1000.0, 800.0, 400.0, 264.655, 264.655]) {
        assert!((found - expected).abs() < 0.01, "{ends:?}");
    }
}

#[test]
fn places_are_given_in_the_order_of_asking() {
    let demands = [demand(2, 8e6, 8e6), demand(1, 8e6, 8e6), demand(1, 16e6, 8e6), demand(NEVER, 8e6, 8e6)];
    let curves = share(rate(1e9), Some(2), &demands);
    let times: Vec<(Time, Time)> = curves.iter().map(|curve| (curve.began, curve.done)).collect();
    assert_eq!(times, [(SECOND + 1, 2 * SECOND + 1), (1, SECOND + 1), (1, 2 * SECOND + 1), (NEVER, NEVER)]);
}

#[test]
fn a_pause_leaves_the_rest_for_later() {
    let paused = Demand { pause: Some((SECOND, 5 * SECOND)), ..demand(0, 16e6, 8e6) };
    let curves = share(rate(1e9), None, std::slice::from_ref(&paused));
    assert_eq!(curves[0].done, 6 * SECOND);
    assert_eq!(curves[0].time_of(volume(1_000_000)), SECOND);
    assert_eq!(curves[0].volume_at(3 * SECOND), volume(1_000_000));
    assert_eq!(curves[0].transfer(5 * SECOND, volume(500_000)), 5 * SECOND + SECOND / 2);
}

#[derive(Debug, Clone)]
struct Case {
    capacity: Rate,
    demands: Vec<Demand>,
}

fn cases() -> impl Strategy<Value = Case> {
    let demand = (0_u64..40, 1_u64..5_000_000, 1_000_u64..3_000_000, prop::option::of((0_u64..60, 1_u64..30)));
    let demand = demand.prop_map(|(at, bytes, limit, pause)| Demand {
        at: at * SECOND,
        volume: volume(bytes),
        limit,
        pause: pause.map(|(from, lasts)| (from * SECOND, (from + lasts) * SECOND)),
    });
    (1_000_u64..20_000_000, prop::collection::vec(demand, 1..25))
        .prop_map(|(capacity, demands)| Case { capacity, demands })
}

/// Who fetches at `at`.
fn fetches(demand: &Demand, curve: &Curve, at: Time) -> bool {
    let paused = demand.pause.is_some_and(|(from, until)| (from..until).contains(&at));
    curve.began <= at && at < curve.done && !paused
}

proptest! {
    #[test]
    fn at_any_moment_the_shares_are_those_of_the_exact_solver(case in cases()) {
        let curves = share(case.capacity, None, &case.demands);
        // Between two events nothing changes: the middle of each span stands for all of it.
        let mut events: Vec<Time> = curves.iter().flat_map(|curve| curve.pieces().iter().flat_map(|p| [p.from, p.until])).collect();
        events.sort_unstable();
        events.dedup();
        for span in events.windows(2).filter(|span| span[1] - span[0] > 1_000_000) {
            let middle = span[0] + (span[1] - span[0]) / 2;
            let open: Vec<usize> = (0..curves.len()).filter(|site| fetches(&case.demands[*site], &curves[*site], middle)).collect();
            let mut capacities = vec![case.capacity];
            capacities.extend(open.iter().map(|site| case.demands[*site].limit));
            let flows: Vec<Vec<usize>> = (0..open.len()).map(|flow| vec![0, flow + 1]).collect();
            let exact = max_min_shares(&capacities, &flows);
            let width = span[1] - span[0];
            for (site, share) in open.iter().zip(exact) {
                let got = curves[*site].volume_at(span[1]) - curves[*site].volume_at(span[0]);
                let found = got as f64 / width as f64;
                // The fast solver gives thousandths of a bit per second, at least one.
                let allowed = 2.0 + share.value() * 2e-6;
                prop_assert!((found - share.value()).abs() <= allowed, "site {site}: {found} for {}", share.value());
            }
        }
    }

    #[test]
    fn everything_crosses_and_the_uplink_is_never_overdrawn(case in cases(), places in 1_u64..6) {
        let curves = share(case.capacity, Some(places), &case.demands);
        for (curve, demand) in curves.iter().zip(&case.demands) {
            prop_assert!(curve.done != NEVER && curve.began >= demand.at);
            prop_assert_eq!(curve.volume_at(curve.done), demand.volume);
            for part in 0..=8 {
                let wanted = demand.volume * part / 8;
                let at = curve.time_of(wanted);
                prop_assert!(curve.volume_at(at) >= wanted.min(demand.volume), "{wanted} at {at}");
            }
        }
        for second in 0..200 {
            let (from, until) = (second * SECOND, (second + 1) * SECOND);
            let sent: Volume = curves.iter().map(|curve| curve.volume_at(until) - curve.volume_at(from)).sum();
            let most = Volume::from(case.capacity) * Volume::from(SECOND);
            // A level is at least one thousandth of a bit per second, and an end is rounded up to a nanosecond.
            prop_assert!(sent <= most + Volume::from(case.capacity) * 64 + 25 * Volume::from(SECOND), "{sent} of {most}");
            let busy = case.demands.iter().zip(&curves).filter(|(demand, curve)| curve.began < until && curve.done > from && demand.pause.is_none()).count();
            let paused = case.demands.iter().filter(|demand| demand.pause.is_some()).count();
            let ending = curves.iter().filter(|curve| (from..=until).contains(&curve.done)).count();
            prop_assert!(busy <= places as usize + ending + paused);
        }
    }
}

#[test]
fn the_exact_solver_knows_the_figures_of_the_book() {
    let values = |capacities: &[u64], flows: &[Vec<usize>]| -> Vec<f64> {
        max_min_shares(capacities, flows).into_iter().map(|share| share.value()).collect()
    };
    // Uplinks A, B, downlinks X, Y; flows AX, AY, BX, BY.
    assert_eq!(values(&[10, 20, 15, 15], &[vec![0, 2], vec![0, 3], vec![1, 2], vec![1, 3]]), [5.0, 5.0, 10.0, 10.0]);
    assert_eq!(values(&[2, 10, 10, 15], &[vec![0, 3], vec![1, 3], vec![2, 3]]), [2.0, 6.5, 6.5]);
    let sites = [50_000, 1_544, 8_000, 10_000, 20_000, 50_000, 100_000];
    let flows: Vec<Vec<usize>> = (1..7).map(|site| vec![0, site]).collect();
    assert_eq!(values(&sites, &flows), [1544.0, 8000.0, 10000.0, 10152.0, 10152.0, 10152.0]);
    assert_eq!(max_min_shares(&[10], &[vec![0], vec![0], vec![0]])[0].floor(), 3);
    assert_eq!(bits_per_second(10_152), 10.152);
}
