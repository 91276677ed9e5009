//! Who may ask over plain HTTP: the host that a page must name (against DNS rebinding,
//! CVE-2018-5702), and the origins whose pages may read the answers (CORS). gRPC passes: no page
//! can speak it.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use super::{WebConfig, is_grpc};

#[derive(Debug)]
struct Rules {
    hosts: Names,
    /// `None`: no page of another origin may read an answer.
    origins: Option<Names>,
    /// Whoever can make a certificate for a name owns it.
    tls: bool,
}

/// A list in which `*`, like no entry at all, stands for everything.
#[derive(Debug)]
struct Names(HashSet<String>);

impl Names {
    fn new(names: &[String]) -> Self {
        Self(names.iter().cloned().collect())
    }

    fn everything(&self) -> bool {
        self.0.is_empty() || self.0.contains("*")
    }

    fn holds(&self, name: &str) -> bool {
        self.everything() || self.0.contains(name)
    }
}

pub(super) fn guard(routes: Router, config: &WebConfig, tls: bool) -> Router {
    let hosts = Names::new(&config.host_whitelist);
    let rules = Rules { hosts, origins: Some(Names::new(&config.cors)), tls };
    routes.layer(from_fn_with_state(Arc::new(rules), check))
}

/// For a port without TLS whose answers are no page's business.
pub(super) fn guard_from_pages(routes: Router, config: &WebConfig) -> Router {
    let hosts = Names::new(&config.host_whitelist);
    let rules = Rules { hosts, origins: None, tls: false };
    routes.route_layer(from_fn_with_state(Arc::new(rules), check))
}

async fn check(State(rules): State<Arc<Rules>>, request: Request, next: Next) -> Response {
    if is_grpc(&request) {
        return next.run(request).await;
    }
    let host = host(&request);
    if !rules.tls && !rules.hosts.holds(&host) {
        tracing::warn!(host, "refused a request that names another host");
        return (StatusCode::MISDIRECTED_REQUEST, misdirected(&host)).into_response();
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::OK.into_response(),
        _ => next.run(request).await,
    };
    if let Some(origin) = rules.allowed_origin(origin) {
        let headers = response.headers_mut();
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let allowed = HeaderValue::from_static("accept, content-type, authorization");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    response
}

impl Rules {
    fn allowed_origin(&self, origin: Option<HeaderValue>) -> Option<HeaderValue> {
        let origins = self.origins.as_ref()?;
        if origins.everything() {
            return Some(HeaderValue::from_static("*"));
        }
        origin.filter(|origin| origin.to_str().is_ok_and(|origin| origins.holds(origin)))
    }
}

/// The host without its port.
fn host(request: &Request) -> String {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let whole = authority.or(named).unwrap_or_default();
    match whole.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            host.trim_start_matches('[').trim_end_matches(']').to_owned()
        }
        _ => whole.to_owned(),
    }
}

fn misdirected(host: &str) -> String {
    format!(
        "The Host header names {host:?}, which this member does not answer to without TLS.\n\
         Either ask over TLS, or start the member with --host-whitelist {host:?} among its flags.\n\
         This keeps web pages from reaching it by a name of their own (CVE-2018-5702).\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Names {
        Names::new(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_and_a_star_stand_for_everything() {
        assert!(names(&[]).holds("a"));
        assert!(names(&["b", "*"]).holds("a"));
        assert!(names(&["a"]).holds("a"));
        assert!(!names(&["a"]).holds("b"));
    }

    #[test]
    fn a_host_is_known_without_its_port() {
        for (given, expected) in [
            ("example.com:2379", "example.com"),
            ("example.com", "example.com"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:2379", "::1"),
        ] {
            let request = Request::builder().header(header::HOST, given);
            let request = request.body(axum::body::Body::empty()).expect("a request");
            assert_eq!(host(&request), expected);
        }
    }

    #[test]
    fn an_origin_is_answered_by_name_unless_all_are_allowed() {
        let rules =
            |cors: &[&str]| Rules { hosts: names(&[]), origins: Some(names(cors)), tls: false };
        let page = || Some(HeaderValue::from_static("https://a"));
        assert_eq!(rules(&["*"]).allowed_origin(None), Some(HeaderValue::from_static("*")));
        assert_eq!(rules(&["https://a"]).allowed_origin(page()), page());
        assert_eq!(rules(&["https://b"]).allowed_origin(page()), None);
        assert_eq!(rules(&["https://b"]).allowed_origin(None), None);
        let nobody = Rules { origins: None, ..rules(&[]) };
        assert_eq!(nobody.allowed_origin(page()), None);
    }
}
