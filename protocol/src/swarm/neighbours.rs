//! Who is whose neighbour: a graph of small degree that every member computes for itself.
//!
//! The members stand on `degree / 2` rings, on each at a place that follows from the site's seed, the ring's number and
//! their identity; a member's neighbours are those before and after it on every ring. The union of random rings is a
//! random graph of even degree: it is connected, its diameter grows with the logarithm of the members, and rarest first
//! over ten of its neighbours spreads within a tenth of the bound (measured by `simulations/tests/spread.rs`). Who joins
//! or leaves changes two neighbours on each ring, and two members whose lists of members differ a little compute almost
//! the same graph.
//!
//! In a small site two members are often next to each other on several rings, so that one has six neighbours where
//! another has ten: of twenty the average has eight. Whoever has few, or few fast ones, is late. So those that lack
//! neighbours are linked with each other, on rings of their own; who joins or leaves then changes up to a tenth of the links (`docs/src/decisions/spread-tuning.md`).
use crate::ids::{Hash, NodeId};

/// Up to so many members, who lacks neighbours is given more. In larger sites few lack one, and the whole graph need not
/// be known to know one's neighbours.
const FILLED_MEMBERS_MAX: usize = 256;
/// Rings on which those that lack neighbours are linked.
const FILLING_RINGS: usize = 8;

fn place(seed: &Hash, ring: usize, node: NodeId) -> (u64, NodeId) {
    let mut bytes = [0; 72];
    bytes[..32].copy_from_slice(&seed.0);
    bytes[32..40].copy_from_slice(&(ring as u64).to_le_bytes());
    bytes[40..].copy_from_slice(&node.0);
    let hash = Hash::in_domain("branchline ring 1", &bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.0[..8]);
    (u64::from_le_bytes(first), node)
}

