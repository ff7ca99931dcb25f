//! Plots as SVG: in a page, whose style they share, or as files of their own. No script, no font, nothing fetched.
use std::fmt::Write;

use super::axis::{Axis, Measure};

/// Colours and lines of every plot, in light and in dark. Each line differs by its dashes as well, so that nobody has to
/// tell colours apart.
pub const STYLE: &str = "\
.plot { --ground: #fff; --ink: #1d2126; --soft: #5d6670; --line: #dcdfe3; --c0: #0b62a8; --c1: #b3470b; --c2: #0b6b3a; --c3: #7a3aa8; --c4: #8a5a00; --c5: #a8201a; font: 13px system-ui, 'Segoe UI', 'Liberation Sans', sans-serif; }
@media (prefers-color-scheme: dark) { .plot { --ground: #1c2025; --ink: #e6e8eb; --soft: #a9b2bb; --line: #3a4149; --c0: #6cb6f5; --c1: #f59a5b; --c2: #5fd394; --c3: #c79bf0; --c4: #f0c35b; --c5: #ff8f85; } }
.plot .ground { fill: var(--ground); }
.plot text { fill: var(--ink); }
.plot .title { font-size: 16px; font-weight: 600; }
.plot .soft { fill: var(--soft); }
.plot .grid { stroke: var(--line); stroke-width: 1; }
.plot .axis { stroke: var(--soft); stroke-width: 1; }
.plot .s { fill: none; stroke-width: 2; stroke-linejoin: round; }
.plot .b { stroke: none; }
.plot .s0 { stroke: var(--c0); } .plot .s1 { stroke: var(--c1); stroke-dasharray: 7 3; } .plot .s2 { stroke: var(--c2); stroke-dasharray: 2 3; }
.plot .s3 { stroke: var(--c3); stroke-dasharray: 10 3 2 3; } .plot .s4 { stroke: var(--c4); stroke-dasharray: 4 2; } .plot .s5 { stroke: var(--c5); stroke-dasharray: 12 4; }
.plot .b0 { fill: var(--c0); } .plot .b1 { fill: var(--c1); } .plot .b2 { fill: var(--c2); } .plot .b3 { fill: var(--c3); } .plot .b4 { fill: var(--c4); } .plot .b5 { fill: var(--c5); }
.plot .bound { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 4; }
";

/// How many lines differ by colour and dashes; further ones begin again.
const LOOKS: usize = 6;
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 744.0;
const BOTTOM: f64 = 288.0;

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Points joined by lines.
    Line,
    /// The value holds until the next point.
    Steps,
    /// Points joined by lines, with a mark at each.
    Marked,
    /// A bar for each point.
    Bars,
}

/// Points of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it is, for the legend.
    pub name: String,
    /// Its points, by their place on the horizontal axis.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub shape: Shape,
}

/// A plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Its name as a file and in a page.
    pub name: &'static str,
    /// What it shows.
    pub title: String,
    /// What is to be seen in it, for those who do not see it.
    pub alternative: String,
    /// Name and measure of the horizontal axis.
    pub horizontal: (String, Measure),
    /// Name and measure of the vertical axis.
    pub vertical: (String, Measure),
    /// What is drawn.
    pub lines: Vec<Line>,
    /// Levels that are drawn across, such as a limit, with their names.
    pub bounds: Vec<(f64, String)>,
}

impl Plot {
    /// The plot as an SVG file of its own.
    pub fn file(&self) -> String {
        format!("{}<style>\n{STYLE}</style>\n{}", self.head(true), self.body())
    }

    /// The plot as a part of a page that has [`STYLE`].
    pub fn inline(&self) -> String {
        format!("{}{}", self.head(false), self.body())
    }

    fn head(&self, alone: bool) -> String {
        let (name, title, alternative) = (self.name, escaped(&self.title), escaped(&self.alternative));
        let space = if alone { " xmlns=\"http://www.w3.org/2000/svg\"" } else { "" };
        format!(
            "<svg{space} class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{name}-title \
             {name}-text\">\n<title id=\"{name}-title\">{title}</title>\n<desc id=\"{name}-text\">{alternative}</desc>\n"
        )
    }

