//! One page that needs nothing beside itself.

use std::fmt::Write;

use super::plot::{overview, tails};
use super::text::ratio_text;
use super::{number, with_unit};
use crate::results::{Better, Measured, Named, Results, Row};
use crate::statistics::Spread;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:860px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2.2em;border-top:1px solid #ddd;padding-top:1em}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.15em .9em .15em 0;text-align:right}\
td:first-child,th:first-child{text-align:left}th{font-weight:600;border-bottom:1px solid #999}\
.spread{color:#777;font-size:.85em}.good{color:#17692b}.bad{color:#a1260d}code{background:#f3f3f3;padding:.1em .3em}svg{max-width:100%;height:auto}";

/// The page.
pub fn html(results: &Results) -> String {
    let names: Vec<&str> = results.systems.iter().map(|system| system.name.as_str()).collect();
    let title = escape(&names.join(" beside "));
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    out += &head(results);
    if let Some(plot) = overview(results) {
        out += &plot;
    }
    for measured in &results.workloads {
        out += &section(measured, &results.systems);
    }
    out + "</body></html>\n"
}

fn head(results: &Results) -> String {
    let machine = &results.machine;
    let versions: Vec<String> = results
        .systems
        .iter()
        .map(|system| format!("{} {}", system.name, system.version))
        .collect();
    format!(
        "<p>{}. {} processors, {} MiB of memory, {}. A synced append takes {} µs on this disk, a loopback round trip {} µs.</p>\n<p><code>{}</code></p>\n",
        escape(&versions.join(", ")),
        machine.cpus,
        machine.memory_mib,
        escape(&machine.kernel),
        number(results.floor.fdatasync_us),
        number(results.floor.round_trip_us),
        escape(&results.command),
    )
}

fn section(measured: &Measured, systems: &[Named]) -> String {
    let mut out = format!(
        "<h2 id=\"{0}\">{0}</h2>\n<p>{1}. {2} rounds; medians, and the spread over the rounds.</p>\n",
        escape(&measured.name),
        escape(&measured.about),
        measured.rounds.len(),
    );
    let rows = measured.rows();
    if !rows.is_empty() {
        out += "<table><tr><th></th>";
        for system in systems {
            write!(out, "<th>{}</th>", escape(&system.name)).expect("a string takes everything");
        }
        out += if systems.len() > 1 { "<th>ratio</th></tr>\n" } else { "</tr>\n" };
        rows.iter().for_each(|row| out += &table_row(row, systems.len()));
        out += "</table>\n";
    }
    for (system, remark) in measured.remarks() {
        let name = systems.get(system).map_or("?", |named| named.name.as_str());
        writeln!(out, "<p>{}: {}</p>", escape(name), escape(&remark))
            .expect("a string takes everything");
    }
    out + &tails(measured, systems).unwrap_or_default()
}

fn table_row(row: &Row, systems: usize) -> String {
    let shown = row.metric.describe();
    let mut out = format!("<tr><td>{}</td>", shown.name);
    for system in 0..systems {
        out += "<td>";
        match row.systems.get(system).copied().flatten() {
            Some(Spread { min, median, max }) => {
                out += &with_unit(median, shown.unit);
                if min < max {
                    out += &format!(
                        " <span class=\"spread\">{} to {}</span>",
                        number(min),
                        number(max)
                    );
                }
            }
            None => out += "–",
        }
        out += "</td>";
    }
    if systems > 1 {
        match &row.ratio {
            Some(ratio) => {
                out += &format!(
                    "<td class=\"{}\">{}</td>",
                    judge(shown.better, ratio),
                    ratio_text(ratio)
                );
            }
            None => out += "<td>–</td>",
        }
    }
    out + "</tr>\n"
}

/// Coloured only where all rounds agree.
fn judge(better: Better, ratio: &Spread) -> &'static str {
    let (above, below) = (ratio.min > 1.0, ratio.max < 1.0);
    match better {
        Better::Higher if above => "good",
        Better::Higher if below => "bad",
        Better::Lower if below => "good",
        Better::Lower if above => "bad",
        _ => "",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
