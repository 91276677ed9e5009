//! `/health`, `/livez` and `/readyz`, as etcd has them: the first for load balancers of old, the
//! others with named checks that can be asked for one by one.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use parking_lot::Mutex;
use pintle_store_api::pb::{self, AlarmType};
use serde_json::json;

use super::only_get;
use crate::core::Core;
use crate::errors;

const TEXT: (header::HeaderName, &str) = (header::CONTENT_TYPE, "text/plain; charset=utf-8");

const NO_SNIFFING: (header::HeaderName, &str) = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");

/// One thing that can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, core: &Core) -> Result<(), String> {
        match self {
            Self::DataCorruption => no_corruption(core),
            Self::SerializableRead => read(core, true).await,
            Self::LinearizableRead => read(core, false).await,
            Self::NonLearner if core.is_learner() => Err("not supported for learner".to_owned()),
            Self::NonLearner => Ok(()),
        }
    }
}

/// A path with the checks behind it.
#[derive(Clone, Copy, Debug)]
struct Group {
    name: &'static str,
    checks: &'static [Check],
}

const LIVEZ: Group = Group { name: "livez", checks: &[Check::SerializableRead] };
const READYZ: Group = Group {
    name: "readyz",
    checks: &[
        Check::DataCorruption,
        Check::SerializableRead,
        Check::LinearizableRead,
        Check::NonLearner,
    ],
};

/// How often which check gave what.
#[derive(Debug, Default)]
pub(crate) struct HealthCounters {
    pub(crate) success: AtomicU64,
    pub(crate) failures: AtomicU64,
    checks: Mutex<std::collections::BTreeMap<(&'static str, &'static str), CheckCounter>>,
}

/// The answers of one check.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CheckCounter {
    pub(crate) last_ok: bool,
    pub(crate) success: u64,
    pub(crate) error: u64,
}

impl HealthCounters {
    fn record(&self, group: &'static str, check: &'static str, ok: bool) {
        let mut checks = self.checks.lock();
        let counter = checks.entry((group, check)).or_default();
        counter.last_ok = ok;
        *(if ok { &mut counter.success } else { &mut counter.error }) += 1;
    }

    /// Group, check and what it answered so far.
    pub(crate) fn checks(&self) -> Vec<(&'static str, &'static str, CheckCounter)> {
        let checks = self.checks.lock();
        checks.iter().map(|((group, check), counter)| (*group, *check, *counter)).collect()
    }
}

pub(super) fn router(core: &Arc<Core>) -> Router {
    let mut router = Router::new().route("/health", any(health));
    for group in [LIVEZ, READYZ] {
        let root = move |method, query, core| answer(method, query, core, group, None);
        router = router.route(&format!("/{}", group.name), any(root));
        for check in group.checks {
            let path = format!("/{}/{}", group.name, check.name());
            let one = move |method, query, core| answer(method, query, core, group, Some(*check));
            router = router.route(&path, any(one));
        }
    }
    router.with_state(Arc::clone(core))
}

/// The values of a query's parameter that are not empty.
fn values<'a>(query: &'a str, name: &str) -> HashSet<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value).collect()
}

fn is_set(query: &str, name: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some(name))
}

async fn answer(
    method: Method,
    RawQuery(query): RawQuery,
    State(core): State<Arc<Core>>,
    group: Group,
    only: Option<Check>,
) -> Response {
    if let Some(refusal) = only_get(&method) {
        return refusal;
    }
    let query = query.unwrap_or_default();
    let excluded = if only.is_none() { values(&query, "exclude") } else { HashSet::new() };
    let allowed = values(&query, "allowlist");
    let mut ok = true;
    let mut report = String::new();
    for check in group.checks.iter().filter(|check| only.is_none_or(|only| only == **check)) {
        let name = check.name();
        if excluded.contains(name) || !(allowed.is_empty() || allowed.contains(name)) {
            continue;
        }
        let result = check.run(&core).await;
        core.counters.health.record(group.name, name, result.is_ok());
        ok &= result.is_ok();
        report += &match result {
            Ok(()) => format!("[+]{name} ok\n"),
            Err(reason) => format!("[-]{name} failed: {reason}\n"),
        };
    }
    if !ok {
        tracing::warn!(group = group.name, report, "health check failed");
        return (StatusCode::SERVICE_UNAVAILABLE, [TEXT, NO_SNIFFING], report + "\n")
            .into_response();
    }
    let details = if is_set(&query, "verbose") { report } else { String::new() };
    ([TEXT, NO_SNIFFING], details + "ok\n").into_response()
}

