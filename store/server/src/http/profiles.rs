//! Profiles of the running process under `/debug/pprof/`, for `go tool pprof`: the paths, parameters
//! and refusals of Go's own, which etcd serves with `enable-pprof`. Without it there is nothing here.

mod cpu;
mod heap;

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::protos::{Message, Profile};

use self::cpu::CpuError;
pub use self::heap::{HeapSample, Held};
use super::only_get;

const SECONDS_DEFAULT: u64 = 30;
/// The longest profile. Who wants to see more asks again.
const SECONDS_MAX: u64 = 300;

const TEXT: (HeaderName, &str) = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
const NO_SNIFFING: (HeaderName, &str) = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");
/// By this, `go tool pprof` knows that the text tells what is wrong.
const FROM_PPROF: (HeaderName, &str) = (HeaderName::from_static("x-go-pprof"), "1");

const INDEX: &str = "<html>
<head><title>/debug/pprof/</title></head>
<body>
<p>Profiles of this process, to be read with <code>go tool pprof</code>:</p>
<ul>
<li><a href=\"profile?seconds=30\">profile</a>: where the processors' time goes, for so many seconds</li>
<li><a href=\"heap\">heap</a>: who has allocated the memory that is in use</li>
<li><a href=\"cmdline\">cmdline</a>: how the process was started</li>
</ul>
</body>
</html>
";

/// What profiles are made of that the store cannot know by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pprof {
    /// Asks the allocator, which is the program's choice; `None`: it does not sample.
    pub heap: Option<HeapSample>,
}

type Parameters = Query<HashMap<String, String>>;

pub(super) fn router(pprof: Pprof) -> Router {
    Router::new()
        .route("/debug/pprof", any(moved))
        .route("/debug/pprof/", any(index))
        .route("/debug/pprof/cmdline", any(cmdline))
        .route("/debug/pprof/profile", any(profile))
        .route("/debug/pprof/heap", any(heap))
        .route("/debug/pprof/{name}", any(unknown))
        .route_layer(from_fn(gets_only))
        .with_state(pprof)
}

async fn gets_only(request: Request, next: Next) -> Response {
    match only_get(request.method()) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

async fn moved() -> Response {
    (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, "/debug/pprof/")]).into_response()
}

async fn index() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), NO_SNIFFING], INDEX).into_response()
}

async fn unknown() -> Response {
    refusal(StatusCode::NOT_FOUND, "Unknown profile")
}

/// The arguments, with a zero byte between them.
async fn cmdline() -> Response {
    let arguments: Vec<Vec<u8>> =
        std::env::args_os().map(|argument| argument.as_bytes().to_vec()).collect();
    ([TEXT, NO_SNIFFING], arguments.join(&0)).into_response()
}

async fn profile(Query(parameters): Parameters) -> Response {
    let length = match length(&parameters) {
        Ok(length) => length,
        Err(reason) => return refusal(StatusCode::BAD_REQUEST, reason),
    };
    match cpu::sample(length).await {
        Ok(profile) => file("profile", profile),
        Err(error) => cpu_refusal(&error),
    }
}

fn length(parameters: &HashMap<String, String>) -> Result<Duration, String> {
    let seconds = match parameters.get("seconds") {
        None => SECONDS_DEFAULT,
        Some(text) => match text.parse() {
            Ok(seconds @ 1..=SECONDS_MAX) => seconds,
            _ => return Err(format!("seconds must be from 1 to {SECONDS_MAX}, not {text:?}")),
        },
    };
    Ok(Duration::from_secs(seconds))
}

fn cpu_refusal(error: &CpuError) -> Response {
    let what = format!("Could not enable CPU profiling: {error}");
    refusal(StatusCode::INTERNAL_SERVER_ERROR, what)
}

async fn heap(State(pprof): State<Pprof>, Query(parameters): Parameters) -> Response {
    for name in ["debug", "seconds"] {
        if parameters.get(name).is_some_and(|value| value != "0") {
            let what = format!("{name} is not offered: the heap is told as it is, for pprof");
            return refusal(StatusCode::BAD_REQUEST, what);
        }
    }
    let Some(sample) = pprof.heap else {
        let what = "Could not read the heap: the allocator of this program does not sample";
        return refusal(StatusCode::NOT_IMPLEMENTED, what);
    };
    let made =
        tokio::task::spawn_blocking(move || sample().map(|held| pack(&heap::profile(&held))));
    match made.await {
        Ok(Ok(profile)) => file("heap", profile),
        Ok(Err(reason)) => heap_refusal(&reason),
        Err(crash) => heap_refusal(&crash),
    }
}

fn heap_refusal(reason: &dyn Display) -> Response {
    refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("Could not read the heap: {reason}"))
}

/// A profile as pprof stores it.
fn pack(profile: &Profile) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    let written = packed.write_all(&profile.encode_to_vec());
    written.and_then(|()| packed.finish()).expect("memory takes every byte")
}

fn file(name: &str, content: Vec<u8>) -> Response {
    let disposition = (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""));
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), NO_SNIFFING];
    ([disposition], headers, content).into_response()
}

fn refusal(code: StatusCode, what: impl Display) -> Response {
    (code, [TEXT, NO_SNIFFING, FROM_PPROF], format!("{what}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_makes_no_sense_is_refused() {
        let asked =
            |seconds: &str| length(&HashMap::from([("seconds".to_owned(), seconds.to_owned())]));
        assert_eq!(length(&HashMap::new()), Ok(Duration::from_secs(30)));
        assert_eq!(asked("1"), Ok(Duration::from_secs(1)));
        assert_eq!(asked("300"), Ok(Duration::from_secs(300)));
        for bad in ["", "0", "-1", "301", "1.5", "ten"] {
            let refused = asked(bad).expect_err("no length");
            assert_eq!(refused, format!("seconds must be from 1 to 300, not {bad:?}"));
        }
    }
}
