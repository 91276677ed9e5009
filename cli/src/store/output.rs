//! Tables as etcd's tools draw them, and how much is left to do.

use std::io::IsTerminal;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How to write an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Columns under headings, in a frame.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect();
    let line = |cells: &[String]| -> String {
        let cell = |(cell, width): (&String, &usize)| format!("| {cell:>width$} ", width = *width);
        cells.iter().zip(&widths).map(cell).collect::<String>() + "|\n"
    };
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{rule}+\n{}{rule}+\n{body}{rule}+\n", line(&headings))
}

/// Bytes as etcd's tools write them: `2.1 MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut scaled = bytes as f64;
    let mut unit = 0;
    while scaled >= 1_000.0 && unit + 1 < UNITS.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    if unit == 0 || scaled >= 10.0 {
        return format!("{scaled:.0} {}", UNITS[unit]);
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// A bar on a terminal; nothing elsewhere.
pub(super) fn progress(what: &'static str, total: u64, bytes: bool) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = if bytes {
        "{msg:18} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
    } else {
        "{msg:18} {bar:30} {human_pos}/{human_len} {per_sec} {eta}"
    };
    bar.set_style(ProgressStyle::with_template(template).expect("a template of this program"));
    bar.set_message(what);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "12345".to_owned()]];
        let expected = "+------+-------+\n| NAME |     N |\n+------+-------+\n|    a | 12345 |\n+------+-------+\n";
        assert_eq!(table(&["NAME", "N"], &rows), expected);
    }

    #[test]
    fn sizes_have_two_digits() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (20_480, "20 kB"),
            (2_100_000, "2.1 MB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
