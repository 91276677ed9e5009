//! What a URL and a method ask for, in Kubernetes' terms; pure.

use http::Method;
use http::Uri;

/// The parsed query string; keys may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Splits and percent-decodes a query string.
    pub fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key, true), percent_decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value of `key`, unless it is empty.
    pub fn non_empty(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// All values of `key`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A boolean as Go's conversion reads it: present and neither `false` nor `0`.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// All pairs, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

/// `%41` → `A`; `+` → space in queries. Invalid UTF-8 is replaced.
pub fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => match bytes.get(at + 1..at + 3).and_then(hex_pair) {
                Some(byte) => {
                    out.push(byte);
                    at += 2;
                }
                None => out.push(b'%'),
            },
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (high, low) = (digit(pair[0])?, digit(pair[1])?);
    u8::try_from(high * 16 + low).ok()
}

/// What a request is about. For a path that is no resource only `path` and `verb` (the method in
/// lower case) are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource.
    pub is_resource_request: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; or the method.
    pub verb: String,
    /// The decoded path.
    pub path: String,
    /// `api` or `apis`.
    pub api_prefix: String,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, or empty. For the resource `namespaces` itself: its name.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Object name, or empty for collections.
    pub name: String,
    /// Path segments after the subresource (`proxy/…`).
    pub rest: Vec<String>,
    /// The query.
    pub query: Query,
}

impl RequestInfo {
    /// Reads method and URI. Never fails: what is no resource is a non-resource request.
    pub fn parse(method: &Method, uri: &Uri) -> Self {
        let query = Query::parse(uri.query().unwrap_or_default());
        let path = percent_decode(uri.path(), false);
        let segments: Vec<String> = uri
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode(segment, false))
            .collect();
        let verb = method.as_str().to_ascii_lowercase();
        let mut info = Self { path, query, verb, ..Self::default() };
        info.read_resource(method, &segments);
        info
    }

    /// `group/version`, or `version` for core.
    pub fn group_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    fn read_resource(&mut self, method: &Method, segments: &[String]) {
        let (group, version, mut rest) = match segments {
            [prefix, version, rest @ ..] if prefix == "api" && !rest.is_empty() => {
                ("", version, rest)
            }
            [prefix, group, version, rest @ ..] if prefix == "apis" && !rest.is_empty() => {
                (group.as_str(), version, rest)
            }
            _ => return,
        };
        self.is_resource_request = true;
        self.api_prefix = segments[0].clone();
        self.group = group.to_owned();
        self.version = version.clone();
        let mut legacy_watch = false;
        if rest[0] == "watch" && rest.len() > 1 {
            legacy_watch = true;
            rest = &rest[1..];
        }
        if rest[0] == "namespaces" && rest.len() > 1 {
            self.namespace = rest[1].clone();
            // Beyond the namespace's own subresources, the rest names a resource inside it.
            if rest.len() > 2 && !matches!(rest[2].as_str(), "status" | "finalize") {
                rest = &rest[2..];
            }
        }
        let mut parts = rest.iter();
        self.resource = parts.next().cloned().unwrap_or_default();
        self.name = parts.next().cloned().unwrap_or_default();
        self.subresource = parts.next().cloned().unwrap_or_default();
        self.rest = parts.cloned().collect();
        self.verb = self.resource_verb(method, legacy_watch);
        if self.name.is_empty() && matches!(self.verb.as_str(), "list" | "watch") {
            self.name = self.name_from_field_selector().unwrap_or_default();
        }
    }

    fn resource_verb(&self, method: &Method, legacy_watch: bool) -> String {
        let verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD if legacy_watch => "watch",
            Method::GET | Method::HEAD if !self.name.is_empty() => "get",
            Method::GET | Method::HEAD if self.query.flag("watch") => "watch",
            Method::GET | Method::HEAD => "list",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if self.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ => "",
        };
        verb.to_owned()
    }

    /// `metadata.name=x` of a list or watch authorizes like a request for that object.
    fn name_from_field_selector(&self) -> Option<String> {
        let selector = self.query.get("fieldSelector")?;
        selector.split(',').find_map(|term| {
            let name = term.strip_prefix("metadata.name=")?;
            let name = name.strip_prefix('=').unwrap_or(name);
            (!name.is_empty()).then(|| name.to_owned())
        })
    }

    /// Whether the request is about a collection (list, watch, deletecollection, create).
    pub fn is_collection(&self) -> bool {
        matches!(self.verb.as_str(), "list" | "watch" | "deletecollection" | "create")
            && self.subresource.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: Method, uri: &str) -> RequestInfo {
        RequestInfo::parse(&method, &uri.parse().expect("a valid test URI"))
    }

    #[test]
    fn paths_and_methods_become_verbs_and_names() {
        let cases = [
            (Method::GET, "/api/v1/pods", "list", "", "pods", "", ""),
            (Method::GET, "/api/v1/namespaces/a/pods?watch=true", "watch", "a", "pods", "", ""),
            (Method::GET, "/api/v1/namespaces/a/pods?watch=false", "list", "a", "pods", "", ""),
            (Method::GET, "/api/v1/namespaces/a/pods/p/log", "get", "a", "pods", "p", "log"),
            (
                Method::POST,
                "/api/v1/namespaces/a/pods/p/binding",
                "create",
                "a",
                "pods",
                "p",
                "binding",
            ),
            (Method::GET, "/api/v1/namespaces/a", "get", "a", "namespaces", "a", ""),
            (
                Method::PUT,
                "/api/v1/namespaces/a/finalize",
                "update",
                "a",
                "namespaces",
                "a",
                "finalize",
            ),
            (Method::GET, "/api/v1/namespaces", "list", "", "namespaces", "", ""),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection",
                "a",
                "deployments",
                "",
                "",
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch",
                "a",
                "deployments",
                "d",
                "scale",
            ),
            (Method::GET, "/api/v1/watch/nodes", "watch", "", "nodes", "", ""),
            (
                Method::GET,
                "/api/v1/nodes?fieldSelector=metadata.name%3Dn1",
                "list",
                "",
                "nodes",
                "n1",
                "",
            ),
        ];
        for (method, uri, verb, namespace, resource, name, subresource) in cases {
            let got = info(method, uri);
            assert!(got.is_resource_request, "{uri}");
            assert_eq!(
                (
                    got.verb.as_str(),
                    got.namespace.as_str(),
                    got.resource.as_str(),
                    got.name.as_str(),
                    got.subresource.as_str()
                ),
                (verb, namespace, resource, name, subresource),
                "{uri}"
            );
        }
    }

    #[test]
    fn discovery_and_health_are_no_resources() {
        for uri in [
            "/api",
            "/apis",
            "/api/v1",
            "/apis/apps/v1",
            "/apis/apps",
            "/healthz",
            "/openapi/v3/apis/apps/v1",
        ] {
            assert!(!info(Method::GET, uri).is_resource_request, "{uri}");
        }
    }

    #[test]
    fn proxy_keeps_the_rest_of_the_path() {
        let got = info(Method::GET, "/api/v1/nodes/n/proxy/stats/summary");
        assert_eq!(got.rest, ["stats", "summary"]);
    }
}
