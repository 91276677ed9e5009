//! Profiles on the client port and on the metrics port.

use std::io::Read;
use std::net::SocketAddr;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::Full;
use pintle_store::{Config, HeapSample, Held, Pprof};
use pintle_store_api::Store;
use pprof::protos::{Message, Profile};

use crate::support::{Cluster, eventually, put};
use crate::web::{Answer, fetch, post, request, send};
use pintle_testing::free_port;

const PATHS: [&str; 5] = [
    "/debug/pprof",
    "/debug/pprof/",
    "/debug/pprof/profile?seconds=1",
    "/debug/pprof/heap",
    "/debug/pprof/cmdline",
];

/// A member that serves metrics on a port of their own.
async fn member(pprof: Option<Pprof>, tweak: impl Fn(&mut Config)) -> Cluster {
    Cluster::found(1, |config| {
        config.metrics_listen = Some(SocketAddr::from(([127, 0, 0, 1], free_port())));
        config.web.pprof = pprof;
        tweak(config);
    })
    .await
}

fn ports(cluster: &Cluster) -> [String; 2] {
    let metrics = cluster.configs[0].metrics_listen.expect("given");
    [cluster.client_url(0), format!("http://{metrics}")]
}

fn heap(sample: HeapSample) -> Option<Pprof> {
    Some(Pprof { heap: Some(sample) })
}

