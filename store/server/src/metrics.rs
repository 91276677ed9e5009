//! What a monitoring system scrapes, under etcd's names where the meaning carries over, so that
//! etcd's dashboards and alerts work.

mod calls;
mod histogram;
mod process;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub(crate) use self::calls::{Call, Calls};
pub(crate) use self::histogram::Histogram;
use crate::VERSION;
use crate::core::Core;

/// The first bound of what a disk does, as in etcd.
pub(crate) const DISK_FIRST: Duration = Duration::from_millis(1);

pub(crate) fn router(core: Arc<Core>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(core)
}

async fn metrics(State(core): State<Arc<Core>>) -> Response {
    let text = tokio::task::spawn_blocking(move || render(&core)).await;
    let text = text.unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The text format, as it grows.
struct Text(String);

impl Text {
    fn family(&mut self, kind: &str, name: &str, help: &str) {
        self.0 += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn series(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        self.0 += &format!("{name}{labels} {value}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family("gauge", name, help);
        self.series(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family("counter", name, help);
        self.series(name, &[], value);
    }

    fn count(&mut self, name: &str, help: &str, value: &AtomicU64) {
        self.counter(name, help, value.load(Ordering::Relaxed));
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family("histogram", name, help);
        histogram.write(name, "", &mut self.0);
    }
}

fn render(core: &Core) -> String {
    let mut text = Text(String::new());
    server(core, &mut text);
    proposals(core, &mut text);
    health(core, &mut text);
    keyspace(core, &mut text);
    disk(core, &mut text);
    peers(core, &mut text);
    core.counters.calls.write(core.config.web.extensive_metrics, &mut text.0);
    process::write(&mut text);
    text.0
}

fn server(core: &Core, text: &mut Text) {
    let leadership = &core.leadership;
    let counters = &core.counters;
    let has_leader = u8::from(*core.has_leader.borrow());
    text.gauge("etcd_server_has_leader", "Whether a leader exists.", has_leader);
    let leads = u8::from(leadership.is_leader());
    text.gauge("etcd_server_is_leader", "Whether this member leads.", leads);
    let learns = u8::from(core.is_learner());
    text.gauge("etcd_server_is_learner", "Whether this member is a learner.", learns);
    let id = format!("{:x}", core.identity.member_id);
    text.family("gauge", "etcd_server_id", "Server or member ID in hexadecimal format.");
    text.series("etcd_server_id", &[("server_id", &id)], 1);
    text.family("gauge", "etcd_server_version", "The version of the API.");
    text.series("etcd_server_version", &[("server_version", VERSION)], 1);
    let name = "etcd_server_leader_changes_seen_total";
    text.count(name, "Leaders seen by this member.", &counters.leader_changes);
    let name = "etcd_server_snapshot_apply_total";
    text.count(name, "Snapshots of a leader that were installed.", &core.state.installs);
}

fn proposals(core: &Core, text: &mut Text) {
    let leadership = &core.leadership;
    let name = "etcd_server_proposals_committed_total";
    text.gauge(name, "The newest entry of the log.", leadership.last_index());
    let name = "etcd_server_proposals_applied_total";
    text.gauge(name, "The newest applied entry of the log.", core.applied_index());
    let name = "etcd_server_proposals_pending";
    text.gauge(name, "Commands that wait to be proposed.", core.proposer.pending());
    let name = "etcd_server_proposals_failed_total";
    text.count(name, "Commands that were not acknowledged.", &core.counters.proposals_failed);
    let name = "pintle_raft_log_purged_index";
    text.gauge(name, "The entry up to which the log has been cut.", leadership.purged_index());
}

fn health(core: &Core, text: &mut Text) {
    let health = &core.counters.health;
    text.count("etcd_server_health_success", "Health checks that succeeded.", &health.success);
    text.count("etcd_server_health_failures", "Health checks that failed.", &health.failures);
    let checks = health.checks();
    text.family("gauge", "etcd_server_healthcheck", "The result of each kind of healthcheck.");
    for (group, check, counter) in &checks {
        let labels = [("type", *group), ("name", *check)];
        text.series("etcd_server_healthcheck", &labels, u8::from(counter.last_ok));
    }
    let name = "etcd_server_healthchecks_total";
    text.family("counter", name, "The total number of each kind of healthcheck.");
    for (group, check, counter) in checks {
        for (status, count) in [("success", counter.success), ("error", counter.error)] {
            let labels = [("type", group), ("name", check), ("status", status)];
            text.series(name, &labels, count);
        }
    }
}

fn keyspace(core: &Core, text: &mut Text) {
    let counters = &core.counters;
    let reader = core.reader();
    for (what, help, count) in [
        ("put", "Puts seen by this member.", &counters.puts),
        ("delete", "Deletes seen by this member.", &counters.deletes),
        ("txn", "Transactions seen by this member.", &counters.txns),
        ("range", "Ranges seen by this member.", &counters.ranges),
    ] {
        text.count(&format!("etcd_mvcc_{what}_total"), help, count);
        text.count(&format!("etcd_debugging_mvcc_{what}_total"), help, count);
    }
    let (watchers, slow) = core.hub.watchers_and_slow();
    text.gauge("etcd_debugging_mvcc_watcher_total", "Watchers of this member.", watchers);
    let name = "etcd_debugging_mvcc_slow_watcher_total";
    text.gauge(name, "Watchers with events that they have not looked at.", slow);
    let name = "etcd_debugging_mvcc_events_total";
    text.counter(name, "Events given to the watchers of this member.", core.hub.events());
    let name = "etcd_debugging_mvcc_current_revision";
    text.gauge(name, "The current revision.", reader.current_revision());
    text.gauge(
        "etcd_debugging_auth_revision",
        "The revision of users and roles.",
        reader.auth().revision(),
    );
    let name = "etcd_debugging_mvcc_compact_revision";
    text.gauge(name, "The compact floor.", reader.compact_revision());
    text.gauge("etcd_debugging_mvcc_keys_total", "Living keys.", reader.key_count());
    // What cannot be read is left out rather than told wrong.
    if let Ok(bytes) = reader.db_size() {
        text.gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the database.", bytes);
    }
    let name = "etcd_mvcc_db_total_size_in_use_in_bytes";
    text.gauge(name, "Bytes of living keys and values.", reader.live_bytes());
}

fn disk(core: &Core, text: &mut Text) {
    let name = "etcd_disk_wal_fsync_duration_seconds";
    text.histogram(name, "Synced writes of the log.", &core.log.stats().fsyncs);
    let name = "etcd_disk_backend_commit_duration_seconds";
    text.histogram(name, "Batches applied and written to the state.", &core.state.commits);
}

fn peers(core: &Core, text: &mut Text) {
    let calls = &core.counters.calls;
    let name = "etcd_network_client_grpc_received_bytes_total";
    text.count(name, "Bytes received from gRPC clients.", &calls.received_bytes);
    let name = "etcd_network_client_grpc_sent_bytes_total";
    text.count(name, "Bytes sent to gRPC clients.", &calls.sent_bytes);
    let all = core.peers.traffic.all();
    for (name, label, help) in [
        ("etcd_network_peer_sent_bytes_total", "To", "Log entries sent to members, in bytes."),
        ("etcd_network_peer_received_bytes_total", "From", "Log entries of members, in bytes."),
        ("etcd_network_peer_sent_failures_total", "To", "Requests to members that failed."),
        ("etcd_network_snapshot_send_success", "To", "Snapshots that members have installed."),
    ] {
        text.family("counter", name, help);
        for (member, traffic) in &all {
            let count = match (label, name) {
                ("From", _) => &traffic.received_bytes,
                (_, "etcd_network_peer_sent_bytes_total") => &traffic.sent_bytes,
                (_, "etcd_network_peer_sent_failures_total") => &traffic.sent_failures,
                _ => &traffic.sent_snapshots,
            };
            let member = format!("{member:x}");
            text.series(name, &[(label, &member)], count.load(Ordering::Relaxed));
        }
    }
    let name = "pintle_raft_append_streams_total";
    text.family("counter", name, "Streams of log entries opened to members, and over what.");
    for (member, traffic) in &all {
        let member = format!("{member:x}");
        for (over, count) in [("frames", &traffic.framed_streams), ("grpc", &traffic.grpc_streams)]
        {
            let labels = [("To", member.as_str()), ("over", over)];
            text.series(name, &labels, count.load(Ordering::Relaxed));
        }
    }
    let name = "etcd_network_peer_round_trip_time_seconds";
    text.family("histogram", name, "How long small requests to members take.");
    for (member, traffic) in all {
        traffic.round_trips.write(name, &format!("To=\"{member:x}\","), &mut text.0);
    }
}
