//! Words for the report's page: texts that no HTML reader stumbles over, cut where they are long.
use branchline_protocol::time::UnixSeconds;

/// `text` with everything made visible that is not valid in HTML or that changes how its surroundings read: control characters (as their
/// Unicode pictures), marks of writing direction, and code points that are no characters. Line ends become `\n`.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' if characters.peek() == Some(&'\n') => {}
            '\r' => shown.push('\n'),
            '\n' | '\t' => shown.push(character),
            '\0'..='\x1f' => shown.push(char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}')),
            '\x7f' => shown.push('\u{2421}'),
            '\u{80}'..='\u{9f}' | '\u{fdd0}'..='\u{fdef}' => shown.push('\u{fffd}'),
            '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.push_str(&format!("[U+{:04X}]", u32::from(character)));
            }
            other if u32::from(other) & 0xfffe == 0xfffe => shown.push('\u{fffd}'),
            other => shown.push(other),
        }
    }
    shown
}

/// One line of at most `characters` characters, for names, reasons and table cells.
pub fn line(text: &str, characters: usize) -> String {
    let shown = visible(text).replace(['\n', '\t'], " ");
    let count = shown.chars().count();
    if count <= characters {
        return shown;
    }
    let kept: String = shown.chars().take(characters).collect();
    format!("{kept}… ({} characters more)", count - characters)
}

/// A text of at most about `bytes` bytes, and how many bytes of it were left out. The beginning gives a third and the end the rest, since
/// what went wrong stands at the end.
pub fn middle_cut(text: &str, bytes: usize) -> (String, usize) {
    if text.len() <= bytes {
        return (visible(text), 0);
    }
    let head = text.floor_char_boundary(bytes / 3);
    let tail = text.ceil_char_boundary(text.len() - (bytes - bytes / 3));
    let left_out = tail - head;
    let (head, tail) = (visible(&text[..head]), visible(&text[tail..]));
    (format!("{head}\n[… {} bytes left out here …]\n{tail}", grouped(left_out as u64)), left_out)
}

/// The greatest length to which each of `lengths` may be cut so that together they have at most `total`.
pub fn fair_share(lengths: &[usize], total: usize) -> usize {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    let mut rest = total;
    for (index, length) in sorted.iter().enumerate() {
        let share = rest / (sorted.len() - index);
        if *length > share {
            return share;
        }
        rest -= length;
    }
    total
}

/// A time in UTC as `2026-11-22 02:24:05 UTC`.
pub fn utc(time: UnixSeconds) -> String {
    /// The last second of the year 9999.
    const LATEST: u64 = 253_402_300_799;
    let seconds = time.0.min(LATEST);
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar; years begin in March while it counts, so that the
/// leap day is the last of a year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

/// A number with a comma between groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes, exact.
pub fn bytes(number: u64) -> String {
    if number == 1 { "1 byte".to_owned() } else { format!("{} bytes", grouped(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let expected = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (u64::MAX, "9999-12-31 23:59:59 UTC"),
        ];
        for (seconds, text) in expected {
            assert_eq!(utc(UnixSeconds(seconds)), text);
        }
    }

    #[test]
    fn what_would_deceive_a_reader_is_shown() {
        assert_eq!(visible("a\x1b[31mb\0c\r\nd\re\u{202e}f\u{9b}\u{fffe}"), "a␛[31mb␀c\nd\ne[U+202E]f\u{fffd}\u{fffd}");
        assert_eq!(line("two\nlines", 40), "two lines");
        assert_eq!(line("ääääää", 4), "ääää… (2 characters more)");
    }

    #[test]
    fn a_cut_keeps_both_ends_and_says_how_much_is_gone() {
        assert_eq!(middle_cut("whole", 5), ("whole".to_owned(), 0));
        let (text, left_out) = middle_cut(&format!("begin{}end", "é".repeat(1000)), 30);
        assert!(text.starts_with("begin") && text.ends_with("end"), "{text}");
        assert!(text.contains(&format!("{} bytes left out", grouped(left_out as u64))));
        assert!((1975..=2008).contains(&left_out), "{left_out}");
    }

    #[test]
    fn short_texts_leave_their_share_to_long_ones() {
        assert_eq!(fair_share(&[10, 1000, 1000], 210), 100);
        assert_eq!(fair_share(&[10, 20], 210), 210);
        assert_eq!(fair_share(&[], 5), 5);
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
    }
}
