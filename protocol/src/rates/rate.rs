//! A rate as people write it.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::RATE_BITS_PER_SECOND_MAX;

/// A rate of bytes on a connection, written as `tc` writes it: `512kbit`, `20mbit`, `1gbit`, `off` or `unlimited`.
///
/// The order is that of the rates, so the strictest of several is the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rate {
    /// Nothing flows.
    Off,
    /// This many bits per second, at least 1.
    Bits(u64),
    /// No limit.
    #[default]
    Unlimited,
}

/// A text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no rate; write a whole number and a unit such as 512kbit, 20mbit or 1gbit, or off, or unlimited")]
pub struct ParseRateError(pub String);

const UNITS: [(&str, u64); 4] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

impl Rate {
    /// The rate that lets so many bytes through in a second.
    pub fn from_bytes_per_second(bytes: u64) -> Self {
        if bytes == 0 { Self::Off } else { Self::Bits(bytes.saturating_mul(8)) }
    }

    /// Bytes in a second; `None` where there is no limit.
    pub fn bytes_per_second(self) -> Option<u64> {
        match self {
            Self::Off => Some(0),
            Self::Bits(bits) => Some(bits / 8),
            Self::Unlimited => None,
        }
    }
}

impl FromStr for Rate {
    type Err = ParseRateError;
    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        let error = || ParseRateError(text.chars().take(40).collect());
        match text {
            "off" => return Ok(Self::Off),
            "unlimited" => return Ok(Self::Unlimited),
            _ => {}
        }
        let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
        let (number, factor) = unit.ok_or_else(error)?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error());
        }
        let bits = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        bits.filter(|bits| (1..=RATE_BITS_PER_SECOND_MAX).contains(bits)).map(Self::Bits).ok_or_else(error)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Unlimited => f.write_str("unlimited"),
            Self::Bits(bits) => {
                let exact = UNITS.iter().find(|(_, factor)| bits.is_multiple_of(*factor));
                let (unit, factor) = exact.copied().unwrap_or(("bit", 1));
                write!(f, "{}{unit}", bits / factor)
            }
        }
    }
}

impl TryFrom<String> for Rate {
    type Error = ParseRateError;
    fn try_from(text: String) -> Result<Self, ParseRateError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written_alike() {
        for text in ["off", "unlimited", "1bit", "512kbit", "20mbit", "1gbit", "1500kbit"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!("20mbit".parse::<Rate>().unwrap().bytes_per_second(), Some(2_500_000));
        for bad in ["", "mbit", "20", "20 mbit", "-1mbit", "0mbit", "1.5mbit", "99999999gbit", "20mbps", "+5kbit"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        let mut rates: Vec<Rate> = ["unlimited", "1gbit", "off", "512kbit"].map(|text| text.parse().unwrap()).into();
        rates.sort();
        assert_eq!(rates.iter().map(Rate::to_string).collect::<Vec<_>>(), ["off", "512kbit", "1gbit", "unlimited"]);
    }
}
