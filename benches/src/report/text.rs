//! Tables for a terminal.

use std::fmt::Write;

use super::{number, with_unit};
use crate::results::{Measured, Named, Results, Row};
use crate::statistics::Spread;

/// Everything.
pub fn text(results: &Results) -> String {
    let mut out = head(results);
    for measured in &results.workloads {
        out.push('\n');
        out += &workload_text(measured, &results.systems);
    }
    out
}

fn head(results: &Results) -> String {
    let machine = &results.machine;
    let floor = &results.floor;
    let systems: Vec<String> =
        results.systems.iter().map(|one| format!("{} {}", one.name, one.version)).collect();
    format!(
        "{}\n{} processors, {} MiB, {}\nfloor: fdatasync {} µs, loopback round trip {} µs\n",
        systems.join(" beside "),
        machine.cpus,
        machine.memory_mib,
        machine.kernel,
        number(floor.fdatasync_us),
        number(floor.round_trip_us),
    )
}

/// One workload's table.
pub fn workload_text(measured: &Measured, systems: &[Named]) -> String {
    let rows = measured.rows();
    let mut lines = vec![title(systems)];
    lines.extend(rows.iter().map(|row| cells(row, systems.len())));
    let mut out = format!("{}: {}\n", measured.name, measured.about);
    if !rows.is_empty() {
        out += &aligned(&lines);
    }
    for (system, remark) in measured.remarks() {
        let name = systems.get(system).map_or("?", |named| named.name.as_str());
        writeln!(out, "  {name}: {remark}").expect("a string takes everything");
    }
    out
}

fn title(systems: &[Named]) -> Vec<String> {
    let mut title = vec![String::new()];
    title.extend(systems.iter().map(|system| system.name.clone()));
    if systems.len() > 1 {
        title.push("ratio (least to most)".to_owned());
    }
    title
}

fn cells(row: &Row, systems: usize) -> Vec<String> {
    let shown = row.metric.describe();
    let of = |spread: &Option<Spread>| {
        spread.map_or("–".to_owned(), |spread| with_unit(spread.median, shown.unit))
    };
    let mut cells = vec![shown.name.to_owned()];
    cells.extend((0..systems).map(|system| of(row.systems.get(system).unwrap_or(&None))));
    if systems > 1 {
        cells.push(row.ratio.map_or("–".to_owned(), |ratio| ratio_text(&ratio)));
    }
    cells
}

/// `3.1 (2.9 to 3.3)`.
pub(super) fn ratio_text(ratio: &Spread) -> String {
    let Spread { min, median, max } = ratio;
    format!("{} ({} to {})", number(*median), number(*min), number(*max))
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let cell =
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            text += "  ";
            text += &cell;
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}
