use super::*;
use crate::time::UnixSeconds;

/// 2026 in Berlin: summer time from 29 March 01:00 UTC to 25 October 01:00 UTC.
fn berlin() -> ZoneOffsets {
    let (spring, autumn) = (utc("2026-03-29", 60), utc("2026-10-25", 60));
    ZoneOffsets::new(vec![(UnixSeconds(0), 3600), (spring, 7200), (autumn, 3600)]).unwrap()
}

/// Minutes after midnight UTC of a day in 2026.
fn utc(date: &str, minutes: u64) -> UnixSeconds {
    let days_before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let (month, day): (usize, u64) = (date[5..7].parse().unwrap(), date[8..10].parse().unwrap());
    // 2026-01-01 is day 20454 after 1970-01-01.
    UnixSeconds((20_454 + days_before[month - 1] + day - 1) * 86_400 + minutes * 60)
}

fn window(days: &str, from: &str, to: &str, rate: &str) -> Window {
    Window {
        days: days.parse().unwrap(),
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        rate: rate.parse().unwrap(),
    }
}

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

#[test]
fn office_hours_follow_the_clocks_on_the_wall() {
    let zone = berlin();
    let schedule = Schedule { rate: Rate::Unlimited, windows: vec![window("mon-fri", "08:00", "18:00", "2mbit")] };
    // Friday, 20 March, in winter time: 08:00 is 07:00 UTC.
    let friday = utc("2026-03-20", 7 * 60);
    assert_eq!(zone.local(friday), LocalTime { day: i64::try_from(friday.0 / 86_400).unwrap(), minute: 480 });
    assert_eq!(zone.local(friday).weekday(), 4);
    assert_eq!(schedule.rate_at(&zone, UnixSeconds(friday.0 - 1)), Rate::Unlimited);
    assert_eq!(schedule.rate_at(&zone, friday), rate("2mbit"));
    assert_eq!(schedule.next_change(&zone, friday), Some((utc("2026-03-20", 17 * 60), Rate::Unlimited)));
    // Over the weekend to Monday.
    let evening = utc("2026-03-20", 17 * 60);
    assert_eq!(schedule.next_change(&zone, evening), Some((utc("2026-03-23", 7 * 60), rate("2mbit"))));
    // A week later the clocks have been put forward: 08:00 is 06:00 UTC.
    let evening = utc("2026-03-27", 17 * 60);
    assert_eq!(schedule.next_change(&zone, evening), Some((utc("2026-03-30", 6 * 60), rate("2mbit"))));
    assert_eq!(Schedule::always(rate("1mbit")).next_change(&zone, evening), None);
}

#[test]
fn the_hour_that_does_not_exist_is_in_no_window_and_the_doubled_one_twice() {
    let zone = berlin();
    let schedule = Schedule { rate: Rate::Unlimited, windows: vec![window("sun", "02:00", "03:00", "off")] };
    // 29 March: 01:59:59 is followed by 03:00:00.
    let before = utc("2026-03-29", 0);
    assert_eq!(schedule.next_change(&zone, before), Some((utc("2026-04-05", 0), Rate::Off)));
    // 25 October: 02:00 to 03:00 comes twice, from 00:00 UTC to 02:00 UTC.
    let before = utc("2026-10-24", 12 * 60);
    let begin = utc("2026-10-25", 0);
    assert_eq!(schedule.next_change(&zone, before), Some((begin, Rate::Off)));
    assert_eq!(schedule.next_change(&zone, begin), Some((utc("2026-10-25", 120), Rate::Unlimited)));
    // A window that only ends in the hour that does not exist ends when the clocks jump over its end.
    let night = Schedule { rate: Rate::Unlimited, windows: vec![window("sun", "01:00", "02:30", "1mbit")] };
    assert_eq!(night.next_change(&zone, before.after(0)).unwrap().0, utc("2026-10-24", 23 * 60));
    let inside = utc("2026-03-29", 30);
    assert_eq!(night.rate_at(&zone, inside), rate("1mbit"));
    assert_eq!(night.next_change(&zone, inside), Some((utc("2026-03-29", 60), Rate::Unlimited)));
}

