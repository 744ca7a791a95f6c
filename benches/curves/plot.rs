//! Curves on paper with both axes logarithmic, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 220.0;
/// Around a panel's field: left, top, right, bottom.
const MARGIN: [f64; 4] = [56.0, 40.0, 32.0, 40.0];

/// One figure by the number of instances.
#[derive(Debug)]
pub struct Curve {
    pub title: &'static str,
    pub unit: &'static str,
    pub points: Vec<(usize, f64)>,
}

impl Curve {
    pub fn new(title: &'static str, unit: &'static str) -> Self {
        Self { title, unit, points: Vec::new() }
    }

    pub fn push(&mut self, instances: usize, figure: f64) {
        self.points.push((instances, figure));
    }
}

/// All of them side by side.
pub fn drawn(curves: &[Curve]) -> String {
    let width = WIDTH * curves.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\" role=\"img\" aria-label=\"cost by number of instances\">\n\
         <rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for (place, curve) in curves.iter().enumerate() {
        panel(&mut svg, WIDTH * place as f64, curve);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where things are in one panel.
struct Field {
    left: f64,
    x: [f64; 2],
    y: [f64; 2],
}

impl Field {
    fn of(left: f64, curve: &Curve) -> Self {
        let decades = |values: Vec<f64>| {
            let low = values.iter().copied().fold(f64::MAX, f64::min).max(1e-3).log10().floor();
            let high = values.iter().copied().fold(0.0, f64::max).max(1e-3).log10().ceil();
            [low, high.max(low + 1.0)]
        };
        let x = decades(curve.points.iter().map(|(instances, _)| *instances as f64).collect());
        let y = decades(curve.points.iter().map(|(_, figure)| *figure).collect());
        Self { left, x, y }
    }

    fn x(&self, value: f64) -> f64 {
        let share = (value.log10() - self.x[0]) / (self.x[1] - self.x[0]);
        self.left + MARGIN[0] + share * (WIDTH - MARGIN[0] - MARGIN[2])
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value.max(1e-3).log10() - self.y[0]) / (self.y[1] - self.y[0]);
        HEIGHT - MARGIN[3] - share * (HEIGHT - MARGIN[1] - MARGIN[3])
    }
}

fn panel(svg: &mut String, left: f64, curve: &Curve) {
    let field = Field::of(left, curve);
    let middle = left + (WIDTH + MARGIN[0] - MARGIN[2]) / 2.0;
    writeln!(
        svg,
        "<text x=\"{middle}\" y=\"22\" text-anchor=\"middle\" font-weight=\"bold\">{}, {}</text>",
        curve.title, curve.unit
    )
    .unwrap();
    writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">instances</text>", HEIGHT - 8.0).unwrap();
    for exponent in whole(field.x) {
        let (value, bottom) = (10_f64.powi(exponent), HEIGHT - MARGIN[3]);
        let x = field.x(value);
        writeln!(svg, "<path d=\"M{x:.1} {bottom}V{}\" stroke=\"#ddd\"/>", MARGIN[1]).unwrap();
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 14.0, plain(value))
            .unwrap();
    }
    for exponent in whole(field.y) {
        let value = 10_f64.powi(exponent);
        let (y, from) = (field.y(value), left + MARGIN[0]);
        writeln!(svg, "<path d=\"M{from} {y:.1}H{}\" stroke=\"#ddd\"/>", left + WIDTH - MARGIN[2]).unwrap();
        let text = plain(value);
        writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", from - 4.0, y + 4.0).unwrap();
    }
    let points: Vec<(f64, f64)> = curve.points.iter().map(|(x, y)| (field.x(*x as f64), field.y(*y))).collect();
    let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#0b66c3\" stroke-width=\"2\"/>", line.join(" "))
        .unwrap();
    for ((x, y), (_, figure)) in points.iter().zip(&curve.points) {
        writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#0b66c3\"/>").unwrap();
        // The first one stands on the axis, whose own labels are to its left.
        let (from, anchor) = if *x < field.left + MARGIN[0] + 1.0 { (x + 4.0, "start") } else { (*x, "middle") };
        let text = plain(*figure);
        writeln!(svg, "<text x=\"{from:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>", y - 8.0).unwrap();
    }
}

/// A figure as one reads it: 0.01, 8.2, 31, 100,000.
fn plain(figure: f64) -> String {
    if figure < 10.0 && figure.fract() != 0.0 {
        let text = format!("{figure:.3}");
        let digits = if figure < 1.0 { text.trim_end_matches('0') } else { &text[..3] };
        return digits.to_owned();
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The whole numbers from one end to the other.
fn whole([from, to]: [f64; 2]) -> impl Iterator<Item = i32> {
    #[allow(clippy::cast_possible_truncation)] // a few decades
    let (from, to) = (from as i32, to as i32);
    from..=to
}
