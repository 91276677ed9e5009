//! Requests for resources: from the URL to the registry's operation, and its result to an answer.

use std::sync::Arc;

use futures::StreamExt as _;
use http::HeaderMap;
use http::header::USER_AGENT;
use pintle_apiserver_storage::{Freshness, ListQuery, Object};
use pintle_machinery::field_validation::{self, FieldValidation};
use pintle_machinery::status::Details;
use pintle_machinery::{GroupVersionKind, GroupVersionResource, Resource, defaults, object};
use serde_json::{Value, json};

use super::chain::Server;
use super::format::Format;
use super::negotiation::{self, content_type, decode_body};
use super::patch::Patch;
use super::{Request, Response, body, respond, watch};
use crate::admission::{Attributes, Operation};
use crate::authn::UserInfo;
use crate::connect::Endpoint;
use crate::error::{ApiError, ApiResult, from_storage};
use crate::registry::strategy::validating_subresources;
use crate::registry::{
    self, Context, DeleteOptions, Deleted, Preconditions, Selection, Update, Warnings, dry_run_of,
};
use crate::request_info::{Query, RequestInfo};

/// Deletes of one collection that run at the same time.
const COLLECTION_DELETES: usize = 16;

/// One request for a resource that exists.
struct Exchange {
    server: Arc<Server>,
    cx: Context,
    info: RequestInfo,
    headers: HeaderMap,
    format: Format,
}

