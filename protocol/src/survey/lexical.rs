//! What one attribute value may look like: the Rust side of the simple types of the schema.
//!
//! Each form is written so that the schema's pattern and the check here say the same: whitespace is significant, numbers have no sign
//! and no leading zero, and the length counts Unicode characters.

use crate::limits;

/// The form of one attribute value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One line of 1 to `limit` characters without tab, line feed and carriage return.
    Line(usize),
    /// A name of a module, signature, fact or kind: `[a-z][a-z0-9_-]{0,63}`.
    Identifier,
    /// A BLAKE3 hash: 64 lowercase hexadecimal digits.
    Hash,
    /// A UTC time to the second: `2026-01-31T23:59:59Z`.
    Timestamp,
    /// A decimal number: an optional sign, up to 15 digits, up to 6 digits after the point.
    Decimal,
    /// An unsigned integer of at most 19 digits, so that it fits 64 bits.
    Integer,
    /// An integer from 1 to 999,999.
    Count,
    /// A TCP port, 1 to 65535.
    Port,
    /// The length of an address prefix, 0 to 128.
    PrefixLength,
    /// `true` or `false`.
    Boolean,
}

impl Form {
    /// Says whether the value has this form.
    #[must_use]
    pub fn allows(self, value: &str) -> bool {
        match self {
            Self::Line(limit) => is_line(value, limit),
            Self::Identifier => is_identifier(value),
            Self::Hash => value.len() == 64 && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
            Self::Timestamp => is_timestamp(value),
            Self::Decimal => is_decimal(value),
            Self::Integer => is_integer(value, 19),
            Self::Count => is_integer(value, 6) && value != "0",
            Self::Port => is_integer(value, 5) && value.parse::<u16>().is_ok_and(|port| port != 0),
            Self::PrefixLength => is_integer(value, 3) && value.parse::<u8>().is_ok_and(|length| length <= 128),
            Self::Boolean => matches!(value, "true" | "false"),
        }
    }

    /// Says in words what the form is, for an error.
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Line(limit) => format!("one line of 1 to {limit} characters"),
            Self::Identifier => format!(
                "a lowercase name of up to {} letters, digits, _ and -",
                limits::SURVEY_IDENTIFIER_CHARACTERS_MAX
            ),
            Self::Hash => "64 lowercase hexadecimal digits".into(),
            Self::Timestamp => "a UTC time like 2026-01-31T23:59:59Z".into(),
            Self::Decimal => "a decimal number".into(),
            Self::Integer => "an unsigned integer of at most 19 digits".into(),
            Self::Count => "an integer from 1 to 999999".into(),
            Self::Port => "a port from 1 to 65535".into(),
            Self::PrefixLength => "an integer from 0 to 128".into(),
            Self::Boolean => "true or false".into(),
        }
    }
}

/// Says whether XML 1.0 can hold the character at all (XML 1.0, production 2).
#[must_use]
pub fn is_xml_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Makes any text a line of the given limit: what a line cannot hold becomes `?`, what is too long is cut; `None` if nothing is left.
#[must_use]
pub fn to_line(text: &str, limit: usize) -> Option<String> {
    let line: String =
        text.chars().take(limit).map(|character| if is_line_character(character) { character } else { '?' }).collect();
    (!line.is_empty()).then_some(line)
}

fn is_line_character(character: char) -> bool {
    is_xml_character(character) && !matches!(character, '\t' | '\n' | '\r')
}

fn is_line(value: &str, limit: usize) -> bool {
    !value.is_empty() && value.chars().count() <= limit && value.chars().all(is_line_character)
}

fn is_identifier(value: &str) -> bool {
    value.len() <= limits::SURVEY_IDENTIFIER_CHARACTERS_MAX
        && value.starts_with(|first: char| first.is_ascii_lowercase())
        && value.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

fn is_timestamp(value: &str) -> bool {
    let pattern = b"dddd-dd-ddTdd:dd:ddZ";
    value.len() == pattern.len()
        && value.bytes().zip(pattern).all(|(byte, expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            literal => byte == *literal,
        })
}

fn is_integer(value: &str, digits: usize) -> bool {
    !value.is_empty()
        && value.len() <= digits
        && value.bytes().all(|byte| byte.is_ascii_digit())
        && (value.len() == 1 || !value.starts_with('0'))
}

fn is_decimal(value: &str) -> bool {
    let unsigned = value.strip_prefix('-').unwrap_or(value);
    match unsigned.split_once('.') {
        None => is_integer(unsigned, 15),
        Some((whole, fraction)) => {
            is_integer(whole, 15)
                && (1..=6).contains(&fraction.len())
                && fraction.bytes().all(|byte| byte.is_ascii_digit())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn forms_hold_their_borders() {
        for (form, good, bad) in [
            (Form::Line(3), vec!["a", "é€𝄞", " a "], vec!["", "abcd", "a\tb", "a\n", "\u{1}", "\u{ffff}"]),
            (Form::Identifier, vec!["a", "nfs-client", "x_1"], vec!["", "1a", "A", "a b", "-a", "é"]),
            (
                Form::Integer,
                vec!["0", "10", "9999999999999999999"],
                vec!["", "00", "-1", "+1", "1 ", "10000000000000000000"],
            ),
            (Form::Count, vec!["1", "999999"], vec!["0", "1000000", ""]),
            (Form::Port, vec!["1", "65535"], vec!["0", "65536", "022", "99999"]),
            (Form::PrefixLength, vec!["0", "128"], vec!["129", "008", "-1"]),
            (Form::Decimal, vec!["0", "-1.5", "80", "0.000001"], vec!["", "-", "1.", ".5", "1.0000001", "1e3", "01"]),
            (Form::Timestamp, vec!["2026-01-31T23:59:59Z"], vec!["2026-01-31 23:59:59Z", "2026-01-31T23:59:59", ""]),
            (Form::Boolean, vec!["true", "false"], vec!["1", "0", "True", " true"]),
        ] {
            for value in good {
                assert!(form.allows(value), "{form:?} refuses {value:?}");
            }
            for value in bad {
                assert!(!form.allows(value), "{form:?} takes {value:?}");
            }
        }
    }

    #[test]
    fn any_text_becomes_a_line() {
        assert_eq!(to_line("a\u{0}b\nc", 10).as_deref(), Some("a?b?c"));
        assert_eq!(to_line("abcdef", 3).as_deref(), Some("abc"));
        assert_eq!(to_line("", 3), None);
    }
}
