//! Axes of a plot: units that fit the figures, and marks at round values.
use super::units::{RATES, number, prefix};

/// What an axis measures.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// Time in seconds.
    Seconds,
    /// A count of things.
    Count(&'static str),
    /// Bits per second.
    Rate,
    /// A share of all, from 0 to 1.
    Share(&'static str),
    /// A figure of the scenario, with its key.
    Figure(String),
    /// Words: 0, 1, 2, ... on the axis.
    Words(String, Vec<String>),
}

/// An axis that spans its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What stands beside it, with the unit.
    pub title: String,
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Marks: where, and what is written there.
    pub marks: Vec<(f64, String)>,
}

/// Units of time by their length in seconds, and from which length on they are taken.
const TIMES: [(f64, &str, f64); 4] =
    [(86_400.0, "days", 259_200.0), (3600.0, "h", 10_800.0), (60.0, "min", 180.0), (1.0, "s", 0.0)];

impl Axis {
    /// An axis for these figures. It begins at 0 unless the figures are ones of a scenario, which may be spread over
    /// powers of ten: then the axis is logarithmic.
    pub fn new(name: &str, measure: &Measure, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let (unit_length, title) = match measure {
            Measure::Seconds => {
                let unit = TIMES.iter().find(|(_, _, from)| most >= *from);
                let (length, unit) = unit.map_or((1.0, "s"), |(length, unit, _)| (*length, *unit));
                (length, format!("{name}, {unit}"))
            }
            Measure::Rate => with_prefix(name, most, &RATES),
            Measure::Count(things) => (1.0, format!("{name}, {things}")),
            Measure::Share(of) => (0.01, format!("{name}, % {of}")),
            Measure::Figure(key) => (1.0, key.clone()),
            Measure::Words(key, words) => return Self::of_words(key, words),
        };
        let least = values.filter(|value| value.is_finite()).fold(most, f64::min);
        if matches!(measure, Measure::Figure(_)) && least > 0.0 && most / least >= 15.0 {
            return Self::logarithmic(title, least, most);
        }
        let low = if matches!(measure, Measure::Figure(_)) { least } else { least.min(0.0) };
        let mut axis = Self::linear(title, low, most, unit_length);
        if matches!(measure, Measure::Figure(_)) {
            axis.marks.iter_mut().for_each(|(at, text)| *text = short(*at));
        }
        axis
    }

    fn of_words(key: &str, words: &[String]) -> Self {
        let marks = words.iter().enumerate().map(|(index, word)| (index as f64, word.clone())).collect();
        Self { title: key.to_owned(), low: -0.5, high: words.len() as f64 - 0.5, logarithmic: false, marks }
    }

    fn linear(title: String, low: f64, high: f64, unit_length: f64) -> Self {
        let high = if high > low { high } else { low + unit_length };
        let step = round_step((high - low) / unit_length / 8.0) * unit_length;
        let first = (low / step - 1e-9).ceil();
        let marks = (0..=12).map(|index| (first + f64::from(index)) * step).take_while(|at| *at <= high * (1.0 + 1e-9));
        let marks = marks.map(|at| (at, number(at / unit_length))).collect();
        Self { title, low, high, logarithmic: false, marks }
    }

    fn logarithmic(title: String, low: f64, high: f64) -> Self {
        let decades = libm::log10(low).floor() as i32..=libm::log10(high).ceil() as i32;
        let steps: &[f64] = if high / low > 1e4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = decades.flat_map(|power| steps.iter().map(move |step| step * libm::pow(10.0, f64::from(power))));
        let inside = all.filter(|at| *at >= low * (1.0 - 1e-9) && *at <= high * (1.0 + 1e-9));
        let marks = inside.map(|at| (at, short(at))).collect();
        Self { title: format!("{title} (logarithmic)"), low, high, logarithmic: true, marks }
    }

    /// Where a figure lies: 0 at the axis' beginning, 1 at its end.
    pub fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            libm::log10(value.max(self.low) / self.low) / libm::log10(self.high / self.low)
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// The same axis, reaching as far as its highest mark would and a little more.
    pub fn with_headroom(mut self) -> Self {
        if !self.logarithmic {
            self.high += (self.high - self.low) * 0.04;
        }
        self
    }
}

fn with_prefix(name: &str, most: f64, names: &[&'static str]) -> (f64, String) {
    let (divisor, unit) = prefix(most, names);
    (divisor, format!("{name}, {unit}"))
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = libm::pow(10.0, libm::log10(step).floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A figure of a scenario in few characters: 20M rather than 20,000,000.
fn short(value: f64) -> String {
    let (divisor, unit) = prefix(value, &["", "k", "M", "G", "T", "P"]);
    format!("{}{unit}", number(value / divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(measure: &Measure, values: &[f64]) -> String {
        let axis = Axis::new("Time", measure, values.iter().copied());
        let marks: Vec<&str> = axis.marks.iter().map(|(_, text)| text.as_str()).collect();
        format!("{}: {}", axis.title, marks.join(" "))
    }

    #[test]
    fn units_and_marks_suit_the_figures() {
        let figure = Measure::Figure("sites.0.hosts".to_owned());
        let axes = [
            axis(&Measure::Seconds, &[0.0, 42.0]),
            axis(&Measure::Seconds, &[0.0, 859.6]),
            axis(&Measure::Seconds, &[0.0, 42_950.0]),
            axis(&Measure::Seconds, &[0.0, 300_000.0]),
            axis(&Measure::Rate, &[0.0, 1e9]),
            axis(&Measure::Count("hosts"), &[0.0, 6000.0]),
            axis(&Measure::Share("of sites"), &[0.0, 1.0]),
            axis(&Measure::Seconds, &[0.0]),
            axis(&figure, &[20.0, 40.0, 80.0]),
            axis(&figure, &[1.0e6, 20.0e6]),
            axis(&Measure::Words("resolution".to_owned(), vec!["chunk".to_owned(), "flow".to_owned()]), &[]),
        ];
        insta::assert_snapshot!(axes.join("\n"));
    }

    #[test]
    fn figures_lie_where_they_belong() {
        let linear = Axis::new("Time", &Measure::Seconds, [0.0, 100.0].into_iter());
        assert_eq!([0.0, 25.0, 100.0].map(|value| linear.place(value)), [0.0, 0.25, 1.0]);
        let logarithmic = Axis::new("", &Measure::Figure("key".to_owned()), [1.0, 10.0, 100.0].into_iter());
        let places = [1.0, 10.0, 100.0].map(|value| (logarithmic.place(value) * 1000.0).round());
        assert_eq!(places, [0.0, 500.0, 1000.0]);
    }
}
