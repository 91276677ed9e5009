//! Names unary requests that take long, once each, in the log.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};

/// Calls that last as long as their client wants.
const STREAMS: [&str; 6] = [
    "/etcdserverpb.Watch/",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.KV/RangeStream",
    "/v3lockpb.Lock/Lock",
    "/v3electionpb.Election/",
];

/// Whether a call that took this long is worth a line.
fn is_slow(path: &str, took: Duration, limit: Duration) -> bool {
    took > limit && !STREAMS.iter().any(|stream| path.starts_with(stream))
}

/// The routes, with a look at the clock around each request. A limit of zero looks at nothing.
pub(super) fn watch(routes: Router, limit: Duration) -> Router {
    if limit.is_zero() {
        return routes;
    }
    routes.layer(from_fn(move |request: Request, next: Next| async move {
        let path = request.uri().path().to_owned();
        let started = Instant::now();
        let response = next.run(request).await;
        note(&path, started.elapsed(), limit);
        response
    }))
}

/// Names a call if it was slow.
pub(super) fn note(path: &str, took: Duration, limit: Duration) {
    if is_slow(path, took, limit) {
        tracing::warn!(%path, took_ms = took.as_millis(), limit_ms = limit.as_millis(),
            "request took longer than expected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_slow_and_no_stream_is_named() {
        let limit = Duration::from_millis(300);
        let long = Duration::from_millis(301);
        assert!(is_slow("/etcdserverpb.KV/Range", long, limit));
        assert!(!is_slow("/etcdserverpb.KV/Range", limit, limit));
        assert!(!is_slow("/etcdserverpb.Watch/Watch", long, limit));
        assert!(!is_slow("/etcdserverpb.KV/RangeStream", long, limit));
    }
}
