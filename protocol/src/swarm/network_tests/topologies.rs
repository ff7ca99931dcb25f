//! Sites in which not everybody is everybody's neighbour, and a frame takes time on the uplink of whoever sends it.
use super::*;

const FRAME_TIME: u64 = 5 * MILLISECOND;

/// What members fetch from each other in sites of this shape, over the line once.
fn assert_all_complete(mut world: World) -> u64 {
    world.frame_time = FRAME_TIME;
    world.run();
    world.assert_all_hold_the_image();
    assert_eq!(world.wan_bytes(), world.pack.length());
    world.now
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::property_tests::cases(24), ..ProptestConfig::default() })]

    /// A switch may let no host speak with another (port isolation, guests' Wi-Fi). Found by an hour of `tests/bench serve`:
    /// hosts from which a holder had not heard anything yet were not told what it had once it had pushed everything.
    #[test]
    fn a_station_that_serves_every_host_itself_leaves_nobody_behind(members in 2usize..60, frames in 1usize..80, seed: u64) {
        let took = assert_all_complete(World::connected(members, frames, seed, |a, b| a.min(b) == 1));
        let bound = (members * frames) as u64 * FRAME_TIME;
        prop_assert!(took < 2 * bound + 5_000 * MILLISECOND, "took {} ms, bound {} ms", took / 1000, bound / 1000);
    }

    #[test]
    fn in_any_connected_site_everybody_gets_everything(
        members in 2usize..24, frames in 1usize..60, seed: u64,
        tree in prop::collection::vec(any::<prop::sample::Index>(), 24),
        more in prop::collection::btree_set((1usize..25, 1usize..25), 0..40),
    ) {
        let neighbours = |a: usize, b: usize| tree[a - 1].index(a - 1) + 1 == b || more.contains(&(a, b));
        let took = assert_all_complete(World::connected(members, frames, seed, neighbours));
        // A chain is the slowest shape, and a neighbour that offers no turn is asked after three seconds.
        prop_assert!(took < 60_000 * MILLISECOND, "took {} ms", took / 1000);
    }
}