#[test]
fn windows_pass_midnight_and_the_first_that_holds_counts() {
    let zone = ZoneOffsets::utc();
    let schedule = Schedule {
        rate: rate("1mbit"),
        windows: vec![window("sat", "23:00", "01:00", "off"), window("fri,sat", "22:00", "06:00", "unlimited")],
    };
    let saturday = |minutes| utc("2026-03-21", minutes);
    assert_eq!(schedule.rate_at(&zone, saturday(5 * 60)), Rate::Unlimited, "Friday's night");
    assert_eq!(schedule.rate_at(&zone, saturday(6 * 60)), rate("1mbit"));
    assert_eq!(schedule.rate_at(&zone, saturday(22 * 60)), Rate::Unlimited);
    assert_eq!(schedule.rate_at(&zone, saturday(23 * 60 + 30)), Rate::Off);
    assert_eq!(schedule.rate_at(&zone, utc("2026-03-22", 30)), Rate::Off);
    assert_eq!(schedule.rate_at(&zone, utc("2026-03-22", 60)), Rate::Unlimited);
    assert_eq!(schedule.rate_at(&zone, utc("2026-03-22", 22 * 60)), rate("1mbit"));
    let all_day = Schedule { rate: rate("1mbit"), windows: vec![window("mon", "00:00", "24:00", "off")] };
    assert_eq!(all_day.rate_at(&zone, utc("2026-03-23", 1439)), Rate::Off);
    assert_eq!(all_day.rate_at(&zone, utc("2026-03-24", 0)), rate("1mbit"));
}

#[test]
fn what_next_change_says_is_what_minutes_of_waiting_show() {
    let zone = berlin();
    let schedule = Schedule {
        rate: Rate::Unlimited,
        windows: vec![
            window("daily", "02:10", "02:50", "4mbit"),
            window("sat-mon", "20:00", "02:30", "off"),
            window("wed", "00:00", "24:00", "1mbit"),
        ],
    };
    for start in [utc("2026-03-26", 0), utc("2026-10-22", 0)] {
        let (mut at, mut current) = (start, schedule.rate_at(&zone, start));
        let mut announced = schedule.next_change(&zone, start);
        while at.0 < start.0 + 6 * 86_400 {
            at = UnixSeconds(at.0 + 60);
            let now = schedule.rate_at(&zone, at);
            if now != current {
                assert_eq!(announced, Some((at, now)));
                announced = schedule.next_change(&zone, at);
                current = now;
            }
            assert!(announced.unwrap().0 > at, "the change at {announced:?} did not come");
        }
    }
}

#[test]
fn words_are_read_and_written_alike_and_wrong_ones_refused() {
    for text in ["daily", "mon,tue,wed,thu,fri", "sun"] {
        assert_eq!(text.parse::<Days>().unwrap().to_string(), text);
    }
    assert_eq!("fri-mon".parse::<Days>().unwrap().to_string(), "mon,fri,sat,sun");
    for bad in ["", "Monday", "mon-", "mon--fri", "mon;tue"] {
        assert!(bad.parse::<Days>().is_err(), "{bad}");
    }
    for bad in ["8:00", "24:01", "12:60", "noon", "12:00:00", ""] {
        assert!(bad.parse::<TimeOfDay>().is_err(), "{bad}");
    }
    for bad in [vec![], vec![(UnixSeconds(1), 0)], vec![(UnixSeconds(0), 200_000)]] {
        assert!(ZoneOffsets::new(bad).is_err());
    }
}

const RULES: &str = r#"
site = "store-17"
version = 3
time_zone = "Europe/Berlin"

[line]
background = true
windows = [
    { days = "mon-fri", from = "08:00", to = "18:00", rate = "2mbit" },
    { days = "sun", from = "22:00", to = "06:00", rate = "off" },
]

[host]
upload = { rate = "50mbit" }

[[rollouts]]
package = "big-agent"
rate = "1mbit"
"#;

#[test]
fn rules_are_read_as_people_write_them() {
    let rules = BandwidthRules::from_toml(RULES).unwrap();
    assert!(rules.line.background);
    assert_eq!(rules.line.background_delay_milliseconds, 3);
    assert_eq!(rules.host.upload, Schedule::always(rate("50mbit")));
    assert_eq!(rules.rollouts[0].schedule(), Schedule::always(rate("1mbit")));
    let json = serde_json::to_string(&rules).unwrap();
    assert_eq!(serde_json::from_str::<BandwidthRules>(&json).unwrap(), rules);
}

#[test]
fn rules_that_cannot_work_are_refused_with_their_key() {
    let cases = [
        ("rate = \"1mbit\"\n", "rate = \"1kbit\"\n", "rollouts[0]", "at least 128kbit"),
        ("upload = { rate = \"50mbit\" }", "upload = { rate = \"off\" }", "host.upload", "low rate"),
        ("version = 3", "version = 0", "version", "at least 1"),
        ("background = true", "background_delay_milliseconds = 0", "line.background_delay_milliseconds", "1 to"),
        ("to = \"18:00\"", "to = \"25:00\"", "", "time of day"),
        ("package = \"big-agent\"", "packages = \"big-agent\"", "", "packages"),
    ];
    for (from, to, key, reason) in cases {
        let error = BandwidthRules::from_toml(&RULES.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(reason), "{to}: {error}");
    }
}