    fn body(&self) -> String {
        let top = 62.0 + 18.0 * (self.legend_rows() as f64 - 1.0);
        let (xs, ys) = self.axes();
        let mut to = String::new();
        let title = escaped(&self.title);
        let _ = writeln!(to, "<rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\"/>");
        let _ = writeln!(to, "<text class=\"title\" x=\"16\" y=\"26\">{title}</text>");
        self.draw_legend(&mut to);
        draw_axes(&mut to, &xs, &ys, top);
        let at = |(x, y): (f64, f64)| {
            let y = if y.is_finite() { ys.place(y) } else { 0.0 };
            (LEFT + xs.place(x) * (RIGHT - LEFT), BOTTOM - y * (BOTTOM - top))
        };
        for (level, name) in &self.bounds {
            let (_, y) = at((0.0, *level));
            let name = escaped(name);
            let _ = writeln!(to, "<path class=\"bound\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
            let _ = writeln!(
                to,
                "<text class=\"soft\" x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
                y - 4.0
            );
        }
        for (index, line) in self.lines.iter().enumerate() {
            line.draw(&mut to, (index, self.lines.len()), &at);
        }
        to.push_str("</svg>\n");
        to
    }

    fn axes(&self) -> (Axis, Axis) {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let (x_name, x_measure) = &self.horizontal;
        let (y_name, y_measure) = &self.vertical;
        let heights: Vec<f64> = points().map(|(_, y)| *y).chain(self.bounds.iter().map(|(level, _)| *level)).collect();
        let xs = Axis::new(x_name, x_measure, points().map(|(x, _)| *x).collect::<Vec<_>>().into_iter());
        (xs, Axis::new(y_name, y_measure, heights.into_iter()).with_headroom())
    }

    /// Rows of the legend, and the place of each name: a row holds about a hundred characters.
    fn legend(&self) -> Vec<(usize, f64)> {
        let (mut row, mut x) = (0, 16.0);
        let mut places = Vec::new();
        for line in &self.lines {
            let width = 48.0 + 7.2 * line.name.chars().count() as f64;
            if x > 16.0 && x + width > RIGHT {
                (row, x) = (row + 1, 16.0);
            }
            places.push((row, x));
            x += width;
        }
        places
    }

    fn legend_rows(&self) -> usize {
        if self.lines.len() < 2 { 1 } else { self.legend().last().map_or(1, |(row, _)| row + 1) }
    }

    fn draw_legend(&self, to: &mut String) {
        if self.lines.len() < 2 {
            return;
        }
        for (index, (line, (row, x))) in self.lines.iter().zip(self.legend()).enumerate() {
            let (y, look, name) = (47.0 + 18.0 * row as f64, index % LOOKS, escaped(&line.name));
            let _ = match line.shape {
                Shape::Bars => writeln!(
                    to,
                    "<rect class=\"b b{look}\" x=\"{x:.0}\" y=\"{:.0}\" width=\"24\" height=\"9\"/>",
                    y - 9.0
                ),
                _ => writeln!(to, "<path class=\"s s{look}\" d=\"M{x:.0} {:.0}h24\"/>", y - 4.0),
            };
            let _ = writeln!(to, "<text x=\"{:.0}\" y=\"{y:.0}\">{name}</text>", x + 30.0);
        }
    }
}

fn draw_axes(to: &mut String, xs: &Axis, ys: &Axis, top: f64) {
    for (value, text) in &ys.marks {
        let y = BOTTOM - ys.place(*value) * (BOTTOM - top);
        let _ = writeln!(to, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
        let _ = writeln!(
            to,
            "<text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
    for (value, text) in &xs.marks {
        let x = LEFT + xs.place(*value) * (RIGHT - LEFT);
        let text = escaped(text);
        let _ = writeln!(to, "<path class=\"axis\" d=\"M{x:.1} {BOTTOM}v5\"/>");
        let _ = writeln!(
            to,
            "<text class=\"soft\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            BOTTOM + 20.0
        );
    }
    let (x_title, y_title) = (escaped(&xs.title), escaped(&ys.title));
    let (middle, centre) = ((LEFT + RIGHT) / 2.0, (top + BOTTOM) / 2.0);
    let _ = writeln!(to, "<path class=\"axis\" d=\"M{LEFT} {BOTTOM}H{RIGHT}\"/>");
    let _ = writeln!(to, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{x_title}</text>", BOTTOM + 40.0);
    let _ = writeln!(
        to,
        "<text x=\"18\" y=\"{centre}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {centre})\">{y_title}</text>"
    );
}

impl Line {
    fn draw(&self, to: &mut String, (index, of): (usize, usize), at: &dyn Fn((f64, f64)) -> (f64, f64)) {
        let look = index % LOOKS;
        if self.shape == Shape::Bars {
            let slots = self.points.len().max(1) as f64;
            let width = ((RIGHT - LEFT) / slots * 0.7 / of as f64).min(64.0);
            for point in &self.points {
                let (x, y) = at(*point);
                let left = x + (index as f64 - of as f64 / 2.0) * width;
                let height = (BOTTOM - y).max(0.0);
                let _ = writeln!(
                    to,
                    "<rect class=\"b b{look}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
                );
            }
            return;
        }
        let mut path = String::new();
        for (step, point) in self.points.iter().enumerate() {
            let (x, y) = at(*point);
            let _ = match (step, self.shape) {
                (0, _) => write!(path, "M{x:.1} {y:.1}"),
                (_, Shape::Steps) => write!(path, "H{x:.1}V{y:.1}"),
                _ => write!(path, "L{x:.1} {y:.1}"),
            };
        }
        let _ = writeln!(to, "<path class=\"s s{look}\" d=\"{path}\"/>");
        if self.shape == Shape::Marked {
            for point in &self.points {
                let (x, y) = at(*point);
                let _ = writeln!(to, "<circle class=\"b b{look}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
            }
        }
    }
}

/// Text as a part of XML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use quick_xml::{Reader, events::Event};

    use super::*;

    fn plot(shape: Shape) -> Plot {
        let line = |name: &str, factor: f64| Line {
            name: name.to_owned(),
            points: (0..5).map(|step| (f64::from(step) * 100.0, f64::from(step * step) * factor)).collect(),
            shape,
        };
        Plot {
            name: "example",
            title: "Hosts <complete> & \"done\"".to_owned(),
            alternative: "It rises.".to_owned(),
            horizontal: ("Time".to_owned(), Measure::Seconds),
            vertical: ("Hosts".to_owned(), Measure::Count("hosts")),
            lines: vec![line("one", 1.0), line("two", 3.0)],
            bounds: vec![(60.0, "limit".to_owned())],
        }
    }

    #[test]
    fn a_plot_is_drawn() {
        insta::assert_snapshot!(plot(Shape::Steps).inline());
    }

    #[test]
    fn every_shape_is_well_formed_and_inside_the_picture() {
        for shape in [Shape::Line, Shape::Steps, Shape::Marked, Shape::Bars] {
            let svg = plot(shape).file();
            let mut reader = Reader::from_str(&svg);
            let mut elements = 0;
            loop {
                match reader.read_event().unwrap() {
                    Event::Eof => break,
                    Event::Start(_) | Event::Empty(_) => elements += 1,
                    _ => {}
                }
            }
            assert!(elements > 20, "{shape:?}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn a_plot_of_nothing_is_drawn_too() {
        let mut empty = plot(Shape::Line);
        empty.lines.iter_mut().for_each(|line| line.points.clear());
        empty.bounds.clear();
        assert!(!empty.file().contains("NaN"));
        empty.lines.clear();
        assert!(empty.file().contains("It rises."));
    }
}
