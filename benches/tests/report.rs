//! What a report says of given results.

use pintle_benches::report::{html, text};
use pintle_benches::results::Results;

/// Two rounds of two workloads: one that both systems can do, one that the peer cannot.
const RESULTS: &str = r#"{
  "command": "pintle bench store --against etcd <quick>",
  "started": 1790000000,
  "machine": {"cpus": 2, "memory_mib": 24000, "kernel": "Linux 6.18"},
  "floor": {"fdatasync_us": 240.4, "round_trip_us": 31.25},
  "systems": [{"name": "pintle", "version": "0.1.0"}, {"name": "etcd", "version": "3.5.16"}],
  "workloads": [
    {"name": "put-1000", "about": "put of 256 B by 1,000 clients", "rounds": [
      [{"Ok": {"figures": {"throughput": 30000.0, "p99": 50000.0, "server_cpu": 0.03},
               "tail": [[0.0, 800], [1.0, 30000], [2.0, 50000]]}},
       {"Ok": {"figures": {"throughput": 10000.0, "p99": 200000.0, "server_cpu": 0.12},
               "tail": [[0.0, 900], [1.0, 90000], [2.0, 200000]]}}],
      [{"Ok": {"figures": {"throughput": 28000.0, "p99": 52000.0, "server_cpu": 0.031}}},
       {"Ok": {"figures": {"throughput": 11200.0, "p99": 190000.0, "server_cpu": 0.124}}}]]},
    {"name": "list-stream", "about": "a list", "rounds": [
      [{"Ok": {"figures": {"extra_memory": 4.5}, "notes": ["<streamed>"]}},
       {"Err": "unknown method RangeStream (gRPC code 12)"}]]}
  ]
}"#;

fn results() -> Results {
    serde_json::from_str(RESULTS).expect("as the current version writes it")
}

#[test]
fn the_terminal_shows_medians_and_the_spread_of_ratios() {
    assert_eq!(text(&results()), include_str!("report/terminal.txt"));
}

#[test]
fn the_page_holds_every_table_and_plot_and_needs_nothing_else() {
    let page = html(&results());
    assert_eq!(page.matches("<svg").count(), 2, "the overview, and the tail of the puts");
    assert!(page.contains("unknown method RangeStream"));
    assert!(page.contains("&lt;streamed&gt;") && page.contains("&lt;quick&gt;"));
    for outside in ["<script", "<link", "<img", "src=", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn the_tables_of_the_page() {
    let page = html(&results());
    let tables: Vec<&str> =
        page.split("<table>").skip(1).filter_map(|rest| rest.split("</table>").next()).collect();
    assert_eq!(tables.join("\n"), include_str!("report/tables.html"));
}

#[test]
fn results_survive_their_json() {
    let again: Results = serde_json::from_str(&serde_json::to_string(&results()).expect("JSON"))
        .expect("as it was written");
    assert_eq!(text(&again), text(&results()));
}
