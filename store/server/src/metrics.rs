//! What a monitoring system scrapes, under etcd's names.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::VERSION;
use crate::core::Core;

pub(crate) fn router(core: Arc<Core>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(core)
}

async fn metrics(State(core): State<Arc<Core>>) -> Response {
    let text = tokio::task::spawn_blocking(move || render(&core)).await;
    let text = text.unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

struct Text(String);

impl Text {
    fn metric(&mut self, kind: &str, name: &str, help: &str, value: impl Display) {
        self.0 += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric("gauge", name, help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric("counter", name, help, value);
    }
}

fn render(core: &Core) -> String {
    let mut text = Text(String::new());
    server(core, &mut text);
    state(core, &mut text);
    disk(core, &mut text);
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
    text.counter(
        "etcd_server_leader_changes_seen_total",
        "Leaders seen by this member.",
        counters.leader_changes.load(Ordering::Relaxed),
    );
    text.gauge(
        "etcd_server_proposals_committed_total",
        "The newest entry of the log.",
        leadership.last_index(),
    );
    text.gauge(
        "etcd_server_proposals_applied_total",
        "The newest applied entry of the log.",
        core.applied_index(),
    );
    text.gauge(
        "etcd_server_proposals_pending",
        "Commands that wait to be proposed.",
        core.proposer.pending(),
    );
    text.counter(
        "etcd_server_proposals_failed_total",
        "Commands that were not acknowledged.",
        counters.proposals_failed.load(Ordering::Relaxed),
    );
    text.gauge(
        "pintle_raft_log_purged_index",
        "The entry up to which the log has been cut.",
        leadership.purged_index(),
    );
    text.counter(
        "etcd_server_snapshot_apply_total",
        "Snapshots received from a leader and installed.",
        core.state.installs.load(Ordering::Relaxed),
    );
    text.0 += &format!(
        "# HELP etcd_server_version The version of the API.\n# TYPE etcd_server_version gauge\n\
         etcd_server_version{{server_version=\"{VERSION}\"}} 1\n"
    );
}

fn state(core: &Core, text: &mut Text) {
    let counters = &core.counters;
    let reader = core.reader();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    text.counter(
        "etcd_debugging_mvcc_put_total",
        "Puts seen by this member.",
        load(&counters.puts),
    );
    text.counter(
        "etcd_debugging_mvcc_delete_total",
        "Deletes seen by this member.",
        load(&counters.deletes),
    );
    text.counter(
        "etcd_debugging_mvcc_txn_total",
        "Transactions seen by this member.",
        load(&counters.txns),
    );
    text.counter(
        "etcd_debugging_mvcc_range_total",
        "Ranges seen by this member.",
        load(&counters.ranges),
    );
    text.gauge(
        "etcd_debugging_mvcc_watcher_total",
        "Watchers of this member.",
        core.hub.watchers(),
    );
    text.gauge(
        "etcd_debugging_mvcc_current_revision",
        "The current revision.",
        reader.current_revision(),
    );
    // What cannot be read is left out rather than told wrong.
    if let Ok(floor) = reader.compact_revision() {
        text.gauge("etcd_debugging_mvcc_compact_revision", "The compact floor.", floor);
    }
    if let Ok(keys) = reader.key_count() {
        text.gauge("etcd_debugging_mvcc_keys_total", "Living keys.", keys);
    }
    if let Ok(bytes) = reader.db_size() {
        text.gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the database.", bytes);
    }
    if let Ok(bytes) = reader.live_bytes() {
        text.gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes of living keys and values.",
            bytes,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sum of durations, exact for 285 years")]
fn disk(core: &Core, text: &mut Text) {
    let stats = core.log.stats();
    let name = "etcd_disk_wal_fsync_duration_seconds";
    let count = stats.fsyncs.load(Ordering::Relaxed);
    let seconds = stats.fsync_micros.load(Ordering::Relaxed) as f64 / 1e6;
    text.0 += &format!(
        "# HELP {name} Synced writes of the log.\n# TYPE {name} summary\n\
         {name}_sum {seconds}\n{name}_count {count}\n"
    );
}
