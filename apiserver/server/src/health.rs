//! `/healthz`, `/livez`, `/readyz`, with `?verbose` and `?exclude=`, and one check alone by path.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::http::{Response, Server, text};
use crate::request_info::Query;

/// A store that does not answer within this is down.
const STORE_WAIT: Duration = Duration::from_secs(2);

/// What is known without asking anybody.
#[derive(Debug, Default)]
pub(crate) struct Health {
    bootstrapped: AtomicBool,
}

/// One check: its name, and what is wrong.
type Check = (&'static str, Result<(), &'static str>);

impl Health {
    /// The bootstrap objects are there.
    pub(crate) fn bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Release);
    }

    pub(crate) async fn respond(
        &self,
        server: &Server,
        segments: &[&str],
        query: &Query,
    ) -> Response {
        let endpoint = segments[0];
        let mut checks = self.checks(server, endpoint).await;
        if let [_, name, ..] = segments {
            checks.retain(|(check, _)| check == name);
            if checks.is_empty() {
                return text(404, "404 page not found\n");
            }
        }
        render(endpoint, &checks, query)
    }

    async fn checks(&self, server: &Server, endpoint: &str) -> Vec<Check> {
        let mut checks: Vec<Check> = vec![("ping", Ok(()))];
        if endpoint == "livez" {
            return checks;
        }
        let index = server.registry.storage().store().read_index();
        let answered = tokio::time::timeout(STORE_WAIT, index).await;
        let reached = matches!(answered, Ok(Ok(_)));
        checks.push(("etcd", if reached { Ok(()) } else { Err("the store has no leader") }));
        if endpoint == "readyz" {
            let ready = |good: bool, why| if good { Ok(()) } else { Err(why) };
            let bootstrapped = self.bootstrapped.load(Ordering::Acquire);
            checks.push((
                "informer-sync",
                ready(server.registry.caches().are_ready(), "caches are filling"),
            ));
            checks.push((
                "poststarthook/rbac/bootstrap-roles",
                ready(bootstrapped, "bootstrap objects are being created"),
            ));
            checks.push(("shutdown", ready(!server.shutdown.is_cancelled(), "shutting down")));
        }
        checks
    }
}

fn render(endpoint: &str, checks: &[Check], query: &Query) -> Response {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = false;
    for (name, result) in checks {
        let line = match result {
            _ if excluded.contains(name) => format!("[+]{name} excluded: ok\n"),
            Ok(()) => format!("[+]{name} ok\n"),
            Err(_) => {
                failed = true;
                format!("[-]{name} failed: reason withheld\n")
            }
        };
        lines.push_str(&line);
    }
    for (name, why) in checks.iter().filter_map(|(name, result)| Some((name, result.err()?))) {
        tracing::debug!(endpoint, name, why, "health check failed");
    }
    if failed {
        return text(500, format!("{lines}{endpoint} check failed\n"));
    }
    if query.get("verbose").is_some() {
        return text(200, format!("{lines}{endpoint} check passed\n"));
    }
    text(200, "ok")
}
