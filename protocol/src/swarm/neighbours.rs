//! Who is whose neighbour: a graph of small degree that every member computes for itself.
//!
//! The members stand on `degree / 2` rings, on each at a place that follows from the site's seed, the ring's number and
//! their identity; a member's neighbours are those before and after it on every ring. The union of random rings is a
//! random graph of even degree: it is connected, its diameter grows with the logarithm of the members, and rarest first
//! over ten of its neighbours spreads within a tenth of the bound (measured by `simulations/tests/spread.rs`). Who joins or leaves changes two neighbours of its own neighbours only, and two members
//! whose lists of members differ a little compute almost the same graph.
use crate::ids::{Hash, NodeId};

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
        list.sort_unstable_by_key(|index| members[*index as usize]);
        list.dedup();
    }
    chosen
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
}
