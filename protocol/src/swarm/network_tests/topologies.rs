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

/// One holder behind a slow uplink sends everything itself; gives the frames that arrived although they were there already.
fn duplicates(hosts: usize, frame_time: u64, told: bool) -> u64 {
    let mut world = World::connected(hosts + 1, 8, 11, |a, b| a.min(b) == 1);
    world.frame_time = frame_time;
    if told {
        let send_bytes_per_second = Some(CHUNK_BYTES as u64 * 1_000_000 / frame_time);
        world.at(0, Event::Input(1, NamedInput::Rates { send_bytes_per_second, receive_bytes_per_second: None }));
    }
    world.run();
    world.assert_all_hold_the_image();
    world.nodes.iter().map(|node| node.duplicates).sum()
}

#[test]
fn who_may_send_little_serves_no_more_at_a_time_than_others_wait_for() {
    // Twelve frames at a time take longer than the second and a half that they have.
    let frame_time = 250 * MILLISECOND;
    assert!(duplicates(20, frame_time, false) > 0, "the world is too fast to show anything");
    assert_eq!(duplicates(20, frame_time, true), 0);
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
