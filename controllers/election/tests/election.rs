//! Candidates against an apiserver that knows one Lease, on paused time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use parking_lot::Mutex;
use pintle_election::{Config, LEASE_DURATION, POLL_PERIOD, RENEW_DEADLINE, run_while_leading};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// One Lease behind the REST verbs that election uses, with optimistic concurrency.
#[derive(Default)]
struct Server {
    lease: Mutex<Option<Value>>,
    version: AtomicUsize,
    writes: AtomicUsize,
}

impl Server {
    fn answer(&self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let mut lease = self.lease.lock();
        let status = |code: StatusCode, reason: &str| {
            (
                code,
                json!({"kind": "Status", "code": code.as_u16(), "reason": reason, "message": reason, "status": "Failure"}),
            )
        };
        match (method.as_str(), lease.as_ref()) {
            ("GET", None) => status(StatusCode::NOT_FOUND, "NotFound"),
            ("GET", Some(lease)) => (StatusCode::OK, lease.clone()),
            ("POST", Some(_)) => status(StatusCode::CONFLICT, "AlreadyExists"),
            (_, old) => {
                let mut new: Value = serde_json::from_slice(body).unwrap();
                let version = |v: &Value| v["metadata"]["resourceVersion"].clone();
                if old.is_some_and(|old| version(old) != version(&new)) {
                    return status(StatusCode::CONFLICT, "Conflict");
                }
                let next = self.version.fetch_add(1, Ordering::Relaxed) + 1;
                new["metadata"]["resourceVersion"] = json!(next.to_string());
                self.writes.fetch_add(1, Ordering::Relaxed);
                *lease = Some(new.clone());
                (StatusCode::OK, new)
            }
        }
    }

    fn spec(&self) -> Value {
        self.lease.lock().as_ref().map(|l| l["spec"].clone()).unwrap_or_default()
    }

    fn holder(&self) -> String {
        self.spec()["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }
}

/// A candidate with a network that can be cut.
struct Candidate {
    name: &'static str,
    cut: Arc<AtomicBool>,
    leading: Arc<AtomicBool>,
    terms: Arc<AtomicUsize>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Candidate {
    fn start(server: &Arc<Server>, name: &'static str) -> Self {
        let cut = Arc::new(AtomicBool::new(false));
        let leading = Arc::new(AtomicBool::new(false));
        let terms = Arc::new(AtomicUsize::new(0));
        let shutdown = CancellationToken::new();
        let (server, down) = (server.clone(), cut.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, down) = (server.clone(), down.clone());
            async move {
                if down.load(Ordering::Relaxed) {
                    futures::future::pending::<()>().await;
                }
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let (status, value) = server.answer(&parts.method, &body);
                let bytes = serde_json::to_vec(&value).unwrap();
                let response = Response::builder().status(status).body(Body::from(bytes));
                Ok::<_, std::convert::Infallible>(response.unwrap())
            }
        });
        let client = kube::Client::new(service, "default");
        let config = Config { client, lease_name: "kube-scheduler".into(), identity: name.into() };
        let (flag, count) = (leading.clone(), terms.clone());
        let work = move |term: CancellationToken| {
            let (flag, count) = (flag.clone(), count.clone());
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                flag.store(true, Ordering::Relaxed);
                term.cancelled().await;
                flag.store(false, Ordering::Relaxed);
            }
        };
        let task = tokio::spawn(run_while_leading(config, shutdown.clone(), work));
        Self { name, cut, leading, terms, shutdown, task }
    }

    fn leads(&self) -> bool {
        self.leading.load(Ordering::Relaxed)
    }
}

/// Waits for a condition, and says how long it took.
async fn until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn one_candidate_leads_and_keeps_renewing() {
    let server = Arc::new(Server::default());
    let a = Candidate::start(&server, "a");
    until("a leads", || a.leads()).await;
    let b = Candidate::start(&server, "b");
    let before = server.writes.load(Ordering::Relaxed);
    sleep(Duration::from_secs(10)).await;
    assert!(a.leads() && !b.leads());
    let renewals = server.writes.load(Ordering::Relaxed) - before;
    assert!((18..=22).contains(&renewals), "{renewals} renewals in 10 s");
    assert_eq!(server.spec()["leaseTransitions"], json!(0));
    assert_eq!(server.spec()["leaseDurationSeconds"], json!(2));
}

#[tokio::test(start_paused = true)]
async fn clean_stop_hands_over_within_one_poll() {
    let server = Arc::new(Server::default());
    let a = Candidate::start(&server, "a");
    until("a leads", || a.leads()).await;
    let b = Candidate::start(&server, "b");
    sleep(Duration::from_secs(3)).await;
    a.shutdown.cancel();
    a.task.await.unwrap();
    assert_eq!(server.holder(), "");
    let took = until("b leads", || b.leads()).await;
    assert!(took <= POLL_PERIOD + Duration::from_millis(5), "took {took:?}");
    assert_eq!(server.spec()["leaseTransitions"], json!(1));
}

#[tokio::test(start_paused = true)]
async fn crash_costs_the_lease_and_one_poll() {
    let server = Arc::new(Server::default());
    let a = Candidate::start(&server, "a");
    until("a leads", || a.leads()).await;
    let b = Candidate::start(&server, "b");
    sleep(Duration::from_secs(3)).await;
    a.task.abort();
    a.cut.store(true, Ordering::Relaxed);
    let took = until("b leads", || b.leads()).await;
    let most = LEASE_DURATION + POLL_PERIOD * 2;
    assert!(took <= most, "took {took:?}");
    assert_eq!(server.holder(), b.name);
}

#[tokio::test(start_paused = true)]
async fn cut_off_holder_stops_before_another_may_start() {
    let server = Arc::new(Server::default());
    let a = Candidate::start(&server, "a");
    until("a leads", || a.leads()).await;
    let b = Candidate::start(&server, "b");
    sleep(Duration::from_secs(3)).await;
    a.cut.store(true, Ordering::Relaxed);
    let stopped = until("a stops", || !a.leads()).await;
    assert!(stopped <= RENEW_DEADLINE + Duration::from_millis(5), "stopped after {stopped:?}");
    assert!(!b.leads());
    until("b leads", || b.leads()).await;
    a.cut.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(5)).await;
    assert!(b.leads() && !a.leads());
}

#[tokio::test(start_paused = true)]
async fn brief_outage_does_not_end_the_term() {
    let server = Arc::new(Server::default());
    let a = Candidate::start(&server, "a");
    until("a leads", || a.leads()).await;
    a.cut.store(true, Ordering::Relaxed);
    sleep(Duration::from_millis(600)).await;
    a.cut.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(5)).await;
    assert!(a.leads());
    assert_eq!(a.terms.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn at_most_one_leads_through_random_cuts() {
    let server = Arc::new(Server::default());
    let candidates: Vec<_> = ["a", "b", "c"].map(|name| Candidate::start(&server, name)).into();
    let mut seed = 0x9e37_79b9_u64;
    for _ in 0..400 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let one = &candidates[(seed >> 40) as usize % candidates.len()];
        one.cut.store((seed >> 33).is_multiple_of(3), Ordering::Relaxed);
        for _ in 0..((seed >> 50) % 60) {
            sleep(Duration::from_millis(10)).await;
            let leaders = candidates.iter().filter(|c| c.leads()).count();
            assert!(leaders <= 1, "{leaders} leaders");
        }
    }
    for candidate in &candidates {
        candidate.cut.store(false, Ordering::Relaxed);
    }
    until("somebody leads", || candidates.iter().any(Candidate::leads)).await;
}
