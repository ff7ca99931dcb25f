use super::*;

const SMALLEST: &str = "
    [payload]
    size_bytes = 1_000_000
    [headquarters]
    uplink_bits_per_second = 1e9
    [[sites]]
    hosts = 80
    wan_bits_per_second = 20e6
    lan_bits_per_second = 1_000_000_000
";

const LARGEST: &str = r#"
    seed = 7
    resolution = "chunk"
    [payload]
    size_bytes = 1073741824
    chunk_bytes = 4194304
    patch_share = 0.25
    [headquarters]
    uplink_bits_per_second = 10e9
    concurrent_sites = 1000
    [[sites]]
    count = 5000
    hosts = { range = [60, 100] }
    wan_bits_per_second = { one_of = [1.544e6, 10e6, 100e6] }
    wan_latency_seconds = { lognormal = [0.02, 0.5] }
    wan_tcp = "lv08"
    lan_bits_per_second = 1e9
    slow_share = 0.1
    slow_factor = 0.25
    sessions_limit = 20
    neighbours = "all"
    slots = "nodes"
    prestaged = true
    arrivals = { poisson_per_second = 0.5 }
    install_seconds = { lognormal = [120, 0.4] }
    offline = { share = 0.05, return_mean_seconds = 28800 }
    churn = { leave_per_hour = 0.02 }
    failure_share = 0.01
    loss = 0.001
    station_fails_at_seconds = 3600
    station_takeover_seconds = 900
    hosts_fail = { count = 3, at_seconds = 600 }
    wifi = { bits_per_second = 200e6 }
    linger_seconds = 3600
    [rollout]
    waves = [0.01, 0.1, 1.0]
    thresholds = { success = 0.9, error = 0.05 }
    windows = [{ opens_seconds = 79200, lasts_seconds = 21600 }]
    [addresses]
    batch = 128
    forecast = 400000
"#;

fn fault(text: &str) -> String {
    Scenario::from_toml(text).unwrap_err().to_string()
}

fn with(key: &str, value: &str) -> String {
    let line = format!("{key} = ");
    assert!(LARGEST.contains(&line), "{key}");
    let lines = LARGEST.lines().map(|text| match text.trim_start().strip_prefix(&line) {
        Some(_) => format!("{line}{value}\n"),
        None => format!("{text}\n"),
    });
    lines.collect()
}

#[test]
fn the_smallest_scenario_has_what_the_product_does_by_default() {
    let scenario = Scenario::from_toml(SMALLEST).unwrap();
    let site = &scenario.sites[0];
    assert_eq!((site.count, site.sessions_limit, site.neighbours), (1, 100, Neighbours::Number(10)));
    assert_eq!((site.arrivals, site.wifi, site.prestaged), (Arrivals::Together, Wifi::Wired, false));
    assert_eq!(scenario.payload.frame_bytes(), 64 << 10);
    assert_eq!(scenario.payload.frames(), 16);
}

#[test]
fn every_key_is_read_and_written_back() {
    let scenario = Scenario::from_toml(LARGEST).unwrap();
    assert_eq!(scenario.payload.moved_bytes(), 1 << 28);
    assert_eq!(scenario.sites[0].wifi, Wifi::Medium { bits_per_second: Some(200e6) });
    assert_eq!(scenario.hosts_about(), 400_000.0);
    let written = toml::to_string(&scenario).unwrap();
    assert_eq!(Scenario::from_toml(&written).unwrap(), scenario, "{written}");
    let smallest = Scenario::from_toml(SMALLEST).unwrap();
    assert_eq!(Scenario::from_toml(&toml::to_string(&smallest).unwrap()).unwrap(), smallest);
    let shared = Scenario::from_toml(&with("wifi", "true")).unwrap();
    assert_eq!(Scenario::from_toml(&toml::to_string(&shared).unwrap()).unwrap(), shared);
}

#[test]
fn what_cannot_be_meant_is_refused_by_its_key() {
    let cases = [
        ("slow_factor", "4", "write 0.25 for a quarter"),
        ("sessions_limit", "0", "lets no host install"),
        ("hosts", "{ range = [100, 60] }", "the range begins at 100 and ends below"),
        ("hosts", "0", "0 does not lie between 1 and"),
        ("waves", "[0.1, 0.05, 1.0]", "must ascend"),
        ("waves", "[0.1, 0.5]", "must end at 1"),
        ("batch", "0", "0 does not lie between 1 and"),
        ("chunk_bytes", "8388608", "4194304"),
        ("neighbours", "1", "2 to 1000, or \"all\""),
        ("neighbours", "1001", "2 to 1000, or \"all\""),
        ("station_takeover_seconds", "1", "1 does not lie between 10 and"),
        ("hosts_fail", "{ count = 1, at_seconds = -1 }", "-1 does not lie between 0 and"),
        ("concurrent_sites", "0", "leave it out for no limit"),
        ("loss", "0.9", "0.9 does not lie between 0 and 0.5"),
        ("wan_bits_per_second", "{ one_of = [] }", "nothing to choose from"),
        ("windows", "[{ opens_seconds = 0, lasts_seconds = 100, every_seconds = 50 }]", "does not lie between"),
    ];
    for (key, value, expected) in cases {
        let found = fault(&with(key, value));
        assert!(found.contains(expected) && found.contains(key), "{key} = {value}: {found}");
    }
}

#[test]
fn what_is_misspelt_is_refused_with_what_would_be_right() {
    let cases = [
        (with("loss", "0\nlos = 1"), "unknown field `los`"),
        (with("neighbours", "\"some\""), "a number of hosts or \"all\""),
        (with("wifi", "{ bits = 3 }"), "unknown field `bits`"),
        (with("hosts", "\"many\""), "{ range = [low, high] }"),
        (with("hosts", "{ uniform = [1, 2] }"), "unknown variant `uniform`"),
        (with("arrivals", "{ poisson = 1 }"), "unknown variant `poisson`"),
        (with("install_seconds", "5"), "install_seconds"),
        (SMALLEST.replace("hosts = 80", ""), "missing field `hosts`"),
        (SMALLEST.replace("[[sites]]", "[[site]]"), "unknown field `site`"),
    ];
    for (text, expected) in cases {
        let found = fault(&text);
        assert!(found.contains(expected), "{expected}: {found}");
    }
}
