//! Figures a planner knows, or knows only roughly: numbers, ranges and distributions.
use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::random::Draw;

/// A figure that may differ from site to site: `80`, `{ range = [60, 100] }`, `{ lognormal = [median, sigma] }` or
/// `{ one_of = [10, 20, 50] }`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Anything between two figures, each as likely as the other.
    Range([f64; 2]),
    /// Median and sigma of a log-normal distribution; sigma is the standard deviation of the logarithm.
    Lognormal([f64; 2]),
    /// One of these, each as likely as the other.
    OneOf(Vec<f64>),
    /// The same everywhere; written as a plain number.
    #[serde(untagged)]
    Fixed(f64),
}

/// The written form of everything but a plain number; exactly one key may be given.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", expecting = "a number or a table with `range`, `lognormal` or `one_of`")]
enum Written {
    Range([f64; 2]),
    Lognormal([f64; 2]),
    OneOf(Vec<f64>),
}

struct QuantityVisitor;

impl<'de> Visitor<'de> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .write_str("a number, { range = [low, high] }, { lognormal = [median, sigma] } or { one_of = [a, b, ...] }")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Quantity, E> {
        Ok(Quantity::Fixed(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
        Ok(Quantity::Fixed(value as f64))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
        Ok(Quantity::Fixed(value as f64))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Quantity, A::Error> {
        Ok(match Written::deserialize(MapAccessDeserializer::new(map))? {
            Written::Range(bounds) => Quantity::Range(bounds),
            Written::Lognormal(parameters) => Quantity::Lognormal(parameters),
            Written::OneOf(choices) => Quantity::OneOf(choices),
        })
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor)
    }
}

impl Quantity {
    /// What is drawn with `draw`; always the same for the same draw.
    pub fn sample(&self, draw: Draw) -> f64 {
        match self {
            Self::Fixed(value) => *value,
            Self::Range([low, high]) => low + (high - low) * draw.uniform(),
            Self::Lognormal([median, sigma]) => median * libm::exp(sigma * draw.normal()),
            Self::OneOf(choices) => choices.get(draw.below(choices.len())).copied().unwrap_or(0.0),
        }
    }

    /// What is wrong with it as a figure that must lie between `least` and `most`; `None`: nothing.
    pub(super) fn fault(&self, least: f64, most: f64) -> Option<String> {
        let inside = |value: f64| value.is_finite() && (least..=most).contains(&value);
        let outside = |value: f64| (!inside(value)).then(|| format!("{value} does not lie between {least} and {most}"));
        match self {
            Self::Fixed(value) => outside(*value),
            Self::Range([low, high]) if low > high => {
                Some(format!("the range begins at {low} and ends below, at {high}"))
            }
            Self::Range(bounds) => bounds.iter().find_map(|bound| outside(*bound)),
            Self::Lognormal([median, sigma]) => outside(*median).or_else(|| sigma_fault(*sigma)),
            Self::OneOf(choices) if choices.is_empty() => Some("one_of names nothing to choose from".to_owned()),
            Self::OneOf(choices) => choices.iter().find_map(|choice| outside(*choice)),
        }
    }

    /// A typical value: the median, or the middle of what may be chosen.
    pub fn typical(&self) -> f64 {
        match self {
            Self::Fixed(value) => *value,
            Self::Range([low, high]) => (low + high) / 2.0,
            Self::Lognormal([median, _]) => *median,
            Self::OneOf(choices) => choices.iter().sum::<f64>() / choices.len().max(1) as f64,
        }
    }
}

pub(super) fn sigma_fault(sigma: f64) -> Option<String> {
    (!(0.0..=5.0).contains(&sigma)).then(|| format!("a sigma of {sigma} does not lie between 0 and 5"))
}

/// How long an installation holds its slot, the verification included (R22).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallTime {
    /// Always the same, in seconds.
    Fixed(f64),
    /// Exponential with this mean, in seconds.
    ExponentialMean(f64),
    /// Log-normal: median in seconds, and sigma of the logarithm.
    Lognormal([f64; 2]),
    /// Anything between two figures in seconds, each as likely as the other.
    Range([f64; 2]),
}

impl InstallTime {
    /// Seconds that are drawn with `draw`.
    pub fn sample(&self, draw: Draw) -> f64 {
        match self {
            Self::Fixed(seconds) => *seconds,
            Self::ExponentialMean(mean) => mean * draw.exponential(),
            Self::Lognormal([median, sigma]) => median * libm::exp(sigma * draw.normal()),
            Self::Range([low, high]) => low + (high - low) * draw.uniform(),
        }
    }

    /// Mean in seconds.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(seconds) => *seconds,
            Self::ExponentialMean(mean) => *mean,
            Self::Lognormal([median, sigma]) => median * libm::exp(sigma * sigma / 2.0),
            Self::Range([low, high]) => (low + high) / 2.0,
        }
    }
}

/// When the hosts of a site ask for the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// All at the moment in which the site may begin.
    #[default]
    Together,
    /// One after another, with exponential times between them; the rate is of one site.
    PoissonPerSecond(f64),
}

/// How many hosts of its site a host exchanges frames with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Neighbours {
    /// Every host of the site, written as `"all"`.
    All,
    /// So many at least; a connection counts for both ends.
    #[serde(untagged)]
    Number(u32),
}

struct NeighboursVisitor;

impl Visitor<'_> for NeighboursVisitor {
    type Value = Neighbours;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number of hosts or \"all\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Neighbours, E> {
        if text == "all" { Ok(Neighbours::All) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Neighbours, E> {
        let invalid = |_| E::invalid_value(de::Unexpected::Signed(number), &self);
        u32::try_from(number).map(Neighbours::Number).map_err(invalid)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Neighbours, E> {
        let invalid = |_| E::invalid_value(de::Unexpected::Unsigned(number), &self);
        u32::try_from(number).map(Neighbours::Number).map_err(invalid)
    }
}

impl<'de> Deserialize<'de> for Neighbours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NeighboursVisitor)
    }
}

/// Whether the hosts of a site share one radio medium.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Wifi {
    /// Wired: every host has a line of its own to the switch. Written as `false`.
    #[default]
    Wired,
    /// One medium for all hosts; the station is wired to the access point. A transfer between two hosts crosses it
    /// twice. Written as `true` (then it carries `lan_bits_per_second`) or `{ bits_per_second = x }`.
    Medium {
        /// What the medium carries, in bits per second; `None`: as much as one host may send.
        bits_per_second: Option<f64>,
    },
}

impl Serialize for Wifi {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Wired => serializer.serialize_bool(false),
            Self::Medium { bits_per_second: None } => serializer.serialize_bool(true),
            Self::Medium { bits_per_second: Some(rate) } => {
                WrittenMedium { bits_per_second: *rate }.serialize(serializer)
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMedium {
    bits_per_second: f64,
}

struct WifiVisitor;

impl<'de> Visitor<'de> for WifiVisitor {
    type Value = Wifi;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("true, false or { bits_per_second = x }")
    }

    fn visit_bool<E: de::Error>(self, shared: bool) -> Result<Wifi, E> {
        Ok(if shared { Wifi::Medium { bits_per_second: None } } else { Wifi::Wired })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Wifi, A::Error> {
        let medium = WrittenMedium::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Wifi::Medium { bits_per_second: Some(medium.bits_per_second) })
    }
}

impl<'de> Deserialize<'de> for Wifi {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WifiVisitor)
    }
}