/// The neighbours of `own` among `members`, in ascending order and without `own` itself. At most `degree`, and at least
/// two where there are two others; everybody where there are no more than `degree` others.
///
/// `members` may come in any order and may hold `own` or not; time grows with members times degree.
pub fn neighbours_of(own: NodeId, members: &[NodeId], seed: &Hash, degree: usize) -> Vec<NodeId> {
    let mut others: Vec<NodeId> = members.iter().copied().filter(|member| *member != own).collect();
    others.sort_unstable();
    others.dedup();
    if others.len() <= degree {
        return others;
    }
    if others.len() < FILLED_MEMBERS_MAX {
        others.push(own);
        let of_own = neighbours(&others, seed, degree).pop().unwrap_or_default();
        return of_own.into_iter().filter_map(|index| others.get(index as usize).copied()).collect();
    }
    let mut chosen = Vec::with_capacity(degree);
    for ring in 0..degree.div_ceil(2) {
        let here = place(seed, ring, own);
        let places: Vec<_> = others.iter().map(|other| place(seed, ring, *other)).collect();
        let before = places.iter().filter(|place| **place < here).max().or_else(|| places.iter().max());
        let after = places.iter().filter(|place| **place > here).min().or_else(|| places.iter().min());
        chosen.extend(before.into_iter().chain(after).map(|(_, node)| *node));
    }
    chosen.truncate(degree);
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// The same for all members at once, as indexes into `members`, which holds no one twice: for worlds that know everybody.
pub fn neighbours(members: &[NodeId], seed: &Hash, degree: usize) -> Vec<Vec<u32>> {
    let count = members.len();
    if count <= degree + 1 {
        let all = |own: usize| (0..count as u32).filter(|other| *other as usize != own).collect();
        return (0..count).map(all).collect();
    }
    let mut chosen: Vec<Vec<u32>> = vec![Vec::with_capacity(degree); count];
    for ring in 0..degree.div_ceil(2) {
        let mut circle: Vec<_> =
            members.iter().enumerate().map(|(index, node)| (place(seed, ring, *node), index)).collect();
        circle.sort_unstable();
        for at in 0..count {
            let (before, after) = (circle[(at + count - 1) % count].1, circle[(at + 1) % count].1);
            chosen[circle[at].1].extend([before as u32, after as u32]);
        }
    }
    for list in &mut chosen {
        list.truncate(degree);
        list.sort_unstable();
        list.dedup();
    }
    if count <= FILLED_MEMBERS_MAX {
        fill(members, seed, degree, &mut chosen);
    }
    for list in &mut chosen {
        list.sort_unstable_by_key(|index| members[*index as usize]);
    }
    chosen
}

/// Links those that have fewer neighbours than `degree` with each other.
fn fill(members: &[NodeId], seed: &Hash, degree: usize, chosen: &mut [Vec<u32>]) {
    for ring in 0..FILLING_RINGS {
        let lacking = (0..members.len()).filter(|index| chosen[*index].len() < degree);
        let mut circle: Vec<_> =
            lacking.map(|index| (place(seed, degree.div_ceil(2) + ring, members[index]), index)).collect();
        circle.sort_unstable();
        for at in 0..circle.len() {
            let (one, other) = (circle[at].1, circle[(at + 1) % circle.len()].1);
            let have_room = chosen[one].len() < degree && chosen[other].len() < degree;
            // Of an odd degree the last ring leads one way only, so that one may know the other already and not be known.
            let strangers = !chosen[one].contains(&(other as u32)) && !chosen[other].contains(&(one as u32));
            if one != other && have_room && strangers {
                chosen[one].push(other as u32);
                chosen[other].push(one as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn members(count: usize) -> Vec<NodeId> {
        (0..count).map(|number| NodeId(Hash::in_domain("member", &number.to_le_bytes()).0)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: crate::property_tests::cases(32), ..ProptestConfig::default() })]

        #[test]
        fn everybody_computes_the_same_connected_graph_of_small_degree(count in 2usize..120, seed: [u8; 32], half in 1usize..6) {
            let (members, seed, degree) = (members(count), Hash(seed), 2 * half);
            let graph = neighbours(&members, &seed, degree);
            for (own, list) in graph.iter().enumerate() {
                let ids: Vec<NodeId> = list.iter().map(|index| members[*index as usize]).collect();
                let mut sorted = ids.clone();
                sorted.sort_unstable();
                prop_assert_eq!(&sorted, &neighbours_of(members[own], &members, &seed, degree));
                prop_assert!(list.len() <= degree.max(1) && !list.contains(&(own as u32)));
                prop_assert!(list.iter().all(|other| graph[*other as usize].contains(&(own as u32))), "not mutual");
            }
            for list in neighbours(&members, &seed, degree + 1) {
                let different: BTreeSet<_> = list.iter().collect();
                prop_assert!(different.len() == list.len() && list.len() <= degree + 1, "an odd degree: {:?}", list);
            }
            let (mut reached, mut edge) = (BTreeSet::from([0]), vec![0u32]);
            while let Some(node) = edge.pop() {
                edge.extend(graph[node as usize].iter().filter(|other| reached.insert(**other)));
            }
            prop_assert_eq!(reached.len(), count);
        }
    }

    #[test]
    fn who_leaves_changes_little() {
        let (all, seed) = (members(500), Hash::of(b"seed"));
        let fewer: Vec<NodeId> = all[1..].to_vec();
        let changed = |own: &&NodeId| neighbours_of(**own, &all, &seed, 10) != neighbours_of(**own, &fewer, &seed, 10);
        assert!(fewer.iter().filter(changed).count() <= 10);
        let mean = neighbours(&all, &seed, 10).iter().map(Vec::len).sum::<usize>() as f64 / 500.0;
        assert!(mean > 9.7, "mean degree {mean}");
    }

    #[test]
    fn in_a_small_site_everybody_has_almost_as_many_neighbours() {
        for count in [12, 21, 51, 120, 256] {
            for seed in 0u8..8 {
                let graph = neighbours(&members(count), &Hash([seed; 32]), 10);
                let lacking: usize = graph.iter().map(|list| 10 - list.len()).sum();
                let fewest = graph.iter().map(Vec::len).min().unwrap_or(0);
                assert!(lacking <= 4 && fewest >= 8, "{count} members, seed {seed}: {lacking} lack, {fewest} at least");
            }
        }
    }

    #[test]
    fn who_leaves_a_small_site_changes_a_part_of_the_links() {
        let (all, seed) = (members(100), Hash::of(b"seed"));
        let fewer = all[1..].to_vec();
        let kept = |own: &NodeId| {
            let before = neighbours_of(*own, &all, &seed, 10);
            neighbours_of(*own, &fewer, &seed, 10).iter().filter(|other| before.contains(other)).count()
        };
        let kept: usize = fewer.iter().map(kept).sum();
        assert!(kept >= 99 * 9, "{kept} of 990 ends of links are kept");
    }
}
