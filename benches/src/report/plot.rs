//! Plots, as SVG texts to be put into a page.

use plotters::prelude::*;

use crate::results::{Better, Measured, Metric, Named, Results, Sample};
use crate::statistics::Spread;

/// Told apart also without colours: one is much darker.
const COLORS: [RGBColor; 3] =
    [RGBColor(0x1f, 0x4e, 0x9d), RGBColor(0xe0, 0x8a, 0x1e), RGBColor(0x50, 0x50, 0x50)];
const WIDTH: u32 = 760;

/// What plotters calls an error of drawing; a string takes everything, so none is expected.
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn svg(
    height: u32,
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn,
) -> String {
    let mut out = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut out, (WIDTH, height)).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?))
    };
    match drawn {
        Ok(()) => out,
        Err(error) => format!("<p>no plot: {error}</p>"),
    }
}

/// The figure that tells the most about a workload.
fn headline(measured: &Measured) -> Option<(Metric, Spread)> {
    use Metric::{ExtraMemory, Gap, Memory, MemoryPerWatcher, P50, Throughput, Time};
    let rows = measured.rows();
    [Gap, Time, MemoryPerWatcher, Memory, ExtraMemory, Throughput, P50].into_iter().find_map(
        |metric| {
            let row = rows.iter().find(|row| row.metric == metric)?;
            Some((metric, row.ratio?))
        },
    )
}

/// How many times better the first system is: above 1 it is.
fn advantage(metric: Metric, ratio: &Spread) -> Spread {
    match metric.describe().better {
        Better::Lower => {
            let inverse = |value: f64| 1.0 / value.max(1e-6);
            Spread {
                min: inverse(ratio.max),
                median: inverse(ratio.median),
                max: inverse(ratio.min),
            }
        }
        Better::Higher | Better::Neither => *ratio,
    }
}

/// One line a workload: how many times better ours is, with its spread. `None` without a peer.
pub(super) fn overview(results: &Results) -> Option<String> {
    let lines: Vec<(String, Spread)> = results
        .workloads
        .iter()
        .filter_map(|measured| {
            let (metric, ratio) = headline(measured)?;
            let name = format!("{}: {}", measured.name, metric.describe().name);
            Some((name, advantage(metric, &ratio)))
        })
        .collect();
    if lines.is_empty() {
        return None;
    }
    let height = 70 + 26 * u32::try_from(lines.len()).unwrap_or(1);
    Some(svg(height, |area| draw_overview(area, &lines)))
}

fn draw_overview(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    lines: &[(String, Spread)],
) -> Drawn {
    let least = lines.iter().map(|line| line.1.min).fold(0.5, f64::min) * 0.8;
    let most = lines.iter().map(|line| line.1.max).fold(2.0, f64::max) * 1.25;
    let count = lines.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(330)
        .build_cartesian_2d((least..most).log_scale(), 0.0..count)?;
    let label = |y: &f64| {
        let place = (count - y).floor();
        let on_line = (y.fract() - 0.5).abs() < 0.01;
        let line = if on_line && place >= 0.0 { lines.get(place as usize) } else { None };
        line.map_or(String::new(), |line| line.0.clone())
    };
    chart
        .configure_mesh()
        .disable_mesh()
        .y_labels(2 * lines.len() + 1)
        .y_label_formatter(&label)
        .x_label_formatter(&|x| super::number(*x))
        .x_desc("times better than the peer")
        .draw()?;
    chart.draw_series(LineSeries::new([(1.0, 0.0), (1.0, count)], BLACK.mix(0.4)))?;
    for (place, (_, spread)) in lines.iter().enumerate() {
        let y = count - place as f64 - 0.5;
        let color = COLORS[0];
        chart.draw_series(LineSeries::new(
            [(spread.min, y), (spread.max, y)],
            color.stroke_width(2),
        ))?;
        chart.draw_series([Circle::new((spread.median, y), 4, color.filled())])?;
    }
    Ok(())
}

/// The latency of each system at 90 %, 99 %, …, a line a round. `None` where none was measured.
pub(super) fn tails(measured: &Measured, systems: &[Named]) -> Option<String> {
    let lines: Vec<(usize, &Sample)> = (measured.rounds.iter())
        .flat_map(|round| round.iter().enumerate())
        .filter_map(|(system, sample)| Some((system, sample.as_ref().ok()?)))
        .filter(|(_, sample)| sample.tail.len() > 1)
        .collect();
    if lines.is_empty() {
        return None;
    }
    Some(svg(260, |area| draw_tails(area, &lines, systems)))
}

fn draw_tails(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    lines: &[(usize, &Sample)],
    systems: &[Named],
) -> Drawn {
    let points = || lines.iter().flat_map(|line| line.1.tail.iter());
    let nines = points().map(|point| point.0).fold(1.0, f64::max);
    let least = points().map(|point| point.1.max(1) as f64).fold(f64::MAX, f64::min) * 0.8;
    let most = points().map(|point| point.1.max(1) as f64).fold(1.0, f64::max) * 1.25;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..nines, (least..most).log_scale())?;
    let percent = |nines: &f64| format!("{} %", super::number(100.0 * (1.0 - 10f64.powf(-nines))));
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&percent)
        .y_label_formatter(&|micros| super::with_unit(*micros / 1e3, "ms"))
        .y_desc("latency")
        .draw()?;
    let mut named = [false; COLORS.len()];
    for (system, sample) in lines {
        let color = COLORS[system % COLORS.len()];
        let tail = sample.tail.iter().map(|(nines, micros)| (*nines, (*micros).max(1) as f64));
        let series = chart.draw_series(LineSeries::new(tail, color.stroke_width(2)))?;
        if let Some(first) = named.get_mut(*system)
            && !std::mem::replace(first, true)
        {
            let name = systems.get(*system).map_or("?", |named| named.name.as_str());
            series.label(name).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
            });
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}
