//! Figures as people read them: three significant digits, and units that fit.

/// Three significant digits; from 1,000 on all digits before the point, in groups of three.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let magnitude = value.abs();
    if magnitude >= 999.5 {
        return grouped(value.round());
    }
    let decimals = if magnitude >= 99.95 {
        0
    } else if magnitude >= 9.995 {
        1
    } else if magnitude >= 0.9995 {
        2
    } else {
        3
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn grouped(whole: f64) -> String {
    let digits = format!("{:.0}", whole.abs());
    let mut text = String::from(if whole < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count, in groups of three digits.
pub fn count(value: u64) -> String {
    grouped(value as f64)
}

/// A count with its noun, whose plural ends in `s`.
pub fn counted(value: u64, noun: &str) -> String {
    let ending = if value == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(value))
}

/// The largest power of a thousand, at most that of `names`, below which `value` is not; with its name.
pub fn prefix(value: f64, names: &[&'static str]) -> (f64, &'static str) {
    let mut divisor = 1.0;
    for (index, name) in names.iter().enumerate() {
        if value.abs() < divisor * 999.5 || index + 1 == names.len() {
            return (divisor, name);
        }
        divisor *= 1000.0;
    }
    (1.0, "")
}

/// Names of bit rates by powers of a thousand.
pub const RATES: [&str; 5] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
/// Names of lengths by powers of a thousand.
pub const BYTES: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// A length in decimal units.
pub fn bytes(value: u64) -> String {
    let (divisor, name) = prefix(value as f64, &BYTES);
    format!("{} {name}", number(value as f64 / divisor))
}

/// A bit rate in decimal units.
pub fn rate(bits_per_second: f64) -> String {
    let (divisor, name) = prefix(bits_per_second, &RATES);
    format!("{} {name}", number(bits_per_second / divisor))
}

/// A time in its two largest units.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds.abs() < 59.95 {
        return format!("{} s", number(seconds));
    }
    let sign = if seconds < 0.0 { "-" } else { "" };
    let whole = seconds.abs().round() as u64;
    let two = |large: u64, large_name: &str, small: u64, small_name: &str| match small {
        0 => format!("{sign}{large} {large_name}"),
        _ => format!("{sign}{large} {large_name} {small} {small_name}"),
    };
    if whole < 3600 {
        return two(whole / 60, "min", whole % 60, "s");
    }
    let minutes = (whole + 30) / 60;
    if minutes < 24 * 60 {
        return two(minutes / 60, "h", minutes % 60, "min");
    }
    let hours = (whole + 1800) / 3600;
    two(hours / 24, "d", hours % 24, "h")
}

/// A share as a percentage.
pub fn share(value: f64) -> String {
    format!("{} %", number(value * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!(
            [0.0, 0.0523, 1.0, 12.46, 999.4, 999.5, 1_234_567.0].map(number).join(" "),
            "0 0.052 1 12.5 999 1,000 1,234,567"
        );
        assert_eq!(number(f64::NAN), "-");
        assert_eq!(number(-0.0001), "0");
        assert_eq!(
            [0, 999, 1000, 1_073_741_824, 430_000_000_000_000].map(bytes).join(" | "),
            "0 B | 999 B | 1 kB | 1.07 GB | 430 TB"
        );
        assert_eq!([1.544e6, 20e6, 10e9].map(rate).join(" | "), "1.54 Mbit/s | 20 Mbit/s | 10 Gbit/s");
        assert_eq!(share(0.034_56), "3.46 %");
        assert_eq!((counted(1, "host"), counted(12_000, "host")), ("1 host".to_owned(), "12,000 hosts".to_owned()));
    }

    #[test]
    fn times_have_their_two_largest_units() {
        let times = [0.0, 0.42, 59.9, 59.97, 859.6, 3600.0, 7_981.0, 86_370.0, 100_000.0, -90.0].map(duration);
        let expected =
            ["0 s", "0.42 s", "59.9 s", "1 min", "14 min 20 s", "1 h", "2 h 13 min", "1 d", "1 d 4 h", "-1 min 30 s"];
        assert_eq!(times, expected);
    }
}
