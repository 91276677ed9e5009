//! `/api`, `/apis` and below: the aggregated form, and the lists that older clients walk.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use pintle_machinery::resource::Subresource;
use pintle_machinery::{GroupVersion, Resource};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Set;
use crate::error::{ApiError, ApiResult};
use crate::http::negotiation::{self, Form};
use crate::http::{Response, empty_body, json as respond_json};

/// Which root, and whether in the beta version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    core: bool,
    beta: bool,
}

/// An encoded document and its hash.
#[derive(Debug)]
pub(super) struct Document {
    bytes: bytes::Bytes,
    etag: String,
}

impl Set {
    /// Answers a path below `/api` or `/apis`.
    pub(crate) fn discovery(&self, segments: &[&str], headers: &HeaderMap) -> ApiResult<Response> {
        match segments {
            [root @ ("api" | "apis")] => {
                let core = *root == "api";
                match negotiation::for_discovery(headers)?.form {
                    Form::Discovery { beta } => Ok(self.aggregated(Key { core, beta }, headers)),
                    _ if core => Ok(legacy(&json!({
                        "kind": "APIVersions",
                        "versions": self.mapper.versions(""),
                        "serverAddressByClientCIDRs": [],
                    }))),
                    _ => Ok(legacy(&self.group_list())),
                }
            }
            ["api", version] => self.resource_list(&GroupVersion::new("", *version)),
            ["apis", group] if self.mapper.groups().iter().any(|known| known == group) => {
                let mut value = self.group(group);
                value["kind"] = "APIGroup".into();
                value["apiVersion"] = "v1".into();
                Ok(legacy(&value))
            }
            ["apis", group, version] => self.resource_list(&GroupVersion::new(*group, *version)),
            _ => Err(ApiError::resource_not_found()),
        }
    }

    fn aggregated(&self, key: Key, headers: &HeaderMap) -> Response {
        let documents = self.aggregated.get_or_init(|| {
            let keys = [true, false]
                .into_iter()
                .flat_map(|core| [true, false].map(|beta| Key { core, beta }));
            keys.map(|key| (key, self.aggregate(key))).collect()
        });
        let document =
            documents.iter().find(|(known, _)| *known == key).map(|(_, document)| document);
        let document = document.expect("both roots were made in both versions");
        let version = if key.beta { "v2beta1" } else { "v2" };
        let media =
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let known = headers
            .get(IF_NONE_MATCH)
            .is_some_and(|given| given.as_bytes() == document.etag.as_bytes());
        let mut response = if known {
            let mut response = Response::new(empty_body());
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
            response
        } else {
            Response::new(crate::http::full_body(document.bytes.clone()))
        };
        let headers = response.headers_mut();
        let header =
            |text: &str| HeaderValue::from_str(text).expect("letters and digits of our own");
        headers.insert(CONTENT_TYPE, header(&media));
        headers.insert(ETAG, header(&document.etag));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        response
    }

    fn aggregate(&self, key: Key) -> Document {
        let groups = self.mapper.groups();
        let items: Vec<Value> = groups
            .iter()
            .filter(|group| group.is_empty() == key.core)
            .map(|group| self.aggregated_group(group))
            .collect();
        let version = if key.beta { "v2beta1" } else { "v2" };
        let value = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {},
            "items": items,
        });
        let bytes = serde_json::to_vec(&value).expect("strings and lists always encode");
        let etag = format!("\"{}\"", hex(&Sha256::digest(&bytes)));
        Document { bytes: bytes.into(), etag }
    }

    fn aggregated_group(&self, group: &str) -> Value {
        let versions: Vec<Value> = self
            .mapper
            .versions(group)
            .into_iter()
            .map(|version| {
                let resources = self.mapper.group_version(&GroupVersion::new(group, &*version));
                let resources: Vec<Value> =
                    resources.into_iter().map(|resource| aggregated_resource(resource)).collect();
                json!({ "version": version, "resources": resources, "freshness": "Current" })
            })
            .collect();
        let metadata = if group.is_empty() {
            json!({ "creationTimestamp": null })
        } else {
            json!({ "name": group, "creationTimestamp": null })
        };
        json!({ "metadata": metadata, "versions": versions })
    }

    fn group_list(&self) -> Value {
        let groups = self.mapper.groups();
        let groups: Vec<Value> = groups
            .iter()
            .filter(|group| !group.is_empty())
            .map(|group| self.group(group))
            .collect();
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
    }

    fn group(&self, group: &str) -> Value {
        let versions: Vec<Value> = self
            .mapper
            .versions(group)
            .into_iter()
            .map(|version| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
            .collect();
        json!({ "name": group, "preferredVersion": versions.first(), "versions": versions })
    }

    fn resource_list(&self, gv: &GroupVersion) -> ApiResult<Response> {
        let resources = self.mapper.group_version(gv);
        if resources.is_empty() {
            return Err(ApiError::resource_not_found());
        }
        let entries: Vec<Value> = resources
            .into_iter()
            .flat_map(|resource| {
                let below =
                    resource.subresources.iter().map(|below| subresource_entry(resource, below));
                std::iter::once(resource_entry(resource)).chain(below)
            })
            .collect();
        Ok(legacy(&json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": gv.to_string(),
            "resources": entries,
        })))
    }
}

fn legacy(value: &Value) -> Response {
    respond_json(200, value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn scope(resource: &Resource) -> &'static str {
    if resource.namespaced { "Namespaced" } else { "Cluster" }
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": { "group": resource.group, "version": resource.version, "kind": resource.kind },
        "scope": scope(resource),
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    let lists = [("shortNames", &resource.short_names), ("categories", &resource.categories)];
    for (field, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        value[field] = json!(list);
    }
    if !resource.subresources.is_empty() {
        let below = resource.subresources.iter().map(|below| {
            json!({
                "subresource": below.name,
                "responseKind": { "group": below.kind.group, "version": below.kind.version, "kind": below.kind.kind },
                "verbs": below.verbs,
            })
        });
        value["subresources"] = below.collect();
    }
    value
}

fn resource_entry(resource: &Resource) -> Value {
    let mut value = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    let lists = [("shortNames", &resource.short_names), ("categories", &resource.categories)];
    for (field, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        value[field] = json!(list);
    }
    if resource.storage.is_some() {
        let hash =
            Sha256::digest(format!("{}/{}/{}", resource.group, resource.version, resource.kind));
        use base64::Engine as _;
        value["storageVersionHash"] =
            base64::engine::general_purpose::STANDARD.encode(&hash[..8]).into();
    }
    value
}

fn subresource_entry(resource: &Resource, below: &Subresource) -> Value {
    let mut value = json!({
        "name": format!("{}/{}", resource.plural, below.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": below.kind.kind,
        "verbs": below.verbs,
    });
    if below.kind.group != resource.group || below.kind.version != resource.version {
        value["group"] = below.kind.group.clone().into();
        value["version"] = below.kind.version.clone().into();
    }
    value
}