async fn unpacked(answer: Answer) -> Profile {
    assert_eq!(answer.code, 200);
    let mut bytes = Vec::new();
    GzDecoder::new(&*answer.bytes().await).read_to_end(&mut bytes).expect("gzip");
    Profile::decode(&*bytes).expect("a profile")
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().expect("text"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_there_unless_it_was_asked_for() {
    let cluster = member(None, |_| {}).await;
    for port in ports(&cluster) {
        for path in PATHS {
            let answer = fetch(&port, path).await;
            assert_eq!(answer.code, 404, "{port}{path}");
            assert_eq!(answer.text().await, "404 page not found\n");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_are_served_as_go_serves_them() {
    let seven = || Ok(vec![Held { stack: vec![an_address()], bytes: 7 }]);
    let cluster = member(heap(seven), |_| {}).await;
    for port in ports(&cluster) {
        let moved = fetch(&port, "/debug/pprof").await;
        assert_eq!((moved.code, header(&moved, "location")), (301, "/debug/pprof/"));
        let index = fetch(&port, "/debug/pprof/").await;
        assert_eq!(header(&index, "content-type"), "text/html; charset=utf-8");
        let index = index.text().await;
        for name in ["profile", "heap", "cmdline"] {
            assert!(index.contains(&format!(">{name}</a>")), "{index}");
        }
        let cmdline = fetch(&port, "/debug/pprof/cmdline").await;
        assert_eq!(header(&cmdline, "content-type"), "text/plain; charset=utf-8");
        let arguments: Vec<String> = std::env::args().collect();
        assert_eq!(cmdline.text().await, arguments.join("\0"));

        let heap = fetch(&port, "/debug/pprof/heap").await;
        assert_eq!(header(&heap, "content-type"), "application/octet-stream");
        assert_eq!(header(&heap, "content-disposition"), "attachment; filename=\"heap\"");
        assert_eq!(header(&heap, "x-content-type-options"), "nosniff");
        let heap = unpacked(heap).await;
        assert_eq!(heap.sample.len(), 1);
        assert_eq!(heap.sample[0].value, [7]);
        let kind = usize::try_from(heap.sample_type[0].ty).expect("an index");
        assert_eq!(heap.string_table[kind], "inuse_space");
    }
}

/// Within some function.
fn an_address() -> usize {
    an_address as *const () as usize + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_offered_is_refused() {
    let cluster = member(Some(Pprof::default()), |_| {}).await;
    let url = cluster.client_url(0);
    let length = |given: &str| format!("seconds must be from 1 to 300, not {given:?}\n");
    let no_text = "debug is not offered: the heap is told as it is, for pprof\n";
    let no_heap = "Could not read the heap: the allocator of this program does not sample\n";
    for (path, code, text) in [
        ("profile?seconds=0", 400, length("0")),
        ("profile?seconds=long", 400, length("long")),
        ("profile?seconds=301", 400, length("301")),
        ("heap?debug=1", 400, no_text.to_owned()),
        ("heap?debug=0", 501, no_heap.to_owned()),
        ("heap", 501, no_heap.to_owned()),
        ("goroutine", 404, "Unknown profile\n".to_owned()),
    ] {
        let answer = fetch(&url, &format!("/debug/pprof/{path}")).await;
        assert_eq!(answer.code, code, "{path}");
        assert_eq!(header(&answer, "x-go-pprof"), "1");
        assert_eq!(answer.text().await, text, "{path}");
    }
    assert_eq!(post(&url, "/debug/pprof/profile", "").await.code, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allocator_that_fails_says_why() {
    let cluster = member(heap(|| Err("no space left".to_owned())), |_| {}).await;
    let answer = fetch(&cluster.client_url(0), "/debug/pprof/heap").await;
    assert_eq!(answer.code, 500);
    assert_eq!(answer.text().await, "Could not read the heap: no space left\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_hosts_and_origins_see_no_profile() {
    let whitelist = |config: &mut Config| config.web.host_whitelist = vec!["localhost".to_owned()];
    let cluster = member(Some(Pprof::default()), whitelist).await;
    let [client, metrics] = ports(&cluster);
    let as_host = |host: &'static str, path: &'static str| {
        let request = http::Request::get(path).header("host", host);
        request.body(Full::<Bytes>::default()).expect("a request")
    };
    for port in [&client, &metrics] {
        for path in PATHS {
            let rebound = send(port, as_host("evil.example:2379", path)).await;
            assert_eq!(rebound.code, 421, "{port}{path}");
        }
        assert_eq!(fetch(port, "/debug/pprof/").await.code, 200);
    }
    let scraper = send(&metrics, as_host("m1.example:2381", "/metrics")).await;
    assert_eq!(scraper.code, 200, "scrapers may call it as they like");
    for method in ["GET", "OPTIONS"] {
        let page = request(method, "/debug/pprof/").header("origin", "https://page.example");
        let answer = send(&metrics, page.body(Full::default()).expect("a request")).await;
        assert_eq!(answer.headers.get("access-control-allow-origin"), None);
    }
}

async fn writes(store: &dyn Store) {
    loop {
        put(store, "a", "1").await.expect("written");
    }
}

/// The only test that samples the processors: the process has one sampler. Whether it knows the names of
/// functions is the affair of the program's own tests: linkers may strip this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_profile_of_the_processors_is_made_at_a_time() {
    let cluster = member(Some(Pprof::default()), |_| {}).await;
    let [url, metrics] = ports(&cluster);
    let long = || {
        let url = metrics.clone();
        tokio::spawn(async move { fetch(&url, "/debug/pprof/profile?seconds=300").await })
    };
    let mut first = long();
    // Which of them comes first is not known.
    let refused = loop {
        let second = fetch(&url, "/debug/pprof/profile?seconds=1").await;
        if second.code != 200 {
            break second;
        }
        if first.is_finished() {
            first = long();
        }
    };
    assert_eq!((refused.code, header(&refused, "x-go-pprof")), (500, "1"));
    let words = "Could not enable CPU profiling: cpu profiling already in use\n";
    assert_eq!(refused.text().await, words);
    // Who goes away ends what he asked for.
    first.abort();
    let next = eventually("another profile is made", || async {
        let next = fetch(&url, "/debug/pprof/profile?seconds=1").await;
        (next.code == 200).then_some(next)
    });
    let handle = cluster.handle(0);
    let next = tokio::select! {
        next = next => next,
        () = writes(&*handle) => unreachable!("never ends"),
    };
    assert_eq!(header(&next, "content-disposition"), "attachment; filename=\"profile\"");
    let profile = unpacked(next).await;
    assert!(!profile.sample.is_empty());
    assert_eq!(profile.period, 10_000_000, "a hundred times a second");
}
