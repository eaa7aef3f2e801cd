//! Answers per second as a picture, faults shaded.

use std::fmt::Write;

use crate::nemesis::Kind;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 26.0;

/// An SVG: a line of `per_second`, and each fault from its begin to its end in microseconds.
pub fn throughput(per_second: &[usize], faults: &[(u64, u64, Kind)]) -> String {
    draw(per_second, faults).expect("memory can be written")
}

fn draw(per_second: &[usize], faults: &[(u64, u64, Kind)]) -> Result<String, std::fmt::Error> {
    let seconds = per_second.len().max(1) as f64;
    let most = per_second.iter().copied().max().unwrap_or(0).max(1) as f64;
    let x = |second: f64| LEFT + (WIDTH - LEFT - 8.0) * (second / seconds).clamp(0.0, 1.0);
    let y = |count: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - count / most);
    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">"#
    )?;
    writeln!(svg, r#"<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#)?;
    for (from_us, until_us, kind) in faults {
        let (from, until) = (x(*from_us as f64 / 1e6), x(*until_us as f64 / 1e6));
        let (width, height) = ((until - from).max(1.0), y(0.0) - TOP);
        writeln!(
            svg,
            r#"<rect x="{from:.1}" y="{TOP}" width="{width:.1}" height="{height:.1}" fill="{}" opacity="0.35"><title>{}</title></rect>"#,
            colour(*kind),
            kind.as_str(),
        )?;
    }
    let points: Vec<String> = per_second
        .iter()
        .enumerate()
        .map(|(second, count)| format!("{:.1},{:.1}", x(second as f64 + 0.5), y(*count as f64)))
        .collect();
    writeln!(svg, r##"<polyline fill="none" stroke="#1f2937" stroke-width="1.5" points="{}"/>"##, points.join(" "))?;
    writeln!(svg, r##"<path d="M{LEFT} {TOP}V{0}H{1}" fill="none" stroke="#6b7280"/>"##, y(0.0), x(seconds))?;
    for part in 0..=4 {
        let count = (most * f64::from(part) / 4.0).round();
        writeln!(svg, r#"<text x="{}" y="{:.1}" text-anchor="end">{count}</text>"#, LEFT - 5.0, y(count) + 4.0)?;
    }
    for part in 0..=8 {
        let second = (seconds * f64::from(part) / 8.0).round();
        writeln!(svg, r#"<text x="{:.1}" y="{}" text-anchor="middle">{second} s</text>"#, x(second), HEIGHT - 16.0)?;
    }
    let mut at = LEFT;
    let mut kinds: Vec<Kind> = faults.iter().map(|(_, _, kind)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        writeln!(svg, r#"<rect x="{at}" y="6" width="10" height="10" fill="{}" opacity="0.6"/>"#, colour(kind))?;
        writeln!(svg, r#"<text x="{}" y="15">{}</text>"#, at + 14.0, kind.as_str())?;
        at += 100.0;
    }
    writeln!(svg, "</svg>")?;
    Ok(svg)
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Kill => "#ef4444",
        Kind::Pause => "#f59e0b",
        Kind::Partition => "#8b5cf6",
        Kind::Restart => "#3b82f6",
        Kind::Wipe => "#ec4899",
        Kind::Corrupt => "#84cc16",
        Kind::Membership => "#14b8a6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_is_a_point_and_each_fault_a_rectangle() {
        let svg = throughput(&[10, 0, 20], &[(500_000, 1_500_000, Kind::Kill), (2_000_000, 2_500_000, Kind::Wipe)]);
        assert_eq!(svg.matches("<title>").count(), 2);
        let points = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        assert_eq!(points.split(' ').count(), 3);
        // Nothing is answered: at the bottom. Most: at the top.
        assert!(points.contains(",226.0 ") && points.ends_with(",26.0"), "{points}");
        assert!(throughput(&[], &[]).ends_with("</svg>\n"));
    }
}
