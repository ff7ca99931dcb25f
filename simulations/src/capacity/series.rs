//! Figures over time.
use super::{
    combine::bits,
    engine::Rollout,
    lift::makespan,
    outcome::Series,
    plan::Plan,
    units::{NEVER, Time, Volume, bits_per_second, seconds},
};

/// The figures at `count` moments from 0 to the makespan.
pub(crate) fn series(plan: &Plan<'_>, rollout: &Rollout, count: u32) -> Series {
    let end = makespan(rollout).max(1);
    let moments: Vec<Time> =
        (0..count).map(|moment| (u128::from(end) * u128::from(moment) / u128::from(count - 1)) as Time).collect();
    let turns = || rollout.sites.iter().flat_map(|site| site.turns.iter().zip(&site.spread.ready));
    let installing = || turns().filter(|(turn, _)| turn.started != NEVER);
    let completions = rollout.sites.iter().flat_map(|site| site.completions());
    Series {
        at_seconds: moments.iter().map(|at| seconds(*at)).collect(),
        completed_hosts: counted(&moments, completions.map(|at| (at, NEVER))),
        headquarters_bits_per_second: sent(rollout, &moments),
        wan_capacity_bits_per_second: capacity(plan, rollout, &moments),
        queue_length: counted(&moments, turns().map(|(turn, ready)| (*ready, turn.started.min(turn.gone)))),
        wait_seconds: waits(&moments, turns().map(|(turn, ready)| (*ready, turn.started))),
        slots_held: counted(&moments, installing().map(|(turn, _)| (turn.started, turn.ended.min(turn.gone)))),
    }
}

/// How many of the times, each from a moment until before another, hold at each moment.
fn counted(moments: &[Time], times: impl Iterator<Item = (Time, Time)>) -> Vec<u64> {
    let mut changes = vec![0_i64; moments.len() + 1];
    for (from, until) in times {
        let (first, end) = (index_of(moments, from), index_of(moments, until));
        changes[first] += 1;
        changes[end] -= 1;
    }
    let mut now = 0;
    let sum = |change: &i64| {
        now += change;
        now as u64
    };
    changes[..moments.len()].iter().map(sum).collect()
}

/// The mean wait of those whose wait ended since the moment before; nothing where nobody's did.
fn waits(moments: &[Time], times: impl Iterator<Item = (Time, Time)>) -> Vec<f64> {
    let mut sums = vec![(0_u128, 0_u64); moments.len()];
    for (from, until) in times.filter(|(_, until)| *until != NEVER) {
        if let Some((wait, count)) = sums.get_mut(index_of(moments, until)) {
            (*wait, *count) = (*wait + u128::from(until - from), *count + 1);
        }
    }
    sums.iter().map(|(wait, count)| *wait as f64 / 1e9 / (*count).max(1) as f64).collect()
}

/// The first moment not before `at`.
fn index_of(moments: &[Time], at: Time) -> usize {
    moments.partition_point(|moment| *moment < at)
}

fn sent(rollout: &Rollout, moments: &[Time]) -> Vec<f64> {
    let total = |at: &Time| rollout.lines.iter().map(|line| line.volume_at(*at)).sum::<Volume>();
    let volumes: Vec<Volume> = moments.iter().map(total).collect();
    means(moments, |index| bits(volumes[index] - volumes[index - 1]))
}

/// What the lines of all sites that fetch could carry.
fn capacity(plan: &Plan<'_>, rollout: &Rollout, moments: &[Time]) -> Vec<f64> {
    let mut sums = vec![0.0; moments.len()];
    for (site, line) in plan.sites.iter().zip(&rollout.lines) {
        let rate = bits_per_second(site.limit);
        for piece in line.pieces() {
            let first = index_of(moments, piece.from).max(1);
            for index in first..=index_of(moments, piece.until).min(moments.len() - 1) {
                let overlap = piece.until.min(moments[index]).saturating_sub(piece.from.max(moments[index - 1]));
                sums[index] += rate * seconds(overlap);
            }
        }
    }
    means(moments, |index| sums[index])
}

/// What happened between two moments, per second; nothing at the first.
fn means(moments: &[Time], amount: impl Fn(usize) -> f64) -> Vec<f64> {
    let mean = |index: usize| match index {
        0 => 0.0,
        _ => amount(index) / seconds((moments[index] - moments[index - 1]).max(1)),
    };
    (0..moments.len()).map(mean).collect()
}
