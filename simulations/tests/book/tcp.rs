//! One TCP flow over a line (LV08 of SimGrid).
use branchline_simulations::capacity::{InTurn, Options, Scenario, simulate, tcp};

#[test]
fn the_model_gives_the_figures_of_its_authors() {
    let cases = [(100e3, 1e6, 0.010, 0.996), (4_194_304.0, 20e6, 0.030, 2.206)];
    for (bytes, line, latency, expected) in cases {
        let found = tcp::lv08(line, latency, tcp::WINDOW_BYTES).seconds(bytes);
        assert!((found - expected).abs() < 0.001, "{found}");
    }
    let limit = tcp::window_limit(0.050, 65_536.0);
    assert!((limit / 1e6 - 5.24).abs() < 0.01, "{limit}");
}

#[test]
fn a_site_fetches_as_one_flow_does() {
    for (bytes, chunk, line, latency, expected) in
        [(100_000, 100_000, 1e6, 0.010, 0.996), (4_194_304, 1 << 22, 20e6, 0.030, 2.206)]
    {
        let text = format!(
            "resolution = \"flow\"\n[payload]\nsize_bytes = {bytes}\nchunk_bytes = {chunk}\n[headquarters]\n\
             uplink_bits_per_second = 10e9\n[[sites]]\nhosts = 1\nwan_bits_per_second = {line}\nwan_tcp = \"lv08\"\n\
             wan_latency_seconds = {latency}\nlan_bits_per_second = 1e12\n"
        );
        let options = Options { calibration_sites: 0, lifts: false, ..Options::default() };
        let outcome = simulate(&Scenario::from_toml(&text).unwrap(), &options, &InTurn, &|_| {}).unwrap().outcome;
        assert!((outcome.makespan_seconds / expected - 1.0).abs() < 0.001, "{}", outcome.makespan_seconds);
    }
}