async fn health(
    method: Method,
    RawQuery(query): RawQuery,
    State(core): State<Arc<Core>>,
) -> Response {
    if let Some(refusal) = only_get(&method) {
        return refusal;
    }
    let query = query.unwrap_or_default();
    let problem = problem(&core, &query).await;
    let (counter, code) = match problem {
        None => (&core.counters.health.success, StatusCode::OK),
        Some(_) => (&core.counters.health.failures, StatusCode::SERVICE_UNAVAILABLE),
    };
    counter.fetch_add(1, Ordering::Relaxed);
    let health = if problem.is_none() { "true" } else { "false" };
    // Only a failure ends its line, as in etcd.
    let end = if problem.is_none() { "" } else { "\n" };
    let body = json!({ "health": health, "reason": problem.unwrap_or_default() });
    (code, [TEXT, NO_SNIFFING], format!("{body}{end}")).into_response()
}

async fn problem(core: &Core, query: &str) -> Option<String> {
    let excluded = values(query, "exclude");
    let raised = core.reader().alarms();
    let counts = |alarm: &&pb::AlarmMember| !excluded.contains(alarm.alarm().as_str_name());
    if let Some(alarm) = raised.iter().find(counts) {
        return Some(format!("ALARM {}", alarm.alarm().as_str_name()));
    }
    let serializable = values(query, "serializable").contains("true");
    if !serializable && core.leadership.leader_id().is_none() {
        return Some("RAFT NO LEADER".to_owned());
    }
    read(core, serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

fn no_corruption(core: &Core) -> Result<(), String> {
    let corrupt = core.reader().alarms().iter().any(|alarm| alarm.alarm() == AlarmType::Corrupt);
    if corrupt { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
}

/// Reads as a client would, for nobody in particular.
async fn read(core: &Core, serializable: bool) -> Result<(), String> {
    if let Some(failure) = core.leadership.failure() {
        return Err(failure);
    }
    if !serializable {
        core.read_index.wait().await.map_err(|error| error.to_string())?;
    }
    let everything = bytes::Bytes::from_static(&[0]);
    let request = pb::RangeRequest {
        key: everything.clone(),
        range_end: everything,
        limit: 1,
        keys_only: true,
        ..Default::default()
    };
    let reader = core.reader().clone();
    let range = tokio::task::spawn_blocking(move || reader.range(&request));
    match tokio::time::timeout(core.config.request_timeout(), range).await {
        Ok(Ok(answer)) => answer.map(drop).map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(errors::TIMEOUT.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_each_value_once_and_empty_ones_never() {
        let query = "exclude=a&exclude=b&exclude=&verbose&exclude=a";
        assert_eq!(values(query, "exclude"), HashSet::from(["a", "b"]));
        assert!(values(query, "verbose").is_empty());
        assert!(is_set(query, "verbose"));
        assert!(!is_set(query, "verb"));
    }

    #[test]
    fn counters_tell_the_last_answer_and_all_of_them() {
        let counters = HealthCounters::default();
        counters.record("livez", "serializable_read", true);
        counters.record("livez", "serializable_read", false);
        let [(group, check, counter)] = counters.checks()[..] else { panic!("one check") };
        assert_eq!((group, check), ("livez", "serializable_read"));
        assert_eq!((counter.last_ok, counter.success, counter.error), (false, 1, 1));
    }
}