/// Answers a request for a resource.
pub(super) async fn handle(
    server: &Arc<Server>,
    user: Arc<UserInfo>,
    info: RequestInfo,
    request: Request,
    warnings: Warnings,
) -> ApiResult<Response> {
    let gvr = GroupVersionResource::new(&*info.group, &*info.version, &*info.resource);
    let mapper = server.registry.mapper();
    let resource = mapper.get(&gvr).ok_or_else(ApiError::resource_not_found)?.clone();
    let cx = context(server, user, &info, &resource, request.headers(), warnings)?;
    let key = (info.group.clone(), info.resource.clone(), info.subresource.clone());
    match server.endpoints.get(&key) {
        Some(Endpoint::Connector(connector)) => return connector.connect(cx, info, request).await,
        Some(Endpoint::Action(action)) if info.verb == "create" => {
            let negotiated = negotiation::for_object(request.headers())?;
            let format = Format::new(&resource, negotiated, &info.query)?;
            let (head, incoming) = request.into_parts();
            let bytes = body::read(incoming).await?;
            let mut value = action_body(&cx, &head.headers, &bytes)?;
            admit_action(&cx, &mut value).await?;
            let answer = action.create(&cx, value).await?;
            return format.write(201, &answer);
        }
        Some(Endpoint::Action(_)) => {
            return Err(ApiError::method_not_supported(&resource.group_resource(), &info.verb));
        }
        None => {}
    }
    check_served(&info, &resource)?;
    let negotiated = negotiation::for_object(request.headers())?;
    let format = Format::new(&resource, negotiated, &info.query)?;
    let (head, incoming) = request.into_parts();
    let exchange = Exchange { server: server.clone(), cx, info, headers: head.headers, format };
    match exchange.info.verb.as_str() {
        "get" => exchange.get().await,
        "list" => exchange.list().await,
        "watch" => exchange.watch().await,
        "create" => exchange.create(&body::read(incoming).await?).await,
        "update" => exchange.update(&body::read(incoming).await?).await,
        "patch" => exchange.patch(&body::read(incoming).await?).await,
        "delete" => exchange.delete(&body::read(incoming).await?).await,
        "deletecollection" => exchange.delete_collection(&body::read(incoming).await?).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn context(
    server: &Arc<Server>,
    user: Arc<UserInfo>,
    info: &RequestInfo,
    resource: &Arc<Resource>,
    headers: &HeaderMap,
    warnings: Warnings,
) -> ApiResult<Context> {
    // `namespaces/x` itself is cluster-scoped, though its URL names a namespace.
    let namespace = if resource.namespaced { info.namespace.clone() } else { String::new() };
    let misplaced =
        !resource.namespaced && !info.namespace.is_empty() && info.resource != "namespaces";
    let homeless = resource.namespaced
        && info.namespace.is_empty()
        && (!info.name.is_empty() && info.verb != "list" && info.verb != "watch");
    if misplaced || homeless {
        return Err(ApiError::resource_not_found());
    }
    let name = if info.is_collection() { String::new() } else { info.name.clone() };
    Ok(Context {
        registry: server.registry.clone(),
        user,
        resource: resource.clone(),
        namespace,
        name,
        subresource: info.subresource.clone(),
        dry_run: dry_run_of(info.query.all("dryRun"))?,
        field_manager: field_manager(&info.query, headers)?,
        warnings,
    })
}

/// `fieldManager`, else the program's name from the user agent.
fn field_manager(query: &Query, headers: &HeaderMap) -> ApiResult<String> {
    const LENGTH_MAX: usize = 128;
    if let Some(manager) = query.non_empty("fieldManager") {
        if manager.len() > LENGTH_MAX {
            return Err(ApiError::unprocessable(format!(
                "fieldManager: Too long: may not be more than {LENGTH_MAX} bytes"
            )));
        }
        return Ok(manager.to_owned());
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let program: String =
        agent.split('/').next().unwrap_or_default().chars().take(LENGTH_MAX).collect();
    Ok(if program.is_empty() { "unknown".to_owned() } else { program })
}

/// 404 for an unknown subresource, 405 for a verb that it has not.
fn check_served(info: &RequestInfo, resource: &Resource) -> ApiResult<()> {
    let verbs = if info.subresource.is_empty() {
        Some(&resource.verbs)
    } else {
        resource.subresource(&info.subresource).map(|below| &below.verbs)
    };
    let Some(verbs) = verbs else { return Err(ApiError::resource_not_found()) };
    if verbs.contains(&info.verb) {
        return Ok(());
    }
    if validating_subresources(&resource.group, &resource.plural)
        .contains(&info.subresource.as_str())
    {
        return Ok(());
    }
    Err(ApiError::method_not_supported(&resource.group_resource(), &info.verb))
}

/// The body of a review, binding, eviction or token request.
fn action_body(cx: &Context, headers: &HeaderMap, bytes: &[u8]) -> ApiResult<Value> {
    let mut value = decode_body(headers, bytes)?.value;
    let kind = cx
        .resource
        .subresource(&cx.subresource)
        .map_or_else(|| cx.resource.gvk(), |below| below.kind.clone());
    let given = GroupVersionKind::of(&value).unwrap_or_default();
    // Evictions came in two versions; both are understood.
    if given.kind != kind.kind || given.group != kind.group {
        registry::check_type(&kind, &mut value)?;
    }
    if cx.subresource.is_empty() {
        defaults::set_defaults(&mut value, &cx.resource);
    }
    Ok(value)
}

/// What is answered and not stored passes admission like a create.
async fn admit_action(cx: &Context, value: &mut Value) -> ApiResult<()> {
    let options = serde_json::json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"});
    let mut attributes = Attributes {
        operation: Operation::Create,
        object: Some(value),
        old_object: None,
        options: &options,
    };
    cx.registry.admission().admit(cx, &mut attributes).await?;
    cx.registry.admission().validate(cx, &attributes).await
}

impl Exchange {
    fn failed(&self, error: pintle_apiserver_storage::Error) -> ApiError {
        from_storage(error, &self.cx.group_resource(), &self.cx.name)
    }

    async fn read(&self, freshness: Freshness) -> ApiResult<Arc<Object>> {
        let cache = self.server.registry.cache_of(&self.cx.resource)?;
        let caches = self.server.registry.caches();
        let read = caches.get(&cache, &self.cx.namespace, &self.cx.name, freshness).await;
        read.map_err(|error| self.failed(error))?
            .ok_or_else(|| ApiError::not_found(&self.cx.group_resource(), &self.cx.name))
    }

    async fn get(&self) -> ApiResult<Response> {
        let version = self.info.query.get("resourceVersion").unwrap_or_default();
        let freshness = Freshness::of_get(version).map_err(|error| self.failed(error))?;
        let object = self.read(freshness).await?;
        if self.cx.subresource == "scale" {
            let value = registry::decode(&self.cx.resource, &object)?;
            return self.format.write(200, &registry::scale_of(&self.scale_paths(), &value));
        }
        self.format.cached(&object)
    }

    async fn list(&self) -> ApiResult<Response> {
        let query = &self.info.query;
        let selection = Selection::parse(query, &self.cx.resource)?;
        let limit = match query.non_empty("limit") {
            Some(text) => text
                .parse::<usize>()
                .map_err(|_| ApiError::bad_request(format!("invalid limit: \"{text}\"")))?,
            None => 0,
        };
        let freshness = Freshness::of_list(
            query.get("resourceVersion").unwrap_or_default(),
            query.get("resourceVersionMatch").unwrap_or_default(),
            limit > 0,
        )
        .map_err(|error| self.failed(error))?;
        let matches = |object: &Object| selection.matches(object);
        let listing = ListQuery {
            namespace: &self.cx.namespace,
            limit,
            continuation: query.get("continue").unwrap_or_default(),
            freshness,
            matches: (!selection.is_everything()).then_some(&matches),
        };
        let cache = self.server.registry.cache_of(&self.cx.resource)?;
        let listing = self.server.registry.caches().list(&cache, &listing).await;
        self.format.list(listing.map_err(|error| self.failed(error))?)
    }

    async fn watch(&self) -> ApiResult<Response> {
        let namespace = self.cx.namespace.clone();
        watch::watch(&self.server, &self.info, &namespace, self.format.clone()).await
    }

    fn scale_paths(&self) -> registry::ScalePaths {
        self.server.registry.scale_paths(&self.cx.resource)
    }

    fn field_validation(&self) -> ApiResult<FieldValidation> {
        FieldValidation::parse(self.info.query.get("fieldValidation").unwrap_or_default())
    }

    /// The body as an object of this kind, checked against its schema and defaulted.
    fn decode(&self, bytes: &[u8]) -> ApiResult<Value> {
        let decoded = decode_body(&self.headers, bytes)?;
        let mut value = decoded.value;
        registry::check_type(&self.cx.resource.gvk(), &mut value)?;
        let mode = self.field_validation()?;
        let warnings =
            field_validation::check(&mut value, decoded.duplicates, &self.cx.resource, mode)?;
        warnings.into_iter().for_each(|text| self.cx.warnings.add(text));
        defaults::set_defaults(&mut value, &self.cx.resource);
        Ok(value)
    }

    async fn create(&self, bytes: &[u8]) -> ApiResult<Response> {
        if !self.cx.name.is_empty() {
            return Err(ApiError::method_not_supported(&self.cx.group_resource(), "create"));
        }
        let value = self.decode(bytes)?;
        let mut cx = self.cx.clone();
        let created = registry::create(&mut cx, value, false).await?;
        self.format.object(201, &created)
    }

    async fn update(&self, bytes: &[u8]) -> ApiResult<Response> {
        if self.cx.subresource == "scale" {
            let scale = decode_body(&self.headers, bytes)?.value;
            return self.write_scale(&mut |_| Ok(scale.clone())).await;
        }
        let value = self.decode(bytes)?;
        if object::name(&value).is_empty() {
            return Err(ApiError::bad_request("name must be provided"));
        }
        let mut transform = |_: Option<&Value>| Ok(value.clone());
        self.write(&mut transform, false, false, true).await
    }

    async fn patch(&self, bytes: &[u8]) -> ApiResult<Response> {
        let mode = self.field_validation()?;
        let query = &self.info.query;
        let force = query.non_empty("force").map(|_| query.flag("force"));
        let media = content_type(&self.headers);
        let mut patch = Patch::decode(&media, bytes, &self.cx.resource, force)?;
        if patch.is_apply() && query.non_empty("fieldManager").is_none() {
            return Err(ApiError::unprocessable(
                "fieldManager: Required value: is required for apply patch",
            ));
        }
        patch.check(&self.cx, mode)?;
        if self.cx.subresource == "scale" {
            return self.write_scale(&mut |old| patch.patched(&self.cx.resource, old)).await;
        }
        let cx = self.cx.clone();
        let apply = patch.is_apply();
        let mut transform = |old: Option<&Value>| patch.apply(&cx, old, mode);
        self.write(&mut transform, apply, apply, false).await
    }

    async fn write(
        &self,
        transform: registry::Transform<'_>,
        creates: bool,
        owned: bool,
        replaces: bool,
    ) -> ApiResult<Response> {
        let mut cx = self.cx.clone();
        let request =
            Update { transform, preconditions: Preconditions::default(), creates, owned, replaces };
        let (value, created) = registry::update(&mut cx, request).await?;
        self.format.object(if created { 201 } else { 200 }, &value)
    }

    /// Changes the replicas of the object behind a scale.
    async fn write_scale(
        &self,
        change: &mut (dyn FnMut(&Value) -> ApiResult<Value> + Send),
    ) -> ApiResult<Response> {
        let paths = self.scale_paths();
        let mut cx = self.cx.clone();
        // The write is one to the object itself, as its strategy sees it.
        cx.subresource = String::new();
        let missing = ApiError::not_found(&self.cx.group_resource(), &self.cx.name);
        let mut transform = |old: Option<&Value>| {
            let old = old.ok_or_else(|| missing.clone())?;
            let scale = change(&registry::scale_of(&paths, old))?;
            let name = object::name(&scale);
            if !name.is_empty() && name != object::name(old) {
                return Err(ApiError::bad_request(
                    "the name of the Scale does not match the name on the URL",
                ));
            }
            registry::set_scale(&paths, old, &scale)
        };
        let request = Update {
            transform: &mut transform,
            preconditions: Preconditions::default(),
            creates: false,
            owned: false,
            replaces: false,
        };
        let (value, _) = registry::update(&mut cx, request).await?;
        self.format.write(200, &registry::scale_of(&paths, &value))
    }

    fn delete_options(&self, bytes: &[u8]) -> ApiResult<DeleteOptions> {
        let body =
            if bytes.is_empty() { None } else { Some(decode_body(&self.headers, bytes)?.value) };
        let mut options = DeleteOptions::read(body.as_ref(), &self.info.query)?;
        options.dry_run |= self.cx.dry_run;
        Ok(options)
    }

    async fn delete(&self, bytes: &[u8]) -> ApiResult<Response> {
        let options = self.delete_options(bytes)?;
        let mut cx = self.cx.clone();
        cx.dry_run |= options.dry_run;
        let Deleted { object, removed } = registry::delete(&cx, &options).await?;
        if removed && !returns_object(&cx.resource) {
            let details = Details {
                name: cx.name.clone(),
                group: cx.resource.group.clone(),
                kind: cx.resource.plural.clone(),
                uid: object::uid(&object).to_owned(),
                ..Details::default()
            };
            return Ok(respond::status(&ApiError::success(Some(details))));
        }
        self.format.object(200, &object)
    }

    async fn delete_collection(&self, bytes: &[u8]) -> ApiResult<Response> {
        let options = self.delete_options(bytes)?;
        let selection = Selection::parse(&self.info.query, &self.cx.resource)?;
        let cache = self.server.registry.cache_of(&self.cx.resource)?;
        let matches = |object: &Object| selection.matches(object);
        let query = ListQuery {
            namespace: &self.cx.namespace,
            limit: 0,
            continuation: "",
            freshness: Freshness::Consistent,
            matches: Some(&matches),
        };
        let listing = self.server.registry.caches().list(&cache, &query).await;
        let listing = listing.map_err(|error| self.failed(error))?;
        let deletes = listing.objects.iter().map(|object| {
            let mut cx = self.cx.clone();
            cx.namespace = object.namespace().to_owned();
            cx.name = object.name().to_owned();
            cx.dry_run |= options.dry_run;
            let options = options.clone();
            async move { registry::delete(&cx, &options).await }
        });
        let deletes: Vec<_> = deletes.collect();
        let results: Vec<ApiResult<Deleted>> =
            futures::stream::iter(deletes).buffered(COLLECTION_DELETES).collect().await;
        let mut items = Vec::with_capacity(results.len());
        for result in results {
            match result {
                Ok(deleted) => items.push(deleted.object),
                Err(error) if error.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let meta = json!({ "resourceVersion": listing.revision.to_string() });
        self.format.write(200, &self.format.formed_list(&items, meta))
    }
}

/// Kinds whose delete answers the object, as upstream.
fn returns_object(resource: &Resource) -> bool {
    matches!(
        (&*resource.group, &*resource.plural),
        (
            "",
            "pods"
                | "services"
                | "serviceaccounts"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "resourcequotas"
        ) | ("storage.k8s.io", "storageclasses" | "csidrivers" | "csinodes" | "volumeattachments")
            | ("policy", "podsecuritypolicies")
    )
}
